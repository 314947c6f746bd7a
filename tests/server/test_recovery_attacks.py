"""Attacks on what recovers, and sequences in which something could be lost, doubled or shown to the wrong client."""

from functools import partial
from pathlib import Path

import pytest

from bellwire.brokers import guest
from bellwire.delivery.answer import Page
from bellwire.delivery.position import Position
from bellwire.delivery.receiver import Receiver
from bellwire.delivery.session import MAX_LEFT, MAX_LOST
from bellwire.protocol import wire
from bellwire.protocol.embedding import Hello, encode_hello, encode_message
from bellwire.protocol.socketio import encode_disconnect
from bellwire.server.reader import MAX_STREAMS, Reader
from bellwire.server.register import KEY as REGISTER
from bellwire.testing import TestClient
from bellwire.testing.clock import advance
from bellwire.transports.base import Request
from tests.guarantee.client import NAMESPACE, Client, Opened
from tests.guarantee.world import CONFIRM, SAY, Make, Node, World, stream, world_on
from tests.server.midway import WAY, A, nothing_is_left, slow
from tests.server.stock import Stock


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return partial(world_on, "memory", tmp_path)


# --- what is told first


async def test_a_new_session_is_in_its_streams_though_the_client_comes_from_them(make: Make) -> None:
    """The streams of everyone and of a user have the same names in both sessions."""
    async with make() as world:
        node = await world.node()
        client = await world.client(node, user="u")
        client.cut()
        await advance(node.server.config.session_lifetime + 1)
        await client.connect(node)
        await node.namespace.emit(SAY, "to all")
        await node.namespace.user("u").emit(SAY, "to the user")
        await advance(1)
        assert client.labels[-2:] == ["to all", "to the user"]
        assert all(reset.reason == "session_lost" for reset in client.resets)


# --- what is not for them

CLAIMS = ["the start", "an entry", "a wrong tag", "far beyond", "another log", "the start of another log"]


async def claimed(world: World, claim: str) -> Position:
    """A position in a room that somebody claims who was never there."""
    gen = (await world.memory.broker.top(A)).gen
    page = await world.memory.broker.read(A, Position(gen, 0, 0))
    assert isinstance(page, Page)
    first = page.entries[1]
    return {
        "the start": Position(gen, 0, 0),
        "an entry": Position(gen, first.seq, first.tag),
        "a wrong tag": Position(gen, first.seq, first.tag ^ 1),
        "far beyond": Position(gen, 2**53 - 1, 1),
        "another log": Position("another", first.seq, first.tag),
        "the start of another log": Position("another", 0, 0),
    }[claim]


async def come_from(client: Client, node: Node, at: Position, *, ask: bool) -> None:
    """Let a client that is connected say that it stands there."""
    if ask:
        assert client.connection is not None
        client.connection.send(encode_message(NAMESPACE, wire.Ask(A, *at)))
    else:
        client.cut()
        client.receiver = Receiver()
        client.receiver.open(A, at)
        await client.connect(node)
    await advance(1)


@pytest.mark.parametrize("ask", [False, True])
@pytest.mark.parametrize("claim", CLAIMS)
async def test_nobody_is_shown_what_was_emitted_before_it_was_a_member(make: Make, claim: str, ask: bool) -> None:
    async with make() as world:
        node = await world.node()
        await world.client(node, "a")
        await node.say("a", "hidden 1", "hidden 2")
        client = await world.client(node, "a")
        await node.say("a", "shown")
        await come_from(client, node, await claimed(world, claim), ask=ask)
        assert client.connection is not None
        assert "hidden" not in "".join(client.connection.wire)
        assert client.of(A).count("shown") == 1
        # It is told that something is missing, or that it begins where it became a member.
        opened = [event for event in client.history if isinstance(event, Opened) and event.stream == A]
        assert client.resets or len(opened) == 2


