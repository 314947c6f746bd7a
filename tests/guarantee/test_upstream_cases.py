"""The corner cases of events from client to server, each with exactly the behaviour that is promised for it.

The cases of the other direction are in `test_corner_cases`.
"""

import itertools
import json
from collections.abc import Callable

import pytest

from bellwire.delivery.effects import producer_key
from bellwire.delivery.inbox import LEASE_SECONDS
from bellwire.delivery.outbox import MemoryOutbox
from bellwire.delivery.producer import Producer
from bellwire.server.peers import LEASE_SECONDS as NODE_LEASE
from bellwire.testing.clock import advance
from tests.guarantee.client import Client
from tests.guarantee.world import Make, Node, World, stream

OVER = LEASE_SECONDS + 1


def _fuse(node: Node, steps: int) -> Callable[[str], None]:
    """Kill ``node`` when it has asked its broker for so many things, counted before and after each."""
    count = itertools.count()

    def burn(_where: str) -> None:
        if next(count) == steps:
            node.crash()

    return burn


async def _each_death(world: World, event: str, *more: str, reader: Client | None = None) -> list[tuple[str, str]]:
    """Send event after event; with each the server dies at another step, until there are no more steps.

    Return the events' labels, and what the client was told of them.
    """
    node = await world.node()
    writer = await world.client(node)
    if reader is not None:
        await reader.connect(node)
        await node.join(reader, "a")
    told: list[tuple[str, str]] = []
    for steps in range(100):
        node.broker.trip = _fuse(node, steps)
        number = writer.emit(event, f"m{steps}", *more)
        await _until_it_dies_or_answers(world, node, writer, number)
        died = node.dead
        if died:
            node = await world.node()
            for client in (writer, reader):
                if client is not None:
                    await client.connect(node)
            await world.pass_time(OVER)
        told.append((f"m{steps}", await world.outcome(writer, number)))
        if not died:
            return told
    raise AssertionError("there is no last step")


async def _until_it_dies_or_answers(world: World, node: Node, writer: Client, number: int) -> None:
    await world.until(lambda: node.dead or writer.outcome(number) is not None)


def _replies(world: World, label: str) -> list[str]:
    """Return what the handler returned each time that it was called."""
    return [json.dumps([run.reply]) for run in world.runs if run.label == label]


async def test_c01_a_relay_takes_effect_once_at_whichever_step_its_server_dies(make: Make) -> None:
    async with make() as world:
        reader = Client(world, "reader")
        told = await _each_death(world, "relay", "a", reader=reader)
        assert len(told) > 8
        await world.until(lambda: reader.of(stream("a")) == [label for label, _ in told])
        for label, outcome in told:
            assert outcome in _replies(world, label)
        # It ran twice where the server died before it was on record that it had run, and nowhere else.
        assert {len(_replies(world, label)) for label, _ in told} == {1, 2}


async def test_c01_a_transaction_takes_effect_once_at_whichever_step_its_server_dies(make: Make) -> None:
    async with make() as world:
        told = await _each_death(world, "write")
        assert len(told) > 4
        assert world.effects == [label for label, _ in told]
        assert sorted(world.database.values()) == sorted(json.loads(outcome)[0] for _, outcome in told)


async def test_c01_what_happens_at_most_once_is_unknown_where_its_server_died_in_the_middle(make: Make) -> None:
    async with make() as world:
        told = await _each_death(world, "once")
        assert len(world.effects) == len(set(world.effects))
        for label, outcome in told:
            if outcome == "outcome_unknown":
                assert len(_replies(world, label)) <= 1
            else:
                assert [outcome] == _replies(world, label)
        in_the_middle = [outcome for label, outcome in told if label in world.effects and outcome == "outcome_unknown"]
        assert in_the_middle
        assert told[-1][1] != "outcome_unknown"


async def test_c01_what_happens_at_least_once_runs_again_and_is_told_so(make: Make) -> None:
    async with make() as world:
        told = await _each_death(world, "again")
        assert set(world.effects) == {label for label, _ in told}
        again = [run for run in world.runs if run.redelivered]
        assert again
        for label, outcome in told:
            runs = [run for run in world.runs if run.label == label]
            assert 1 <= len(runs) <= 2
            assert outcome in _replies(world, label)
            assert runs[0].redelivered <= runs[-1].redelivered


async def test_c01_a_dead_servers_relay_is_completed_by_the_next_though_its_client_never_returns(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        reader, writer = await world.client(node, "a"), await world.client(node)

        def die_before_the_append(where: str) -> None:
            if where == "before append":
                node.crash()

        node.broker.trip = die_before_the_append
        writer.emit("relay", "m1", "a")
        await world.until(lambda: node.dead)
        node = await world.node()
        await reader.connect(node)
        await world.until(lambda: reader.of(stream("a")) == ["m1"])


async def test_c01_a_dead_servers_relay_is_completed_by_one_that_was_there_already(make_memory: Make) -> None:
    async with make_memory() as world:
        node, other = await world.node(), await world.node()
        reader, writer = await world.client(other, "a"), await world.client(node)

        def die_before_the_append(where: str) -> None:
            if where == "before append":
                node.crash()

        node.broker.trip = die_before_the_append
        writer.emit("relay", "m1", "a")
        await world.until(lambda: node.dead)
        await advance(2 * NODE_LEASE)
        await world.until(lambda: reader.of(stream("a")) == ["m1"])


@pytest.mark.parametrize("event", ["relay", "write", "once", "again"])
async def test_c02_a_lost_reply_is_given_again_byte_by_byte_and_the_handler_not_called(make: Make, event: str) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node)
        connection = client.connection
        assert connection is not None
        connection.deaf = True
        number = client.emit(event, "m1", *(["a"] if event == "relay" else []))
        await world.until(lambda: bool(connection.unheard))
        client.cut()
        node.crash()
        node = await world.node()
        await client.connect(node)
        await world.outcome(client, number)
        assert client.connection is not None
        assert connection.unheard[-1] in client.connection.wire
        assert len(world.runs) == 1


