"""Two Redis servers, one of which servers take for the master: who that is, a test decides."""

import msgspec
from typing_extensions import override

from bellwire.brokers.redis import RedisBroker
from bellwire.delivery.entry import Draft, Entry
from bellwire.delivery.log import Appended
from tests.brokers.redis_server import RedisServer
from tests.guarantee.brokers import Backend, NodeBroker


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
