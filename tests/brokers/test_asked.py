"""One question for all who ask the same: never an answer that is older than the call."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from bellwire.brokers.asked import Asked
from bellwire.testing.clock import advance


class Log:
    """Something that grows, and that takes a second to ask; what it answers is what it had in the middle of that."""

    def __init__(self) -> None:
        self.size = 0
        self.questions: list[str] = []
        self.asked = Asked(self._answer)

    async def _answer(self, key: str) -> int:
        self.questions.append(key)
        await asyncio.sleep(0.5)
        size = self.size
        await asyncio.sleep(0.5)
        if size < 0:
            raise ValueError(key)
        return size


def ask(log: Log, key: str = "k") -> "asyncio.Task[int]":
    return asyncio.create_task(log.asked(key))


async def test_those_who_ask_at_once_share_one_question() -> None:
    log = Log()
    asking = [ask(log) for _ in range(5)]
    await advance(1)
    assert [task.result() for task in asking] == [0] * 5
    assert log.questions == ["k"]


async def test_those_who_ask_while_one_is_under_way_share_the_next() -> None:
    log = Log()
    first = ask(log)
    await advance(0.6)
    log.size = 1
    later = [ask(log)]
    await advance(0.2)
    log.size = 2
    later.append(ask(log))
    await advance(0.2)
    assert first.result() == 0
    assert log.questions == ["k", "k"]
    await advance(1)
    assert [task.result() for task in later] == [2, 2]
    assert log.questions == ["k", "k"]


async def test_who_asks_after_an_answer_asks_anew() -> None:
    log = Log()
    for size in range(3):
        log.size = size
        asking = ask(log)
        await advance(1)
        assert asking.result() == size
    assert len(log.questions) == 3


async def test_other_keys_are_other_questions() -> None:
    log = Log()
    asking = [ask(log, "a"), ask(log, "b")]
    await advance(1)
    assert all(task.done() for task in asking)
    assert log.questions == ["a", "b"]


async def test_an_error_is_for_all_who_asked_and_for_no_others() -> None:
    log = Log()
    log.size = -1
    asking = [ask(log) for _ in range(2)]
    await advance(0.6)
    log.size = 1
    later = ask(log)
    await advance(0.4)
    for task in asking:
        with pytest.raises(ValueError, match="k"):
            task.result()
    await advance(1)
    assert later.result() == 1


async def test_who_gives_up_takes_the_answer_from_nobody() -> None:
    log = Log()
    first, second = ask(log), ask(log)
    await advance(0.5)
    third = ask(log)
    await advance()
    first.cancel()
    await advance(0.5)
    assert second.result() == 0
    third.cancel()
    await advance(1)
    fourth = ask(log)
    await advance(1)
    assert fourth.result() == 0


async def test_a_question_that_was_cancelled_before_it_began_is_asked_anew() -> None:
    log = Log()
    asking = ask(log)
    await asyncio.sleep(0)
    log.asked._next["k"].cancel()
    await advance()
    assert asking.cancelled()
    again = ask(log)
    await advance(1)
    assert again.result() == 0


async def test_nothing_is_kept_of_an_answer() -> None:
    log = Log()
    asking: list[Coroutine[Any, Any, int]] = [log.asked(str(n)) for n in range(10)]
    await asyncio.gather(*asking)
    assert not log.asked._under_way
    assert not log.asked._next
