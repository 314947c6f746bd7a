"""Two nodes, and everything that can happen to nodes, to the broker and between them: every note reaches everybody once
and in order. Nobody is told of a reset but where the broker has lost its log, and then everybody is.

Of the notes of the emitter a history is kept: what raised `BrokerUnavailable` reaches nobody, what raised
`OutcomeUnknown` may. ``BELLWIRE_CHAOS=long`` makes ten times as many notes, and as much trouble, of it.
"""

import asyncio
from typing import Final, Literal, TypeAlias, get_args

import pytest

from tests.chaos.brokers import BrokerProcess, Nats, PurgedNats, Valkey
from tests.chaos.cluster import cluster
from tests.chaos.program import LONG, SCALE
from tests.chaos.proxy import ChaosProxy
from tests.chaos.sources import LANES, RATE, Lane, Writer
from tests.chaos.verdict import FINE, verdict

pytestmark = [pytest.mark.bellwire(clock="real"), pytest.mark.timeout(60 * SCALE)]

Fault: TypeAlias = Literal["stall", "deaf", "half_open", "reset"]
FAULTS: Final[tuple[Fault, ...]] = get_args(Fault)

STANDSTILL: Final = 30.0 if LONG else 10.5
"""Seconds for which a node stands still: the others take it for dead after ten. A fault lasts by the clock."""

PARTITION: Final = 1.0
"""The same of one that is cut off."""

OUTAGE: Final = 70.0 if LONG else 6.0
"""And of a broker that is away: emits wait for it for five, and are tried again for a minute."""


emptied = pytest.mark.parametrize("broker", [Valkey, Nats, PurgedNats], indirect=True)
"""In each way that there is."""

slow = pytest.mark.parametrize("broker", [Valkey, Nats] if LONG else [Nats], indirect=True)
"""Of what takes its time, one is enough where there is none."""


async def test_nodes_that_are_killed_again_and_again(broker: BrokerProcess) -> None:
    seconds = 4 * SCALE
    async with cluster(broker) as c:
        async with c.noting(seconds):
            for second in range(1, seconds):
                await c.listeners[0].hears(Writer.name, second * RATE)
                await c.nodes[second % 2].server.restart()
        await c.settle()
        c.check()
        assert min(listener.losses for listener in c.listeners) >= 1


