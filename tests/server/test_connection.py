import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bellwire import Config, Namespace, Request, Server, Socket
from bellwire.server.connection import MAX_NAMESPACES, Connection
from bellwire.testing import TestClient, connect
from bellwire.testing.clock import advance
from bellwire.transports.session import Session
from tests.server.doorway import assert_empty, unwelcomed
from tests.server.house import ASK, BLOB, SAY, raw


def make() -> tuple[Server, Namespace, list[str]]:
    """A server that answers in ``/`` and ``/chat``, and the ends of its clients."""
    server = Server()
    ends: list[str] = []
    root = server.namespace("/")
    for namespace in (root, server.namespace("/chat")):

        @namespace.on(ASK)
        async def ask(socket: Socket, text: str) -> str:
            return text.upper()

        @namespace.on(BLOB)
        async def blob(socket: Socket, data: bytes) -> bytes:
            return data[::-1]

        @namespace.on_disconnect
        async def leave(socket: Socket, reason: str) -> None:
            ends.append(f"{socket.namespace} {reason}")

    return server, root, ends


@asynccontextmanager
async def bystander(server: Server) -> AsyncIterator[None]:
    """Somebody else, who is to notice nothing."""
    async with connect(server) as client:
        yield
        await advance()
        assert await client.call(ASK, "still here?") == "STILL HERE?"


# --- the state table: (packets of a client that has no socket yet, what becomes of it)

PACKETS = {
    "EVENT": ('42["ask","x"]',),
    "EVENT with id": ('420["ask","x"]',),
    "ACK": ('430["x"]',),
    "DISCONNECT": ("41",),
    "CONNECT_ERROR": ('44{"message":"x"}',),
    "BINARY_EVENT": ('451-["blob",{"_placeholder":true,"num":0}]', b"x"),
    "BINARY_ACK": ('461-0[{"_placeholder":true,"num":0}]', b"x"),
    "binary frame": (b"x",),
}


@pytest.mark.parametrize("parts", PACKETS.values(), ids=PACKETS.keys())
async def test_a_packet_before_connect_ends_the_connection(parts: tuple[str | bytes, ...]) -> None:
    server, _, _ = make()
    async with server.lifespan(), bystander(server):
        client = TestClient(server, "/")
        client.carrier.session = server.engine.open(client.carrier, Request(path="/socket.io/"))
        raw(client, parts[0])
        assert client.reason is not None
        assert server.counters.get("sessions_closed_total", reason="parse_error") == 1


@pytest.mark.parametrize(
    "parts", [parts for name, parts in PACKETS.items() if name != "DISCONNECT"] + [("40",), ('40{"a":1}',)]
)
@pytest.mark.parametrize("phase", ["connecting", "entering"])
async def test_a_packet_before_the_answer_to_connect_ends_the_connection(
    parts: tuple[str | bytes, ...], phase: str
) -> None:
    server, root, ends = make()

    async def slow(socket: Socket) -> None:
        await asyncio.sleep(1)

    if phase == "entering":
        root.on_connect(slow)
    else:

        @root.use
        async def check(socket: Socket, go_on: object) -> None:
            await asyncio.sleep(1)

    async with server.lifespan():
        client = unwelcomed(server)
        await advance(0.5)
        raw(client, parts[0])
        assert client.reason is not None
        await advance(1)
        assert ends == (["/ parse error"] if phase == "entering" else [])
        assert_empty(server)


@pytest.mark.parametrize("packet", ["40", '40{"a":1}', '44{"message":"x"}'])
async def test_a_second_connect_or_a_connect_error_ends_the_connection(
    packet: str, caplog: pytest.LogCaptureFixture
) -> None:
    server, _, ends = make()
    async with server.lifespan(), bystander(server):
        async with connect(server) as client:
            with caplog.at_level(logging.DEBUG, "bellwire"):
                raw(client, packet)
            assert client.reason is not None
        assert ends == ["/ parse error"]
        reason = (
            "a client refuses no namespaces" if packet[1] == "4" else "CONNECT for a namespace that was joined already"
        )
        assert [record.getMessage() for record in caplog.records] == [
            f"a client is disconnected, parse error: {reason}"
        ]


async def test_a_disconnect_takes_the_client_out_of_that_namespace_only() -> None:
    server, _, ends = make()
    async with connect(server) as client:
        raw(client, "40/chat,")
        raw(client, "41/chat,")
        assert ends == ["/chat client namespace disconnect"]
        assert await client.call(ASK, "x") == "X"


async def test_a_client_may_join_again_after_it_left_and_is_somebody_new() -> None:
    server, _, _ = make()
    async with connect(server) as client:
        before = client.id
        raw(client, "41")
        raw(client, "40")
        await advance()
        assert client.id != before
        assert await client.call(ASK, "x") == "X"


