"""A session that is taken up on another node: who held it is told, and lets go only if it is so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bellwire.brokers.base import Broker
from bellwire.core.clock import Wheel
from bellwire.core.counters import Counters
from bellwire.server.cluster import Cluster
from bellwire.server.dispatch import Dispatcher
from bellwire.server.peers import LEASE_SECONDS
from bellwire.server.sessions import Sessions
from bellwire.server.takeover import Takeover
from bellwire.testing.clock import advance
from tests.server.keeping import LIFETIME, Connection, create, resume, resumed
from tests.server.nodes import start


@asynccontextmanager
async def on_node(broker: Broker) -> AsyncIterator[tuple[Sessions, Takeover]]:
    dispatcher = Dispatcher(asyncio.get_running_loop())
    cluster = Cluster(broker, Wheel(asyncio.get_running_loop()), dispatcher, Counters())
    takeover = Takeover(cluster)
    sessions = Sessions(broker, LIFETIME, Counters(), takeover)
    takeover.serve(sessions)
    await cluster.start()
    yield sessions, takeover
    await sessions.close(1)
    await cluster.close(1)
    await dispatcher.close()


async def test_who_held_it_on_another_node_is_told_at_once() -> None:
    broker = await start()
    async with on_node(broker) as (first, _), on_node(broker) as (second, _):
        connection = Connection()
        old = await create(first, connection)
        new = await resumed(second, old.secret)
        await advance(0.1)
        assert connection.times_replaced == 1
        assert (len(first), len(second), old.over, new.held) == (0, 1, True, True)


@pytest.mark.parametrize("alive", [True, False])
async def test_another_run_of_a_program_gets_a_copy_if_the_first_is_alive_on_another_node(alive: bool) -> None:
    broker = await start()
    async with on_node(broker) as (first, _), on_node(broker) as (second, _):
        connection = Connection(alive=alive)
        old = await create(first, connection)
        new = await resumed(second, old.secret, instance="another run")
        await advance(0.1)
        assert (new.forked, old.held, connection.probes) == (alive, alive, 1)
        assert (new.secret == old.secret) is not alive


async def test_the_same_run_is_not_asked_for() -> None:
    broker = await start()
    async with on_node(broker) as (first, _), on_node(broker) as (second, _):
        connection = Connection()
        old = await create(first, connection)
        assert not (await resumed(second, old.secret)).forked
        assert connection.probes == 0


async def test_who_is_told_what_is_not_so_goes_on() -> None:
    broker = await start()
    async with on_node(broker) as (first, here), on_node(broker) as (_, other):
        connection = Connection()
        session = await create(first, connection)
        for key in (session.key, "another"):
            await other.tell(here.node, key)
        await advance(1)
        assert (connection.times_replaced, session.held) == (0, True)


async def test_nobody_is_told_that_is_not_there() -> None:
    broker = await start()
    async with on_node(broker) as (second, _):
        async with on_node(broker) as (first, _):
            old = await create(first)
        await advance(LEASE_SECONDS)
        assert await resume(second, old.secret) is not None


async def test_a_broker_that_is_away_by_then_takes_nothing_back() -> None:
    broker = await start()
    async with on_node(broker) as (_, here), on_node(broker) as (_, other):
        broker.faults.go_away()
        await other.tell(here.node, "some key")
        broker.faults.come_back()
