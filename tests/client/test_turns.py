import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from bellwire.client.turns import MAX_WAITING, MAX_WAITING_BYTES, Outcome, Turn, Turns
from bellwire.testing.clock import advance


class Stage:
    """Turns, and what came of them."""

    def __init__(self) -> None:
        self.pressed: list[bool] = []
        self.ran: list[Any] = []
        self.outcomes: list[Outcome] = []
        self.turns = Turns(self.pressed.append)
        self.gate = asyncio.Event()

    def put(self, handler: Callable[..., Any], *arguments: Any, size: int = 0, lasting: bool = False) -> None:
        self.turns.put(Turn(handler, arguments, self.outcomes.append, size, lasting))

    def plain(self, value: Any) -> Any:
        self.ran.append(value)
        return value

    async def slow(self, value: Any) -> Any:
        await self.gate.wait()
        self.ran.append(value)
        return value

    @property
    def results(self) -> list[Any]:
        return [outcome.result for outcome in self.outcomes]


async def test_a_plain_handler_runs_at_once_and_without_a_task() -> None:
    stage = Stage()
    stage.put(stage.plain, 1)
    assert (stage.ran, stage.results) == ([1], [1])
    assert len(asyncio.all_tasks()) == 1


async def test_the_order_is_kept_with_one_task() -> None:
    stage = Stage()
    for value, handler in enumerate((stage.plain, stage.slow, stage.plain, stage.slow, stage.plain)):
        stage.put(handler, value)
    await advance()
    assert stage.ran == [0]
    assert len(asyncio.all_tasks()) == 2
    stage.gate.set()
    await stage.turns.settled()
    assert stage.ran == stage.results == [0, 1, 2, 3, 4]
    await advance()
    assert len(asyncio.all_tasks()) == 1
    stage.put(stage.slow, 5)
    await stage.turns.settled()
    assert stage.ran[-1] == 5


async def test_a_handler_that_puts_waits_for_itself() -> None:
    stage = Stage()

    def twice(value: int) -> None:
        stage.put(stage.plain, value + 1)
        stage.ran.append(value)

    stage.put(twice, 1)
    assert stage.ran == [1, 2]


async def test_errors_are_outcomes() -> None:
    stage = Stage()

    def plain() -> None:
        raise ValueError("plain")

    async def awaited() -> None:
        raise ValueError("awaited")

    async def cancelled() -> None:
        raise asyncio.CancelledError

    for handler in (plain, awaited, cancelled):
        stage.put(handler)
    stage.put(stage.plain, 1)
    await stage.turns.settled()
    assert [repr(outcome.error) for outcome in stage.outcomes[:2]] == ["ValueError('plain')", "ValueError('awaited')"]
    assert isinstance(stage.outcomes[2].error, asyncio.CancelledError)
    assert stage.ran == [1]


@pytest.mark.parametrize(("count", "size"), [(MAX_WAITING, 0), (2, MAX_WAITING_BYTES // 2)])
async def test_pressure_begins_and_ends(count: int, size: int) -> None:
    stage = Stage()
    stage.put(stage.slow, 0)
    for _ in range(count - 1):
        stage.put(stage.plain, 1, size=size)
    assert stage.pressed == []
    stage.put(stage.plain, 1, size=size)
    stage.put(stage.plain, 1, size=size)
    assert stage.pressed == [True]
    stage.gate.set()
    await stage.turns.settled()
    assert stage.pressed == [True, False]
    assert len(stage.ran) == count + 2


async def test_clear_cancels_and_forgets_all_but_what_lasts() -> None:
    stage = Stage()
    stage.put(stage.slow, 1)
    stage.put(stage.plain, 2)
    stage.put(stage.plain, "last", lasting=True)
    await advance()
    assert stage.turns.clear() == 1
    stage.put(stage.plain, "after")
    await stage.turns.settled()
    assert stage.ran == ["last", "after"]
    assert isinstance(stage.outcomes[0].error, asyncio.CancelledError)


async def test_a_handler_cancelled_before_it_began_leaves_nothing_behind() -> None:
    stage = Stage()
    stage.put(stage.slow, 1)
    assert stage.turns.clear() == 0
    await stage.turns.settled()
    assert isinstance(stage.outcomes[0].error, asyncio.CancelledError)
    stage.put(stage.plain, 2)
    assert stage.ran == [2]


async def test_a_handler_may_clear_and_settle() -> None:
    stage = Stage()

    async def leave() -> str:
        stage.turns.clear()
        await stage.turns.settled()
        return "left"

    stage.put(leave)
    stage.put(stage.plain, 1)
    await stage.turns.settled()
    assert (stage.results, stage.ran) == (["left"], [])


async def test_a_handler_that_will_not_be_cancelled_goes_on() -> None:
    stage = Stage()

    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "stayed"
        return ""

    stage.put(stubborn)
    await advance()
    stage.turns.clear()
    stage.put(stage.plain, 1)
    await stage.turns.settled()
    assert stage.results == ["stayed", 1]
