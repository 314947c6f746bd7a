"""Attacks that once worked, each as it was made: over real sockets, against the native server unless it says both."""

import asyncio
import contextlib
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from bellwire import Config, Event, EventRefused, Server, Socket
from bellwire.protocol.frames import CLOSE, build_binary, build_frame, build_text
from tests.serving import serve
from tests.transports.wire import connect, until

pytestmark = pytest.mark.bellwire(clock="real", uvloop=True)
both = pytest.mark.parametrize("native", [True, False], ids=["native", "asgi"])

ECHO = Event("echo", str, reply=str)
DATA = Event("data", str)
FLOOD = Event("flood", int)
WAIT = Event("wait")
END = Event("end", reply=str)

UPGRADE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Odd(msgspec.Struct):
    x: int

    def __post_init__(self) -> None:
        raise KeyError("a careless developer")


ODD = Event("odd", Odd, reply=str)
ASK = Event("ask", reply=Odd)


class Target:
    """A server, its root namespace and the gate that one of its handlers waits for."""

    def __init__(self, **settings: Any) -> None:
        self.gate = asyncio.Event()
        self.server = Server(config=Config(**settings))
        self.root = self.server.namespace("/")
        self.root.on(ECHO)(self.echo)
        self.root.on(ODD)(self.odd)
        self.root.on(FLOOD)(self.flood)
        self.root.on(WAIT)(self.wait)
        self.root.on(END)(self.end)

    async def echo(self, socket: Socket, text: str) -> str:
        return text

    async def odd(self, socket: Socket, it: Odd) -> str:
        return "fine"

    async def flood(self, socket: Socket, kilobytes: int) -> None:
        for _ in range(kilobytes):
            await socket.emit(DATA, "x" * 1000)

    async def wait(self, socket: Socket) -> None:
        await self.gate.wait()

    async def end(self, socket: Socket) -> str:
        await asyncio.sleep(0)
        raise GeneratorExit


def masked(frame: bytes) -> bytes:
    """A server's frame as a client's: with a mask, of zeros."""
    head = {126: 4, 127: 10}.get(frame[1], 2)
    return bytes((frame[0], frame[1] | 0x80)) + frame[2:head] + bytes(4) + frame[head:]


def text(packet: str) -> bytes:
    return masked(build_text(packet))


class Raw:
    """A TCP connection of a client that reads only when it wants to."""

    def __init__(self, url: str) -> None:
        self._socket = sockets.socket()
        self._socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self._socket.connect(("127.0.0.1", int(url.rpartition(":")[2])))

    async def send(self, data: bytes, patience: float = 5) -> None:
        async with asyncio.timeout(patience):
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def receive(self, patience: float = 5) -> bytes:
        async with asyncio.timeout(patience):
            return await asyncio.get_running_loop().sock_recv(self._socket, 65536)

    @property
    def established(self) -> bool:
        return self._socket.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_INFO, 1)[0] == 1

    def close(self) -> None:
        self._socket.close()


@asynccontextmanager
async def raw(url: str, *sent: bytes) -> AsyncIterator[Raw]:
    """A raw connection that has sent this, one after the other, and read an answer to each."""
    client = Raw(url)
    try:
        for data in sent:
            await client.send(data)
            await client.receive()
        yield client
    finally:
        client.close()


def get(sid: str = "") -> bytes:
    return f"GET /socket.io/?EIO=4&transport=polling{sid and f'&sid={sid}'} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def post(sid: str, *fields: str) -> bytes:
    lines = [f"POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1", "Host: x", *fields, "", ""]
    return "\r\n".join(lines).encode()


# --- messages lost


@both
async def test_a_broadcast_in_the_tick_of_the_upgrade_arrives(native: bool) -> None:
    target = Target()
    async with serve(target.server, native=native) as url, connect(url) as client:
        sid = await client.open()
        await client.post(sid, "40")
        await client.get(sid)
        websocket = await client.websocket(sid)
        await websocket.probe()
        session = target.server.engine.sessions[sid]
        assert session._candidate is not None
        await target.root.emit(DATA, "precious")  # it waits in the fan-out until the tick ends ...
        session.received(session._candidate, "5")  # ... and in this tick the client's last word on polling is read
        assert [await websocket.text(), await websocket.text()] == ["6", '42["data","precious"]']
        await websocket.close()


