"""What waits in this process for clients that do not read: how long each of them may let it wait, and how much all may.

Whoever keeps up is not here. Whoever has bytes waiting is, until all are written (over TLS and HTTP from `NOTED_FROM`
on, until little is left), and goes as a slow consumer

- when it takes nothing for ``Config.write_timeout``, however much it says itself: a heartbeat would be content with
  that;
- when more than ``Config.process_buffer_bytes`` wait for all together, and it is among those with the most.

From half of that on a client counts as congested much sooner than usual: its volatile events wait in a few shared
objects, and what it can recover stays in the history.
"""

import asyncio
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, Literal, Protocol, TypeAlias

from bellwire.core.clock import Timer, Wheel
from bellwire.core.config import Config

Cause: TypeAlias = Literal["buffer_full", "no_progress", "process_full"]
"""Why somebody is cut off as a slow consumer."""

CUT: Final[Mapping[Cause, str]] = {
    "buffer_full": "more than {config.send_buffer_bytes} bytes waited for it (send_buffer_bytes)",
    "no_progress": "it took nothing for {config.write_timeout:g} seconds (write_timeout)",
    "process_full": "more than {config.process_buffer_bytes} bytes waited for all clients together "
    "(process_buffer_bytes), and it was among those for whom most did",
}
"""What the log says of each."""

NOTED_FROM: Final = 4_096
"""Bytes from which one is counted whose transport writes by itself; whoever keeps up has none waiting, as a rule."""

CHECKS: Final = 4
"""How often progress is looked at in ``write_timeout``: a client may stay for one part of so many longer."""

CHECKED_AT_ONCE: Final = 1_024
"""How many are looked at before the loop turns to something else;"""

SHED_AT_ONCE: Final = 64
"""and how many steps are taken to get below the limit."""


class Behind(Protocol):
    """Somebody for whom something waits: a carrier, or a connection of HTTP."""

    @property
    def buffered(self) -> int:
        """How many bytes."""
        ...

    @property
    def progress(self) -> int:
        """A number that grows when it takes something, and never when more is added."""
        ...

    def cut(self, cause: Cause) -> None:
        """End it as a slow consumer, and let go of what waits."""


class _Account:
    """What was last seen of one of them."""

    __slots__ = ("idle", "progress", "shelf", "size")

    def __init__(self, progress: int) -> None:
        self.size = self.shelf = self.idle = 0
        self.progress = progress


class Unread:
    """Those of one event loop. No timer, and no memory, for anybody who keeps up; one timer for all others."""

    __slots__ = (
        "_accounts",
        "_budget",
        "_loop",
        "_shedding",
        "_shelves",
        "_step",
        "_timer",
        "_usual",
        "_wheel",
        "limit",
        "noted_from",
        "total",
    )

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop, wheel: Wheel) -> None:
        self._budget = config.process_buffer_bytes
        self._usual = config.volatile_buffer_bytes
        self._step = config.write_timeout / CHECKS
        self._loop = loop
        self._wheel = wheel
        self._accounts: dict[Behind, _Account] = {}
        self._shelves: dict[int, dict[Behind, None]] = {}  # by the number of bits of what waits
        self._timer: Timer | None = None
        self._shedding = False
        self.total = 0
        """Bytes that wait for all of them, as far as was looked."""
        self.noted_from = min(NOTED_FROM, self._usual)
        """Bytes from which one is to be noted."""
        self.limit = self._usual
        """Bytes from which one is congested at present."""

    def __len__(self) -> int:
        return len(self._accounts)

    # --- from those for whom something waits

    def note(self, who: Behind, size: int) -> None:
        """So many bytes wait for ``who`` now. It calls this after each change that it knows of."""
        account = self._accounts.get(who)
        if account is None:
            account = self._accounts[who] = _Account(who.progress)
            if self._timer is None:
                self._timer = self._wheel.after(self._step, self._check)
        self._change(size - account.size)
        account.size = size
        if account.shelf != size.bit_length():
            self._unshelve(who, account)
            account.shelf = size.bit_length()
            self._shelves.setdefault(account.shelf, {})[who] = None
        if self.total > self._budget and not self._shedding:
            self._shedding = True
            self._loop.call_soon(self._shed)

    def forget(self, who: Behind) -> None:
        """Little or nothing waits for ``who``; nothing happens if it was not noted."""
        account = self._accounts.pop(who, None)
        if account is not None:
            self._change(-account.size)
            self._unshelve(who, account)
            if not self._accounts and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _change(self, by: int) -> None:
        self.total += by
        self.limit = self.noted_from if self.total > self._budget // 2 else self._usual

    def _unshelve(self, who: Behind, account: _Account) -> None:
        shelf = self._shelves.get(account.shelf)
        if shelf is not None:
            shelf.pop(who, None)
            if not shelf:
                del self._shelves[account.shelf]

    # --- who takes nothing

    def _check(self) -> None:
        self._timer = self._wheel.after(self._step, self._check)
        self._check_some(iter(list(self._accounts)))

    def _check_some(self, them: Iterator[Behind]) -> None:
        some = list(islice(them, CHECKED_AT_ONCE))
        for who in some:
            account = self._accounts.get(who)
            if account is not None:
                self._look_at(who, account)
        if some:
            self._loop.call_soon(self._check_some, them)

    def _look_at(self, who: Behind, account: _Account) -> None:
        size, progress = who.buffered, who.progress
        if not size:
            self.forget(who)
        elif progress > account.progress:
            account.idle = 0
            self.note(who, size)
        elif account.idle < CHECKS:
            account.idle += 1
        else:
            self._cut(who, "no_progress")
        account.progress = progress

    # --- too much for all

    def _shed(self) -> None:
        """Cut off those with the most; who has taken something since it was looked at may have less by now."""
        self._shedding = False
        for _ in range(SHED_AT_ONCE):
            if self.total <= self._budget:
                return
            largest = max(self._shelves)
            who = next(iter(self._shelves[largest]))
            size = who.buffered
            if size.bit_length() < largest:
                self.note(who, size)
            else:
                self._cut(who, "process_full")
        if self.total > self._budget and not self._shedding:
            self._shedding = True
            self._loop.call_soon(self._shed)

    def _cut(self, who: Behind, cause: Cause) -> None:
        who.cut(cause)
        self.forget(who)
