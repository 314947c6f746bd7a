"""Servers and load generators as processes, each on its core."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import msgspec

from bellwire.load.result import Found

HOST = "127.0.0.1"
STARTING = 30.0
"""Seconds that a server has to listen."""
STOPPING = 3.0
"""Seconds that a server has to end by itself."""
LOADING = 300.0
"""Seconds after which a load generator is given up."""


REFUSED = 3
"""The exit code of a load generator that the server did not let into the namespace."""
FIRST_PORT = 10_000
"""Servers are given ports from here on, and below those that the kernel gives to connections."""


class ProcessError(Exception):
    """A server or a load generator failed.

    ``code`` is its exit code if it has ended, ``said`` what a server wrote at last.
    """

    def __init__(self, message: str, code: int | None = None, said: str = "") -> None:
        super().__init__(message, code, said)
        self.message, self.code, self.said = message, code, said

    def __str__(self) -> str:
        return "\n".join(part for part in (self.message, self.said) if part)


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    core: int | None,
    env: Mapping[str, str] | None = None,
    ready: str = "",
    hear: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[int, int]]:
    """Start a server on its core and wait until it listens, or says ``ready``; yield its port and its process.

    ``{host}`` and ``{port}`` in its command are where it is to listen. ``hear`` gets each line that it says until then.
    """
    port = free_port()
    words = [word.replace("{host}", HOST).replace("{port}", str(port)) for word in command]
    environment = {**os.environ, **(env or {}), "PORT": str(port)}
    with TemporaryFile() as said:
        with on_core(core):
            process = subprocess.Popen(  # noqa: S603 - ours
                words, stdout=said, stderr=said, env=environment, start_new_session=True
            )
        try:
            _await(name, process, said, lambda: ready.encode() in _said(said) if ready else _listens(port), hear)
            yield port, process.pid
        finally:
            _stop(process)


def measure(load: Sequence[str], port: int, server: int | None, core: int | None) -> list[Found]:
    """Run the load generator in a process on its core."""
    command = [sys.executable, "-m", "bellwire.load", *load, "--port", str(port)]
    command += [] if server is None else ["--server", str(server)]
    with on_core(core):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # noqa: S603 - ours
    with process:
        try:
            said, failed = process.communicate(timeout=LOADING)
        except subprocess.TimeoutExpired:
            process.kill()
            raise ProcessError(f"the load generator did not end within {LOADING:g} s: {' '.join(load)}") from None
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise ProcessError(failed.decode(errors="replace").strip(), process.returncode)
    return msgspec.json.decode(said, type=list[Found])


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Whatever is started within runs on this core, with all its threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """A port that nobody listens on, and that no connection is given while thousands come."""
    first = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]
    for port in random.sample(range(FIRST_PORT, max(int(first), FIRST_PORT + 1_000)), 100):
        if not _listens(port):
            return port
    raise ProcessError("of 100 ports not one is free")


def _await(
    name: str,
    process: subprocess.Popen[bytes],
    said: IO[bytes],
    ready: Callable[[], bool],
    hear: Callable[[str], None],
) -> None:
    """Wait until it is ready. Raises `ProcessError` with what it said if it ends before, or takes too long."""
    deadline = time.monotonic() + STARTING
    heard = 0
    while not ready():
        if process.poll() is not None:
            raise ProcessError(f"{name} ended with status {process.returncode}", process.returncode, _last(said))
        if time.monotonic() > deadline:
            raise ProcessError(f"{name} did not listen within {STARTING:g} s", None, _last(said))
        *lines, _ = _said(said).decode(errors="replace").split("\n")  # the last one is not whole
        for line in lines[heard:]:
            hear(line)
        heard = len(lines)
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _said(output: IO[bytes]) -> bytes:
    """What a process has written so far; reading does not move the place where it writes."""
    return os.pread(output.fileno(), 1 << 20, 0)


def _last(output: IO[bytes]) -> str:
    return _said(output)[-3000:].decode(errors="replace").strip()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOPPING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with suppress(ProcessLookupError):  # a script that had started the server does not end it
        os.killpg(process.pid, signal.SIGKILL)
