"""A server in a process of its own, and what is known of it from outside: its memory, its log, a client of it."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.attacks.peer import Peer

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0
"""Seconds for anything to happen; a machine that runs many tests at once is slow."""


class Target:
    """A running server. While it is attacked, a client of good behaviour is served."""

    def __init__(self, pid: int, port: int, log: Path) -> None:
        self.pid = pid
        self.port = port
        self.bystander = Peer(port).joined()
        """A client of good behaviour; a new one for each attack, since it says nothing between two of them."""
        self._log = log
        self._peers: list[Peer] = []

    # --- clients

    def dial(self) -> Peer:
        """A TCP connection that has said nothing."""
        peer = Peer(self.port)
        self._peers.append(peer)
        return peer

    def open(self, fields: str = "") -> Peer:
        """A WebSocket of Engine.IO."""
        return self.dial().opened(fields)

    def join(self, fields: str = "") -> Peer:
        """One that is in the root namespace."""
        return self.dial().joined(fields)

    def raw(self, subprotocol: str = "bellwire.v1.json") -> Peer:
        """A WebSocket of bellwire.v1."""
        return self.dial().opened_raw(subprotocol)

    def hang_up(self) -> None:
        """Close all connections but the bystander's."""
        while self._peers:
            self._peers.pop().close()

    # --- what is seen from outside

    def serves(self) -> None:
        """Check that the bystander is served."""
        assert self.bystander.call("echo", "still here") == "still here"

    def vitals(self) -> dict[str, Any]:
        found: dict[str, Any] = self.bystander.call("vitals")
        return found

    def objects(self) -> int:
        """Return how many objects Python's collector knows there."""
        found: int = self.bystander.call("objects")
        return found

    def counted(self, name: str) -> int:
        """Return the sum of all counters whose names, with their labels, hold ``name``."""
        return sum(number for counter, number in self.vitals()["counters"].items() if name in counter)

    def memory(self) -> int:
        """Bytes of physical memory."""
        return self._status("VmRSS")

    def files(self) -> int:
        """Return how many files it has open, sockets among them."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def _status(self, field: str) -> int:
        found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024

    @contextmanager
    def grows_by_at_most(self, limit: int) -> Iterator[None]:
        """Check that at no moment the process has had so many bytes more than before."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # proc(5): the peak is that of now
        before = self.memory()
        yield
        grown = self._status("VmHWM") - before
        assert grown <= limit, f"{grown:,} bytes more than before, {limit:,} are allowed"

    @contextmanager
    def is_as_before(self) -> Iterator[None]:
        """Check that afterwards the bystander is served, and that tasks, sessions and sockets are as many."""
        self.bystander.close()
        self.bystander = Peer(self.port).joined()
        self.until(lambda: self.vitals()["sessions"] == 1)
        before, files = self.vitals(), self.files()
        try:
            yield
        finally:
            self.hang_up()
        self.until(lambda: self._is_like(before) and self.files() <= files)
        self.serves()

    def _is_like(self, before: dict[str, Any]) -> bool:
        now = self.vitals()
        return bool(now["sessions"] <= before["sessions"] and now["tasks"] <= before["tasks"])

    def until(self, condition: Callable[[], object]) -> None:
        """Ask again until it holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"it is not so after {PATIENCE:g} s: {self.vitals()}"
            self.bystander.listen(0.05)

    def log(self) -> str:
        return self._log.read_text()


@contextmanager
def running(log: Path, *flags: str, application: str = "tests.attacks.application:server") -> Iterator[Target]:
    """Run the server; at the end it must have logged no traceback."""
    command = [sys.executable, "-m", "bellwire", "run", application, "--port", "0", *flags]
    with log.open("w") as errors, subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            found = re.search(r"http://[^ ]+:(\d+)", line)
            assert found is not None, f"no address in {line!r}; {log.read_text()}"
            target = Target(process.pid, int(found[1]), log)
            try:
                yield target
            finally:
                target.bystander.close()
                target.hang_up()
        finally:
            process.kill()
    assert "Traceback" not in log.read_text(), log.read_text()
