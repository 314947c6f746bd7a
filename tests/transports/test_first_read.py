"""The first bytes of a connection: with or without a parser, a request means the same and is answered alike."""

import asyncio
import re
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from bellwire.transports.base import Request
from bellwire.transports.first_read import FirstRead, native_http, plain_upgrade
from bellwire.transports.native import NativeWebSocket
from bellwire.transports.native_http import HttpProtocol
from bellwire.transports.native_upgrade import native_route, native_websockets
from tests.serving import serve
from tests.transports.wire import EchoServer, connect, until

OWN = "http://h:8000"
FIELDS = {
    "Host": "h:8000",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
SOCKETIO = "/socket.io/?EIO=4&transport=websocket"


def head(target: str = SOCKETIO, **changed: str) -> bytes:
    """A client's head; ``Sec_WebSocket_Key`` is the field of that name, and an empty value none."""
    fields = FIELDS | {name.replace("_", "-"): value for name, value in changed.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value]
    return "\r\n".join((f"GET {target} HTTP/1.1", *lines, "", "")).encode("latin-1")


class Connection(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self, make: Any) -> None:
        super().__init__({"peername": ("127.0.0.1", 4711), "sockname": ("127.0.0.1", 8000)})
        self.written = b""
        self.writes = 0
        self.closed = False
        self.protocol = make()
        self.protocol.connection_made(self)

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        self.written += data
        self.writes += 1

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


class Place:
    """A server, and both ways into it."""

    def __init__(self, **settings: Any) -> None:
        self.server = EchoServer(**settings)
        self.config = uvicorn.Config(self.server, ws=native_websockets(lambda: self.server.engine), log_config=None)  # type: ignore[arg-type]
        self.config.load()
        self.uvicorn: dict[str, Any] = {"config": self.config, "server_state": ServerState(), "app_state": {}}

    def first_read(self) -> asyncio.Protocol:
        return native_http(lambda: self.server.engine)(**self.uvicorn)

    def parsed(self) -> asyncio.Protocol:
        engine = self.server.engine
        silent = FirstRead(engine, self.uvicorn)
        return HttpProtocol(engine, silent, engine.wheel.after(10, silent.hang_up), **self.uvicorn)

    def connection(self, *, parsed: bool = False) -> Connection:
        return Connection(self.parsed if parsed else self.first_read)

    @property
    def requests(self) -> list[Request]:
        echoes = [*self.server.echoes.values(), *self.server.raw_echoes]
        return [echo.session.request for echo in echoes]


async def told(data: bytes, *, parsed: bool, before: int = 0, **settings: Any) -> tuple[object, ...]:
    """What becomes of a connection on which ``data`` comes first, with so many ``before`` it."""
    place = Place(**settings)
    connections = [place.connection(parsed=parsed) for _ in range(before + 1)]
    for connection in connections[:-1]:
        connection.protocol.data_received(head())
    connection = connections[-1]
    connection.protocol.data_received(data)
    for _ in range(5):
        await asyncio.sleep(0)
    asked = [(r.path, r.query_string, r.headers, r.query, r.client, r.scheme) for r in place.requests]
    opened = isinstance(connection.protocol, NativeWebSocket)
    for each in connections:
        each.protocol.connection_lost(None)
    await asyncio.gather(*place.uvicorn["server_state"].tasks)
    assert place.server.engine.wheel.pending == 0
    return without_chance(connection.written), asked, opened, connection.closed, place.server.counters.snapshot()


def without_chance(answer: bytes) -> bytes:
    """An answer without what is drawn by lot; compressed packets, whose lengths it changes, left out."""
    if b"permessage-deflate" in answer:
        return answer.partition(b"\r\n\r\n")[0]
    return re.sub(rb'"sid":"[^"]+"|retry-after: \d+', b"", answer)


def same(data: bytes, **settings: Any) -> tuple[object, ...]:
    async def both() -> tuple[object, ...]:
        first = await told(data, parsed=False, **settings)
        assert first == await told(data, parsed=True, **settings)
        return first

    return asyncio.run(both())


def is_plain(data: bytes) -> bool:
    """Whether it is read without a parser."""

    async def look() -> bool:
        place = Place()
        request = plain_upgrade(data, place.connection())
        return request is not None and native_route(place.server.engine, request) is not None

    return asyncio.run(look())


PLAIN = [
    head(),
    head("/bellwire", Sec_WebSocket_Protocol="bellwire.v1.json"),
    head(Origin=OWN, User_Agent="Mozilla/5.0 (X11; Linux x86_64)", Cookie="a=b; c=d"),
    head(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits"),
    head("/socket.io/%41?EIO=4&transport=websocket&a=%20b&c"),
    head("/socket.io/?EIO=4&transport=websocket&b64=1"),
]
REFUSED = [
    (head(Origin="http://evil.example"), b"403"),
    (head(Sec_WebSocket_Key="short"), b"400"),
    (head(Sec_WebSocket_Version="8"), b"426"),
    (head(Host=""), b"400"),
    (head("/socket.io/?EIO=3&transport=websocket"), b"400"),
    (head("/socket.io/?EIO=4&transport=websocket&sid=0123456789abcdef01234567"), b"400"),
    (head("/bellwire"), b"400"),
]


@pytest.mark.parametrize("data", PLAIN)
def test_what_is_plain_needs_no_parser_and_opens_alike(data: bytes) -> None:
    answer, asked, opened, closed, _ = same(data, per_message_deflate=True)
    assert isinstance(answer, bytes)
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert (len(asked), opened, closed) == (1, True, False)  # type: ignore[arg-type]
    assert is_plain(data)


@pytest.mark.parametrize(("data", "status"), REFUSED)
def test_what_is_plain_is_refused_alike(data: bytes, status: bytes) -> None:
    answer, asked, opened, closed, _ = same(data)
    assert isinstance(answer, bytes)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert (asked, opened, closed) == ([], False, True)
    assert is_plain(data)


def test_who_finds_no_place_is_told_so_alike() -> None:
    answer, asked, *_ = same(head(), before=1, half_open=1)
    assert isinstance(answer, bytes)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert len(asked) == 1  # type: ignore[arg-type]


def test_who_comes_too_often_is_told_so_alike() -> None:
    proxied = head(X_Forwarded_For="192.0.2.1", X_Forwarded_Proto="https")

    async def one_after_the_other() -> list[bytes]:
        place = Place(behind_proxy=("127.0.0.1",), connect_rate_per_address="1/s")
        connections = [place.connection(parsed=parsed) for parsed in (False, False, True)]
        for connection in connections:
            connection.protocol.data_received(proxied)
        await asyncio.sleep(0)
        for connection in connections:
            connection.protocol.connection_lost(None)
        return [without_chance(connection.written) for connection in connections]

    first, second, third = asyncio.run(one_after_the_other())
    assert first.startswith(b"HTTP/1.1 101 ")
    assert second.startswith(b"HTTP/1.1 429 ")
    assert second == third


@pytest.mark.parametrize(
    "data",
    [
        head("/elsewhere"),
        head(Upgrade="h2c"),
        head(Upgrade="websocket, h2c"),
        head(Upgrade=""),
        head(Connection="close"),
        head()[:-1],
        head() + b"\x81\x80\0\0\0\0",
        head().replace(b"GET", b"POST"),
        head("/socket.io/?EIO=4&transport=polling", Upgrade="", Connection=""),
        b"\x16\x03\x01",
        b"",
    ],
)
def test_all_else_is_uvicorns(data: bytes) -> None:
    same(data)
    assert not is_plain(data)


NAMES = st.sampled_from(
    [*FIELDS, "Origin", "X-Forwarded-For", "X-Forwarded-Proto", "Content-Length", "Expect", "Cookie"]
)
VALUES = st.one_of(
    st.sampled_from(
        ["", "websocket", "upgrade", "close", OWN, "null", "13", "0", "5", "100-continue", "1.2.3.4", "https"]
    ),
    st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=10),
)
TARGETS = st.sampled_from(
    [SOCKETIO, "/bellwire", "/", "/socket.io/", "/socket.io/?EIO=4&transport=polling", "*", "//x"]
)


@given(TARGETS, st.dictionaries(NAMES, VALUES, max_size=3), st.sampled_from([(), ("127.0.0.1",)]))
def test_whatever_is_asked_for_is_answered_alike(
    target: str, changed: dict[str, str], proxies: tuple[str, ...]
) -> None:
    same(head(target, **changed), behind_proxy=proxies)


@given(st.integers(0, len(head())), st.integers(0, 4), st.binary(max_size=4))
def test_whatever_becomes_of_a_head_is_answered_alike(at: int, removed: int, added: bytes) -> None:
    data = head()
    same(data[:at] + added + data[at + removed :])


async def test_who_says_nothing_is_hung_up_on_and_forgotten() -> None:
    place = Place(head_timeout=2)
    connection = place.connection()
    assert place.uvicorn["server_state"].connections == {connection.protocol}
    await asyncio.sleep(3)
    assert connection.closed
    connection.protocol.connection_lost(None)
    assert place.uvicorn["server_state"].connections == set()
    assert place.server.engine.wheel.pending == 0


async def test_the_deadline_of_the_first_head_is_the_same_however_it_comes() -> None:
    place = Place(head_timeout=2)
    connection = place.connection()
    await asyncio.sleep(1.5)
    connection.protocol.data_received(head()[:20])
    assert isinstance(connection.protocol, HttpProtocol)
    assert not connection.closed
    await asyncio.sleep(1)
    assert connection.closed
    connection.protocol.connection_lost(None)
    assert place.server.engine.wheel.pending == 0


async def test_a_server_that_stops_ends_who_says_nothing() -> None:
    connection = Place().connection()
    connection.protocol.shutdown()
    assert connection.closed
    connection.protocol.connection_lost(None)


@pytest.mark.bellwire(clock="real", uvloop=True)
async def test_the_response_and_the_first_packet_are_one_write() -> None:
    server = EchoServer()
    async with serve(server) as url, connect(url) as client:
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head())
        async with asyncio.timeout(5):
            data = await reader.read(4096)
        assert data.startswith(b"HTTP/1.1 101 ")
        assert b'0{"sid":' in data
        writer.close()
        await until(lambda: not server.engine.sessions)
        _, ws = await client.open_websocket()
        await ws.close()


async def test_an_answer_of_long_polling_is_one_write() -> None:
    connection = Place().connection()
    connection.protocol.data_received(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nhost: h:8000\r\n\r\n")
    for _ in range(5):
        await asyncio.sleep(0)
    assert connection.written.startswith(b"HTTP/1.1 200 ")
    assert connection.written.partition(b"\r\n\r\n")[2].startswith(b'0{"sid":')
    assert connection.writes == 1
    connection.protocol.connection_lost(None)
