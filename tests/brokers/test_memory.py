"""The broker in memory: the contract, its own bounds, and the faults that it plays on request."""

import asyncio

import pytest

from bellwire.brokers.base import Broker
from bellwire.brokers.memory import FORGET_AFTER, MemoryBroker
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from bellwire.delivery.answer import Page, Reason, Unproved
from bellwire.delivery.entry import marker
from bellwire.delivery.log import DEFAULT_LIMITS, Limits
from bellwire.delivery.position import START, position
from tests.brokers.contract import Contract, Ears, draft

S = "room"


class TestMemory(Contract):
    def make(self, *, messages: int = 1_000) -> Broker:
        return MemoryBroker(Limits(messages=messages))

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class TestMemoryThatLeavesNumbersOut(TestMemory):
    def make(self, *, messages: int = 1_000) -> Broker:
        return MemoryBroker(Limits(messages=messages), step=lambda last: last + 1 + last % 4)


async def _broker() -> MemoryBroker:
    broker = MemoryBroker()
    await broker.start()
    return broker


async def test_two_brokers_have_no_generation_in_common() -> None:
    first, second = await _broker(), await _broker()
    assert (await first.top(S)).gen != (await second.top(S)).gen
    assert (await first.top(S)).gen != (await first.top("other")).gen


async def test_a_stream_that_nobody_used_for_a_day_is_forgotten_and_comes_back_as_another() -> None:
    broker, ears = await _broker(), Ears()
    await broker.subscribe("followed", ears)
    await broker.append("followed", draft("m"))
    await broker.append("old", draft("m"))
    followed, old = await broker.top("followed"), await broker.top("old")
    await asyncio.sleep(FORGET_AFTER + 1)
    for n in range(5):
        await broker.append("busy", draft(f"m{n}"))
    assert await broker.top("followed") == followed
    assert (await broker.top("old")).gen != old.gen
    answer = await broker.read("old", old)
    assert isinstance(answer, Unproved)
    assert answer.reason is Reason.GENERATION


async def test_a_stream_with_nothing_but_markers_is_forgotten_when_nobody_can_stand_in_it() -> None:
    broker, ears = await _broker(), Ears()
    await broker.subscribe("followed", ears)
    for n, stream in enumerate(("followed", "bare", "used")):
        await broker.append(stream, marker(n))
    await broker.append("used", draft("m"))
    await asyncio.sleep(DEFAULT_LIMITS.standing + 1)
    for n in range(5):
        await broker.append("busy", draft(f"m{n}"))
    assert [broker.has_log(stream) for stream in ("followed", "bare", "used")] == [True, False, True]


async def test_a_stream_has_a_log_from_its_first_entry_on() -> None:
    broker, ears = await _broker(), Ears()
    await broker.subscribe(S, ears)
    await broker.publish(S, b"x")
    await broker.read(S, await broker.top(S))
    assert not broker.has_log(S)
    await broker.append("other", draft("m"))
    assert not broker.has_log(S)
    await broker.append(S, draft("m"))
    assert broker.has_log(S)


async def test_it_appends_and_publishes_before_anything_else_happens() -> None:
    broker, ears = await _broker(), Ears()
    assert broker.immediate
    await broker.subscribe(S, ears)
    for doing in (broker.append(S, draft("m")), broker.publish(S, b"x")):
        with pytest.raises(StopIteration):
            doing.send(None)
    assert ears.mids == ["m"]


async def test_two_brokers_keep_their_keys_under_different_generations() -> None:
    assert (await _broker()).generation() != (await _broker()).generation()


async def test_what_ran_out_is_not_kept() -> None:
    broker = await _broker()
    for n in range(1_000):
        await broker.put(f"k{n}", b"x", ttl=1)
        await broker.append(f"s{n}", draft("m"))
    await asyncio.sleep(FORGET_AFTER + 1)
    for n in range(1_000):
        await broker.put("k", b"x")
        await broker.append("s", draft(f"m{n}"))
    assert len(broker._keys) < 10
    assert len(broker._logs) < 10


async def test_asking_for_the_tops_of_many_streams_keeps_none_of_them() -> None:
    broker = await _broker()
    for n in range(1_000):
        await broker.top(f"s{n}")
    await asyncio.sleep(601)
    for n in range(1_000):
        await broker.append(S, draft(f"m{n}"))
    assert len(broker._logs) == 1


# --- faults


async def test_away_and_back() -> None:
    broker = await _broker()
    broker.faults.go_away()
    with pytest.raises(BrokerUnavailable, match="away"):
        await broker.append(S, draft("m"))
    broker.faults.come_back()
    assert not (await broker.append(S, draft("m"))).duplicate


@pytest.mark.parametrize("done", [True, False])
async def test_a_lost_answer_and_the_retry(done: bool) -> None:
    """C11: whichever it was, the publisher tries again with the same id and sees one success."""
    broker, ears = await _broker(), Ears()
    await broker.subscribe(S, ears)
    broker.faults.lose_answer(done=done)
    with pytest.raises(OutcomeUnknown, match="'m'"):
        await broker.append(S, draft("m"))
    assert ears.mids == ["m"] * done
    assert (await broker.append(S, draft("m"))).duplicate is done
    assert ears.mids == ["m"]


