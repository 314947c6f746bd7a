"""How many connections a user has, over all nodes."""

import asyncio
from collections.abc import Sequence

import pytest

from bellwire import Config, ConnectRefused, Disconnected, OutcomeUnknown, Server
from bellwire.core.errors import NodesUnreachable
from bellwire.delivery.place import Place, decode_places, places_key
from bellwire.server.places import KEPT_SECONDS, PROBE_SECONDS
from bellwire.testing import TestClient, connect
from bellwire.testing.clock import advance
from tests.server.house import raw
from tests.server.lines import LEASE_OVER, Remote, lines
from tests.server.servers import HELLO, House, SharedBroker

OLDEST = Config(connections_per_user_policy="close_oldest")


def kept(broker: SharedBroker, user: str = "ada") -> tuple[Place, ...]:
    """What the broker has."""
    found = broker.faults.keys().get(places_key(user))
    return () if found is None else decode_places(found[0])


async def fill(*houses: House, count: int = 5, user: str = "ada") -> list[TestClient]:
    """Connections of one user, spread over the servers."""
    return [await houses[n % len(houses)].come(user=user) for n in range(count)]


async def is_refused(house: House, user: str = "ada") -> None:
    with pytest.raises(ConnectRefused) as refused:
        await house.come(user=user)
    assert refused.value.data == {"code": "too_many_connections", "limit": 5}


def go_silent(clients: Sequence[TestClient]) -> None:
    """They are half-open: nothing they are sent arrives, and they say nothing."""
    for client in clients:
        client.carrier.stalled = True


# --- counting


async def test_a_user_has_five_connections_in_the_cluster_and_no_sixth() -> None:
    async with lines() as (broker, (here, there)):
        clients = await fill(here, there)
        assert {place.node for place in kept(broker)} == {here.node, there.node}
        for house in (here, there):
            await is_refused(house)
            assert house.server.counters.get("connects_refused_total", reason="too_many_connections") == 1
            assert house.server.counters.get("connects_refused_total", reason="refused") == 0
        assert all(client.reason is None for client in clients)


async def test_a_place_is_free_when_its_connection_ends() -> None:
    async with lines() as (broker, (here, there)):
        clients = await fill(here, there)
        await clients[1].disconnect()
        clients[2].drop()
        await advance(0)
        assert len(kept(broker)) == 3
        await fill(here, there, count=2)
        await is_refused(here)
        for client in here.root.hub("/").sockets, there.root.hub("/").sockets:
            for socket in tuple(client.values()):
                await socket.disconnect()
        await advance(0)
        assert kept(broker) == ()
        assert len(here.runtime.places) == len(there.runtime.places) == 0


async def test_users_are_counted_for_themselves_and_guests_not_at_all() -> None:
    async with lines() as (broker, (here, there)):
        await fill(here, there)
        await fill(here, there, user="bob")
        for _ in range(10):
            await there.come()
        assert len(kept(broker, "bob")) == 5


async def test_a_connection_counts_once_in_however_many_namespaces_it_is() -> None:
    def furnish(house: Remote) -> None:
        house.server.namespace("/chat")

    async with lines(furnish=furnish) as (broker, (here, there)):
        clients = await fill(here, there)
        for client in clients:
            raw(client, "40/chat,")
        await advance(0)
        assert len(kept(broker)) == 5
        await clients[0].disconnect()
        await advance(0)
        assert len(kept(broker)) == 5
        raw(clients[0], "41/chat,")
        await advance(0)
        assert len(kept(broker)) == 4


async def test_several_connects_at_the_same_moment_get_no_more_than_there_are() -> None:
    async with lines() as (broker, (here, there)):
        coming = [asyncio.ensure_future(house.come(user="ada")) for house in (here, there) * 4]
        await asyncio.wait(coming)
        assert sum(task.exception() is None for task in coming) == 5
        assert len(kept(broker)) == 5


