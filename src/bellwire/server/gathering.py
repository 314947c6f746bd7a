"""What is broadcast to many, one event after the other: gathered, so that it leaves in one write for each of them.

To write to some hundred sockets takes milliseconds. Much comes meanwhile, also from those who say the next when they
see that the last has arrived, but it does not come all at once. If the first of it set out alone, the rest would wait
until that is with everybody, and every other time a single event or a few would be written to all. So the room of MANY
sockets that was written last, if that was several events, waits for as many again:

    =========  ========================================  =========  ================================================
    while      happens                                   then       and
    =========  ========================================  =========  ================================================
    resting    fewer come than left together last        gathering  they wait, for PAUSE at most
    gathering  there are as many, or ENOUGH bytes        resting    they are handed out
    gathering  something comes to others                 resting    all is handed out, in its order
    gathering  something is said to one socket alone,    resting    what waits is handed out before
               or somebody joins, leaves or goes
    gathering  PAUSE is over                             resting    what waits is handed out
    =========  ========================================  =========  ================================================

Events that come one at a time wait once, after several that came together, and then no more.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from bellwire.server.dialects import Item

MANY: Final = 256
"""Sockets: it takes a millisecond to write to them."""
PAUSE: Final = 0.002
"""Seconds. uvloop counts whole milliseconds, so it is one at least."""
ENOUGH: Final = 65_536
"""Bytes. So many cost more than one write more would; and whoever is slow is handed all of them before that shows."""


class Gathering:
    """Whether what is pending waits for more; ``end`` is called when it has waited long enough."""

    __slots__ = ("_bytes", "_end", "_events", "_room", "_timer")

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._room = ""
        self._events = 1  # that many are waited for
        self._bytes = 0  # of those that wait
        self._timer: asyncio.TimerHandle | None = None

    def wrote(self, room: str, events: int) -> None:
        """So many left together for ``room``, which has `MANY` sockets."""
        self._room, self._events = room, events

    def waits(self, room: str, items: Sequence[Item]) -> bool:
        """Whether ``items``, which nothing is behind, wait for more."""
        if room != self._room or len(items) >= self._events:
            return False
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE, self._over)
            self._bytes = sum([item.stock.size for item in items])
        return self._bytes < ENOUGH

    def completes(self, items: Sequence[Item]) -> bool:
        """Whether the last of ``items`` is what the others waited for."""
        if self._timer is None:
            return False
        self._bytes += items[-1].stock.size
        return len(items) >= self._events or self._bytes >= ENOUGH

    def rest(self) -> None:
        """All is handed out."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _over(self) -> None:
        self._timer, self._events = None, 1
        self._end()
