"""A balancer that is as bad as one can be for Socket.IO: each request goes to the next server, whoever it is from.

It knows as much of HTTP/1.1 as that takes: it has each connection end after one request, so that the next request comes
on a connection of its own. A connection that is upgraded stays where it is.
"""

import asyncio
import contextlib
import itertools
from typing import Self

MAX_HEAD = 65_536


class Balancer:
    """Listens on a port of 127.0.0.1, and deals requests out among ``ports``."""

    def __init__(self, *ports: int) -> None:
        self.port = 0
        self.ports = ports
        self.requests = 0
        self._turn = itertools.count()
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0, limit=MAX_HEAD)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in (tasks := [*self._tasks]):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._forward(reader, writer)
        finally:
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        there, back = await self._connect()
        try:
            back.write(_for_one_request(head))
            up, down = asyncio.ensure_future(_copy(reader, back)), asyncio.ensure_future(_copy(there, writer))
            try:
                await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            finally:
                up.cancel()
                down.cancel()
                await asyncio.gather(up, down, return_exceptions=True)
        finally:
            back.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The next server, or the one after it if that one does not listen."""
        for _ in self.ports[1:]:
            with contextlib.suppress(ConnectionRefusedError):
                return await asyncio.open_connection("127.0.0.1", self.ports[next(self._turn) % len(self.ports)])
        return await asyncio.open_connection("127.0.0.1", self.ports[next(self._turn) % len(self.ports)])


def _for_one_request(head: bytes) -> bytes:
    first, *lines = head[:-4].split(b"\r\n")
    fields = [line for line in lines if not line.lower().startswith(b"connection:")]
    upgrade = any(line.lower().startswith(b"upgrade:") for line in lines)
    return b"\r\n".join([first, *fields, b"Connection: " + (b"Upgrade" if upgrade else b"close"), b"", b""])


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(MAX_HEAD):
            sink.write(data)
            await sink.drain()
