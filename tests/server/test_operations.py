"""What is done to sockets on other nodes."""

import asyncio

import pytest
from typing_extensions import override

from bellwire import (
    BrokerUnavailable,
    CallLimit,
    Config,
    Disconnected,
    Event,
    EventRefused,
    MessageTooLarge,
    NodesUnreachable,
    RoomLimit,
    Socket,
)
from bellwire.server.operations import PART_ITEMS, TIMEOUT, Failure
from bellwire.server.peers import LEASE_SECONDS
from bellwire.testing import connect
from bellwire.testing.clock import advance
from tests.server.house import ASK, BLOB, SAY, raw
from tests.server.nodes import away
from tests.server.servers import House, SharedBroker, heard, houses


async def test_the_sockets_of_all_nodes_are_found() -> None:
    async with houses(3) as (one, two, three):
        here, there, elsewhere = await one.come("r"), await two.come("r", "s", user="ann"), await three.come("s")
        found = await one.root.to("r").sockets()
        assert {socket.id for socket in found} == {here.id, there.id}
        (ann,) = await three.root.user("ann").sockets()
        assert (ann.id, ann.user) == (there.id, "ann")
        assert ann.rooms == {"r", "s"}
        assert {socket.id for socket in await two.root.sockets()} == {here.id, there.id, elsewhere.id}
        assert {socket.id for socket in await two.root.except_("r").sockets()} == {elsewhere.id}


async def test_many_sockets_are_told_in_parts() -> None:
    async with houses(2) as (one, two):
        clients = [await two.come("r") for _ in range(PART_ITEMS + 1)]
        assert {socket.id for socket in await one.root.to("r").sockets()} == {client.id for client in clients}


async def test_a_call_brings_the_replies_of_all_nodes() -> None:
    async with houses(3) as (one, two, three):
        here, there, elsewhere = await one.come("r"), await two.come("r"), await three.come("r", recovers=True)
        await heard(elsewhere)
        calling = asyncio.ensure_future(one.root.to("r").call(ASK, "well?", timeout=5))
        for client in (here, there, elsewhere):
            assert await client.answer(ASK, f"from {client.id}") == "well?"
        replies = await calling
        assert replies.values == {client.id: f"from {client.id}" for client in (here, there, elsewhere)}
        assert (replies.errors, replies.missing, replies.unreachable_nodes) == ({}, frozenset(), ())


async def test_who_does_not_answer_in_time_on_another_node_is_missing() -> None:
    async with houses(2) as (one, two):
        quick, slow = await two.come("r"), await two.come("r")
        calling = asyncio.ensure_future(one.root.to("r").call(ASK, "well?", timeout=3))
        await quick.answer(ASK, "here")
        await advance(2.9)
        assert not calling.done()
        await advance(1.2)
        replies = calling.result()
        assert replies.values == {quick.id: "here"}
        assert replies.missing == {slow.id}


async def test_who_leaves_or_answers_nonsense_on_another_node_is_an_error() -> None:
    async with houses(2) as (one, two):
        leaving, wrong = await two.come("r"), await two.come("r")
        calling = asyncio.ensure_future(one.root.to("r").call(ASK, "well?", timeout=5))
        await advance()
        await leaving.disconnect()
        await wrong.answer(Event("ask", str, reply=int), 7)
        replies = await calling
        assert isinstance(replies.errors[leaving.id], Disconnected)
        assert replies.errors[wrong.id].code == "invalid_reply"


async def test_bytes_come_back_from_another_node() -> None:
    async with houses(2) as (one, two):
        client = await two.come("r")
        calling = asyncio.ensure_future(one.root.to("r").call(BLOB, b"\x00\xff", timeout=5))
        assert await client.answer(BLOB, b"\x01\x02") == b"\x00\xff"
        assert (await calling).values == {client.id: b"\x01\x02"}


class Narrow(SharedBroker):
    """A broker that takes messages of 200,000 bytes."""

    @override
    async def publish(self, stream: str, body: bytes) -> None:
        if len(body) > 200_000:
            raise MessageTooLarge(len(body), 200_000, stream)
        await super().publish(stream, body)


async def test_a_reply_that_no_broker_takes_is_an_error_and_the_others_come(caplog: pytest.LogCaptureFixture) -> None:
    async with houses(2, broker=Narrow()) as (one, two):
        large, small = await two.come("r"), await two.come("r")
        calling = asyncio.ensure_future(one.root.to("r").call(ASK, "well?", timeout=5))
        await large.answer(ASK, "x" * 300_000)
        await advance(1)
        await small.answer(ASK, "here")
        replies = await calling
        assert replies.values == {small.id: "here"}
        assert replies.errors[large.id].code == "invalid_reply"
        assert "300" in str(replies.errors[large.id])
        assert (replies.unreachable_nodes, caplog.text) == ((), "")


