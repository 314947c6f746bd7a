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

from bellwire import Client, ConnectRefused
from bellwire.client import wire as wire_module
from bellwire.client.address import parse_url
from bellwire.client.link import MAX_BYTES
from bellwire.client.wire import MAX_OWED_BYTES, Wire, open_wire
from bellwire.protocol.frames import BINARY, PING, build_close, build_frame, build_text
from bellwire.protocol.handshake import build_response
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.socketio import Packet, event_name
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

    def joined(self, sid: str) -> None:
        self.heard.append(("joined", sid))

    def refused(self, error: ConnectRefused) -> None:
        self.heard.append(("refused", error.message))

    def received(self, packet: Packet, objects: list[Any] | None) -> None:
        self.heard.append(event_name(packet.payload))

    def answered(self, packet: Packet, objects: list[Any] | None) -> None:
        self.heard.append(packet.payload)

    def relieved(self) -> None:
        self.heard.append("relieved")


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


def connected(*, begin: bytes = OPEN + WELCOME) -> tuple[Wire, Line, Ear]:
    """A wire whose handshake is done, as if it had been on a network."""
    ear, line = Ear(), Line()
    wire = line.protocol = Wire(parse_url("http://h"), "/", None, ear)
    wire.connection_made(line)
    key = bytes(line.written).partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    line.written.clear()
    wire.data_received(build_response(key) + begin)
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
    assert ear.heard[1:] == ["say", "[]"]
    wire.send(Outgoing('451-["b",{"_placeholder":true,"num":0}]', b"x"))
    assert said(line)[2:] == ['451-["b",{"_placeholder":true,"num":0}]', b"x"]
    wire.abort("enough")
    assert await wire.over == "enough"


async def test_leaving_says_so_and_waits_for_the_server() -> None:
    wire, line, _ = connected()
    wire.leave("io client disconnect")
    server = WebSocket(max_message=100)
    assert server.receive(bytes(line.written)) == ["40", "41"]
    assert (server.state, server.close_code, line.closing) == (CLOSED, 1000, False)
    wire.data_received(build_text('42["late"]') + build_close(1000))
    assert await wire.over == "io client disconnect"
    assert line.closing


async def test_a_server_that_does_not_close_is_left_after_two_seconds() -> None:
    wire, _, _ = connected()
    wire.leave("io client disconnect")
    await advance(1.9)
    assert not wire.over.done()
    await advance(0.2)
    assert wire.over.result() == "io client disconnect"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (build_close(1001), "transport close"),
        (build_text("1"), "transport close"),
        (build_text("41"), "io server disconnect"),
        (build_text("nonsense"), "parse error"),
        (build_text('42["connect"]'), "parse error"),
        (build_frame(BINARY, b"?"), "parse error"),
        (b"\xff\xff", "transport error"),
        (build_frame(PING, b"", mask=b"abcd"), "transport error"),
        (build_text("x" * 20)[:1] + b"\x7f" + (MAX_BYTES + 1).to_bytes(8, "big"), "transport error"),
    ],
)
async def test_every_end_has_its_reason(data: bytes, reason: str) -> None:
    wire, line, ear = connected()
    wire.data_received(data)
    wire.data_received(build_text('42["late"]') + build_frame(PING, b"late"))
    assert (ear.heard, wire.writable) == ([("joined", "s")], False)
    server = WebSocket(max_message=100)
    assert server.receive(bytes(line.written)) == ["40"]
    assert (server.state, server.outgoing) == (CLOSED, build_close(server.close_code or 0))
    await advance(2)
    assert wire.over.result() == reason


async def test_a_refusal_is_heard_and_ends_it() -> None:
    wire, _, ear = connected(begin=OPEN + build_text('44{"message":"no"}'))
    await advance(2)
    assert (ear.heard, wire.over.result()) == ([("refused", "no")], "connect_error")


async def test_silence_ends_it_when_the_ping_is_overdue() -> None:
    wire, _, _ = connected()
    await advance(54)
    wire.data_received(build_text("2"))
    await advance(54)
    assert not wire.over.done()
    await advance(1)
    assert wire.over.result() == "ping timeout"


@pytest.mark.parametrize(("begin", "seconds"), [(b"", 20), (OPEN, 45)])
async def test_a_server_that_stops_before_it_is_joined(begin: bytes, seconds: float) -> None:
    wire, _, _ = connected(begin=begin)
    await advance(seconds - 1)
    assert not wire.over.done()
    await advance(1)
    assert wire.over.result() == "connect timeout"


async def test_a_short_heartbeat_is_watched_from_the_start() -> None:
    quick = build_text('0{"sid":"e","upgrades":[],"pingInterval":300,"pingTimeout":200}')
    wire, _, _ = connected(begin=quick + WELCOME)
    await advance(0.5)
    assert wire.over.result() == "ping timeout"


async def test_silence_that_we_asked_for_is_not_held_against_the_server() -> None:
    wire, line, _ = connected()
    wire.set_reading(False)
    assert not line.reading
    await advance(1000)
    wire.set_reading(True)
    await advance(54)
    assert not wire.over.done()
    await advance(21)
    assert wire.over.result() == "ping timeout"


async def test_who_does_not_read_is_still_told_the_end() -> None:
    wire, line, _ = connected()
    wire.set_reading(False)
    wire.leave("io client disconnect")
    assert line.reading  # the server's close frame has to be found
    wire.data_received(build_close(1000))
    assert await wire.over == "io client disconnect"


@pytest.mark.parametrize("question", [build_frame(PING, b"x" * 125), build_text("2")])
async def test_a_server_that_asks_and_does_not_read_is_dropped(question: bytes) -> None:
    wire, line, _ = connected()
    wire.pause_writing()
    for _ in range(2 * MAX_OWED_BYTES // len(question)):
        wire.data_received(question)
    assert len(line.written) < MAX_OWED_BYTES + 1000
    await advance()
    assert wire.over.result() == "transport error"


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
    wire = line.protocol = Wire(parse_url("http://h"), "/", None, ear)
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
        wire = await open_wire(parse_url(url), None, "/", None, ear)
        assert await wire.over == reason
    assert ear.heard == []


@pytest.mark.bellwire(clock="real")
async def test_nobody_listens() -> None:
    async with served_by(answering()) as url:
        pass
    with pytest.raises(OSError, match=r"[Cc]onnect"):
        await open_wire(parse_url(url), None, "/", None, Ear())


@pytest.mark.bellwire(clock="real")
async def test_a_connection_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_module, "OPEN_SECONDS", 0.05)
    async with served_by(answering()) as url:
        with pytest.raises(TimeoutError):  # a TLS handshake that nobody answers
            await open_wire(parse_url(url.replace("http", "https")), ssl.create_default_context(), "/", None, Ear())


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
            await open_wire(parse_url(url), ssl.create_default_context(), "/", None, Ear())
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        async with asyncio.timeout(SECONDS), Client(url) as client:
            assert client.id == "s"
