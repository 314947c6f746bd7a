import asyncio
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest

from bellwire import Config, Event, EventRefused, Namespace, RoomLimit, Server, Socket
from bellwire.server.latest import OF_EACH
from bellwire.testing import TestClient, connect
from bellwire.testing.clock import advance
from tests.server.house import ASK, POKE, SAY, WAVE, raw


def make(**settings: Any) -> tuple[Server, Namespace]:
    server = Server(config=Config(**settings))
    return server, server.namespace("/")


def socket_of(namespace: Namespace, client: TestClient) -> Socket:
    return namespace._hubs[client.namespace].sockets[client.id]


async def refused(client: TestClient, event: Event[Any, *tuple[Any, ...]], *payload: Any) -> EventRefused:
    with pytest.raises(EventRefused) as caught:
        await client.call(event, *payload)
    return caught.value


# --- rooms


async def test_joining_and_leaving_twice_changes_nothing() -> None:
    server, root = make()
    async with connect(server) as client:
        socket = socket_of(root, client)
        await socket.join("r")
        await socket.join("r")
        assert socket.rooms == {"r"}
        await socket.leave("r")
        await socket.leave("r")
        await socket.leave("never in it")
        assert socket.rooms == frozenset()
        await root.to("r").emit(SAY, "x")
        await client.receive_nothing()


async def test_a_room_that_is_left_before_it_was_entered_is_not_entered() -> None:
    server, root = make()
    async with connect(server) as client:
        socket = socket_of(root, client)
        broker = root.runtime.broker
        subscribe, answered = broker.subscribe, asyncio.Event()

        async def slow(stream: str, listener: Any, *, new: bool = False) -> None:
            await answered.wait()
            await subscribe(stream, listener, new=new)

        broker.subscribe = slow  # type: ignore[method-assign]
        joining = asyncio.create_task(socket.join("r"))
        await advance()
        await socket.leave("r")
        answered.set()
        await joining
        assert socket.rooms == frozenset()
        assert await root.to("r").sockets() == []
    assert root._hubs == {}


async def test_a_room_that_a_client_names_and_cannot_join_is_a_refusal(caplog: pytest.LogCaptureFixture) -> None:
    server, root = make()

    @root.on(ASK)
    async def enter(socket: Socket, room: str) -> str:
        await socket.join(room)
        return "in"

    async with connect(server) as client:
        with pytest.raises(EventRefused) as refused:
            await client.call(ASK, "x" * 256)
        assert refused.value.code == "room_limit"
    assert caplog.text == ""


async def test_a_socket_can_be_in_so_many_rooms() -> None:
    server, root = make(rooms_per_socket=2)
    async with connect(server) as client:
        socket = socket_of(root, client)
        await socket.join("a")
        await socket.join("b")
        await socket.join("a")
        with pytest.raises(RoomLimit, match="rooms_per_socket"):
            await socket.join("c")
        await socket.leave("a")
        await socket.join("c")
        assert socket.rooms == {"b", "c"}


async def test_the_limit_holds_for_joins_that_are_authorized_at_the_same_time() -> None:
    server, root = make(rooms_per_socket=2)

    @root.authorize
    async def allow(socket: Socket, room: str) -> bool:
        await asyncio.sleep(1)
        return True

    async with connect(server) as client:
        socket = socket_of(root, client)
        results = await asyncio.gather(*(socket.join(room) for room in "abcd"), return_exceptions=True)
        assert [type(result) for result in results].count(RoomLimit) == 2
        assert len(socket.rooms) == 2


@pytest.mark.parametrize("name", ["", "x" * 256])
async def test_a_rooms_name_has_a_length(name: str) -> None:
    server, root = make()
    async with connect(server) as client:
        with pytest.raises(RoomLimit, match=f"1 to 255 characters, this one has {len(name)}"):
            await socket_of(root, client).join(name)
        with pytest.raises(TypeError, match="string"):
            await socket_of(root, client).join(cast("str", 7))


async def test_authorize_is_asked_at_every_join_and_its_no_is_forbidden() -> None:
    server, root = make()

    @root.authorize
    async def allow(socket: Socket, room: str) -> bool:
        return room == f"user:{socket.user}"

    @root.on(SAY)
    async def say(socket: Socket, room: str) -> None:
        await socket.join(room)

    async with connect(server, user="ann") as client:
        await client.call(SAY, "user:ann")
        assert (await refused(client, SAY, "user:bob")).code == "forbidden"
        assert socket_of(root, client).rooms == {"user:ann"}


async def test_a_client_that_left_while_it_was_authorized_joins_nothing() -> None:
    server, root = make()

    @root.authorize
    async def allow(socket: Socket, room: str) -> bool:
        await asyncio.sleep(1)
        return True

    async with connect(server) as client:
        socket = socket_of(root, client)
        joining = asyncio.ensure_future(socket.join("r"))
        await advance(0.5)
        client.drop()
        await joining
        assert root._hubs == {}


# --- what a socket knows


async def test_on_disconnect_knows_the_rooms_the_state_and_the_user() -> None:
    server, root = make()
    seen: list[Any] = []

    @root.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("a")
        await socket.join("b")
        socket.state["n"] = 7

    @root.on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        seen.extend([socket.rooms, socket.state, socket.user, reason, socket.connected])
        await socket.join("c")
        await socket.leave("a")
        seen.append(socket.rooms)

    async with connect(server, user="ann"):
        pass
    assert seen == [{"a", "b"}, {"n": 7}, "ann", "transport close", False, {"a", "b"}]


