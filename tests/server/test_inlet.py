"""Numbered events on one connection: C1 to C6 of the corner cases, lost answers, the broker away and failed over."""

import asyncio

import msgspec
import pytest

from bellwire.brokers.memory import MemoryBroker
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from bellwire.delivery.effects import APPEND_SECONDS, DEDUPE_SECONDS, Effect
from bellwire.delivery.inbox import LEASE_SECONDS, RECORD_SECONDS, WINDOW, Answer, Nack, Refuse, Skipped
from bellwire.server.inlet import LAST_REST, RETRY_AFTER
from bellwire.testing.clock import advance
from tests.server.numbered import (
    EFFECTS,
    TOO_LARGE,
    Died,
    Node,
    World,
    arrival_of,
    away,
    bodies,
    dies,
    fails,
    nothing,
    now,
    started,
    until_death,
)

# --- nothing goes wrong


@pytest.mark.parametrize("effect", EFFECTS)
async def test_events_are_handled_and_answered(effect: Effect) -> None:
    broker, world = await started(), World()
    inlet = await Node(broker).connect()
    assert inlet.last == 0
    for number in (1, 2, 3):
        assert await world.send(inlet, number, effect) == Answer(b"reply %d to %d" % (number, number))
    assert [number for number, _, _ in world.runs] == [1, 2, 3]
    relayed = [b"1/1", b"1/2", b"2/1", b"2/2", b"3/1", b"3/2"]
    assert await bodies(broker, "room") == (relayed if effect == "relay" else [])
    assert await bodies(broker, "hall") == (relayed[::2] if effect == "relay" else [])
    assert (await Node(broker).connect()).last == 3


@pytest.mark.parametrize("effect", EFFECTS)
async def test_over_memory_nothing_waits_unless_the_handler_does(effect: Effect) -> None:
    world = World()
    inlet = await Node(await started()).connect()
    with pytest.raises(StopIteration) as stopped:
        world.send(inlet, 1, effect).send(None)
    assert stopped.value.value == Answer(b"reply 1 to 1")


@pytest.mark.parametrize(
    ("effect", "calls"),
    [
        ("at_most_once", ["put", "put"]),
        ("relay", ["get", "put", "append", "append", "append", "put"]),
    ],
)
async def test_the_next_event_is_judged_on_what_is_remembered_if_a_write_proves_it(
    effect: Effect, calls: list[str]
) -> None:
    node, world = Node(await started()), World()
    inlet = await node.connect()
    for number in (1, 2):
        await world.send(inlet, number, effect)
    node.line.calls.clear()
    await world.send(inlet, 3, effect)
    assert node.line.calls == calls


async def test_a_relay_that_emits_nothing_is_one_write() -> None:
    node = Node(await started())
    inlet = await node.connect()
    node.line.calls.clear()
    assert await inlet.handle(arrival_of(inlet, "relay"), nothing) == Answer(b"quiet")
    assert node.line.calls == ["get", "put"]


async def test_a_refusal_is_an_outcome_and_no_handler_runs() -> None:
    world = World()
    inlet = await Node(await started()).connect()
    arrival = arrival_of(inlet, "at_most_once")
    assert await inlet.handle(arrival, fails, b"wrong") == Answer(b"wrong")
    assert await inlet.handle(msgspec.structs.replace(arrival, resent=True), fails, b"other") == Answer(b"wrong")
    assert await world.send(inlet, 2) == Answer(b"reply 1 to 2")


# --- C1: the node dies


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("call", range(8))
async def test_c01_a_crash_in_any_call_leaves_one_effect_and_one_outcome(
    effect: Effect, answered: bool, call: int
) -> None:
    """The call is the last one that the node makes, and it is made or not; then the client comes to another node."""
    broker, world = await started(), World()
    dying, other = Node(broker), Node(broker)
    inlet = await dying.connect()
    reply = await until_death(world.send(inlet, 1, effect), dying, call, answered=answered)
    again = await other.connect()
    verdict = await world.send(again, 1, effect, generation=inlet.generation, resent=True)
    assert reply in (None, verdict)
    assert await world.send(again, 1, effect, generation=inlet.generation, resent=True) == verdict
    redelivered = [again for _, _, again in world.runs]
    match effect:
        case "relay":
            assert await bodies(broker, "room") == [b"1/1", b"1/2"]
            assert await bodies(broker, "hall") == [b"1/1"]
            assert isinstance(verdict, Answer)
        case "transactional":
            assert [Answer(kept) for kept in world.database.values()] == [verdict]
        case "at_least_once":
            assert redelivered in ([False], [False, True], [True])  # the last one: it died before the handler ran
            assert isinstance(verdict, Answer)
        case "at_most_once":
            assert redelivered in ([], [False])
            assert verdict in (Answer(b"reply 1 to 1"), Refuse("outcome_unknown"))
    before = len(world.runs)
    assert isinstance(await world.send(again, 2, effect), Answer)
    assert len(world.runs) == before + 1


