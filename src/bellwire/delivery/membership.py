"""Since when a reader is in a stream, and which copy of a message to several rooms it takes.

The copies are appended in the order in which the rooms were named, and each carries the positions of those before it.
A reader takes the copy of the first named stream that it was a member of at that position; the others only advance
its chain (the guarantee, "Several rooms").
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bellwire.delivery.entry import Entry
from bellwire.delivery.position import Position


class Membership(NamedTuple):
    """From which position on a reader is in a stream, and up to which; ``left`` is None while it is in it."""

    joined: Position
    left: Position | None = None

    def covers(self, seq: int) -> bool:
        """Whether the entry with this number falls into the membership."""
        return self.joined.seq < seq and (self.left is None or seq <= self.left.seq)


def taken_elsewhere(entry: Entry, spans: Mapping[str, Sequence[Membership]]) -> bool:
    """Whether a reader that was in these streams takes an earlier copy of ``entry`` than this one.

    ``spans`` are its memberships by stream; of one stream there are several if it left and joined again.
    """
    for copy in entry.copies:
        for membership in spans.get(copy.stream, ()):
            if membership.covers(copy.seq):
                return True
    return False
