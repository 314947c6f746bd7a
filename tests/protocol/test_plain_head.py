"""Heads that need no parser mean what a parser says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.protocol.plain_head import LONGEST
from tests.protocol.plain import check_plain

FIELDS = (
    b"Host: h:8000",
    b"Upgrade: websocket",
    b"Connection: keep-alive, Upgrade",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) x",
    b"Cookie: a=b; c={}",
)
LINE = b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1"
HEAD = b"\r\n".join((LINE, *FIELDS, b"", b""))


def test_a_head_as_clients_send_it_is_plain() -> None:
    head = check_plain(HEAD)
    assert head is not None
    assert head.target == b"/socket.io/?EIO=4&transport=websocket"
    assert head.fields == b"\r\n".join(FIELDS)
    assert head.headers["sec-websocket-version"] == "13"
    assert len(head.headers) == len(FIELDS)


@pytest.mark.parametrize(
    "data",
    [
        HEAD[:-1],
        HEAD + b"x",
        HEAD + HEAD,
        b"\r\n" + HEAD,
        HEAD.replace(b"\r\n", b"\n"),
        HEAD.replace(b"GET", b"POST"),
        HEAD.replace(b"1.1", b"1.0"),
        HEAD.replace(b" /", b" http://h/"),
        HEAD.replace(b"io/", b"io/#"),
        HEAD.replace(b"io/", "é".encode()),
        HEAD.replace(b"Host: h", b"Host:  h"),
        HEAD.replace(b"Host: h", b"Host:h"),
        HEAD.replace(b"Host: h", b"Host : h"),
        HEAD.replace(b"Host: h:8000", b"Host: "),
        HEAD.replace(b": 13", b": 13 "),
        HEAD.replace(b": 13", b": 1\t3"),
        HEAD.replace(b": 13", b": 13\xa0"),
        HEAD.replace(b"Host: h", b"Host: h\r\n folded"),
        HEAD.replace(b"Host: h", b"Host: h\0"),
        HEAD.replace(b"Host: ", b"host: x\r\nHOST: "),
        HEAD.replace(b"Host", b"Content-Length"),
        HEAD.replace(b"Host", b"transfer-encoding"),
        HEAD.replace(b"Cookie: ", b"Cookie: " + b"x" * LONGEST),
        HEAD[:-2] + b"".join(b"X%d: x\r\n" % n for n in range(64)) + b"\r\n",
        LINE + b"\r\n\r\n",
        b"",
    ],
)
def test_what_is_odd_is_left_to_a_parser(data: bytes) -> None:
    assert check_plain(data) is None


TOKENS = st.sampled_from([b"X-A", b"Upgrade", b"Connection", b"connection", b"Expect", b"Proxy-Connection", b"!#^`|~"])
VALUES = st.one_of(
    st.sampled_from([b"websocket", b"close", b"upgrade", b"h2c", b"keep-alive", b"100-continue", b"chunked", b"0"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1).map(str.encode),
    st.binary(max_size=8),
)
SEPARATORS = st.sampled_from([b": "] * 8 + [b":", b" : ", b":  ", b":\t"])
LINES = st.lists(st.tuples(TOKENS, SEPARATORS, VALUES).map(b"".join), max_size=6)
TARGETS = st.one_of(
    st.just(b"/"), st.text(st.characters(min_codepoint=33, max_codepoint=126)).map(lambda text: b"/" + text.encode())
)


@given(TARGETS, LINES)
def test_whatever_is_plain_a_parser_reads_so(target: bytes, lines: list[bytes]) -> None:
    check_plain(b"GET " + target + b" HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n")


@given(st.integers(0, len(HEAD)), st.integers(0, 8), st.binary(max_size=8))
def test_whatever_becomes_of_a_plain_head(at: int, removed: int, added: bytes) -> None:
    check_plain(HEAD[:at] + added + HEAD[at + removed :])
