"""A stretch of one stream without a hole: each entry's ``prev`` is the point of the one before it.

The safety of the whole rests here (the guarantee, "Positions"): two histories that share a point share everything up
to it, because a point holds 32 random bits and every entry names the point before it.
"""

from bisect import bisect_right
from collections.abc import Iterator
from enum import Enum
from operator import attrgetter

from bellwire.delivery.entry import Entry
from bellwire.delivery.position import START, Point

_seq = attrgetter("seq")


class Place(Enum):
    """Where a point lies, seen from a chain."""

    PROVED = "proved"
    """In the chain: right behind one of its entries, or at its base."""

    BEHIND = "behind"
    """Older than the base; the chain knows nothing of it."""

    AHEAD = "ahead"
    """Beyond the top."""

    ASTRAY = "astray"
    """Where the chain has another entry, or none: the point belongs to another history."""


class Chain:
    """Entries from ``base`` (exclusive) to ``top``; cheap to extend at the top and to shorten at the base."""

    __slots__ = ("_entries", "_head", "base", "size", "top")

    def __init__(self, base: Point = START) -> None:
        self.base = base
        self.top = base
        self.size = 0  # bytes, as the entries count themselves
        self._entries: list[Entry] = []
        self._head = 0  # those before it were shifted out; they are removed by the quarter

    def __len__(self) -> int:
        return len(self._entries) - self._head

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries[self._head :])

    @property
    def oldest(self) -> Entry:
        """The first entry; IndexError if there is none."""
        return self._entries[self._head]

    @property
    def newest(self) -> Entry:
        """The last entry; IndexError if there is none."""
        if self._head == len(self._entries):
            raise IndexError("the chain is empty")
        return self._entries[-1]

    def append(self, entry: Entry) -> None:
        """Add ``entry`` at the top.

        Raises:
            ValueError: it does not follow on the top; the chain is as before.

        """
        top = self.top
        if entry.prev != top or entry.seq <= top.seq:
            raise ValueError(f"entry {entry.seq} follows on {entry.prev}, the chain ends at {top}")
        self._entries.append(entry)
        self.top = entry.point
        self.size += entry.size

    def shift(self) -> Entry:
        """Take the oldest entry out; its point is the base from now on."""
        entries, head = self._entries, self._head + 1
        entry = entries[head - 1]
        self.base = entry.point
        self.size -= entry.size
        if head * 4 > len(entries):
            del entries[:head]
            head = 0
        self._head = head
        return entry

    def shorten(self, messages: int, size: int) -> None:
        """Take the oldest entries out until there are so many at most, and so many bytes; the newest stays."""
        entries = self._entries
        while (count := len(entries) - self._head) > 1 and (count > messages or self.size > size):
            self.shift()

    def cut(self, point: Point) -> list[Entry]:
        """Take out what lies beyond ``point``, which is in the chain, and return it.

        Raises:
            ValueError: the point is not in the chain.

        """
        if self.locate(point) is not Place.PROVED:
            raise ValueError(f"{point} is not in the chain from {self.base} to {self.top}")
        index = self._beyond(point.seq)
        gone = self._entries[index:]
        del self._entries[index:]
        self.top = point
        self.size -= sum(entry.size for entry in gone)
        return gone

    def locate(self, point: Point) -> Place:
        """Tell whether ``point`` lies in this history."""
        if point == self.top or point == self.base:
            return Place.PROVED
        if point.seq < self.base.seq:
            return Place.BEHIND
        if point.seq > self.top.seq:
            return Place.AHEAD
        index = self._beyond(point.seq) - 1
        if index >= self._head and self._entries[index].point == point:
            return Place.PROVED
        return Place.ASTRAY

    def at_most(self, seq: int) -> Point:
        """Return the last point whose number is not above ``seq``; the base if there is none."""
        index = self._beyond(seq) - 1
        return self._entries[index].point if index >= self._head else self.base

    def after(self, point: Point, messages: int, size: int) -> tuple[list[Entry], bool]:
        """Return the entries beyond ``point`` and whether more follow.

        At most ``messages`` entries and ``size`` bytes, but at least one entry if there is one.
        """
        start = self._beyond(point.seq)
        entries = self._entries[start : start + messages]
        if len(entries) > 1:
            _limit_size(entries, size)
        return entries, start + len(entries) < len(self._entries)

    def _beyond(self, seq: int) -> int:
        if seq >= self.top.seq:  # most readers stand near the top
            return len(self._entries)
        return bisect_right(self._entries, seq, self._head, key=_seq)


def _limit_size(entries: list[Entry], size: int) -> None:
    for index, entry in enumerate(entries):
        size -= entry.size
        if size < 0 and index:
            del entries[index:]
            return
