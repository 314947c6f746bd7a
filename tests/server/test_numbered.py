"""Numbered events when everything goes wrong at once, and over a real nats-server."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from bellwire.brokers.memory import MemoryBroker
from bellwire.brokers.nats_keys import keys_name
from bellwire.brokers.nats_link import Link
from bellwire.brokers.nats_streams import ask_api
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.effects import Effect
from bellwire.delivery.inbox import LEASE_SECONDS, Answer, Nack, Refuse
from tests.brokers.nats_server import NatsServer, broker_at
from tests.brokers.nats_server import again as again_and_again
from tests.server.numbered import (
    EFFECTS,
    Node,
    World,
    bodies,
    now,
    until_death,
)


class Trouble:
    """What goes wrong, by chance, while a client sends event after event and each until it has an outcome."""

    def __init__(self, seed: int, *, failovers: bool) -> None:
        self.chance = random.Random(seed)
        self.broker = MemoryBroker()
        self.world = World()
        self.nodes: list[Node] = []
        self._failovers = failovers
        self._until = 0.0

    async def start(self) -> None:
        await self.broker.start()
        self.before = self.broker.faults.keys()
        self.nodes = [Node(self.broker), Node(self.broker)]
        for node in self.nodes:
            node.line.hook = self.happens
        self.world.during = lambda: asyncio.sleep(self.chance.choice([0, 0, 0, 1, 7]))

    def happens(self, call: str) -> None:
        faults = self.broker.faults
        match self.chance.randrange(20), call:
            case 0 | 1, "put":
                faults.lose_put_answer(done=self.chance.random() < 0.5)
            case 0 | 1, "append":
                faults.lose_answer(done=self.chance.random() < 0.5)
            case 2, _ if now() >= self._until:
                seconds = self.chance.choice([0.3, 2, 8])
                self._until = now() + seconds + LEASE_SECONDS  # between two troubles, leases can be renewed
                faults.go_away()
                asyncio.get_running_loop().call_later(seconds, faults.come_back)
            case 3, _ if self._failovers:
                faults.take_back(self.before)
                self.before = faults.keys()
            case 4, _:
                self.before = faults.keys()

    async def ask(self, number: int, effect: Effect) -> object:
        """Send an event until it has an outcome; what was sent before is handled beside it, on another connection."""
        chance, world = self.chance, self.world
        attempts: list[asyncio.Task[object]] = []
        mark: str | None = None
        while True:
            try:
                inlet = await chance.choice(self.nodes).connect()
            except BrokerUnavailable:
                await asyncio.sleep(1)
                continue
            resent = mark is not None
            mark = mark or inlet.generation
            attempt = asyncio.create_task(world.send(inlet, number, effect, generation=mark, resent=resent))
            attempts.append(attempt)
            await asyncio.wait([attempt], timeout=chance.choice([0.1, 3, 100]))
            verdict = attempt.result() if attempt.done() else None
            if isinstance(verdict, Nack):
                mark = mark if resent else None
                if verdict.expect < number:  # a failover took back what had its outcome
                    await inlet.skip(verdict.expect, number - 1)
            elif verdict is not None:
                outcomes = {await each for each in attempts} - {None, verdict}
                assert self._failovers or all(isinstance(other, Nack) for other in outcomes)
                return verdict
            inlet.close()

    async def run(self) -> list[tuple[int, Effect, object]]:
        events: list[tuple[int, Effect, object]] = []
        for number in range(1, 16):
            effect = self.chance.choice(EFFECTS)
            events.append((number, effect, await self.ask(number, effect)))
        for node in self.nodes:
            node.producers.close()
        self.broker.faults.come_back()
        return events


@pytest.mark.parametrize("seed", range(40))
async def test_two_nodes_and_a_broker_that_comes_and_goes_make_one_effect_and_one_reply_of_each(seed: int) -> None:
    trouble = Trouble(seed, failovers=False)
    await trouble.start()
    events = await trouble.run()
    assert {type(outcome) for _, _, outcome in events} == {Answer}
    for number, effect, _ in events:
        assert effect == "relay" or sum(run[0] == number for run in trouble.world.runs) == 1
    relays = [number for number, effect, _ in events if effect == "relay"]
    assert await bodies(trouble.broker, "room") == [b"%d/%d" % (number, n) for number in relays for n in (1, 2)]
    assert await bodies(trouble.broker, "hall") == [b"%d/1" % number for number in relays]


@pytest.mark.parametrize("seed", range(40))
async def test_a_broker_that_forgets_what_it_acknowledged_doubles_nothing(seed: int) -> None:
    trouble = Trouble(seed, failovers=True)
    await trouble.start()
    events = await trouble.run()
    room = await bodies(trouble.broker, "room")
    assert len(set(room)) == len(room)
    for number, effect, outcome in events:
        assert isinstance(outcome, Answer) or outcome == Refuse("outcome_unknown")
        runs = sum(run[0] == number for run in trouble.world.runs)
        if effect == "relay":
            assert isinstance(outcome, Refuse) or {b"%d/1" % number, b"%d/2" % number} <= {*room}
        elif effect == "at_most_once":
            assert runs == 1 or (runs == 0 and isinstance(outcome, Refuse))
        else:
            assert runs or isinstance(outcome, Refuse)


# --- over a real nats-server

real = pytest.mark.bellwire(clock="real")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield server
    server.kill()


@asynccontextmanager
async def two_nodes(server: NatsServer, prefix: str) -> AsyncIterator[tuple[Node, Node]]:
    async with broker_at(server.url, prefix=prefix) as one, broker_at(server.url, prefix=prefix) as other:
        nodes = Node(one), Node(other)
        yield nodes
        for node in nodes:
            node.producers.close()


@real
@pytest.mark.parametrize("effect", EFFECTS)
async def test_over_nats_events_are_handled_once_and_answered_by_every_node(server: NatsServer, effect: Effect) -> None:
    world = World()
    async with two_nodes(server, f"each_{effect}") as (one, other):
        inlet = await one.connect()
        for number in (1, 2, 3):
            assert await world.send(inlet, number, effect) == Answer(b"reply %d to %d" % (number, number))
        again = await other.connect()
        assert again.last == 3
        for number in (1, 2, 3):
            verdict = await world.send(again, number, effect, generation=inlet.generation, resent=True)
            assert verdict == Answer(b"reply %d to %d" % (number, number))
        assert len(world.runs) == 3
        if effect == "relay":
            assert await bodies(other.line, "room") == [b"1/1", b"1/2", b"2/1", b"2/2", b"3/1", b"3/2"]


@real
@pytest.mark.parametrize("call", range(4, 8))
async def test_c01_over_nats_a_relay_of_a_dead_node_is_completed(server: NatsServer, call: int) -> None:
    world = World()
    async with two_nodes(server, f"dead{call}") as (dying, other):
        inlet = await dying.connect()
        await until_death(world.send(inlet, 1, "relay"), dying, call, answered=True)
        await other.producers.recover()
        assert await bodies(other.line, "room") == [b"1/1", b"1/2"]
        assert await bodies(other.line, "hall") == [b"1/1"]
        again = await other.connect()
        verdict = await world.send(again, 1, "relay", generation=inlet.generation, resent=True)
        assert verdict == Answer(b"reply 1 to 1")
        assert isinstance(await world.send(again, 2, "relay"), Answer)
        assert await bodies(other.line, "room") == [b"1/1", b"1/2", b"2/1", b"2/2"]


@real
async def test_c03_over_nats_a_second_node_waits_for_the_first_ones_outcome(server: NatsServer) -> None:
    world = World()
    async with two_nodes(server, "both") as (one, other):
        inlet, again = await one.connect(), await other.connect()
        running, released = asyncio.Event(), asyncio.Event()

        async def waits() -> None:
            running.set()
            await released.wait()

        world.during = waits
        first = asyncio.create_task(world.send(inlet, 1))
        await running.wait()
        asked = asyncio.Event()
        other.line.hook = lambda call: asked.set()
        second = asyncio.create_task(world.send(again, 1, resent=True))
        await asked.wait()
        released.set()
        assert await first == await second == Answer(b"reply 1 to 1")
        assert len(world.runs) == 1


@real
async def test_over_nats_what_ran_while_the_server_died_is_on_record_when_it_is_back(server: NatsServer) -> None:
    world = World()
    async with two_nodes(server, "restart") as (one, other):
        inlet = await one.connect()
        world.during = server.crash
        assert await world.send(inlet, 1, "relay") == Answer(b"reply 1 to 1")
        world.during = None
        again = await again_and_again(other.connect)
        assert await world.send(again, 1, "relay", resent=True) == Answer(b"reply 1 to 1")
        assert await bodies(other.line, "room") == [b"1/1", b"1/2"]


@real
async def test_over_nats_a_state_that_was_made_anew_runs_nothing_again(server: NatsServer) -> None:
    world = World()
    async with two_nodes(server, "anew") as (one, other):
        inlet = await one.connect()
        await world.send(inlet, 1)
        link = Link()
        await link.open(server.url)
        await ask_api(link, f"STREAM.DELETE.{keys_name('anew')}")
        await link.close()
        again = await again_and_again(other.connect)
        assert again.last == 0
        verdict = await world.send(again, 1, generation=inlet.generation, resent=True)
        assert verdict == Refuse("outcome_unknown")
        assert len(world.runs) == 1
        assert isinstance(await world.send(again, 2), Answer)
