"""bellwire.v1 at its own path, without Engine.IO: sub-protocols, kinds of frames, limits and close codes."""

import asyncio
import contextlib
import logging
import struct

import aiohttp
import pytest

from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.wire import JSON, MAX_MESSAGE, MSGPACK, CloseCode, Ping, encode, parse_server
from bellwire.transports import asgi as asgi_module
from bellwire.transports import native as native_module
from bellwire.transports.base import Request
from bellwire.transports.native import NativeWebSocket
from bellwire.transports.native_upgrade import MAX_FRAGMENTS
from bellwire.transports.raw import CLOSE_CODES, RawSession
from tests.serving import serve
from tests.transports.pipe import Pipe
from tests.transports.wire import (
    PATIENCE,
    Client,
    Echo,
    EchoServer,
    WebSocket,
    connect,
    echo_server,
    on_both,
    real,
    until,
)

both_protocols = pytest.mark.parametrize("subprotocol", [JSON, MSGPACK])


async def opened(server: EchoServer, client: Client, *subprotocols: str) -> tuple[Echo, WebSocket]:
    """A new connection: the server's side, and the client's."""
    before = len(server.raw_echoes)
    ws = await client.raw_websocket(*(subprotocols or (JSON,)))
    await until(lambda: len(server.raw_echoes) > before)
    return server.raw_echoes[-1], ws


# --- the handshake


@on_both
@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ((JSON,), JSON),
        ((MSGPACK,), MSGPACK),
        ((MSGPACK, JSON), MSGPACK),
        (("graphql-ws", JSON, MSGPACK), JSON),
    ],
    ids=" ".join,
)
async def test_first_subprotocol_that_is_known_is_spoken(native: bool, offered: tuple[str, ...], chosen: str) -> None:
    async with echo_server(native=native) as (server, client):
        echo, ws = await opened(server, client, *offered)
        assert ws.raw.protocol == chosen
        session = echo.session
        assert isinstance(session, RawSession)
        assert (session.subprotocol, session.msgpack) == (chosen, chosen == MSGPACK)
        assert session.request.path == "/bellwire"
        assert isinstance(session.carrier, NativeWebSocket) is native
        await ws.close()


