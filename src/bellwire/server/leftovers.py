"""The streams that sessions leave behind: a socket's own is forgotten once nobody can come back to it.

Every session has a stream of its own, and most clients come once. What a node that died has left is swept by the
broker, a day later.
"""

import asyncio
from collections import deque
from typing import Final, NamedTuple

from bellwire.brokers.base import Broker
from bellwire.core.clock import Timer, Wheel
from bellwire.core.counters import Counters
from bellwire.server.upkeep import Upkeep

MARGIN: Final = 5.0
"""Seconds beyond a session's lifetime until its stream is looked at: clocks differ, and timers are late."""


class _Leftover:
    """The stream of a session that was let go; it waits for the broker like all upkeep."""

    __slots__ = ("_broker", "_key", "_stream", "unsettled")

    def __init__(self, broker: Broker, stream: str, key: str) -> None:
        self.unsettled = True
        self._broker = broker
        self._stream = stream
        self._key = key

    async def settle(self) -> None:
        if await self._broker.get(self._key) is None:  # else somebody took the session up, and lets it go later
            await self._broker.forget(self._stream)
        self.unsettled = False


class _Due(NamedTuple):
    at: float
    leftover: _Leftover


class Leftovers:
    """The streams of one node's sessions, in the order in which those were let go; one timer for all."""

    __slots__ = ("_after", "_broker", "_clock", "_due", "_timer", "_upkeep", "_wheel")

    def __init__(self, broker: Broker, wheel: Wheel, counters: Counters, lifetime: float) -> None:
        self._after = lifetime + MARGIN
        self._broker = broker
        self._clock = asyncio.get_running_loop().time
        self._due: deque[_Due] = deque()
        self._timer: Timer | None = None
        self._upkeep = Upkeep("leftover_stream", counters)
        self._wheel = wheel

    def add(self, stream: str, key: str) -> None:
        """The session with this ``key`` was let go: forget its ``stream`` when its lifetime is over."""
        self._due.append(_Due(self._clock() + self._after, _Leftover(self._broker, stream, key)))
        if self._timer is None:
            self._timer = self._wheel.after(self._after, self._look)

    async def close(self) -> None:
        """Look no more: what is left is the broker's to sweep."""
        if self._timer is not None:
            self._timer.cancel()
        await self._upkeep.close(0)

    def _look(self) -> None:
        now, due = self._clock(), self._due
        while due and due[0].at <= now:
            self._upkeep.add(due.popleft().leftover, optional=True)
        self._timer = self._wheel.after(due[0].at - now, self._look) if due else None
