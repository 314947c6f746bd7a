"""What a log answers to a reader that names its position (the guarantee, "Resume on any node")."""

from bisect import bisect_left
from enum import StrEnum
from operator import attrgetter
from typing import Final, NamedTuple, TypeAlias

from bellwire.delivery.entry import Entry
from bellwire.delivery.position import Position

PAGE_MESSAGES: Final = 500
"""The most entries in a page."""

PAGE_BYTES: Final = 1024 * 1024
"""The most bytes in a page; one entry that is larger makes a page of its own."""


class Reason(StrEnum):
    """Why a stream could not be continued; the value is what the client is told."""

    TRUNCATED = "truncated"
    """What came next is no longer in the log."""

    GENERATION = "generation"
    """The log is another one: it was wiped or made again, or the position is older than its memory."""

    DIVERGED = "diverged"
    """The position is not in the log: a failover took back what the reader has seen."""

    TOO_FAR = "too_far"
    """The log went on faster than the reader could take it, until what came next was no longer there."""

    FORBIDDEN = "forbidden"
    """The reader may no longer read the stream."""

    SESSION_LOST = "session_lost"
    """The session is not known any more, and with it not where the reader was a member."""


class Page(NamedTuple):
    """The entries right behind the position asked for, which is hereby proved; ``more`` follow up to ``top``.

    ``confirmed`` says that all that was acknowledged before the question is in the answer's view of the log. Where it
    is False, that nothing follows is no verdict: a follower may lag behind.
    """

    entries: list[Entry]
    top: Position
    more: bool
    confirmed: bool

    def behind(self, at: Position) -> "Page | None":
        """The rest of it, behind a position that is in it; None where that is not sure, or nothing of it would be left.

        A position of another generation is judged by more than the entries: nothing is said of it here.
        """
        entries, seq = self.entries, at.seq
        if at.gen != self.top.gen or not entries or not entries[0].seq <= seq < entries[-1].seq:
            return None
        place = bisect_left(entries, seq, key=attrgetter("seq"))
        return self._replace(entries=entries[place + 1 :]) if entries[place].point == at.point else None


class Unproved(NamedTuple):
    """The position asked for cannot be continued.

    A replay starts at ``restart``, before the log's oldest entry: of nothing newer it is certain that the reader has
    seen it. ``confirmed`` is as in `Page`; where it is False, this is no verdict.

    What lies beyond ``since`` was appended after the position asked for was reached; of what lies before, nobody knows.
    So who became a member at that position is not shown it. It is None where all that there is came later.
    """

    reason: Reason
    restart: Position
    top: Position
    confirmed: bool
    since: Position | None = None


Answer: TypeAlias = Page | Unproved
