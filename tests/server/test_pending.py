"""The index of relays that may be unfinished."""

import asyncio
import secrets

import pytest

from bellwire.brokers.memory import MemoryBroker
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.effects import DEDUPE_SECONDS
from bellwire.server.pending import LISTED_SECONDS, SLICES, Pending
from tests.server.numbered import Line, started


async def test_whoever_is_listed_is_found_by_every_node() -> None:
    broker = await started()
    producers = [secrets.token_hex(16) for _ in range(300)]
    nodes = [Pending(broker), Pending(broker)]
    for n, producer in enumerate(producers):
        await nodes[n % 2].add(producer)
    assert sorted(await Pending(broker).producers()) == sorted(producers)
    assert len(broker.faults.keys()) <= SLICES


async def test_a_producer_is_listed_once_for_many_events_and_as_long_as_one_may_be_open() -> None:
    line = Line(await started())
    pending = Pending(line)
    for _ in range(10):
        await pending.add("a" * 32)
    assert line.calls == ["get", "put"]
    stays = LISTED_SECONDS - DEDUPE_SECONDS
    for _ in range(5):
        await asyncio.sleep(stays / 2)
        await pending.add("a" * 32)
        await asyncio.sleep(DEDUPE_SECONDS)
        assert await Pending(line).producers() == ["a" * 32]


async def test_who_was_not_heard_of_for_long_is_listed_no_more() -> None:
    broker = await started()
    pending = Pending(broker)
    await pending.add("0" * 32)
    await asyncio.sleep(LISTED_SECONDS - 1)
    assert await pending.producers() == ["0" * 32]
    same_slice = f"{SLICES:08x}" + "0" * 24
    await pending.add(same_slice)
    await asyncio.sleep(2)
    before = await broker.get("bellwire:relays:0")
    await pending.add(f"{2 * SLICES:08x}" + "0" * 24)
    after = await broker.get("bellwire:relays:0")
    assert before is not None
    assert after is not None
    assert len(after.value) == len(before.value)
    assert "0" * 32 not in await pending.producers()


async def test_what_a_node_remembers_of_the_index_does_not_grow_with_time() -> None:
    pending = Pending(await started())
    for _ in range(20):
        for _ in range(100):
            await pending.add(secrets.token_hex(16))
        await asyncio.sleep(LISTED_SECONDS + 1)
    assert len(pending._until) <= 200


async def test_after_a_failover_a_producer_is_listed_anew() -> None:
    broker = await started()
    pending = Pending(broker)
    before = broker.faults.keys()
    await pending.add("a" * 32)
    broker.faults.take_back(before)
    assert await pending.producers() == []
    await pending.add("a" * 32)
    assert await pending.producers() == ["a" * 32]


@pytest.mark.parametrize("done", [True, False])
async def test_an_entry_without_an_answer_is_made_again(done: bool) -> None:
    broker = await started()
    broker.faults.lose_put_answer(done=done)
    await Pending(broker).add("a" * 32)
    assert await Pending(broker).producers() == ["a" * 32]


async def test_two_nodes_at_a_time_both_are_listed() -> None:
    broker = await started()
    line = Line(broker)
    other = Pending(broker)

    def between(call: str) -> None:
        if call == "put" and line.calls.count("put") == 1:
            with pytest.raises(StopIteration):
                other.add("0" * 31 + "1").send(None)

    line.hook = between
    await Pending(line).add("0" * 32)
    assert sorted(await other.producers()) == ["0" * 32, "0" * 31 + "1"]
    assert line.calls == ["get", "put", "get", "put"]


async def test_while_the_broker_is_away_nobody_is_listed() -> None:
    broker = await started()
    pending = Pending(broker)
    broker.faults.go_away()
    with pytest.raises(BrokerUnavailable):
        await pending.add("a" * 32)
    broker.faults.come_back()
    await pending.add("a" * 32)
    assert await pending.producers() == ["a" * 32]


async def test_an_index_that_cannot_be_read_is_no_index() -> None:
    broker = MemoryBroker()
    await broker.start()
    await broker.put("bellwire:relays:0", b"something else")
    with pytest.raises(BrokerUnavailable, match="not written by Bellwire"):
        await Pending(broker).producers()
