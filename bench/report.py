"""Rounds of measurements, as medians side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import msgspec

from bellwire.load.clients.base import ECHO, KINDS
from bellwire.load.machine import Machine
from bellwire.load.result import CPU, IDLE_CPU, MEMORY, P50, P99, RATE, SATURATED, Found, Shape
from bench.contestants import CONTESTANTS
from bench.rounds import Round, Run
from bench.spread import Spread, times

UNITS = {
    RATE: "per second",
    P50: "p50 ms",
    P99: "p99 ms",
    CPU: "us each",
    MEMORY: "bytes each",
    IDLE_CPU: "% of a core",
}


@dataclass(frozen=True)
class Row:
    """One measurement of one contestant.

    ``figures`` come with the most important one first. ``times`` is how many times as good those are that it is held
    against, in each figure. ``busy`` is the highest share of a core that the generator needed.
    """

    shape: Shape
    server: str
    figures: Mapping[str, Spread]
    times: Mapping[str, Mapping[str, Spread]]
    busy: float

    @property
    def title(self) -> str:
        """What was measured."""
        return self.shape.title

    @property
    def label(self) -> str:
        """Who was measured."""
        asked = self.shape.work
        return f"{self.server}, {asked}" if asked in KINDS and asked != ECHO else self.server


def rows(rounds: Sequence[Round]) -> list[Row]:
    """Sum up the rounds, by what was measured and in the order in which that was met first.

    What is missing in one round has no row.
    """
    found: dict[str, list[Row]] = {}
    for server, results in rounds[0].items():
        for shape in results:
            measured = _measured(rounds, server, shape)
            if measured:
                row = _row(rounds, server, shape, measured)
                found.setdefault(row.title, []).append(row)
    return [row for together in found.values() for row in together]


def _measured(rounds: Sequence[Round], server: str, shape: Shape) -> list[Found]:
    """What a server did of this, in each round; nothing if it is missing in one."""
    found = [each[server][shape] for each in rounds if shape in each.get(server, ())]
    return found if len(found) == len(rounds) else []


def _row(rounds: Sequence[Round], server: str, shape: Shape, measured: Sequence[Found]) -> Row:
    alike = shape._replace(work=ECHO) if shape.work in KINDS else shape  # other round trips are held against plain ones
    bases = {base: _measured(rounds, base, alike) for base in CONTESTANTS[server].against}
    values = _by_figure(measured)
    against = {
        figure: {
            base: ratio
            for base, of_base in bases.items()
            if of_base
            and (base, alike) != (server, shape)
            and (ratio := times(_by_figure(of_base)[figure], ours, less_is_better=figure != RATE))
        }
        for figure, ours in values.items()
    }
    spreads = {figure: Spread.of(each) for figure, each in values.items()}
    return Row(shape, server, spreads, against, max(result.busy for result in measured))


def _by_figure(measured: Sequence[Found]) -> dict[str, list[float]]:
    return {figure: [result.figures[figure] for result in measured] for figure in measured[0].figures}


def text(machine: Machine, run: Run, skipped: Mapping[str, str]) -> str:
    """The whole report; ``skipped`` are contestants that are not there, and why."""
    table = rows(run.rounds)
    whole = "Nothing was missing in any round." if table else "NOTHING was measured."
    lines = [
        f"{machine.cpu}, {machine.cores} cores; {machine.system}; {machine.python}",
        ", ".join(f"{name} {version}" for name, version in machine.packages.items()),
        f"Median of {len(run.rounds)} interleaved rounds (lowest .. highest). {whole}",
        "At the right how many times as good Bellwire's median is (in the rounds); us each is the server's time.",
    ]
    if machine.busy:
        lines.append(f"Mind: others were computing on this machine (load average {machine.load_before:.1f}).")
    heading = ""
    for row in table:
        if row.title != heading:
            heading = row.title
            lines += ["", f"{heading[0].upper()}{heading[1:]}", _head(row)]
        lines.append(_line(row))
    if any(row.busy >= SATURATED for row in table):
        lines += ["", "* The load generator used its whole core: the server may be faster than this."]
    lines += [""] * bool(skipped or run.failures)
    lines += [f"Not measured: {name}: {why}" for name, why in skipped.items()]
    lines += [f"Failed: {what}: {_in_brief(why)}" for what, why in run.failures.items()]
    return "\n".join(lines)


def _in_brief(why: str) -> str:
    """The first line and the last; all of it was told when it failed."""
    lines = why.splitlines()
    return " ... ".join(dict.fromkeys(lines[:1] + lines[-1:]))


def summary(machine: Machine, run: Run, skipped: Mapping[str, str]) -> bytes:
    """The same for programs, as JSON: the machine, the rows, and every result of every round."""
    data = {
        "machine": asdict(machine),
        "rows": [{"title": row.title, **asdict(row), "saturated": row.busy >= SATURATED} for row in rows(run.rounds)],
        "rounds": [{server: list(results.values()) for server, results in each.items()} for each in run.rounds],
        "skipped": skipped,
        "failed": run.failures,
    }
    return msgspec.json.format(msgspec.json.encode(data)) + b"\n"


def _head(row: Row) -> str:
    first, *others = (UNITS[figure] for figure in row.figures)
    return f"  {'':24}{first:>37} {''.join(f'{unit:>12}' for unit in others)}"


def _line(row: Row) -> str:
    (main, first), *others = row.figures.items()
    star = "*" if row.busy >= SATURATED else " "
    more = "".join(f"{each.median:>12.2f}" for _, each in others)
    ratios = "   ".join(f"{base} {_spread(ratio, 2)}" for base, ratio in row.times[main].items())
    return f"  {row.label:24}{_spread(first, 0):>37}{star}{more}   {ratios}".rstrip()


def _spread(spread: Spread, digits: int) -> str:
    return f"{spread.median:,.{digits}f} ({spread.low:,.{digits}f} .. {spread.high:,.{digits}f})"
