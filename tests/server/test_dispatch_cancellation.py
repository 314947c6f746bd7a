"""Handlers that are cancelled, or time out, on tasks that others use after them."""

import asyncio
from typing import Any

import pytest

from bellwire.server.dispatch import Outcome
from bellwire.testing.clock import advance
from tests.server.test_dispatch import Ends, both_halves, dispatching


@pytest.mark.parametrize("pause", [0, 1])
async def test_a_timeout_that_is_entered_in_the_first_step_ends_the_waiting(pause: float) -> None:
    async def job() -> str:
        try:
            async with asyncio.timeout(2):
                await asyncio.sleep(pause)
                await asyncio.sleep(100)
        except TimeoutError:
            return f"timed out at {asyncio.get_running_loop().time():g}"
        return "not timed out"

    async with dispatching() as dispatcher:
        assert (await both_halves(dispatcher, job())).result == "timed out at 2"


@pytest.mark.parametrize("warm", [False, True])
async def test_a_timeout_that_is_over_before_the_hand_over_cancels_the_job(warm: bool) -> None:
    async def nothing() -> None:
        await asyncio.sleep(0)

    async def job() -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.sleep(100)
        except TimeoutError:
            return "timed out"
        return "not timed out"

    async with dispatching() as dispatcher:
        if warm:
            await both_halves(dispatcher, nothing())
        assert (await both_halves(dispatcher, job())).result == "timed out"


@pytest.mark.parametrize("warm", [False, True])
async def test_a_cancellation_before_the_hand_over_reaches_the_task_that_is_waited_for(warm: bool) -> None:
    inner = []

    async def child() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            inner.append("cancelled")
            raise

    async def job() -> str:
        task = asyncio.ensure_future(child())
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(0):
                await task
        except TimeoutError:
            return "timed out"
        return "not timed out"

    async def nothing() -> None:
        await asyncio.sleep(0)

    async with dispatching() as dispatcher:
        if warm:
            await both_halves(dispatcher, nothing())
        assert (await both_halves(dispatcher, job())).result == "timed out"
        assert inner == ["cancelled"]


async def test_a_hand_over_is_cancelled_like_any_wait_so_the_task_that_is_waited_for_is_too() -> None:
    """The parked task is cancelled after the first step and before the loop has come round to it."""
    child = asyncio.ensure_future(asyncio.sleep(100))
    tasks: list[asyncio.Task[Any]] = []

    async def nothing() -> None:
        await asyncio.sleep(0)

    async def job() -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        await child

    async with dispatching() as dispatcher:
        await both_halves(dispatcher, nothing())
        ends = Ends()
        dispatcher.start(job(), ends.append)
        tasks[0].cancel()
        await advance()
        assert child.cancelled()
        assert isinstance(ends.only().error, asyncio.CancelledError)


@pytest.mark.parametrize("warm", [False, True])
async def test_a_job_that_cancels_itself_in_its_first_step_is_cancelled_where_it_waits(warm: bool) -> None:
    async def nothing() -> None:
        await asyncio.sleep(0)

    async def job() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            return "cancelled"
        return "not cancelled"

    async with dispatching() as dispatcher:
        if warm:
            await both_halves(dispatcher, nothing())
        assert (await both_halves(dispatcher, job())).result == "cancelled"
        assert (await both_halves(dispatcher, nothing())).error is None


@pytest.mark.parametrize("warm", [False, True])
async def test_a_cancellation_that_is_taken_back_in_the_first_step_hits_nobody(warm: bool) -> None:
    def waver() -> None:  # as a task group does whose child fails at once
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        task.uncancel()

    async def job(wait: float) -> str:
        waver()
        await asyncio.sleep(wait) if wait else None
        return "done"

    async def wait(most: float) -> None:
        async with asyncio.timeout(most):
            await asyncio.sleep(2)

    async with dispatching() as dispatcher:
        for pause in (0.0, 1.0):
            if warm:
                await both_halves(dispatcher, asyncio.sleep(0))
            assert (await both_halves(dispatcher, job(pause))).result == "done"
            assert (await both_halves(dispatcher, wait(3))).error is None
            assert (await both_halves(dispatcher, job(pause))).result == "done"
            await advance()
            assert isinstance((await both_halves(dispatcher, wait(1))).error, TimeoutError)


@pytest.mark.parametrize("warm", [False, True])
async def test_a_cancellation_that_is_taken_back_costs_the_next_job_no_timeout(warm: bool) -> None:
    async def waver() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        task.uncancel()

    async def wait() -> None:
        async with asyncio.timeout(1):
            await asyncio.sleep(2)

    async with dispatching() as dispatcher:
        if warm:
            await both_halves(dispatcher, asyncio.sleep(0))
        assert await both_halves(dispatcher, waver()) == Outcome()
        assert isinstance((await both_halves(dispatcher, wait())).error, TimeoutError)


async def test_tasks_that_somebody_cancelled_are_not_used_again() -> None:
    async with dispatching() as dispatcher:
        await both_halves(dispatcher, asyncio.sleep(0))
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        outcome = await both_halves(dispatcher, asyncio.sleep(1, "slept"))
        assert outcome == Outcome("slept")


@pytest.mark.parametrize("turns", range(4))
async def test_a_job_that_cancels_itself_and_is_over_cancels_none_that_follows(turns: int) -> None:
    """Its task ends in the next turn of the loop, and tells so in the one behind that."""

    async def cancel() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async with dispatching() as dispatcher:
        assert await both_halves(dispatcher, cancel()) == Outcome()
        for _ in range(turns):
            await asyncio.sleep(0)
        assert await both_halves(dispatcher, asyncio.sleep(1, "slept")) == Outcome("slept")
