"""For the tests of the transports: an application that only echoes, and a client that is as wrong as it is told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest

from bellwire import Event, Server, Socket
from bellwire.core.clock import Wheel
from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.wire import PATH
from bellwire.transports.asgi import handle_http, handle_raw_websocket, handle_websocket
from bellwire.transports.base import Carrier, Receive, Scope, Send
from bellwire.transports.base_session import BaseSession
from bellwire.transports.engine import Engine
from bellwire.transports.raw import RawSession
from bellwire.transports.session import Session
from tests.serving import serve

PATIENCE = 5
"""Seconds to wait for what has to come."""

real = pytest.mark.bellwire(clock="real")
on_both = pytest.mark.parametrize(
    "native",
    [
        pytest.param(True, id="native", marks=pytest.mark.bellwire(clock="real", uvloop=True)),
        pytest.param(False, id="asgi", marks=real),
    ],
)
"""The native transport as `bellwire run` has it, on uvloop; the other under plain asyncio."""


class Echo:
    """Takes the messages of one session, and sends each back."""

    def __init__(self, session: BaseSession, *, echoing: bool = True) -> None:
        self.session = session
        self.echoing = echoing
        self.messages: list[str | bytes] = []
        self.carriers: list[Carrier] = []
        self.notices: list[str] = []
        self.reasons: list[str] = []
        self.ended = asyncio.Event()

    def received(self, message: str | bytes) -> None:
        self.messages.append(message)
        if self.echoing:
            self.send(message)

    def send(self, message: str | bytes) -> None:
        digit = "4" if isinstance(self.session, Session) else ""
        self.session.send(Outgoing(digit + message if isinstance(message, str) else message))

    def moved(self, carrier: Carrier) -> None:
        self.carriers.append(carrier)
        self.notices.append("moved")

    def congested(self) -> None:
        self.notices.append("congested")

    def drained(self) -> None:
        self.notices.append("drained")

    def settle(self) -> None:
        """It broadcasts nothing."""

    def closed(self, reason: str) -> None:
        self.reasons.append(reason)
        self.ended.set()


class EchoServer:
    """A server without Socket.IO, and with nothing that bellwire.v1 says: every session is an :class:`Echo`."""

    def __init__(self, **settings: Any) -> None:
        self.config = Config(**settings)
        self.counters = Counters()
        self.echoes: dict[str, Echo] = {}
        self.raw_echoes: list[Echo] = []
        self.echoing = True
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            loop = asyncio.get_running_loop()
            self._engine = Engine(self, self.config, self.counters, loop, Wheel(loop, 0.05))
        return self._engine

    def opened(self, session: Session) -> Echo:
        echo = self.echoes[session.sid] = Echo(session, echoing=self.echoing)
        return echo

    def opened_raw(self, session: RawSession) -> Echo:
        echo = Echo(session, echoing=self.echoing)
        self.raw_echoes.append(echo)
        return echo

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await handle_http(self.engine, scope, receive, send)
        elif scope["path"] == PATH:
            await handle_raw_websocket(self.engine, scope, receive, send)
        else:
            await handle_websocket(self.engine, scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.engine.close()
        await send({"type": "lifespan.shutdown.complete"})


ECHO = Event("echo", str, reply=str)


def socketio_server(**options: object) -> Server:
    """A server of Socket.IO that echoes."""
    server = Server(**options)  # type: ignore[arg-type]
    root = server.namespace("/")

    @root.on(ECHO)
    async def echo(socket: Socket, text: str) -> str:
        return text

    return server


@asynccontextmanager
async def dial(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection with nothing on it yet."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class Answer(NamedTuple):
    """An HTTP response, read to its end."""

    status: int
    text: str
    headers: Mapping[str, str]


class Client:
    """Engine.IO requests, one by one."""

    def __init__(self, url: str, http: aiohttp.ClientSession, path: str = "/socket.io/") -> None:
        self.url = url + path
        self.http = http

    async def request(
        self,
        method: str = "GET",
        *,
        body: Any = None,
        headers: Any = None,
        **query: str,
    ) -> Answer:
        async with self.http.request(method, self.url, params=query, data=body, headers=headers) as response:
            return Answer(response.status, await response.text(), response.headers)

    async def open(self, **query: str) -> str:
        """A handshake over long-polling; the sid."""
        answer = await self.request(EIO="4", transport="polling", **query)
        assert answer.status == 200, answer
        sid: str = msgspec.json.decode(answer.text[1:])["sid"]
        return sid

    async def get(self, sid: str, **options: Any) -> Answer:
        return await self.request("GET", EIO="4", transport="polling", sid=sid, **options)

    async def post(self, sid: str, body: Any, content_type: str = "text/plain;charset=UTF-8") -> Answer:
        headers = {"content-type": content_type}
        return await self.request("POST", EIO="4", transport="polling", sid=sid, body=body, headers=headers)

    async def websocket(self, sid: str = "", **query: str) -> "WebSocket":
        """Open a WebSocket. Raises :class:`aiohttp.WSServerHandshakeError` if the server refuses it."""
        if sid:
            query["sid"] = sid
        query = {"EIO": "4", "transport": "websocket", **query}
        return WebSocket(await self.http.ws_connect(self.url, params=query, autoping=False, max_msg_size=0))

    async def raw_websocket(self, *subprotocols: str, **query: str) -> "WebSocket":
        """Open a WebSocket of bellwire.v1. Raises as `websocket` does."""
        url = self.url.replace("/socket.io/", PATH)
        return WebSocket(
            await self.http.ws_connect(url, params=query, protocols=subprotocols, autoping=False, max_msg_size=0)
        )

    async def open_websocket(self, **query: str) -> "tuple[str, WebSocket]":
        """A handshake over a WebSocket; the sid, and the socket."""
        ws = await self.websocket(**query)
        sid: str = msgspec.json.decode((await ws.text())[1:])["sid"]
        return sid, ws


class WebSocket:
    """aiohttp's WebSocket, with a timeout on every receive."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.raw = ws
        self.send = ws.send_str
        self.send_bytes = ws.send_bytes
        self.close = ws.close

    async def text(self) -> str:
        return await self.raw.receive_str(timeout=PATIENCE)

    async def bytes(self) -> bytes:
        return await self.raw.receive_bytes(timeout=PATIENCE)

    async def close_code(self) -> int | None:
        """The code with which the server closes; nothing else may come before it."""
        message = await self.raw.receive(timeout=PATIENCE)
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED), message
        return self.raw.close_code

    async def probe(self) -> None:
        """The first half of the upgrade."""
        await self.send("2probe")
        assert await self.text() == "3probe"


@asynccontextmanager
async def connect(url: str, path: str = "/socket.io/") -> AsyncIterator[Client]:
    """A client with connections of its own."""
    timeout = aiohttp.ClientTimeout(total=2 * PATIENCE)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    plain = {"accept-encoding": "identity"}
    async with aiohttp.ClientSession(
        timeout=timeout, connector=connector, headers=plain, auto_decompress=False
    ) as http:
        yield Client(url, http, path)


@asynccontextmanager
async def echo_server(*, native: bool, **settings: Any) -> AsyncIterator[tuple[EchoServer, Client]]:
    """A served :class:`EchoServer`, and a client of it."""
    server = EchoServer(**settings)
    async with serve(server, native=native) as url, connect(url) as client:
        yield server, client


async def until(condition: Callable[[], object]) -> None:
    """Let the loop go round until ``condition`` holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - it waits for the loop to go round, not for a time
            await asyncio.sleep(0)
