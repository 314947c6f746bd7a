"""The flagship: failovers of Redis that take acknowledged messages back, as clients of a server see them.

``b`` is promoted when it has m1 to m5; ``a`` still acknowledges m6 to m8, which clients are handed. What they believe
in afterwards is gone, and they are told before anything newer. The old connection may not have noticed anything, and
a message that is tried again with its id stands in both histories, at the same place.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from bellwire.brokers import redis as broker_module
from bellwire.brokers.redis import RedisBroker
from bellwire.brokers.redis_master import Master
from tests.brokers.redis_server import RedisServer, the_master
from tests.guarantee.client import Client
from tests.guarantee.redis import TwoRedis
from tests.guarantee.world import Node, World, stream

pytestmark = pytest.mark.bellwire(clock="real")

A = stream("a")
SEEN = [f"m{n}" for n in range(1, 9)]


class Scene(NamedTuple):
    """Clients of one server: one is there all the time, one left after m8, one after m5."""

    world: World
    backend: TwoRedis
    node: Node
    here: Client
    away: Client
    early: Client

    @property
    def connection(self) -> Master:
        broker = self.node.broker.inner
        assert isinstance(broker, RedisBroker)
        return the_master(broker)

    async def have(self, client: Client, *labels: str) -> None:
        await self.world.until(lambda: client.of(A) == [*labels])


@asynccontextmanager
async def phantoms(servers: tuple[RedisServer, RedisServer], *, chained: bool = True) -> AsyncIterator[Scene]:
    """Up to where ``a`` has acknowledged m6 to m8, and ``b`` is the master without them."""
    backend = TwoRedis(servers, chained=chained)
    world = World(backend, {})
    await backend.start()
    try:
        node = await world.node()
        here, away, early = [await world.client(node, "a") for _ in range(3)]
        scene = Scene(world, backend, node, here, away, early)
        await node.say("a", *SEEN[:5])
        for client in (here, away, early):
            await scene.have(client, *SEEN[:5])
        early.cut()
        await backend.promote_b()
        await node.say("a", "m6")
        await node.say("a", "m7", mid="seventh")
        await node.say("a", "m8")
        for client in (here, away):
            await scene.have(client, *SEEN)
        away.cut()
        yield scene
    finally:
        await world.close()


async def write_others(node: Node) -> None:
    """Write what takes the places of m6 to m8: other messages, and m7, which is tried again with its id."""
    await node.say("a", "x6")
    await node.say("a", "m7", mid="seventh")
    await node.say("a", "x8")


async def judge(scene: Scene) -> None:
    """Who saw phantoms is told, and has what is right, nothing twice; who left before goes on. And all is well."""
    await scene.node.say("a", "last")
    told = "[diverged]", "x6", "x8", "last"
    await scene.have(scene.here, *SEEN, *told)
    other = await scene.world.node()
    for client in (scene.away, scene.early):
        await client.connect(other)
    await scene.have(scene.away, *SEEN, *told)
    await scene.have(scene.early, *SEEN[:5], "x6", "m7", "x8", "last")
    await other.say("a", "after")
    await scene.have(scene.here, *SEEN, *told, "after")


async def test_a_failover_takes_acknowledged_messages_back(servers: tuple[RedisServer, RedisServer]) -> None:
    async with phantoms(servers) as scene:
        await scene.backend.demote_a()
        await write_others(scene.node)
        await judge(scene)


async def test_there_and_back_with_what_the_other_master_took(
    servers: tuple[RedisServer, RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "LOOK_EVERY", 60.0)
    async with phantoms(servers) as scene:
        connection = scene.connection
        scene.backend.master = scene.backend.b
        await write_others(await scene.world.node())
        await scene.backend.return_to_a()
        await judge(scene)
        assert scene.connection is connection


@pytest.mark.parametrize("chained", [True, False])
async def test_there_and_back_without_a_trace_but_the_chain(
    servers: tuple[RedisServer, RedisServer], monkeypatch: pytest.MonkeyPatch, chained: bool
) -> None:
    """Generation and numbers are the same. Where all tags are equal as well, the fault shows: nobody is told, and what
    took the places of the phantoms is missing."""
    monkeypatch.setattr(broker_module, "LOOK_EVERY", 60.0)
    async with phantoms(servers, chained=chained) as scene:
        connection = scene.connection
        await scene.backend.return_to_a()
        await write_others(scene.node)
        if chained:
            await judge(scene)
        else:
            await scene.node.say("a", "last")
            await scene.have(scene.here, *SEEN, "last")
            await scene.away.connect(scene.node)
            await scene.have(scene.away, *SEEN, "last")
        assert scene.connection is connection
