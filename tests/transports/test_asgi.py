"""As a plain ASGI application: under servers and clients that behave as the specification allows."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.wire import JSON, MSGPACK, PATH
from bellwire.transports.asgi import handle_http, handle_raw_websocket, handle_websocket
from bellwire.transports.base import CLOSE_TIMEOUT, ASGIMessage, Scope
from tests.transports.wire import EchoServer


class Peer:
    """An ASGI server and the client behind it. While ``reading`` is clear, nothing more is taken from us."""

    def __init__(self, **query: str) -> None:
        self.scope: Scope = {
            "type": "websocket",
            "path": "/socket.io/",
            "query_string": "&".join(f"{name}={value}" for name, value in query.items()).encode(),
            "headers": [],
            "extensions": {},
        }
        self.inbox: asyncio.Queue[ASGIMessage] = asyncio.Queue()
        self.sent: list[ASGIMessage] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.inbox.put_nowait({"type": "websocket.connect"})

    async def receive(self) -> ASGIMessage:
        return await self.inbox.get()

    async def send(self, message: ASGIMessage) -> None:
        await self.reading.wait()
        self.sent.append(message)

    def say(self, text: str) -> None:
        self.inbox.put_nowait({"type": "websocket.receive", "text": text})


@asynccontextmanager
async def talking(
    server: EchoServer, peer: Peer, handle: Callable[..., Coroutine[Any, Any, None]] = handle_websocket
) -> AsyncIterator[asyncio.Task[None]]:
    """The application runs with ``peer``, and has ended by itself or is ended by a disconnect at the end."""
    task = asyncio.create_task(handle(server.engine, peer.scope, peer.receive, peer.send))
    await rounds()
    try:
        yield task
    finally:
        peer.reading.set()
        peer.inbox.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await task


async def rounds(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_refusal_without_the_extension_is_a_policy_violation() -> None:
    """Servers without ``websocket.http.response`` can only close: 1008 (RFC 6455 section 7.4.1)."""
    peer = Peer(EIO="4", transport="tesla")
    await handle_websocket(EchoServer().engine, peer.scope, peer.receive, peer.send)
    assert peer.sent == [{"type": "websocket.close", "code": 1008}]


async def test_messages_that_are_bytes_or_text_or_have_both_keys() -> None:
    server, peer = EchoServer(), Peer(EIO="4", transport="websocket")
    async with talking(server, peer):
        peer.inbox.put_nowait({"type": "websocket.receive", "bytes": b"\x01", "text": None})
        peer.inbox.put_nowait({"type": "websocket.receive", "text": "4a", "bytes": None})
        await rounds()
        (echo,) = server.echoes.values()
        assert echo.messages == [b"\x01", "a"]
        assert peer.sent[2:] == [{"type": "websocket.send", "bytes": b"\x01"}, {"type": "websocket.send", "text": "4a"}]


async def test_slow_consumer_is_cut_off_though_a_write_hangs() -> None:
    server, peer = (
        EchoServer(send_buffer_bytes=10_000, volatile_buffer_bytes=5000),
        Peer(EIO="4", transport="websocket"),
    )
    async with talking(server, peer) as task:
        (session,) = server.engine.sessions.values()
        peer.reading.clear()
        for _ in range(6):
            session.send(Outgoing("a" * 1000))
        assert not session.carrier.writable
        await rounds()
        for _ in range(6):
            session.send(Outgoing("a" * 1000))
        await rounds()
        assert task.done(), "nobody waits for a client that does not read"
        assert server.echoes[session.sid].reasons == ["slow consumer"]


async def test_much_in_one_tick_is_no_slow_consumer() -> None:
    server, peer = (
        EchoServer(send_buffer_bytes=10_000, volatile_buffer_bytes=5000),
        Peer(EIO="4", transport="websocket"),
    )
    async with talking(server, peer):
        (session,) = server.engine.sessions.values()
        for _ in range(20):
            session.send(Outgoing("a" * 1000))
        await rounds()
        assert len(peer.sent) == 22
        assert server.echoes[session.sid].notices == ["congested", "drained"]
        assert not session.closed


async def test_congestion_ends_when_the_server_takes_what_waited() -> None:
    server, peer = EchoServer(volatile_buffer_bytes=5000), Peer(EIO="4", transport="websocket")
    async with talking(server, peer):
        (session,) = server.engine.sessions.values()
        peer.reading.clear()
        for _ in range(6):
            session.send(Outgoing("a" * 1000))
        await rounds()
        notices = server.echoes[session.sid].notices
        assert notices == ["congested"]
        peer.reading.set()
        await rounds()
        assert notices == ["congested", "drained"]


async def test_connection_that_was_lost_leaves_no_timer() -> None:
    server, peer = EchoServer(), Peer(EIO="4", transport="websocket")
    async with talking(server, peer):
        pass
    assert server.engine.wheel.pending == 0


async def test_bellwire_v1_is_told_which_subprotocol_is_spoken() -> None:
    server, peer = EchoServer(), Peer()
    peer.scope.update(path=PATH, subprotocols=["other", MSGPACK, JSON])
    async with talking(server, peer, handle_raw_websocket):
        peer.inbox.put_nowait({"type": "websocket.receive", "bytes": b"\x90"})
        await rounds()
        assert peer.sent == [
            {"type": "websocket.accept", "subprotocol": MSGPACK},
            {"type": "websocket.send", "bytes": b"\x90"},
        ]


@pytest.mark.parametrize("subprotocols", [{}, {"subprotocols": []}, {"subprotocols": ["other"]}])
async def test_bellwire_v1_is_refused_without_a_subprotocol(subprotocols: dict[str, list[str]]) -> None:
    server, peer = EchoServer(), Peer()
    peer.scope.update(subprotocols, path=PATH)
    await handle_raw_websocket(server.engine, peer.scope, peer.receive, peer.send)
    assert peer.sent == [{"type": "websocket.close", "code": 1008}]


async def test_client_that_does_not_read_has_a_while_to_take_the_last_messages() -> None:
    server, peer = EchoServer(), Peer(EIO="4", transport="websocket")
    async with talking(server, peer) as task:
        (session,) = server.engine.sessions.values()
        peer.reading.clear()
        session.send(Outgoing("4bye"))
        session.close("forced server close")
        await rounds()
        assert not task.done()
        await asyncio.sleep(CLOSE_TIMEOUT + 1)
        assert task.done()


async def test_closing_writes_what_was_sent_and_then_the_close() -> None:
    server, peer = EchoServer(), Peer(EIO="4", transport="websocket")
    async with talking(server, peer) as task:
        (session,) = server.engine.sessions.values()
        session.send(Outgoing("4bye"))
        session.close("forced server close", code=4001)
        await rounds()
        assert task.done()
        assert peer.sent[2:] == [{"type": "websocket.send", "text": "4bye"}, {"type": "websocket.close", "code": 4001}]


async def test_buffered_counts_what_the_server_has_not_taken() -> None:
    server, peer = EchoServer(), Peer(EIO="4", transport="websocket")
    async with talking(server, peer):
        (session,) = server.engine.sessions.values()
        assert session.carrier.buffered == 0
        peer.reading.clear()
        session.send(Outgoing("4" + "a" * 99))
        await rounds()
        assert session.carrier.buffered == 102
        peer.reading.set()
        await rounds()
        assert session.carrier.buffered == 0


async def test_paused_client_is_not_read() -> None:
    server, peer = EchoServer(), Peer(EIO="4", transport="websocket")
    async with talking(server, peer):
        (session,) = server.engine.sessions.values()
        session.pause(True)
        for letter in "abc":
            peer.say(f"4{letter}")
        await rounds()
        assert peer.inbox.qsize() == 2, "the one that was being waited for is taken"
        session.pause(False)
        await rounds()
        assert server.echoes[session.sid].messages == ["a", "b", "c"]


async def test_server_that_raises_at_a_write_ends_the_session() -> None:
    """As the specification has it since version 2.4: send() to a client that is gone raises an OSError."""
    server, peer = EchoServer(), Peer(EIO="4", transport="websocket")

    async def send(message: ASGIMessage) -> None:
        if message["type"] == "websocket.send" and message.get("text") == "4a":
            raise OSError("gone")

    task = asyncio.create_task(handle_websocket(server.engine, peer.scope, peer.receive, send))
    await rounds()
    peer.say("4a")
    await task
    (echo,) = server.echoes.values()
    assert echo.reasons == ["transport close"]


async def test_client_that_goes_while_it_posts_ends_its_session() -> None:
    server = EchoServer()
    opened = await http(server, {"EIO": "4", "transport": "polling"}, [])
    assert opened[0]["status"] == 200
    (sid,) = server.engine.sessions
    messages: list[ASGIMessage] = [
        {"type": "http.request", "body": b"4a", "more_body": True},
        {"type": "http.disconnect"},
    ]
    await http(server, {"EIO": "4", "transport": "polling", "sid": sid}, messages, "POST")
    assert server.echoes[sid].reasons == ["transport error"]
    assert server.echoes[sid].messages == []


async def test_post_without_any_body_keys_is_a_parse_error() -> None:
    server = EchoServer()
    await http(server, {"EIO": "4", "transport": "polling"}, [])
    (sid,) = server.engine.sessions
    answer = await http(server, {"EIO": "4", "transport": "polling", "sid": sid}, [{"type": "http.request"}], "POST")
    assert answer[0]["status"] == 400
    assert server.echoes[sid].reasons == ["parse error"]


async def http(
    server: EchoServer, query: dict[str, Any], messages: list[ASGIMessage], method: str = "GET"
) -> list[ASGIMessage]:
    """One request; what was answered."""
    sent: list[ASGIMessage] = []

    async def receive() -> ASGIMessage:
        return messages.pop(0)

    async def send(message: ASGIMessage) -> None:
        sent.append(message)

    query_string = "&".join(f"{name}={value}" for name, value in query.items()).encode()
    scope = {"type": "http", "method": method, "path": "/socket.io/", "query_string": query_string, "headers": []}
    await handle_http(server.engine, scope, receive, send)
    return sent


@pytest.mark.parametrize("declared", ["99999", "x", "-1", ""])
async def test_declared_length_is_believed_only_if_it_is_too_large(declared: str) -> None:
    server = EchoServer(max_message_bytes=100)
    await http(server, {"EIO": "4", "transport": "polling"}, [])
    (sid,) = server.engine.sessions
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/socket.io/",
        "query_string": f"EIO=4&transport=polling&sid={sid}".encode(),
        "headers": [(b"content-length", declared.encode())],
    }
    read = 0
    sent: list[ASGIMessage] = []

    async def receive() -> ASGIMessage:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"4a"}

    async def send(message: ASGIMessage) -> None:
        sent.append(message)

    await handle_http(server.engine, scope, receive, send)
    assert (sent[0]["status"], read) == ((413, 0) if declared == "99999" else (200, 1))
