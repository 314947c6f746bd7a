"""Attacks on what recovers while the broker fails over: tabs, leaves, forks and resumes on two nodes at bad moments."""

from functools import partial
from pathlib import Path

import pytest

from bellwire import Socket
from bellwire.server.recovery import CHECK_SECONDS
from bellwire.testing.clock import advance
from tests.guarantee.world import SAY, Make, Node, World, stream, stream_of_all, stream_of_user, world_on
from tests.server.midway import A, newcomer, slow, steps
from tests.server.stock import Stock

B = stream("b")

both_kinds = pytest.mark.parametrize("same", [False, True], ids=["noticed", "unnoticed"])
"""Whether the generation changes with the failover."""


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return partial(world_on, "memory", tmp_path)


async def fail_over(world: World, node: Node, *, same: bool, name: str = A, room: str = "a") -> None:
    """Take the newest entry of a room back, and say something else in its place of which nobody hears for a while."""
    world.memory.faults.lose_tail(name, 1, same_generation=same)
    world.memory.faults.lose_live(name)
    await node.say(room, "instead")


# --- tabs and programs


@both_kinds
async def test_a_duplicated_tab_that_comes_from_a_phantom_is_told_as_its_original_is(make: Make, same: bool) -> None:
    async with make() as world:
        node = await world.node()
        tab = await world.client(node, "a")
        await node.say("a", "one", "phantom")
        await advance(1)
        await fail_over(world, node, same=same)
        copy = tab.duplicated("copy")
        await copy.connect(node)
        await advance(1)
        await node.say("a", "two")
        await advance(1)
        assert tab.of(A) == ["one", "phantom", "[diverged]", "instead", "two"]
        assert copy.of(A)[0] == "[diverged]"
        assert copy.of(A)[-2:] == ["instead", "two"]


@both_kinds
@pytest.mark.parametrize("count", range(10))
async def test_a_tab_is_duplicated_while_its_original_leaves_behind_a_failover(
    make: Make, same: bool, count: int
) -> None:
    async with make() as world:
        node = await world.node()
        tab = await world.client(node, "a")
        await node.say("a", "one", "phantom")
        await advance(1)
        await fail_over(world, node, same=same)
        slow(node)
        copy = tab.duplicated("copy")
        copy.dial(node)
        await steps(count)
        leaving = world.spawn(node.leave(tab, "a"))
        await advance(10)
        assert leaving.done()
        for client in (tab, copy):
            assert "[diverged]" in client.of(A)
            assert client.of(A)[-1] == "instead"
            assert client.of(A).count("instead") == 1


@both_kinds
async def test_a_program_that_crashes_before_it_is_told_of_a_failover_is_told(make: Make, same: bool) -> None:
    async with make() as world:
        one, two = await world.node(), await world.node()
        client = await world.client(one, "a")
        await one.say("a", "one", "phantom")
        await advance(1)
        await fail_over(world, one, same=same)
        assert client.connection is not None
        client.connection.deaf = True
        await advance(40)  # the probe finds out, and says so to nobody
        client.crash()
        await client.connect(two)
        await advance(1)
        assert client.of(A)[:3] == ["one", "phantom", "[diverged]"]
        assert client.of(A)[-1] == "instead"


@both_kinds
async def test_a_reset_that_is_lost_on_the_way_again_and_again_is_told_in_the_end_and_once(
    make: Make, same: bool
) -> None:
    async with make() as world:
        nodes = [await world.node(), await world.node()]
        client = await world.client(nodes[0], "a")
        await nodes[0].say("a", "one", "phantom")
        await advance(1)
        client.cut()
        await fail_over(world, nodes[0], same=same)
        for n in range(6):
            client.dial(nodes[n % 2]).deaf = True
            await advance(1)
            client.cut()
        await client.connect(nodes[1])
        await advance(1)
        assert client.of(A) == ["one", "phantom", "[diverged]", "instead"]


# --- streams that nobody joins


@both_kinds
async def test_the_streams_of_everyone_of_a_user_and_of_a_socket_are_told_of_as_rooms_are(
    make: Make, same: bool
) -> None:
    async with make() as world:
        one, two = await world.node(), await world.node()
        client = await world.client(one, user="u")
        own = stream(client.id)
        targets = {
            stream_of_all(): one.namespace,
            stream_of_user("u"): one.namespace.user("u"),
            own: one.namespace.to(client.id),
        }
        for target in targets.values():
            await target.emit(SAY, "phantom")
        await advance(1)
        client.cut()
        for name, target in targets.items():
            world.memory.faults.lose_tail(name, 1, same_generation=same)
            await target.emit(SAY, "instead")
        await client.connect(two)
        await advance(1)
        assert [client.of(name) for name in targets] == [["phantom", "[diverged]", "instead"]] * 3


