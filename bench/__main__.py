"""Measure Bellwire and python-socketio side by side: ``python -m bench``, or ``make bench``.

In every round each server is started afresh, in a process of its own on one core, and the load generator
works from another process on another core. The rounds are interleaved (A B A B A B), so that what disturbs
the machine disturbs both.
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

from bench import machine, report
from bench.load import Result

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
STARTING = 20.0
"""Seconds that a server has to listen."""
STOPPING = 3.0
"""Seconds that a server has to end by itself."""
LOADING = 120.0
"""Seconds after which a load generator is given up."""
SERVERS = {
    "Bellwire": "-m bellwire run bench.servers.bellwire_server:server --host {host} --port {port}",
    "python-socketio": "-m uvicorn bench.servers.socketio_server:app --host {host} --port {port}"
    " --loop uvloop --log-level warning --no-access-log",
}
LOADS = (  # the crowd comes last: its leaving would disturb what comes after it
    "echo --connections 1 --size 128",
    "echo --connections 100 --size 128",
    "fanout --connections 1000 --size 128 --windows 1,32",
)


class BenchError(Exception):
    """A server or a load generator failed; the message shows what it said."""


@contextmanager
def serving(name: str, core: int | None) -> Iterator[int]:
    """Start a server on its core and wait until it listens; yield its port."""
    port = _free_port()
    command = SERVERS[name].format(host=HOST, port=port).split()
    with TemporaryFile("w+") as said:
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=said, stderr=said)
        try:
            _pin(process.pid, core)
            _await_listening(process, port)
            yield port
        except Exception as error:
            said.seek(0)
            raise BenchError(f"{name}: {error}\n{said.read()[-3000:]}") from error
        finally:
            _stop(process)


def measure(load: str, port: int, seconds: float, core: int | None) -> list[Result]:
    """Run the load generator in a process on its core."""
    command = [sys.executable, "-m", "bench.load", *load.split()]
    command += ["--host", HOST, "--port", str(port), "--seconds", str(seconds)]
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
            with serving(name, server_core) as port:
                for load in LOADS:
                    measured = measure(load, port, seconds, load_core)
                    results[name] += measured
                    for result in measured:
                        _progress(f"round {number}/{rounds}  {name:16} {_brief(result)}")
        done.append(results)
    return done


def _brief(result: Result) -> str:
    flight = f" x {result.window}" if result.window > 1 else ""
    return f"{result.work} {result.connections}{flight}: {result.rate:,.0f}/s, p99 {result.p99:.2f} ms"


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


def _raise_file_limit() -> None:
    """A thousand sockets are more than many shells allow; what is started here inherits the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Parse the arguments, measure, and print the report."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each server (default: 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a measurement (default: 2)")
    parser.add_argument("--only", choices=list(SERVERS), help="leave the other server out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to this file as well")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds are at least one and more than zero")
    if not hasattr(select, "epoll"):
        sys.exit("The load generator needs epoll, and so Linux.")
    _raise_file_limit()
    here = machine.describe()
    try:
        rounds = run([options.only] if options.only else list(SERVERS), options.rounds, options.seconds)
    except BenchError as error:
        sys.exit(str(error))
    print(report.text(here, rounds))
    if options.json:
        options.json.write_text(json.dumps(report.summary(here, rounds), indent=2) + "\n")


if __name__ == "__main__":
    main()
