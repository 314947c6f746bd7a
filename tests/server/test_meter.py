"""What a connection may send: refused with the time to wait, counted, and closed if it goes on."""

import contextlib
import logging
from typing import Any

import pytest

from bellwire import Config, Disconnected, Event, EventRefused, Namespace, Server, Socket
from bellwire.protocol.socketio import encode_connect
from bellwire.testing import TestClient, connect
from bellwire.testing.clock import advance
from bellwire.transports.base import Request
from tests.server.house import POKE, SAY, raw
from tests.transports.pipe import Pipe

SLOW = Event("slow", reply=int, rate="10/s")
FREE = Event("free", rate="off")


def make(**settings: Any) -> tuple[Server, Namespace, list[str]]:
    server = Server(config=Config(**settings))
    root, done = server.namespace("/"), []

    @root.on(POKE)
    async def poke(socket: Socket) -> None:
        done.append("poke")

    @root.on(FREE)
    async def free(socket: Socket) -> None:
        done.append("free")

    @root.on(SLOW)
    async def slow(socket: Socket) -> int:
        done.append("slow")
        return len(done)

    return server, root, done


def flood(client: TestClient, *packets: str) -> None:
    """Send them over and over, a thousand times or until the connection is closed."""
    with contextlib.suppress(Disconnected):
        for _ in range(1_000):
            for packet in packets:
                raw(client, packet)


async def refusal(client: TestClient, event: Event[Any]) -> dict[str, Any]:
    with pytest.raises(EventRefused) as caught:
        await client.call(event)
    error: dict[str, Any] = caught.value.as_reply()["error"]
    return error


async def test_a_hundred_at_once_and_a_hundred_a_second() -> None:
    server, _, done = make()
    async with connect(server) as client:
        for _ in range(100):
            await client.call(POKE)
        error = await refusal(client, POKE)
        assert error == {
            "code": "rate_limited",
            "message": "too many events in too short a time: send it again later",
            "retry_after": 0.01,
        }
        await advance(error["retry_after"])
        await client.call(POKE)
        assert (await refusal(client, POKE))["retry_after"] == 0.01
        await advance(60)
        for _ in range(100):
            await client.call(POKE)
    assert len(done) == 201
    assert server.counters.get("rate_limited_total", limit="message_rate") == 2
    assert server.counters.get("events_refused_total") == 2


async def test_without_an_acknowledgement_id_it_is_counted_only() -> None:
    server, _, done = make(message_rate="5/s")
    async with connect(server) as client:
        packets: list[str | bytes] = []
        client.take = packets.append  # type: ignore[method-assign, assignment]
        for _ in range(10):
            await client.emit(POKE)
        await advance()
        assert packets == []
        assert client.reason is None
    assert len(done) == 5
    assert server.counters.get("events_refused_total") == 5


async def test_the_first_that_is_lost_unseen_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    server, _, _ = make(message_rate="5/s")
    async with connect(server) as client:
        for _ in range(6):
            with contextlib.suppress(EventRefused):
                await client.call(POKE)
        assert caplog.messages == []  # the client was told
        for _ in range(3):
            await client.emit(POKE)
        await advance(10)
        for _ in range(11):
            await client.emit(SLOW)
        await advance()
    (told,) = caplog.messages
    assert told.startswith("an event came beyond message_rate and is lost: ")


async def test_who_asked_for_a_limit_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    server, _, _ = make()
    async with connect(server) as client:
        for _ in range(11):
            await client.emit(SLOW)
        await advance()
    assert server.counters.get("rate_limited_total", limit="event") == 1
    assert caplog.messages == []


