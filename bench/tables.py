"""A run that was measured, as a table for the documentation: a line for each work, a column for each server."""

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from bellwire.load.clients.base import ECHO, KINDS
from bellwire.load.result import CPU, IDLE_CPU, P99, RATE, SATURATED
from bench import ROOT
from bench.report import UNITS, Row

SPEED = ROOT / "docs" / "figures" / "speed.json"
"""What ``make bench`` wrote,"""
MATRIX = SPEED.with_name("matrix.json")
"""and what ``python -m bench --full`` did."""
_SECOND = (("fanout", CPU), (ECHO, P99), ("idle", IDLE_CPU))
_ORDER = ("fanout", "rooms", ECHO, "connecting", "idle")


class _Run(msgspec.Struct):
    rows: list[Row]


def read(file: Path) -> list[Row]:
    """The rows of a run (`bench.report.summary`)."""
    return msgspec.json.decode(file.read_bytes(), type=_Run).rows


def table(rows: Sequence[Row], servers: Sequence[str], bases: Sequence[str], *, also: Collection[str] = ()) -> str:
    """Medians side by side; in brackets how many times as good those are of ``bases`` that a server is held against.

    Some works have a second line if ``also`` names its figure: broadcasts `CPU`, round trips `P99`, idle connections
    `IDLE_CPU`. What none of ``servers`` did has no line, and who did nothing no column. A star says that the load
    generator used its whole core.
    """
    servers = [name for name in servers if any(row.label == name for row in rows)]
    lines = [f"| | {' | '.join(servers)} |", f"|---|{'--:|' * len(servers)}"]
    together = sorted(rows, key=lambda row: _ORDER.index(ECHO if row.shape.work in KINDS else row.shape.work))
    for title, group in groupby(together, lambda row: row.title):
        found = {row.label: row for row in group if row.label in servers}
        for figure in _figures(list(found.values()), also):
            cells = (_cell(found[name], figure, bases) if name in found else "" for name in servers)
            what = title if figure == RATE else f"{title}: {UNITS[figure]}"
            lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _figures(rows: Sequence[Row], also: Collection[str]) -> Iterator[str]:
    for row in rows[:1]:
        yield next(iter(row.figures))
        yield from (figure for work, figure in _SECOND if work == row.shape.work and figure in also)


def _cell(row: Row, figure: str, bases: Sequence[str]) -> str:
    ratios = [_ratio(row.times[figure][base].median) for base in bases if base in row.times[figure]]
    star = "*" if figure == RATE and row.busy >= SATURATED else ""
    value = row.figures[figure].median
    text = f"{value:,.0f}" if figure not in (CPU, P99, IDLE_CPU) else f"{value:.2f}"
    return text + star + (f" ({', '.join(ratios)})" if ratios else "")


def _ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 2 else f"{value:.2f}"
