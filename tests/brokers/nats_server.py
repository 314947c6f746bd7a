"""A nats-server of the tests' own, brokers on it, and a proxy between: a test may kill, freeze, mute and cut."""

import asyncio
import atexit
import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from bellwire.brokers.nats import NatsBroker
from bellwire.brokers.private_nats import find_program
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.answer import Page, Unproved
from bellwire.delivery.log import DEFAULT_LIMITS, Limits
from tests.ports import free_port

TOKEN = "for-tests-only"

Away: TypeAlias = type[Exception] | tuple[type[Exception], ...]


class NatsServer:
    """Starts at once; the data stays in ``folder`` and the port stays the same over restarts.

    ``more`` goes into its configuration as it is.
    """

    def __init__(self, folder: Path, *, max_payload: int = 1024 * 1024, **more: Any) -> None:
        self._folder = folder
        self._more = more
        self.max_payload = max_payload
        self.port = free_port()
        self.start()
        atexit.register(self.kill)

    @property
    def url(self) -> str:
        return f"nats://{TOKEN}@127.0.0.1:{self.port}"

    def start(self) -> None:
        config = self._folder / "test.conf"
        config.write_text(
            json.dumps(
                {
                    "host": "127.0.0.1",
                    "port": self.port,
                    "ports_file_dir": str(self._folder),
                    "authorization": {"token": TOKEN},
                    "max_payload": self.max_payload,
                    "jetstream": {"store_dir": str(self._folder / "js")},
                    "log_file": str(self._folder / "log"),
                }
                | self._more
            )
        )
        self.process = subprocess.Popen([find_program(), "-c", config])
        until = time.monotonic() + 20
        while not self._listens():
            assert self.process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < until, "nats-server does not start"
            time.sleep(0.01)

    def _listens(self) -> bool:
        """Whether it has written down where it listens."""
        return (self._folder / f"nats-server_{self.process.pid}.ports").exists()

    def kill(self) -> None:
        """End it as a crash does; nothing happens if it ended before."""
        self.process.kill()
        self.process.wait()

    async def crash(self) -> None:
        """End it as a crash does, and start it again."""
        await asyncio.to_thread(self.kill)
        await asyncio.to_thread(self.start)

    async def freeze(self) -> None:
        """Let it stand still, with all its threads: connections stay open and nothing is answered."""
        os.kill(self.process.pid, signal.SIGSTOP)
        await asyncio.to_thread(os.waitpid, self.process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)


class Proxy:
    """Stands between a broker and its server, and does to their connections what networks do."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._door: asyncio.Server | None = None
        self._muted = self._swallowing = self._closed = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.swallowed = asyncio.Event()
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def to(cls, server: NatsServer) -> "AsyncIterator[Proxy]":
        proxy = cls(server.port)
        proxy._door = await asyncio.start_server(proxy._accept, "127.0.0.1", 0)
        proxy.port = proxy._door.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            proxy._door.close()
            proxy.cut()
            await asyncio.gather(*proxy._pumps, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"nats://{TOKEN}@127.0.0.1:{self.port}"

    def mute(self) -> None:
        """Pass nothing on from the server, until the cut."""
        self._muted = True

    def unmute(self) -> None:
        """Pass on what comes from now on: what came meanwhile must have been whole messages."""
        self._muted = False

    def stall(self) -> None:
        """Read nothing more from the server, until the cut or `flow`."""
        self._flowing.clear()

    def flow(self) -> None:
        """Read on."""
        self._flowing.set()

    def swallow(self) -> None:
        """Pass nothing on from the client, until the cut; ``swallowed`` is set when there was something."""
        self._swallowing = True

    def cut(self) -> None:
        """End all connections; new ones are as they should be."""
        self._muted = self._swallowing = False
        self._flowing.set()
        for writer in self._writers:
            writer.transport.abort()

    def close_door(self) -> None:
        """End new connections at once."""
        self._closed = True

    def open_door(self) -> None:
        self._closed = False

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, up_writer}
        for pump in (self._pump(reader, up_writer, up=True), self._pump(up_reader, writer, up=False)):
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        try:
            while data := await reader.read(65_536):
                if not up:
                    await self._flowing.wait()
                if up and self._swallowing:
                    self.swallowed.set()
                elif up or not self._muted:
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()
            self._writers.discard(writer)


@asynccontextmanager
async def broker_at(
    url: str, limits: Limits | None = None, prefix: str = "traps", **more: Any
) -> AsyncIterator[NatsBroker]:
    broker = NatsBroker(url, limits or Limits(), prefix=prefix, **more)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def behind_proxy(
    server: NatsServer, limits: Limits = DEFAULT_LIMITS, prefix: str = "traps"
) -> AsyncIterator[tuple[NatsBroker, NatsBroker, Proxy]]:
    """A broker behind a proxy, and another one of the same cluster that is not."""
    async with (
        Proxy.to(server) as proxy,
        broker_at(proxy.url, limits, prefix) as broker,
        broker_at(server.url, limits, prefix) as other,
    ):
        yield broker, other, proxy


async def again(action: Callable[[], Any], away: Away = BrokerUnavailable, *, within: float = 10.0) -> Any:
    """Do what needs a connection, as soon as there is one again."""
    async with asyncio.timeout(within):
        while True:
            try:
                return await action()
            except away:
                await asyncio.sleep(0.02)


async def entries_of(broker: NatsBroker, stream: str) -> list[str]:
    start = (await broker.top(stream))._replace(seq=0, tag=0)
    answer = await broker.read(stream, start, confirmed=True)
    assert isinstance(answer, Page)
    for before, entry in itertools.pairwise(answer.entries):
        assert entry.prev == before.point
    return [entry.mid for entry in answer.entries]


async def tail_of(broker: NatsBroker, stream: str) -> list[str]:
    start = (await broker.top(stream))._replace(seq=0, tag=0)
    answer = await broker.read(stream, start, confirmed=True)
    assert isinstance(answer, Unproved)
    page = await broker.read(stream, answer.restart, confirmed=True)
    assert isinstance(page, Page)
    return [entry.mid for entry in page.entries]
