"""A handler, and what it started, know which event they work on."""

import asyncio

from bellwire.delivery.effects import Key
from bellwire.server.attempt import Attempt, current

KEY = Key("p" * 32, 7)


def test_outside_of_an_attempt_there_is_no_key_and_nothing_was_tried_before() -> None:
    assert (current().key, current().redelivered) == (None, False)


def test_an_attempt_is_known_as_long_as_it_goes_on() -> None:
    with Attempt(KEY, redelivered=True):
        assert (current().key, current().redelivered) == (KEY, True)
        with Attempt(None, redelivered=False):
            assert current().key is None
        assert current().key == KEY
    assert current().key is None


async def test_a_task_keeps_the_event_that_it_was_started_for() -> None:
    over = asyncio.Event()

    async def task() -> Key | None:
        await over.wait()
        return current().key

    with Attempt(KEY, redelivered=False):
        started = asyncio.create_task(task())
    with Attempt(Key("p" * 32, 8), redelivered=False):
        over.set()
        assert await started == KEY
