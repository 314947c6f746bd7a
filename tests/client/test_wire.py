"""A wire against servers that are hostile, silent, or only TLS."""

import asyncio
import ssl
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bellwire import Client, ConnectRefused, Event
from bellwire.client import wire as wire_module
from bellwire.client.address import parse_url
from bellwire.client.codec import RawCodec, SocketIOCodec
from bellwire.client.link import MAX_BYTES, Answered, Ended, Link, News, Received, Welcome
from bellwire.client.raw_link import RawLink
from bellwire.client.socketio_link import SocketIOLink
from bellwire.client.wire import MAX_OWED_BYTES, Wire, open_wire
from bellwire.guard.schema import ReplyReader
from bellwire.protocol import wire as v1
from bellwire.protocol.frames import BINARY, PING, build_binary, build_close, build_frame, build_text
from bellwire.protocol.handshake import build_response
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.websocket import CLOSED, WebSocket
from bellwire.testing.clock import advance
from tests.client.house import SECONDS, served_by

OPEN = build_text('0{"sid":"e","upgrades":[],"pingInterval":25000,"pingTimeout":30000}')
WELCOME = build_text('40{"sid":"s"}')


class Ear:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.wire: Wire | None = None

    def attached(self, wire: Wire) -> None:
        self.wire = wire

    def joined(self, welcome: Welcome) -> None:
        self.heard.append(("joined", welcome.id))

    def refused(self, error: ConnectRefused) -> None:
        self.heard.append(("refused", error.message))

    def told(self, news: News) -> None:
        if isinstance(news, Received):
            self.heard.append(news.parcel.name)
        elif isinstance(news, Answered):
            self.heard.append(news.answer.read(ReplyReader(Event("any", reply=object))))

    def relieved(self) -> None:
        self.heard.append("relieved")


def link(subprotocol: str | None, now: float) -> Link:
    if subprotocol is None:
        return SocketIOLink(SocketIOCodec("/"), None, lambda: None, now)
    return RawLink(RawCodec("/", subprotocol), None, lambda: None, now)


