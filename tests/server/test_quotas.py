"""What a user, or an address, may send: over several connections, and over several nodes."""

import asyncio
import contextlib

import msgspec
import pytest

from bellwire import Config, Event, EventRefused, Server, Socket
from bellwire.core.clock import Wheel
from bellwire.core.counters import Counters
from bellwire.core.rate import Rate
from bellwire.guard.rates import Buckets
from bellwire.server.cluster import Cluster
from bellwire.server.dispatch import Dispatcher
from bellwire.server.quotas import TOLD, Quota, Quotas
from bellwire.testing import TestClient
from bellwire.testing.clock import advance
from bellwire.transports.base import Request
from tests.server.house import POKE
from tests.server.numbered import started
from tests.server.servers import House, SharedBroker, houses
from tests.transports.pipe import Pipe

FREE = Event("free", rate="off")


def furnish(house: House) -> None:
    @house.root.on(POKE)
    async def poke(socket: Socket) -> None:
        pass

    @house.root.on(FREE)
    async def free(socket: Socket) -> None:
        pass


async def accepted(client: TestClient, tries: int) -> int:
    """How many of so many events are taken at this moment."""
    taken = 0
    for _ in range(tries):
        with contextlib.suppress(EventRefused):
            await client.call(POKE)
            taken += 1
    return taken


async def test_a_user_has_one_rate_over_all_connections() -> None:
    async with houses(1, Config(user_rate="10/s"), furnish) as (house,):
        one, other = await house.come(user="u"), await house.come(user="u")
        stranger, guest = await house.come(user="v"), await house.come()
        assert await accepted(one, 6) == 6
        assert await accepted(other, 6) == 4
        assert await accepted(stranger, 10) == 10
        assert await accepted(guest, 20) == 20
        with pytest.raises(EventRefused) as caught:
            await one.call(POKE)
        assert caught.value.retry_after == 0.1
        await one.call(FREE)
    assert house.server.counters.get("rate_limited_total", limit="user_rate") == 3


async def test_over_nodes_the_rate_is_kept_in_the_long_run() -> None:
    async with houses(3, Config(user_rate="10/s"), furnish) as nodes:
        clients = [await node.come(user="u") for node in nodes]
        taken = 0
        for _ in range(100):  # ten seconds
            for client in clients:
                taken += await accepted(client, 3)
            await advance(0.1)
    # Each node lets a burst through at first, and owes for the others' afterwards.
    assert 100 <= taken <= 10 + 100 + 30


async def test_nodes_that_cannot_hear_each_other_keep_it_each_for_itself() -> None:
    broker = SharedBroker()
    async with houses(2, Config(user_rate="10/s"), furnish, broker) as (here, there):
        one, other = await here.come(user="u"), await there.come(user="u")
        broker.faults.go_away()
        assert await accepted(one, 20) == 10
        await advance(1.5)
        assert await accepted(other, 20) == 10
        broker.faults.come_back()
    dropped = here.server.counters.get("dropped_total", kind="quota", reason="broker_away", policy="kept_by_each_node")
    assert dropped == 1


async def test_nothing_is_said_where_there_is_nobody_to_hear_it() -> None:
    broker = SharedBroker()
    async with houses(1, Config(user_rate="10/s"), furnish, broker) as (house,):
        client = await house.come(user="u")
        broker.faults.go_away()
        await client.call(POKE)
        await advance(1.5)
        broker.faults.come_back()
    counters = house.server.counters
    assert not counters.get("dropped_total", kind="quota", reason="broker_away", policy="kept_by_each_node")


# --- addresses


async def poke(server: Server, address: str) -> bool:
    """Whether an event of a new client from there is taken."""
    pipe = Pipe()
    session = server.engine.open(pipe, Request(path="/socket.io/", client=(address, 1)))
    session.received(pipe, "40")
    await advance()
    session.received(pipe, '421["poke"]')
    await advance()
    return "431[]" in "".join(map(str, pipe.sent))


async def test_an_address_has_one_rate_over_all_connections() -> None:
    async with houses(1, Config(address_rate="2/h"), furnish) as (house,):
        assert [await poke(house.server, "192.0.2.1") for _ in range(3)] == [True, True, False]
        assert await poke(house.server, "192.0.2.2")
    assert house.server.counters.get("rate_limited_total", limit="address_rate") == 1


async def test_one_network_of_ipv6_is_one_address() -> None:
    async with houses(1, Config(address_rate="1/h"), furnish) as (house,):
        assert await poke(house.server, "2001:db8::1")
        assert not await poke(house.server, "2001:db8::ffff:2")
        assert await poke(house.server, "2001:db8:0:1::1")


# --- what is told, and believed


def test_of_many_those_who_took_most_are_told() -> None:
    woken: list[None] = []
    quota = Quota(Rate(1_000, 1), lambda: woken.append(None))
    for number in range(TOLD + 500):
        for _ in range(1 + (number < TOLD)):
            quota.take(f"user {number}", 100.0)
    told = quota.tell()
    assert list(told.values()) == [2] * TOLD
    assert quota.tell() == {}
    assert len(woken) == 1


def test_those_who_come_and_go_are_forgotten() -> None:
    quota = Quota(Rate(10, 1), lambda: None)
    for number in range(50_000):
        quota.take(f"user {number}", number / 100)
        if number % 100 == 0:
            quota.tell()
    assert len(quota._buckets) <= Buckets.FEWEST


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode([{}]),
        msgspec.msgpack.encode([{"x": 1}, {}]),
        msgspec.msgpack.encode([{b"12345678": 1.5}, {}]),
    ],
)
async def test_what_no_node_said_is_ignored(body: bytes) -> None:
    loop, counters = asyncio.get_running_loop(), Counters()
    wheel, dispatcher = Wheel(loop), Dispatcher(loop)
    cluster = Cluster(await started(), wheel, dispatcher, counters)
    quotas = Quotas(Config(user_rate="1/s"), counters, loop.time, cluster, wheel, dispatcher)
    quotas._hear("node", body)
    odd = {b"12345678": -5, b"short": 5, b"87654321": 2**63}
    quotas._hear("node", msgspec.msgpack.encode([odd, {b"12345678": 5}]))
    assert quotas.users is not None
    assert len(quotas.users._buckets) == 0
    assert counters.get("dropped_total", kind="envelope", reason="malformed", policy="ignored") == 1
    await dispatcher.close()
