"""Since when a reader is in a stream, and which copy of a message to several rooms it takes.

The copies are appended in the order in which the rooms were named, and each carries the positions of those before it.
A reader takes the copy of the first named stream that it was a member of at that position; the others only advance
its chain (the guarantee, "Several rooms").

Numbers alone do not tell that. A failover takes entries back and gives their numbers out again: a stay that was over
before would seem to hold what was appended after it. So places are compared by their generations first, which have an
order (`era`), and by numbers within one. Two things remain:

- A copy that was taken back is gone for a reader that was in its room then, whatever becomes of the other copies.
- Where a failover goes unnoticed, so that a generation goes on with other entries (there and back again, within the
  second between two looks), numbers of before and after are compared as if they were of one log.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bellwire.delivery.entry import Entry
from bellwire.delivery.position import Position, order


class Membership(NamedTuple):
    """From which position on a reader is in a stream, and up to which; ``left`` is None while it is in it."""

    joined: Position
    left: Position | None = None

    def covers(self, gen: str, seq: int) -> bool:
        """Whether the entry that was given this number under this generation falls into the membership."""
        joined, left, place = self.joined, self.left, order(gen, seq)
        return order(joined.gen, joined.seq) < place and (left is None or place <= order(left.gen, left.seq))


def taken_elsewhere(entry: Entry, spans: Mapping[str, Sequence[Membership]]) -> bool:
    """Whether a reader that was in these streams takes an earlier copy of ``entry`` than this one.

    ``spans`` are its memberships by stream; of one stream there are several if it left and joined again.
    """
    for copy in entry.copies:
        for membership in spans.get(copy.stream, ()):
            if membership.covers(copy.gen, copy.seq):
                return True
    return False
