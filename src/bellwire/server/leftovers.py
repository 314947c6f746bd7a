"""The streams that sessions leave behind: a socket's own is forgotten once nobody can come back to it.

Every session has a stream of its own, and most clients come once. One that leaves for good may come again at once, and
over and over, so what it leaves is looked at soon. What a node that died has left is swept by the broker, a day later.
"""

import asyncio
from collections import deque
from typing import Final, NamedTuple

from bellwire.brokers.base import Broker
from bellwire.core.clock import Timer, Wheel
from bellwire.core.counters import Counters
from bellwire.server.session import read_kept
from bellwire.server.upkeep import MAX_OPTIONAL, Upkeep

MARGIN: Final = 5.0
"""Seconds beyond a session's lifetime until its stream is looked at: clocks differ, and timers are late."""

PAUSE: Final = 1.0
"""Seconds until it is looked again if there is more to do than the upkeep takes at once."""


class _Leftover:
    """The stream of a session that was let go; it waits for the broker like all upkeep."""

    __slots__ = ("_key", "_leftovers", "_over", "_stream", "unsettled")

    def __init__(self, leftovers: "Leftovers", stream: str, key: str, *, over: bool) -> None:
        self.unsettled = True
        self._leftovers = leftovers
        self._stream = stream
        self._key = key
        self._over = over

    async def settle(self) -> None:
        broker = self._leftovers.broker
        kept = await broker.get(self._key)
        record = None if kept is None else read_kept(kept)
        if kept is None or (record is not None and record.over):
            await broker.forget(self._stream)
        elif self._over:  # that it is over could not be written yet, or somebody else holds it
            self._leftovers.add(self._stream, self._key)
        self.unsettled = False  # if somebody took the session up, he lets it go later


class _Due(NamedTuple):
    at: float
    leftover: _Leftover


class Leftovers:
    """The streams of one node's sessions, in the order in which those were let go; one timer for all."""

    __slots__ = ("_after", "_clock", "_later", "_soon", "_timer", "_upkeep", "_wheel", "broker")

    def __init__(self, broker: Broker, wheel: Wheel, counters: Counters, lifetime: float) -> None:
        self.broker = broker
        self._after = lifetime + MARGIN
        self._clock = asyncio.get_running_loop().time
        self._later: deque[_Due] = deque()
        self._soon: deque[_Due] = deque()
        self._timer: Timer | None = None
        self._upkeep = Upkeep("leftover_stream", counters)
        self._wheel = wheel

    def __len__(self) -> int:
        return len(self._soon) + len(self._later)

    def add(self, stream: str, key: str, *, over: bool = False) -> None:
        """The session with this ``key`` was let go: forget its ``stream`` when its lifetime, or all of it, is over."""
        queue, after = (self._soon, MARGIN) if over else (self._later, self._after)
        queue.append(_Due(self._clock() + after, _Leftover(self, stream, key, over=over)))
        if len(queue) == 1:
            self._arm()

    async def close(self) -> None:
        """Look no more: what is left is the broker's to sweep."""
        if self._timer is not None:
            self._timer.cancel()
        await self._upkeep.close(0)

    def _arm(self) -> None:
        """Look when the first is due, or a little later if that would be too much at once."""
        if self._timer is not None:
            self._timer.cancel()
        due = [queue[0].at for queue in (self._soon, self._later) if queue]
        wait = max(min(due) - self._clock(), 0.0 if self._has_room else PAUSE) if due else None
        self._timer = None if wait is None else self._wheel.after(wait, self._look)

    @property
    def _has_room(self) -> bool:
        return len(self._upkeep) < MAX_OPTIONAL

    def _look(self) -> None:
        self._timer = None
        now = self._clock()
        for queue in (self._soon, self._later):
            while queue and queue[0].at <= now and self._has_room:
                self._upkeep.add(queue.popleft().leftover, optional=True)
        self._arm()