@pytest.mark.parametrize(
    "parts",
    [
        (b"x",),
        ('42["ask","x"',),
        ('42{"a":1}',),
        ("42",),
        ("42[]",),
        ("42[true]",),
        ('42["no such event",x]',),
        ('42["disconnect"]',),
        ("4",),
        ("4z",),
        ("49[]",),
        ("40[]",),
        ('40/chat,["x"]',),
        ('40/chat,{"x":',),
        ('42/nowhere,["ask","x"]',),
        ("41/nowhere,",),
        ('451-["blob",{"_placeholder":true,"num":0}]', '42["ask","x"]'),
        ('451-["blob",{"_placeholder":true,"num":1}]', b"x"),
        ('451-["blob"]', b"x"),
        ('4511-["blob",{"_placeholder":true,"num":0}]',),
        ('45-["blob",{"_placeholder":true,"num":0}]',),
        ('450-["blob"]',),
        ('421-["blob"]',),
        ("461-0[]", b"x"),
        ("43" + "9" * 16 + "[]",),
    ],
)
async def test_a_packet_that_breaks_the_protocol_costs_its_own_connection(parts: tuple[str | bytes, ...]) -> None:
    server, _, ends = make()
    async with server.lifespan(), bystander(server):
        async with connect(server) as client:
            raw(client, *parts)
            await advance()
            assert client.reason is not None
        assert ends == ["/ parse error"]
        assert server.counters.get("sessions_closed_total", reason="parse_error") == 1


async def test_attachments_may_be_as_large_as_a_message_all_together() -> None:
    server = Server(config=Config(max_message_bytes=100))
    server.namespace("/")
    async with connect(server) as client:
        raw(client, '452-["b",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]', bytes(60), bytes(40))
        assert client.reason is None
        raw(client, '452-["b",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]', bytes(60), bytes(41))
        assert client.reason is not None


async def test_binary_events_are_answered() -> None:
    server, _, _ = make()
    async with connect(server, "/chat") as client:
        assert await client.call(BLOB, b"\x01\x02") == b"\x02\x01"


async def test_nothing_of_a_message_counts_behind_a_broken_one() -> None:
    server, root, _ = make()
    seen = []

    @root.on(SAY)
    async def say(socket: Socket, text: str) -> None:
        seen.append(text)

    async with connect(server) as client:
        session = client.carrier.session
        for packet in ('42["say","a"]', "4?", '42["say","b"]'):
            session.received(client.carrier, packet)
        assert seen == ["a"]


async def test_a_broken_payload_that_had_to_wait_ends_the_connection_in_its_turn() -> None:
    """What comes behind it does not count, and on_disconnect is the last to run."""
    server, root, ends = make()

    @root.on(SAY)
    async def say(socket: Socket, text: str) -> None:
        ends.append(f"{text} begins")
        await asyncio.sleep(1)
        ends.append(f"{text} ends")

    async with connect(server) as client:
        connection = client.carrier.session.receiver
        raw(client, '42["say","a"]')
        raw(client, '42["say","b"]')
        raw(client, '42["say",')
        raw(client, '42["say","c"]')
        await advance(5)
        assert client.reason is not None
        assert ends == ["a begins", "a ends", "b begins", "b ends", "/ parse error"]
        assert connection._delayed == 0  # type: ignore[attr-defined]


# --- namespaces


async def test_an_unknown_namespace_is_refused_and_the_connection_goes_on() -> None:
    server, _, _ = make()
    async with connect(server) as client:
        client.namespace = "/nowhere"
        raw(client, "40/nowhere,")
        await advance()
        assert client.refused is not None
        assert client.refused.message == "Invalid namespace"
        assert client.reason is None
        assert server.counters.get("connects_refused_total", reason="invalid_namespace") == 1


async def test_one_connection_may_be_in_128_namespaces() -> None:
    server = Server()
    server.namespace("/n/{n}")
    async with connect(server, "/n/0") as client:
        for n in range(1, MAX_NAMESPACES):
            raw(client, f"40/n/{n},")
        connection = client.carrier.session.receiver
        assert isinstance(connection, Connection)
        assert len(connection._sockets) == MAX_NAMESPACES == 128
        client.namespace = "/n/too-many"
        raw(client, "40/n/too-many,")
        await advance()
        assert client.refused is not None
        assert client.refused.message == "Invalid namespace"
        raw(client, "41/n/5,")
        client.refused, client.id = None, ""
        raw(client, "40/n/too-many,")
        await advance()
        assert client.id


# --- packets that crossed with the server's disconnect

