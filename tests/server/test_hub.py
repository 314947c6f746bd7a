import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.naming import EVERYONE, Key, User, stream_of
from bellwire.server.hub import Hub
from bellwire.testing.clock import advance
from tests.server.nodes import Gate, Member, Node, away, make_node


async def enter(node: Node, *members: Member) -> None:
    """As the server does: everyone is in the namespace, and who has a user among that user's sockets."""
    await node.enter(*members, rooms=(EVERYONE,))
    for member in members:
        if member.user is not None:
            await node.join(member, User(member.user))


async def join(node: Node, member: Member, *rooms: str) -> None:
    for room in rooms:
        await node.join(member, room)


def ids(node: Node, *keys: Key, excluded: Sequence[str] = ()) -> list[str]:
    return sorted(socket.id for socket in node.hub.select(keys, excluded))


async def test_nobody_is_meant_by_an_empty_namespace_or_an_unknown_room() -> None:
    async with make_node() as node:
        assert ids(node, EVERYONE) == []
        assert ids(node, "r") == []
        assert ids(node, User("u")) == []


async def test_everyone_in_the_namespace_is_meant() -> None:
    async with make_node() as node:
        await enter(node, Member("a"), Member("b"))
        assert ids(node, EVERYONE) == ["a", "b"]


async def test_everyone_is_the_same_audience_each_time() -> None:
    async with make_node() as node:
        hub = node.hub
        assert hub.select((EVERYONE,), ()) is hub.select((EVERYONE,), ())


async def test_a_member_of_several_rooms_is_meant_once() -> None:
    async with make_node() as node:
        a, b, c = Member("a"), Member("b"), Member("c")
        await enter(node, a, b, c)
        await join(node, a, "r", "s")
        await join(node, b, "s")
        found = [socket.id for socket in node.hub.select(("r", "s"), ())]
        assert sorted(found) == ["a", "b"]


async def test_what_is_excluded_by_room_or_by_id_is_taken_away() -> None:
    async with make_node() as node:
        a, b, c = Member("a", "ann"), Member("b", "bob"), Member("c")
        await enter(node, a, b, c)
        await join(node, b, "r")
        assert ids(node, EVERYONE, excluded=["r"]) == ["a", "c"]
        assert ids(node, EVERYONE, excluded=["c"]) == ["a", "b"]
        assert ids(node, EVERYONE, excluded=["r", "c"]) == ["a"]
        assert ids(node, "r", excluded=["b"]) == []


async def test_a_users_sockets_are_found_and_no_room_of_that_name_is() -> None:
    async with make_node() as node:
        a, b, c = Member("a", "ann"), Member("b", "ann"), Member("c")
        await enter(node, a, b, c)
        await join(node, c, "ann")
        assert ids(node, User("ann")) == ["a", "b"]
        assert ids(node, "ann") == ["c"]


async def test_nothing_is_kept_of_those_who_left() -> None:
    async with make_node() as node:
        a, b = Member("a", "ann"), Member("b")
        await enter(node, a, b)
        await join(node, a, "r", "s")
        await join(node, b, "s")
        node.leave(a)
        assert (ids(node, EVERYONE), node.hub.rooms) == (["b"], ["s"])
        assert not node.hub.empty
        node.leave(b)
        assert (node.hub.sockets, node.hub.rooms, node.hub._rooms, node.hub.streams) == ({}, [], {}, {})
        assert node.hub.empty


async def test_one_who_never_entered_may_leave() -> None:
    async with make_node() as node:
        node.leave(Member("a", "ann"))
        assert node.hub.sockets == {}


async def test_leaving_touches_the_own_rooms_only() -> None:
    """A hub of 10,000 rooms is left in as many steps as the socket has rooms."""
    async with make_node() as node:
        touched: set[Any] = set()

        class Watched(dict[Any, Any]):
            def get(self, key: Any, default: Any = None) -> Any:
                touched.add(key)
                return super().get(key, default)

            def __iter__(self) -> Any:
                raise AssertionError("somebody goes through all rooms")

        a, b = Member("a", "ann"), Member("b")
        await enter(node, a, b)
        await join(node, b, *(f"room {n}" for n in range(10_000)))
        await join(node, a, "r", "room 7")
        node.hub._rooms = Watched(node.hub._rooms)
        node.leave(a)
        assert touched == {"r", "room 7", "a", EVERYONE, User("ann")}
        assert ids(node, "room 7") == ["b"]


async def test_the_numbers_of_acknowledgements_are_never_given_twice() -> None:
    async with make_node() as node:
        hub = node.hub
        assert [hub.next_ack() for _ in range(3)] == [0, 1, 2]


# --- the broker


async def make_gate() -> Gate:
    gate = Gate()
    await gate.start()
    return gate


async def test_a_room_is_subscribed_to_while_somebody_is_in_it() -> None:
    gate = await make_gate()
    async with make_node(gate) as node:
        a, b = await node.plain("a", "r"), await node.plain("b", "r")
        assert gate.subscriptions == [stream_of("/", "r")]
        await node.hub.leave(a.itself, "r")
        assert gate.subscriptions == [stream_of("/", "r")]
        await node.hub.leave(b.itself, "r")
        assert gate.subscriptions == []