class Line(asyncio.Transport):
    """A transport without a socket: what is written is kept, and the loop is the test's."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.reading = True
        self.closing = False
        self.protocol: Wire | None = None

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            assert self.protocol is not None
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def connected(*, begin: bytes = OPEN + WELCOME, subprotocol: str = "") -> tuple[Wire, Line, Ear]:
    """A wire whose handshake is done, as if it had been on a network."""
    ear, line = Ear(), Line()
    url, offered = ("ws://h", (v1.MSGPACK, v1.JSON)) if subprotocol else ("http://h", ())
    wire = line.protocol = Wire(parse_url(url), offered, link, ear)
    wire.connection_made(line)
    key = bytes(line.written).partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    line.written.clear()
    chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n".encode() if subprotocol else b""
    wire.data_received(build_response(key)[:-2] + chosen + b"\r\n" + begin)
    return wire, line, ear


def said(line: Line) -> list[str | bytes]:
    """What the server reads."""
    return WebSocket(max_message=MAX_BYTES).receive(bytes(line.written))


async def test_the_handshakes_are_spoken() -> None:
    wire, line, ear = connected()
    assert said(line) == ["40"]
    assert ear.heard == [("joined", "s")]
    wire.data_received(build_text("2") + build_text('42["say","hi"]') + build_text("430[]"))
    assert said(line) == ["40", "3"]
    assert ear.heard[1:] == ["say", None]
    wire.send(Outgoing('451-["b",{"_placeholder":true,"num":0}]', b"x"))
    assert said(line)[2:] == ['451-["b",{"_placeholder":true,"num":0}]', b"x"]
    wire.abort("enough")
    assert await wire.over == Ended("enough")


async def test_leaving_says_so_and_waits_for_the_server() -> None:
    wire, line, _ = connected()
    wire.leave("io client disconnect")
    server = WebSocket(max_message=100)
    assert server.receive(bytes(line.written)) == ["40", "41"]
    assert (server.state, server.close_code, line.closing) == (CLOSED, 1000, False)
    wire.data_received(build_text('42["late"]') + build_close(1000))
    assert await wire.over == Ended("io client disconnect")
    assert line.closing


async def test_a_server_that_does_not_close_is_left_after_two_seconds() -> None:
    wire, _, _ = connected()
    wire.leave("io client disconnect")
    await advance(1.9)
    assert not wire.over.done()
    await advance(0.2)
    assert wire.over.result() == Ended("io client disconnect")


@pytest.mark.parametrize(
    ("data", "ended"),
    [
        (build_close(1001), Ended("transport close")),
        (build_text("1"), Ended("transport close")),
        (build_text("41"), Ended("io server disconnect", final=True)),
        (build_text("nonsense"), Ended("parse error")),
        (build_text('42["connect"]'), Ended("parse error")),
        (build_frame(BINARY, b"?"), Ended("parse error")),
        (b"\xff\xff", Ended("transport error")),
        (build_frame(PING, b"", mask=b"abcd"), Ended("transport error")),
        (build_text("x" * 20)[:1] + b"\x7f" + (MAX_BYTES + 1).to_bytes(8, "big"), Ended("transport error")),
    ],
)
async def test_every_end_has_its_reason(data: bytes, ended: Ended) -> None:
    wire, line, ear = connected()
    wire.data_received(data)
    wire.data_received(build_text('42["late"]') + build_frame(PING, b"late"))
    assert (ear.heard, wire.writable) == ([("joined", "s")], False)
    server = WebSocket(max_message=100)
    assert server.receive(bytes(line.written)) == ["40"]
    assert (server.state, server.outgoing) == (CLOSED, build_close(server.close_code or 0))
    await advance(2)
    assert wire.over.result() == ended


async def test_a_refusal_is_heard_and_ends_it() -> None:
    wire, _, ear = connected(begin=OPEN + build_text('44{"message":"no"}'))
    await advance(2)
    assert (ear.heard, wire.over.result()) == ([("refused", "no")], Ended("connect_error", final=True))


# --- bellwire.v1


def opened(*messages: v1.ServerMessage) -> tuple[Wire, Line, Ear]:
    """A wire that has joined by bellwire.v1.msgpack."""
    greeted = (v1.Connected("/", "s", 65_536), *messages)
    begin = b"".join([build_binary(v1.encode(message, msgpack=True)) for message in greeted])
    return connected(begin=begin, subprotocol=v1.MSGPACK)


def read(line: Line) -> list[v1.ClientMessage]:
    return [v1.parse(message) for message in said(line)]


async def test_bellwire_v1_is_spoken() -> None:
    args = v1.encode_args(["hi"], msgpack=True)
    wire, line, ear = opened(v1.ServerEvent("/", "say", args))
    assert ear.heard == [("joined", "s"), "say"]
    assert wire.link is not None
    wire.send(wire.link.codec.skip(1, 2))
    assert read(line) == [v1.Connect("/"), v1.Skip("/", 1, 2)]
    wire.leave("io client disconnect")
    assert read(line)[2:] == [v1.Disconnect("/")]
    wire.data_received(build_close(1000))
    assert await wire.over == Ended("io client disconnect")


async def test_the_json_of_bellwire_v1_is_text() -> None:
    wire, line, ear = connected(begin=build_text('["connected","/","s",65536]'), subprotocol=v1.JSON)
    assert (said(line), ear.heard) == (['["connect","/"]'], [("joined", "s")])
    wire.data_received(build_binary(b"\x91\xa4ping"))
    await advance(2)
    assert wire.over.result() == Ended("parse error")


@pytest.mark.parametrize(
    ("code", "ended"), [(4000, Ended("transport close")), (4501, Ended("closed by the server: replaced", final=True))]
)
async def test_a_close_code_says_whether_to_come_back(code: int, ended: Ended) -> None:
    wire, _, _ = opened()
    wire.data_received(build_close(code))
    assert await wire.over == ended


async def test_a_server_that_speaks_no_bellwire_v1_is_told_apart() -> None:
    wire, line, _ = connected(subprotocol="chat")
    assert await wire.over == Ended("the response chooses 'chat', which was not offered (status 101)")
    assert not line.written


async def test_a_silent_server_is_asked() -> None:
    wire, line, _ = opened()
    await advance(36)
    assert read(line)[1:] == [v1.Ping()]
    wire.data_received(build_binary(v1.encode(v1.Pong(), msgpack=True)))
    await advance(44)
    assert not wire.over.done()
    await advance(2)
    assert wire.over.result() == Ended("ping timeout")


# --- silence


async def test_silence_ends_it_when_the_ping_is_overdue() -> None:
    wire, _, _ = connected()
    await advance(54)
    wire.data_received(build_text("2"))
    await advance(54)
    assert not wire.over.done()
    await advance(1)
    assert wire.over.result() == Ended("ping timeout")


@pytest.mark.parametrize(("begin", "seconds"), [(b"", 20), (OPEN, 45)])
async def test_a_server_that_stops_before_it_is_joined(begin: bytes, seconds: float) -> None:
    wire, _, _ = connected(begin=begin)
    await advance(seconds - 1)
    assert not wire.over.done()
    await advance(1)
    assert wire.over.result() == Ended("connect timeout")


async def test_a_short_heartbeat_is_watched_from_the_start() -> None:
    quick = build_text('0{"sid":"e","upgrades":[],"pingInterval":300,"pingTimeout":200}')
    wire, _, _ = connected(begin=quick + WELCOME)
    await advance(0.5)
    assert wire.over.result() == Ended("ping timeout")


async def test_silence_that_we_asked_for_is_not_held_against_the_server() -> None:
    wire, line, _ = connected()
    wire.set_reading(False)
    assert not line.reading
    await advance(1000)
    wire.set_reading(True)
    await advance(54)
    assert not wire.over.done()
    await advance(21)
    assert wire.over.result() == Ended("ping timeout")


async def test_who_does_not_read_is_still_told_the_end() -> None:
    wire, line, _ = connected()
    wire.set_reading(False)
    wire.leave("io client disconnect")
    assert line.reading  # the server's close frame has to be found
    wire.data_received(build_close(1000))
    assert await wire.over == Ended("io client disconnect")


@pytest.mark.parametrize("question", [build_frame(PING, b"x" * 125), build_text("2")])
async def test_a_server_that_asks_and_does_not_read_is_dropped(question: bytes) -> None:
    wire, line, _ = connected()
    wire.pause_writing()
    for _ in range(2 * MAX_OWED_BYTES // len(question)):
        wire.data_received(question)
    assert len(line.written) < MAX_OWED_BYTES + 1000
    await advance()
    assert wire.over.result() == Ended("transport error")


async def test_a_server_that_reads_again_is_not() -> None:
    wire, _, ear = connected()
    for _ in range(4):
        wire.pause_writing()
        assert not wire.writable
        wire.answer(Outgoing("43" + "x" * (MAX_OWED_BYTES // 2)))
        wire.resume_writing()
    assert wire.writable
    assert ear.heard[1:] == ["relieved"] * 4
    wire.abort("enough")
    await wire.over


FRAMES = st.sampled_from(
    [OPEN, WELCOME, build_text("2"), build_text('42["a"]'), build_text("41"), build_frame(PING, b"")]
)


@given(st.lists(st.one_of(FRAMES, st.binary(max_size=30)), max_size=10), st.booleans(), st.integers(1, 40))
@settings(suppress_health_check=[HealthCheck.too_slow])
async def test_any_bytes_end_it_or_do_not(portions: list[bytes], opened: bool, step: int) -> None:
    wire, _, _ = connected(begin=OPEN + WELCOME if opened else b"")
    data = b"".join(portions)
    for at in range(0, len(data), step):
        wire.data_received(data[at : at + step])
    await advance(60)
    assert wire.over.done()


@given(st.lists(st.binary(max_size=40), max_size=4))
async def test_any_response_is_waited_for_or_refused(portions: list[bytes]) -> None:
    ear, line = Ear(), Line()
    wire = line.protocol = Wire(parse_url("http://h"), (), link, ear)
    wire.connection_made(line)
    for portion in portions:
        wire.data_received(portion)
    await advance(20)
    assert wire.over.done()
    assert ear.heard == []


async def test_memory_stays_within_what_was_promised() -> None:
    wire, _, _ = connected()
    tracemalloc.start()
    try:
        wire.data_received(b"\x01\x7f" + MAX_BYTES.to_bytes(8, "big"))
        for _ in range(64):
            wire.data_received(b"x" * (MAX_BYTES // 64 - 1))
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_BYTES
    finally:
        tracemalloc.stop()
    wire.abort("enough")
    await wire.over


# --- on real sockets

React = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answering(*answers: bytes) -> React:
    async def react(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for answer in answers:
            writer.write(answer)
        await reader.read()

    return react


@pytest.mark.bellwire(clock="real")
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "the server opens no WebSocket here (status 403)"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "the server does not speak HTTP/1.1"),
        (b"x" * 20_000, "the head of the response is longer than 16384 bytes"),
    ],
)
async def test_another_kind_of_server(answer: bytes, reason: str) -> None:
    ear = Ear()
    async with served_by(answering(answer)) as url, asyncio.timeout(SECONDS):
        wire = await open_wire(parse_url(url), None, (), link, ear)
        assert await wire.over == Ended(reason)
    assert ear.heard == []


@pytest.mark.bellwire(clock="real")
async def test_nobody_listens() -> None:
    async with served_by(answering()) as url:
        pass
    with pytest.raises(OSError, match=r"[Cc]onnect"):
        await open_wire(parse_url(url), None, (), link, Ear())


@pytest.mark.bellwire(clock="real")
async def test_a_connection_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_module, "OPEN_SECONDS", 0.05)
    async with served_by(answering()) as url:
        with pytest.raises(TimeoutError):  # a TLS handshake that nobody answers
            await open_wire(parse_url(url.replace("http", "https")), ssl.create_default_context(), (), link, Ear())


@pytest.fixture
def certified(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context with a certificate for localhost, and the file that makes its authority trusted."""
    authority, path = trustme.CA(), tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context, path


@pytest.mark.bellwire(clock="real")
async def test_tls_and_its_certificate(certified: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    context, trusted = certified

    async def react(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        writer.write(build_response(key) + OPEN + WELCOME)
        await reader.read()

    async with served_by(react, context=context) as url:
        url = url.replace("http://127.0.0.1", "https://localhost")
        with pytest.raises(ssl.SSLCertVerificationError):
            await open_wire(parse_url(url), ssl.create_default_context(), (), link, Ear())
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        async with asyncio.timeout(SECONDS), Client(url) as client:
            assert client.id == "s"
