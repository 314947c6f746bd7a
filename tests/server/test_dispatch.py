import asyncio
import contextvars
import gc
import types
import weakref
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bellwire.server.dispatch import MAX_IDLE, Dispatcher, Outcome
from bellwire.testing.clock import advance

COLOUR: contextvars.ContextVar[str] = contextvars.ContextVar("COLOUR", default="none")


@asynccontextmanager
async def dispatching() -> AsyncIterator[Dispatcher]:
    dispatcher = Dispatcher(asyncio.get_running_loop())
    try:
        yield dispatcher
    finally:
        await dispatcher.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}


class Ends(list[Outcome]):
    """Keeps what ``finished`` was told."""

    def only(self) -> Outcome:
        (outcome,) = self
        return outcome


async def both_halves(dispatcher: Dispatcher, job: Any) -> Outcome:
    """Run ``job`` to its end, however often it waits."""
    ends = Ends()
    outcome = dispatcher.start(job, ends.append)
    if outcome is None:
        await advance(10)
        return ends.only()
    assert not ends
    return outcome


async def test_the_first_step_runs_at_once_and_may_be_all() -> None:
    seen = []

    async def job() -> int:
        seen.append("ran")
        return 7

    async with dispatching() as dispatcher:
        assert dispatcher.start(job(), print) == Outcome(7)
        assert seen == ["ran"]


async def test_an_error_of_the_first_step_is_an_outcome() -> None:
    async def job() -> None:
        raise LookupError("gone")

    async with dispatching() as dispatcher:
        outcome = dispatcher.start(job(), print)
        assert outcome is not None
        assert isinstance(outcome.error, LookupError)


class Result:
    """Something that can be watched."""


@pytest.mark.parametrize("pause", [None, 0, 1])
async def test_nothing_of_a_job_is_kept_when_it_is_over(pause: float | None) -> None:
    async def job(result: Result) -> Result:
        if pause is not None:
            await asyncio.sleep(pause)
        return result

    async with dispatching() as dispatcher:
        result = Result()
        seen = weakref.ref(result)
        outcome: Outcome | None = await both_halves(dispatcher, job(result))
        assert outcome is not None
        assert outcome.result is result
        del result, outcome
        assert seen() is None


@pytest.mark.parametrize("pause", [None, 0, 1])
@pytest.mark.parametrize("error", [GeneratorExit, asyncio.CancelledError, StopAsyncIteration])
async def test_whatever_a_job_raises_is_its_outcome(pause: float | None, error: type[BaseException]) -> None:
    async def job() -> None:
        if pause is not None:
            await asyncio.sleep(pause)
        raise error

    async def other() -> int:
        return 7

    async with dispatching() as dispatcher:
        assert isinstance((await both_halves(dispatcher, job())).error, error)
        assert await both_halves(dispatcher, other()) == Outcome(7)


def test_a_job_that_nobody_carries_on_is_closed() -> None:
    ends = []

    async def job() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ends.append("closed")

    async def begin() -> None:
        assert Dispatcher(asyncio.get_running_loop()).start(job(), print) is None
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # that a task was left behind
    loop.run_until_complete(begin())
    loop.close()
    gc.collect()
    assert ends == ["closed"]


async def test_a_job_that_waits_is_carried_on_and_tells_its_end_once() -> None:
    steps = []

    async def job() -> str:
        steps.append(1)
        await asyncio.sleep(1)
        steps.append(2)
        await asyncio.sleep(0)
        steps.append(3)
        await asyncio.sleep(1)
        return "done"

    ends = Ends()
    async with dispatching() as dispatcher:
        assert dispatcher.start(job(), ends.append) is None
        assert steps == [1]
        await advance(1.5)
        assert (steps, ends) == ([1, 2, 3], [])
        await advance(1)
        assert ends == [Outcome("done")]


async def test_an_error_after_waiting_is_an_outcome() -> None:
    async def job() -> None:
        await asyncio.sleep(0)
        raise LookupError("gone")

    async with dispatching() as dispatcher:
        outcome = await both_halves(dispatcher, job())
        assert isinstance(outcome.error, LookupError)


