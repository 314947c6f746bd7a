"""What one measurement found, and the clocks that run meanwhile."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from bench.clients import LoadError


class Shape(NamedTuple):
    """What was measured: the kind of work, how many clients, bytes of a payload, messages on their way."""

    work: str
    connections: int
    size: int
    window: int


@dataclass(frozen=True)
class Result:
    """One measurement.

    ``rate`` is deliveries, replies or connections per second, ``p50`` and ``p99`` are latencies in milliseconds, and
    ``busy`` is the share of a core that the generator needed: close to 1 it measured itself, not the server. ``cpu``
    is what the server's process needed for each of them, in microseconds; 0 if that is not known.
    """

    work: str
    connections: int
    size: int
    window: int
    messages: int
    seconds: float
    rate: float
    p50: float
    p99: float
    busy: float
    cpu: float = 0.0

    @property
    def shape(self) -> Shape:
        """What was measured."""
        return Shape(self.work, self.connections, self.size, self.window)


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
        self._seconds += sign * time.perf_counter()
        self._busy += sign * time.process_time()
        self._cpu += sign * processor_time(self._server)

    def result(self, shape: Shape, messages: int, done: int, latencies: Iterable[float]) -> Result:
        """Return what was found: ``messages`` were sent, and ``done`` is what is counted."""
        rate, busy = done / self._seconds, self._busy / self._seconds
        return Result(*shape, messages, self._seconds, rate, *_quantiles(latencies), busy, self._cpu * 1e6 / done)


def processor_time(process: int | None) -> float:
    """How many seconds a process (its main thread) has computed so far; 0 for None, and where nobody says."""
    try:
        return 0.0 if process is None else int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0


def _quantiles(latencies: Iterable[float]) -> tuple[float, float]:
    """The 50th and the 99th percentile, in milliseconds."""
    ordered = sorted(latencies)
    if not ordered:
        raise LoadError("not one message was measured")
    return ordered[len(ordered) // 2] * 1e3, ordered[len(ordered) * 99 // 100] * 1e3
