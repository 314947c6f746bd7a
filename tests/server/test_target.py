import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from bellwire import Config, Event, EventRefused, Namespace, Server, Socket, Target
from bellwire.server import dialects
from bellwire.testing import TestClient, connect
from bellwire.testing.clock import advance
from tests.server.house import ASK, BLOB, SAY, raw


class Party:
    """A server, and clients by name; each knows what the others hear."""

    def __init__(self) -> None:
        self.server = Server()
        self.root: Namespace = self.server.namespace("/")
        self.clients: dict[str, TestClient] = {}
        self.stack = AsyncExitStack()

    async def come(self, name: str, *rooms: str, user: str | None = None) -> TestClient:
        client = await self.stack.enter_async_context(connect(self.server, user=user))
        self.clients[name] = client
        for room in rooms:
            await self.socket(name).join(room)
        return client

    def socket(self, name: str) -> Socket:
        return self.root._hubs["/"].sockets[self.clients[name].id]

    async def heard(self) -> str:
        """Who has heard something, in the order of their names; all of it is taken."""
        await advance()
        heard = []
        for name, client in sorted(self.clients.items()):
            heard += [name] * len(client._events)
            client._events.clear()
        return "".join(heard)


@asynccontextmanager
async def gathering() -> AsyncIterator[Party]:
    """A party of four."""
    party = Party()
    async with party.server.lifespan(), party.stack:
        await party.come("a", "r", user="ann")
        await party.come("b", "r", "s", user="bob")
        await party.come("c", "s", user="ann")
        await party.come("d")
        yield party


async def test_who_is_meant() -> None:
    async with gathering() as party:
        root, id_of = party.root, {name: client.id for name, client in party.clients.items()}
        for target, expected in [
            (root, "abcd"),
            (root.to("r"), "ab"),
            (root.to("r", "s"), "abc"),
            (root.to("r").to("s"), "abc"),
            (root.to("nowhere"), ""),
            (root.to("r", "nowhere"), "ab"),
            (root.to(id_of["d"]), "d"),
            (root.to("r", id_of["d"]), "abd"),
            (root.except_("r"), "cd"),
            (root.except_(id_of["a"]), "bcd"),
            (root.except_("r", id_of["d"]), "c"),
            (root.except_("r").except_("s"), "d"),
            (root.except_("nowhere"), "abcd"),
            (root.to("r").except_("s"), "a"),
            (root.to("r", "s").except_(id_of["b"]), "ac"),
            (root.user("ann"), "ac"),
            (root.user("ann").to(id_of["d"]), "acd"),
            (root.user("ann").except_("s"), "a"),
            (root.user("nobody"), ""),
            (root.to("ann"), ""),
        ]:
            await target.emit(SAY, "x")
            assert await party.heard() == expected


async def test_a_target_is_not_changed_by_what_is_made_of_it() -> None:
    async with gathering() as party:
        to_r = party.root.to("r")
        to_r.to("s")
        to_r.except_("s")
        await to_r.emit(SAY, "x")
        assert await party.heard() == "ab"


async def test_a_target_means_who_is_there_at_each_use() -> None:
    async with gathering() as party:
        to_r = party.root.to("r")
        await party.socket("d").join("r")
        await to_r.emit(SAY, "x")
        assert await party.heard() == "abd"


async def test_who_joins_later_in_the_same_tick_does_not_hear_it_and_who_leaves_does() -> None:
    async with gathering() as party:
        await party.root.to("r").emit(SAY, "x")
        await party.socket("d").join("r")
        await party.socket("a").leave("r")
        await party.root.to("r").emit(SAY, "y")
        assert await party.heard() == "abbd"


async def test_who_connects_later_in_the_same_tick_does_not_hear_it_and_who_is_disconnected_does() -> None:
    async with gathering() as party:
        await party.root.emit(SAY, "x")
        await party.socket("a").disconnect()
        await party.come("e")
        assert await party.heard() == "abcd"


async def test_an_empty_room_that_is_filled_again_in_the_same_tick_hears_each_message_once() -> None:
    async with gathering() as party:
        d = party.socket("d")
        await d.join("t")
        await party.root.to("t").emit(SAY, "1")
        await d.leave("t")
        await party.root.to("t").emit(SAY, "2")
        await d.join("t")
        await party.root.to("t").emit(SAY, "3")
        client = party.clients["d"]
        assert [await client.receive(SAY), await client.receive(SAY)] == ["1", "3"]
        await client.receive_nothing()


async def test_messages_to_overlapping_audiences_arrive_in_the_order_in_which_they_were_sent() -> None:
    async with gathering() as party:
        root = party.root
        targets: list[Target | Socket] = [root, root.to("r"), root, root.to("r", "s"), party.socket("b")]
        targets += [root.user("bob"), root.except_("nowhere")]
        for n, target in enumerate(targets):
            await target.emit(SAY, str(n))
        client = party.clients["b"]
        assert [await client.receive(SAY) for _ in range(7)] == [str(n) for n in range(7)]


async def test_binary_events_are_broadcast_with_their_attachments_and_nothing_between() -> None:
    async with gathering() as party:
        task = asyncio.ensure_future(party.root.to("r").call(BLOB, b"\x01\x02", timeout=5))
        await party.root.emit(SAY, "between")
        assert await party.clients["a"].receive(SAY) == "between"
        assert await party.clients["a"].answer(BLOB, b"a") == b"\x01\x02"
        await party.clients["b"].receive(SAY)
        await party.clients["b"].answer(BLOB, b"b")
        replies = await task
        assert sorted(replies.values.values()) == [b"a", b"b"]