async def test_an_error_of_what_is_waited_for_reaches_the_job() -> None:
    future = asyncio.get_running_loop().create_future()

    async def job() -> str:
        try:
            await future
        except LookupError:
            return "caught"
        return "missed"

    async with dispatching() as dispatcher:
        ends = Ends()
        dispatcher.start(job(), ends.append)
        future.set_exception(LookupError())
        await advance()
        assert ends == [Outcome("caught")]


async def test_several_jobs_may_wait_for_the_same_future_before_any_is_carried_on() -> None:
    gate = asyncio.get_running_loop().create_future()

    async def job() -> str:
        return str(await gate)

    async with dispatching() as dispatcher:
        ends = Ends()
        for _ in range(3):
            assert dispatcher.start(job(), ends.append) is None
        await advance()
        gate.set_result("open")
        await advance()
        assert ends == [Outcome("open")] * 3


async def test_the_current_task_is_the_same_before_and_after_waiting_and_never_the_callers() -> None:
    tasks = []

    async def job() -> None:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(1)
        tasks.append(asyncio.current_task())

    async with dispatching() as dispatcher:
        caller = asyncio.current_task()
        await both_halves(dispatcher, job())
        assert asyncio.current_task() is caller
        first, second = tasks
        assert first is second
        assert isinstance(first, asyncio.Task)
        assert first is not caller


async def test_a_job_may_be_started_from_a_plain_callback() -> None:
    tasks = []

    async def job() -> None:
        tasks.append(asyncio.current_task())

    async with dispatching() as dispatcher:
        asyncio.get_running_loop().call_soon(lambda: dispatcher.start(job(), print))
        await advance()
        assert isinstance(tasks[0], asyncio.Task)


async def test_a_job_may_start_another_within_its_first_step() -> None:
    order = []

    async def inner() -> None:
        order.append(asyncio.current_task())

    async def outer(dispatcher: Dispatcher) -> None:
        order.append(asyncio.current_task())
        dispatcher.start(inner(), print)
        order.append(asyncio.current_task())

    async with dispatching() as dispatcher:
        dispatcher.start(outer(dispatcher), print)
        before, inside, after = order
        assert before is after
        assert inside is not before


@pytest.mark.parametrize("pause", [None, 1.0])
async def test_what_is_no_future_cannot_be_waited_for_and_the_job_is_told(pause: float | None) -> None:
    @types.coroutine
    def foreign() -> Generator[str, None, None]:
        yield "of another event loop's library"

    async def job() -> str:
        if pause is not None:
            await asyncio.sleep(pause)
        try:
            await foreign()
        except RuntimeError:
            return "told"
        return "not told"

    async with dispatching() as dispatcher:
        assert (await both_halves(dispatcher, job())).result == "told"


async def test_a_task_group_works_across_the_hand_over() -> None:
    async def child(n: int) -> int:
        await asyncio.sleep(n)
        return n

    async def job() -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(child(n)) for n in (1, 2)]
        return [task.result() for task in tasks]

    async with dispatching() as dispatcher:
        assert (await both_halves(dispatcher, job())).result == [1, 2]


async def test_a_failing_child_cancels_the_job_that_owns_the_task_group() -> None:
    async def child() -> None:
        raise LookupError("child")

    async def job() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            await asyncio.sleep(100)

    async with dispatching() as dispatcher:
        error = (await both_halves(dispatcher, job())).error
        assert isinstance(error, ExceptionGroup)
        assert isinstance(error.exceptions[0], LookupError)
        assert asyncio.get_running_loop().time() == 10  # and not 100


@pytest.mark.parametrize("pause", [None, 0, 1])
async def test_a_context_variable_stays_with_the_job_that_set_it(pause: float | None) -> None:
    async def paint() -> str:
        COLOUR.set("red")
        if pause is not None:
            await asyncio.sleep(pause)
        return COLOUR.get()

    async def look() -> str:
        return COLOUR.get()

    async with dispatching() as dispatcher:
        assert (await both_halves(dispatcher, paint())).result == "red"
        assert COLOUR.get() == "none"
        assert [(await both_halves(dispatcher, look())).result for _ in range(3)] == ["none"] * 3