@pytest.mark.parametrize("effect", EFFECTS)
async def test_c01_a_crash_in_the_handler(effect: Effect) -> None:
    broker, world = await started(), World()
    inlet = await Node(broker).connect()
    world.during = dies
    with pytest.raises(Died):
        await world.send(inlet, 1, effect)
    world.during = None
    again = await Node(broker).connect()
    verdict = await world.send(again, 1, effect, generation=inlet.generation, resent=True)
    runs = [redelivered for _, _, redelivered in world.runs]
    assert (
        runs
        == {
            "relay": [False, False],
            "transactional": [False, True],
            "at_most_once": [False],
            "at_least_once": [False, True],
        }[effect]
    )
    assert (
        verdict
        == {
            "relay": Answer(b"reply 2 to 1"),
            "transactional": Answer(b"reply 1 to 1"),  # the database had it
            "at_most_once": Refuse("outcome_unknown"),
            "at_least_once": Answer(b"reply 2 to 1"),
        }[effect]
    )


# --- C2 to C6


@pytest.mark.parametrize("effect", EFFECTS)
async def test_c02_a_reply_that_was_lost_is_given_again_byte_by_byte(effect: Effect) -> None:
    broker, world = await started(), World()
    inlet = await Node(broker).connect()
    first = await world.send(inlet, 1, effect)
    for node in (Node(broker), Node(broker)):
        again = await node.connect()
        assert await world.send(again, 1, effect, generation=inlet.generation, resent=True) == first
    assert len(world.runs) == 1


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("same_node", [True, False])
async def test_c03_a_second_connection_waits_for_the_first_ones_outcome(effect: Effect, same_node: bool) -> None:
    broker, world = await started(), World()
    node = Node(broker)
    old, new = await node.connect(), await (node if same_node else Node(broker)).connect()
    world.during = lambda: asyncio.sleep(20)
    first = asyncio.create_task(world.send(old, 1, effect))
    await advance(1)
    old.close()
    second = asyncio.create_task(world.send(new, 1, effect, resent=True))
    if effect == "relay":  # nothing is on record while it runs: both run, and one of them counts
        assert await first == await second
        assert await bodies(broker, "room") == [b"1/1", b"1/2"]
        return
    outcome = await second
    assert now() == pytest.approx(20 if same_node else 20 + LAST_REST / 2, abs=0 if same_node else LAST_REST / 2)
    assert outcome == await first == Answer(b"reply 1 to 1")
    assert len(world.runs) == 1
    assert not node.producers._waiting


async def test_c03_the_next_number_on_another_connection_waits_as_well() -> None:
    broker, world = await started(), World()
    node = Node(broker)
    old, new = await node.connect(), await node.connect()
    world.during = lambda: asyncio.sleep(5)
    first = asyncio.create_task(world.send(old, 1))
    await advance(1)
    assert await world.send(new, 2) == Answer(b"reply 2 to 2")
    assert await first == Answer(b"reply 1 to 1")
    assert [number for number, _, _ in world.runs] == [1, 2]


async def test_c04_a_gap_is_not_jumped_over() -> None:
    broker, world = await started(), World()
    inlet = await Node(broker).connect()
    await world.send(inlet, 1)
    assert await world.send(inlet, 4) == Nack(2, inlet.generation)
    assert await inlet.skip(2, 3) == Skipped(3)
    assert await world.send(inlet, 4) == Answer(b"reply 2 to 4")
    assert await world.send(inlet, 3, resent=True) == Refuse("producer_unknown")
    assert [number for number, _, _ in world.runs] == [1, 4]