async def test_a_reply_that_cannot_be_told_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with houses(2) as (one, two):
        wicked, good = await two.come("r"), await two.come("r")
        calling = asyncio.ensure_future(one.root.to("r").call(ASK, "well?", timeout=5))
        await advance()
        packet, _ = wicked._events[0]
        raw(wicked, f'461-{packet.id}[[{"9" * 40},{{"_placeholder":true,"num":0}}]]', b"\x00")
        await advance(1)
        await good.answer(ASK, "here")
        replies = await calling
        assert replies.values == {good.id: "here"}
        assert set(replies.errors) == {wicked.id}
        assert (replies.unreachable_nodes, caplog.text) == ((), "")


async def test_sockets_with_many_rooms_are_told_in_parts_that_brokers_take() -> None:
    async with houses(2, broker=Narrow()) as (one, two):
        clients = [await two.come(*[f"{n:0250}" for n in range(100)]) for _ in range(20)]
        found = await one.root.sockets()
        assert {socket.id: len(socket.rooms) for socket in found} == {client.id: 100 for client in clients}
        assert found.unreachable_nodes == ()


async def test_nothing_stays_behind_where_a_call_is_given_up() -> None:
    async with houses(3) as (one, two, three):
        there, elsewhere = await two.come("r"), await three.come("r", recovers=True)
        for _ in range(100):
            calling = asyncio.ensure_future(one.root.to("r").call(ASK, "well?", timeout=86_400))
            await advance()
            calling.cancel()
            await asyncio.wait((calling,))
        await advance()
        for house, client in ((two, there), (three, elsewhere)):
            assert house.socket(client)._acks is None
            assert house.runtime.cluster._asked == 0
        assert one.runtime.cluster._inquiries == {}


async def test_a_call_of_a_node_that_dies_is_given_up() -> None:
    async with houses(2) as (one, two):
        client = await two.come("r")
        calling = asyncio.ensure_future(one.root.to("r").call(ASK, "well?", timeout=86_400))
        await advance()
        await one.die()
        await advance(2 * LEASE_SECONDS)
        assert two.socket(client)._acks is None
        calling.cancel()
        await asyncio.wait((calling,))


async def test_a_call_may_wait_for_days() -> None:
    async with houses(2) as (one, two):
        client = await two.come("r")
        calling = asyncio.ensure_future(one.root.to("r").call(ASK, "well?", timeout=10 * 86_400))
        await client.answer(ASK, "here")
        assert (await calling).values == {client.id: "here"}


async def test_a_socket_can_be_called_by_its_id_from_another_node_and_only_its_node_is_asked() -> None:
    async with houses(3) as (one, two, three):
        client = await two.come()
        calling = asyncio.ensure_future(one.root.to(client.id).call(ASK, "well?", timeout=5))
        await client.answer(ASK, "here")
        await three.die()  # it could not say that it has nobody
        assert (await calling).values == {client.id: "here"}


@pytest.mark.parametrize("recovers", [False, True])
async def test_rooms_are_joined_and_left_on_all_nodes(recovers: bool) -> None:
    async with houses(2) as (one, two):
        here, there = await one.come("r", recovers=recovers), await two.come("r", recovers=recovers)
        await one.root.to("r").join("s")
        await two.root.to("s").emit(SAY, "to s")
        assert await heard(here) == await heard(there) == ["to s"]
        await two.root.to("r").leave("s")
        await two.root.to("s").emit(SAY, "nobody there")
        assert await heard(here) == await heard(there) == []


async def test_what_a_join_raises_on_another_node_is_raised_here() -> None:
    def furnish(house: House) -> None:
        @house.root.authorize
        async def authorize(socket: Socket, room: str) -> bool:
            return room != "closed"

    async with houses(2, Config(rooms_per_socket=1), furnish) as (one, two):
        client = await two.come()
        with pytest.raises(EventRefused) as refused:
            await one.root.to(client.id).join("closed")
        assert refused.value.code == "forbidden"
        await one.root.to(client.id).join("r")
        with pytest.raises(RoomLimit, match="rooms_per_socket"):
            await one.root.to(client.id).join("s")


async def test_clients_are_disconnected_on_all_nodes() -> None:
    async with houses(2) as (one, two):
        here, there, other = await one.come("r"), await two.come("r"), await two.come()
        await one.root.to("r").disconnect(close=True)
        assert await here.closed() == await there.closed() == "io server disconnect"
        assert other.reason is None


async def test_a_remote_socket_can_do_on_another_node_what_a_socket_can() -> None:
    async with houses(2) as (one, two):
        client = await two.come()
        (remote,) = await one.root.sockets()
        await remote.emit(SAY, "hello")
        await remote.join("r")
        assert await heard(client) == ["hello"]
        assert two.socket(client).rooms == {"r"}
        await remote.leave("r")
        await remote.disconnect()
        assert await client.closed() == "io server disconnect"


