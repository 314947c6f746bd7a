"""What waits for the members of one large room: it is handed out in batches, and all else goes on between them.

A broadcast to more sockets than a batch has is a *wave*::

    wave    its sockets                            what is cast to the same audience next
    open    whoever is in the audience, unless     is part of it
            it had it already, or came later
    fixed   those that still wait for it: a set    is a wave of its own
            of its own that only shrinks
    over    nobody

A wave is fixed when its turn comes, or when its audience may change without a word to the fan-out. So however many
events are emitted, and whoever comes and goes meanwhile, as a rule one wave is being handed out and one collects what
leaves together after it: the members are copied once for each.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Final, TypeAlias

from bellwire.server.dialects import Item
from bellwire.server.runs import Runs

if TYPE_CHECKING:
    from bellwire.server.socket import Socket

Audience: TypeAlias = "tuple[Collection[Socket], ...]"
"""Groups of sockets without a common member."""

MAX_WAVES: Final = 16
"""How many waves of a room may wait. Each can have a set of its own, of some 40 bytes for each member."""


class Wave:
    """One broadcast, or several that leave together, and who has not got it yet; ``stream`` as in `Runs`."""

    __slots__ = ("_audience", "_had", "_items", "_rest", "_stream", "_waiting", "_whole", "begun", "size")

    def __init__(self, audience: Audience, items: Sequence[Item], stream: str) -> None:
        self._stream = stream
        self.size = 0
        """Bytes of its events."""
        self.begun = False
        """Whether its turn has come."""
        self._audience = audience
        self._items: list[Item] = []
        self._had: dict[Socket, int] = {}  # how many of the items are not for these any more
        self._whole: Runs | None = None
        self._rest: tuple[int, Runs] | None = None  # what was joined last for those who had so many of the items
        self._waiting: set[Socket] | None = None
        self.add(items)
        if not all(isinstance(group, AbstractSet) for group in audience):
            self.fix()  # nobody could be looked up in it

    @property
    def volatile(self) -> bool:
        """Whether its events may be dropped for newer ones."""
        return bool(self._stream)

    def joins(self, audience: Audience, stream: str) -> bool:
        """Whether what is cast to ``audience`` can leave with it."""
        return self._waiting is None and audience is self._audience and stream == self._stream

    def add(self, items: Sequence[Item]) -> None:
        """Have it bring ``items`` as well."""
        self._items.extend(items)
        self._whole = self._rest = None
        self.size += sum([_size(item) for item in items])

    @property
    def over(self) -> bool:
        """Whether nobody waits for it."""
        return self._waiting is not None and not self._waiting

    @property
    def owed(self) -> int:
        """How many events it still has to hand over, each counted once for each socket."""
        if self._waiting is not None:
            had = sum([count for socket, count in self._had.items() if socket in self._waiting])
            return len(self._waiting) * len(self._items) - had
        had = sum([count for socket, count in self._had.items() if self._reaches(socket)])
        return sum(map(len, self._audience)) * len(self._items) - had

    def fix(self) -> "set[Socket]":
        """Let whatever happens to its audience make no difference any more; return who waits for it."""
        waiting = self._waiting
        if waiting is None:
            waiting = self._waiting = set().union(*self._audience)
            waiting.difference_update([socket for socket, count in self._had.items() if count == len(self._items)])
            self._audience = ()
        return waiting

    def hand_out(self, most: int) -> None:
        """Hand it to so many of those who wait for it."""
        self.begun = True
        waiting = self.fix()
        pop = waiting.pop
        sockets = [pop() for _ in range(min(most, len(waiting)))]
        had = self._had
        if had and not had.keys().isdisjoint(sockets):
            for socket in sorted(had.keys() & sockets, key=had.__getitem__):  # who had as many shares what is left
                self._run(had[socket]).hand((socket,))
            sockets = [socket for socket in sockets if socket not in had]
        self._run(0).hand(sockets, last=True)

    def bring(self, socket: "Socket") -> None:
        """Hand it to ``socket`` now if that waits for it; what is in it by now is not for that one afterwards."""
        had = self._had.get(socket, 0)
        if self._waiting is None:
            self._had[socket] = len(self._items)
            if had == len(self._items) or not self._reaches(socket):
                return
        elif socket in self._waiting:
            self._waiting.discard(socket)
        else:
            return
        self._run(had).hand((socket,))

    def _reaches(self, socket: "Socket") -> bool:
        return any(socket in group for group in self._audience)

    def _run(self, start: int) -> Runs:
        if not start:
            if self._whole is None:
                self._whole = Runs(self._items, self._stream)
            return self._whole
        if self._rest is None or self._rest[0] != start:  # only the last: each can be as large as all together
            self._rest = start, Runs(self._items[start:], self._stream)
        return self._rest[1]


class Backlog:
    """The waves of one room, in the order of their broadcasts.

    ``most`` and ``most_volatile`` are bytes of events: as many as may wait for one client, because that is what they
    will do when they are handed over.

    Whoever waits to emit is let in when something has left, first come, first served, and no more of them at a time
    than there is room for: all at once they would fill it many times over.
    """

    __slots__ = ("_late", "_most", "_most_volatile", "_size", "_waves")

    def __init__(self, most: int, most_volatile: int) -> None:
        self._most = most
        self._most_volatile = most_volatile
        self._waves: deque[Wave] = deque()
        self._size = 0
        self._late: deque[tuple[asyncio.Future[None], int]] = deque()  # who waits to emit, and how many bytes

    @property
    def empty(self) -> bool:
        """Whether nothing waits, and nobody."""
        return not self._waves and not self._late

    @property
    def full(self) -> bool:
        """Whether whoever has something for the room had better wait."""
        return bool(self._late) or self._is_beyond(1)

    def _is_beyond(self, times: int) -> bool:
        return self._size >= times * self._most or len(self._waves) >= times * MAX_WAVES

    async def room_for(self, size: int) -> None:
        """Return when one may emit so many bytes who found it full."""
        let_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._late.append((let_in, size))
        await let_in

    def _let_in(self) -> None:
        late, promised = self._late, self._size
        while late and promised < self._most and len(self._waves) < MAX_WAVES:
            let_in, size = late.popleft()
            if not let_in.done():  # else it was cancelled
                let_in.set_result(None)
                promised += size

    def add(self, audience: Audience, items: Sequence[Item], stream: str) -> int:
        """Let ``items`` wait for ``audience``; return how many volatile events were dropped for it, as `Wave.owed`.

        Whoever could not wait until there is room, because the event comes from another node, finds it: beyond twice
        the bounds, what is the oldest leaves at once.
        """
        dropped = self._drop_volatile() if stream else 0
        last = self._waves[-1] if self._waves else None
        if last is not None and last.joins(audience, stream):
            before = last.size
            last.add(items)
            self._size += last.size - before
        else:
            wave = Wave(audience, items, stream)
            self._waves.append(wave)
            self._size += wave.size
        while len(self._waves) > 1 and self._is_beyond(2):
            self.hand_out(len(self._waves[0].fix()))
        return dropped

    def _drop_volatile(self) -> int:
        """Of volatile events the newest count, as they do for a client that does not keep up."""
        if self._size <= self._most_volatile and not self._is_beyond(1):
            return 0
        old = [wave for wave in self._waves if wave.volatile and not wave.begun]
        for wave in old:
            self._forget(wave)
        return sum([wave.owed for wave in old])

    def hand_out(self, most: int) -> None:
        """Hand what waits first to so many of those who wait for it, and let in who may emit then."""
        if self._waves:
            self._waves[0].hand_out(most)
        while self._waves and self._waves[0].over:
            self._forget(self._waves[0])
        self._let_in()

    def _forget(self, wave: Wave) -> None:
        self._waves.remove(wave)
        self._size -= wave.size

    def bring(self, socket: "Socket") -> None:
        """Hand ``socket`` all that waits for it; nothing of it is for that one afterwards, wherever it goes."""
        for wave in self._waves:
            wave.bring(socket)

    def fix(self) -> None:
        """The audiences may change now."""
        for wave in self._waves:
            wave.fix()


def _size(item: Item) -> int:
    """That of the form which every item has: a call need not have one for brokers, and may hold what they do not."""
    return item.stock.size
