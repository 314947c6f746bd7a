"""One event to many sockets: rendered once for each dialect, joined per audience and tick, one write per connection.

What is broadcast during a tick is kept as it came. When the tick ends, neighbouring events to the same audience are
joined once for each dialect that is in it, and each member is handed the common bytes. Where that is more than a batch
of members, a tick serves one batch, and the next ticks the others (`bellwire.server.backlog`); rooms of which
something waits take turns. Where there are many members, but no more than that, several events that are likely to come
together are waited for (`bellwire.server.gathering`).

Every socket is handed what was broadcast to it in the order of the broadcasts, but for this: what waits for one large
room, and what waits for another, are brought independently. Whatever else goes to a socket first brings all that waits
for it.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.server.backlog import Audience, Backlog
from bellwire.server.dialects import Item
from bellwire.server.gathering import MANY, Gathering
from bellwire.server.runs import Runs
from bellwire.transports.tick import Tick

if TYPE_CHECKING:
    from bellwire.server.socket import Socket


BETWEEN: Final = 7
"""Turns of the event loop between two batches. An event takes several of them: it is read, handled, brought to the
broker and back. With none between, each of these steps would take as long as a batch does."""


class _Cast(msgspec.Struct):
    """Events to the same sockets, all of this tick; ``members`` says how many these are."""

    audience: Audience
    items: list[Item]
    room: str
    volatile: bool
    members: int

    @property
    def stream(self) -> str:
        """As in `Runs`."""
        return self.room if self.volatile else ""


class Fanout:
    """The broadcasts of this tick, in order, and those that large rooms still wait for."""

    __slots__ = ("_backlogs", "_cast_bytes", "_config", "_counters", "_gathering", "_pending", "_tick", "_turns_left")

    def __init__(self, tick: Tick, counters: Counters, config: Config) -> None:
        self._tick = tick
        self._counters = counters
        self._config = config
        self._pending: deque[_Cast] = deque()
        self._backlogs: dict[str, Backlog] = {}  # by rooms; the first has the next turn
        self._cast_bytes: dict[str, int] = {}  # bytes of this tick, by rooms that will let them wait
        self._gathering = Gathering(tick.wake)
        self._turns_left = 0  # until the next batch
        tick.turn = self._turn

    def cast(self, audience: Audience, item: Item, *, room: str = "", volatile: bool = False) -> None:
        """Send ``item`` to everyone in ``audience`` as it is now. Whoever changes a group settles first.

        Events to the same tuple are joined: keep one for an audience that lasts. ``room`` names the stream; all that
        have none take turns together. Of a ``volatile`` event those who do not keep up get a newer one in its place.
        """
        last = self._pending[-1] if self._pending else None
        if last is None or last.audience is not audience or last.room != room or last.volatile is not volatile:
            last = _Cast(audience, [], room, volatile, sum(map(len, audience)))
            self._pending.append(last)
        last.items.append(item)
        if not volatile and last.members > self._config.fanout_batch:
            self._cast_bytes[room] = self._cast_bytes.get(room, 0) + item.stock.size
        if len(last.items) == 1 or self._gathering.completes(last.items):
            self._tick.wake()

    def settle(self, socket: "Socket | None" = None) -> None:
        """Hand what is pending to the carriers, in order; they write at the end of the tick.

        Afterwards groups may change. If that is for one ``socket``, which joins or leaves or is about to be spoken to,
        it is handed all that still waits for it.
        """
        if self._pending:
            self._hand_out()
        if self._backlogs:
            for backlog in self._backlogs.values():
                if socket is None:
                    backlog.fix()
                else:
                    backlog.bring(socket)

    def _hand_out(self, *, ending: bool = False) -> None:
        """Hand out what is pending; ``ending`` if the tick does."""
        pending = self._pending
        self._cast_bytes.clear()
        self._gathering.rest()
        apart = ending and self._apart()
        while pending:  # what comes behind a fault is still there
            cast = pending.popleft()
            if cast.members > self._config.fanout_batch:
                self._let_wait(cast)
                continue
            runs = Runs(cast.items, cast.stream)
            last = apart or (ending and not (pending or self._backlogs))
            for sockets in cast.audience:
                self._bring(sockets)
                runs.hand(sockets, last=last)
            if cast.room and cast.members >= MANY:
                self._gathering.wrote(cast.room, len(cast.items))

    def _apart(self) -> bool:
        """Whether all that is pending may be written in one turn of the loop, and nobody is in two of its audiences."""
        if self._backlogs:
            return False
        if len(self._pending) < 2:
            return True
        if sum([cast.members for cast in self._pending]) > self._config.fanout_batch:
            return False
        seen: set[Socket] = set()
        for cast in self._pending:
            for sockets in cast.audience:
                if not seen.isdisjoint(sockets):
                    return False
                seen.update(sockets)
        return True

    def _gathers(self) -> bool:
        """Whether what is pending waits for more of its kind."""
        if len(self._pending) != 1 or self._backlogs:
            return False
        cast = self._pending[0]
        return MANY <= cast.members <= self._config.fanout_batch and self._gathering.waits(cast.room, cast.items)

    def _bring(self, sockets: "Collection[Socket]") -> None:
        """What was broadcast to them before goes first."""
        for backlog in self._backlogs.values():
            for socket in sockets:
                backlog.bring(socket)

    # --- large rooms

    def _let_wait(self, cast: _Cast) -> None:
        backlog = self._backlogs.get(cast.room)
        if backlog is None:
            config = self._config
            backlog = Backlog(config.send_buffer_bytes, config.volatile_buffer_bytes)
            self._backlogs[cast.room] = backlog
        dropped = backlog.add(cast.audience, cast.items, cast.stream)
        if dropped:
            self._counters.dropped("volatile", reason="room_full", policy="newest_kept", n=dropped)

    def _turn(self) -> None:
        """Serve the small audiences of this tick, and some batches of the large ones, each of another room."""
        backlogs = self._backlogs
        if self._gathers():
            return
        try:
            self._hand_out(ending=True)
            if backlogs and self._turns_left:
                self._turns_left -= 1
            elif backlogs:
                self._turns_left = BETWEEN
                self._serve(backlogs)
        finally:
            if backlogs or self._pending:
                self._tick.wake()

    def _serve(self, backlogs: dict[str, Backlog]) -> None:
        for _ in range(min(self._config.fanout_concurrency, len(backlogs))):
            room = next(iter(backlogs))
            backlog = backlogs[room] = backlogs.pop(room)  # the last from now on
            backlog.hand_out(self._config.fanout_batch)
            if backlog.empty:
                del backlogs[room]

    def full(self, rooms: Iterable[str]) -> bool:
        """Whether so much waits for one of ``rooms`` that whoever emits to it is to wait: see `room_in`."""
        return bool(self._backlogs or self._cast_bytes) and any(map(self._is_full, rooms))

    def _is_full(self, room: str) -> bool:
        backlog = self._backlogs.get(room)
        return (backlog is not None and backlog.full) or self._cast_bytes.get(room, 0) >= self._config.send_buffer_bytes

    async def room_in(self, rooms: Iterable[str], size: int) -> None:
        """Return when there is room in each of ``rooms`` for an event of ``size`` bytes."""
        for room in rooms:
            if self._cast_bytes.get(room, 0) >= self._config.send_buffer_bytes:
                await asyncio.sleep(0)  # this tick ends: what was emitted in it waits as well
            backlog = self._backlogs.get(room)
            if backlog is not None and backlog.full:
                await backlog.room_for(size)
