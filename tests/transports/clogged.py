"""A transport without a socket, for what flow control does step by step."""

import asyncio
from typing import Any

from uvicorn.server import ServerState

from bellwire.transports.native import NativeWebSocket
from bellwire.transports.native_upgrade import native_websockets
from tests.transports.wire import Echo, EchoServer


class Clogged(asyncio.Transport):
    """A transport whose peer reads nothing until it is told; its flow control is asyncio's ("Flow Control").

    ``overhead`` is what each write has in addition, as with TLS.
    """

    def __init__(self, waiting: int = 0, *, paused: bool = False, overhead: int = 0) -> None:
        super().__init__()
        self.overhead = overhead
        self.waiting = waiting
        self.paused = paused
        self.limits = (16_384, 65_536)
        self.protocol: asyncio.BaseProtocol = asyncio.Protocol()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self.limits = (high // 4, high)
        self._pause()

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        self.waiting += len(data) + self.overhead
        self._pause()

    def _pause(self) -> None:
        if self.waiting > self.limits[1] and not self.paused:
            self.paused = True
            self.protocol.pause_writing()

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None: ...

    def take(self, count: int) -> None:
        self.waiting -= count
        if self.paused and self.waiting <= self.limits[0]:
            self.paused = False
            self.protocol.resume_writing()


UPGRADE_HEAD = (
    b"GET /bellwire HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"sec-websocket-protocol: bellwire.v1.json\r\n\r\n"
)


async def upgrade(server: EchoServer, transport: asyncio.Transport) -> tuple[asyncio.Protocol, NativeWebSocket, Echo]:
    """What uvicorn does at an upgrade: the first protocol, the one that takes over, and where its messages go."""
    make = native_websockets(lambda: server.engine)
    first = make(config=None, server_state=ServerState(), app_state={})
    first.connection_made(transport)
    first.data_received(UPGRADE_HEAD)
    transport.set_protocol(first)
    await asyncio.sleep(0)  # the response leaves when the tick ends
    (echo,) = server.raw_echoes
    carrier = echo.session.carrier
    assert isinstance(carrier, NativeWebSocket)
    return first, carrier, echo
