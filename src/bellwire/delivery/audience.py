"""Who stands where in one stream on one node (the guarantee, "Frames stay shared").

Whoever stands at the top is in ``live``, and nothing is kept or done for it: an entry goes to all of them as the same
bytes, and then they stand behind it. Whoever was passed over, because an entry excludes it or because it takes
another copy, still stands where it last got something: it is in ``behind`` with that point, and its next entry names
that point as the previous one, in a frame of its own. Then it is back among the others.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Generic, TypeVar

import msgspec

from bellwire.delivery.entry import Entry
from bellwire.delivery.position import START, Point

M = TypeVar("M")


class Fan(msgspec.Struct, Generic[M], frozen=True, gc=False):
    """Who gets an entry: ``common`` the shared bytes, ``others`` a frame with the point given as its ``prev``."""

    common: Collection[M]
    others: Collection[tuple[M, Point]]


def _nothing(member: object) -> None:
    pass


class Audience(Generic[M]):
    """The members of a stream that take its live entries.

    ``before_change`` is called before ``live`` changes, with the member that comes or goes, or None if several do: a
    fan-out that still holds it hands out what is pending.
    """

    __slots__ = ("_before_change", "behind", "live", "top")

    def __init__(self, top: Point = START, before_change: Callable[[M | None], None] = _nothing) -> None:
        self.top = top
        self.live: set[M] = set()
        self.behind: dict[M, Point] = {}
        self._before_change = before_change

    def __len__(self) -> int:
        return len(self.live) + len(self.behind)

    def __contains__(self, member: object) -> bool:
        return member in self.live or member in self.behind

    @property
    def members(self) -> list[M]:
        """All of them, wherever they stand."""
        return [*self.live, *self.behind]

    def point(self, member: M) -> Point:
        """Where ``member`` stands, as it knows it; KeyError if it is not here."""
        return self.top if member in self.live else self.behind[member]

    def join(self, member: M, point: Point) -> None:
        """``member`` takes all that follows on the top; the last it was given is ``point``."""
        if point == self.top:
            self._before_change(member)
            self.live.add(member)
        else:
            self.behind[member] = point

    def leave(self, member: M) -> Point:
        """Forget ``member`` and return where it stood; KeyError if it is not here."""
        if member not in self.live:
            return self.behind.pop(member)
        self._before_change(member)
        self.live.discard(member)
        return self.top

    def advance(self, entry: Entry, skipped: Iterable[M] = ()) -> Fan[M]:
        """``entry`` is the new top; all get it but those ``skipped``, among whom may be others than members.

        Raises:
            ValueError: it does not follow on the top.

        """
        if entry.prev != self.top:
            raise ValueError(f"entry {entry.seq} follows on {entry.prev}, the audience stands at {self.top}")
        if not self.behind and not skipped:
            self.top = entry.point
            return Fan(self.live, ())
        return self._advance_apart(entry, skipped)

    def _advance_apart(self, entry: Entry, skipped: Iterable[M]) -> Fan[M]:
        self._before_change(None)
        live, behind = self.live, self.behind
        left_out: dict[M, Point] = {}
        for member in skipped:
            if member in live:
                live.discard(member)
                left_out[member] = self.top
            elif member in behind:
                left_out[member] = behind.pop(member)
        common = tuple(live)
        live.update(behind)
        self.behind = left_out
        self.top = entry.point
        return Fan(common, behind.items())

    def catch_up(self, member: M) -> Point:
        """``member`` was told the top without an entry; return where it stood, KeyError if it is not behind."""
        point = self.behind.pop(member)
        self._before_change(member)
        self.live.add(member)
        return point

    def restart(self, at: Point, common: Point | None) -> list[M]:
        """The top is ``at`` now: return those who stood beyond ``common``, or all if it is None, for their reset.

        They stand at the new top. The others keep their place: what they have is in the log.
        """
        self._before_change(None)
        beyond = [m for m, point in self.behind.items() if common is None or point.seq > common.seq]
        if self.top != common:
            beyond += self.live
        self.live.update(beyond)
        for member in beyond:
            self.behind.pop(member, None)
        self.top = at
        for member in [m for m, point in self.behind.items() if point == at]:
            self.catch_up(member)
        return beyond