@pytest.mark.parametrize("ask", [False, True])
@pytest.mark.parametrize("claim", CLAIMS)
async def test_nobody_is_shown_what_was_emitted_between_two_memberships(make: Make, claim: str, ask: bool) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a")
        await node.say("a", "shown 1")
        await node.leave(client, "a")
        await advance(1)
        client.cut()
        await client.connect(node)  # and with that it has told that it has all of its first stay
        await world.client(node, "a")
        await node.say("a", "hidden")
        await node.join(client, "a")
        await node.say("a", "shown 2")
        await come_from(client, node, await claimed(world, claim), ask=ask)
        assert client.connection is not None
        assert "hidden" not in "".join(client.connection.wire)
        assert client.of(A).count("shown 2") == 1


async def test_a_claim_that_was_not_looked_at_yet_shows_nothing_to_who_leaves(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        await world.client(node, "a")
        await node.say("a", "hidden")
        client = await world.client(node, "a")
        assert client.connection is not None
        client.connection.carrier.stalled = True
        await node.namespace.to(client.id).emit(SAY, "." * 100_000)
        await advance(1)
        await come_from(client, node, await claimed(world, "a wrong tag"), ask=True)
        await node.say("a", "shown")
        await node.leave(client, "a")
        client.connection.carrier.resume()
        await advance(1)
        assert "hidden" not in "".join(client.connection.wire)
        assert client.of(A).count("shown") == 1


# --- where a failover took back what a node has


async def behind_a_failover(world: World, node: Node, *, same: bool) -> None:
    """The node has two entries of the room that were taken back; what was said in their place it has not heard of."""
    await node.say("a", "one", "two", "three")
    await advance(1)
    world.memory.faults.lose_tail(A, 2, same_generation=same)
    world.memory.faults.lose_live(A)
    await node.say("a", "instead")
    await advance(1)


@pytest.mark.parametrize("same", [False, True])
async def test_who_leaves_where_a_failover_took_back_what_it_has_is_told_and_has_what_came_instead(
    make: Make, same: bool
) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a")
        await behind_a_failover(world, node, same=same)
        await node.leave(client, "a")
        await node.say("a", "for others")
        await advance(1)
        assert client.of(A) == ["one", "two", "three", "[diverged]", "instead"]


@pytest.mark.parametrize("same", [False, True])
async def test_who_left_there_and_was_not_told_is_told_on_another_node(make: Make, same: bool) -> None:
    async with make() as world:
        one, two = await world.node(), await world.node()
        client = await world.client(one, "a")
        await behind_a_failover(world, one, same=same)
        old = one.socket(client)
        client.leave_half_open()
        await old.leave("a")
        await advance(1)
        await client.connect(two)
        await advance(1)
        assert client.of(A) == ["one", "two", "three", "[diverged]", "instead"]


@pytest.mark.parametrize("same", [False, True])
async def test_who_joins_where_a_failover_took_back_what_a_node_has_is_not_shown_what_came_before(
    make: Make, same: bool
) -> None:
    async with make() as world:
        node = await world.node()
        await world.client(node, "a")
        await behind_a_failover(world, node, same=same)
        client = await world.client(node, "a")
        await node.say("a", "shown")
        await advance(1)
        assert client.of(A) == ["shown"]


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_position_that_was_taken_back_is_none_to_join_or_leave_at_though_nothing_came_instead(
    make: Make, leaves: bool
) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a")
        await node.say("a", "one", "two")
        await advance(1)
        world.memory.faults.lose_tail(A, 1, same_generation=True)
        if leaves:
            await node.leave(client, "a")
            await node.say("a", "for others")
        else:
            newcomer = await world.client(node, "a")
            await node.say("a", "instead", "shown")
            await advance(1)
            assert newcomer.of(A) == ["instead", "shown"]
        await advance(1)
        assert client.of(A) == ["one", "two", "[diverged]", *([] if leaves else ["instead", "shown"])]


async def test_a_stay_that_is_over_does_not_hold_what_a_failover_gave_its_numbers_to(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a", "b")
        await node.say("a", "one", "two", "three")
        await node.leave(client, "a")
        world.memory.faults.lose_tail(A, 3)
        await node.say("a+b", "both")
        await advance(1)
        assert client.of(stream("b")) == ["both"]


async def test_a_copy_that_a_failover_took_back_is_not_held_by_a_stay_that_began_later(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        await world.client(node, "a")
        await node.say("a", "one")
        client = await a_slow_client(world, node)
        await node.join(client, "b")
        await node.say("a+b", "both")
        world.memory.faults.lose_tail(A, 2)
        await node.join(client, "a")
        assert client.connection is not None
        client.connection.carrier.resume()
        await advance(1)
        assert client.of(stream("b")) == ["both"]


# --- those who ask


async def _ask_without_end(client: Client) -> None:
    number = 0
    while True:
        number += 1
        assert client.connection is not None
        client.connection.send(encode_message(NAMESPACE, wire.Ask(A, "another", 7, number)))
        await advance(WAY / 4)


async def test_who_asks_without_end_keeps_nobody_else_waiting(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        attacker, member, late = [await world.client(node, "a") for _ in range(3)]
        late.cut()
        await node.say("a", "one")
        slow(node)
        asking = world.spawn(_ask_without_end(attacker))
        await advance(1)
        late.dial(node)
        await advance(5)
        assert late.of(A) == ["one"]
        node.broker.losing[A] = 1
        await node.say("a", "lost on the way", "two")
        await advance(5)
        assert member.of(A) == late.of(A) == ["one", "lost on the way", "two"]
        asking.cancel()


# --- those who join and leave without end

MANY = 1_100


async def a_slow_client(world: World, node: Node) -> Client:
    """A client that has not read what it was sent, and that gets nothing more until it has."""
    client = await world.client(node)
    assert client.connection is not None
    client.connection.carrier.stalled = True
    await node.namespace.to(client.id).emit(SAY, "." * 100_000)
    await advance(0.1)
    return client


def reader_of(node: Node, client: Client) -> Reader:
    reader = node.socket(client).reader
    assert reader is not None
    return reader


async def test_what_is_kept_of_rooms_that_were_left_is_bounded(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node)
        for n in range(MANY):
            await node.join(client, f"room {n}")
            await node.leave(client, f"room {n}")
        reader = reader_of(node, client)
        assert len(reader.spans) <= MAX_STREAMS
        assert len(node.namespace.hub(NAMESPACE).streams) == len(reader._rooms) == 2
        assert not reader._fresh
        assert len(reader.session.record.left) <= MAX_LEFT


async def test_who_is_in_more_rooms_than_are_remembered_gets_what_comes_there(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bellwire.server.reader.MAX_STREAMS", 4)
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "left", *"abcde")
        await node.leave(client, "left")
        await node.join(client, "f")
        client.cut()
        await client.connect(node)
        for room in "abcdef":
            await node.say(room, room)
        await advance(1)
        assert client.labels == [*"abcdef"]


async def test_a_slow_client_has_so_many_rooms_to_read_to_the_end_and_is_told_what_it_misses(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await a_slow_client(world, node)
        for n in range(MAX_LEFT + 2):
            await node.join(client, f"room {n}")
            await node.say(f"room {n}", f"in {n}")
            await node.leave(client, f"room {n}")
        assert len(node.namespace.hub(NAMESPACE).streams) == MAX_LEFT + 2
        assert client.connection is not None
        client.connection.carrier.resume()
        await advance(1)
        assert [reset.reason for reset in client.resets] == ["too_far", "too_far"]
        assert [client.of(stream(f"room {n}")) for n in (0, 1)] == [["[too_far]"]] * 2
        assert all(client.of(stream(f"room {n}")) == [f"in {n}"] for n in range(2, MAX_LEFT + 2))
        client.cut()
        await nothing_is_left(node)


async def visits(node: Node, client: Client | Stock, count: int) -> None:
    """While it is away, what was begun for a client has it visit rooms of which it never hears."""
    socket = node.namespace.hub(NAMESPACE).sockets[client.id]
    client.cut()
    for n in range(count):
        await socket.join(f"room {n}")
        await node.say(f"room {n}", f"in {n}")
        await socket.leave(f"room {n}")


@pytest.mark.parametrize("again", [False, True])
async def test_a_client_is_told_of_a_room_that_it_never_heard_of_if_it_misses_what_was_said_there(
    make: Make, again: bool
) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node)
        await visits(node, client, MAX_LEFT + 2)
        if again:  # what it is told is lost on the way
            client.dial(node)
            await advance(0)
            client.leave_half_open()
            await advance(1)
        for _ in range(2):  # and once only
            await client.connect(node)
            await advance(1)
            assert [client.of(stream(f"room {n}")) for n in (0, 1)] == [["[too_far]"]] * 2
            assert all(client.of(stream(f"room {n}")) == [f"in {n}"] for n in range(2, MAX_LEFT + 2))
            client.cut()


async def test_a_client_is_told_that_it_misses_a_former_stay_in_a_room_that_it_has_joined_again(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node)
        socket = node.socket(client)
        await visits(node, client, MAX_LEFT + 2)
        await socket.join("room 1")
        await node.say("room 1", "again")
        await client.connect(node)
        await advance(1)
        assert client.of(stream("room 1")) == ["[too_far]", "again"]
        client.cut()
        await client.connect(node)
        await advance(1)
        assert client.of(stream("room 1")) == ["[too_far]", "again"]


async def test_a_client_that_misses_more_than_it_can_be_told_has_a_new_session(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node)
        await visits(node, client, MAX_LEFT + MAX_LOST + 1)
        await client.connect(node)
        await advance(1)
        assert not client.resumed
        assert {reset.reason for reset in client.resets} == {"session_lost"}


async def test_a_client_that_has_all_of_many_rooms_that_it_left_is_told_of_none(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node)
        for n in range(MAX_LEFT + 50):
            await node.join(client, f"room {n}")
            await node.say(f"room {n}", f"in {n}")
            await node.leave(client, f"room {n}")
        await advance(1)
        for _ in range(2):
            client.cut()
            await client.connect(node)
            await advance(1)
        assert client.labels == [f"in {n}" for n in range(MAX_LEFT + 50)]
        assert not node.socket(client).reader.session.record.lost  # type: ignore[union-attr]


@pytest.mark.parametrize("count", [MAX_LEFT, MAX_LEFT + 1])
async def test_a_stock_client_that_misses_a_room_that_it_never_heard_of_starts_over(make: Make, count: int) -> None:
    async with make(connection_state_recovery=True) as world:
        node = await world.node()
        client = Stock("u")
        await client.connect(node)
        await visits(node, client, count)
        await client.connect(node)
        await advance(1)
        assert client.recovered is (count == MAX_LEFT)
        assert (f"in {count - 1}" in client.labels) is client.recovered
        client.cut()


async def test_a_stock_client_that_has_all_of_many_rooms_that_it_left_recovers(make: Make) -> None:
    async with make(connection_state_recovery=True) as world:
        node = await world.node()
        client = Stock("u")
        await client.connect(node)
        itself = node.namespace.to(client.id)
        for n in range(MAX_LEFT + 50):
            await itself.join(f"room {n}")
            await node.say(f"room {n}", f"in {n}")
            await advance(0.1)
            await itself.leave(f"room {n}")
        await itself.emit(SAY, "last")
        await advance(2)
        client.cut()
        await client.connect(node)
        await advance(1)
        assert client.recovered
        assert client.labels == [*(f"in {n}" for n in range(MAX_LEFT + 50)), "last"]
        client.cut()


async def test_a_slow_client_has_so_many_stays_in_a_room_to_read_and_is_told_what_it_misses(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await a_slow_client(world, node)
        for n in range(30):
            await node.join(client, "a")
            await node.say("a", str(n))
            await node.leave(client, "a")
            await node.say("a", "for others")
        await node.join(client, "a")
        await node.say("a", "last")
        assert len(reader_of(node, client)._to_come[A]) <= 8
        assert client.connection is not None
        client.connection.carrier.resume()
        await advance(1)
        got = client.of(A)
        assert got[-1] == "last"
        said = [label for label in got if label.isdigit()]
        assert said == [str(n) for n in range(int(said[0]), 30)]
        assert got[: -len(said) - 1] == ["[too_far]"] * (int(said[0]) // 9)


async def test_a_stock_client_that_is_too_slow_for_its_rooms_starts_over(make: Make) -> None:
    async with make(connection_state_recovery=True) as world:
        node = await world.node()
        client = Stock("u")
        await client.connect(node)
        client.connection.carrier.stalled = True
        itself = node.namespace.to(client.id)
        await itself.emit(SAY, "." * 100_000)
        await advance(0.1)
        for n in range(MAX_LEFT + 1):
            await itself.join(f"room {n}")
            await node.say(f"room {n}", f"in {n}")
            await itself.leave(f"room {n}")
        assert client.connection.reason is not None
        await nothing_is_left(node)
        await client.connect(node)
        assert not client.recovered
        client.cut()


async def test_a_call_reaches_who_comes_back_to_events_that_it_has_elsewhere(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await a_slow_client(world, node)
        await node.join(client, "a")
        await node.say(f"a+{client.id}", "both")
        call = world.spawn(node.socket(client).call(CONFIRM, "called", timeout=20))
        await advance(0.1)
        assert client.connection is not None
        client.connection.carrier.resume()
        await advance(1)
        assert client.of(A) == ["both"]
        assert client.passed == ["called"]
        assert call.done()


# --- what was sent, and not received or not handled


@pytest.mark.parametrize("again", [False, True])
async def test_what_a_program_had_received_and_not_handled_comes_again_though_it_left(make: Make, again: bool) -> None:
    """It says what it has received when it comes back, and crashes behind that."""
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a")
        client.busy = True
        await node.say("a", "one", "two")
        await advance(1)
        await node.leave(client, "a")
        client.cut()
        await client.connect(node)
        await advance(1)
        if again:
            await node.say("a", "for others")
            await node.join(client, "a")
            await node.say("a", "three")
            await advance(1)
        client.crash()
        client.busy = False
        await client.connect(node)
        await advance(1)
        assert client.of(A) == ["one", "two", *(["three"] if again else [])]


async def test_what_a_stock_client_was_sent_and_has_not_received_comes_again_though_it_left(make: Make) -> None:
    async with make(connection_state_recovery=True) as world:
        node = await world.node()
        client = Stock("u")
        await client.connect(node)
        itself = node.namespace.to(client.id)
        for room in ("a", "b"):
            await itself.join(room)
        await node.say("a", "one")
        await advance(1)
        client.deaf = True
        await node.say("a", "two")
        await node.say("b", "in b")
        await itself.leave("a")
        await advance(1)
        client.cut()
        for _ in range(2):
            await advance(1)
            await client.connect(node)
            await advance(1)
            assert client.recovered
            assert sorted(client.labels) == ["in b", "one", "two"]
            assert node.namespace.hub(NAMESPACE).sockets[client.id].rooms == {"b"}
            client.cut()
        await nothing_is_left(node)


async def test_a_client_that_comes_and_leaves_without_end_leaves_nothing_behind(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        broker = world.memory.broker
        client = TestClient(node.server, NAMESPACE)
        request = Request(path="/socket.io/", query_string=b"EIO=4&transport=websocket")
        client.carrier.session = node.server.engine.open(client.carrier, request)
        for _ in range(500):
            client.send(encode_hello(NAMESPACE, None, Hello(1, "instance", producer=None)))
            await advance()
            client.send(encode_disconnect(NAMESPACE))
            await advance()
        await advance(20)
        assert client.reason is None
        assert world.memory.faults.keys().keys() <= {guest.KEY, REGISTER}
        assert len(broker._logs) <= 1  # of everyone
        assert not len(node.namespace.runtime.leftovers)
        client.drop()
