import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from bellwire.brokers.base import Broker
from bellwire.brokers.envelope import ALL, stream_of_node
from bellwire.brokers.memory import MemoryBroker
from bellwire.brokers.publisher import Publisher
from bellwire.core.clock import Wheel
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.naming import stream_of
from bellwire.server.agreement import AGREED, KEY, Agreement
from bellwire.server.cluster import Cluster
from bellwire.server.dispatch import Dispatcher
from bellwire.server.peers import BEAT_SECONDS, LEASE_SECONDS
from bellwire.server.register import Register
from bellwire.testing.clock import advance
from tests.brokers.nats_server import NatsServer, broker_at
from tests.server.nodes import away, start
from tests.server.servers import SharedBroker, houses


class Sharded(MemoryBroker):
    """A broker that may lose one key and keep a later one."""

    is_whole = False


class Party:
    """A node that knows whether somebody may stand somewhere."""

    def __init__(self, broker: Broker) -> None:
        loop = asyncio.get_running_loop()
        self._broker = broker
        self.dispatcher = Dispatcher(loop)
        self.cluster = Cluster(broker, Wheel(loop), self.dispatcher, Counters())
        self.agreement = Agreement(broker, self.cluster)

    async def start(self) -> "Party":
        await self.cluster.start()
        return self

    async def deafen(self) -> None:
        """Let it hear nothing more."""
        for stream in (ALL, stream_of_node(self.cluster.node)):
            await self._broker.unsubscribe(stream, self.cluster)

    async def die(self) -> None:
        await self.deafen()
        await self.dispatcher.close()


@asynccontextmanager
async def parties(count: int, broker: MemoryBroker | None = None) -> AsyncIterator[tuple[MemoryBroker, list[Party]]]:
    broker = broker or await start()
    await broker.start()
    found = [await Party(broker).start() for _ in range(count)]
    try:
        yield broker, found
    finally:
        for party in found:
            await party.dispatcher.close()
            await party.cluster.close(1)


def possible(*found: Party) -> list[bool]:
    return [party.agreement.appends for party in found]


async def test_a_node_is_unsure_until_it_stands_in_the_register() -> None:
    broker = await start()
    party = Party(broker)
    assert party.agreement.appends
    await party.start()
    assert not party.agreement.appends
    await party.die()


async def test_nobody_stands_anywhere_until_all_nodes_agree_that_somebody_does() -> None:
    async with parties(3) as (_, (one, two, three)):
        await advance(4 * LEASE_SECONDS)
        assert possible(one, two, three) == [False, False, False]
        assert not one.agreement.reached
        await one.agreement.reach()
        assert one.agreement.reached
        assert possible(one, two, three) == [True, True, True]
        await advance(2 * LEASE_SECONDS)
        assert possible(one, two, three) == [True, True, True]


async def test_who_comes_later_finds_that_somebody_stands_there() -> None:
    async with parties(1) as (broker, (one,)):
        await one.agreement.reach()
        late = await Party(broker).start()
        assert late.agreement.appends
        await late.die()


async def test_so_it_does_when_all_others_are_gone() -> None:
    broker = await start()
    async with parties(1, broker) as (_, (one,)):
        await one.agreement.reach()
    async with parties(1, broker) as (_, (late,)):
        assert late.agreement.appends


async def test_what_all_agreed_on_once_is_not_asked_again_of_the_dead() -> None:
    async with parties(2) as (_, (one, two)):
        await one.agreement.reach()
        await one.die()
        async with asyncio.timeout(1):
            await two.agreement.reach()
        assert two.agreement.reached


async def test_a_node_that_does_not_answer_is_waited_for_until_it_is_unsure_itself() -> None:
    async with parties(2) as (_, (one, two)):
        await two.die()
        agreeing = asyncio.ensure_future(one.agreement.reach())
        await advance(LEASE_SECONDS - 2 * BEAT_SECONDS)
        assert not one.agreement.reached
        assert two.agreement.appends
        await advance(2 * LEASE_SECONDS)
        assert one.agreement.reached
        await agreeing


async def test_so_is_one_that_only_stands_in_the_register() -> None:
    async with parties(1) as (broker, (one,)):
        await Register(broker).add("12345678")
        agreeing = asyncio.ensure_future(one.agreement.reach())
        await advance(LEASE_SECONDS - 2 * BEAT_SECONDS)
        assert not one.agreement.reached
        await advance(2 * LEASE_SECONDS)
        await agreeing


async def test_a_node_that_was_given_up_and_comes_back_looks_first() -> None:
    async with parties(2) as (_, (one, two)):
        assert two.cluster._timer is not None
        two.cluster._timer.cancel()
        await two.deafen()
        await advance(2 * LEASE_SECONDS)
        assert possible(two) == [True]
        agreeing = asyncio.ensure_future(one.agreement.reach())
        await advance(2 * LEASE_SECONDS)
        await agreeing
        two.cluster._begin_beat()
        await advance(1)
        assert possible(two) == [True]


