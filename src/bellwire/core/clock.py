"""One timer for many deadlines: a timing wheel on an asyncio loop.

A server holds a deadline or two for every connection. ``loop.call_later`` for each costs a handle, a
heap entry and, once cancelled, garbage that the loop carries until it is due. The wheel rounds
deadlines up to ticks, keeps one bucket a tick (scheme 6 of Varghese and Lauck, "Hashed and
hierarchical timing wheels", SOSP 1987, with a dictionary for the array) and asks the loop for one
wake-up only: the next tick that has a bucket. An empty wheel asks for none.
"""

import heapq
import math
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Timer", "TimerLoop", "Wheel"]


class Handle(Protocol):
    """What ``call_at`` returns."""

    def cancel(self) -> None:
        """Do not run the callback."""


class TimerLoop(Protocol):
    """The three methods the wheel needs of an asyncio loop; a test's clock has no more."""

    def time(self) -> float:
        """Return the clock in seconds."""
        ...

    def call_at(self, when: float, callback: Callable[[], object]) -> Handle:
        """Run ``callback`` at ``when`` on that clock."""
        ...

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report what a callback raised."""


class Timer:
    """One deadline on a wheel; made by `Wheel.after`."""

    __slots__ = ("_callback", "_tick", "_wheel")

    def __init__(self, wheel: "Wheel", tick: int, callback: Callable[[], None]) -> None:
        self._wheel = wheel
        self._tick = tick
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never run the callback; O(1), and nothing happens if it ran or was cancelled before."""
        if self._callback is not None:
            self._callback = None
            self._wheel._forget(self)


class Wheel:
    """Many deadlines on one timer of ``loop``; ``resolution`` is the length of a tick in seconds.

    Not safe for use from other threads, like the loop itself.
    """

    __slots__ = ("_armed", "_buckets", "_handle", "_live", "_loop", "_resolution", "_ticks")

    def __init__(self, loop: TimerLoop, resolution: float = 0.25) -> None:
        if not 0 < resolution < math.inf:
            raise ValueError(f"resolution is {resolution!r}: give the length of a tick in seconds, above 0")
        self._loop = loop
        self._resolution = resolution
        self._buckets: dict[int, dict[Timer, None]] = {}  # tick -> its timers; stays until due, even if empty
        self._ticks: list[int] = []  # heap of the buckets' keys
        self._live = 0
        self._armed = 0  # the tick the handle is for
        self._handle: Handle | None = None

    @property
    def pending(self) -> int:
        """How many timers are waiting."""
        return self._live

    def after(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Run ``callback`` once, no earlier than ``delay`` seconds from now and at most one tick later.

        Raises:
            ValueError: ``delay`` is negative or not finite.

        """
        if not 0 <= delay < math.inf:
            raise ValueError(f"delay is {delay!r}: give a finite number of seconds from 0 on")
        tick = self._tick_of(self._loop.time() + delay)
        timer = Timer(self, tick, callback)
        bucket = self._buckets.get(tick)
        if bucket is None:
            self._buckets[tick] = {timer: None}
            heapq.heappush(self._ticks, tick)
            if self._handle is None or tick < self._armed:
                self._arm()
        else:
            bucket[timer] = None
        self._live += 1
        return timer

    def _tick_of(self, deadline: float) -> int:
        # Ticks count from zero of the loop's clock, not from the wheel's birth: whole milliseconds for
        # the usual resolutions, which is all that uvloop's timers resolve.
        tick = math.ceil(deadline / self._resolution)
        return tick if tick * self._resolution >= deadline else tick + 1

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed = self._ticks[0]
        self._handle = self._loop.call_at(self._armed * self._resolution, self._turn)

    def _forget(self, timer: Timer) -> None:
        bucket = self._buckets.get(timer._tick)
        if bucket is not None:  # else it is in the bucket that is being run
            bucket.pop(timer, None)
        self._live -= 1
        if not self._live:
            self._rest()

    def _rest(self) -> None:
        self._buckets.clear()
        self._ticks.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _turn(self) -> None:
        self._handle = None
        due = self._due()
        try:
            for bucket in due:
                self._run(bucket)
        finally:
            if not self._live:
                self._rest()
            elif self._handle is None or self._ticks[0] < self._armed:
                self._arm()

    def _due(self) -> list[dict[Timer, None]]:
        # Taken out before any callback runs: a callback that adds a timer for now waits for the next
        # turn of the loop and cannot keep this one from ending. The tick the loop woke us for is due
        # even if the loop was early by its clock's resolution.
        now, ticks, due = self._loop.time(), self._ticks, []
        while ticks and (ticks[0] <= self._armed or ticks[0] * self._resolution <= now):
            due.append(self._buckets.pop(heapq.heappop(ticks)))
        return due

    def _run(self, bucket: dict[Timer, None]) -> None:
        for timer in bucket:
            callback = timer._callback
            if callback is None:  # cancelled by a callback before it
                continue
            timer._callback = None
            self._live -= 1
            try:
                callback()
            except Exception as error:  # the others still run
                self._loop.call_exception_handler(
                    {"message": f"a timer's callback failed: {callback!r}", "exception": error}
                )
