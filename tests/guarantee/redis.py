"""Redis: one server, with all that can become of it, and two, of which a test says who is the master."""

import asyncio
import time
from pathlib import Path

import msgspec
from typing_extensions import override

from bellwire.brokers.redis import RedisBroker
from bellwire.brokers.redis_streams import Scripts, place_of
from bellwire.delivery.entry import Draft, Entry
from bellwire.delivery.log import Appended, Limits
from tests.brokers.redis_server import RedisServer, again, shifted, the_master
from tests.guarantee.brokers import Backend, NodeBroker, history


class OneRedis(Backend):
    """One server; each Bellwire server has connections of its own to it."""

    def __init__(self, limits: Limits, folder: Path) -> None:
        self._folder = folder
        self._limits = limits
        self._brokers: list[RedisBroker] = []

    def _make(self) -> RedisBroker:
        broker = RedisBroker(self._server.url, self._limits, monotonic=lambda: time.monotonic() + self.ahead)
        broker._scripts = shifted(Scripts(), self.ahead)
        self._brokers.append(broker)
        return broker

    @override
    async def start(self) -> None:
        self._server = await asyncio.to_thread(self._launch)
        self._broker = self._make()
        await self._broker.start()

    def _launch(self) -> RedisServer:
        self._folder.mkdir()
        return RedisServer(self._folder)

    @override
    async def close(self) -> None:
        await self._broker.close()
        await asyncio.to_thread(self._server.kill)

    @override
    def connect(self) -> NodeBroker:
        return NodeBroker(self._make(), shared=False)

    @override
    async def pass_time(self, seconds: float) -> None:
        self.ahead += seconds
        for broker in self._brokers:
            broker._scripts = shifted(Scripts(), self.ahead)

    @override
    async def history(self, stream: str) -> list[Entry]:
        entries: list[Entry] = await again(lambda: history(self._broker, stream))
        return entries

    @override
    async def expire(self, key: str) -> None:
        assert await again(lambda: self._broker.delete(key))

    # --- what happens to it

    async def wipe(self, stream: str) -> None:
        """Remove a stream."""
        await again(lambda: self._broker.forget(stream))

    async def unsubscribe(self, node: NodeBroker, stream: str) -> None:
        """End the subscription of one server to a stream; it does not know."""
        broker = node.inner
        assert isinstance(broker, RedisBroker)
        channel = place_of("bellwire", stream).channel
        the_master(broker).subscriptions.unsubscribe(channel)

    async def kill(self) -> None:
        """Kill it as a crash does, and start it again."""
        await self._server.crash()

    def freeze(self) -> None:
        """Let it stand still: connections stay open, and nothing is answered."""
        self._server.stand_still()


class Untagged(NodeBroker):
    """Gives all entries the same tag. So there is no chain: a position is no more than its number."""

    @override
    async def append(self, stream: str, draft: Draft, *, deadline: float | None = None) -> Appended:
        return await super().append(stream, msgspec.structs.replace(draft, tag=1), deadline=deadline)


class TwoRedis(Backend):
    """``master`` is where connections are made from now on; those that there are stay until they are lost."""

    def __init__(self, servers: tuple[RedisServer, RedisServer], *, chained: bool = True) -> None:
        self.a, self.b = servers
        self.master = self.a
        self._kind = NodeBroker if chained else Untagged

    @override
    async def start(self) -> None:
        await self.b.follow(self.a)

    @override
    async def close(self) -> None:
        pass

    @override
    def connect(self) -> NodeBroker:
        return self._kind(RedisBroker(lambda: self.master.url), shared=False)

    @override
    async def pass_time(self, seconds: float) -> None:
        raise NotImplementedError

    @override
    async def history(self, stream: str) -> list[Entry]:
        raise NotImplementedError

    @override
    async def expire(self, key: str) -> None:
        raise NotImplementedError

    # --- what happens to them

    async def promote_b(self) -> None:
        """Let ``b`` become a master with what ``a`` has; ``a`` does not know, and goes on."""
        await self.b.catch_up(self.a)
        await self.b.promote()

    async def demote_a(self) -> None:
        """Let ``a`` know, and take over what ``b`` has."""
        await self.a.follow(self.b)
        self.master = self.b

    async def return_to_a(self) -> None:
        """Let ``a`` become the master again, with what ``b`` has."""
        await self.a.follow(self.b)
        await self.a.promote()
        self.master = self.a
