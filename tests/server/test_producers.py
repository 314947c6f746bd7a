"""Greetings, the leases of handlers that run, and what dead nodes left behind."""

import asyncio
import secrets

import pytest

from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.effects import APPEND_SECONDS, DEDUPE_SECONDS
from bellwire.delivery.inbox import LEASE_SECONDS, Answer, Refuse
from bellwire.server.inlet import LAST_REST
from bellwire.server.pending import SLICES, Pending
from bellwire.testing.clock import advance
from tests.server.far import LAG, FarBroker
from tests.server.numbered import (
    PRODUCER,
    Node,
    World,
    away,
    bodies,
    now,
    started,
    until_death,
)


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("call", range(2, 7))
async def test_c01_a_relay_is_completed_by_a_node_that_starts_and_the_next_one_comes_after_it(
    answered: bool, call: int
) -> None:
    broker, world = await started(), World()
    dying = Node(broker)
    inlet = await dying.connect()
    await world.send(inlet, 1, "relay")
    await until_death(world.send(inlet, 2, "relay"), dying, call, answered=answered)
    await Node(broker).producers.recover()
    done = [b"1/1", b"1/2", b"2/1", b"2/2"]
    assert await bodies(broker, "room") == done
    again = await Node(broker).connect()
    assert again.last == 2
    assert isinstance(await world.send(again, 3, "relay"), Answer)
    assert await bodies(broker, "room") == [*done, b"3/1", b"3/2"]
    assert len(world.runs) == 3


async def test_c01_a_node_that_dies_while_it_recovers_leaves_it_to_the_next() -> None:
    broker, world = await started(), World()
    dying = Node(broker)
    await until_death(world.send(await dying.connect(), 1, "relay"), dying, 3, answered=True)
    for _ in range(3):
        second = Node(broker)
        await until_death(second.producers.recover(), second, 66, answered=True)
    await Node(broker).producers.recover()
    assert await bodies(broker, "room") == [b"1/1", b"1/2"]
    assert await bodies(broker, "hall") == [b"1/1"]


