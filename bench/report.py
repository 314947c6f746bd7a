"""Rounds of measurements, as medians side by side."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from bench.clients import ECHO, KINDS
from bench.machine import Machine
from bench.result import Result, Shape

SATURATED = 0.95
"""From this share of a core on, the generator may have been what was measured."""

Round = Mapping[str, Sequence[Result]]
"""The results of every contestant, by its name."""


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


@dataclass(frozen=True)
class Row:
    """One kind of load, of one contestant.

    ``ratio`` is against the peer and ``share`` against Bellwire without the guarantee, round by round; None where
    that was not measured. ``cpu`` is microseconds of the server for each.
    """

    work: str
    connections: int
    size: int
    window: int
    server: str
    rate: Spread
    p50: Spread
    p99: Spread
    busy: float
    cpu: Spread
    ratio: Spread | None
    share: Spread | None

    @property
    def title(self) -> str:
        """What was measured."""
        if self.work in KINDS:
            return f"acknowledged round trips, {_many(self.connections)}, {self.size} B"
        if self.work == "connecting":
            return f"connecting, {self.connections:,} clients, {self.window} at a time"
        flight = "one message at a time" if self.window == 1 else f"{self.window} messages in flight"
        return f"fan-out, {_many(self.connections)}, {self.size} B, {flight}"

    @property
    def label(self) -> str:
        """Who was measured."""
        return f"{self.server}, {self.work}" if self.work in KINDS and self.work != ECHO else self.server


def rows(rounds: Sequence[Round], plain: str, peer: str) -> list[Row]:
    """Sum up the rounds, by what was measured and in the order in which that was met first."""
    found: dict[str, list[Row]] = {}
    for server, results in rounds[0].items():
        for number, first in enumerate(results):
            measured = [each[server][number] for each in rounds]
            row = _row(server, measured, _alike(rounds, plain, first), _alike(rounds, peer, first))
            found.setdefault(row.title, []).append(row)
    return [row for together in found.values() for row in together]


def _alike(rounds: Sequence[Round], server: str, result: Result) -> list[float]:
    """What a server did of the same, round by round; for the other kinds of round trips those that it has."""
    work = ECHO if result.work in KINDS else result.work
    shape = Shape(work, result.connections, result.size, result.window)
    return [other.rate for each in rounds for other in each.get(server, ()) if other.shape == shape]


def _row(server: str, results: Sequence[Result], plain: Sequence[float], peer: Sequence[float]) -> Row:
    first = results[0]
    return Row(
        *(first.work, first.connections, first.size, first.window, server),
        rate=Spread.of(result.rate for result in results),
        p50=Spread.of(result.p50 for result in results),
        p99=Spread.of(result.p99 for result in results),
        busy=max(result.busy for result in results),
        cpu=Spread.of(result.cpu for result in results),
        ratio=_against(results, peer),
        share=_against(results, plain),
    )


def _against(results: Sequence[Result], others: Sequence[float]) -> Spread | None:
    if not others:
        return None
    return Spread.of(result.rate / other for result, other in zip(results, others, strict=True))


def text(
    machine: Machine, rounds: Sequence[Round], plain: str, peer: str, without: str = " without the guarantee"
) -> str:
    """The whole report; ``plain`` is ``without`` something, as a rule the guarantee."""
    lines = [
        f"{machine.cpu}, {machine.cores} cores; {machine.system}; {machine.python}",
        ", ".join(f"{name} {version}" for name, version in machine.packages.items()),
        f"Median of {len(rounds)} interleaved rounds (lowest .. highest). Nothing was missing in any round.",
        f"Ratios are to {peer} and to {plain}{without}, round by round; us: server's time for each.",
    ]
    if machine.busy:
        lines.append(f"Mind: others were computing on this machine (load average {machine.load_before:.1f}).")
    table = rows(rounds, plain, peer)
    title = ""
    for row in table:
        if row.title != title:
            title = row.title
            lines += ["", f"{title[0].upper()}{title[1:]}", _HEAD]
        lines.append(_line(row))
    if any(row.busy >= SATURATED for row in table):
        lines += ["", "* The load generator used its whole core: the server may be faster than this."]
    return "\n".join(lines)


def summary(machine: Machine, rounds: Sequence[Round], plain: str, peer: str) -> dict[str, object]:
    """The same for programs: the machine, the rows, and every result of every round."""
    return {
        "machine": asdict(machine),
        "rows": [asdict(row) for row in rows(rounds, plain, peer)],
        "rounds": [
            {server: [asdict(result) for result in results] for server, results in each.items()} for each in rounds
        ],
    }


_HEAD = f"  {'':22}{'per second':>38}{'p50 ms':>9}{'p99 ms':>9}{'us':>8}{'to peer':>21}{'to plain':>22}"


def _line(row: Row) -> str:
    rate = f"{row.rate.median:,.0f} ({row.rate.low:,.0f} .. {row.rate.high:,.0f})"
    star = "*" if row.busy >= SATURATED else " "
    times = f"{row.p50.median:>9.2f}{row.p99.median:>9.2f}{row.cpu.median:>8.2f}"
    return f"  {row.label:22}{rate:>37}{star}{times}{_ratio(row.ratio, 1):>21}{_ratio(row.share, 2):>22}".rstrip()


def _ratio(ratio: Spread | None, digits: int) -> str:
    if ratio is None:
        return ""
    return f"{ratio.median:.{digits}f} ({ratio.low:.{digits}f} .. {ratio.high:.{digits}f})"


def _many(connections: int) -> str:
    return "1 connection" if connections == 1 else f"{connections:,} connections"