@slow
async def test_a_node_that_stands_still_does_no_harm_when_it_wakes(broker: BrokerProcess) -> None:
    """Its clients go to the other one, which takes it for dead after ten seconds; and it is not told that they went."""
    async with cluster(broker) as c:
        a, b = c.nodes
        async with c.noting(STANDSTILL + 2):
            await c.listeners[0].hears(Writer.name, RATE // 2)
            assert (a.clients, b.clients) == (3, 2)
            a.server.freeze()
            a.take_out("half_open")
            await asyncio.sleep(STANDSTILL)
            losses = [listener.losses for listener in c.listeners]
            assert sum(losses) == 2
            a.server.thaw()
        await c.all_hear()
        assert [listener.losses for listener in c.listeners] == losses  # it takes no session back
        a.put_back()
        await c.settle()
        c.check()


async def test_a_node_that_is_cut_off_from_the_broker_keeps_its_clients(broker: BrokerProcess) -> None:
    """So is the emitter, which is told so in the right words."""
    async with cluster(broker) as c:
        links = c.nodes[0].link, c.link
        async with c.noting(len(FAULTS) * (PARTITION + 1) * SCALE):
            for turn, fault in enumerate(FAULTS * SCALE):
                await c.listeners[1].hears(Writer.name, turn * RATE + RATE // 2)
                for link in links:
                    partition(link, fault)
                await asyncio.sleep(PARTITION)
                for link in links:
                    heal(link, fault)
        await c.all_hear()
        assert sum(listener.losses for listener in c.listeners) == 0
        await c.settle()
        c.check()


async def test_a_broker_that_is_killed_and_comes_back_with_its_log(broker: BrokerProcess) -> None:
    seconds = 3 * SCALE
    async with cluster(broker) as c:
        async with c.noting(seconds):
            for second in range(1, seconds):
                await c.listeners[0].hears(Writer.name, second * RATE)
                await c.broker.crash()
        await c.all_hear()
        assert sum(listener.losses for listener in c.listeners) == 0
        await c.settle()
        c.check(in_doubt=c.broker.forgets_its_name)


@slow
async def test_a_broker_that_is_away_for_long(broker: BrokerProcess) -> None:
    """Who begins to emit meanwhile is told that nothing was sent; who had begun, when nobody can tell any more."""
    async with cluster(broker) as c:
        late = [Lane(c.emitter, f"late{number}") for number in range(5)]
        async with c.noting(OUTAGE):
            await c.listeners[0].hears(Writer.name, RATE)
            async with asyncio.TaskGroup() as group:
                group.create_task(c.broker.crash(OUTAGE))
                for lane in late:  # one after the other: the first may begin before it is known that the broker is away
                    await asyncio.sleep(0.2)
                    group.create_task(lane.emit())
        await c.all_hear()
        assert sum(listener.losses for listener in c.listeners) == 0
        await c.settle()
        c.check(in_doubt=c.broker.forgets_its_name)
        assert sum(len(lane.unavailable) for lane in late) >= 1


async def test_a_broker_that_tells_nothing_new_any_more(broker: BrokerProcess) -> None:
    seconds = 3 * SCALE
    async with cluster(broker) as c:
        async with c.noting(seconds):
            for second in range(1, seconds):
                await c.listeners[0].hears(Writer.name, second * RATE)
                await c.broker.cut_listeners([node.link for node in c.nodes])
        await c.settle()
        c.check()


@emptied
async def test_a_broker_that_was_emptied_resets_everybody_before_anything_newer(broker: BrokerProcess) -> None:
    async with cluster(broker) as c:
        async with c.noting(0.2):
            pass
        await c.all_hear()
        await c.broker.empty()
        before = [len(listener.said) for listener in c.listeners]
        await asyncio.gather(*(lane.emit(10) for lane in c.lanes))
        await c.all_hear()
        for listener, heard in zip(c.listeners, before, strict=True):
            assert [words[0] for words in listener.said[heard : heard + 2]] == ["reset", "noted"]
            assert [reason for _, reason in listener.of("reset")] == [c.broker.reason]
            assert listener.losses == 0
            for lane in c.lanes:
                assert listener.numbers(lane.name) == lane.emitted


@emptied
async def test_a_broker_that_is_emptied_meanwhile_loses_and_doubles_nothing_in_silence(broker: BrokerProcess) -> None:
    seconds = 3 * SCALE
    async with cluster(broker) as c:
        async with asyncio.TaskGroup() as group:
            for lane in c.lanes:
                group.create_task(lane.emit(seconds * RATE // LANES))
            for second in range(seconds):
                await c.lanes[0].reaches(second * RATE // LANES + 10)
                await c.broker.empty()
        await c.all_hear()
        for listener in c.listeners:
            assert listener.of("reset")
            for lane in c.lanes:
                assert verdict(listener.numbers(lane.name), lane.possible, lane.possible) == FINE
                assert listener.silent_gaps(lane.name, {*lane.emitted}) == []


def partition(link: ChaosProxy, fault: Fault) -> None:
    """Nothing comes through, for those who are connected and for those who want to be."""
    link.admission = "reset" if fault == "reset" else "hold"
    for connection in [*link.connections.values()]:
        if fault == "half_open":
            connection.half_open("client")
        elif fault == "reset":
            connection.reset()
        elif fault == "deaf":  # what is asked for is done, and the answers are lost
            connection.stall("down")
        else:
            connection.stall()


def heal(link: ChaosProxy, fault: Fault) -> None:
    """Who was stalled goes on; all others find out."""
    link.admission = "pass"
    for connection in [*link.connections.values()]:
        if fault == "stall" and connection.to is not None:
            connection.resume()
        else:
            connection.reset()