LATE = [
    ('42/chat,["ask","x"]',),
    ('42/chat,5["ask","x"]',),
    ('43/chat,0["x"]',),
    ("41/chat,",),
    ('451-/chat,["blob",{"_placeholder":true,"num":0}]', b"x"),
    ('461-/chat,0[{"_placeholder":true,"num":0}]', b"x"),
]


@pytest.mark.parametrize("parts", LATE)
async def test_a_packet_that_crossed_with_the_servers_disconnect_is_dropped_and_counted(
    parts: tuple[str | bytes, ...],
) -> None:
    server, _, ends = make()
    async with connect(server) as client:
        raw(client, "40/chat,")
        await server.namespaces["/chat"].disconnect()
        raw(client, *parts)
        assert ends == ["/chat server namespace disconnect"]
        assert await client.call(ASK, "x") == "X"
        assert server.counters.get("dropped_total", kind="packet", reason="disconnected", policy="at_most_once") == 1


async def test_what_is_remembered_of_expelled_namespaces_is_bounded() -> None:
    server = Server()
    rooms = server.namespace("/n/{n}")
    async with connect(server, "/n/start") as client:
        connection = client.carrier.session.receiver
        assert isinstance(connection, Connection)
        for n in range(3 * MAX_NAMESPACES):
            raw(client, f"40/n/{n},")
            await rooms.at(n=str(n)).disconnect()
        assert connection._expelled is not None
        assert len(connection._expelled) == MAX_NAMESPACES
        raw(client, f"40/n/{n},")
        assert f"/n/{n}" not in connection._expelled


# --- ends


async def test_the_end_of_the_connection_is_the_end_of_every_socket() -> None:
    server, _, ends = make()
    async with connect(server) as client:
        raw(client, "40/chat,")
        client.drop()
        assert sorted(ends) == ["/ transport close", "/chat transport close"]


async def test_disconnecting_with_close_tells_every_namespace_so_that_a_stock_client_stays_away() -> None:
    server, root, ends = make()
    async with connect(server) as client:
        packets: list[str | bytes] = []
        raw(client, "40/chat,")
        await advance()
        client.take = packets.append  # type: ignore[method-assign, assignment]
        await root.disconnect(close=True)
        assert sorted(map(str, packets)) == ["41", "41/chat,"]
        assert client.reason is not None
        assert sorted(ends) == ["/ server namespace disconnect", "/chat server namespace disconnect"]
        assert server.engine.sessions == {}


async def test_a_connection_that_joins_nothing_is_closed() -> None:
    server, _, _ = make()
    async with server.lifespan():
        client = unwelcomed(server, "/nowhere")
        await advance(14)
        assert client.reason is None
        await advance(1.5)
        assert client.reason is not None
        assert server.counters.get("sessions_closed_total", reason="connect_timeout") == 1


async def test_nothing_is_left_of_connections_that_ended() -> None:
    server, root, _ = make()

    @root.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("room")
        socket.state["self"] = socket
        await socket.emit(SAY, "hi")

    @root.on(SAY)
    async def say(socket: Socket, text: str) -> None:
        await asyncio.sleep(1)

    def living() -> int:
        gc.collect()
        return sum(isinstance(thing, Socket | Connection | Session) for thing in gc.get_objects())

    before = living()
    async with server.lifespan():
        for round_ in range(3):
            for n in range(100):
                async with connect(server, user=f"user {n % 7}") as client:
                    raw(client, "40/chat,")
                    await client.emit(SAY, "x")
                    if n % 2:
                        await client.call(ASK, "x", timeout=5)
                    if n % 3 == round_:
                        raw(client, "nonsense")
        del client
        await advance(60)
        assert_empty(server)
        assert server.engine.sessions == {}
        runtime = server._runtime
        assert runtime is not None
        assert runtime.heartbeat._places == {}
        assert runtime.wheel.pending == 2  # the probe of idle subscriptions, and the beat
        assert living() == before


TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from([part for parts in PACKETS.values() for part in parts if isinstance(part, str)]),
    st.sampled_from(["40", "41", "40/chat,", "41/chat,", "2", "3", "1", "6", '42["ask",1]', '40/chat,{"a":[1]}']),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(TEXTS, st.binary(max_size=10)), max_size=12))
async def test_whatever_a_client_sends_costs_at_most_its_own_connection(parts: list[str | bytes]) -> None:
    server, _, _ = make()
    async with server.lifespan(), bystander(server):
        client = unwelcomed(server)
        for part in parts:
            if client.reason is None:
                raw(client, part)
        await advance()
        client.drop()
        await advance()
        assert server.counters.get("handler_errors_total") == 0
        assert len(server.engine.sessions) == 1
        assert [len(hub.sockets) for namespace in server.namespaces.values() for hub in namespace._hubs.values()] == [1]
