"""The newest volatile events for a client that does not keep up: they are sent when it has room again.

Of what is stale in a moment the newest is worth most: where a cursor stands now, whether somebody still types. So they
are kept by event and room, and the old give way to the new. One for each would not do, because several members of a
room emit the same event: the cursors of all others would stay where they were.
"""

from collections.abc import Iterable
from typing import Final

from bellwire.server.dialects import Item

NEWEST: Final = 128
"""How many are kept for one socket: one of each room that it may be in, by default."""

OF_EACH: Final = 16
"""How many of them of the same event in the same room."""

NEWEST_BYTES: Final = 32_768
"""How many bytes; the newest is kept whatever its size. They are shared by all for whom they are kept."""


class Fresh:
    """A volatile event in a stream; one object for all for whom it is kept."""

    __slots__ = ("item", "key", "size")

    def __init__(self, stream: str, item: Item) -> None:
        self.item = item
        self.key = stream, item.name
        self.size = item.stock.size


class Latest:
    """Those of one socket, in the order in which they came."""

    __slots__ = ("_bytes", "_counts", "_kept")

    def __init__(self) -> None:
        self._kept: list[Fresh] = []
        self._counts: dict[tuple[str, str], int] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def items(self) -> list[Item]:
        """What is to be sent."""
        return [fresh.item for fresh in self._kept]

    def put(self, news: Iterable[Fresh]) -> int:
        """Keep ``news``; return how many older ones gave way."""
        kept, counts, dropped = self._kept, self._counts, 0
        for fresh in news:
            if counts.get(fresh.key) == OF_EACH:
                self._drop(next(place for place, old in enumerate(kept) if old.key == fresh.key))
                dropped += 1
            while kept and (len(kept) == NEWEST or self._bytes + fresh.size > NEWEST_BYTES):
                self._drop(0)
                dropped += 1
            kept.append(fresh)
            counts[fresh.key] = counts.get(fresh.key, 0) + 1
            self._bytes += fresh.size
        return dropped

    def _drop(self, place: int) -> None:
        old = self._kept.pop(place)
        self._bytes -= old.size
        self._counts[old.key] -= 1
        if not self._counts[old.key]:
            del self._counts[old.key]
