"""Looking after very many things a few at a time: each has its turn in every round."""

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

K = TypeVar("K")


class Rounds(Generic[K]):
    """Goes round the keys of a plain dictionary, which takes less room than one that could be turned itself."""

    __slots__ = ("_left", "_things")

    def __init__(self, things: Mapping[K, object]) -> None:
        self._things = things
        self._left: list[K] = []

    def next(self, count: int) -> Iterator[K]:
        """Return the next ``count`` keys that are there, or fewer if there are not so many; the oldest come first."""
        if len(self._left) > 2 * len(self._things):  # most are gone: they would take the turns of those that are there
            self._left = []
        for _ in range(min(count, len(self._things))):
            if not self._left:
                self._left = list(reversed(list(self._things)))
            key = self._left.pop()
            if key in self._things:
                yield key