async def test_c04_to_skip_waits_for_what_runs() -> None:
    broker, world = await started(), World()
    node = Node(broker)
    old, new = await node.connect(), await node.connect()
    world.during = lambda: asyncio.sleep(3)
    first = asyncio.create_task(world.send(old, 1))
    await advance(1)
    assert await new.skip(1, 1) == Skipped(1)
    assert first.done()
    assert await first == Answer(b"reply 1 to 1")
    assert await world.send(new, 1, resent=True) == await first


async def test_c05_another_payload_under_a_number_has_no_effect() -> None:
    broker, world = await started(), World()
    inlet = await Node(broker).connect()
    await world.send(inlet, 1, payload=b"a")
    assert await world.send(inlet, 1, payload=b"b", resent=True) == Refuse("idempotency_mismatch")
    assert [payload for _, payload, _ in world.runs] == [b"a"]


async def test_c06_an_outcome_that_is_held_no_longer_is_unknown_to_the_client_too() -> None:
    broker, world = await started(), World()
    inlet = await Node(broker).connect()
    for number in range(1, WINDOW + 2):
        await world.send(inlet, number)
    assert await world.send(inlet, 1, resent=True) == Refuse("producer_unknown")
    assert await world.send(inlet, 2, resent=True) == Answer(b"reply 2 to 2")


async def test_c06_a_producer_that_was_away_too_long_is_a_new_one_and_is_told_so() -> None:
    broker, world = await started(), World()
    node = Node(broker)
    inlet = await node.connect()
    await world.send(inlet, 1)
    inlet.close()
    await asyncio.sleep(RECORD_SECONDS + 1)
    again = await node.connect()
    assert again.last == 0
    assert again.generation != inlet.generation
    verdict = await world.send(again, 1, generation=inlet.generation, resent=True)
    assert verdict == Refuse("producer_unknown")
    assert len(world.runs) == 1
    assert isinstance(await world.send(again, 2), Answer)


# --- answers of the broker are lost


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("nth", range(4))
async def test_a_write_without_an_answer_is_read_back(effect: Effect, done: bool, nth: int) -> None:
    broker, world = await started(), World()
    node = Node(broker)
    inlet = await node.connect()
    puts = 0

    def lose(call: str) -> None:
        nonlocal puts
        if call == "put":
            if puts == nth:
                broker.faults.lose_put_answer(done=done)
            puts += 1

    node.line.hook = lose
    assert await world.send(inlet, 1, effect) == Answer(b"reply 1 to 1")
    assert await world.send(inlet, 2, effect) == Answer(b"reply 2 to 2")
    assert len(world.runs) == 2
    relayed = [b"1/1", b"1/2", b"2/1", b"2/2"] if effect == "relay" else []
    assert await bodies(broker, "room") == relayed


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("nth", range(3))
async def test_c11_an_append_without_an_answer_is_tried_again_under_its_id(done: bool, nth: int) -> None:
    broker, world = await started(), World()
    node = Node(broker)
    inlet = await node.connect()
    appends = 0

    def lose(call: str) -> None:
        nonlocal appends
        if call == "append":
            if appends == nth:
                broker.faults.lose_answer(done=done)
            appends += 1

    node.line.hook = lose
    assert await world.send(inlet, 1, "relay") == Answer(b"reply 1 to 1")
    assert appends == 4
    assert await bodies(broker, "room") == [b"1/1", b"1/2"]
    assert await bodies(broker, "hall") == [b"1/1"]


# --- the broker is away


@pytest.mark.parametrize("effect", EFFECTS)
async def test_while_the_broker_is_away_events_are_turned_away_to_come_again(effect: Effect) -> None:
    broker, world = await started(), World()
    inlet = await Node(broker).connect()
    broker.faults.go_away()
    assert await world.send(inlet, 1, effect) == Nack(1, inlet.generation, RETRY_AFTER)
    assert not world.runs
    assert await inlet.skip(1, 2) == Nack(1, inlet.generation, RETRY_AFTER)
    broker.faults.come_back()
    assert await world.send(inlet, 1, effect) == Answer(b"reply 1 to 1")
    assert now() == 0


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("closed", [True, False])
async def test_once_the_handler_has_run_the_broker_is_waited_for(effect: Effect, closed: bool) -> None:
    broker, world = await started(), World()
    node = Node(broker)
    inlet = await node.connect()

    async def goes_away() -> None:
        broker.faults.go_away()

    world.during = goes_away
    sent = asyncio.create_task(world.send(inlet, 1, effect))
    await advance(20)
    assert not sent.done()
    assert len(node.line.calls) < 15  # it asks less and less often
    if closed:
        inlet.close()
    broker.faults.come_back()
    assert await sent == Answer(b"reply 1 to 1")
    assert now() <= 20 + LAST_REST
    again = await Node(broker).connect()
    assert await world.send(again, 1, effect, generation=inlet.generation, resent=True) == await sent
    assert len(world.runs) == 1


