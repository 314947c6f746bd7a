"""A client that reads only when its test says so, with the smallest buffers that the kernel allows."""

import asyncio
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from bellwire.protocol.client_handshake import Response, build_request, new_key, subprotocols
from bellwire.protocol.client_websocket import ClientWebSocket
from bellwire.protocol.wire import JSON, PATH
from tests.transports.wire import PATIENCE

SOCKETIO = "/socket.io/?EIO=4&transport=websocket"


class Sluggish:
    """A TCP connection; a WebSocket once `upgrade` was called."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        assert where.port is not None
        self._address = ("127.0.0.1", where.port)
        self._socket = sockets.socket()
        self._socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
        self._socket.setblocking(False)
        self._ws = ClientWebSocket(max_message=2**24)
        self._waiting: list[str | bytes] = []

    async def dial(self) -> None:
        await asyncio.get_running_loop().sock_connect(self._socket, self._address)

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def receive(self) -> bytes:
        """Some bytes; none at the end of the connection, however it ends."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.get_running_loop().sock_recv(self._socket, 65_536)
        except ConnectionError:
            return b""

    async def upgrade(self, target: str = SOCKETIO) -> None:
        """Open a WebSocket of Engine.IO, or of bellwire.v1."""
        key = new_key()
        offered = (JSON,) if target == PATH else ()
        fields = (subprotocols(offered),) if offered else ()
        await self.send(build_request("localhost", target, key, fields))
        handshake = Response(key, offered)
        while (rest := handshake.receive(await self.receive())) is None:
            pass
        self._waiting += self._ws.receive(rest)

    async def say(self, *texts: str) -> None:
        await self.send(b"".join(map(self._ws.encode, texts)))

    async def hear(self) -> str | bytes | None:
        """The next message; None at the end of the connection."""
        while not self._waiting:
            data = await self.receive()
            if not data:
                return None
            self._waiting += self._ws.receive(data)
        return self._waiting.pop(0)

    def close(self) -> None:
        self._socket.close()


@asynccontextmanager
async def sluggish(url: str, target: str | None = SOCKETIO) -> AsyncIterator[Sluggish]:
    """One that is connected, and upgraded unless ``target`` is None."""
    client = Sluggish(url)
    try:
        await client.dial()
        if target is not None:
            await client.upgrade(target)
        yield client
    finally:
        client.close()
