"""An event loop whose clock is virtual: a test of a 25 second heartbeat takes microseconds.

Time starts at zero and stands still while anything is ready to run. When nothing is ready and only timers
remain, the clock jumps to the next timer at once. So ``await asyncio.sleep(25)`` is how a test lets 25
seconds pass, and ``await advance(25)`` how it lets them pass *and* sees all done that was due by then.

What follows the virtual clock is what asks the loop: ``asyncio.sleep``, ``asyncio.timeout``, ``wait_for``,
``call_later``, ``call_at`` and ``loop.time()``. ``time.time()`` and ``time.monotonic()`` do not.

The loop is for tests inside one process. Sockets are polled before each jump, so a socket pair works as far
as its bytes are in the kernel already; a peer in another process is slower than a jump, and a test that talks
to one wants the real clock. While a job of an executor runs, time stands still and the loop really waits.
"""

import asyncio
import selectors
import sysconfig
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar, TypeVarTuple, Unpack

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_Events = list[tuple[selectors.SelectorKey, int]]

_LIBRARIES = (str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))

_MAX_JUMPS = 1_000_000
"""How often the clock of one loop may jump. Enough for 11 days of a timer that ticks every second, and soon
reached, in real time, by a test that waits for nothing while such a timer ticks on."""


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """A selector event loop with a virtual clock that starts at 0.0 and jumps from timer to timer.

    ``patience`` is the number of real seconds that the loop waits for I/O or an executor when there is
    neither ready work nor a timer. After them, and after a million jumps, it raises ``RuntimeError`` with the
    place at which every task waits.

    The order of execution depends on nothing but the program: two runs of a test that uses neither threads
    nor sockets nor randomness are the same, callback by callback.
    """

    def __init__(self, *, patience: float = 5.0) -> None:
        self._now = 0.0
        self._patience = patience
        self._jumps = 0
        self._jobs = 0
        self._settling: list[asyncio.Future[None]] = []
        self._polled = _ClockSelector(self._wait)
        super().__init__(self._polled)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    async def settle(self) -> None:
        """Return when nothing is ready to run any more, without letting time pass."""
        waiter: asyncio.Future[None] = self.create_future()
        self._settling.append(waiter)
        await waiter

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[_Ts]], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """Run ``func`` in an executor; the clock stands still until it is done."""
        future: asyncio.Future[_T] = super().run_in_executor(executor, func, *args)
        self._jobs += 1
        future.add_done_callback(self._job_done)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the threads of the default executor; the clock stands still meanwhile."""
        self._jobs += 1
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._jobs -= 1

    def _job_done(self, _: asyncio.Future[Any]) -> None:
        self._jobs -= 1

    def _wait(self, timeout: float | None) -> _Events:
        """Stand in for the selector's wait: jump instead of waiting.

        The loop asks with 0 when work is ready, with the seconds to the next timer, or with None without one.
        """
        events = self._polled.really_select(0)
        if events or timeout == 0:
            return events
        if self._jobs:
            return self._really_wait("an executor does not finish")
        if self._settling:
            self._resume_settling()
        elif timeout is None:
            return self._really_wait("deadlock: nothing is ready, no timer is set, no byte arrives")
        else:
            self._jump(timeout)
        return []

    def _really_wait(self, otherwise: str) -> _Events:
        events = self._polled.really_select(self._patience)
        if not events:
            raise RuntimeError(f"{otherwise} (waited {self._patience:g} real seconds)\n{self._whereabouts()}")
        return events

    def _resume_settling(self) -> None:
        waiters, self._settling = self._settling, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _jump(self, seconds: float) -> None:
        self._jumps += 1
        if self._jumps > _MAX_JUMPS:
            self._jumps = 0  # so that the tasks can still be cancelled
            raise RuntimeError(
                f"the clock jumped {_MAX_JUMPS:,} times, {self._now:,.0f} virtual seconds, and the test "
                f"still waits\n{self._whereabouts()}"
            )
        self._now += seconds

    def _whereabouts(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=asyncio.Task.get_name)
        return "\n".join(f"  {describe_task(task)}" for task in tasks)


class _ClockSelector(selectors.DefaultSelector):
    """A selector that leaves it to the loop how to wait."""

    def __init__(self, wait: Callable[[float | None], _Events]) -> None:
        super().__init__()
        self._wait = wait

    def select(self, timeout: float | None = None) -> _Events:
        return self._wait(timeout)

    def really_select(self, timeout: float) -> _Events:
        return super().select(timeout)


async def advance(seconds: float = 0.0) -> None:
    """Let ``seconds`` of virtual time pass, and return when everything that was due by then has run.

    Timers run in the order of their times, with the callbacks and tasks that they wake run to their next wait
    before time moves on. ``advance(0)`` only runs what is ready now.

    Raises:
        RuntimeError: the running loop is not a `VirtualClockLoop`.

    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualClockLoop):
        raise RuntimeError(f"advance() needs the virtual clock; the running loop is a {type(loop).__name__}")
    await asyncio.sleep(seconds)
    await loop.settle()


def describe_task(task: asyncio.Task[Any]) -> str:
    """One line that tells which task this is and where it waits: ``Task-3 chat.serve at chat.py:12``.

    The place is the innermost line that is neither the standard library's nor Bellwire's, if there is one: what the
    line waits for is named beside it.
    """
    coro = task.get_coro()
    frames = _frames(coro)
    own = [frame for frame in frames if not frame.f_code.co_filename.startswith(_LIBRARIES)]
    if not frames:
        return f"{task.get_name()} {getattr(coro, '__qualname__', repr(coro))}"
    frame = own[-1] if own else frames[0]
    return f"{task.get_name()} {frame.f_code.co_qualname} at {frame.f_code.co_filename}:{frame.f_lineno}"


def _frames(waiting: object) -> list[FrameType]:
    """The frames of a coroutine that waits, and of those that it waits for, outermost first."""
    frames = []
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            frames.append(frame)
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    return frames
