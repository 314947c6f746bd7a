"""Medians of rounds, between the lowest and the highest, and their ratios."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """The median of some rounds, between the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """The spread of some values."""
        ordered = sorted(values)
        return cls(median(ordered), ordered[0], ordered[-1])


def times(base: Sequence[float], values: Sequence[float], *, less_is_better: bool) -> Spread | None:
    """How many times as good the base's median is, between the rounds where it is least and most so.

    None where a value is nothing to divide by.
    """
    above, below = (values, base) if less_is_better else (base, values)
    if not all(below):
        return None
    ratios = [one / other for one, other in zip(above, below, strict=True)]
    return Spread(median(above) / median(below), min(ratios), max(ratios))
