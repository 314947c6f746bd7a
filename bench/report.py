"""Rounds of measurements, as medians side by side."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from bench.load import Result
from bench.machine import Machine

SATURATED = 0.95
"""From this share of a core on, the generator may have been what was measured."""


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
    """One kind of load, of one server. ``ratio`` is against the last server, round by round."""

    work: str
    connections: int
    size: int
    window: int
    server: str
    rate: Spread
    p50: Spread
    p99: Spread
    busy: float
    ratio: Spread

    @property
    def title(self) -> str:
        """What was measured."""
        if self.work == "echo":
            return f"acknowledged round trips, {_many(self.connections)}, {self.size} B"
        flight = "one message at a time" if self.window == 1 else f"{self.window} messages in flight"
        return f"fan-out, {_many(self.connections)}, {self.size} B, {flight}"


def rows(rounds: Sequence[dict[str, list[Result]]]) -> list[Row]:
    """Sum up the rounds. A round has the results of every server, by its name, in the same order."""
    servers = list(rounds[0])
    table = []
    for case in range(len(rounds[0][servers[0]])):
        peer = [each[servers[-1]][case].rate for each in rounds]
        table += [_row(server, [each[server][case] for each in rounds], peer) for server in servers]
    return table


def _row(server: str, results: list[Result], peer: list[float]) -> Row:
    first = results[0]
    return Row(
        *(first.work, first.connections, first.size, first.window, server),
        rate=Spread.of(result.rate for result in results),
        p50=Spread.of(result.p50 for result in results),
        p99=Spread.of(result.p99 for result in results),
        busy=max(result.busy for result in results),
        ratio=Spread.of(result.rate / other for result, other in zip(results, peer, strict=True)),
    )


def text(machine: Machine, rounds: Sequence[dict[str, list[Result]]]) -> str:
    """The whole report."""
    lines = [
        f"{machine.cpu}, {machine.cores} cores; {machine.system}; {machine.python}",
        ", ".join(f"{name} {version}" for name, version in machine.packages.items()),
        f"Median of {len(rounds)} interleaved rounds (lowest .. highest). Nothing was missing in any round.",
    ]
    if machine.busy:
        lines.append(f"Mind: others were computing on this machine (load average {machine.load_before:.1f}).")
    table = rows(rounds)
    title = ""
    for row in table:
        if row.title != title:
            title = row.title
            lines += ["", f"{title[0].upper()}{title[1:]}", _HEAD]
        lines.append(_line(row))
    if any(row.busy >= SATURATED for row in table):
        lines += ["", "* The load generator used its whole core: the server may be faster than this."]
    return "\n".join(lines)


def summary(machine: Machine, rounds: Sequence[dict[str, list[Result]]]) -> dict[str, object]:
    """The same for programs: the machine, the rows, and every result of every round."""
    return {
        "machine": asdict(machine),
        "rows": [asdict(row) for row in rows(rounds)],
        "rounds": [
            {server: [asdict(result) for result in results] for server, results in each.items()} for each in rounds
        ],
    }


_HEAD = f"  {'':16}{'per second':>34}{'p50 ms':>11}{'p99 ms':>11}{'ratio':>25}"


def _line(row: Row) -> str:
    rate = f"{row.rate.median:,.0f} ({row.rate.low:,.0f} .. {row.rate.high:,.0f})"
    ratio = f"{row.ratio.median:.1f} ({row.ratio.low:.1f} .. {row.ratio.high:.1f})"
    star = "*" if row.busy >= SATURATED else " "
    return f"  {row.server:16}{rate:>33}{star}{row.p50.median:>11.2f}{row.p99.median:>11.2f}{ratio:>25}"


def _many(connections: int) -> str:
    return "1 connection" if connections == 1 else f"{connections:,} connections"