async def test_at_debug_the_log_says_which_it_was(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(config=Config(message_rate="1/h"))
    server.namespace("/")  # in which no event has a rate of its own, so that names are not looked at
    with caplog.at_level(logging.DEBUG, "bellwire.server"):
        async with connect(server) as client:
            for _ in range(2):
                await client.emit(POKE)
            raw(client, '427["poke')
            await advance()
    said = [message for message in caplog.messages if message.startswith("refused the event")][1:]
    assert [message.split()[3] for message in said] == ["'poke'", "''"]
    assert all(message.endswith(": rate_limited") for message in said)


async def test_what_is_refused_is_not_even_read() -> None:
    server, _, _ = make(message_rate="1/h")
    async with connect(server) as client:
        await client.call(POKE)
        raw(client, '427["poke",')
        await advance(1)
        assert client.reason is None
        assert server.counters.get("events_refused_total") == 1


async def test_a_rate_of_an_event_is_for_it_and_a_connection() -> None:
    server, _, done = make()
    async with connect(server) as client, connect(server) as other:
        for _ in range(10):
            await client.call(SLOW)
        assert (await refusal(client, SLOW))["retry_after"] == 0.1
        await client.call(POKE)
        await other.call(SLOW)
        await advance(0.1)
        await client.call(SLOW)
    assert done.count("slow") == 12
    assert server.counters.get("rate_limited_total", limit="event") == 1


async def test_one_event_of_two_namespaces_has_one_rate() -> None:
    server, root, _ = make()
    more = server.namespace("/more")
    more.on(SLOW)(root._handlers["slow"].handler)
    async with connect(server) as client:
        client.send(encode_connect("/more"))
        await advance()
        for namespace in ("/more", "/"):
            client.namespace = namespace
            for _ in range(5):
                await client.call(SLOW)
        await refusal(client, SLOW)


async def test_an_event_of_an_included_namespace_keeps_its_rate() -> None:
    server, _, _ = make()
    part = Namespace("/")

    @part.on(Event("part", rate="1/min"))
    async def handle(socket: Socket) -> None:
        pass

    server.include(part)
    async with connect(server) as client:
        await client.call(part.events[-1])
        assert (await refusal(client, part.events[-1]))["retry_after"] == 60


async def test_off_leaves_an_event_out_of_the_connections_rate() -> None:
    server, _, done = make(message_rate="1/h")
    async with connect(server) as client:
        await client.call(POKE)
        await refusal(client, POKE)
        for _ in range(500):
            await client.call(FREE)
    assert done.count("free") == 500


async def test_without_rates_there_are_none() -> None:
    server, _, done = make(message_rate="off")
    async with connect(server) as client:
        for _ in range(2_000):
            await client.emit(POKE)
        await client.call(POKE)
    assert len(done) == 2_001


async def test_a_rate_is_the_connections_and_not_a_namespaces() -> None:
    server, _, _ = make(message_rate="2/h")
    server.namespace("/other").on(POKE)(server.namespaces["/"]._handlers["poke"].handler)
    async with connect(server) as client:
        client.send(encode_connect("/other"))
        await advance()
        await client.call(POKE)
        client.namespace = "/other"
        await refusal(client, POKE)


# --- who goes on and on


async def test_who_sends_what_is_refused_on_and_on_is_closed() -> None:
    server, _, done = make()
    async with connect(server) as client:
        sent = 0
        while client.reason is None:
            await client.emit(POKE)  # two for each that is let through
            sent += 1
            await advance(1 / 200)
        assert client.reason == "transport close"
    assert 2_000 < sent < 3_000
    assert server.counters.get("sessions_closed_total", reason="rate_limited") == 1
    assert server.counters.get("events_refused_total") == pytest.approx(sent / 2, rel=0.1)
    assert len(done) == pytest.approx(sent / 2, rel=0.1)


async def test_who_keeps_to_what_it_is_told_is_not() -> None:
    server, _, done = make(message_rate="10/s", refusal_rate="10/s")
    async with connect(server) as client:
        while len(done) < 500:
            try:
                await client.call(POKE)
            except EventRefused as error:
                await advance(error.retry_after or 0)
        assert client.reason is None


async def test_nobody_is_closed_if_refusals_are_not_limited() -> None:
    server, _, done = make(message_rate="1/h", refusal_rate="off")
    async with connect(server) as client:
        for _ in range(5_000):
            await client.emit(POKE)
        await advance(1)
        assert client.reason is None
    assert done == ["poke"]


async def test_what_follows_in_the_same_moment_is_not_read() -> None:
    server, _, done = make(message_rate="1/h", refusal_rate="3/h")
    async with server.lifespan():
        pipe = Pipe()
        session = server.engine.open(pipe, Request(path="/socket.io/"))
        for packet in ("40", *['42["poke"]'] * 100):
            session.received(pipe, packet)
        assert pipe.closed == 1008
    assert server.counters.get("events_refused_total") == 4
    assert done == ["poke"]


# --- what is no event


async def test_acknowledgements_that_nobody_waits_for_count() -> None:
    server, _, _ = make(message_rate="10/s", refusal_rate="100/min")
    async with connect(server) as client:
        for number in (0, 1, 9, 10**15 - 1):
            raw(client, f"43{number}[]")
        await advance()
        assert client.reason is None
        assert server.counters.get("dropped_total", kind="acknowledgement", reason="not_waited_for", policy="ignored")
        flood(client, "437[]")
        assert client.reason is not None


async def test_who_comes_and_leaves_without_end_is_closed() -> None:
    server, _, _ = make(message_rate="10/s", refusal_rate="100/min")
    other = server.namespace("/other")
    connects: list[str] = []
    left: list[str] = []

    @other.on_connect
    async def connected(socket: Socket) -> None:
        connects.append(socket.id)

    @other.on_disconnect
    async def disconnected(socket: Socket, reason: str) -> None:
        left.append(socket.id)

    async with connect(server) as client:
        flood(client, "40/other,", "41/other,")
        assert client.reason is not None
        await advance()
    assert len(connects) == len(left) <= 111


async def test_calls_are_no_messages_of_the_client() -> None:
    server, root, _ = make(message_rate="1/h", refusal_rate="1/h")
    async with connect(server) as client:
        (socket,) = root.hub("/").sockets.values()
        for number in range(50):
            await socket.emit(SAY, str(number))
            assert await client.receive(SAY) == str(number)
        assert client.reason is None


async def test_a_connection_that_sends_nothing_has_no_meter() -> None:
    server, root, _ = make()
    async with connect(server) as client:
        (socket,) = root.hub("/").sockets.values()
        assert socket._connection._meter is None
        await client.call(POKE)
        assert socket._connection._meter is not None