async def test_c11_a_failover_while_the_answer_is_pending_and_the_retry() -> None:
    broker = await _broker()
    await broker.append(S, draft("before"))
    broker.faults.lose_answer(done=True)
    with pytest.raises(OutcomeUnknown):
        await broker.append(S, draft("m"))
    broker.faults.lose_tail(S, 1)
    again = await broker.append(S, draft("m"))
    assert not again.duplicate
    assert (await broker.append(S, draft("m"))).duplicate


@pytest.mark.parametrize("done", [True, False])
async def test_a_put_whose_answer_is_lost_was_made_or_not(done: bool) -> None:
    broker = await _broker()
    revision = await broker.put("k", b"old")
    broker.faults.lose_put_answer(done=done)
    assert await broker.put("k", b"wrong", expected=0) is None
    with pytest.raises(OutcomeUnknown):
        await broker.put("k", b"new", expected=revision)
    kept = await broker.get("k")
    assert kept is not None
    assert kept.value == (b"new" if done else b"old")


async def test_a_failover_takes_keys_back_under_another_generation() -> None:
    broker = await _broker()
    first = await broker.put("k", b"one")
    before, generation = broker.faults.keys(), broker.generation()
    second = await broker.put("k", b"two")
    await broker.put("new", b"x")
    broker.faults.take_back(before)
    assert await broker.get("k") == (b"one", first)
    assert await broker.get("new") is None
    assert broker.generation() != generation
    assert await broker.put("k", b"three", expected=second) is None
    third = await broker.put("k", b"three", expected=first)
    assert second is not None
    assert third is not None
    assert third > second


async def test_lost_live_entries_are_in_the_log_all_the_same() -> None:
    broker, ears = await _broker(), Ears()
    await broker.subscribe(S, ears)
    broker.faults.lose_live(S, 2)
    for mid in ("m1", "m2", "m3"):
        await broker.append(S, draft(mid))
    assert ears.mids == ["m3"]
    assert ears.entries[0][2].prev.seq == 2


async def test_a_dead_subscription_looks_alive() -> None:
    broker, ears, others = await _broker(), Ears(), Ears()
    await broker.subscribe(S, ears)
    await broker.subscribe(S, others)
    broker.faults.deafen(ears)
    await broker.append(S, draft("m1"))
    broker.faults.heal(ears)
    await broker.append(S, draft("m2"))
    assert (ears.mids, others.mids) == (["m2"], ["m1", "m2"])


async def test_live_entries_can_be_held_back() -> None:
    broker, ears = await _broker(), Ears()
    await broker.subscribe(S, ears)
    broker.faults.hold_live(S)
    await broker.append(S, draft("m1"))
    broker.faults.let_go(S)
    await broker.append(S, draft("m2"))
    ((listener, stream, gen, entry),) = broker.faults.held
    listener.entry(stream, gen, entry)
    assert ears.mids == ["m2", "m1"]


async def test_a_follower_lags_and_the_leader_does_not() -> None:
    broker = await _broker()
    start = await broker.top(S)
    for mid in ("m1", "m2", "m3"):
        await broker.append(S, draft(mid))
    broker.faults.lag(S, 2)
    stale = await broker.read(S, start)
    assert isinstance(stale, Page)
    assert ([entry.mid for entry in stale.entries], stale.confirmed) == (["m1"], False)
    unknown = await broker.read(S, await broker.top(S))
    assert isinstance(unknown, Unproved)
    assert not unknown.confirmed
    leader = await broker.read(S, start, confirmed=True)
    assert isinstance(leader, Page)
    assert (len(leader.entries), leader.confirmed) == (3, True)


async def test_a_tail_is_lost_with_the_memory_of_its_ids() -> None:
    broker = await _broker()
    gen = (await broker.top(S)).gen
    points = [(await broker.append(S, draft(f"m{n}"))).point for n in range(1, 4)]
    assert [entry.mid for entry in broker.faults.lose_tail(S, 2, same_generation=True)] == ["m2", "m3"]
    assert await broker.top(S) == position(gen, points[0])
    again = await broker.append(S, draft("m2"))
    assert not again.duplicate
    assert again.point.seq == points[1].seq
    broker.faults.renew(S)
    assert (await broker.top(S)).gen != gen
    assert (await broker.top(S)).point == again.point


async def test_forgotten_ids_truncation_and_a_wiped_stream() -> None:
    broker = await _broker()
    first = await broker.append(S, draft("m1"))
    broker.faults.forget_mids(S)
    assert not (await broker.append(S, draft("m1"))).duplicate
    broker.faults.truncate(S, 1)
    kept = await broker.read(S, position(first.gen, first.point))
    assert isinstance(kept, Page)
    assert isinstance(await broker.read(S, position(first.gen, START)), Unproved)
    broker.faults.wipe(S)
    assert (await broker.top(S)).point == START
    assert (await broker.top(S)).gen != first.gen