async def test_a_socket_that_came_back_on_another_node_is_one() -> None:
    async with houses(3) as (one, two, three):
        before = await two.come("r", recovers=True)
        reader = two.socket(before).reader
        assert reader is not None
        again = {"bellwire": {"version": 1, "instance": "i", "session": reader.session.secret}}
        client = await one.stack.enter_async_context(connect(three.server, auth=again))
        assert two.socket(before).id == three.socket(client).id == client.id  # the one does not know it yet
        assert [socket.id for socket in await one.root.to("r").sockets()] == [client.id]
        await heard(client)
        calling = asyncio.ensure_future(one.root.to("r").call(ASK, "well?", timeout=3))
        assert await client.answer(ASK, "here") == "well?"
        replies = await calling
        assert (replies.values, replies.errors, replies.missing) == ({client.id: "here"}, {}, frozenset())


async def test_a_rooms_name_is_a_string_whoever_would_be_in_it() -> None:
    async with houses(2) as (one, _):
        for operation in (one.root.join(7), one.root.leave(7)):  # type: ignore[arg-type]  # what a program may do
            with pytest.raises(TypeError, match="rooms are named by strings"):
                await operation


# --- nodes that do not answer


async def test_a_node_that_died_a_moment_ago_is_named() -> None:
    async with houses(3) as (one, _, three):
        here = await one.come("r")
        await three.die()
        found = await one.root.to("r").sockets()
        assert [socket.id for socket in found] == [here.id]
        assert found.unreachable_nodes == (three.node,)


@pytest.mark.parametrize("operation", ["join", "leave", "disconnect"])
async def test_what_may_not_have_been_done_on_a_node_that_died_is_told(operation: str) -> None:
    async with houses(3) as (one, _, three):
        here = await one.come("r")
        await three.die()
        target = one.root.to("r")
        doing = {"join": target.join("s"), "leave": target.leave("r"), "disconnect": target.disconnect()}
        for name, coroutine in doing.items():
            if name != operation:
                coroutine.close()
        with pytest.raises(NodesUnreachable) as raised:
            await doing[operation]
        assert raised.value.nodes == (three.node,)
        assert one.root.hub("/").members("r") == () if operation != "join" else one.socket(here).rooms == {"r", "s"}


async def test_a_call_names_a_node_that_died() -> None:
    async with houses(3) as (one, _, three):
        here = await one.come("r")
        await three.die()
        calling = asyncio.ensure_future(one.root.to("r").call(ASK, "well?", timeout=TIMEOUT))
        await here.answer(ASK, "here")
        replies = await calling
        assert replies.values == {here.id: "here"}
        assert replies.unreachable_nodes == (three.node,)


async def test_sockets_of_a_node_that_is_known_to_be_gone_are_nobody() -> None:
    async with houses(2) as (one, two):
        client = await two.come()
        await two.server.close()
        found = await one.root.to(client.id).sockets()
        assert (found, found.unreachable_nodes) == ([], ())
        await one.root.to(client.id).disconnect()


@pytest.mark.parametrize(
    "kind", ["sockets", "call", "join", "leave", "disconnect", "places.close", "presence", "message"]
)
async def test_a_question_of_another_version_is_not_answered_and_counted(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with houses(2) as (one, two):
        nobody = one.runtime.cluster.ask(kind, b"\x91\xc1", lambda *_: None, timeout=5, nodes=frozenset({two.node}))
        assert await nobody == (two.node,)
        counters = two.server.counters
        assert counters.get("dropped_total", kind="question", reason="malformed", policy="failed") == 1
        assert caplog.text == ""


async def test_the_broker_that_is_away_is_told() -> None:
    async with houses(2) as (one, two):
        await two.come("r")
        broker = one.runtime.broker
        assert isinstance(broker, SharedBroker)
        with away(broker):
            for operation in (
                one.root.to("r").sockets(),
                one.root.to("r").join("s"),
                one.root.to("r").disconnect(),
                one.root.to("r").call(ASK, "well?", timeout=1),
            ):
                with pytest.raises(BrokerUnavailable):
                    await operation


@pytest.mark.parametrize(
    "error",
    [
        EventRefused("mine", "no"),
        RoomLimit("too many"),
        CallLimit("too many"),
        BrokerUnavailable("away"),
        Disconnected("transport close"),
    ],
)
def test_an_error_is_the_same_on_the_other_side(error: EventRefused) -> None:
    there = Failure.of(error).as_error()
    assert (type(there), there.code, str(there)) == (type(error), error.code, str(error))