@both
async def test_a_broadcast_in_the_tick_in_which_the_server_closes_arrives(native: bool) -> None:
    target = Target()
    async with serve(target.server, native=native) as url, connect(url) as client:
        _, websocket = await client.open_websocket()
        await websocket.send("40")
        await websocket.text()
        await target.root.emit(DATA, "goodbye")
        await target.server.close()
        assert await websocket.text() == '42["data","goodbye"]'


# --- memory


@pytest.mark.parametrize("line", [b"a:b\r\n" * 13_000, b"a" * 65_536], ids=["many fields", "one field"])
async def test_the_head_of_a_request_is_bounded(line: bytes) -> None:
    target = Target()
    async with serve(target.server) as url, raw(url) as client:
        await client.send(get()[:-2] + b"x: ")
        with pytest.raises(OSError, match=r"reset|pipe"):
            await client.send(line * 64)


async def test_the_trailers_of_a_request_are_bounded() -> None:
    target = Target()
    async with serve(target.server) as url, connect(url) as client, raw(url) as attacker:
        sid = await client.open()
        await attacker.send(post(sid, "Transfer-Encoding: chunked") + b"1\r\n3\r\n0\r\n")
        with pytest.raises(OSError, match=r"reset|pipe"):
            await attacker.send(b"a:b\r\n" * 800_000)


async def test_events_that_wait_are_bounded_in_bytes() -> None:
    target = Target()
    async with serve(target.server) as url, raw(url, UPGRADE) as client:
        await client.send(text("40") + text('42["wait"]'))
        await until(lambda: target.server.engine.sessions)
        (session,) = target.server.engine.sessions.values()
        big = text('42["echo","' + "x" * 600_000 + '"]')
        await client.send(big + big)
        await until(lambda: session.paused)
        target.gate.set()
        await until(lambda: not session.paused)


async def test_what_connect_brings_is_bounded() -> None:
    target = Target()
    target.server.namespace("/org/{org}")
    async with serve(target.server) as url, connect(url) as client:
        _, websocket = await client.open_websocket()
        await websocket.send('40/org/1,{"a":[' + "[]," * 300_000 + "0]}")
        assert await websocket.text() == '44/org/1,{"message":"auth is larger than 16384 characters"}'
        assert target.server.counters.get("connects_refused_total", reason="too_much") == 1
        await websocket.close()


async def test_joining_and_leaving_makes_no_more_tasks_than_events_may_wait() -> None:
    target = Target(inbound_queue_events=16)
    slow = target.server.namespace("/slow")

    @slow.on_connect
    async def joined(socket: Socket) -> None:
        await target.gate.wait()

    async with serve(target.server) as url, raw(url, UPGRADE) as client:
        before = len(asyncio.all_tasks())
        await client.send((text("40/slow,") + text("41/slow,")) * 500)
        await until(lambda: target.server.counters.get("connects_refused_total", reason="too_much"))
        assert len(asyncio.all_tasks()) - before < 50
        target.gate.set()


# --- connections, tasks and timers that never end


async def test_a_post_whose_body_does_not_come_ends_with_its_session() -> None:
    target = Target(connect_timeout=0.3)
    async with serve(target.server) as url, connect(url) as client:
        sid = await client.open()
        async with raw(url) as attacker:
            await attacker.send(post(sid, "Content-Length: 9") + b"4")
            assert (await attacker.receive()).startswith(b"HTTP/1.1 400")
            assert not target.server.engine.sessions