@pytest.mark.parametrize("event", ["write", "once", "again"])
async def test_c03_a_retry_on_another_node_waits_for_the_first_and_is_answered_the_same(make: Make, event: str) -> None:
    async with make() as world:
        one, two = await world.node(), await world.node()
        client = await world.client(one)
        world.gate.close()
        number = client.emit(event, "m1")
        await world.until(lambda: world.gate.waiting == 1)
        half_open = client.leave_half_open()
        await client.connect(two)
        await world.pass_time(LEASE_SECONDS / 3)
        assert [run.node for run in world.runs] == [one.name]
        assert client.outcome(number) is None
        world.gate.open()
        await world.outcome(client, number)
        assert [client.outcome(number)] == _replies(world, "m1")
        assert not half_open.wire or '"n"' not in half_open.wire[-1]


async def test_c03_a_relay_that_runs_on_two_nodes_takes_effect_once(make: Make) -> None:
    async with make() as world:
        one, two = await world.node(), await world.node()
        reader, client = await world.client(two, "a"), await world.client(one)
        world.gate.close()
        number = client.emit("relay", "m1", "a")
        await world.until(lambda: world.gate.waiting == 1)
        client.leave_half_open()
        await client.connect(two)
        await world.until(lambda: world.gate.waiting == 2)
        world.gate.open()
        await world.outcome(client, number)
        await two.say("a", "last")
        await world.until(lambda: reader.of(stream("a"))[-1:] == ["last"])
        assert reader.of(stream("a")) == ["m1", "last"]
        assert client.outcome(number) in _replies(world, "m1")


async def test_c04_a_gap_in_the_numbers_is_refused_and_declared_and_never_jumped(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node)
        generation = client.generation
        client.send(3, "once", "early", generation)
        await world.until(lambda: bool(client.answers))
        (nack,) = client.answers
        assert (nack.number, nack.expect) == (3, 1)  # type: ignore[union-attr]
        assert world.runs == []

        client.crash()
        state = client.stored.outbox.state
        state.last = 2  # events 1 and 2 were lost with their part of the outbox
        client.producer = Producer(state)
        number = client.emit("once", "m3")
        assert number == 3
        await client.connect(node)
        await world.outcome(client, 3)
        assert [type(answer).__name__ for answer in client.answers[1:]] == ["Skipped", "Outcome"]
        assert [run.label for run in world.runs] == ["m3"]


async def test_c05_another_payload_under_the_same_number_has_no_effect(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node)
        client.emit("once", "m1")
        await world.outcome(client, 1)
        # The outbox lost its end in a power failure, and the next event was emitted before that was found out.
        client.cut()
        client.stored.outbox = MemoryOutbox(client.stored.outbox.state.producer)
        client.crash()
        client.outcomes.clear()
        assert client.emit("once", "other") == 1
        await client.connect(node)
        await world.outcome(client, 1)
        assert client.outcome(1) == "idempotency_mismatch"
        assert world.effects == ["m1"]
        number = client.emit("once", "m2")
        await world.outcome(client, number)
        assert world.effects == ["m1", "m2"]


async def test_c05_another_event_with_the_same_payload_is_another_payload(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node)
        client.emit("once", "m1")
        await world.outcome(client, 1)
        client.send(1, "again", "m1", client.generation, resent=True)
        await world.until(lambda: len(client.answers) == 2)
        assert b"idempotency_mismatch" in bytes(client.answers[1].args)  # type: ignore[union-attr]
        assert world.effects == ["m1"]


async def test_c06_a_forgotten_producer_is_told_so_and_only_what_is_new_runs(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node)
        first = client.emit("once", "m1")
        await world.outcome(client, first)
        assert client.connection is not None
        client.connection.deaf = True
        sent = client.emit("once", "m2")
        await world.until(lambda: len(world.effects) == 2)
        client.cut()
        node.crash()
        new = client.emit("once", "m3")
        key = producer_key(client.user, client.stored.outbox.state.producer)
        await world.backend.expire(f"bellwire:producer:{key}")
        await client.connect(await world.node())
        await world.outcome(client, new)
        assert client.outcome(sent) == "producer_unknown"
        assert world.effects == ["m1", "m2", "m3"]
        assert [client.outcome(new)] == _replies(world, "m3")


async def test_c06_the_oldest_outcomes_are_forgotten_and_said_to_be(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node)
        for n in range(40):
            client.emit("once", f"m{n}")
        await world.outcome(client, 40)
        before = len(client.answers)
        client.send(1, "once", "m0", client.generation, resent=True)
        await world.until(lambda: len(client.answers) > before)
        assert b"producer_unknown" in bytes(client.answers[-1].args)  # type: ignore[union-attr]
        assert len(world.effects) == 40
