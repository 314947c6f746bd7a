"""Numbered events when everything goes wrong at once, and over a real nats-server."""

import asyncio
import random

import pytest

from bellwire.brokers.memory import MemoryBroker
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.effects import Effect
from bellwire.delivery.inbox import LEASE_SECONDS, Answer, Nack, Refuse
from tests.server.numbered import (
    EFFECTS,
    Node,
    World,
    bodies,
    now,
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
