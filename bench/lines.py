"""The picture of curves: a small one for each, with what was measured as dots and the two constants as a line.

It is written by hand, as the bars are. Both scales are logarithmic and belong to their frame: what is flat is level,
what grows is a straight line, and a fixed part shows as a bend.
"""

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from bellwire.load.machine import Machine
from bench.curve import Curve, number
from bench.plot import MARGIN, OURS, PEER, TEXT, WIDTH, begin

COLUMNS = 3
HEIGHT, HEADING, FOOT = 190, 44, 26
"""Of each, above its frame and below it, in pixels."""
STEEP = "#b03a2e"
LEAST = 1e-2
"""What is drawn in place of nothing."""


def svg(curves: Sequence[Curve], machine: Machine) -> str:
    """Draw the curves, three in a row."""
    width = (WIDTH - (COLUMNS + 1) * MARGIN) // COLUMNS
    parts = []
    for place, curve in enumerate(curves):
        row, column = divmod(place, COLUMNS)
        parts.append(_Frame(curve, MARGIN + column * (width + MARGIN), 40 + row * (HEIGHT + MARGIN), width).drawn())
    height = 40 + -(-len(curves) // COLUMNS) * (HEIGHT + MARGIN)
    return "\n".join([begin(height, machine), *parts, "</svg>"]) + "\n"


class _Frame:
    """One curve at its place."""

    def __init__(self, curve: Curve, x: int, y: int, width: int) -> None:
        self.curve = curve
        self.x, self.y, self.width, self.height = x, y + HEADING, width, HEIGHT - HEADING - FOOT
        self.left, self.right = _range([point.x for point in curve.points])
        self.low, self.high = _range([point.y for point in curve.points])
        if self.high - self.low < 1.0:  # a flat one is to look flat
            middle = (self.low + self.high) / 2
            self.low, self.high = middle - 1.0, middle + 1.0

    def drawn(self) -> str:
        curve, color = self.curve, STEEP if self.curve.steep else OURS
        first, last = (f"{point.x:,.0f}: {number(point.y)}" for point in (curve.points[0], curve.points[-1]))
        dots = "".join(
            f'<circle cx="{self._x(point.x):.1f}" cy="{self._y(point.y):.1f}" r="3" fill="{color}"/>'
            for point in curve.points
        )
        end, bottom = self.x + self.width, self.y + self.height
        frame = f'x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}"'
        return (
            f'<text x="{self.x}" y="{self.y - 26}" font-weight="bold">{escape(curve.name)}</text>'
            f'<text x="{self.x}" y="{self.y - 10}">{escape(curve.unit)}, by {escape(curve.by)}</text>\n'
            f'<rect {frame} fill="none" stroke="{PEER}"/>\n'
            f'<polyline points="{self._line()}" fill="none" stroke="{color}"/>{dots}\n'
            f'<text x="{self.x}" y="{bottom + 16}" fill="{TEXT}">{first}</text>'
            f'<text x="{end}" y="{bottom + 16}" text-anchor="end">{last}</text>'
        )

    def _line(self) -> str:
        """The constants' line, in as many pieces as there are points, and four more between each two."""
        steps = 5 * (len(self.curve.points) - 1)
        xs = [10 ** (self.left + (self.right - self.left) * step / steps) for step in range(steps + 1)]
        fitted = [(x, self.curve.fixed + self.curve.each * x**self.curve.shape) for x in xs]
        return " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in fitted)

    def _x(self, x: float) -> float:
        return self.x + self.width * (_log(x) - self.left) / (self.right - self.left)

    def _y(self, y: float) -> float:
        share = (_log(y) - self.low) / (self.high - self.low)
        return self.y + self.height * (1 - min(max(share, 0.0), 1.0))


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The powers of ten between which they lie, with some space around them."""
    logs = [_log(value) for value in values]
    space = (max(logs) - min(logs)) * 0.05 or 0.1
    return min(logs) - space, max(logs) + space


def _log(value: float) -> float:
    return math.log10(max(value, LEAST))