# --- stock clients


@both_kinds
@pytest.mark.parametrize("away", [False, True])
async def test_a_stock_client_that_has_a_phantom_starts_over(make: Make, same: bool, away: bool) -> None:
    async with make(connection_state_recovery=True) as world:
        one, two = await world.node(), await world.node()
        client = Stock("u")
        await client.connect(one)
        await one.namespace.to(client.id).join("a")
        await one.say("a", "one", "phantom")
        await advance(1)
        if away:
            client.cut()
        await fail_over(world, one, same=same)
        if not away:
            await one.say("a", "two")  # does not follow on what the client has
            await advance(1)
            assert client.connection.reason is not None
        await client.connect(two)
        await advance(1)
        assert not client.recovered
        assert client.labels == ["one", "phantom"]
        client.cut()


@both_kinds
async def test_a_stock_client_that_left_behind_a_failover_starts_over(make: Make, same: bool) -> None:
    async with make(connection_state_recovery=True) as world:
        one, two = await world.node(), await world.node()
        client = Stock("u")
        await client.connect(one)
        await one.namespace.to(client.id).join("a")
        await one.say("a", "one", "phantom")
        await advance(1)
        client.deaf = True
        await fail_over(world, one, same=same)
        await one.namespace.to(client.id).leave("a")
        await advance(1)
        client.cut()
        await client.connect(two)
        await advance(1)
        assert not client.recovered
        client.cut()


@both_kinds
async def test_a_stock_client_that_starts_over_as_it_comes_back_is_not_looked_after_any_more(
    make: Make, same: bool
) -> None:
    """Its offset was to be looked at every second: the timer would find nobody there, and fail."""
    async with make(connection_state_recovery=True) as world:
        node = await world.node()

        @node.namespace.on_connect
        async def came(socket: Socket) -> None:
            if socket.recovered:
                await fail_over(world, node, same=same)
                await node.say("a", "two")

        client = Stock("u")
        await client.connect(node)
        await node.namespace.to(client.id).join("a")
        await node.say("a", "one", "phantom")
        await advance(1)
        client.cut()
        await client.connect(node)
        await advance(2 * CHECK_SECONDS)
        assert client.recovered
        assert client.connection.reason is not None


@both_kinds
async def test_what_is_emitted_as_a_stock_client_starts_over_comes_behind_what_the_others_lack(
    make: Make, same: bool
) -> None:
    async with make(connection_state_recovery=True) as world:
        node = await world.node()
        room = node.namespace.to("a")

        @node.namespace.on_disconnect
        async def left(socket: Socket, reason: str) -> None:
            await room.emit(SAY, "left")

        client, other = Stock("u"), Stock("v")
        for stock in (client, other):
            await stock.connect(node)
            await node.namespace.to(stock.id).join("a")
        await node.say("a", "one")
        await room.except_(other.id).emit(SAY, "phantom")
        await advance(1)
        await fail_over(world, node, same=same)
        await node.say("a", "two")
        await node.say("a", "three")
        await advance(1)
        assert client.connection.reason is not None
        assert other.labels == ["one", "instead", "two", "left", "three"]
        other.cut()


# --- several rooms


@both_kinds
@pytest.mark.parametrize("count", range(8))
async def test_an_event_to_two_rooms_of_which_the_first_fails_over_meanwhile_comes_once(
    make: Make, same: bool, count: int
) -> None:
    async with make() as world:
        node = await world.node()
        member, second = await world.client(node, "a", "b"), await world.client(node, "b")
        await node.say("a", "one", "phantom")
        await advance(1)
        slow(node)
        emitting = world.spawn(node.namespace.to("a", "b").emit(SAY, "both"))
        await steps(count)
        world.memory.faults.lose_tail(A, 1, same_generation=same)
        await advance(10)
        assert emitting.done()
        await advance(60)
        assert second.of(B) == ["both"]
        assert member.labels.count("both") == 1


@pytest.mark.parametrize("again", [False, True])
async def test_who_left_and_came_back_around_a_failover_has_the_copy_that_is_for_it(make: Make, again: bool) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a", "b")
        await world.client(node, "a")
        await node.say("a", "one", "two", "three")
        await node.leave(client, "a")
        world.memory.faults.lose_tail(A, 3)
        await node.say("a", "for others")
        await node.say("a+b", "both")
        if again:
            await node.join(client, "a")
            await node.say("a+b", "and again")
        await advance(1)
        assert client.of(B) == ["both"]
        assert client.of(A) == ["one", "two", "three", *(["and again"] if again else [])]


