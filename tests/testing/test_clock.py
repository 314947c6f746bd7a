import asyncio
import socket
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from bellwire.testing import clock
from bellwire.testing.clock import VirtualClockLoop, advance, describe_task


def run(main: Coroutine[Any, Any, Any], patience: float = 5.0) -> Any:
    with asyncio.Runner(loop_factory=lambda: VirtualClockLoop(patience=patience)) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_time_starts_at_zero_and_jumps_to_the_next_timer() -> None:
    async def main() -> tuple[float, float]:
        before = now()
        await asyncio.sleep(3600)
        return before, now()

    began = time.monotonic()
    assert run(main()) == (0.0, 3600.0)
    assert time.monotonic() - began < 60


def test_time_stands_still_while_work_is_ready() -> None:
    async def main() -> float:
        asyncio.get_running_loop().call_later(1, lambda: None)
        for _ in range(1000):
            await asyncio.sleep(0)
        return now()

    assert run(main()) == 0.0


def test_timers_run_in_the_order_of_their_times() -> None:
    async def main() -> list[tuple[float, str]]:
        seen: list[tuple[float, str]] = []
        loop = asyncio.get_running_loop()

        def note(name: str) -> None:
            seen.append((now(), name))

        for delay, name in ((3.0, "c"), (1.0, "a"), (2.0, "b")):
            loop.call_later(delay, note, name)
        await asyncio.sleep(10)
        return seen

    assert run(main()) == [(1.0, "a"), (2.0, "b"), (3.0, "c")]


def test_a_timeout_strikes_before_a_later_timer() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(6)
        return now()

    assert run(main()) == 5.0


def test_a_wait_longer_than_the_longest_select_of_asyncio() -> None:
    async def main() -> float:
        await asyncio.sleep(10 * 24 * 3600)  # asyncio waits for a day at most, then looks again
        return now()

    assert run(main()) == 864_000.0


def test_advance_returns_when_what_was_due_has_run_to_its_next_wait() -> None:
    async def main() -> list[str]:
        seen: list[str] = []

        async def worker() -> None:
            await asyncio.sleep(5)
            for step in "abc":
                seen.append(step)
                await asyncio.sleep(0)
            await asyncio.sleep(1)
            seen.append("too late")

        task = asyncio.create_task(worker())
        await advance(5)
        assert now() == 5.0
        task.cancel()
        return seen

    assert run(main()) == ["a", "b", "c"]


def test_advance_by_nothing_only_runs_what_is_ready() -> None:
    async def main() -> tuple[float, bool]:
        event = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: loop.call_soon(event.set))
        loop.call_later(1, lambda: None)
        await advance()
        return now(), event.is_set()

    assert run(main()) == (0.0, True)


def test_two_may_advance_at_once() -> None:
    async def main() -> list[float]:
        async def stamp(seconds: float) -> float:
            await advance(seconds)
            return now()

        return list(await asyncio.gather(stamp(2), stamp(1), stamp(2)))

    assert run(main()) == [2.0, 1.0, 2.0]


def test_one_that_gives_up_settling_does_not_disturb_the_other() -> None:
    async def main() -> bool:
        impatient = asyncio.create_task(advance(1))
        patient = asyncio.create_task(advance(1))
        await asyncio.sleep(1)
        await asyncio.sleep(0)  # now both wait for quiet
        impatient.cancel()
        await patient
        return impatient.cancelled()

    assert run(main())


def test_advance_refuses_a_real_clock() -> None:
    with pytest.raises(RuntimeError, match="needs the virtual clock; the running loop is a "):
        asyncio.run(advance(1))


def test_two_runs_are_the_same() -> None:
    async def main() -> list[tuple[float, int]]:
        trace: list[tuple[float, int]] = []

        async def tick(number: int) -> None:
            for _ in range(20):
                await asyncio.sleep(0.1 * (number % 3))
                trace.append((now(), number))

        await asyncio.gather(*(tick(number) for number in range(7)))
        return trace

    assert run(main()) == run(main())


def test_bytes_that_are_there_are_read_before_time_jumps() -> None:
    async def main() -> tuple[bytes, float]:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        with theirs:
            theirs.setblocking(False)
            theirs.send(b"hello")
            async with asyncio.timeout(1):
                read = await reader.read(5)
        writer.close()
        await writer.wait_closed()
        return read, now()

    assert run(main()) == (b"hello", 0.0)


def test_time_stands_still_while_a_thread_works() -> None:
    def job() -> bool:
        return threading.Event().wait(0.02)  # a job that takes its time, as nobody sets this event

    async def main() -> tuple[bool, float]:
        async with asyncio.timeout(0.001):
            return await asyncio.get_running_loop().run_in_executor(None, job), now()

    assert run(main()) == (False, 0.0)


def test_a_thread_may_call_into_the_loop() -> None:
    async def main() -> threading.Thread:
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(event.set))
        thread.start()
        await event.wait()
        return thread

    run(main()).join()


def test_a_deadlock_is_named_with_the_place_of_every_task() -> None:
    async def waits_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        task = asyncio.create_task(waits_for_ever(), name="the-culprit")
        await task

    with pytest.raises(RuntimeError, match="deadlock: nothing is ready") as caught:
        run(main(), patience=0.01)
    assert "the-culprit" in str(caught.value)
    assert "waits_for_ever at " in str(caught.value)
    assert "test_clock.py:" in str(caught.value)


def test_a_test_that_waits_beside_an_endless_timer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_MAX_JUMPS", 50)

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def tick() -> None:
            loop.call_later(1, tick)

        tick()
        await loop.create_future()

    with pytest.raises(RuntimeError, match="jumped 50 times, 50 virtual seconds, and the test still waits"):
        run(main())


def test_describe_task_names_the_task_and_its_line() -> None:
    async def main() -> str:
        task = asyncio.create_task(asyncio.sleep(1), name="sleeper")
        await asyncio.sleep(0)
        waiting = describe_task(task)
        await task
        return waiting

    waiting = run(main())
    assert waiting.startswith("sleeper sleep at ")


def test_describe_task_names_the_applications_line_and_not_the_libraries() -> None:
    async def waits() -> None:
        await asyncio.wait_for(asyncio.sleep(1), 5)

    async def around() -> None:
        await waits()

    async def main() -> str:
        task = asyncio.create_task(around(), name="caller")
        await asyncio.sleep(0)
        waiting = describe_task(task)
        await task
        return waiting

    line = test_describe_task_names_the_applications_line_and_not_the_libraries.__code__.co_firstlineno + 2
    assert run(main()).endswith(f".waits at {__file__}:{line}")


def test_describe_task_of_one_that_is_done_has_no_line() -> None:
    async def main() -> str:
        task = asyncio.create_task(asyncio.sleep(1), name="sleeper")
        await task
        return describe_task(task)

    done = run(main())
    assert done == "sleeper sleep"
