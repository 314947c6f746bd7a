"""The native transport on uvicorn's sockets: heads with a deadline, other people's WebSockets, closing, compression."""

import asyncio
import contextlib
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import connect as open_websocket
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from bellwire import Config, Socket
from bellwire.protocol.deflate import compress
from bellwire.protocol.outgoing import Outgoing
from bellwire.transports import native as native_module
from bellwire.transports.base import Receive, Scope, Send
from bellwire.transports.native import NativeWebSocket
from bellwire.transports.unread import NOTED_FROM
from tests.serving import serve
from tests.transports.clogged import Clogged, upgrade
from tests.transports.wire import (
    PATIENCE,
    Echo,
    EchoServer,
    connect,
    dial,
    echo_server,
    on_both,
    real,
    socketio_server,
    until,
)

# --- the deadline of a request's head


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a head that never ends, a byte at a time, until the server hangs up."""
    ended = asyncio.create_task(reader.read())
    writer.write(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nX: ")
    while not ended.done():
        writer.write(b"x")
        await asyncio.wait((ended,), timeout=0.02)
    with contextlib.suppress(ConnectionResetError):
        assert ended.result() == b""


@real
async def test_client_that_sends_its_head_byte_by_byte_is_cut_off() -> None:
    server = EchoServer(head_timeout=0.15)
    async with serve(server) as url, dial(url) as (reader, writer), asyncio.timeout(PATIENCE):
        await drip(reader, writer)


@real
async def test_client_that_says_nothing_is_cut_off() -> None:
    server = EchoServer(head_timeout=0.15)
    async with serve(server) as url, dial(url) as (reader, _), asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""


@real
async def test_head_of_a_later_request_has_the_deadline_too() -> None:
    server = EchoServer(head_timeout=0.15)
    async with serve(server) as url, dial(url) as (reader, writer), asyncio.timeout(PATIENCE):
        writer.write(b"GET /socket.io/ HTTP/1.1\r\nHost: h\r\n\r\n")
        await reader.readuntil(b"Transport unknown")
        await reader.readexactly(2)
        await drip(reader, writer)


@real
async def test_head_behind_a_request_that_waits_for_its_answer_has_the_deadline_too() -> None:
    server = EchoServer(head_timeout=0.15)
    async with serve(server) as url, connect(url) as client, dial(url) as (reader, writer), asyncio.timeout(PATIENCE):
        sid = await client.open()
        writer.write(f"GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: h\r\n\r\nGET /".encode())
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""


@real
async def test_idle_connection_is_kept_and_used_again() -> None:
    server = EchoServer(head_timeout=0.1)
    async with serve(server) as url, dial(url) as (reader, writer), asyncio.timeout(PATIENCE):
        for _ in range(2):
            writer.write(b"GET /socket.io/ HTTP/1.1\r\nHost: h\r\n\r\n")
            await reader.readuntil(b'Transport unknown"}')
            passed = asyncio.Event()
            server.engine.wheel.after(0.4, passed.set)  # longer than the deadline by a few turns of the wheel
            await passed.wait()


# --- the size of a head

HEAD = b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n"
UPGRADING = HEAD.replace(b"polling", b"websocket") + (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


async def answer_to(url: str, request: bytes) -> tuple[bytes, float]:
    """The status line, and how long it took once all was sent."""
    async with dial(url) as (reader, writer), asyncio.timeout(PATIENCE):
        writer.write(request)
        await writer.drain()
        began = asyncio.get_running_loop().time()
        line = await reader.readline()
        return line.rstrip(), asyncio.get_running_loop().time() - began


LARGE = [
    (HEAD + b"a: b\r\n" * 10_000 + b"\r\n", b"431 Request Header Fields Too Large"),
    (HEAD + b"a: b\r\n" * 128 + b"\r\n", b"431 Request Header Fields Too Large"),
    (UPGRADING + b"a: b\r\n" * 128 + b"\r\n", b"431 Request Header Fields Too Large"),
    (HEAD + b"a: b\r\n" * 127 + b"\r\n", b"200 OK"),
    (HEAD + b"a: " + b"b" * 1_000_000 + b"\r\n\r\n", b"431 Request Header Fields Too Large"),
    (HEAD + b"a: " + b"b" * 60_000 + b"\r\n\r\n", b"200 OK"),
    (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n", b"431 Request Header Fields Too Large"),
    (UPGRADING + b"Sec-WebSocket-Protocol: " + b"a," * 30_000 + b"\r\n\r\n", b"101 Switching Protocols"),
    (UPGRADING + b"Sec-WebSocket-Protocol: " + b" " * 60_000 + b"\r\n\r\n", b"101 Switching Protocols"),
    (UPGRADING + b"Sec-WebSocket-Extensions: " + b'x;y="' * 10_000 + b"\r\n\r\n", b"101 Switching Protocols"),
    (
        UPGRADING + b"Sec-WebSocket-Extensions: " + b"permessage-deflate," * 3_000 + b"\r\n\r\n",
        b"101 Switching Protocols",
    ),
    (UPGRADING + b"Sec-WebSocket-Extensions: a" + b";" * 60_000 + b"\r\n\r\n", b"101 Switching Protocols"),
    (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400 Bad Request"),
    (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400 Bad Request"),
    (HEAD + b"Content-Length: -1\r\n\r\n", b"400 Bad Request"),
    (b"nonsense\r\n\r\n", b"400 Bad Request"),
]


@pytest.mark.bellwire(clock="real", uvloop=True)
@pytest.mark.parametrize(("request_", "status"), LARGE)
async def test_a_head_is_bounded_and_answered_at_once(request_: bytes, status: bytes) -> None:
    async with echo_server(native=True, per_message_deflate=True) as (server, client):
        url = client.url.removesuffix("/socket.io/")
        line, took = await answer_to(url, request_)
        assert line == b"HTTP/1.1 " + status
        assert took < 0.5  # some milliseconds; a machine that runs many tests at once is slow
        assert (await client.request(EIO="4", transport="polling")).status == 200
        refused = sum(
            server.counters.get("requests_refused_total", reason=why) for why in ("head_too_large", "malformed")
        )
        assert refused == (0 if status[:1] in b"12" else 1)


@real
async def test_who_goes_on_sending_a_head_that_was_refused_is_cut_off() -> None:
    server = EchoServer(head_timeout=0.2)
    async with serve(server) as url, dial(url) as (reader, writer), asyncio.timeout(PATIENCE):
        writer.write(HEAD + b"a: b\r\n" * 200)
        assert (await reader.readline()).startswith(b"HTTP/1.1 431 ")
        with contextlib.suppress(ConnectionResetError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0)


@real
async def test_deadline_ends_with_the_head_not_with_the_answer() -> None:
    async with echo_server(native=True, head_timeout=0.1) as (server, client):
        sid = await client.open()
        pending = asyncio.create_task(client.get(sid))
        server.engine.wheel.after(0.4, lambda: server.echoes[sid].send("late"))
        assert (await pending).text == "4late"


@real
async def test_deadline_does_not_reach_websockets() -> None:
    async with echo_server(native=True, head_timeout=0.1) as (server, client):
        sid, ws = await client.open_websocket()
        server.engine.wheel.after(0.4, lambda: server.echoes[sid].send("late"))
        assert await ws.text() == "4late"
        await ws.close()


@real
async def test_deadlines_leave_no_timers() -> None:
    async with echo_server(native=True) as (server, client):
        for _ in range(3):
            await client.open()
            await (await client.open_websocket())[1].close()
        await until(lambda: len(server.engine.sessions) == 3)
        assert server.engine.wheel.pending == 0


# --- the connection


@real
async def test_connection_is_ours_after_the_upgrade() -> None:
    async with echo_server(native=True) as (server, client):
        sid, ws = await client.open_websocket()
        assert isinstance(server.engine.sessions[sid].carrier, NativeWebSocket)
        await ws.close()


@real
async def test_client_that_does_not_answer_the_close_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_module, "CLOSE_TIMEOUT", 0.1)
    server = EchoServer()
    async with serve(server) as url, dial(url) as (reader, writer), asyncio.timeout(PATIENCE):
        writer.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await reader.readuntil(b"}")
        await server.engine.close(1001)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b"\x88\x02\x03\xe9"


@real
async def test_slow_consumer_is_cut_off() -> None:
    server = EchoServer(send_buffer_bytes=100_000, volatile_buffer_bytes=50_000)
    async with serve(server) as url, connect(url) as client:
        sid, ws = await client.open_websocket()
        session, echo = server.engine.sessions[sid], server.echoes[sid]
        ws.raw._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        while session.carrier.writable:
            echo.send("a" * 50_000)
            await asyncio.sleep(0)
        assert session.carrier.buffered > 50_000
        while not echo.ended.is_set():
            echo.send("a" * 50_000)
            await asyncio.sleep(0)
        assert echo.reasons == ["slow consumer"]
        assert server.counters.get("sessions_closed_total", reason="slow_consumer") == 1
        assert server.counters.get("slow_consumers_total", cause="buffer_full") == 1


@on_both
async def test_congestion_and_its_end_are_told(native: bool) -> None:
    server = EchoServer(send_buffer_bytes=64_000_000, volatile_buffer_bytes=100_000)
    async with serve(server, native=native) as url, connect(url) as client:
        sid, ws = await client.open_websocket()
        session, echo = server.engine.sessions[sid], server.echoes[sid]
        transport: Any = ws.raw._response.connection.transport  # type: ignore[union-attr]
        for _ in range(2):
            transport.pause_reading()
            sent = 0
            while session.carrier.buffered < 400_000:
                echo.send("a" * 50_000)
                sent += 1
                await asyncio.sleep(0)
            assert echo.notices[-1] == "congested"
            transport.resume_reading()
            for _ in range(sent):
                await ws.text()
            await until(lambda: echo.notices[-1] == "drained" and session.carrier.writable)
        assert echo.notices == ["congested", "drained"] * (len(echo.notices) // 2)
        assert len(echo.notices) == 4 or not native  # under other servers a tick may bring more than is writable
        assert not echo.reasons
        assert server.engine.wheel.pending == 0
        await ws.close()


@real
async def test_healthy_client_costs_no_notices() -> None:
    async with echo_server(native=True) as (server, client):
        sid, ws = await client.open_websocket()
        for _ in range(100):
            server.echoes[sid].send("a" * 1000)
            assert len(await ws.text()) == 1001
        assert server.echoes[sid].notices == []
        await ws.close()


@on_both
async def test_client_that_takes_nothing_for_a_while_is_cut_off(native: bool) -> None:
    server = EchoServer(send_buffer_bytes=64_000_000, write_timeout=0.3)
    async with serve(server, native=native) as url, connect(url) as client:
        sid, ws = await client.open_websocket()
        session, echo = server.engine.sessions[sid], server.echoes[sid]
        ws.raw._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        echo.send("a" * 16_000_000)  # this one another server takes, however long it is
        echo.send("a" * 100_000)
        await until(echo.ended.is_set)
        assert echo.notices == ["congested"]
        assert echo.reasons == ["slow consumer"]
        assert session.closed


@real
async def test_response_that_was_not_read_before_the_upgrade_counts() -> None:
    """The transport was paused for another protocol then, and tells nobody when it is our turn."""

    responded = asyncio.Event()

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"16000000")]})
            await send({"type": "http.response.body", "body": bytes(16_000_000)})
            responded.set()

    server = socketio_server(http=large, config=Config(send_buffer_bytes=100_000, volatile_buffer_bytes=50_000))
    async with serve(server) as url, dial(url) as (reader, writer), asyncio.timeout(PATIENCE):
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        await responded.wait()
        writer.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await until(lambda: server.engine.sessions)
        (session,) = server.engine.sessions.values()
        assert session.carrier.congested
        session.send(Outgoing("4"))
        await until(lambda: session.closed)
        assert server.counters.get("sessions_closed_total", reason="slow_consumer") == 1


@pytest.mark.parametrize("overhead", [0, 29])
async def test_progress_is_what_the_kernel_takes_and_not_what_is_added(overhead: int) -> None:
    transport = Clogged(overhead=overhead)
    first, carrier, echo = await upgrade(EchoServer(volatile_buffer_bytes=1000), transport)
    echo.send("a" * 2000)
    await until(lambda: echo.notices)
    assert (carrier.congested, echo.notices) == (True, ["congested"])
    before = carrier.progress
    for _ in range(5):
        echo.send("a" * 2000)
        await asyncio.sleep(0)
        first.data_received(b"\x89\x80\0\0\0\0")  # a ping, and so a pong
    assert carrier.progress == before
    transport.take(500)
    assert carrier.progress == before + 500


async def test_congestion_ends_when_a_quarter_is_left() -> None:
    transport = Clogged()
    _, carrier, echo = await upgrade(EchoServer(volatile_buffer_bytes=1000), transport)
    transport.take(transport.waiting)  # the handshake's response, which it did not read either
    echo.notices.clear()
    echo.send("a" * 996)  # 1,000 with the frame's head
    await asyncio.sleep(0)
    assert echo.notices == []
    echo.send("a")
    await until(lambda: echo.notices)
    transport.take(750)
    assert not carrier.writable
    await asyncio.sleep(0)
    assert echo.notices == ["congested"]
    transport.take(3)
    await asyncio.sleep(0)
    assert echo.notices == ["congested", "drained"]


@pytest.mark.parametrize("paused", [True, False])
async def test_earlier_response_that_waits_is_congestion_whether_its_protocol_was_paused_or_not(paused: bool) -> None:
    transport = Clogged(70_000, paused=paused)
    _, carrier, echo = await upgrade(EchoServer(), transport)
    assert transport.limits == (NOTED_FROM // 4, NOTED_FROM)
    assert carrier.congested
    assert echo.notices == ["congested"]
    transport.take(transport.waiting)
    assert not carrier.congested
    await asyncio.sleep(0)
    assert echo.notices == ["congested", "drained"]


async def test_notices_that_come_before_the_new_protocol_took_over_reach_it() -> None:
    first, carrier, _ = await upgrade(EchoServer(), transport := Clogged())
    transport.waiting = 70_000
    first.pause_writing()
    assert carrier.congested
    first.resume_writing()
    assert not carrier.congested


async def test_transports_pause_above_at_least_one_byte() -> None:
    transport = Clogged()
    await upgrade(EchoServer(volatile_buffer_bytes=0), transport)
    assert transport.limits[1] == 1


async def test_what_waits_is_noted_before_it_is_congestion_and_forgotten_when_it_is_read() -> None:
    server, transport = EchoServer(), Clogged()
    _, carrier, echo = await upgrade(server, transport)
    transport.take(transport.waiting)
    echo.send("a" * NOTED_FROM)
    await asyncio.sleep(0)
    assert (server.engine.unread.total, carrier.congested) == (carrier.buffered, False)
    assert carrier.buffered > NOTED_FROM
    transport.take(transport.waiting)
    assert (server.engine.unread.total, echo.notices) == (0, [])
    assert server.engine.wheel.pending == 0


async def test_connection_that_is_lost_is_no_backlog() -> None:
    server, transport = EchoServer(), Clogged()
    _, carrier, echo = await upgrade(server, transport)
    echo.send("a" * NOTED_FROM)
    await asyncio.sleep(0)
    assert len(server.engine.unread) == 1
    carrier.connection_lost(None)
    assert len(server.engine.unread) == 0


async def test_client_that_answers_and_reads_nothing_is_cut_off_however_little_waits() -> None:
    server, transport = EchoServer(write_timeout=10), Clogged()
    first, carrier, echo = await upgrade(server, transport)
    echo.echoing = False
    transport.take(transport.waiting)
    echo.send("a" * NOTED_FROM)
    for _ in range(13):
        await asyncio.sleep(1)
        first.data_received(b"\x81\x80\0\0\0\0")
    assert (carrier.congested, echo.reasons) == (False, ["slow consumer"])
    assert server.counters.get("slow_consumers_total", cause="no_progress") == 1


@real
async def test_compression_where_it_is_on_and_offered() -> None:
    server = EchoServer(per_message_deflate=True)
    async with serve(server) as url, aiohttp.ClientSession() as http:
        target = f"{url}/socket.io/?EIO=4&transport=websocket"
        async with http.ws_connect(target, compress=15) as ws:
            assert ws.compress
            await ws.receive_str(timeout=PATIENCE)
            for text in ("4" + "a" * 10_000, "4b", "4" + "a" * 10_000):
                await ws.send_str(text)
                assert await ws.receive_str(timeout=PATIENCE) == text
        async with http.ws_connect(target) as ws:
            assert not ws.compress


@real
async def test_compression_is_off_by_default() -> None:
    async with (
        serve(EchoServer()) as url,
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{url}/socket.io/?EIO=4&transport=websocket", compress=15) as ws,
    ):
        assert not ws.compress


# --- the heartbeat


@on_both
async def test_server_pings_and_ends_who_does_not_answer(native: bool) -> None:
    config = Config(ping_interval=0.2, pong_timeout=0.1, max_missed_pongs=1)
    server = socketio_server(config=config)
    reasons: list[str] = []

    @server.namespaces["/"].on_disconnect
    async def left(socket: Socket, reason: str) -> None:
        reasons.append(reason)

    async with serve(server, native=native) as url, connect(url) as client:
        _, ws = await client.open_websocket()
        await ws.send("40")
        await ws.text()
        for _ in range(3):
            assert await ws.text() == "2"
            await ws.send("3")
        assert not reasons
        assert await ws.text() == "2"
        assert await ws.close_code() == 1000
        await until(lambda: reasons)
        assert reasons == ["ping timeout"]


@on_both
async def test_polling_client_is_pinged_through_its_get(native: bool) -> None:
    config = Config(ping_interval=0.2, pong_timeout=0.1, max_missed_pongs=1)
    async with serve(socketio_server(config=config), native=native) as url, connect(url) as client:
        sid = await client.open()
        for _ in range(3):
            assert (await client.get(sid)).text == "2"
            assert (await client.post(sid, "3")).text == "ok"
        assert (await client.get(sid)).text == "2"
        assert (await client.get(sid)).text == "1"
        assert (await client.get(sid)).status == 400


# --- messages that are never complete, and those that become many

FIRST_FRAGMENT = b"\x01\x82\0\0\0\x004a"


@real
@pytest.mark.parametrize(
    "trickle",
    [b"\x00\x80\0\0\0\0", b"\x89\x80\0\0\0\0", b"\x00\xfe"],
    ids=["empty fragments", "pings", "half a header"],
)
async def test_message_that_is_never_complete_ends_the_session(trickle: bytes) -> None:
    server = EchoServer(message_timeout=0.2)
    async with serve(server) as url, dial(url) as (reader, writer), asyncio.timeout(PATIENCE):
        (echo,) = await opened(server, reader, writer)
        writer.write(FIRST_FRAGMENT)
        while not echo.ended.is_set():
            writer.write(trickle)
            trickle = trickle if len(trickle) > 2 else b""
            await asyncio.wait([asyncio.ensure_future(echo.ended.wait())], timeout=0.02)
        assert echo.reasons == ["message timeout"]


@real
async def test_messages_that_are_complete_in_time_keep_the_session_alive() -> None:
    server = EchoServer(message_timeout=0.2)
    async with serve(server) as url, dial(url) as (reader, writer), asyncio.timeout(PATIENCE):
        (echo,) = await opened(server, reader, writer)
        message = b"\x81\x82\0\0\0\x004a"
        writer.write(message[:3])
        for _ in range(8):
            await asyncio.wait([asyncio.ensure_future(echo.ended.wait())], timeout=0.05)
            writer.write(message[3:] + message[:3])
        assert not echo.reasons
        assert set(echo.messages) == {"a"}


@real
async def test_time_is_not_counted_while_the_server_does_not_read() -> None:
    server = EchoServer(message_timeout=0.2)
    async with serve(server) as url, dial(url) as (reader, writer), asyncio.timeout(PATIENCE):
        (echo,) = await opened(server, reader, writer)
        writer.write(FIRST_FRAGMENT)
        await until(lambda: carrier(echo)._arrival is not None)
        echo.session.pause(True)
        await asyncio.wait([asyncio.ensure_future(echo.ended.wait())], timeout=0.7)
        assert not echo.reasons
        echo.session.pause(False)
        writer.write(b"\x80\x81\0\0\0\0b")
        await until(lambda: echo.messages == ["ab"])


@real
async def test_compressed_messages_wait_while_the_client_is_made_to_wait() -> None:
    server = EchoServer(per_message_deflate=True)
    async with serve(server) as url, dial(url) as (reader, writer), asyncio.timeout(PATIENCE):
        (echo,) = await opened(server, reader, writer, "Sec-WebSocket-Extensions: permessage-deflate\r\n")
        echo.echoing = False
        bomb = compress(b"4" + b"a" * 999_999, 15)
        head = b"\xc1\xfe" + len(bomb).to_bytes(2, "big") + bytes(4)
        echo.session.pause(True)
        carrier(echo).data_received((head + bomb) * 20)  # as the loop does with what it has read
        await asyncio.sleep(0)
        assert len(echo.messages) == 1
        echo.session.pause(False)
        await until(lambda: len(echo.messages) == 20)
        writer.write(b"\x81\x82\0\0\0\x004b")
        await until(lambda: len(echo.messages) == 21)


@real
async def test_clients_with_the_same_window_share_what_is_compressed() -> None:
    server = EchoServer(per_message_deflate=True)
    async with serve(server) as url, contextlib.AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        address = f"{url.replace('http', 'ws', 1)}/socket.io/?EIO=4&transport=websocket"
        clients = []
        for bits in (None, 9, None):
            offers = [ClientPerMessageDeflateFactory(server_max_window_bits=bits, client_max_window_bits=True)]
            clients.append(await stack.enter_async_context(open_websocket(address, extensions=offers)))
            await clients[-1].recv()
        await until(lambda: len(server.echoes) == len(clients))
        text = "".join(f"temperature {n * 7919 % 1000} " for n in range(200))
        message = Outgoing(text)
        for _ in range(2):
            for echo in server.echoes.values():
                echo.session.send(message)
            assert [await client.recv() for client in clients] == [text] * 3
        assert set(message._deflated or ()) == {(12, False), (9, False)}
        assert len(message.deflated(12)) < len(text) / 2


async def opened(
    server: EchoServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fields: str = ""
) -> list[Echo]:
    """Open a WebSocket; the server's end of it."""
    head = (
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
    writer.write(head.encode())
    await reader.readuntil(b"\r\n\r\n")
    await until(lambda: server.echoes)
    return list(server.echoes.values())


def carrier(echo: Echo) -> NativeWebSocket:
    found = echo.session.carrier
    assert isinstance(found, NativeWebSocket)
    return found
