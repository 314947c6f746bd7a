"""The timer wheel on a loop whose clock the test turns."""

import asyncio
import heapq
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.core.clock import Timer, Wheel


class Handle:
    """One wake-up asked for."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class HandTurnedLoop:
    """The three methods the wheel needs, on a clock that `run_until` moves."""

    def __init__(self, start: float = 0.0) -> None:
        self.now = start
        self.calls = 0
        self.failures: list[BaseException] = []
        self.handles: list[tuple[float, int, Handle]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> Handle:
        self.calls += 1
        handle = Handle(callback)
        heapq.heappush(self.handles, (when, self.calls, handle))
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failures.append(context["exception"])

    @property
    def waiting(self) -> int:
        return sum(not handle.cancelled for _, _, handle in self.handles)

    def run_until(self, when: float) -> None:
        while self.handles and self.handles[0][0] <= when:
            due, _, handle = heapq.heappop(self.handles)
            self.now = max(self.now, due)
            if not handle.cancelled:
                handle.callback()
        self.now = max(self.now, when)


def test_a_callback_runs_once_within_one_tick_after_its_delay() -> None:
    loop = HandTurnedLoop(start=1000.1)
    wheel = Wheel(loop, resolution=0.25)
    ran: list[float] = []
    wheel.after(1.0, lambda: ran.append(loop.time()))
    loop.run_until(2000.0)
    assert ran == [1001.25]
    assert wheel.pending == 0


def test_ten_thousand_timers_cost_one_wake_up_a_tick() -> None:
    loop = HandTurnedLoop()
    wheel = Wheel(loop, resolution=0.25)
    ran: list[int] = []
    for number in range(10_000):
        wheel.after(number % 100 / 10, lambda number=number: ran.append(number))  # type: ignore[misc]
        assert loop.waiting == 1
    loop.run_until(10.0)
    assert sorted(ran) == list(range(10_000))
    assert loop.calls <= 41  # ticks in 0..10 s
    assert loop.waiting == 0


def test_an_empty_wheel_waits_for_nothing() -> None:
    loop = HandTurnedLoop()
    wheel = Wheel(loop)
    assert loop.calls == 0
    timers = [wheel.after(delay, lambda: None) for delay in (1.0, 2.0, 2.0)]
    assert loop.waiting == 1
    for timer in timers:
        timer.cancel()
    assert (loop.waiting, wheel.pending) == (0, 0)
    wheel.after(3.0, lambda: None)
    assert loop.waiting == 1


def test_an_earlier_deadline_moves_the_wake_up() -> None:
    loop = HandTurnedLoop()
    wheel = Wheel(loop)
    ran: list[str] = []
    wheel.after(30.0, lambda: ran.append("late"))
    wheel.after(1.0, lambda: ran.append("early"))
    assert loop.waiting == 1
    loop.run_until(1.0)
    assert ran == ["early"]
    assert loop.waiting == 1


def test_cancelling_twice_or_after_the_run_changes_nothing() -> None:
    loop = HandTurnedLoop()
    wheel = Wheel(loop)
    ran: list[str] = []
    first = wheel.after(1.0, lambda: ran.append("first"))
    second = wheel.after(1.0, lambda: ran.append("second"))
    third = wheel.after(2.0, lambda: ran.append("third"))
    first.cancel()
    first.cancel()
    loop.run_until(1.0)
    second.cancel()
    assert (ran, wheel.pending) == (["second"], 1)
    loop.run_until(2.0)
    third.cancel()
    assert (ran, wheel.pending) == (["second", "third"], 0)


def test_cancel_and_add_again_keeps_no_garbage() -> None:
    loop = HandTurnedLoop()
    wheel = Wheel(loop)
    wheel.after(60.0, lambda: None)
    for _ in range(1000):
        wheel.after(15.0, lambda: None).cancel()
    assert len(wheel._ticks) == len(wheel._buckets) == 2
    assert sum(map(len, wheel._buckets.values())) == 1


def test_a_callback_may_cancel_a_timer_of_the_same_tick() -> None:
    loop = HandTurnedLoop()
    wheel = Wheel(loop)
    ran: list[str] = []
    timers: list[Timer] = []
    wheel.after(1.0, lambda: timers[0].cancel())
    timers.append(wheel.after(1.0, lambda: ran.append("cancelled")))
    loop.run_until(5.0)
    assert (ran, wheel.pending, loop.waiting) == ([], 0, 0)


def test_a_callback_may_add_timers_for_now_and_for_later() -> None:
    loop = HandTurnedLoop()
    wheel = Wheel(loop)
    ran: list[tuple[str, float]] = []

    def again() -> None:
        ran.append(("first", loop.time()))
        wheel.after(0.0, lambda: ran.append(("now", loop.time())))
        wheel.after(0.5, lambda: ran.append(("later", loop.time())))

    wheel.after(1.0, again)
    loop.run_until(5.0)
    assert ran == [("first", 1.0), ("now", 1.0), ("later", 1.5)]
    assert loop.waiting == 0


def test_a_callback_that_raises_is_reported_and_the_others_run() -> None:
    loop = HandTurnedLoop()
    failing: set[None] = set()
    wheel = Wheel(loop)
    ran: list[str] = []
    wheel.after(1.0, lambda: failing.pop())
    wheel.after(1.0, lambda: ran.append("same tick"))
    wheel.after(2.0, lambda: ran.append("next tick"))
    loop.run_until(5.0)
    assert ran == ["same tick", "next tick"]
    assert [type(failure) for failure in loop.failures] == [KeyError]


def test_a_callback_that_ends_the_program_leaves_the_wheel_turning() -> None:
    loop = HandTurnedLoop()
    wheel = Wheel(loop)
    ran: list[str] = []

    def leave() -> None:
        raise SystemExit

    wheel.after(1.0, leave)
    wheel.after(2.0, lambda: ran.append("flushed"))
    with pytest.raises(SystemExit):
        loop.run_until(1.0)
    loop.run_until(2.0)
    assert ran == ["flushed"]


def test_a_loop_that_was_held_up_runs_all_that_is_due_in_order() -> None:
    loop = HandTurnedLoop()
    wheel = Wheel(loop)
    ran: list[int] = []
    for delay in (3, 1, 2):
        wheel.after(delay, lambda delay=delay: ran.append(delay))  # type: ignore[misc]
    loop.now = 10.0
    loop.run_until(10.0)
    assert ran == [1, 2, 3]
    assert loop.calls == 2  # one for 3 s, one when 1 s came before it


def test_a_loop_that_is_early_by_its_clocks_resolution_does_not_spin() -> None:
    loop = HandTurnedLoop()
    wheel = Wheel(loop)
    ran: list[float] = []
    wheel.after(1.0, lambda: ran.append(loop.time()))
    loop.now = 1.0 - 1e-9
    loop.handles.pop()[2].callback()
    assert len(ran) == 1
    assert loop.calls == 1


@pytest.mark.parametrize("delay", [-0.1, math.inf, math.nan])
def test_a_delay_that_is_no_delay_is_refused(delay: float) -> None:
    wheel = Wheel(HandTurnedLoop())
    with pytest.raises(ValueError, match="give a finite number of seconds"):
        wheel.after(delay, lambda: None)
    assert wheel.pending == 0


@pytest.mark.parametrize("resolution", [0.0, -1.0, math.inf, math.nan])
def test_a_resolution_that_is_none_is_refused(resolution: float) -> None:
    with pytest.raises(ValueError, match="length of a tick"):
        Wheel(HandTurnedLoop(), resolution)


def test_it_turns_on_a_real_loop() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        started = loop.time()
        Wheel(loop, resolution=0.01).after(0.02, done.set)
        async with asyncio.timeout(5):
            await done.wait()
        assert loop.time() - started >= 0.02

    asyncio.run(main())


@given(
    start=st.floats(0, 1e6),
    resolution=st.sampled_from([0.01, 0.05, 0.1, 0.25, 1.0]),
    steps=st.lists(
        st.tuples(st.floats(0, 60), st.floats(0, 5), st.booleans()),
        max_size=40,
    ),
)
def test_no_timer_is_early_late_lost_or_doubled(
    start: float, resolution: float, steps: list[tuple[float, float, bool]]
) -> None:
    loop = HandTurnedLoop(start)
    wheel = Wheel(loop, resolution)
    runs: list[tuple[int, float]] = []
    deadlines: dict[int, float] = {}
    cancelled: set[int] = set()
    for number, (delay, pause, cancel) in enumerate(steps):
        timer = wheel.after(delay, lambda number=number: runs.append((number, loop.time())))  # type: ignore[misc]
        deadlines[number] = loop.time() + delay
        loop.run_until(loop.now + pause)
        if cancel and number not in dict(runs):
            timer.cancel()
            cancelled.add(number)
        assert loop.waiting == (1 if wheel.pending else 0)
    loop.run_until(loop.now + 100)
    assert sorted(number for number, _ in runs) == sorted(deadlines.keys() - cancelled)
    for number, when in runs:
        assert deadlines[number] <= when <= deadlines[number] + resolution + 1e-9
    assert (wheel.pending, loop.waiting) == (0, 0)
