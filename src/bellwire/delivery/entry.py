"""A message as a stream holds it, and as a publisher gives it (the guarantee, "Streams", "Several rooms")."""

from typing import Final, NamedTuple

import msgspec

from bellwire.delivery.position import Point

MARKER_MID: Final = ""
"""The id of a marker: an entry that is never delivered. It is appended to an empty stream, so that whoever joins has
a position that can be proved."""

FIXED_BYTES: Final = 64
"""What an entry is counted with beside its contents: numbers, tags, times."""


class Copy(NamedTuple):
    """Where an earlier copy of the same message stands, when it went to several rooms."""

    stream: str
    gen: str
    seq: int


class Draft(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a publisher gives for one attempt to append.

    ``mid`` identifies the message across all attempts; ``tag`` is 32 random bits, drawn anew for each attempt.
    ``body`` is opaque and already encoded. ``excluded`` names the rooms and socket ids that do not get the message,
    judged when it is handed over. ``copies`` are the copies appended before this one, in the order of the rooms.
    """

    mid: str
    tag: int
    body: bytes
    excluded: tuple[str, ...] = ()
    copies: tuple[Copy, ...] = ()


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry of a stream, made by `enter`.

    ``prev`` is the point of the entry before, ``point`` the place right behind this one, ``at`` the broker's time in
    seconds, ``size`` the bytes that it counts with in the limits of histories and pages.
    """

    seq: int
    tag: int
    prev: Point
    mid: str
    body: bytes
    excluded: tuple[str, ...]
    copies: tuple[Copy, ...]
    at: float
    point: Point
    size: int

    @property
    def is_marker(self) -> bool:
        """Whether this is a place to stand on only, and nothing to deliver."""
        return self.mid == MARKER_MID


def marker(tag: int) -> Draft:
    """Return a marker to append to an empty stream."""
    return Draft(MARKER_MID, tag, b"")


def enter(draft: Draft, seq: int, prev: Point, at: float) -> Entry:
    """Return ``draft`` as the entry with number ``seq`` behind ``prev``."""
    mid, tag, body, excluded, copies = draft.mid, draft.tag, draft.body, draft.excluded, draft.copies
    size = FIXED_BYTES + len(mid) + len(body)
    if excluded:
        size += sum(map(len, excluded))
    if copies:
        size += sum([len(copy.stream) + len(copy.gen) + 8 for copy in copies])
    return Entry(seq, tag, prev, mid, body, excluded, copies, at, Point(seq, tag), size)
