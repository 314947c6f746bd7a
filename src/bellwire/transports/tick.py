"""One write per connection and tick of the event loop, however many messages it is sent in it.

uvloop writes at once when its queue is empty (since 0.23), so without this every message costs a system call; joined
messages cost a fraction of one.
"""

import asyncio
from collections.abc import Callable

from bellwire.transports.base import Carrier


class Tick:
    """Collects the carriers that were given something to write, and flushes them once the loop has gone round."""

    __slots__ = ("_dirty", "_loop", "_scheduled", "settle")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._dirty: list[Carrier] = []
        self._scheduled = False
        self.settle: Callable[[], None] | None = None
        """What hands pending broadcasts to the carriers; it runs before the writes."""

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

    def hand_out(self) -> None:
        """Hand pending broadcasts to the carriers now: one of them is about to change, or to end."""
        if self.settle is not None:
            self.settle()

    def _run(self) -> None:
        self._scheduled = False
        self.hand_out()
        dirty, self._dirty = self._dirty, []
        for carrier in dirty:
            carrier.flush()