async def test_an_event_that_may_be_on_record_is_not_turned_away() -> None:
    """The write had no answer and then the broker was away: a nack would say that nothing was done."""
    broker, world = await started(), World()
    node = Node(broker)
    inlet = await node.connect()

    def lose_and_go(call: str) -> None:
        if call == "put":
            broker.faults.lose_put_answer(done=True)
        else:
            broker.faults.go_away()

    node.line.hook = lose_and_go
    sent = asyncio.create_task(world.send(inlet, 1))
    await advance(10)
    assert not sent.done()
    node.line.hook = lambda call: None
    broker.faults.come_back()
    assert await sent == Answer(b"reply 1 to 1")
    assert len(world.runs) == 1


async def test_emissions_that_come_too_late_for_the_broker_are_an_unknown_outcome() -> None:
    broker, world = await started(), World()
    node = Node(broker)
    inlet = await node.connect()
    node.line.hook = lambda call: broker.faults.go_away() if call == "append" else None
    sent = asyncio.create_task(world.send(inlet, 1, "relay"))
    await advance(APPEND_SECONDS + 10)
    broker.faults.come_back()
    node.line.hook = lambda call: None
    assert await sent == Refuse("outcome_unknown")
    assert now() == pytest.approx(DEDUPE_SECONDS, abs=LAST_REST)
    assert not await bodies(broker, "room")
    assert isinstance(await world.send(inlet, 2, "relay"), Answer)


async def test_after_the_deadline_no_append_is_even_tried() -> None:
    broker, world = await started(), World()
    node = Node(broker)
    inlet = await node.connect()

    def slow(call: str) -> None:
        if call == "append":
            node.line.pause = lambda: asyncio.sleep(APPEND_SECONDS)

    node.line.hook = slow
    assert await world.send(inlet, 1, "relay") == Refuse("outcome_unknown")
    assert node.line.calls.count("append") == 1


async def test_once_it_is_certain_that_nothing_was_done_the_event_is_turned_away_again() -> None:
    broker, world = await started(), World()
    node, other = Node(broker), Node(broker)
    faster, inlet = await other.connect(), await node.connect()

    def lose_and_go(call: str) -> None:
        if call == "put":
            broker.faults.lose_put_answer(done=False)
        else:
            broker.faults.go_away()

    node.line.hook = lose_and_go
    sent = asyncio.create_task(world.send(inlet, 1))
    await advance(0)
    node.line.hook = lambda call: None
    broker.faults.come_back()
    world.during = lambda: asyncio.sleep(20)
    running = asyncio.create_task(world.send(faster, 1))
    await advance(1)
    assert not sent.done()
    node.line.hook = away
    assert await sent == Nack(1, inlet.generation, RETRY_AFTER)
    assert await running == Answer(b"reply 1 to 1")
    assert len(world.runs) == 1


async def test_a_write_that_took_too_long_is_no_lease_to_run_a_handler_on() -> None:
    """The process was stopped between its write and the answer: the lease on record is nearly over."""
    clock, world = 0.0, World()
    broker = MemoryBroker(clock=lambda: clock)
    await broker.start()
    node = Node(broker)
    inlet = await node.connect()
    stops = 1

    def stop(call: str) -> None:
        nonlocal clock, stops
        if call == "put" and stops:
            stops -= 1
            clock += LEASE_SECONDS - 1

    node.line.hook = stop

    async def runs() -> None:
        assert inlet.renewed == clock

    world.during = runs
    assert isinstance(await world.send(inlet, 1), Answer)
    assert clock == LEASE_SECONDS - 1
    assert node.line.calls[2:] == ["put", "get", "put", "put"]


# --- the broker fails over


