"""Brokers of the tests' own, and what is done to them: killed, emptied, cut off from those who listen."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import nats
from nats.js import JetStreamContext

from tests.brokers.nats_server import TOKEN, NatsServer
from tests.brokers.redis_server import PASSWORD, RedisServer
from tests.chaos.proxy import ChaosProxy


class BrokerProcess(ABC):
    """One that keeps what it has acknowledged when it is killed."""

    server: NatsServer | RedisServer
    reason = "generation"
    """Of the resets when it was emptied."""
    forgets_its_name = False
    """Whether nobody can tell a restart from a failover, which may have taken records of events back."""

    @abstractmethod
    def __init__(self, folder: Path) -> None:
        """Start it; what it keeps is in ``folder``."""

    @abstractmethod
    def url(self, port: int) -> str:
        """Its address, through a proxy on this port."""

    @abstractmethod
    async def empty(self) -> None:
        """Take out all that it keeps."""

    @abstractmethod
    async def cut_listeners(self, links: Sequence[ChaosProxy]) -> None:
        """End the connections on which it tells those behind ``links`` what is new."""

    async def crash(self, outage: float = 0.0) -> None:
        """Kill it, and start it again so many seconds later on what it has kept."""
        await asyncio.to_thread(self.server.kill)
        await asyncio.sleep(outage)
        await asyncio.to_thread(self.server.start)


class Valkey(BrokerProcess):
    """With an append-only file that is synced before each answer."""

    forgets_its_name = True  # its replication id is another one after each start

    def __init__(self, folder: Path) -> None:
        self.server: RedisServer = RedisServer(folder)

    def url(self, port: int) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{port}"

    async def empty(self) -> None:
        await self.server.ask("FLUSHALL")

    async def cut_listeners(self, links: Sequence[ChaosProxy]) -> None:
        await self.server.ask("CLIENT", "KILL", "TYPE", "pubsub")


class Nats(BrokerProcess):
    """With a file store."""

    def __init__(self, folder: Path) -> None:
        self.server: NatsServer = NatsServer(folder)

    def url(self, port: int) -> str:
        return f"nats://{TOKEN}@127.0.0.1:{port}"

    async def empty(self) -> None:
        client = await nats.connect(self.server.url)
        jetstream = client.jetstream()
        for stream in await jetstream.streams_info():
            assert stream.config.name is not None
            await self._empty(jetstream, stream.config.name)
        await client.close()

    async def _empty(self, jetstream: JetStreamContext, stream: str) -> None:
        await jetstream.delete_stream(stream)

    async def cut_listeners(self, links: Sequence[ChaosProxy]) -> None:
        for link in links:  # one connection is for everything
            for connection in [*link.connections.values()]:
                connection.reset()


class PurgedNats(Nats):
    """When it is emptied, its streams stay and their numbers go on."""

    reason = "diverged"

    async def _empty(self, jetstream: JetStreamContext, stream: str) -> None:
        await jetstream.purge_stream(stream)