@on_both
@pytest.mark.parametrize("offered", [(), ("bellwire.v2.json",), ("BELLWIRE.V1.JSON",)], ids=["none", "v2", "case"])
async def test_without_a_known_subprotocol_the_upgrade_is_refused(
    native: bool, offered: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async with echo_server(native=native) as (server, client):
        with caplog.at_level(logging.DEBUG, "bellwire"), pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.raw_websocket(*offered)
        assert caught.value.status == 400
        assert "offers no sub-protocol of bellwire.v1" in caplog.text
        assert server.counters.get("requests_refused_total", reason="no_subprotocol") == 1
        assert not server.raw_echoes


@on_both
async def test_refusal_names_what_could_be_offered(native: bool) -> None:
    headers = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with serve(EchoServer(), native=native) as url, connect(url, "/bellwire") as client:
        answer = await client.request(headers=headers)
        assert answer.status == 400
        assert answer.text == (
            "offer the sub-protocol bellwire.v1.json or bellwire.v1.msgpack in Sec-WebSocket-Protocol"
        )


@on_both
async def test_nothing_is_sent_unasked(native: bool) -> None:
    """The client speaks first: no handshake of Engine.IO."""
    async with echo_server(native=native) as (server, client):
        _, ws = await opened(server, client)
        await ws.send("first")
        assert await ws.text() == "first"
        assert not server.engine.sessions
        await ws.close()


# --- messages


@on_both
async def test_json_is_text_as_it_stands(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        echo, ws = await opened(server, client, JSON)
        for message in ('["e","/","grüße",[]]', "4not a type digit", "b64?", ""):
            await ws.send(message)
            assert await ws.text() == message
        assert echo.messages == ['["e","/","grüße",[]]', "4not a type digit", "b64?", ""]
        await ws.close()


@on_both
async def test_msgpack_is_bytes_whatever_the_query_says(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        ws = await client.raw_websocket(MSGPACK, b64="1", EIO="4", transport="polling")
        await ws.send_bytes(b"\x92\xa1e\xa1/")
        assert await ws.bytes() == b"\x92\xa1e\xa1/"
        assert server.raw_echoes[0].messages == [b"\x92\xa1e\xa1/"]
        await ws.close()


@real
@both_protocols
async def test_compression_where_it_is_on_and_offered(subprotocol: str) -> None:
    async with echo_server(native=True, per_message_deflate=True) as (_, client):
        url = client.url.replace("/socket.io/", "/bellwire")
        async with client.http.ws_connect(url, protocols=(subprotocol,), compress=15) as ws:
            assert ws.compress
            for _ in range(2):
                if subprotocol == JSON:
                    await ws.send_str("a" * 5000)
                    assert await ws.receive_str(timeout=PATIENCE) == "a" * 5000
                else:
                    await ws.send_bytes(b"a" * 5000)
                    assert await ws.receive_bytes(timeout=PATIENCE) == b"a" * 5000


@on_both
async def test_messages_of_one_tick_arrive_in_order(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        echo, ws = await opened(server, client)
        for number in range(100):
            echo.send(str(number))
        assert [await ws.text() for _ in range(100)] == [str(number) for number in range(100)]
        await ws.close()


@on_both
async def test_paused_client_is_read_again_in_order(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        echo, ws = await opened(server, client)
        echo.session.pause(True)
        for number in range(50):
            await ws.send(str(number))
        echo.session.pause(False)
        assert [await ws.text() for _ in range(50)] == [str(number) for number in range(50)]
        await ws.close()


@on_both
@both_protocols
async def test_ping_is_a_message_of_the_subprotocol(native: bool, subprotocol: str) -> None:
    async with echo_server(native=native) as (server, client):
        echo, ws = await opened(server, client, subprotocol)
        echo.session.ping()
        assert not echo.session.alive
        message = await ws.raw.receive(timeout=PATIENCE)
        assert message.data == encode(Ping(), msgpack=subprotocol == MSGPACK)
        assert isinstance(parse_server(message.data), Ping)
        await (ws.send("[]") if subprotocol == JSON else ws.send_bytes(b"\x90"))
        await until(lambda: echo.session.alive)
        await ws.close()


# --- what a client must not send


@on_both
@pytest.mark.parametrize("subprotocol", [JSON, MSGPACK])
async def test_frame_of_the_other_kind_is_malformed(
    native: bool, subprotocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with echo_server(native=native) as (server, client):
        echo, ws = await opened(server, client, subprotocol)
        with caplog.at_level(logging.DEBUG, "bellwire"):
            await (ws.send('["ping"]') if subprotocol == MSGPACK else ws.send_bytes(b"\x91\xa4ping"))
            assert await ws.close_code() == CloseCode.MALFORMED
        assert (echo.messages, echo.reasons) == ([], ["parse error"])
        (record,) = caplog.records
        assert record.getMessage().endswith(f"frame on {subprotocol}")


@on_both
@both_protocols
async def test_message_of_exactly_the_limit_passes(native: bool, subprotocol: str) -> None:
    async with echo_server(native=native) as (server, client):
        _, ws = await opened(server, client, subprotocol)
        if subprotocol == JSON:
            await ws.send("a" * MAX_MESSAGE)
            assert len(await ws.text()) == MAX_MESSAGE
        else:
            await ws.send_bytes(bytes(MAX_MESSAGE))
            assert len(await ws.bytes()) == MAX_MESSAGE
        await ws.close()


@on_both
@pytest.mark.parametrize("message", ["a" * (MAX_MESSAGE + 1), "é" * (MAX_MESSAGE // 2) + "a"], ids=["ascii", "utf-8"])
async def test_1009_for_one_byte_too_much(native: bool, message: str, caplog: pytest.LogCaptureFixture) -> None:
    async with echo_server(native=native) as (server, client):
        echo, ws = await opened(server, client)
        with caplog.at_level(logging.DEBUG, "bellwire"):
            await ws.send(message)
            assert await ws.close_code() == 1009
        (record,) = caplog.records
        assert record.getMessage() == (
            "a client is disconnected, transport error: message is too long (close code 1009)"
        )
        await until(echo.ended.is_set)
        assert (echo.messages, echo.reasons) == ([], ["transport error"])
        assert not server.engine.raw_sessions


@real
async def test_1009_for_more_fragments_than_a_message_may_have() -> None:
    async with echo_server(native=True) as (server, client):
        echo, ws = await opened(server, client)
        connection = ws.raw._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.write(b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * MAX_FRAGMENTS)
        assert await ws.close_code() == 1009
        assert echo.messages == []


@on_both
async def test_text_that_is_no_utf_8_closes_with_1007(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        echo, ws = await opened(server, client)
        connection = ws.raw._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.write(b"\x81\x82\0\0\0\0\xc3\x28")
        assert await ws.close_code() == 1007
        await until(echo.ended.is_set)
        assert echo.messages == []


# --- the end


@on_both
async def test_connection_that_goes_ends_the_session(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        echo, ws = await opened(server, client)
        await ws.close()
        await until(echo.ended.is_set)
        assert echo.reasons == ["transport close"]
        assert echo.session.closed
        assert not server.engine.raw_sessions
        assert server.counters.get("sessions_closed_total", reason="transport_close") == 1
        assert server.engine.wheel.pending == 0


@on_both
@pytest.mark.parametrize(("reason", "code"), [*CLOSE_CODES.items(), ("something else", 1000)])
async def test_close_code_tells_the_client_whether_to_come_back(native: bool, reason: str, code: int) -> None:
    async with echo_server(native=native) as (server, client):
        echo, ws = await opened(server, client)
        echo.send("the last word")
        echo.session.close(reason)
        echo.session.close("again")
        echo.send("too late")
        assert await ws.text() == "the last word"
        assert await ws.close_code() == code
        assert echo.reasons == [reason]
        await until(lambda: not server.engine.raw_sessions)


async def test_code_of_ones_own_for_reasons_that_have_none() -> None:
    server = EchoServer()
    for reason, expected in (("because", 4499), ("ping timeout", CloseCode.SILENT)):
        pipe = Pipe()
        server.engine.open_raw(pipe, Request(path="/bellwire"), JSON).close(reason, code=4499)
        assert pipe.closed == expected


@on_both
async def test_server_that_stops_says_so(native: bool) -> None:
    server = EchoServer()
    async with connect("") as client:
        async with serve(server, native=native) as url:
            client.url = f"{url}/socket.io/"
            echo, ws = await opened(server, client)
            closing = asyncio.create_task(ws.close_code())
            if not native:  # uvicorn's own protocol closes without asking the application
                await server.engine.close()
            await asyncio.sleep(0)
        assert await closing == CloseCode.DRAINING
        assert echo.reasons == ["server shutting down"]


@on_both
async def test_slow_consumer_that_reads_on_learns_what_it_was(native: bool) -> None:
    server = EchoServer(send_buffer_bytes=100_000, volatile_buffer_bytes=50_000)
    async with serve(server, native=native) as url, connect(url) as client:
        echo, ws = await opened(server, client)
        connection = ws.raw._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.pause_reading()
        while not echo.ended.is_set():
            echo.send("a" * 50_000)
            await asyncio.sleep(0)
        assert echo.reasons == ["slow consumer"]
        connection.transport.resume_reading()
        while (message := await ws.raw.receive(timeout=PATIENCE)).type is aiohttp.WSMsgType.TEXT:
            assert len(message.data) == 50_000
        assert ws.raw.close_code == CloseCode.SLOW


@on_both
async def test_slow_consumer_that_does_not_read_is_cut_off(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_module if native else asgi_module, "CLOSE_TIMEOUT", 0.2)
    server = EchoServer(send_buffer_bytes=100_000, volatile_buffer_bytes=50_000)
    async with serve(server, native=native) as url, connect(url) as client:
        echo, ws = await opened(server, client)
        connection = ws.raw._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.pause_reading()
        while not echo.ended.is_set():
            echo.send("a" * 50_000)
            await asyncio.sleep(0)
        carrier = echo.session.carrier
        if isinstance(carrier, NativeWebSocket):
            await until(lambda: carrier._transport.is_closing() and not carrier._transport.get_write_buffer_size())
        else:
            await until(lambda: carrier._end.done())  # type: ignore[attr-defined]
        await until(lambda: server.engine.wheel.pending == 0)


@on_both
async def test_connection_that_is_reset_ends_the_session(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        echo, ws = await opened(server, client)
        connection = ws.raw._response.connection
        assert connection is not None
        assert connection.transport is not None
        socket = connection.transport.get_extra_info("socket")
        socket.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER 0: the connection is reset, not closed
        connection.transport.abort()
        await until(echo.ended.is_set)
        assert len(echo.reasons) == 1
        assert not server.engine.raw_sessions
        with contextlib.suppress(ConnectionError):
            await ws.close()


async def test_nothing_is_received_after_the_end() -> None:
    server, pipe = EchoServer(), Pipe()
    session = server.engine.open_raw(pipe, Request(path="/bellwire"), JSON)
    session.received(pipe, "before")
    session.close("forced server close")
    session.received(pipe, "after")
    session.lost(pipe, "transport close")
    (echo,) = server.raw_echoes
    assert (echo.messages, echo.reasons) == (["before"], ["forced server close"])


async def test_broadcast_in_the_tick_of_the_end_still_leaves() -> None:
    server, pipe = EchoServer(), Pipe()
    session = server.engine.open_raw(pipe, Request(path="/bellwire"), JSON)
    server.raw_echoes[0].settle = lambda: session.send(Outgoing("broadcast"))  # type: ignore[method-assign]
    session.close("forced server close")
    assert (pipe.sent, pipe.closed) == (["broadcast"], CloseCode.EJECTED)


async def test_both_kinds_of_sessions_end_with_the_server() -> None:
    server = EchoServer()
    raw, engineio = Pipe(), Pipe()
    server.engine.open_raw(raw, Request(path="/bellwire"), JSON)
    server.engine.open(engineio, Request(path="/socket.io/"))
    await server.engine.close(1012)
    assert (raw.closed, engineio.closed) == (CloseCode.DRAINING, 1012)
    assert not server.engine.raw_sessions
    assert not server.engine.sessions