async def test_a_client_that_is_refused_later_gives_its_place_back() -> None:
    def furnish(house: Remote) -> None:
        @house.root.on_connect
        async def refuse(socket: object) -> None:
            raise ConnectRefused("no")

    async with lines(furnish=furnish) as (broker, (here, _)):
        with pytest.raises(ConnectRefused, match="no"):
            await here.come(user="ada")
        await advance(0)
        assert kept(broker) == ()


async def test_without_a_limit_nothing_is_kept() -> None:
    async with lines(config=Config(connections_per_user=0)) as (broker, (here, there)):
        await fill(here, there, count=20)
        assert kept(broker) == ()
        assert await here.runtime.places.nodes_of("ada") is None


async def test_a_user_of_many_connections_to_one_server_needs_no_other() -> None:
    server = Server(config=Config(connections_per_user=1))
    server.namespace("/")
    async with connect(server, user="ada"):
        with pytest.raises(ConnectRefused, match="close one of them"):
            async with connect(server, user="ada"):
                pass


# --- the other policy


async def test_the_oldest_connection_is_closed_for_good_wherever_it_is() -> None:
    async with lines(config=OLDEST) as (broker, (here, there)):
        clients = []
        for house in (here, there, here, there, here):
            clients.append(await house.come(user="ada"))
            await advance(1)
        newest = [await there.come(user="ada"), await there.come(user="ada")]
        await advance(0)
        assert [client.reason for client in clients[:2]] == ["io server disconnect"] * 2
        assert all(client.reason is None for client in (*clients[2:], *newest))
        assert len(kept(broker)) == 5
        assert there.server.counters.get("connections_displaced_total") == 2


async def test_a_node_that_does_not_hear_whom_to_close_is_told_again() -> None:
    async with lines(config=OLDEST) as (_, (here, there)):
        oldest = await here.come(user="ada")
        await advance(1)
        await fill(there, count=4)

        def mute(where: str) -> None:
            there.line.mute = there.line.mute or where == "after put"

        there.line.trip = mute
        await there.come(user="ada")
        there.line.trip = None
        await advance(3)
        assert oldest.reason is None
        there.line.mute = False
        await advance(20)
        assert oldest.reason == "io server disconnect"


# --- clients that are gone without a word


async def test_half_open_connections_do_not_lock_their_user_out() -> None:
    async with lines() as (broker, (here, there)):
        clients = await fill(here, there)
        go_silent(clients[:3])
        began = asyncio.get_running_loop().time()
        await there.come(user="ada")
        assert asyncio.get_running_loop().time() - began == pytest.approx(PROBE_SECONDS, abs=0.5)
        assert [client.reason for client in clients] == ["transport close"] * 3 + [None] * 2
        await fill(here, there, count=2)
        await is_refused(here)
        assert len(kept(broker)) == 5


async def test_who_answers_is_not_waited_for() -> None:
    async with lines() as (_, (here, there)):
        await fill(here, there)
        began = asyncio.get_running_loop().time()
        await is_refused(here)
        assert asyncio.get_running_loop().time() == began


async def test_all_tabs_of_a_laptop_that_changed_networks_come_back() -> None:
    async with lines() as (broker, (here, there)):
        go_silent(await fill(here, there))
        coming = [asyncio.ensure_future(house.come(user="ada")) for house in (here, there, here, there, here)]
        await asyncio.wait(coming)
        assert [task.exception() for task in coming] == [None] * 5
        await advance(0)
        assert len(kept(broker)) == 5


async def test_a_session_that_is_taken_up_does_not_count_twice() -> None:
    async with lines(config=Config(connections_per_user=1)) as (broker, (here, _)):
        before = await here.come(user="ada", recovers=True)
        reader = here.socket(before).reader
        assert reader is not None
        go_silent([before])
        hello = {"bellwire": HELLO["bellwire"] | {"session": reader.session.secret}}
        async with connect(here.server, user="ada", auth=hello, timeout=5) as after:
            assert after.id == before.id
            await advance(0)
            assert len(kept(broker)) == 1
            assert before.reason is not None


