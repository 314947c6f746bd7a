"""Stock clients that recover: what they are sent, and how they come back side by side."""

from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.delivery.offset import MAX_OTHERS, decode
from bellwire.protocol.post import Delivery, Post
from bellwire.server.dialects import Item
from bellwire.server.recovery import AT_CONNECT, CHECK_SECONDS, Recovering
from bellwire.testing.clock import advance
from tests.guarantee.world import Make, world_on
from tests.server.midway import slow, steps
from tests.server.stock import Stock


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return partial(world_on, "memory", tmp_path)


@pytest.mark.parametrize("count", range(12))
async def test_one_that_still_proves_where_it_stands_does_not_hold_up_the_others(
    make: Make, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with make(connection_state_recovery=True) as world:
        node = await world.node()
        clients = [Stock("a"), Stock("b")]
        for client in clients:
            await client.connect(node)
            await node.namespace.to(client.id).join("room")
        await node.say("room", "live")
        await advance(1)
        for client in clients:
            client.cut()
        await node.say("room", "missed")
        slow(node)
        for client in clients:
            client.dial(node)
            await steps(count)
        await node.say("room", "live again")
        await advance(10)
        for client in clients:
            assert client.recovered
            assert client.labels == ["live", "missed", "live again"]
            client.cut()
    assert not caplog.records


@pytest.mark.parametrize("comes_back", [False, True])
async def test_an_offset_that_has_grown_long_gives_way_to_a_checkpoint(make: Make, comes_back: bool) -> None:
    async with make(connection_state_recovery=True) as world:
        node = await world.node()
        client = Stock("u")
        await client.connect(node)
        rooms = [f"room {n}" for n in range(MAX_OTHERS + 2)]
        for room in rooms:
            await node.namespace.to(client.id).join(room)
        if comes_back:
            client.cut()
            await client.connect(node)
        for room in rooms:
            await node.say(room, room)
        await advance(2 * CHECK_SECONDS)
        await node.say("room 0", "last")
        await advance(1)
        assert client.offset is not None
        assert decode(client.offset).checkpoint
        assert len(decode(client.offset).entries) <= 2
        client.cut()
        await client.connect(node)
        assert client.recovered
        assert client.labels == [*rooms, "last"]


async def test_the_newest_connection_of_a_client_keeps_the_session_though_an_older_one_is_slower(make: Make) -> None:
    async with make(connection_state_recovery=True) as world:
        one, two = await world.node(), await world.node()
        client = Stock("u")
        await client.connect(one)
        await one.namespace.to(client.id).join("room")
        client.cut()
        await advance(1)
        one.broker.latency = lambda: 3.0
        given_up = client.dial(one)
        await advance(1)
        await client.connect(two)
        await advance(60)
        assert given_up.reason is not None
        await two.namespace.to(client.id).join("other")
        await two.say("room", "said")
        await advance(1)
        assert client.recovered
        assert client.labels == ["said"]
        assert client.connection.reason is None
        client.cut()


STREAMS = ("a" * 32, "b" * 32, "c" * 32)


def _items(streams: list[int | None]) -> list[Item]:
    """An event of each of these streams, in none for None."""
    items: list[Item] = []
    for number, stream in enumerate(streams, 1):
        post = Post("/", "say", (number,), binary=False)
        if stream is None:
            items.append(post)
        else:
            items.append(Delivery(post, STREAMS[stream], 6, "g", (0, 0), number, 7, "m", named=False))
    return items


def _one_by_one(items: list[Item]) -> tuple[list[str | bytes], Recovering]:
    parts: list[str | bytes] = []
    trail = AT_CONNECT
    for item in items:
        message, following = trail.deliver([item])
        assert isinstance(following, Recovering)
        parts += message.parts
        trail = following
    return parts, trail


@given(st.lists(st.sampled_from([0, 0, 0, 1, 2, None]), min_size=1, max_size=12))
def test_events_that_are_joined_have_the_offsets_that_they_have_apart(streams: list[int | None]) -> None:
    parts, trail = _one_by_one(_items(streams))
    message, following = AT_CONNECT.deliver(_items(streams))
    assert list(message.parts) == parts
    assert following is trail


@pytest.mark.parametrize(
    ("streams", "stands"),
    [([0, 0], {0: 2}), ([0, 1], {0: 1, 1: 2}), ([0, 1, 0], {0: 3, 1: 2}), ([0, 1, None], {0: 1, 1: 2})],
)
def test_the_last_offset_says_where_the_client_stands(streams: list[int | None], stands: dict[int, int]) -> None:
    message, _ = AT_CONNECT.deliver(_items(streams))
    offset = str(message.parts[-1]).rpartition(',"')[2].removesuffix('"]')
    entries = decode(offset).entries
    assert {stream: entry.seq for stream, entry in entries.items()} == {
        STREAMS[stream][:16]: seq for stream, seq in stands.items()
    }
