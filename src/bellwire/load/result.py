"""What one measurement found, and the clocks that run meanwhile."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self, TypeAlias

import msgspec

from bellwire.load.clients.base import KINDS, LoadError

RATE, P50, P99, CPU = "per_second", "p50_ms", "p99_ms", "server_us"
MEMORY, IDLE_CPU = "bytes_each", "core_percent"
SATURATED = 0.95
"""From this share of a core on, the generator may have been what was measured."""


class Shape(NamedTuple):
    """What was measured: the work, how many clients, bytes of a payload, messages on their way, what is special."""

    work: str
    connections: int
    size: int
    window: int
    variant: str = ""

    @property
    def title(self) -> str:
        """The same for people."""
        crowd = "1 connection" if self.connections == 1 else f"{self.connections:,} connections"
        special = f", {self.variant}" if self.variant else ""
        if self.work in KINDS:
            return f"acknowledged round trips, {crowd}, {self.size} B"
        if self.work == "connecting":
            return f"connecting, {self.connections:,} clients, {self.window} at a time"
        if self.work == "idle":
            return f"idle, {crowd}{special}"
        if self.work == "rooms":
            return f"a message at a time in each room, {crowd}, {self.size} B{special}"
        flight = "one message at a time" if self.window == 1 else f"{self.window} messages in flight"
        return f"fan-out, {crowd}, {self.size} B, {flight}{special}"


class Result(msgspec.Struct, frozen=True, tag="flow", tag_field="is"):
    """A measurement of things that happen one after the other.

    ``rate`` is deliveries, replies or connections per second, ``p50`` and ``p99`` are latencies in milliseconds, and
    ``busy`` is the share of a core that the generator needed: close to 1 it measured itself, not the server. ``cpu``
    is what the server's processes needed for each of them, in microseconds; 0 if that is not known.
    """

    shape: Shape
    messages: int
    seconds: float
    rate: float
    p50: float
    p99: float
    busy: float
    cpu: float = 0.0

    @property
    def figures(self) -> dict[str, float]:
        """The figures by name, the most important one first."""
        return {RATE: self.rate, P50: self.p50, P99: self.p99, CPU: self.cpu}


class Idle(msgspec.Struct, frozen=True, tag="idle", tag_field="is"):
    """A measurement of connections that do nothing.

    ``memory`` is bytes of the server's processes for each, ``cpu`` per cent of a core for all together.
    """

    shape: Shape
    seconds: float
    memory: float
    cpu: float
    busy: float

    @property
    def figures(self) -> dict[str, float]:
        """The figures by name, the most important one first."""
        return {MEMORY: self.memory, IDLE_CPU: self.cpu}


Found: TypeAlias = Result | Idle


class Meter:
    """Measures what is done within it; several times add up."""

    def __init__(self, server: int | None = None) -> None:
        self._server = server
        self._seconds = self._busy = self._cpu = 0.0

    def __enter__(self) -> Self:
        self._add(-1)
        return self

    def __exit__(self, *_: object) -> None:
        self._add(1)

    def _add(self, sign: int) -> None:
        self._cpu += sign * processor_time(self._server)
        self._seconds += sign * time.perf_counter()
        self._busy += sign * time.process_time()

    def result(self, shape: Shape, messages: int, done: int, latencies: Iterable[float]) -> Result:
        """Return what was found: ``messages`` were sent, and ``done`` is what is counted."""
        rate, busy = done / self._seconds, self._busy / self._seconds
        return Result(shape, messages, self._seconds, rate, *quantiles(latencies), busy, self._cpu * 1e6 / done)


def quantiles(latencies: Iterable[float]) -> tuple[float, float]:
    """The 50th and the 99th percentile of seconds, in milliseconds."""
    ordered = sorted(latencies)
    if not ordered:
        raise LoadError("not one message was measured")
    return ordered[len(ordered) // 2] * 1e3, ordered[len(ordered) * 99 // 100] * 1e3


# --- a server's processes: the one that was started, and those that it started


def processor_time(process: int | None) -> float:
    """How many seconds a process and its children have computed; 0 for None, and if it has ended."""
    return 0.0 if process is None else sum(map(_computed, _family(process)))


def own_memory(process: int) -> int:
    """Bytes that a process and its children have for themselves; what the kernel has for a socket is not in it.

    Raises:
        LoadError: this kernel does not tell.

    """
    found = [_anonymous(each) for each in _family(process)]
    if not sum(found):
        raise LoadError("this kernel does not tell how much memory a process has for itself")
    return sum(found)


def _family(process: int) -> Iterator[int]:
    yield process
    for thread in _threads(process):
        for child in _read(thread / "children").split():
            yield from _family(int(child))


def _threads(process: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{process}/task").iterdir())
    except OSError:
        return []


def _computed(process: int) -> float:
    try:
        return time.clock_gettime((~process << 3) | 2)  # the clock of clock_getcpuclockid(3)
    except OSError:
        return 0.0


def _anonymous(process: int) -> int:
    for line in _read(Path(f"/proc/{process}/status")).splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended meanwhile
        return ""