async def test_nor_does_one_that_is_taken_up_on_another_node() -> None:
    async with lines() as (broker, (here, there)):
        before = await there.come(user="ada", recovers=True)
        reader = there.socket(before).reader
        assert reader is not None
        go_silent([before])
        hello = {"bellwire": HELLO["bellwire"] | {"session": reader.session.secret}}
        async with connect(here.server, user="ada", auth=hello, timeout=5) as after:
            assert after.id == before.id
            await advance(1)
            assert [place.node for place in kept(broker)] == [here.node]


# --- nodes that are gone


async def test_the_places_of_a_killed_node_are_free_at_once_when_they_are_needed() -> None:
    async with lines(3) as (broker, (here, there, elsewhere)):
        await fill(elsewhere)
        await elsewhere.die()
        await here.come(user="ada")
        await fill(here, there, count=4)
        assert {place.node for place in kept(broker)} == {here.node, there.node}
        await is_refused(there)


async def test_they_do_not_count_once_its_lease_is_over() -> None:
    async with lines(3) as (_, (here, there, elsewhere)):
        await fill(elsewhere)
        await elsewhere.die()
        await advance(LEASE_OVER)
        began = asyncio.get_running_loop().time()
        await fill(here, there)
        assert asyncio.get_running_loop().time() == began
        await is_refused(here)


async def test_a_node_that_was_taken_for_dead_enters_its_places_again() -> None:
    async with lines() as (broker, (here, there)):
        await fill(there, count=4)
        there.line.mute = True
        await advance(LEASE_OVER)
        await fill(here, count=1)
        assert {place.node for place in kept(broker)} == {here.node}
        there.line.mute = False
        await advance(5)
        assert len(kept(broker)) == 5
        await is_refused(here)


async def test_a_node_that_was_too_slow_to_answer_enters_its_places_again() -> None:
    async with lines() as (broker, (here, there)):
        await fill(there)
        there.line.mute = True
        await here.come(user="ada")
        there.line.mute = False
        await advance(1)
        assert len(kept(broker)) == 6
        await is_refused(here)
        assert await here.runtime.places.nodes_of("ada") == frozenset({here.node, there.node})


async def test_a_node_whose_line_was_cut_enters_its_places_again() -> None:
    async with lines() as (broker, (here, there)):
        await fill(there, count=4)
        there.line.cut = True
        await advance(LEASE_OVER)
        await fill(here, count=1)
        there.line.cut = False
        await advance(10)
        assert len(kept(broker)) == 5
        assert await here.runtime.places.nodes_of("ada") == frozenset({here.node, there.node})


async def test_what_the_broker_has_lost_is_entered_again() -> None:
    async with lines() as (broker, (here, there)):
        await fill(here, there)
        broker.faults.take_back({})
        await advance(5)
        assert len(kept(broker)) == 5
        await is_refused(here)


async def test_a_record_is_kept_as_long_as_somebody_is_there() -> None:
    async with lines(1) as (broker, (here,)):
        await here.come(user="ada")
        for _ in range(30):
            await advance(3600)
        assert len(kept(broker)) == 1


async def test_a_record_that_all_left_behind_runs_out() -> None:
    async with lines() as (broker, (here, there)):
        await fill(there)
        await there.die()
        await advance(KEPT_SECONDS + 3600)
        assert kept(broker) == () or await broker.get(places_key("ada")) is None
        await fill(here)


# --- a broker that is away, or does not answer


async def test_a_client_is_told_to_come_back_while_nobody_can_count() -> None:
    async with lines() as (_, (here, _there)):
        here.line.cut = True
        with pytest.raises(Disconnected):  # and is not refused, which would be for good
            await here.come(user="ada")
        assert here.server.counters.get("connects_refused_total", reason="too_many_connections") == 0


