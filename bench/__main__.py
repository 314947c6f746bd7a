"""Measure Bellwire, what its guarantee costs, and python-socketio side by side: ``python -m bench``, or ``make bench``.

In every round each server is started afresh, in a process of its own on one core, and the load generator
works from another process on another core. The rounds are interleaved (A B C A B C), so that what disturbs
the machine disturbs all. The same program on Bellwire is measured three times: with stock clients, which get each
message at most once; with stock clients and connection state recovery; and with clients of bellwire.v1 that have
sessions.
"""

import argparse
import json
import select
import sys
from pathlib import Path
from typing import NamedTuple

from bench import machine, report
from bench.clients import KINDS
from bench.processes import BenchError, brief, measure, progress, raise_file_limit, serving
from bench.result import Result

BELLWIRE = "-m bellwire run bench.servers.bellwire_server:server --host {host} --port {port}"
SOCKETIO = (
    "-m uvicorn bench.servers.socketio_server:app --host {host} --port {port}"
    " --loop uvloop --log-level warning --no-access-log --ws-ping-interval 3600"
)
ECHO = ("roundtrips --connections 1 --size 128", "roundtrips --connections 100 --size 128")
CROWD = ("connecting --connections 500", "fanout --connections 1000 --size 128 --windows 1,32")
"""They come last: their leaving would disturb what comes after them."""


class Contestant(NamedTuple):
    """A server, the kind of its clients, and what is measured with them."""

    command: str
    client: str
    loads: tuple[str, ...]


PLAIN, PEER = "Bellwire", "python-socketio"
CONTESTANTS = {
    PLAIN: Contestant(BELLWIRE, "stock", ECHO + CROWD),
    "recovering": Contestant(f"{BELLWIRE} --connection-state-recovery", "recovering", ECHO + CROWD),
    "bellwire.v1": Contestant(BELLWIRE, "v1", (*(f"{load} --kind {kind}" for kind in KINDS for load in ECHO), *CROWD)),
    PEER: Contestant(SOCKETIO, "stock", ECHO + CROWD),
}


def run(servers: list[str], rounds: int, seconds: float) -> list[dict[str, list[Result]]]:
    """All rounds of all servers."""
    server_core, load_core = machine.cores()
    done = []
    for number in range(1, rounds + 1):
        results: dict[str, list[Result]] = {}
        for name in servers:
            results[name] = []
            contestant = CONTESTANTS[name]
            with serving(name, contestant.command, server_core) as (port, process):
                for load in contestant.loads:
                    asked = f"{load} --client {contestant.client}"
                    measured = measure(f"{asked} --seconds {seconds}", port, process, load_core)
                    results[name] += measured
                    for result in measured:
                        progress(f"round {number}/{rounds}  {name:16} {brief(result)}")
        done.append(results)
    return done


def main() -> None:
    """Parse the arguments, measure, and print the report."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each server (default: 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a measurement (default: 2)")
    parser.add_argument(
        "--only", choices=list(CONTESTANTS), action="append", metavar="NAME", help=f"one of {', '.join(CONTESTANTS)}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to this file as well")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds are at least one and more than zero")
    if not hasattr(select, "epoll"):
        sys.exit("The load generator needs epoll, and so Linux.")
    raise_file_limit()
    here = machine.describe()
    try:
        rounds = run(
            [name for name in CONTESTANTS if name in (options.only or CONTESTANTS)], options.rounds, options.seconds
        )
    except BenchError as error:
        sys.exit(str(error))
    print(report.text(here, rounds, PLAIN, PEER))
    if options.json:
        options.json.write_text(json.dumps(report.summary(here, rounds, PLAIN, PEER), indent=2) + "\n")


if __name__ == "__main__":
    main()
