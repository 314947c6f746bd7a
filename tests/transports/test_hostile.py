"""A wrong client costs its own connection and nothing else: while each of these happens, another one keeps working."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from bellwire import Config, Event, Server, Socket
from bellwire.protocol.wire import JSON, CloseCode
from tests.serving import serve
from tests.transports.wire import Client, WebSocket, connect, on_both, until

ECHO = Event("echo", str, reply=str)


class Bystander:
    """A well-behaved client that asks for an echo as often as it is told."""

    def __init__(self, ws: WebSocket) -> None:
        self.ws = ws
        self.asked = 0

    async def works(self) -> None:
        await self.ws.send(f'42{self.asked}["echo","still here"]')
        assert await self.ws.text() == f'43{self.asked}["still here"]'
        self.asked += 1


class Scene:
    """A server, a wrong client's requests, and a bystander."""

    def __init__(self, server: Server, client: Client, bystander: Bystander) -> None:
        self.server = server
        self.client = client
        self.bystander = bystander

    async def only_the_bystander_is_left(self) -> None:
        await self.bystander.works()
        await until(lambda: len(self.server.engine.sessions) == 1)
        await self.bystander.works()

    async def join(self, ws: WebSocket) -> None:
        await ws.send("40")
        assert (await ws.text()).startswith("40{")


@asynccontextmanager
async def scene(native: bool) -> AsyncIterator[Scene]:
    server = Server(config=Config(max_message_bytes=10_000))
    root = server.namespace("/")

    @root.on(ECHO)
    async def echo(socket: Socket, text: str) -> str:
        return text

    async with serve(server, native=native) as url, connect(url) as client, connect(url) as other:
        _, ws = await other.open_websocket()
        await ws.send("40")
        await ws.text()
        bystander = Bystander(ws)
        await bystander.works()
        yield Scene(server, client, bystander)
        await ws.close()


@pytest.fixture(autouse=True)
def no_traceback(caplog: pytest.LogCaptureFixture) -> object:
    """Whatever clients send, nothing is logged with a traceback, and nothing as an error."""
    yield
    assert [r for r in caplog.records if r.exc_info or r.levelno >= logging.ERROR] == []


# --- Socket.IO packets: each ends the connection that sent it


@on_both
@pytest.mark.parametrize(
    "packet",
    [
        '42["echo","x"]',
        '420["echo","x"]',
        "430[]",
        "41",
        '42/other,["echo","x"]',
        '451-["echo",{"_placeholder":true,"num":0}]',
        "44{}",
    ],
)
async def test_packet_before_connect(native: bool, packet: str) -> None:
    async with scene(native) as here:
        _, ws = await here.client.open_websocket()
        await ws.send(packet)
        assert await ws.close_code() == 1000
        await here.only_the_bystander_is_left()


@on_both
@pytest.mark.parametrize(
    "packet",
    [
        '4511-["echo"]',  # more attachments than parsers take
        '450-["echo"]',
        '45-["echo"]',
        '45x-["echo"]',
        '45-1-["echo"]',
        '459999999999999999999-["echo"]',
        '451-["echo",{"_placeholder":true,"num":1}]',
        "42abc[",
        "42{}",
        "4abc",
        "42[]",
        "42[null]",
        '42["connect"]',
        "47",
        '42["echo","' + "[" * 3000,
        "42" + "[" * 9000,
        "40",  # joined already
        "44{}",
        "40x",
    ],
    ids=lambda packet: packet[:24],
)
async def test_malformed_packet_after_connect(native: bool, packet: str) -> None:
    async with scene(native) as here:
        _, ws = await here.client.open_websocket()
        await here.join(ws)
        await ws.send(packet)
        if packet.startswith("451-"):
            await ws.send_bytes(b"\x01")
        assert await ws.close_code() == 1000
        await here.only_the_bystander_is_left()


@on_both
async def test_text_while_an_attachment_is_due(native: bool) -> None:
    async with scene(native) as here:
        _, ws = await here.client.open_websocket()
        await here.join(ws)
        await ws.send('451-["echo",{"_placeholder":true,"num":0}]')
        await ws.send('42["echo","x"]')
        assert await ws.close_code() == 1000
        await here.only_the_bystander_is_left()


