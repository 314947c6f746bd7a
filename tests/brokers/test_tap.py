"""A stream as somebody sees it who looks on: on a broker in memory that loses what it is told to, and on real ones."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bellwire.brokers.base import Broker
from bellwire.brokers.guest import visit
from bellwire.brokers.memory import MemoryBroker
from bellwire.brokers.tap import LOOK_EVERY, Item, Tap
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.answer import Reason
from bellwire.delivery.entry import Draft, Entry, marker
from bellwire.delivery.log import Limits
from bellwire.testing.clock import advance
from tests.brokers.nats_server import Proxy

S = "stream"


class Looking:
    """A tap, and what it told: the ids of entries, what was published, reasons."""

    def __init__(self, broker: Broker) -> None:
        self.heard: list[str] = []
        self.away = 0
        self.tap = Tap(broker, S, self.hear, self.be_away)

        self._changed = asyncio.Event()

    def hear(self, item: Item) -> None:
        self.heard.append(item.mid if isinstance(item, Entry) else item if isinstance(item, Reason) else item.decode())
        self._changed.set()

    def be_away(self, error: BrokerUnavailable) -> None:
        self.away += 1

    async def until(self, count: int) -> None:
        while len(self.heard) < count:
            self._changed.clear()
            await self._changed.wait()


async def append(broker: MemoryBroker, *mids: str) -> None:
    for mid in mids:
        await broker.append(S, Draft(mid, random.getrandbits(32), b"body of " + mid.encode()))


@asynccontextmanager
async def looking(broker: MemoryBroker, history: int | None = 0) -> AsyncIterator[list[str]]:
    looking = Looking(broker)
    task = asyncio.create_task(looking.tap.run(history))
    await looking.tap.following.wait()
    await advance()
    yield looking.heard
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert S not in broker._listeners


async def started(limits: Limits | None = None) -> MemoryBroker:
    broker = MemoryBroker(limits or Limits())
    await broker.start()
    return broker


async def test_what_comes_is_told_in_order_and_what_was_there_is_not() -> None:
    broker = await started()
    await append(broker, "before")
    async with looking(broker) as heard:
        await append(broker, "a", "b")
        await broker.publish(S, b"beside")
        await append(broker, "c")
        await advance()
        assert heard == ["a", "b", "beside", "c"]


@pytest.mark.parametrize(("history", "told"), [(None, "abcd"), (2, "cd"), (9, "abcd"), (0, "")])
async def test_it_begins_with_as_much_as_is_asked_for(history: int | None, told: str) -> None:
    broker = await started()
    await broker.append(S, marker(1))  # which is nothing that was emitted
    await append(broker, *"abcd")
    async with looking(broker, history) as heard:
        await append(broker, "e")
        await advance()
        assert heard == [*told, "e"]


async def test_it_begins_with_what_is_left() -> None:
    broker = await started(Limits(messages=2))
    await append(broker, *"abcdef")
    async with looking(broker, None) as heard:
        assert heard == ["d", "e", "f"]


async def test_a_long_history_is_told_whole() -> None:
    broker = await started(Limits(messages=3_000))
    mids = [str(n) for n in range(1_201)]  # more than two pages
    await append(broker, *mids)
    async with looking(broker, None) as heard:
        assert heard == mids


async def test_a_stream_where_nothing_was_is_followed_too() -> None:
    broker = await started()
    async with looking(broker, None) as heard:
        await append(broker, "a")
        await advance()
        assert heard == ["a"]


async def test_what_the_broker_loses_on_the_way_is_read_from_the_log() -> None:
    broker = await started()
    async with looking(broker) as heard:
        await append(broker, "a")
        broker.faults.lose_live(S, 2)
        await append(broker, "b", "c", "d")
        await advance()
        assert heard == ["a", "b", "c", "d"]


async def test_what_is_lost_in_a_quiet_stream_is_found_by_a_look_at_its_top() -> None:
    broker = await started()
    async with looking(broker) as heard:
        broker.faults.lose_live(S, 1)
        await append(broker, "a")
        await advance()
        assert heard == []
        await advance(LOOK_EVERY)
        assert heard == ["a"]


async def test_a_broker_that_is_away_is_waited_for_and_that_is_said() -> None:
    broker = await started()
    looking = Looking(broker)
    task = asyncio.create_task(looking.tap.run())
    await looking.tap.following.wait()
    broker.faults.lose_live(S, 1)
    await append(broker, "a", "b")
    broker.faults.go_away()
    await advance(LOOK_EVERY * 3)
    assert looking.away > 3
    broker.faults.come_back()
    await advance(LOOK_EVERY)
    assert looking.heard == ["a", "b"]
    broker.faults.go_away()
    said = looking.away
    await advance(LOOK_EVERY * 3)  # nothing is missing, and nobody answers
    assert looking.away > said
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_a_failover_takes_back_is_said_before_anything_newer() -> None:
    broker = await started()
    await append(broker, "a")
    async with looking(broker, None) as heard:
        await append(broker, "b", "c")
        await advance()
        broker.faults.lose_tail(S, 1)
        await append(broker, "d")
        await advance(LOOK_EVERY)
        assert heard[:4] == ["a", "b", "c", Reason.DIVERGED]
        assert heard[-1] == "d"


async def test_nobody_who_answers_at_the_start_is_an_error() -> None:
    broker = await started()
    broker.faults.go_away()
    with pytest.raises(BrokerUnavailable):
        await Looking(broker).tap.run()


# --- on real brokers


async def append_to(broker: Broker, first: int, last: int) -> None:
    for n in range(first, last + 1):
        await broker.append(S, Draft(str(n), random.getrandbits(32), b"body"))


@pytest.fixture(params=["redis", "server"], ids=["redis", "nats"])
def real(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.mark.bellwire(clock="real")
async def test_a_connection_that_is_cut_leaves_no_hole(real: Any) -> None:
    async with Proxy.to(real) as proxy:
        url = real.url.replace(f":{real.port}", f":{proxy.port}")
        async with visit(url, Counters()) as cut, visit(real.url, Counters()) as other:
            looking = Looking(cut)
            task = asyncio.create_task(looking.tap.run(None))
            await looking.tap.following.wait()
            await append_to(other, 1, 50)
            proxy.close_door()
            proxy.cut()
            await append_to(other, 51, 100)
            proxy.open_door()
            await append_to(other, 101, 150)
            async with asyncio.timeout(20):
                await looking.until(150)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert looking.heard == [str(n) for n in range(1, 151)]