async def test_a_node_that_refuses_to_answer_is_asked_again() -> None:
    async with parties(2) as (_, (one, two)):
        answerers, two.cluster._answerers = two.cluster._answerers, {}
        agreeing = asyncio.ensure_future(one.agreement.reach())
        await advance(2 * LEASE_SECONDS)
        assert not one.agreement.reached
        two.cluster._answerers = answerers
        await advance(1)
        await agreeing
        assert possible(two) == [True]


async def test_a_node_that_cannot_look_is_unsure() -> None:
    async with parties(1) as (broker, (one,)):
        with away(broker):
            await advance(LEASE_SECONDS / 2)
            assert one.agreement.appends
            with pytest.raises(BrokerUnavailable):
                await one.agreement.reach()
            assert not one.agreement.reached
        await one.agreement.reach()
        assert one.agreement.reached


async def test_an_answer_that_is_lost_leaves_it_to_the_next_client() -> None:
    async with parties(1) as (broker, (one,)):
        broker.faults.lose_put_answer(done=True)
        with pytest.raises(BrokerUnavailable):
            await one.agreement.reach()
        await one.agreement.reach()
        kept = await broker.get(KEY)
        assert kept is not None
        assert kept.value == AGREED


async def test_a_broker_that_lost_what_it_kept_is_told_again() -> None:
    async with parties(2) as (broker, (one, two)):
        before = broker.faults.keys()
        await one.agreement.reach()
        broker.faults.take_back(before)
        assert not one.agreement.reached
        late = await Party(broker).start()
        assert possible(one, two, late) == [True, True, False]
        await one.agreement.reach()
        assert possible(one, two, late) == [True, True, True]
        await late.die()


async def test_several_clients_at_once_ask_once() -> None:
    async with parties(2) as (broker, (one, _)):
        revision = await broker.put("before", b"")
        await asyncio.gather(*(one.agreement.reach() for _ in range(8)))
        assert revision is not None
        assert await broker.put("after", b"") == revision + 3


async def test_several_nodes_at_once_agree_too() -> None:
    async with parties(4) as (_, found):
        async with asyncio.timeout(1):
            await asyncio.gather(*(party.agreement.reach() for party in found))
        assert all(party.agreement.reached for party in found)


async def test_another_generation_that_still_has_the_agreement_asks_nobody() -> None:
    async with parties(2) as (broker, (one, two)):
        await one.agreement.reach()
        await two.die()
        broker.faults.take_back(broker.faults.keys())
        assert not one.agreement.reached
        async with asyncio.timeout(1):
            await one.agreement.reach()


@pytest.mark.parametrize("same_generation", [False, True])
async def test_what_a_broker_has_lost_is_said_again_with_the_next_beat(same_generation: bool) -> None:
    async with parties(1) as (broker, (one,)):
        await one.agreement.reach()
        if same_generation:  # as where a backup is put back
            assert await broker.delete(KEY)
        else:
            broker.faults.take_back({})
        late = await Party(broker).start()
        assert possible(one, late) == [True, False]
        await advance(2 * BEAT_SECONDS)
        assert possible(one, late) == [True, True]
        assert not one.agreement.reached
        later = await Party(broker).start()
        assert possible(later) == [True]
        await one.agreement.reach()
        for party in (late, later):
            await party.die()


async def test_what_a_node_saw_is_worth_nothing_at_a_broker_that_has_begun_anew() -> None:
    async with parties(1) as (broker, (one,)):
        assert possible(one) == [False]
        broker.faults.take_back({})
        assert possible(one) == [True]
        await advance(2 * BEAT_SECONDS)
        assert possible(one) == [False]


async def test_who_is_given_a_place_in_a_log_that_has_begun_anew_is_known_to_all_before() -> None:
    broker = SharedBroker()
    async with houses(1, broker=broker) as (here,):
        client = await here.come("lobby", recovers=True)
        room = here.root.hub("/").streams[stream_of("/", "lobby")]
        broker.faults.take_back({})
        broker.faults.wipe(room.stream)
        async with parties(1, broker) as (_, (late,)):
            assert possible(late) == [False]
            await room.probe()
            await room.probe()  # the first time it was not idle: somebody had come in
            await advance()
            assert [packet.payload for packet, _ in client._events if '"generation"' in packet.payload]
            assert possible(late) == [True]


async def test_a_broker_that_may_forget_just_this_is_not_relied_on() -> None:
    async with parties(1, Sharded()) as (broker, (one,)):
        assert one.agreement.appends
        assert one.agreement.reached
        assert await broker.get(KEY) is None


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield server
    server.kill()


@pytest.mark.bellwire(clock="real")
async def test_on_nats_nothing_is_written_to_a_log_before_somebody_can_stand_in_one(nats: NatsServer) -> None:
    async with broker_at(nats.url, prefix="agreement") as broker, broker_at(nats.url, prefix="agreement") as other:
        one, two = await Party(broker).start(), await Party(other).start()
        publisher = Publisher(broker, lambda: one.agreement.appends)
        await publisher.emit(("room",), b"to nobody who recovers")
        await publisher.confirm(("room",))
        assert not (await other.top("room")).seq
        async with asyncio.timeout(5):
            await two.agreement.reach()
        await publisher.emit(("room",), b"to somebody who may")
        assert (await other.top("room")).seq
        for party in (one, two):
            await party.dispatcher.close()
            await party.cluster.close(1)