@on_both
async def test_attachment_that_nobody_announced(native: bool) -> None:
    async with scene(native) as here:
        _, ws = await here.client.open_websocket()
        await here.join(ws)
        await ws.send_bytes(b"\x01")
        assert await ws.close_code() == 1000
        await here.only_the_bystander_is_left()


@on_both
async def test_unknown_namespace_is_refused_and_the_connection_lives(native: bool) -> None:
    async with scene(native) as here:
        _, ws = await here.client.open_websocket()
        await ws.send("40/random")
        assert await ws.text() == '44/random,{"message":"Invalid namespace"}'
        await here.join(ws)
        await here.bystander.works()
        await ws.close()


# --- messages of bellwire.v1: the same


MALFORMED: list[str] = [
    "",
    "[",
    "{}",
    "[]",
    "null",
    '["nonsense"]',
    "[" * 60_000,
    '["n","/",1,"echo",["x"]]',
    '["skip","/",1,1]',
    '["connect"]',
    '["connect","/",[]]',
    '["connect","/",{"a":' + "[" * 40 + "]" * 40 + "}]",
    '["connect","/",null,"' + "i" * 129 + '"]',
    '["connect","/",null,"i","not hexadecimal"]',
    '["connect","/",null,"i",null,"s",[["a","b",-1,0]]]',
    '["connected","/","x",1]',
]
BEFORE_CONNECT: list[str | bytes] = ['["e","/","echo",["x"]]', '["r","/",0,[]]', '["disconnect","/"]', b"\x91\xa4ping"]


@on_both
@pytest.mark.parametrize("message", [*MALFORMED, *BEFORE_CONNECT], ids=lambda message: message[:32])
async def test_malformed_message_of_bellwire_v1(native: bool, message: str | bytes) -> None:
    async with scene(native) as here:
        ws = await here.client.raw_websocket(JSON)
        await (ws.send(message) if isinstance(message, str) else ws.send_bytes(message))
        assert await ws.close_code() == CloseCode.MALFORMED
        await until(lambda: not here.server.engine.raw_sessions)
        await here.only_the_bystander_is_left()


@on_both
@pytest.mark.parametrize("message", [*MALFORMED, '["connect","/"]'], ids=lambda message: message[:32])
async def test_malformed_message_of_bellwire_v1_after_connect(native: bool, message: str) -> None:
    async with scene(native) as here:
        ws = await here.client.raw_websocket(JSON)
        await ws.send('["connect","/"]')
        assert (await ws.text()).startswith('["connected","/",')
        await ws.send(message)
        assert await ws.close_code() == CloseCode.MALFORMED
        await here.only_the_bystander_is_left()


@on_both
async def test_oversize_message_of_bellwire_v1(native: bool) -> None:
    async with scene(native) as here:
        ws = await here.client.raw_websocket(JSON)
        await ws.send('["connect","/",{"a":"' + "a" * 65_536 + '"}]')
        assert await ws.close_code() == 1009
        await here.only_the_bystander_is_left()


# --- too much


@on_both
async def test_oversize_message(native: bool) -> None:
    async with scene(native) as here:
        _, ws = await here.client.open_websocket()
        await here.join(ws)
        await ws.send('42["echo","' + "a" * 10_000 + '"]')
        assert await ws.close_code() == 1009
        await here.only_the_bystander_is_left()


@on_both
async def test_attachments_that_are_too_large_together(native: bool) -> None:
    """Each is within the limit of a message; what one packet can hold in memory is limited too."""
    async with scene(native) as here:
        _, ws = await here.client.open_websocket()
        await here.join(ws)
        slots = ",".join(f'{{"_placeholder":true,"num":{n}}}' for n in range(10))
        await ws.send(f'4510-["echo",{slots}]')
        for _ in range(10):
            await ws.send_bytes(b"a" * 9_000)
        assert await ws.close_code() == 1000
        await here.only_the_bystander_is_left()


@on_both
async def test_oversize_post(native: bool) -> None:
    async with scene(native) as here:
        sid = await here.client.open()
        assert (await here.client.post(sid, '42["echo","' + "a" * 10_000 + '"]')).status == 413
        await here.bystander.works()
        assert (await here.client.post(sid, "40")).text == "ok"
        assert (await here.client.get(sid)).text.startswith("40{")
        await here.client.post(sid, "1")
        await here.only_the_bystander_is_left()


# --- requests that overlap, and other people's sessions


