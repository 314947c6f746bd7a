"""All works of all contestants, again and again.

In every round each server is started afresh, in a process of its own on one core, and the load generator works from
another process on another core. The rounds are interleaved (A B C A B C), so that what disturbs the machine disturbs
all. Who fails once is told and has no figure; the others go on.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from bellwire.load import machine
from bellwire.load.processes import ProcessError, measure
from bellwire.load.result import Found, Shape
from bench.contestants import CONTESTANTS, Node, serving
from bench.works import Work

Round: TypeAlias = Mapping[str, Mapping[Shape, Found]]
"""The results of every contestant, by its name."""


@dataclass
class Run:
    """What was measured, and why some of it was not: by contestant and load."""

    rounds: list[dict[str, dict[Shape, Found]]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


def run(names: Sequence[str], works: Sequence[Work], rounds: int, seconds: float) -> Run:
    """All rounds of these contestants."""
    done, began = Run(), time.monotonic()
    for number in range(1, rounds + 1):
        done.rounds.append({name: {} for name in names})
        for name in names:
            for loads in servers(name, works):
                _serve(done, name, loads, seconds)
        each = (time.monotonic() - began) / number
        progress(f"round {number} of {rounds} done; about {each * (rounds - number):.0f} s left")
    return done


def servers(name: str, works: Sequence[Work]) -> list[list[str]]:
    """The loads of a contestant; those that come to the same server are together."""
    mine = [work for work in works if name in work.who]
    shared = [work.load for work in mine if not work.alone]
    return [*([shared] if shared else []), *([work.load] for work in mine if work.alone)]


def _serve(done: Run, name: str, loads: Sequence[str], seconds: float) -> None:
    if name in done.failures:
        return
    core, _ = machine.cores()
    try:
        with serving(name, core) as nodes:
            for load in loads:
                _measure(done, name, load, seconds, nodes)
    except ProcessError as error:  # it did not start
        _fail(done, name, str(error))


def _measure(done: Run, name: str, load: str, seconds: float, nodes: Sequence[Node]) -> None:
    if (what := f"{name}, {load}") in done.failures:
        return
    _, core = machine.cores()
    work, *options = load.split()
    words = [work, "--client", CONTESTANTS[name].client, "--seconds", str(seconds), *options]
    if len(nodes) > 1:
        words += ["--publish-at", str(nodes[0].port)]
    try:
        found = measure(words, nodes[-1].port, nodes[-1].process, core)
    except ProcessError as error:
        _fail(done, what, str(error))
        return
    for result in found:
        done.rounds[-1][name][result.shape] = result
        progress(f"{len(done.rounds)}  {name:22} {brief(result)}")


def _fail(done: Run, what: str, why: str) -> None:
    done.failures[what] = why
    progress(f"{what} FAILED: {why}")


def brief(result: Found) -> str:
    """A measurement in one line."""
    shape = result.shape
    flight = f" x {shape.window}" if shape.window > 1 else ""
    size = f" of {shape.size} B" if shape.size else ""
    figures = ", ".join(f"{name} {value:,.2f}" for name, value in result.figures.items())
    special = f" {shape.variant}" if shape.variant else ""
    return f"{shape.work} {shape.connections}{flight}{size}{special}: {figures}, load's core {result.busy:.0%}"


def progress(line: str) -> None:
    """Tell whoever waits."""
    print(line, file=sys.stderr, flush=True)
