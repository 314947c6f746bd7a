"""Measure Bellwire, what its guarantee costs, and python-socketio side by side: ``python -m bench``, or ``make bench``.

In every round each server is started afresh, in a process of its own on one core, and the load generator
works from another process on another core. The rounds are interleaved (A B C A B C), so that what disturbs
the machine disturbs all. The same program on Bellwire is measured three times: with stock clients, which get each
message at most once; with stock clients and connection state recovery; and with clients of bellwire.v1 that have
sessions.
"""

import argparse
import json
import os
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

from bench import machine, report
from bench.clients import KINDS
from bench.result import Result

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
STARTING = 20.0
"""Seconds that a server has to listen."""
STOPPING = 3.0
"""Seconds that a server has to end by itself."""
LOADING = 120.0
"""Seconds after which a load generator is given up."""
BELLWIRE = "-m bellwire run bench.servers.bellwire_server:server --host {host} --port {port}"
SOCKETIO = (
    "-m uvicorn bench.servers.socketio_server:app --host {host} --port {port}"
    " --loop uvloop --log-level warning --no-access-log"
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


class BenchError(Exception):
    """A server or a load generator failed; the message shows what it said."""


@contextmanager
def serving(name: str, core: int | None) -> Iterator[tuple[int, int]]:
    """Start a server on its core and wait until it listens; yield its port and its process."""
    port = _free_port()
    command = CONTESTANTS[name].command.format(host=HOST, port=port).split()
    with TemporaryFile("w+") as said:
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=said, stderr=said)
        try:
            _pin(process.pid, core)
            _await_listening(process, port)
            yield port, process.pid
        except Exception as error:
            said.seek(0)
            raise BenchError(f"{name}: {error}\n{said.read()[-3000:]}") from error
        finally:
            _stop(process)


def measure(load: str, port: int, server: int, seconds: float, core: int | None) -> list[Result]:
    """Run the load generator in a process on its core."""
    command = [sys.executable, "-m", "bench.load", *load.split()]
    command += ["--host", HOST, "--port", str(port), "--seconds", str(seconds), "--server", str(server)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        _pin(process.pid, core)
        try:
            said, failed = process.communicate(timeout=LOADING)
        except subprocess.TimeoutExpired:
            process.kill()
            raise BenchError(f"the load generator did not end within {LOADING:g} s: {load}") from None
    if process.returncode != 0:
        raise BenchError(failed.strip())
    return [Result(**result) for result in json.loads(said)]


def run(servers: list[str], rounds: int, seconds: float) -> list[dict[str, list[Result]]]:
    """All rounds of all servers."""
    server_core, load_core = machine.cores()
    done = []
    for number in range(1, rounds + 1):
        results: dict[str, list[Result]] = {}
        for name in servers:
            results[name] = []
            contestant = CONTESTANTS[name]
            with serving(name, server_core) as (port, process):
                for load in contestant.loads:
                    asked = f"{load} --client {contestant.client}"
                    measured = measure(asked, port, process, seconds, load_core)
                    results[name] += measured
                    for result in measured:
                        _progress(f"round {number}/{rounds}  {name:16} {_brief(result)}")
        done.append(results)
    return done


def _brief(result: Result) -> str:
    flight = f" x {result.window}" if result.window > 1 else ""
    what = f"{result.work} {result.connections}{flight}"
    return f"{what}: {result.rate:,.0f}/s, p99 {result.p99:.2f} ms, {result.cpu:.2f} us of the server each"


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _pin(pid: int, core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(pid, {core})


def _await_listening(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchError(f"the server ended with status {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.05)
    raise BenchError(f"the server did not listen within {STARTING:g} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOPPING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def raise_file_limit() -> None:
    """A thousand sockets are more than many shells allow; what is started here inherits the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


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
