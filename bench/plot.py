"""The picture of a run: bars beside each other, for each row of the table, on a scale from nothing to the highest.

It is written by hand: SVG is text, and the bars of a table need no library.
"""

from collections.abc import Sequence
from itertools import groupby
from xml.sax.saxutils import escape

from bellwire.load.machine import Machine
from bellwire.load.result import RATE
from bench.contestants import CONTESTANTS
from bench.report import UNITS, Row

WIDTH, MARGIN, LABELS, VALUES = 880, 16, 190, 130
"""Of the picture, around it, of the names at the left and of the numbers at the right, in pixels."""
BAR, GAP, HEADING = 14, 6, 40
OURS, PEER, WHISKER, TEXT = "#2f6f8f", "#b9bfc4", "#33383c", "#1c1f22"


def svg(rows: Sequence[Row], machine: Machine) -> str:
    """Draw the table. A bar is a median, and the line on it reaches from the lowest to the highest round."""
    parts, y = [], MARGIN + 30
    for title, group in groupby(rows, lambda row: row.title):
        together = list(group)
        parts.append(_heading(title, together[0], y))
        y += HEADING
        for row in together:
            parts.append(_bar(row, y, _scale(together)))
            y += BAR + GAP
    return "\n".join([begin(y + MARGIN, machine), *parts, "</svg>"]) + "\n"


def begin(height: int, machine: Machine) -> str:
    """Begin a picture that says where it was measured."""
    where = escape(f"{machine.cpu}, {machine.cores} cores; {machine.system}; {machine.python}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12" fill="{TEXT}">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
        f'<text x="{MARGIN}" y="{MARGIN + 12}">{where}</text>'
    )


def _heading(title: str, row: Row, y: int) -> str:
    main = next(iter(row.figures))
    better = "more" if main == RATE else "less"
    text = escape(f"{title[0].upper()}{title[1:]}")
    return (
        f'<text x="{MARGIN}" y="{y + 28}" font-weight="bold">{text}'
        f'<tspan font-weight="normal"> ({escape(UNITS[main])}; {better} is better)</tspan></text>'
    )


def _scale(rows: Sequence[Row]) -> float:
    """Pixels for one."""
    highest = max(next(iter(row.figures.values())).high for row in rows)
    return (WIDTH - 2 * MARGIN - LABELS - VALUES) / (highest or 1)


def _bar(row: Row, y: int, scale: float) -> str:
    spread = next(iter(row.figures.values()))
    left, middle = MARGIN + LABELS, y + BAR / 2
    low, high = left + spread.low * scale, left + spread.high * scale
    color = OURS if CONTESTANTS[row.server].ours else PEER
    return (
        f'<text x="{left - 8}" y="{y + 11}" text-anchor="end">{escape(row.label)}</text>\n'
        f'<rect x="{left}" y="{y}" width="{max(spread.median * scale, 1):.1f}" height="{BAR}" fill="{color}"/>\n'
        f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="{WHISKER}"/>\n'
        f'<text x="{high + 8:.1f}" y="{y + 11}">{spread.median:,.0f}</text>'
    )
