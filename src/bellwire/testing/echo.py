"""A WebSocket echo for outside conformance suites: ``python -m bellwire.testing.echo --port N``.

Any path, permessage-deflate with the full window, messages up to 64 MiB in any number of fragments. It
prints its address when it listens; port 0 takes a free one. It is a tool for tests: it has no deadlines.
"""

import asyncio
import contextlib
import sys
from http import HTTPStatus
from typing import Final, cast

import click

from bellwire.protocol.deflate import negotiate
from bellwire.protocol.handshake import HandshakeError, build_response, check_upgrade
from bellwire.protocol.websocket import CLOSED, WebSocket

MAX_MESSAGE: Final = 64 * 1024 * 1024  # bytes
MAX_HEAD: Final = 16 * 1024  # bytes of request line and header fields

_SERVER: Final = (b"Server", b"bellwire-echo")


class Echo(asyncio.Protocol):
    """One connection: the opening handshake, then every message back to where it came from."""

    __slots__ = ("_head", "_transport", "_ws")

    def __init__(self) -> None:
        self._head = b""
        self._transport: asyncio.Transport
        self._ws: WebSocket | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Collect the request's head, then echo."""
        if self._ws is not None:
            self._echo(self._ws, data)
        elif not self._transport.is_closing():
            self._read_head(data)

    def pause_writing(self) -> None:
        """Read no more from a peer that does not read."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _read_head(self, data: bytes) -> None:
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end and len(head) <= MAX_HEAD:
            return
        self._head = b""
        try:
            if len(head) > MAX_HEAD:
                raise HandshakeError(431, f"the request's head is longer than {MAX_HEAD} bytes")
            self._ws = self._open(head)
        except HandshakeError as error:
            self._refuse(error)
        else:
            self._echo(self._ws, rest)

    def _open(self, head: bytes) -> WebSocket:
        method, version, fields = parse_head(head)
        key = check_upgrade(method, version, fields)
        offer = fields.get(b"sec-websocket-extensions", b"").decode("latin-1")
        deflate, extensions = negotiate(offer, max_window_bits=15) or (None, None)
        self._transport.write(build_response(key, extensions=extensions, headers=[_SERVER]))
        return WebSocket(max_message=MAX_MESSAGE, max_fragments=sys.maxsize, deflate=deflate)

    def _refuse(self, error: HandshakeError) -> None:
        body = error.message.encode()
        fields = [_SERVER, (b"Connection", b"close"), (b"Content-Length", b"%d" % len(body)), *error.headers]
        status = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n".encode()
        lines = [b"%b: %b\r\n" % field for field in fields]
        self._transport.write(b"".join([status, *lines, b"\r\n", body]))
        self._transport.close()

    def _echo(self, ws: WebSocket, data: bytes) -> None:
        frames = [ws.encode(message) for message in ws.receive(data)]
        if ws.state == CLOSED:
            self._transport.write(b"".join([*frames, ws.take_outgoing()]))
            self._transport.close()
        else:  # pongs overtake, since a ping may have come within the message (section 5.5.2)
            self._transport.write(b"".join([ws.take_outgoing(), *frames]))


def parse_head(head: bytes) -> tuple[bytes, str, dict[bytes, bytes]]:
    """Return method, HTTP version and header fields of a request, the fields' names in lower case.

    Values of a field that comes several times are joined by commas (RFC 9110, section 5.3). Raises
    HandshakeError(400) for what is no request (RFC 9112, sections 3 and 5).
    """
    request, *lines = head.split(b"\r\n")
    method, _, protocol = request.partition(b" ")
    _, _, version = protocol.rpartition(b" HTTP/")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        name = name.lower()
        if not colon or not name or name.strip() != name:
            raise HandshakeError(400, "a line of the head is no header field")
        fields[name] = fields[name] + b", " + value.strip() if name in fields else value.strip()
    return method, version.decode("latin-1"), fields


async def serve(host: str, port: int) -> None:
    """Listen, print the address, and serve until cancelled."""
    server = await asyncio.get_running_loop().create_server(Echo, host, port)
    async with server:
        address = server.sockets[0].getsockname()
        click.echo(f"echo on ws://{host}:{address[1]}")
        await server.serve_forever()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # there is none on Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen on")
@click.option("--port", type=click.IntRange(0, 65535), required=True, help="port to listen on, 0 for a free one")
def main(host: str, port: int) -> None:
    """Echo WebSocket messages on any path, until interrupted."""
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(serve(host, port))


if __name__ == "__main__":
    main()