async def test_a_socket_knows_its_request_its_transport_and_its_namespace() -> None:
    server = Server()
    server.namespace("/org/{org}")
    async with connect(server, "/org/7", headers={"Cookie": "a=1; b=2", "X-Tab": "3"}) as client:
        socket = server.namespaces["/org/{org}"]._hubs["/org/7"].sockets[client.id]
        assert (socket.namespace, socket.params) == ("/org/7", {"org": "7"})
        assert socket.request.headers["x-tab"] == "3"
        assert socket.request.cookies == {"a": "1", "b": "2"}
        assert socket.request.query == {"EIO": "4", "transport": "websocket"}
        assert socket.request.client is None
        assert socket.transport == "websocket"
        assert len(socket.id) == 20
        assert socket.id != client.carrier.session.sid
        assert client.id in repr(socket)


# --- clients that do not read


async def test_of_volatile_events_the_newest_reach_a_client_that_reads_again() -> None:
    server, root = make(volatile_buffer_bytes=100)
    async with connect(server) as slow, connect(server) as quick:
        slow.carrier.stalled = True
        socket = socket_of(root, slow)
        await socket.emit(SAY, "x" * 200)
        assert not socket.writable
        assert socket.buffered > 200
        await socket.emit(WAVE, 1)
        await root.emit(WAVE, 2)
        await socket.emit(SAY, "reliable")
        for n in range(100, 101 + OF_EACH):
            await root.emit(WAVE, n)
        await advance()
        slow.carrier.resume()
        assert await slow.receive(SAY) == "x" * 200
        assert await slow.receive(SAY) == "reliable"
        assert [await slow.receive(WAVE) for _ in range(OF_EACH + 1)] == [1, *range(101, 101 + OF_EACH)]
        await slow.receive_nothing()
        assert await quick.receive(WAVE) == 2
        assert dropped_volatile(server, "buffer_full") == 2
        assert (socket.writable, socket.buffered, socket.latest) == (True, 0, None)


async def test_volatile_events_that_waited_are_counted_when_their_client_is_gone() -> None:
    server, root = make(volatile_buffer_bytes=100)
    async with connect(server) as slow:
        slow.carrier.stalled = True
        socket = socket_of(root, slow)
        await socket.emit(SAY, "x" * 200)
        await socket.emit(WAVE, 1)
        await root.emit(WAVE, 2)
        await advance()
        slow.drop()
        await advance()
        assert dropped_volatile(server, "disconnected") == 2
        assert socket.latest is None


def dropped_volatile(server: Server, reason: str) -> int:
    return server.counters.get("dropped_total", kind="volatile", reason=reason, policy="newest_kept")


async def test_a_slow_consumer_is_cut_off_and_the_others_go_on() -> None:
    server, root = make(send_buffer_bytes=10_000, volatile_buffer_bytes=1_000)
    ends = []

    @root.on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        ends.append((socket.id, reason))

    async with connect(server) as slow, connect(server) as quick:
        slow.carrier.stalled = True
        for _ in range(20):
            await root.emit(SAY, "x" * 1_000)
            await advance()
        assert ends == [(slow.id, "slow consumer")]
        assert slow.reason is not None
        for _ in range(20):
            assert await quick.receive(SAY) == "x" * 1_000
        assert server.counters.get("sessions_closed_total", reason="slow_consumer") == 1


async def test_what_is_emitted_to_a_client_that_is_gone_is_counted() -> None:
    server, root = make()
    async with connect(server) as client:
        socket = socket_of(root, client)
        client.drop()
        await socket.emit(SAY, "x")
        await socket.disconnect()
        assert server.counters.get("dropped_total", kind="event", reason="disconnected", policy="at_most_once") == 1


# --- disconnecting


async def test_what_was_emitted_before_a_disconnect_is_delivered() -> None:
    server, root = make()
    async with connect(server) as client:
        await root.emit(SAY, "one")
        socket = socket_of(root, client)
        await socket.emit(SAY, "two")
        await socket.disconnect()
        assert [await client.receive(SAY), await client.receive(SAY)] == ["one", "two"]
        assert await client.closed() == "io server disconnect"


async def test_what_was_emitted_before_the_connection_is_closed_is_delivered() -> None:
    server, root = make()
    async with connect(server) as client:
        await root.emit(SAY, "one")
        await socket_of(root, client).disconnect(close=True)
        assert await client.receive(SAY) == "one"
        assert server.engine.sessions == {}


async def test_a_reply_leaves_behind_what_was_broadcast_before_it() -> None:
    server, root = make()
    packets: list[str | bytes] = []

    @root.on(POKE)
    async def poke(socket: Socket) -> None:
        await root.emit(SAY, "before")

    async with connect(server) as client:
        client.take = packets.append  # type: ignore[method-assign, assignment]
        raw(client, '420["poke"]')
        await advance()
        assert packets == ['42["say","before"]', "430[]"]


async def test_whoever_leaves_may_take_the_whole_room_along(caplog: pytest.LogCaptureFixture) -> None:
    """Each farewell disconnects the rest of the room, whose farewells would otherwise run inside of each other."""
    server = Server()
    root = server.namespace("/")
    left: list[str] = []

    @root.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("game")

    @root.on_disconnect
    async def end(socket: Socket, reason: str) -> None:
        left.append(socket.id)
        await root.to("game").disconnect()

    async with server.lifespan(), AsyncExitStack() as players:
        clients = [await players.enter_async_context(connect(server)) for _ in range(300)]
        await clients[0].disconnect()
        await advance()
        assert sorted(left) == sorted(client.id for client in clients)
    assert not caplog.records