# --- resumes


@pytest.mark.parametrize("count", range(0, 24, 2))
@pytest.mark.parametrize("counting", [False, True])
async def test_of_three_resumes_on_two_nodes_the_newest_has_the_session(make: Make, count: int, counting: bool) -> None:
    async with make() as world:
        one, two = await world.node(), await world.node()
        client = await world.client(one, "a")
        client.counting = counting
        client.cut()
        await one.say("a", "missed")
        one.broker.latency, two.broker.latency = (lambda: 0.05), (lambda: 0.02)
        for node in (one, two, one):
            if client.connection is not None:
                client.leave_half_open()
            client.dial(node)
            await steps(count)
        await advance(10)
        for node in (one, two):
            node.broker.latency = lambda: 0.0
        assert client.connected
        newest = client.connection
        await one.join(client, "b")
        await one.say("b", "said")
        await advance(1)
        assert client.connection is newest
        assert client.of(A) == ["missed"]
        assert client.of(B) == ["said"]


@both_kinds
@pytest.mark.parametrize("count", range(16))
async def test_a_failover_while_a_client_comes_back_is_told_or_has_taken_nothing_from_it(
    make: Make, same: bool, count: int
) -> None:
    async with make() as world:
        one, two = await world.node(), await world.node()
        client = await world.client(one, "a")
        await one.say("a", "one", "phantom")
        await advance(1)
        client.cut()
        slow(two)
        client.dial(two)
        await steps(count)
        world.memory.faults.lose_tail(A, 1, same_generation=same)
        await one.say("a", "instead", "two")
        await advance(60)
        assert client.of(A) == ["one", "phantom", "[diverged]", "instead", "two"]


@both_kinds
@pytest.mark.parametrize("count", range(12))
async def test_a_failover_while_a_client_joins_shows_it_nothing_from_before(make: Make, same: bool, count: int) -> None:
    async with make() as world:
        one, two = await world.node(), await world.node()
        await world.client(one, "a")
        await one.say("a", "hidden", "hidden too")
        client = newcomer(world)
        await client.connect(two)
        slow(two)
        joining = world.spawn(two.join(client, "a"))
        await steps(count)
        world.memory.faults.lose_tail(A, 1, same_generation=same)
        await advance(10)
        assert joining.done()
        await one.say("a", "shown")
        await advance(60)
        await one.say("a", "shown too")
        await advance(1)
        told = [["[diverged]", "shown", "shown too"], ["shown", "shown too"]]
        if same:  # of what has the number of its own first place, nobody knows when it came
            told.append(["[diverged]", "shown too"])
        assert client.of(A) in told


@both_kinds
async def test_an_ask_while_a_failover_is_looked_into_is_answered_by_what_the_log_has(make: Make, same: bool) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a")
        await node.say("a", "one", "phantom")
        await advance(1)
        await fail_over(world, node, same=same)
        slow(node)
        await node.namespace.to("a").emit(SAY, "two")
        for _ in range(8):
            client.receiver._tracks[A].asked = False
            client._down(client.receiver._tracks[A].ask())
            await steps(1)
        await advance(10)
        assert client.of(A) == ["one", "phantom", "[diverged]", "instead", "two"]


# --- sessions that fall back


async def test_a_session_that_fell_back_behind_a_join_is_told_of_the_room(make: Make) -> None:
    async with make() as world:
        one, two = await world.node(), await world.node()
        client = await world.client(one)
        before = world.memory.faults.keys()
        await one.join(client, "a")
        await one.say("a", "one")
        await advance(1)
        client.leave_half_open()
        world.memory.faults.take_back(before)
        await one.say("a", "two")
        await client.connect(two)
        await advance(1)
        assert client.of(A) in (["one", "[truncated]"], ["one", "two"])


async def test_a_session_that_fell_back_behind_its_newest_connection_is_not_taken_by_an_older_one(make: Make) -> None:
    async with make() as world:
        one, two = await world.node(), await world.node()
        client = await world.client(one, "a")
        client.cut()
        before = world.memory.faults.keys()
        one.broker.latency = lambda: 2.0
        client.dial(one)
        await advance(0.5)
        client.leave_half_open()
        await client.connect(two)
        world.memory.faults.take_back(before)
        await advance(60)
        await two.join(client, "b")
        await two.say("a+b", "said")
        await advance(1)
        assert client.of(A) == ["said"]
