"""How a cost grows: what was measured, the two constants in it, and whether it grows faster than it may."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

FLAT, LINEAR, SQUARE = 0, 1, 2
SHAPES = {FLAT: "flat", LINEAR: "linear", SQUARE: "square"}

SLACK = 0.3
"""What the power of a curve may be above its own: caches are missed more often where there is more."""
FLATNESS = 2.0
"""What the last point of a flat curve may be, in times of the median of those before it; the same caches."""
NOTHING = 1e-9


class Point(NamedTuple):
    """What it costs at ``x``."""

    x: float
    y: float


@dataclass(frozen=True)
class Curve:
    """The cost of something, in ``unit``, by the number of ``by``; it may grow with the power ``shape`` of that."""

    name: str
    by: str
    unit: str
    shape: int
    points: tuple[Point, ...]

    @classmethod
    def of(cls, name: str, by: str, unit: str, shape: int, xs: Sequence[float], ys: Sequence[float]) -> Self:
        """Make one of ``ys`` at ``xs``."""
        return cls(name, by, unit, shape, tuple(Point(*point) for point in zip(xs, ys, strict=True)))

    @property
    def each(self) -> float:
        """What one of ``by`` adds, or one of its squares; 0 for what is flat."""
        return 0.0 if self.shape == FLAT else self._fitted[1]

    @property
    def fixed(self) -> float:
        """What it costs without any."""
        return self._fitted[0]

    @property
    def _fitted(self) -> tuple[float, float]:
        """The two by least squares of relative errors: a point of a million is not to drown those of one."""
        powers = [point.x**self.shape for point in self.points]
        weights = [1 / max(point.y, NOTHING) ** 2 for point in self.points]
        total = sum(weights)
        x = sum(w * p for w, p in zip(weights, powers, strict=True)) / total
        y = sum(w * point.y for w, point in zip(weights, self.points, strict=True)) / total
        spread = sum(w * (p - x) ** 2 for w, p in zip(weights, powers, strict=True))
        if self.shape == FLAT or not spread:
            return y, 0.0
        common = sum(w * (p - x) * (point.y - y) for w, p, point in zip(weights, powers, self.points, strict=True))
        slope = common / spread
        return y - slope * x, slope

    @property
    def power(self) -> float:
        """The power of ``by`` with which it grows where there is most of it: between the last point and one before.

        That one has a quarter of it, or less.
        """
        last = self.points[-1]
        earlier = [point for point in self.points if 0 < point.x <= last.x / 4]
        if not earlier or earlier[-1].y <= NOTHING:
            return 0.0
        return math.log(max(last.y, NOTHING) / earlier[-1].y) / math.log(last.x / earlier[-1].x)

    @property
    def steep(self) -> bool:
        """Whether it grows faster than it may."""
        if self.shape != FLAT:
            return self.power > self.shape + SLACK
        before = sorted(point.y for point in self.points[:-1])
        return self.points[-1].y > FLATNESS * before[len(before) // 2] + NOTHING

    def __str__(self) -> str:
        first, last = self.points[0], self.points[-1]
        verdict = f"STEEPER THAN {SHAPES[self.shape].upper()}" if self.steep else SHAPES[self.shape]
        ends = f"{number(first.y)} at {first.x:,.0f}, {number(last.y)} at {last.x:,.0f}"
        adds = "" if self.shape == FLAT else f"; each adds {number(self.each)}"
        return f"{self.name}, by {self.by}: {verdict}: {ends} {self.unit}{adds}"


class Found(NamedTuple):
    """What an experiment found: curves, and constants by name for `bench.model`."""

    curves: list[Curve]
    constants: dict[str, float]


def number(value: float) -> str:
    """Show three digits of a number."""
    if not value:
        return "0"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
