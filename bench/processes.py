"""Servers and load generators as processes, each on its core."""

import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from bench.result import Result

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
STARTING = 20.0
"""Seconds that a server has to listen."""
STOPPING = 3.0
"""Seconds that a server has to end by itself."""
LOADING = 120.0
"""Seconds after which a load generator is given up."""


class BenchError(Exception):
    """A server or a load generator failed; the message shows what it said."""


@contextmanager
def serving(
    name: str, command: str, core: int | None, env: Mapping[str, str] | None = None
) -> Iterator[tuple[int, int]]:
    """Start a server, given to Python, on its core and wait until it listens; yield its port and its process."""
    with running(name, f"{sys.executable} {command}", core, env) as found:
        yield found


@contextmanager
def running(
    name: str, command: str, core: int | None, env: Mapping[str, str] | None = None
) -> Iterator[tuple[int, int]]:
    """The same with any program; ``{host}`` and ``{port}`` in its command are where it is to listen."""
    port = _free_port()
    words = command.format(host=HOST, port=port).split()
    with TemporaryFile("w+") as said:
        process = subprocess.Popen(words, cwd=ROOT, stdout=said, stderr=said, env={**os.environ, **(env or {})})
        try:
            _pin(process.pid, core)
            _await_listening(process, port)
            yield port, process.pid
        except Exception as error:
            said.seek(0)
            raise BenchError(f"{name}: {error}\n{said.read()[-3000:]}") from error
        finally:
            _stop(process)


def measure(load: str, port: int, server: int, core: int | None) -> list[Result]:
    """Run the load generator in a process on its core."""
    command = [sys.executable, "-m", "bench.load", *load.split()]
    command += ["--host", HOST, "--port", str(port), "--server", str(server)]
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


def brief(result: Result) -> str:
    """A measurement in one line."""
    flight = f" x {result.window}" if result.window > 1 else ""
    what = f"{result.work} {result.connections}{flight}"
    return f"{what}: {result.rate:,.0f}/s, p99 {result.p99:.2f} ms, {result.cpu:.2f} us of the server each"


def progress(line: str) -> None:
    """Tell whoever waits."""
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