async def test_who_joins_while_another_does_waits_for_the_same_subscription() -> None:
    gate = await make_gate()
    async with make_node(gate) as node:
        gate.hold("subscribe")
        members = [Member(name) for name in "abc"]
        await node.enter(*members)
        joins = [asyncio.create_task(node.join(member, "r")) for member in members]
        await advance()
        assert ids(node, "r") == []
        gate.let_go("subscribe")
        assert await asyncio.gather(*joins) == [True, True, True]
        assert gate.subscriptions == [stream_of("/", "r")]
        assert ids(node, "r") == ["a", "b", "c"]


async def test_who_cannot_join_is_no_member_and_the_next_one_tries_anew() -> None:
    async with make_node() as node:
        a = Member("a")
        await node.enter(a)
        with away(node.broker), pytest.raises(BrokerUnavailable):
            await node.join(a, "r")
        assert node.hub.streams == {}
        assert await node.join(a, "r")
        await node.emit(1, "r")
        assert a.got == [1]


async def test_when_the_subscription_fails_those_who_wait_for_it_try_themselves() -> None:
    gate = await make_gate()
    async with make_node(gate) as node:
        gate.hold("subscribe")
        a, b = Member("a"), Member("b")
        await node.enter(a, b)
        first, second = (asyncio.create_task(node.join(member, "r")) for member in (a, b))
        await advance()
        gate.let_go("subscribe", fail=True)
        with pytest.raises(BrokerUnavailable):
            await first
        assert await second
        assert ids(node, "r") == ["b"]


async def test_who_is_gone_before_it_is_a_member_becomes_none() -> None:
    gate = await make_gate()
    async with make_node(gate) as node:
        gate.hold("subscribe")
        a = Member("a")
        await node.enter(a)
        joining = asyncio.create_task(node.join(a, "r"))
        await advance()
        node.leave(a)
        gate.let_go("subscribe")
        assert not await joining
        assert (node.hub.empty, gate.subscriptions) == (True, [])


async def test_a_namespace_is_given_up_also_when_the_last_to_go_was_still_on_its_way_in() -> None:
    gate = await make_gate()
    async with make_node(gate) as node:
        given_up: list[Hub] = []
        node.hub = Hub("/", node.streams, node.dispatcher, given_up.append)
        gate.hold("subscribe")
        a = Member("a")
        await node.enter(a)
        joining = asyncio.create_task(node.join(a, "r"))
        await advance()
        node.leave(a)
        assert given_up == []  # there is a guest
        gate.let_go("subscribe")
        await joining
        assert given_up == [node.hub]


async def test_a_connection_that_takes_over_keeps_the_id_when_the_old_one_is_removed() -> None:
    async with make_node() as node:
        old, new = await node.plain("a", EVERYONE, "r"), await node.plain("a", EVERYONE, "r")
        node.leave(old)
        assert node.hub.sockets == {"a": new.itself}
        assert set(node.room("r").members) == {new.itself}
        assert set(node.room(EVERYONE).members) == {new.itself}


async def test_a_reader_joins_leaves_and_comes_back_through_its_own_hands() -> None:
    async with make_node() as node:
        a = await node.reading("a", "r")
        assert (ids(node, "r"), node.room("r").plain) == (["a"], set())
        position = await node.top("r")
        node.leave(a)
        assert node.hub.empty
        await node.emit(1, "r")
        a.gone = False
        await node.hub.resume(a.itself, "r", position)
        assert a.got == [("proved", *position), 1]
        await node.hub.leave(a.itself, "r")
        assert a.got == [("close",)]
        assert node.hub.streams == {}


async def test_a_reader_that_cannot_leave_stays() -> None:
    async with make_node() as node:
        a = await node.reading("a", "r")
        reader: Any = a.reader

        async def leave(room: Any) -> None:
            position = room.dismiss(a.itself)
            await asyncio.sleep(1)
            node.hub.vacate(room)  # whoever else looks after it meanwhile
            room.admit(a.itself, position)
            room.drive()
            raise BrokerUnavailable("not now")

        reader.leave = leave
        with pytest.raises(BrokerUnavailable):
            await node.hub.leave(a.itself, "r")
        await node.emit(1, "r")
        assert [said for said in a.got if said == 1] == [1]


async def test_who_joins_and_leaves_has_what_was_sent_in_between_in_the_same_tick() -> None:
    async with make_node() as node:
        a, b = await node.plain("a", "r"), await node.plain("b")
        room = node.room("r")

        def send(n: int) -> None:
            post = node.streams.read("/", cast("Any", b"\x93\xa3say\xc2\x91%c" % n))
            assert post is not None
            node.fanout.cast(room._all, post)

        send(1)
        await node.join(b, "r")
        send(2)
        await node.hub.leave(a.itself, "r")
        send(3)
        node.fanout.settle()
        assert (a.got, b.got) == ([1, 2], [2, 3])
