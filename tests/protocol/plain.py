"""What llhttp, uvicorn's parser, reads in a head: the measure of what may be read without it."""

import contextlib

import httptools

from bellwire.protocol.plain_head import PlainHead, read_plain_head


class Parsed:
    """A request as a parser tells of it."""

    def __init__(self, data: bytes) -> None:
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.complete = False
        self.body = b""
        parser = httptools.HttpRequestParser(self)
        with contextlib.suppress(httptools.HttpParserUpgrade):
            parser.feed_data(data)
        self.method = parser.get_method()
        self.version = parser.get_http_version()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_headers_complete(self) -> None:
        self.complete = True


def check_plain(data: bytes) -> PlainHead | None:
    """Read ``data``; if it is plain, see that a parser reads the very same."""
    head = read_plain_head(data)
    if head is None:
        return None
    parsed = Parsed(data)
    assert (parsed.method, parsed.version, parsed.complete, parsed.body) == (b"GET", "1.1", True, b"")
    assert parsed.url == head.target
    assert {name.decode().lower(): value.decode() for name, value in parsed.fields} == head.headers
    assert [b"%b: %b" % field for field in parsed.fields] == head.fields.split(b"\r\n")
    return head