@on_both
async def test_second_get(native: bool) -> None:
    async with scene(native) as here:
        sid = await here.client.open()
        first = asyncio.create_task(here.client.get(sid))
        carrier = here.server.engine.sessions[sid].carrier
        await until(lambda: carrier._waiter)  # type: ignore[attr-defined]
        assert (await here.client.get(sid)).status == 400
        await first
        await here.only_the_bystander_is_left()


@on_both
async def test_second_post(native: bool) -> None:
    async with scene(native) as here:
        sid = await here.client.open()
        rest = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"4"
            await rest.wait()
            yield b"0"

        first = asyncio.create_task(here.client.post(sid, slowly()))
        carrier = here.server.engine.sessions[sid].carrier
        await until(lambda: carrier._posting)  # type: ignore[attr-defined]
        assert (await here.client.post(sid, "40")).status == 400
        await here.only_the_bystander_is_left()
        rest.set()
        assert (await first).status == 400


@on_both
async def test_foreign_sid(native: bool) -> None:
    """Socket.IO ids are known to others; they open nothing. Nor does a sid that was never given out."""
    async with scene(native) as here:
        _, ws = await here.client.open_websocket()
        await ws.send("40")
        public = msgspec.json.decode((await ws.text())[2:])["sid"]
        for sid in (public, "a" * 20, "../../etc", "\x00"):
            for answer in (await here.client.get(sid), await here.client.post(sid, "41")):
                assert (answer.status, answer.text) == (400, '{"code":1,"message":"Session ID unknown"}')
        await ws.send('427["echo","x"]')
        assert await ws.text() == '437["x"]'
        await here.bystander.works()
        await ws.close()


# --- not even HTTP


UPGRADE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
)
KEY = b"dGhlIHNhbXBsZSBub25jZQ==\r\n"

GARBAGE: list[bytes] = [
    b"\x00" * 100,
    b"GET\r\n\r\n",
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n\r\n",
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"GET //socket.io/%ff?%ff=%ff&transport=%00 HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /socket.io/\xff?transport=websocket HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"POST /socket.io/?EIO=4&transport=polling&sid=x HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    UPGRADE + b"short\r\n\r\n",
    UPGRADE + KEY + b"\xe9: \xe9\r\n\r\n",
    UPGRADE + KEY + b"Origin: \xe9\r\nCookie: \xff=\xfe\r\n\r\n",
]


@on_both
@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_instead_of_a_request(native: bool, garbage: bytes) -> None:
    async with scene(native) as here:
        await speak(here, garbage, lambda _: asyncio.sleep(0))
        await here.bystander.works()


FRAMES: list[bytes] = [
    b"\x81\x05hello",  # not masked: a client's frames have to be (RFC 6455 section 5.1)
    b"\xff\xff\xff\xff",
    b"\x83\x80\x00\x00\x00\x00",  # an opcode that is reserved
    b"\x81\x82\x00\x00\x00\x00\xc3\x28",  # not UTF-8
    b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00",  # 2^64 - 1 bytes
    b"\x89\xfe\x00\x7e" + bytes(4 + 126),  # a ping of 126 bytes
    b"\x80\x80\x00\x00\x00\x00",  # the continuation of nothing
    b"\x88\x81\x00\x00\x00\x00\x03",  # half a close code
]


@on_both
@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame[:2].hex())
async def test_garbage_instead_of_frames(native: bool, frame: bytes) -> None:
    async def after_the_handshake(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        reader, writer = streams
        await reader.readuntil(b"}")
        writer.write(frame)
        await reader.read()

    async with scene(native) as here:
        await speak(here, UPGRADE + KEY + b"\r\n", after_the_handshake)
        await here.only_the_bystander_is_left()


@on_both
async def test_connection_that_is_reset_in_the_middle(native: bool) -> None:
    request = b"POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n4"

    async def reset(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        streams[1].transport.abort()

    async with scene(native) as here:
        await speak(here, request, reset)
        await here.only_the_bystander_is_left()


async def speak(
    here: Scene,
    data: bytes,
    then: Callable[[tuple[asyncio.StreamReader, asyncio.StreamWriter]], Awaitable[object]],
) -> None:
    """Send ``data`` on a connection of its own, do ``then``, and hang up."""
    host, port = here.client.url.split("/")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        await writer.drain()
        await here.bystander.works()
        async with asyncio.timeout(5):
            await then((reader, writer))
    finally:
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()
