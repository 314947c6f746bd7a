"""Whether something stayed as it was."""

from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import NamedTuple

FEWEST = 3
"""Values that a verdict takes: one in each third."""


class Tolerance(NamedTuple):
    """What may be added: a share of what there was, and an amount."""

    share: float
    amount: float


class Verdict(NamedTuple):
    """A figure's medians in the second and the last third of the time, and whether it rises from one to the other.

    ``slope`` is by how much it rises from one value to the next.
    """

    name: str
    before: float
    after: float
    slope: float
    flat: bool

    def __str__(self) -> str:
        said = "flat" if self.flat else "NOT flat"
        return f"{self.name}: {said}, {self.before:,.2f} in the second third, {self.after:,.2f} in the last"


def judge(name: str, values: Sequence[float], tolerance: Tolerance) -> Verdict:
    """Judge by the slope of the second and the last third of the values; the first warmed up. To sink is always flat.

    What it rises by in a third of the time has to be within the tolerance.

    Raises:
        ValueError: there are fewer than `FEWEST` values.

    """
    third = len(values) // 3
    seen = values[-2 * third :]
    before, after, slope = median(seen[:-third]), median(seen[-third:]), slope_of(seen)
    return Verdict(name, before, after, slope, slope * third <= before * tolerance.share + tolerance.amount)


def slope_of(values: Sequence[float]) -> float:
    """The median of the slopes between each two values (Theil and Sen's): a few that stand out do not move it."""
    return median((late - early) / (b - a) for (a, early), (b, late) in combinations(enumerate(values), 2))