async def test_what_a_call_carries_is_encoded_at_once_in_every_wire_that_is_asked() -> None:
    server = Server()
    root = server.namespace("/")
    number: Event[None, int] = Event("number", int)
    async with connect(server) as one, connect(server) as two:
        root._hubs["/"].sockets[one.id].dialect = dialects.raw(msgpack=True, streams=False)
        with pytest.raises(TypeError, match="cannot be sent"):
            await root.call(number, 2**64, timeout=1)
        await root.emit(SAY, "on we go")
        assert await two.receive(SAY) == "on we go"


async def test_a_room_is_no_string_of_characters() -> None:
    with pytest.raises(TypeError, match=r"to\('a', 'b'\)"):
        Server().namespace("/").to(["a", "b"])  # type: ignore[arg-type]


async def test_no_room_is_not_everybody() -> None:
    nobody: list[str] = []
    with pytest.raises(ValueError, match=r"names no room.*the namespace itself"):
        Server().namespace("/").to(*nobody)


async def test_what_is_emitted_again_under_its_mid_is_not_doubled_whoever_gets_it() -> None:
    cursor = Event("cursor", volatile=True)
    async with gathering() as party:
        socket = party.socket("a")
        for target, expected in ((party.root.to("r"), "ab"), (party.root, "abcd"), (socket, "a")):
            for _ in range(2):
                await target.emit(SAY, "paid", mid="order-7")
            assert await party.heard() == expected
        with pytest.raises(TypeError, match="mid is a str"):
            await socket.emit(SAY, "paid", mid=7)  # type: ignore[arg-type]
        for target in (party.root, socket):
            with pytest.raises(ValueError, match="volatile"):
                await target.emit(cursor, mid="order-7")


# --- the sockets themselves


async def test_sockets_tells_who_they_are() -> None:
    async with gathering() as party:
        found = await party.root.to("r").sockets()
        assert {(socket.id, socket.user, socket.rooms) for socket in found} == {
            (party.clients["a"].id, "ann", frozenset({"r"})),
            (party.clients["b"].id, "bob", frozenset({"r", "s"})),
        }
        assert await party.root.to("nowhere").sockets() == []


async def test_a_remote_socket_can_do_what_a_socket_can() -> None:
    async with gathering() as party:
        (remote,) = await party.root.to(party.clients["d"].id).sockets()
        await remote.emit(SAY, "x")
        assert await party.heard() == "d"
        call = asyncio.ensure_future(remote.call(ASK, "?", timeout=5))
        await party.clients["d"].answer(ASK, "!")
        assert (await call).values == {remote.id: "!"}
        await remote.join("t")
        assert party.socket("d").rooms == {"t"}
        assert remote.rooms == frozenset()  # as it was
        await remote.leave("t")
        await remote.disconnect()
        assert party.clients["d"].reason is None  # it leaves at the end of the tick
        assert await party.clients["d"].closed() == "io server disconnect"


async def test_join_leave_and_disconnect_are_for_all_of_them() -> None:
    async with gathering() as party:
        await party.root.to("r").join("t")
        await party.root.to("t").emit(SAY, "x")
        assert await party.heard() == "ab"
        await party.root.user("ann").leave("t")
        await party.root.to("t").emit(SAY, "x")
        assert await party.heard() == "b"
        await party.root.to("r").disconnect()
        await party.root.emit(SAY, "x")
        assert await party.heard() == "cd"
        assert await party.clients["a"].closed() == "io server disconnect"


async def test_a_join_that_is_forbidden_raises() -> None:
    async with gathering() as party:

        @party.root.authorize
        async def allow(socket: Socket, room: str) -> bool:
            return False

        with pytest.raises(EventRefused, match="forbidden"):
            await party.root.join("t")


# --- users


async def test_a_user_of_the_server_is_spoken_to_in_the_root_and_disconnected_everywhere() -> None:
    server = Server()
    server.namespace("/")
    server.namespace("/org/{org}")
    async with (
        connect(server, user="ann") as root,
        connect(server, "/org/7", user="ann") as org,
        connect(server, "/org/7", user="bob") as other,
    ):
        await server.user("ann").emit(SAY, "x")
        assert await root.receive(SAY) == "x"
        await org.receive_nothing()
        await server.user("ann").disconnect()
        await advance()
        assert (root.reason, org.reason) == ("io server disconnect", "io server disconnect")
        assert other.reason is None
        assert len(server.engine.sessions) == 1


async def test_a_user_of_a_server_without_a_root_cannot_be_spoken_to() -> None:
    server = Server()
    server.namespace("/chat")
    async with server.lifespan():
        with pytest.raises(Exception, match="register it"):
            await server.user("ann").emit(SAY, "x")


async def test_one_that_does_not_read_does_not_hold_up_a_disconnect_of_all() -> None:
    server = Server(config=Config(send_buffer_bytes=2_000, volatile_buffer_bytes=0))
    root = server.namespace("/")
    ends: list[Any] = []

    @root.on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        ends.append(reason)

    async with connect(server) as slow, connect(server) as quick:
        slow.carrier.stalled = True
        await root.emit(SAY, "x" * 3_000)
        await root.disconnect()
        await advance()
        assert ends == ["server namespace disconnect"] * 2
        assert await quick.receive(SAY) == "x" * 3_000
        assert slow.reason is not None


async def test_an_event_from_the_wire_may_be_passed_on_to_all_but_its_sender() -> None:
    async with gathering() as party:

        @party.root.on(SAY)
        async def say(socket: Socket, text: str) -> None:
            await party.root.except_(socket.id).emit(SAY, text)

        raw(party.clients["a"], '42["say","hi"]')
        assert await party.heard() == "bcd"