@pytest.mark.parametrize(
    ("request_", "more"),
    [
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n"),
        (b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n", b"x"),
    ],
    ids=["an empty line", "a byte of a body that nobody reads"],
)
async def test_a_connection_whose_bytes_begin_no_request_ends(request_: bytes, more: bytes) -> None:
    target = Target(head_timeout=0.3)
    async with serve(target.server) as url, raw(url, request_) as client:
        await client.send(more)
        await until(lambda: not client.established)


@pytest.mark.parametrize("last", [masked(build_frame(CLOSE, b"\x03\xe8")), b"\xf1\x80\0\0\0\0"], ids=["close", "fault"])
async def test_a_client_that_ends_and_does_not_read_is_cut_off(last: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bellwire.transports.native.CLOSE_TIMEOUT", 0.3)
    target = Target(send_buffer_bytes=64_000_000)
    async with serve(target.server) as url, raw(url, UPGRADE) as client:
        await client.send(text("40") + text('42["flood",8000]'))
        await until(lambda: target.server.engine.sessions)
        (session,) = target.server.engine.sessions.values()
        await until(lambda: session.carrier.buffered)
        transport = session.carrier._transport  # type: ignore[attr-defined]
        await client.send(last)
        await until(lambda: transport.is_closing() and not transport.get_write_buffer_size())


@both
async def test_a_post_that_was_made_to_wait_ends_when_the_session_is_upgraded(native: bool) -> None:
    target = Target(inbound_queue_events=4)
    async with serve(target.server, native=native) as url, connect(url) as client:
        sid = await client.open()
        await client.post(sid, "40")
        await client.get(sid)
        waiting = asyncio.ensure_future(client.post(sid, "\x1e".join(['42["wait"]'] + ['42["echo","x"]'] * 8)))
        session = target.server.engine.sessions[sid]
        await until(lambda: session.paused)
        websocket = await client.websocket(sid)
        await websocket.probe()
        await websocket.send("5")
        await until(lambda: session.carrier.name == "websocket")
        async with asyncio.timeout(5):
            await waiting
        target.gate.set()
        await websocket.close()


async def test_timers_end_with_their_connection() -> None:
    target = Target()
    async with serve(target.server) as url:
        before = target.server.engine.wheel.pending
        async with raw(url, UPGRADE, text("40")):
            assert target.server.engine.wheel.pending == before
        await until(lambda: not target.server.engine.sessions)
        assert target.server.engine.wheel.pending == before


# --- what careless applications do


@both
async def test_a_payload_type_that_raises_costs_its_event_only(native: bool) -> None:
    target = Target()
    async with serve(target.server, native=native) as url, connect(url) as client:
        _, websocket = await client.open_websocket()
        await websocket.send("40")
        await websocket.text()
        await websocket.send('421["odd",{"x":1}]')
        await websocket.send('422["echo","x"]')
        assert (await websocket.text()).startswith('431[{"error":{"code":"internal"')
        assert await websocket.text() == '432["x"]'
        await websocket.close()


async def test_a_reply_type_that_raises_costs_the_client_nothing() -> None:
    target = Target()
    async with serve(target.server) as url, connect(url) as client:
        _, websocket = await client.open_websocket()
        await websocket.send("40")
        await websocket.text()
        call = asyncio.ensure_future(target.root.call(ASK, timeout=2))
        assert await websocket.text() == '420["ask"]'
        await websocket.send('430[{"x":1}]')
        await websocket.send('422["echo","x"]')
        assert await websocket.text() == '432["x"]'
        (error,) = (await call).errors.values()
        assert isinstance(error, EventRefused)
        assert error.code == "invalid_reply"
        await websocket.close()


async def test_a_handler_that_raises_generator_exit_is_one_that_failed() -> None:
    target = Target()
    async with serve(target.server) as url, connect(url) as client:
        _, websocket = await client.open_websocket()
        await websocket.send("40")
        await websocket.text()
        await websocket.send('421["end"]')
        await websocket.send('422["echo","x"]')
        assert (await websocket.text()).startswith('431[{"error":{"code":"internal"')
        assert await websocket.text() == '432["x"]'
        await websocket.close()


async def test_binary_frames_of_all_lengths_are_masked_as_a_client_would() -> None:
    """The helper of this file, against the server's own reading of it."""
    target = Target()
    async with serve(target.server) as url, raw(url, UPGRADE, text("40")) as client:
        for size in (1, 200, 70_000):
            await client.send(text('451-9["echo",{"_placeholder":true,"num":0}]') + masked(build_binary(bytes(size))))
            assert b"invalid_payload" in await client.receive()


# --- what has begun and is never complete


@both
async def test_attachments_that_do_not_come_end_the_connection(native: bool) -> None:
    target = Target(message_timeout=0.2)
    async with serve(target.server, native=native) as url, connect(url) as client:
        _, websocket = await client.open_websocket()
        await websocket.send("40")
        await websocket.text()
        await websocket.send('452-["echo",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]')
        await websocket.send_bytes(b"1")
        assert await websocket.close_code() == 1000
        assert target.server.counters.get("sessions_closed_total", reason="message_timeout") == 1


@both
async def test_a_body_that_comes_byte_by_byte_ends_its_session(native: bool) -> None:
    target = Target(message_timeout=0.2)
    async with serve(target.server, native=native) as url, connect(url) as client:
        sid = await client.open()
        never = asyncio.get_running_loop().create_future()

        async def body() -> AsyncIterator[bytes]:
            while sid in target.server.engine.sessions:
                yield b"4"
                await asyncio.wait((never,), timeout=0.02)

        assert (await client.post(sid, body())).status == 400
        assert target.server.counters.get("sessions_closed_total", reason="message_timeout") == 1
