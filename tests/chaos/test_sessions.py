"""Sessions of a cluster while the broker is away from a node, and where two nodes take themselves for their holder."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bellwire import Client
from tests.chaos.application import ASK, ASKED, COUNTERS, JOIN, LEAVE, MEMBERS, ROOM, SAID, SAY
from tests.chaos.brokers import BrokerProcess
from tests.chaos.cluster import Node, nodes_on
from tests.chaos.program import PATIENCE
from tests.chaos.proxy import ChaosProxy

pytestmark = [pytest.mark.bellwire(clock="real"), pytest.mark.timeout(90)]


class Ears:
    """What a client hears, and what becomes of its connection."""

    def __init__(self, client: Client) -> None:
        self.texts: list[str] = []
        self.resets: list[str] = []
        self.states: list[str] = []
        self._changed = asyncio.Event()
        client.on(SAID)(lambda text: self._keep(self.texts, text))
        client.on_reset(lambda reset: self._keep(self.resets, reset.reason))
        client.on_state(lambda state: self._keep(self.states, state))

    def _keep(self, into: list[str], what: str) -> None:
        into.append(what)
        self._changed.set()
        self._changed = asyncio.Event()

    async def hear(self, *texts: str) -> None:
        """Wait until it has heard so many; these must be all, and without a reset."""
        async with asyncio.timeout(PATIENCE):
            while len(self.texts) < len(texts):
                await self._changed.wait()
        assert (self.texts, self.resets) == ([*texts], [])

    async def reach(self, state: str, times: int = 1) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.states.count(state) < times:
                await self._changed.wait()


@asynccontextmanager
async def away(node: Node) -> AsyncIterator[None]:
    """Cut a node off from the broker."""
    node.link.admission = "reset"
    for connection in [*node.link.connections.values()]:
        connection.reset()
    try:
        yield
    finally:
        node.link.admission = "pass"


async def say(client: Client, text: str, room: str = ROOM) -> None:
    assert await client.call(SAY, [room], text, timeout=PATIENCE)


async def test_who_comes_while_the_broker_is_away_is_let_in_when_it_is_back(broker: BrokerProcess) -> None:
    async with (
        nodes_on(broker) as (_, (a, b)),
        Client(b.server.url) as speaker,
        ChaosProxy(a.server.port) as door,
    ):
        client = Client(f"http://127.0.0.1:{door.port}")
        ears = Ears(client)
        async with asyncio.TaskGroup() as group, away(a):
            entering = group.create_task(client.__aenter__())
            await door.connection(1)  # the first one was turned away
            await say(speaker, "before")
            assert not entering.done()
        await say(speaker, "one")
        await ears.hear("one")
        await client.__aexit__(None, None, None)


async def test_a_join_and_a_leave_while_the_broker_is_away_take_effect_once_it_is_back(broker: BrokerProcess) -> None:
    async with nodes_on(broker) as (_, (a, b)), Client(a.server.url) as client, Client(b.server.url) as speaker:
        ears = Ears(client)
        await client.call(JOIN, "old", timeout=PATIENCE)
        async with asyncio.TaskGroup() as group, away(a):
            for event, room in ((JOIN, "new"), (LEAVE, "old")):
                group.create_task(client.call(event, room, timeout=PATIENCE))
            await say(speaker, "meanwhile", "old")
        assert await members(speaker, "old") == []
        assert await members(speaker, "new") == [client.id]
        for text, room in (("to nobody", "old"), ("to it", "new")):
            await say(speaker, text, room)
        await ears.hear("meanwhile", "to it")
        assert ears.states == []


async def test_who_comes_back_to_a_node_that_is_cut_off_waits_for_it_and_misses_nothing(broker: BrokerProcess) -> None:
    async with nodes_on(broker) as (balancer, (a, b)), client_of(balancer) as client, Client(a.server.url) as speaker:
        ears = Ears(client)
        await say(speaker, "one")
        await ears.hear("one")
        async with away(b):
            a.take_out("reset")
            await ears.reach("reconnecting")
            await say(speaker, "two")
        await ears.reach("connected")
        await say(speaker, "three")
        await ears.hear("one", "two", "three")


@pytest.mark.parametrize("cut_off", [False, True], ids=["half-open", "half-open and cut off"])
async def test_a_session_that_was_taken_up_elsewhere_is_nobodys_here(broker: BrokerProcess, cut_off: bool) -> None:
    """A, which was not told that the client went, may have been away from the broker when B took the session up."""
    async with (
        nodes_on(broker) as (balancer, (a, b)),
        client_of(balancer) as client,
        Client(a.server.url) as witness,
        Client(b.server.url) as speaker,
    ):
        ears = Ears(client)
        for one in (client, witness, speaker):
            one.on(ASKED)(answer)
        await say(speaker, "one")
        await ears.hear("one")
        if cut_off:
            a.link.admission = "hold"
            for connection in a.link.connections.values():
                connection.stall()
        a.take_out("half_open")
        await ears.reach("connected")
        await say(speaker, "two")
        heal(a.link)
        await say(speaker, "three")
        await ears.hear("one", "two", "three")
        async with asyncio.timeout(PATIENCE):
            while not (await witness.call(COUNTERS, timeout=PATIENCE)).get('sessions_total{outcome="replaced"}'):
                pass  # A is about to find out
        assert await members(speaker, ROOM) == sorted([str(one.id) for one in (client, speaker, witness)])
        assert await speaker.call(ASK, ROOM, timeout=PATIENCE) == ["here"] * 3
        assert ears.states == ["reconnecting", "connected"]


def client_of(balancer: ChaosProxy) -> Client:
    return Client(f"http://127.0.0.1:{balancer.port}")


async def members(client: Client, room: str) -> list[str]:
    return await client.call(MEMBERS, room, timeout=PATIENCE)


async def answer() -> str:
    return "here"


def heal(link: ChaosProxy) -> None:
    link.admission = "pass"
    for connection in [*link.connections.values()]:
        if connection.to is None:
            connection.reset()
        connection.resume()