async def test_a_place_whose_connection_ended_meanwhile_is_free_once_the_broker_is_back() -> None:
    async with lines() as (broker, (here, there)):
        clients = await fill(here, there)
        here.line.cut = True
        clients[0].drop()
        await advance(3)
        assert len(kept(broker)) == 5
        here.line.cut = False
        await advance(6)
        assert len(kept(broker)) == 4


@pytest.mark.parametrize("done", [True, False])
async def test_an_answer_that_is_lost_takes_no_place_twice(done: bool) -> None:
    async with lines() as (broker, (here, _)):
        broker.faults.lose_put_answer(done=done)
        await here.come(user="ada")
        assert len(kept(broker)) == 1


async def test_a_place_that_may_have_been_taken_is_given_back() -> None:
    async with lines() as (broker, (here, _)):

        def lose_the_answer(where: str) -> None:
            if where == "after put":
                here.line.cut, here.line.trip = True, None
                raise OutcomeUnknown("the put")

        here.line.trip = lose_the_answer
        with pytest.raises(Disconnected):
            await here.come(user="ada")
        assert len(kept(broker)) == 1
        here.line.cut = False
        await advance(6)
        assert kept(broker) == ()


async def test_a_client_that_leaves_while_it_is_counted_has_no_place() -> None:
    async with lines() as (broker, (here, _)):
        here.line.latency = lambda: 0.2
        with pytest.raises(TimeoutError):
            async with connect(here.server, user="ada", timeout=0.3):
                pass
        await advance(5)
        assert kept(broker) == ()
        assert len(here.runtime.places) == 0


# --- who is where


async def test_the_nodes_of_a_user_are_known() -> None:
    async with lines(3) as (_, (here, there, elsewhere)):
        await there.come(user="ada")
        assert await here.runtime.places.nodes_of("ada") == frozenset({there.node})
        await elsewhere.come(user="ada")
        await here.come(user="ada")
        assert await here.runtime.places.nodes_of("ada") == frozenset({here.node, there.node, elsewhere.node})
        assert await here.runtime.places.nodes_of("nobody") == frozenset()
        here.line.cut = True
        assert await here.runtime.places.nodes_of("ada") is None


@pytest.mark.parametrize("limit", [5, 0])
async def test_a_user_is_disconnected_everywhere(limit: int) -> None:
    def furnish(house: Remote) -> None:
        house.server.namespace("/org/{org}")

    async with lines(3, Config(connections_per_user=limit), furnish) as (_, (here, there, elsewhere)):
        clients = await fill(here, there)
        clients.append(await there.stack.enter_async_context(connect(elsewhere.server, "/org/7", user="bob")))
        other = await there.come(user="carl")
        await here.server.user("ada").disconnect()
        await there.server.user("bob").disconnect()
        assert [client.reason for client in clients] == ["io server disconnect"] * 6
        assert other.reason is None


async def test_only_the_nodes_of_a_user_are_asked_to_disconnect_him() -> None:
    async with lines(3) as (_, (here, there, elsewhere)):
        client = await there.come(user="ada")
        elsewhere.line.mute = True
        await here.server.user("ada").disconnect()
        assert client.reason == "io server disconnect"


async def test_only_the_nodes_of_a_user_are_asked_for_his_sockets() -> None:
    async with lines(3) as (_, (here, there, elsewhere)):
        client = await there.come(user="ada")
        elsewhere.line.mute = True
        found = await here.root.user("ada").sockets()
        assert [socket.id for socket in found] == [client.id]
        assert found.unreachable_nodes == ()
        assert (await here.root.to("r").user("ada").sockets()).unreachable_nodes == (elsewhere.node,)


async def test_nodes_that_do_not_say_that_it_is_done_are_named() -> None:
    async with lines() as (_, (here, there)):
        await fill(here, there)
        there.line.mute = True
        with pytest.raises(NodesUnreachable, match=there.node):
            await here.server.user("ada").disconnect()
