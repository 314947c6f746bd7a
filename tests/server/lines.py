"""Several servers on one broker in memory, each with a line of its own that can be cut, or lose what is said."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from typing_extensions import override

from bellwire import Config
from bellwire.brokers.base import Listener
from bellwire.core.errors import BrokerUnavailable
from bellwire.server.peers import BEAT_SECONDS, LEASE_SECONDS
from bellwire.testing.clock import advance
from tests.guarantee.brokers import NodeBroker
from tests.server.servers import House, SharedBroker

LEASE_OVER = LEASE_SECONDS + 2 * BEAT_SECONDS
"""Seconds after which all know that a node has died."""


class _Filter:
    """A listener that hears nothing while the line is cut."""

    def __init__(self, line: "Line", listener: Listener) -> None:
        self._line = line
        self._listener = listener

    def entry(self, *told: Any) -> None:
        if not self._line.cut:
            self._listener.entry(*told)

    def volatile(self, *told: Any) -> None:
        if not self._line.cut:
            self._listener.volatile(*told)


class Line(NodeBroker):
    """The broker, as one server reaches it."""

    def __init__(self, inner: SharedBroker) -> None:
        super().__init__(inner, shared=True)
        self.cut = False
        """Whether the server cannot reach it, and does not hear from it."""
        self.mute = False
        """Whether what the server publishes is lost."""
        self._filters: dict[Listener, _Filter] = {}

    @override
    async def _way(self, where: str) -> None:
        if self.cut:
            raise BrokerUnavailable("the line is cut")
        await super()._way(where)

    @override
    async def subscribe(self, stream: str, listener: Listener, *, new: bool = False) -> None:
        await super().subscribe(stream, self._filters.setdefault(listener, _Filter(self, listener)), new=new)

    @override
    async def unsubscribe(self, stream: str, listener: Listener) -> None:
        await super().unsubscribe(stream, self._filters.get(listener, listener))

    @override
    async def publish(self, stream: str, body: bytes) -> None:
        if not self.mute:
            await super().publish(stream, body)


class Remote(House):
    """A server with its line."""

    def __init__(self, line: Line, stack: AsyncExitStack, config: Config | None) -> None:
        super().__init__(line, stack, config)
        self.line = line

    @override
    async def die(self) -> None:
        """Be killed; whoever is told waits until the others know."""
        await self.line.kill()
        await super().die()


@asynccontextmanager
async def lines(
    count: int = 2, config: Config | None = None, furnish: Callable[[Remote], None] = lambda house: None
) -> AsyncIterator[tuple[SharedBroker, list[Remote]]]:
    """The broker, and ``count`` servers on it that know each other."""
    broker = SharedBroker()
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(count):
            house = Remote(Line(broker), stack, config)
            furnish(house)
            await stack.enter_async_context(house.server.lifespan())
            found.append(house)
        await advance(0)
        yield broker, found