async def test_c01_a_relay_that_nobody_completes_in_time_is_an_unknown_outcome(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker, world = await started(), World()
    dying = Node(broker)
    inlet = await dying.connect()
    await until_death(world.send(inlet, 1, "relay"), dying, 3, answered=True)
    await asyncio.sleep(APPEND_SECONDS + 1)
    await Node(broker).producers.recover()
    assert "too late" in caplog.text
    assert await bodies(broker, "hall") == []
    again = await Node(broker).connect()
    verdict = await world.send(again, 1, "relay", generation=inlet.generation, resent=True)
    assert verdict == Refuse("outcome_unknown")
    assert now() == pytest.approx(DEDUPE_SECONDS, abs=LAST_REST + 1)
    assert isinstance(await world.send(again, 2, "relay"), Answer)


async def test_recovering_finds_the_relays_of_all_producers_and_those_only() -> None:
    broker, world, appends = await started(), World(), 0
    for n in range(40):
        dying = Node(broker)
        inlet = await dying.connect(f"user {n}")
        await until_death(world.send(inlet, 1, "relay"), dying, 3 if n % 2 else 10**6, answered=True)
        appends += n % 2 == 0
    assert len(await bodies(broker, "hall")) == appends
    node = Node(broker)
    await node.producers.recover()
    assert len(await bodies(broker, "hall")) == 40
    assert node.line.calls.count("append") == 20 * 3
    await node.producers.recover()
    assert node.line.calls.count("append") == 20 * 3


async def test_recovering_does_not_wait_for_one_producer_after_the_other() -> None:
    broker = FarBroker()
    await broker.start()
    pending = Pending(broker)
    await asyncio.gather(*(pending.add(secrets.token_hex(16)) for _ in range(320)))
    broker.asked, began = 0, now()
    await Node(broker).producers.recover()
    assert broker.asked == SLICES + 320
    assert now() - began < 100 * LAG


async def test_c03_a_handler_that_takes_long_keeps_its_lease() -> None:
    broker, world = await started(), World()
    node = Node(broker)
    inlet, other = await node.connect(), await Node(broker).connect()
    world.during = lambda: asyncio.sleep(10 * LEASE_SECONDS)
    first = asyncio.create_task(world.send(inlet, 1, "at_least_once"))
    await advance(2 * LEASE_SECONDS)
    second = asyncio.create_task(world.send(other, 1, "at_least_once", resent=True))
    assert await first == await second == Answer(b"reply 1 to 1")
    assert len(world.runs) == 1
    renewals = node.line.calls.count("put") - 3
    assert 10 * 3 <= renewals <= 10 * 6
    await asyncio.sleep(100)
    assert node.line.calls.count("put") - 3 == renewals
    assert node.producers.wheel.pending == 0


async def test_c03_one_look_serves_many_handlers() -> None:
    broker, world = await started(), World()
    node = Node(broker)
    world.during = lambda: asyncio.sleep(LEASE_SECONDS * 2)
    inlets = [await node.connect(f"user {n}") for n in range(100)]
    sent = [asyncio.create_task(world.send(inlet, 1)) for inlet in inlets]
    await advance(7)
    assert node.producers.wheel.pending == 1
    assert {type(verdict) for verdict in await asyncio.gather(*sent)} == {Answer}
    assert len(world.runs) == 100


async def test_c03_a_lease_that_was_just_made_is_not_renewed() -> None:
    broker, world = await started(), World()
    node = Node(broker)
    world.during = lambda: asyncio.sleep(12)
    one, other = await node.connect("one"), await node.connect("other")
    first = asyncio.create_task(world.send(one, 1))
    await advance(4)
    second = asyncio.create_task(world.send(other, 1))
    await advance(2)
    assert node.line.calls.count("put") == 2 + 2 + 1
    await asyncio.gather(first, second)


async def test_c03_who_lost_its_lease_asks_for_it_no_more() -> None:
    broker, world = await started(), World()
    cut_off, other = Node(broker), Node(broker)
    inlet, again = await cut_off.connect(), await other.connect()
    world.during = lambda: asyncio.sleep(100)
    first = asyncio.create_task(world.send(inlet, 1, "at_least_once"))
    await advance(1)
    cut_off.line.hook = away
    second = asyncio.create_task(world.send(again, 1, "at_least_once", resent=True))
    await advance(LEASE_SECONDS + LAST_REST)
    cut_off.line.hook = lambda call: None
    cut_off.line.calls.clear()
    await advance(LEASE_SECONDS)
    assert cut_off.line.calls == ["get"]
    assert await first == await second == Answer(b"reply 2 to 1")


async def test_c03_a_renewal_that_comes_back_late_is_not_taken_for_the_next_events() -> None:
    broker, world = await started(), World()
    node = Node(broker)
    inlet = await node.connect()
    world.during = lambda: asyncio.sleep(6)
    first = asyncio.create_task(world.send(inlet, 1, "at_least_once"))
    await advance(4)
    node.producers.records.forget(inlet.key)
    node.line.pause = lambda: asyncio.sleep(3)  # in the reading of the renewal
    await first
    world.during = lambda: asyncio.sleep(3 * LEASE_SECONDS)
    second = asyncio.create_task(world.send(inlet, 2, "at_least_once"))
    await advance(2 * LEASE_SECONDS)
    again = await Node(broker).connect()
    third = asyncio.create_task(world.send(again, 2, "at_least_once", resent=True))
    assert await second == await third == Answer(b"reply 2 to 2")


async def test_a_connection_that_ended_leaves_nothing_in_memory() -> None:
    broker, world = await started(), World()
    node = Node(broker)
    for n in range(10):
        inlet = await node.connect(f"user {n}")
        await world.send(inlet, 1)
        inlet.close()
    producers = node.producers
    left = (producers.records._remembered, producers.records._bytes, producers._waiting, producers._held)
    assert not any(left)


async def test_c03_whoever_lost_its_lease_tells_what_the_other_recorded() -> None:
    broker, world = await started(), World()
    cut_off, other = Node(broker), Node(broker)
    inlet, again = await cut_off.connect(), await other.connect()
    released = asyncio.Event()

    async def waits() -> None:
        await released.wait()

    world.during = waits
    first = asyncio.create_task(world.send(inlet, 1, "at_least_once"))
    await advance(1)
    cut_off.line.hook = away
    second = asyncio.create_task(world.send(again, 1, "at_least_once", resent=True))
    await advance(LEASE_SECONDS + LAST_REST)
    assert [redelivered for _, _, redelivered in world.runs] == [False, True]
    released.set()
    assert await second == Answer(b"reply 2 to 1")
    cut_off.line.hook = lambda call: None
    assert await first == Answer(b"reply 2 to 1")


async def test_a_greeting_without_an_answer_is_repeated() -> None:
    broker = await started()
    broker.faults.lose_put_answer(done=True)
    assert (await Node(broker).connect()).last == 0


async def test_nobody_is_greeted_while_the_broker_is_away() -> None:
    broker = await started()
    broker.faults.go_away()
    with pytest.raises(BrokerUnavailable):
        await Node(broker).connect()


async def test_what_waits_ends_with_its_connection_or_with_the_server() -> None:
    broker, world = await started(), World()
    node, other = Node(broker), Node(broker)
    world.during = lambda: asyncio.sleep(1_000)
    running = asyncio.create_task(world.send(await node.connect(), 1))
    await advance(1)
    closed, stopped = await other.connect(), await other.connect()
    waiting = [asyncio.create_task(world.send(inlet, 1, resent=True)) for inlet in (closed, stopped)]
    await advance(1)
    closed.close()
    assert await waiting[0] is None
    assert not waiting[1].done()
    other.producers.close()
    assert await waiting[1] is None
    assert now() == 2
    assert other.producers.wheel.pending == 0
    running.cancel()
    await asyncio.wait([running])
    node.producers.close()
    node.producers.close()
    assert node.producers.wheel.pending == 0


@pytest.mark.parametrize("seconds", [1, 6])
async def test_a_server_that_closes_renews_nothing_more(seconds: int) -> None:
    node, world = Node(await started()), World()
    inlet = await node.connect()
    world.during = lambda: asyncio.sleep(100)
    running = asyncio.create_task(world.send(inlet, 1))
    await advance(1)
    node.line.pause = lambda: asyncio.sleep(1_000)  # in the renewal after 5 seconds
    await advance(seconds - 1)
    node.producers.close()
    node.line.pause = None
    calls = len(node.line.calls)
    await advance(90)
    assert node.producers.wheel.pending == 0
    assert len(node.line.calls) == calls
    assert await running == Answer(b"reply 1 to 1")


async def test_a_server_that_closes_waits_for_no_broker() -> None:
    broker, world = await started(), World()
    node = Node(broker)

    async def goes_away() -> None:
        broker.faults.go_away()

    world.during = goes_away
    sent = asyncio.create_task(world.send(await node.connect(), 1))
    await advance(1)
    node.producers.close()
    assert await sent is None


async def test_a_producers_id_is_checked_and_belongs_to_who_brought_it() -> None:
    broker, world = await started(), World()
    node = Node(broker)
    with pytest.raises(ValueError, match="hexadecimal"):
        await node.producers.greet(None, PRODUCER[:-1])
    mine, guests, theirs = await node.connect("me"), await node.connect(None), await node.connect("them")
    assert len({mine.key, guests.key, theirs.key}) == 3
    assert await world.send(mine, 1, payload=b"a") == Answer(b"reply 1 to 1")
    assert await world.send(theirs, 1, payload=b"b") == Answer(b"reply 2 to 1")
