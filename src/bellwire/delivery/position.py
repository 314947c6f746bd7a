"""Where a reader stands in a stream, and what proves it (the guarantee, "Positions").

The broker numbers the entries of a stream (``seq``) within a generation of its log (``gen``). A failover can take the
newest entries back and put others in their places, under the same numbers and even under the same generation. So
every attempt to append draws 32 random bits, the ``tag``, which are stored with the entry: ``(seq, tag)`` proves a
place in the log. A message id never does (a retried message has the same one on both sides of a failover), and a
generation alone does not either; it only makes finding out early and cheap.
"""

import re
import sys
from functools import lru_cache
from typing import Final, NamedTuple

MAX_GENERATIONS: Final = 16
"""How many former generations a stream remembers. A cursor of an older one is told ``generation``: a restart or a
failover opens one, and a reader stays away for minutes, not for sixteen failovers."""

UNBOUNDED: Final = sys.maxsize
"""How far a cursor of the current generation reaches by its generation: the chain alone decides."""


class Point(NamedTuple):
    """A place in a stream: right behind the entry that has this number and this tag."""

    seq: int
    tag: int


_is_era: Final = re.compile(r"[0-9]{1,18}").fullmatch

START: Final = Point(0, 0)
"""Before the first entry. It proves nothing but that its owner has seen nothing: compare the generation as well."""


class Position(NamedTuple):
    """A `Point` as it is told to readers and brokers: with the generation under which it was reached.

    ``gen`` is never empty, and opaque but for its `era`; an int from 0 to 2^63 - 1, and one to 2^32 - 1.
    """

    gen: str
    seq: int
    tag: int

    @property
    def point(self) -> Point:
        """The part that is proved by the log."""
        return Point(self.seq, self.tag)


@lru_cache(maxsize=1024)
def era(gen: str) -> int:
    """Return the number in front of a generation's first dot, 0 if there is none.

    A broker gives a greater one to each generation of a stream. So it is known which of two places was there first,
    though a failover took back what was between, and gave its numbers out again.
    """
    number, dot, _ = gen.partition(".")
    return int(number) if dot and _is_era(number) else 0


def order(gen: str, seq: int) -> tuple[int, int]:
    """Return what sorts the places of one stream in the order in which they were given out."""
    return era(gen), seq


def position(gen: str, point: Point) -> Position:
    """Return ``point`` as reached under ``gen``."""
    return Position(gen, point.seq, point.tag)


class Generations:
    """The generation of a log, and up to which number each former one is still good.

    The idea is that of Kafka's leader epochs (KIP-101): a cursor of a former generation has seen nothing but what the
    present log holds, up to that generation's last valid number; beyond it, it has seen what a failover took back.
    """

    __slots__ = ("_former", "current")

    def __init__(self, current: str) -> None:
        self.current = current
        self._former: dict[str, int] | None = None  # most have none

    @property
    def history(self) -> list[tuple[str, int]]:
        """The former generations with the last number valid in each, newest last."""
        return list((self._former or {}).items())

    def open(self, gen: str, last: int) -> None:
        """Go on under ``gen``: of all that came before, what lies up to number ``last`` is still in the log.

        A generation may come back (a failover from A to B and to A again). Nothing is known then about its earlier
        cursors by their generation, and the chain alone judges them.
        """
        self.clip(last)
        if gen == self.current:
            return
        former = self._former = self._former or {}
        former[self.current] = last
        former.pop(gen, None)
        self.current = gen
        while len(former) > MAX_GENERATIONS:
            del former[next(iter(former))]

    def clip(self, last: int) -> None:
        """What lay beyond number ``last`` is gone, for the former generations too."""
        if self._former is not None:
            self._former = {gen: min(reach, last) for gen, reach in self._former.items()}

    def reach(self, gen: str) -> int | None:
        """How far a cursor of ``gen`` can be good: `UNBOUNDED` for the current one, None for one that is not known."""
        if gen == self.current:
            return UNBOUNDED
        return None if self._former is None else self._former.get(gen)
