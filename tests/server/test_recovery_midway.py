"""Clients that go, are put out or in, or come a second time, while they are on their way in or back."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from bellwire.testing.clock import advance
from tests.guarantee.world import BLINK, SAY, Make, stream, world_on
from tests.server.midway import WAY, A, newcomer, nothing_is_left, slow, steps
from tests.server.stock import Stock


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return partial(world_on, "memory", tmp_path)


# --- those who go in the middle


@pytest.mark.parametrize("count", range(24))
async def test_who_is_cut_off_while_its_session_is_made_leaves_nothing_behind(make: Make, count: int) -> None:
    async with make() as world:
        node = await world.node()
        slow(node)
        client = newcomer(world)
        client.dial(node)
        await steps(count)
        client.cut()
        await nothing_is_left(node)


@pytest.mark.parametrize("count", range(28))
async def test_who_is_cut_off_on_its_way_back_leaves_nothing_behind_and_comes_back(make: Make, count: int) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a", "b", user="u")
        client.cut()
        await node.say("a", "one")
        slow(node)
        client.dial(node)
        await steps(count)
        client.cut()
        await nothing_is_left(node)
        await client.connect(node)
        await world.until(lambda: client.of(A) == ["one"])


@pytest.mark.parametrize("count", range(28))
async def test_who_comes_back_while_the_broker_goes_away_leaves_nothing_behind(make: Make, count: int) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a", "b", user="u")
        client.cut()
        await node.say("a", "one")
        slow(node)
        client.dial(node)
        await steps(count)
        world.memory.faults.go_away()
        await advance(100)
        world.memory.faults.come_back()
        await advance(10)
        client.cut()
        await nothing_is_left(node)
        await client.connect(node)
        await world.until(lambda: client.of(A) == ["one"])


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("count", range(28))
async def test_a_stock_client_that_goes_on_its_way_back_leaves_nothing_behind(
    make: Make, count: int, away: bool
) -> None:
    async with make(connection_state_recovery=True) as world:
        node = await world.node()
        client = Stock("u")
        await client.connect(node)
        await node.namespace.to(client.id).join("a")
        client.cut()
        await node.say("a", "one")
        slow(node)
        client.dial(node)
        await steps(count)
        if away:
            world.memory.faults.go_away()
            await advance(100)
            world.memory.faults.come_back()
            await advance(10)
        client.cut()
        await nothing_is_left(node)
        await client.connect(node)
        await advance(1)
        assert client.recovered
        assert client.labels == ["one"]
        client.cut()


async def test_who_goes_while_it_still_reads_what_it_left_leaves_nothing_behind(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a")
        assert client.connection is not None
        client.connection.carrier.stalled = True
        await node.say("a", "." * 100_000)
        await advance(0.1)
        await node.say("a", "more")
        await node.leave(client, "a")
        client.cut()
        await nothing_is_left(node)


# --- those who are put out, or in, while they come back


@pytest.mark.parametrize("count", range(28))
async def test_who_is_put_out_on_its_way_back_is_out(make: Make, count: int) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a", "b", user="u")
        client.cut()
        await node.say("a", "for members")
        slow(node)
        client.dial(node)
        await steps(count)
        found = await node.namespace.user("u").sockets()
        await node.namespace.user("u").leave("a")
        await advance(1)
        assert client.of(A) == ["for members"]
        if found:
            assert node.socket(client).rooms == {"b"}
            await node.say("a", "for others")
            await node.say("b", "for those in b")
            await advance(1)
            assert client.of(A) == ["for members"]
            assert client.labels[-1] == "for those in b"


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("count", range(28))
async def test_who_is_put_in_on_its_way_back_is_in(make: Make, count: int, before: bool) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a", "b", user="u")
        await node.say("a", "one")
        await advance(1)
        if before:
            await node.leave(client, "a")
            await node.say("a", "for others")
            client.cut()
        else:
            client.cut()
            await node.say("a", "two")
        slow(node)
        client.dial(node)
        await steps(count)
        found = await node.namespace.user("u").sockets()
        await node.namespace.user("u").join("a")
        await node.namespace.user("u").join("c")
        await advance(1)
        if found:
            assert node.socket(client).rooms == {"a", "b", "c"}
            for room in ("a", "b", "c"):
                await node.say(room, f"in {room}")
            await advance(1)
            assert client.of(A) == ["one", *([] if before else ["two"]), "in a"]
            assert client.labels[-2:] == ["in b", "in c"]


@pytest.mark.parametrize("count", range(28))
async def test_a_stock_client_that_is_put_out_on_its_way_back_is_out(make: Make, count: int) -> None:
    async with make(connection_state_recovery=True) as world:
        node = await world.node()
        client = Stock("u")
        await client.connect(node)
        await node.namespace.user("u").join("a")
        client.cut()
        slow(node)
        client.dial(node)
        await steps(count)
        found = await node.namespace.user("u").sockets()
        world.forbidden.add(("u", "a"))
        await node.namespace.user("u").leave("a")
        await advance(1)
        await node.say("a", "for others")
        await node.namespace.user("u").emit(SAY, "for the user")
        await advance(1)
        assert client.labels == ["for the user"]
        assert not found or client.connected
        client.cut()
        await nothing_is_left(node)


async def test_a_volatile_event_passes_by_a_stock_client_that_has_proved_nothing_yet(make: Make) -> None:
    async with make(connection_state_recovery=True) as world:
        node = await world.node()
        client = Stock("u")
        await client.connect(node)
        await node.namespace.user("u").join("a")
        client.cut()
        await node.say("a", "one")  # to prove where it stands, this has to be read
        slow(node)
        client.dial(node)
        emits = []
        for _ in range(28):
            await advance(WAY)
            emits.append(world.spawn(node.namespace.emit(BLINK, "now")))
        await asyncio.gather(*emits)
        await advance(1)
        assert client.recovered
        assert set(client.labels) <= {"one", "now"}
        client.cut()


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("count", range(0, 28, 2))
async def test_who_comes_back_twice_at_once_is_there_once(
    make: Make, count: int, elsewhere: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with make() as world:
        node, other = await world.node(), await world.node()
        client = await world.client(node, "a", "b", user="u")
        client.cut()
        await node.say("b", "one")
        world.forbidden.add(("u", "a"))  # to be put out of a room is written down
        slow(node)
        slow(other)
        first = client.dial(node)
        await steps(count)
        client.connection = None
        client.dial(other if elsewhere else node)
        await advance(2)
        first.drop()
        await advance(1)
        await node.say("b", "two")
        await advance(1)
        if client.connection is None:
            assert elsewhere  # the first may be the later one there
            await client.connect(node)
            await advance(1)
        assert client.of(stream("b")) == ["one", "two"]
        assert client.resumed
        assert not [record for record in caplog.records if record.exc_info]
        client.cut()
        await nothing_is_left(node)
        await nothing_is_left(other)
