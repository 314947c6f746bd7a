"""One write per connection and tick of the event loop, however many messages it is sent in it.

uvloop writes at once when its queue is empty (since 0.23), so without this every message costs a system call; joined
messages cost a fraction of one.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from bellwire.transports.base import Carrier
from bellwire.transports.descriptor import write_each


class Tick:
    """Collects the carriers that were given something to write, and flushes them once the loop has gone round.

    More than ``most`` of them are too much for one turn of the loop, at some microseconds each: those beyond wait for
    the next turns, in which as many of them are flushed as of those that have come since.
    """

    __slots__ = ("_dirty", "_late", "_loop", "_most", "_scheduled", "turn")

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int = 1_024) -> None:
        self._loop = loop
        self._most = most
        self._dirty: list[Carrier] = []
        self._late: deque[Carrier] = deque()
        self._scheduled = False
        self.turn: Callable[[], None] | None = None
        """What hands broadcasts to the carriers; it runs before the writes, and wakes the tick if there are more."""

    def wake(self) -> None:
        """Make sure that this tick ends with a flush."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def touch(self, carrier: Carrier) -> None:
        """``carrier`` has something to write. It says so once per tick, at its first message."""
        self._dirty.append(carrier)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        try:
            if self.turn is not None:
                self.turn()
        finally:  # whatever failed there, the carriers say only once that they have something to write
            self._flush()

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        if self._late or len(dirty) > self._most:
            dirty = self._spread(dirty)
        carriers: list[Carrier] = []  # first it is seen what is due, then all is written at a stretch
        descriptors: list[int] = []
        pieces: list[bytes] = []
        others: list[Carrier] = []
        for carrier in dirty:
            due = carrier.due()
            if due is None:
                others.append(carrier)
            else:
                carriers.append(carrier)
                descriptors.append(due[0])
                pieces.append(due[1])
        write_each(carriers, descriptors, pieces)
        for carrier in others:
            carrier.flush()

    def _spread(self, dirty: list[Carrier]) -> list[Carrier]:
        """Return those whose turn it is."""
        most, late = self._most, self._late
        now, beyond = dirty[:most], dirty[most:]
        now += [late.popleft() for _ in range(min(most, len(late)))]
        late.extend(beyond)
        if late:
            self.wake()
        return now
