"""What is broadcast to very many, one event after the other: gathered, so that it leaves in one write for each of them.

To write to some hundred sockets takes milliseconds. Much comes meanwhile, also from those who say the next when they
see that the last has arrived, but it does not come all at once. If the first of it set out alone, the rest would wait
until that is with everybody, and every other time a single event or a few would be written to all. So a room that was
last written several events waits for as many again:

    =========  ========================================  =========  ================================================
    while      happens                                   then       and
    =========  ========================================  =========  ================================================
    resting    fewer come than MANY got the last time    gathering  they wait, for PAUSE at most
    gathering  there are as many                         resting    they are handed out
    gathering  something comes to others                 resting    all is handed out, in its order
    gathering  PAUSE is over                             resting    what waits is handed out
    =========  ========================================  =========  ================================================

Events that come one at a time do not wait.
"""

import asyncio
from collections.abc import Callable
from typing import Final

MANY: Final = 256
"""Sockets: it takes a millisecond to write to them."""
PAUSE: Final = 0.002
"""Seconds. uvloop counts whole milliseconds, so it is one at least."""


class Gathering:
    """How many events are waited for; ``end`` is called when that has been long enough."""

    __slots__ = ("_end", "_room", "_timer", "events")

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._room = ""
        self._timer: asyncio.TimerHandle | None = None
        self.events = 1
        """As many of the next are handed out at once."""

    def wrote(self, room: str, events: int) -> None:
        """So many have been written to ``room``, which has `MANY` sockets."""
        self._rest()
        self._room, self.events = room, events

    def waits(self, room: str, events: int) -> bool:
        """Whether these, which nothing is behind, wait for more."""
        if room != self._room or events >= self.events:
            self._rest()
            return False
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE, self._over)
        return True

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _over(self) -> None:
        self._timer, self.events = None, 1
        self._end()
