"""The newest of what is made again and again: so many of them, and so many bytes."""

from collections import deque
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Newest(Generic[K, V]):
    """At most ``most`` values by their keys, with at most ``most_bytes`` together; the newest has a place in any case.

    What was put first goes first, however often it was asked for.
    """

    __slots__ = ("_most", "_most_bytes", "_order", "_values", "get", "size")

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._values: dict[K, V] = {}
        self._order: deque[tuple[K, int]] = deque()
        self.get = self._values.get
        """Return the value of a key, None if there is none (any more)."""
        self.size = 0
        """How many bytes they have together."""

    def __len__(self) -> int:
        return len(self._values)

    def put(self, key: K, value: V, size: int) -> None:
        """Keep ``value``, of ``size`` bytes. In the place of another under its key it counts as that did."""
        values, order = self._values, self._order
        if key not in values:
            order.append((key, size))
            self.size += size
        values[key] = value
        while len(order) > self._most or (self.size > self._most_bytes and len(order) > 1):
            oldest, its_size = order.popleft()
            self.size -= its_size
            del values[oldest]
