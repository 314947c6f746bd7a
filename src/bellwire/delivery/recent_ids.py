"""The ids of what was appended lately, and where it stands: for a window of time, by which doubles are known.

At thousands of messages a second there are very many. They are kept by the slice, and forgotten by the slice: a
dictionary that loses its first keys as it gains new ones is made anew every few minutes, with all that is in it, and
leaves a hole in memory that nothing else may fit into.
"""

from typing import Final, TypeAlias

Known: TypeAlias = tuple[float, str, int, int, int, int]
"""When a message was appended, the generation, its own number and tag, and those of the entry before. A plain tuple of
what has no parts: the garbage collector lets it alone."""

SLICES: Final = 8
"""So many are in a window, and one more that is not forgotten yet."""
FEW: Final = 16
"""A slice of fewer goes on: a stream in which little happens has one."""


class RecentIds:
    """Where each of them stands, for so many seconds; times never go back."""

    __slots__ = ("_slices",)

    def __init__(self) -> None:
        self._slices: list[dict[str, Known]] = []  # the newest first

    def __len__(self) -> int:
        return sum(map(len, self._slices))

    @property
    def oldest(self) -> float | None:
        """When the last of the oldest slice was appended, which is forgotten as a whole."""
        return _last(self._slices[-1]) if self._slices else None

    def find(self, mid: str) -> Known | None:
        """Return where it stands, if it is known; it may be older than the window."""
        for ids in self._slices:
            if mid in ids:
                return ids[mid]
        return None

    def add(self, mid: str, known: Known, window: float) -> None:
        """Remember it; what was known of the same id counts no longer."""
        slices = self._slices
        if not slices or (len(slices[0]) >= FEW and known[0] - _first(slices[0]) > window / SLICES):
            slices.insert(0, {})
        slices[0].pop(mid, None)  # the last one in is the newest
        slices[0][mid] = known

    def forget(self, horizon: float) -> None:
        """Forget the slices from before."""
        while self._slices and _last(self._slices[-1]) < horizon:
            self._slices.pop()

    def discard(self, mid: str) -> None:
        """Forget one."""
        self._slices = [ids for ids in self._slices if ids.pop(mid, None) is None or ids]

    def clear(self) -> None:
        """Forget all."""
        self._slices.clear()


def _first(ids: dict[str, Known]) -> float:
    return next(iter(ids.values()))[0]


def _last(ids: dict[str, Known]) -> float:
    return next(reversed(ids.values()))[0]
