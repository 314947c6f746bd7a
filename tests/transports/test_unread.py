"""How long a client may take nothing of what waits for it, and how much may wait for all."""

import asyncio
import logging
import random

import pytest

from bellwire.core.clock import Wheel
from bellwire.core.config import Config
from bellwire.testing.clock import advance
from bellwire.transports.unread import CHECKED_AT_ONCE, CHECKS, NOTED_FROM, SHED_AT_ONCE, Cause, Unread
from tests.transports.wire import EchoServer

TIMEOUT = 20.0


class Reader:
    """Somebody for whom as much waits as the test says."""

    def __init__(self, unread: Unread, size: int = 0) -> None:
        self.unread = unread
        self.buffered = 0
        self.progress = 0
        self.cause: Cause | None = None
        if size:
            self.give(size)

    def give(self, size: int) -> None:
        self.buffered += size
        self.unread.note(self, self.buffered)

    def give_unnoticed(self, size: int) -> None:
        """As a response of HTTP that follows on another: its progress is minus what waits."""
        self.buffered += size
        self.progress -= size

    def take(self, size: int) -> None:
        """As a kernel takes it: nobody tells the unread."""
        self.buffered -= size
        self.progress += size

    def cut(self, cause: Cause) -> None:
        assert self.cause is None
        self.cause = cause


def make(budget: int = 10_000_000) -> tuple[Unread, Wheel]:
    loop = asyncio.get_running_loop()
    wheel = Wheel(loop)
    config = Config(write_timeout=TIMEOUT, process_buffer_bytes=budget, send_buffer_bytes=budget)
    return Unread(config, loop, wheel), wheel


# --- progress


async def test_who_takes_nothing_is_cut_off_though_more_is_added() -> None:
    unread, wheel = make()
    reader = Reader(unread, 10_000)
    for _ in range(int(TIMEOUT) - 1):
        reader.give(1)
        await advance(1)
    assert reader.cause is None
    await advance(1 + TIMEOUT / CHECKS + 1)
    assert reader.cause == "no_progress"
    assert (len(unread), unread.total, wheel.pending) == (0, 0, 0)


async def test_who_takes_a_byte_now_and_then_stays_and_there_is_one_timer_for_all() -> None:
    unread, wheel = make()
    readers = [Reader(unread, 100_000) for _ in range(50)]
    for _ in range(20):
        for reader in readers:
            reader.take(1)
        await advance(TIMEOUT - 1)
        assert wheel.pending == 1
    assert {reader.cause for reader in readers} == {None}
    assert unread.total == sum(reader.buffered for reader in readers), "what they took was seen"


async def test_what_is_added_is_no_progress_and_hides_none() -> None:
    unread, _ = make()
    idle, reading = Reader(unread, 10_000), Reader(unread, 10_000)
    for _ in range(2 * CHECKS):
        for reader in (idle, reading):
            reader.give_unnoticed(100)
        reading.take(101)
        await advance(TIMEOUT / CHECKS)
    assert (idle.cause, reading.cause) == ("no_progress", None)


async def test_who_is_forgotten_and_noted_again_has_the_whole_time_again() -> None:
    unread, wheel = make()
    reader = Reader(unread, 10_000)
    await advance(TIMEOUT - 1)
    unread.forget(reader)
    unread.forget(reader)
    assert wheel.pending == 0
    reader.give(1)
    await advance(TIMEOUT - 1)
    assert reader.cause is None


async def test_for_whom_nothing_is_left_is_forgotten() -> None:
    unread, wheel = make()
    reader = Reader(unread, 10_000)
    reader.take(10_000)
    await advance(TIMEOUT / CHECKS + 1)
    assert (len(unread), unread.total, wheel.pending) == (0, 0, 0)
    await advance(2 * TIMEOUT)
    assert reader.cause is None


async def test_many_are_looked_at_in_several_turns_and_all_in_time() -> None:
    unread, _ = make(budget=100_000_000)
    readers = [Reader(unread, 5_000) for _ in range(2 * CHECKED_AT_ONCE + 1)]
    readers[0].take(1)
    await advance(TIMEOUT + TIMEOUT / CHECKS + 1)
    assert readers[0].cause is None
    assert {reader.cause for reader in readers[1:]} == {"no_progress"}


# --- the budget


async def test_those_with_the_most_go_until_the_rest_fits() -> None:
    unread, _ = make(budget=100_000)
    small = [Reader(unread, 5_000) for _ in range(10)]
    large = [Reader(unread, 40_000) for _ in range(2)]
    assert unread.total == 130_000
    await asyncio.sleep(0)
    assert sorted(str(reader.cause) for reader in large) == ["None", "process_full"]
    assert {reader.cause for reader in small} == {None}
    assert unread.total == 90_000


async def test_who_has_read_meanwhile_stays() -> None:
    unread, _ = make(budget=100_000)
    reading, idle = Reader(unread, 60_000), Reader(unread, 30_000)
    reading.take(59_000)
    small = Reader(unread, 20_000)
    await asyncio.sleep(0)
    assert (reading.cause, idle.cause, small.cause) == (None, None, None)
    assert unread.total == 51_000


async def test_it_takes_several_turns_to_cut_off_many() -> None:
    unread, _ = make(budget=200_000)
    readers = [Reader(unread, 9_000) for _ in range(10 * SHED_AT_ONCE)]
    await asyncio.sleep(0)
    gone = [reader for reader in readers if reader.cause]
    assert len(gone) == SHED_AT_ONCE
    await advance(1)
    assert unread.total <= 200_000
    assert unread.total == sum(reader.buffered for reader in readers if reader.cause is None)


async def test_from_half_of_the_budget_on_less_is_congestion() -> None:
    unread, _ = make(budget=200_000)
    assert unread.limit == 65_536
    reader = Reader(unread, 100_000)
    assert unread.limit == 65_536
    reader.give(1)
    assert unread.limit == NOTED_FROM
    unread.forget(reader)
    assert unread.limit == 65_536


async def test_whatever_happens_the_total_is_the_sum() -> None:
    unread, wheel = make(budget=300_000)
    dice = random.Random(7)
    readers = [Reader(unread) for _ in range(40)]
    for _ in range(3_000):
        reader = dice.choice([reader for reader in readers if reader.cause is None] or [Reader(unread)])
        match dice.randrange(4):
            case 0:
                unread.forget(reader)
                reader.take(reader.buffered)
            case 1:
                reader.take(min(reader.buffered, dice.randrange(1, 50_000)))
            case _:
                reader.give(dice.randrange(1, 50_000))
        if not dice.randrange(10):
            await asyncio.sleep(dice.choice((0, 0, 1, 7)))
        assert unread.total == sum(account.size for account in unread._accounts.values())
        shelved = {who for shelf in unread._shelves.values() for who in shelf}
        assert shelved == set(unread._accounts)
    for reader in readers:
        unread.forget(reader)
    assert (unread.total, unread._shelves, wheel.pending) == (0, {}, 0)


# --- what is said of it


@pytest.mark.parametrize("cause", ["buffer_full", "no_progress", "process_full"])
async def test_each_cause_is_counted_and_logged_with_its_setting(
    cause: Cause, caplog: pytest.LogCaptureFixture
) -> None:
    server = EchoServer()
    setting = {"buffer_full": "send_buffer_bytes", "no_progress": "write_timeout", "process_full": "process_buffer_"}
    with caplog.at_level(logging.WARNING, "bellwire"):
        server.engine.report_slow(cause)
    assert server.counters.get("slow_consumers_total", cause=cause) == 1
    assert setting[cause] in caplog.text