@pytest.mark.parametrize("effect", EFFECTS)
async def test_an_event_whose_record_was_taken_back_never_runs_again(effect: Effect) -> None:
    broker, world = await started(), World()
    inlet = await Node(broker).connect()
    await world.send(inlet, 1, effect)
    before = broker.faults.keys()
    await world.send(inlet, 2, effect)
    broker.faults.take_back(before)
    again = await Node(broker).connect()
    assert again.last == 1
    assert again.generation != inlet.generation
    verdict = await world.send(again, 2, effect, generation=inlet.generation, resent=True)
    assert verdict == Refuse("outcome_unknown")
    assert len(world.runs) == 2


async def test_under_a_live_connection_a_new_generation_is_told_once() -> None:
    broker, world = await started(), World()
    inlet = await Node(broker).connect()
    await world.send(inlet, 1)
    old = inlet.generation
    broker.faults.take_back(broker.faults.keys())
    verdict = await world.send(inlet, 2)
    assert verdict == Nack(2, inlet.generation)
    assert inlet.generation != old
    assert await world.send(inlet, 2) == Answer(b"reply 2 to 2")


async def test_a_failover_between_the_record_and_the_emissions_reads_the_record_again() -> None:
    """The record is lost with the failover: the emissions must not be appended for a relay that is on no record."""
    broker, world = await started(), World()
    node = Node(broker)
    inlet = await node.connect()
    before = broker.faults.keys()

    def fail_over(call: str) -> None:
        if call == "append":
            node.line.hook = lambda call: None
            broker.faults.take_back(before)
            raise BrokerUnavailable("the leader is another one")

    node.line.hook = fail_over
    verdict = await world.send(inlet, 1, "relay")
    assert verdict == Refuse("outcome_unknown")  # and no nack: its handler has run
    assert not await bodies(broker, "room")


async def test_a_failover_in_the_handler_lets_nobody_record_for_it() -> None:
    broker, world = await started(), World()
    inlet = await Node(broker).connect()
    before = broker.faults.keys()

    async def fails_over() -> None:
        broker.faults.take_back(before)

    world.during = fails_over
    assert await world.send(inlet, 1) == Refuse("outcome_unknown")
    assert len(world.runs) == 1


# --- sizes, ends, mistakes


@pytest.mark.parametrize("effect", EFFECTS)
async def test_what_the_broker_does_not_take_is_replaced_by_a_word_about_it(effect: Effect) -> None:
    node = Node(await started())
    inlet = await node.connect()
    arrival = arrival_of(inlet, effect)

    async def much() -> tuple[bytes, tuple[()]]:
        node.line.max_value = 100
        return b"x" * 100, ()

    assert await inlet.handle(arrival, much) == Answer(TOO_LARGE)
    assert await inlet.handle(msgspec.structs.replace(arrival, resent=True), fails) == Answer(TOO_LARGE)


async def test_an_emission_that_no_stream_takes_is_an_unknown_outcome() -> None:
    broker, world = await started(), World()
    node = Node(broker)
    inlet = await node.connect()
    node.line.only_fits = "room"
    assert await world.send(inlet, 1, "relay") == Refuse("outcome_unknown")
    assert await bodies(broker, "room") == [b"1/1"]


async def test_an_exception_that_nobody_turned_into_a_reply_leaves_no_outcome() -> None:
    broker, world = await started(), World()
    inlet = await Node(broker).connect()
    arrival = arrival_of(inlet, "at_most_once")
    with pytest.raises(ValueError, match="a bug"):
        await inlet.handle(arrival, fails)
    assert await inlet.handle(msgspec.structs.replace(arrival, resent=True), fails) == Refuse("outcome_unknown")
    assert await world.send(inlet, 2) == Answer(b"reply 1 to 2")


@pytest.mark.parametrize("error", [BrokerUnavailable("of its own"), OutcomeUnknown("m")])
async def test_a_handlers_own_trouble_with_the_broker_is_no_reason_to_run_it_again(error: Exception) -> None:
    world = World()
    inlet = await Node(await started()).connect()

    async def emits() -> None:
        raise error

    world.during = emits
    with pytest.raises(type(error)):
        await world.send(inlet, 1)
    assert len(world.runs) == 1


async def test_one_event_of_a_connection_at_a_time() -> None:
    broker, world = await started(), World()
    inlet = await Node(broker).connect()
    world.during = lambda: asyncio.sleep(1)
    first = asyncio.create_task(world.send(inlet, 1))
    await advance(0)
    with pytest.raises(RuntimeError, match="is being handled"):
        await world.send(inlet, 2)
    assert await first == Answer(b"reply 1 to 1")