async def test_a_context_variable_that_was_set_before_is_seen() -> None:
    async def look() -> str:
        await asyncio.sleep(0)
        return COLOUR.get()

    token = COLOUR.set("blue")
    async with dispatching() as dispatcher:
        COLOUR.reset(token)
        assert (await both_halves(dispatcher, look())).result == "blue"


async def test_a_context_variable_that_was_overwritten_is_as_before_for_the_next() -> None:
    async def paint() -> None:
        COLOUR.set("red")
        await asyncio.sleep(0)

    async def look() -> str:
        return COLOUR.get()

    token = COLOUR.set("blue")
    async with dispatching() as dispatcher:
        COLOUR.reset(token)
        await both_halves(dispatcher, paint())
        assert (await both_halves(dispatcher, look())).result == "blue"


async def test_one_task_serves_jobs_one_after_the_other() -> None:
    async def job() -> Any:
        await asyncio.sleep(0)
        return asyncio.current_task()

    async with dispatching() as dispatcher:
        tasks = {(await both_halves(dispatcher, job())).result for _ in range(5)}
        assert len(tasks) == 1
        assert len(asyncio.all_tasks()) == 2


async def test_after_a_peak_a_bounded_number_of_tasks_is_kept() -> None:
    async with dispatching() as dispatcher:
        ends = Ends()
        for _ in range(MAX_IDLE + 50):
            dispatcher.start(asyncio.sleep(1), ends.append)
        await advance(2)
        assert len(ends) == MAX_IDLE + 50
        assert len(asyncio.all_tasks()) <= MAX_IDLE + 1


async def test_closing_cancels_what_still_waits_and_tells_its_end() -> None:
    dispatcher = Dispatcher(asyncio.get_running_loop())
    ends = Ends()
    dispatcher.start(asyncio.sleep(100), ends.append)
    await dispatcher.close()
    assert isinstance(ends.only().error, asyncio.CancelledError)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_gives_what_still_waits_its_grace() -> None:
    loop = asyncio.get_running_loop()
    dispatcher = Dispatcher(loop)
    quick, slow = Ends(), Ends()
    dispatcher.start(asyncio.sleep(3, "done"), quick.append)
    dispatcher.start(asyncio.sleep(100), slow.append)
    await dispatcher.close(grace=5)
    assert loop.time() == 5
    assert quick == [Outcome("done")]
    assert isinstance(slow.only().error, asyncio.CancelledError)


async def test_closing_takes_no_longer_than_the_last_job() -> None:
    loop = asyncio.get_running_loop()
    dispatcher = Dispatcher(loop)
    dispatcher.start(asyncio.sleep(3), Ends().append)
    await dispatcher.close(grace=5)
    assert loop.time() == 3


async def test_closing_ends_what_begins_meanwhile() -> None:
    dispatcher = Dispatcher(asyncio.get_running_loop())
    second = Ends()

    def go_on(_: Outcome) -> None:
        dispatcher.start(asyncio.sleep(100), second.append)

    dispatcher.start(asyncio.sleep(100), go_on)
    await dispatcher.close()
    assert isinstance(second.only().error, asyncio.CancelledError)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("pause", [False, True])
async def test_a_job_may_close_the_dispatcher_that_runs_it(pause: bool) -> None:
    dispatcher = Dispatcher(asyncio.get_running_loop())
    ends = Ends()

    async def job() -> str:
        if pause:
            await asyncio.sleep(1)
        await dispatcher.close(grace=1)
        return "closed"

    dispatcher.start(asyncio.sleep(100), print)
    outcome = dispatcher.start(job(), ends.append)
    await advance(5)
    assert (outcome or ends.only()) == Outcome("closed")
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.bellwire(clock="real", uvloop=True)
async def test_it_works_on_uvloop() -> None:
    done = asyncio.Event()

    async def job() -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.sleep(100)
        except TimeoutError:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0))
            return "timed out"
        return "not timed out"

    ends = Ends()

    def finished(outcome: Outcome) -> None:
        ends.append(outcome)
        done.set()

    async with dispatching() as dispatcher:
        assert dispatcher.start(job(), finished) is None
        async with asyncio.timeout(5):
            await done.wait()
        assert ends == [Outcome("timed out")]
