"""Who comes in, on every transport: pages by their origin, and clients behind proxies."""

import asyncio
import logging
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest

from bellwire import Config, Server
from bellwire.core import open_files
from bellwire.protocol.wire import JSON, PATH
from bellwire.testing import connect as connect_in_memory
from bellwire.transports.edge import SPEAKS_WITHIN
from tests.transports.wire import PATIENCE, Client, EchoServer, echo_server, on_both, real, until

each_way = pytest.mark.parametrize("way", ["polling", "websocket", "upgrade", "raw"])

UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-protocol": JSON,
}


class Told(NamedTuple):
    status: int
    text: str
    headers: Any


async def knock(client: Client, way: str, headers: dict[str, str]) -> Told:
    """Ask to come in this way; a WebSocket is given up as soon as it is open."""
    query = {"EIO": "4", "transport": "polling" if way == "polling" else "websocket"}
    if way == "upgrade":
        query["sid"] = await client.open()
    if way == "polling":
        answer = await client.request(headers=headers, **query)
        return Told(answer.status, answer.text, answer.headers)
    url = client.url.replace("/socket.io/", PATH) if way == "raw" else client.url
    async with client.http.get(url, params=query, headers={**UPGRADE, **headers}) as response:
        text = "" if response.status == 101 else await response.text()
        return Told(response.status, text, response.headers)


def inside(way: str) -> int:
    return 200 if way == "polling" else 101


def host(client: Client) -> str:
    return client.url.split("/")[2]


OTHER = ["https://evil.example", "null", "http://evil.{host}", "http://{host}.evil.example", "http://{host}1", "x", ""]


@on_both
@each_way
async def test_a_page_of_the_server_itself_comes_in_and_so_does_a_program(native: bool, way: str) -> None:
    async with echo_server(native=native) as (_, client):
        own = f"http://{host(client)}"
        for headers in ({}, {"origin": own}, {"origin": own.upper()}):
            assert (await knock(client, way, headers)).status == inside(way)


@on_both
@each_way
@pytest.mark.parametrize("origin", [*OTHER, "https://{host}", "http://127.0.0.1", "http://localhost:{port}"])
async def test_a_page_of_another_origin_does_not(native: bool, way: str, origin: str) -> None:
    async with echo_server(native=native) as (server, client):
        origin = origin.format(host=host(client), port=host(client).partition(":")[2])
        told = await knock(client, way, {"origin": origin})
        assert told.status == 403
        assert "forbidden_origin" in told.text
        assert (origin not in told.text) or not origin
        assert not [name for name in told.headers if name.lower().startswith("access-control")]
        assert server.counters.get("requests_refused_total", reason="forbidden_origin") == 1


@on_both
@each_way
async def test_nor_does_one_that_says_it_comes_through_a_proxy(native: bool, way: str) -> None:
    async with echo_server(native=native) as (_, client):
        forged = {"x-forwarded-host": "evil.example", "x-forwarded-proto": "https", "x-forwarded-for": "127.0.0.1"}
        for headers in (forged, {"forwarded": "host=evil.example;proto=https"}):
            told = await knock(client, way, {"origin": "https://evil.example", **headers})
            assert told.status == 403


@on_both
@each_way
async def test_pages_that_are_named_come_in(native: bool, way: str) -> None:
    async with echo_server(native=native, allowed_origins=("https://*.example.org",)) as (_, client):
        assert (await knock(client, way, {"origin": "https://app.example.org"})).status == inside(way)
        assert (await knock(client, way, {"origin": "https://example.org"})).status == 403


@on_both
@each_way
async def test_any_page_comes_in_if_any_may(native: bool, way: str) -> None:
    async with echo_server(native=native, allowed_origins=("*",)) as (_, client):
        assert (await knock(client, way, {"origin": "https://evil.example"})).status == inside(way)
        assert (await knock(client, way, {"origin": "null"})).status == 403


@on_both
async def test_a_session_does_not_open_the_door_for_a_page(native: bool) -> None:
    """Who knows the session's id is still a page of the wrong origin, and learns nothing of the session."""
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        for method in ("GET", "POST"):
            answer = await client.request(
                method, headers={"origin": "https://evil.example"}, EIO="4", transport="polling", sid=sid
            )
            assert answer.status == 403
        assert sid in server.engine.sessions
        answer = await client.post(sid, "4still there")
        assert answer.text == "ok"


@on_both
async def test_the_first_page_that_is_refused_is_told_of_and_no_other(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with echo_server(native=native) as (_, client):
        for count in range(20):
            await knock(client, "polling", {"origin": f"https://evil{count}.example"})
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "'https://evil0.example'" in warnings[0].message
    assert "allowed_origins" in warnings[0].message


# --- behind proxies

TRUSTED = ("127.0.0.0/8",)
SECURE = {"x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.5"}


def came(server: EchoServer) -> Any:
    """The request of the only session."""
    (echo,) = [*server.echoes.values(), *server.raw_echoes]
    return echo.session.request


@on_both
@pytest.mark.parametrize("way", ["polling", "websocket", "raw"])
async def test_the_client_of_a_trusted_proxy_shows_its_address(native: bool, way: str) -> None:
    async with echo_server(native=native, behind_proxy=TRUSTED) as (server, client):
        headers = {**SECURE, "x-forwarded-for": "127.0.0.9, 6.6.6.6, 203.0.113.5:4711, 127.0.0.2"}
        assert (await knock(client, way, headers)).status == inside(way)
        request = came(server)
        assert (request.client, request.scheme) == (("203.0.113.5", 4711), "https")


@on_both
@pytest.mark.parametrize("way", ["polling", "websocket", "raw"])
async def test_whoever_else_writes_such_headers_is_not_believed(native: bool, way: str) -> None:
    async with echo_server(native=native, behind_proxy=("10.0.0.0/8",)) as (server, client):
        assert (await knock(client, way, {**SECURE, "x-forwarded-host": "evil.example"})).status == inside(way)
        request = came(server)
        assert (request.client[0], request.scheme) == ("127.0.0.1", "http")
        told = await knock(
            client, way, {**SECURE, "x-forwarded-host": "evil.example", "origin": "https://evil.example"}
        )
        assert told.status == 403


@on_both
@each_way
@pytest.mark.parametrize("headers", [{}, {"x-forwarded-proto": "http"}, {"x-forwarded-proto": "https, http"}])
async def test_what_came_to_a_proxy_without_tls_is_refused(native: bool, way: str, headers: dict[str, str]) -> None:
    async with echo_server(native=native, behind_proxy=TRUSTED) as (server, client):
        client.http.headers.update(SECURE)  # for the session that is to be upgraded
        told = await knock(client, way, {"x-forwarded-proto": "", **headers})
        assert told.status == 403
        assert "tls_required" in told.text
        assert server.counters.get("requests_refused_total", reason="tls_required") == 1


@on_both
@each_way
async def test_behind_a_proxy_the_servers_own_origin_is_what_the_client_sees(native: bool, way: str) -> None:
    async with echo_server(native=native, behind_proxy=TRUSTED) as (_, client):
        client.http.headers.update(SECURE)
        outside = {"x-forwarded-host": "chat.example"}
        assert (await knock(client, way, {**outside, "origin": "https://chat.example"})).status == inside(way)
        assert (await knock(client, way, {"host": "chat.example", "origin": "https://chat.example"})).status == inside(
            way
        )
        for origin in ("http://chat.example", f"https://{host(client)}"):
            assert (await knock(client, way, {**outside, "origin": origin})).status == 403


async def ask(server: Any, peer: str, scheme: str = "http") -> int:
    """The status that a long-polling request from this address gets of an ASGI server."""
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("a handshake has no body")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/socket.io/",
        "query_string": b"EIO=4&transport=polling",
        "headers": [],
        "client": (peer, 4711),
        "scheme": scheme,
    }
    await server(scope, receive, send)
    status: int = sent[0]["status"]
    return status


async def test_without_tls_other_machines_are_served_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    server = EchoServer()
    assert [await ask(server, "127.0.0.1"), await ask(server, "192.0.2.1", "https")] == [200, 200]
    assert not caplog.records
    assert [await ask(server, "192.0.2.1"), await ask(server, "192.0.2.2")] == [200, 200]
    (record,) = caplog.records
    assert "without TLS" in record.message


async def test_behind_a_proxy_nobody_comes_around_it_without_tls() -> None:
    server = EchoServer(behind_proxy=("10.0.0.0/8",))
    assert await ask(server, "192.0.2.1") == 403
    assert await ask(server, "192.0.2.1", "https") == 200
    assert await ask(server, "127.0.0.1") == 200


async def test_so_it_is_in_the_application_that_the_server_is_joined_with() -> None:
    seen: list[Any] = []

    async def pages(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["client"], scope["scheme"]))

    async def nothing(*_: Any) -> Any:
        raise AssertionError("the application does not answer")

    server = Server(http=pages, config=Config(behind_proxy=TRUSTED))
    headers = [(name.encode(), value.encode()) for name, value in SECURE.items()]
    scope = {"type": "http", "path": "/", "headers": headers, "scheme": "http"}
    async with server.lifespan():
        for peer in ("127.0.0.1", "192.0.2.1"):
            await server({**scope, "client": (peer, 4711)}, nothing, nothing)
    assert seen == [(("203.0.113.5", 0), "https"), (("192.0.2.1", 4711), "http")]


async def test_an_application_behind_the_server_sees_the_client_too() -> None:
    edge = EchoServer(behind_proxy=TRUSTED).engine.edge
    headers = [(name.encode(), value.encode()) for name, value in SECURE.items()]
    scope = {"type": "websocket", "path": "/", "headers": headers, "client": ("127.0.0.1", 1), "scheme": "ws"}
    assert edge.uncover(scope) == {**scope, "client": ("203.0.113.5", 0), "scheme": "wss"}
    assert edge.uncover({**scope, "client": ("192.0.2.1", 1)})["scheme"] == "ws"
    assert edge.uncover({**scope, "type": "http", "scheme": "http"})["scheme"] == "https"
    assert scope["client"] == ("127.0.0.1", 1)
    lifespan = {"type": "lifespan"}
    assert edge.uncover(lifespan) is lifespan


@on_both
async def test_a_refusal_has_engineios_form(native: bool) -> None:
    async with echo_server(native=native) as (_, client):
        told = await knock(client, "polling", {"origin": "null"})
        assert msgspec.json.decode(told.text)["code"] == 4
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.http.ws_connect(
                client.url, params={"EIO": "4", "transport": "websocket"}, headers={"origin": "null"}
            )
        assert caught.value.status == 403


# --- newcomers

new = pytest.mark.parametrize("way", ["polling", "websocket", "raw"])


@on_both
@new
async def test_those_who_have_not_joined_are_bounded(native: bool, way: str) -> None:
    async with echo_server(native=native, half_open=2) as (server, client):
        await client.open()
        await client.open()
        told = await knock(client, way, {})
        assert told.status == 503
        assert "too_many_half_open" in told.text
        assert 1 <= int(told.headers["retry-after"]) <= 5
        assert server.counters.get("requests_refused_total", reason="too_many_half_open") == 1
        session = next(iter(server.echoes.values())).session
        server.engine.settle(session)
        server.engine.settle(session)
        assert (await knock(client, way, {})).status == inside(way)


@on_both
async def test_who_has_come_in_is_served_when_all_places_are_taken(native: bool) -> None:
    async with echo_server(native=native, half_open=1) as (_, client):
        sid = await client.open()
        assert (await client.post(sid, "4hello")).text == "ok"
        ws = await client.websocket(sid)
        await ws.probe()
        await ws.close()


@on_both
async def test_places_are_given_back_when_sessions_end(native: bool) -> None:
    async with echo_server(native=native, half_open=1) as (server, client):
        for _ in range(3):
            sid, ws = await client.open_websocket()
            await ws.close()
            await server.echoes[sid].ended.wait()
        await until(lambda: server.engine.edge.newcomers.count == 0)


@on_both
async def test_one_address_does_not_get_all_the_places(native: bool) -> None:
    async with echo_server(native=native, behind_proxy=TRUSTED, half_open_per_address=1) as (_, client):
        client.http.headers.update(SECURE)
        await client.open()
        assert (await knock(client, "polling", {})).status == 503
        assert (await knock(client, "polling", {"x-forwarded-for": "203.0.113.6"})).status == 200
        for _ in range(2):  # of a proxy that names nobody, or of this machine
            assert (await knock(client, "polling", {"x-forwarded-for": "127.0.0.1"})).status == 200


@on_both
@new
async def test_one_address_opens_no_more_than_it_may(native: bool, way: str) -> None:
    async with echo_server(native=native, behind_proxy=TRUSTED, connect_rate_per_address="2/h") as (server, client):
        client.http.headers.update(SECURE)
        for _ in range(2):
            sid = await client.open()
        told = await knock(client, way, {})
        assert told.status == 429
        assert "too_many_connects" in told.text
        assert 1800 <= int(told.headers["retry-after"]) <= 1806
        assert server.counters.get("requests_refused_total", reason="too_many_connects") == 1
        assert (await client.post(sid, "4hello")).text == "ok"
        for other in ("203.0.113.6", "127.0.0.1"):
            assert (await knock(client, way, {"x-forwarded-for": other})).status == inside(way)


async def test_who_has_joined_is_no_newcomer() -> None:
    server = Server(config=Config(half_open=1))
    server.namespace("/")
    async with connect_in_memory(server), connect_in_memory(server):
        assert server.engine.edge.newcomers.count == 0
    assert server.counters.get("sessions_closed_total", reason="transport_close") == 2


async def test_the_last_file_that_may_be_open_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(open_files, "limits", lambda: (1_024, 4_096))
    edge = EchoServer().engine.edge
    for descriptor in (-1, 3, 1_022):
        edge.note(descriptor)
    assert caplog.messages == []
    for _ in range(2):
        edge.note(1_023)
    (told,) = caplog.messages
    assert told.startswith("this process has all 1,024 files open that it may have")


class Knocker:
    """A connection that says nothing."""

    def __init__(self) -> None:
        self.hung_up = False

    def hang_up(self) -> None:
        self.hung_up = True


async def test_who_says_nothing_makes_room_for_who_does() -> None:
    server = EchoServer(half_open=2)
    edge = server.engine.edge
    first, second, third, fourth = knockers = [Knocker() for _ in range(4)]
    for knocker in (first, second, third):  # at once: nobody has had time to speak
        edge.knock(knocker, 10.0)
    edge.spoke(second)
    edge.knock(fourth, 10.0 + SPEAKS_WITHIN + 0.1)
    assert [knocker.hung_up for knocker in knockers] == [True, False, False, False]
    assert server.counters.get("connections_refused_total", reason="silent") == 1
    for knocker in knockers:
        edge.spoke(knocker)
    assert edge._silent == {}


@real
async def test_so_it_is_on_sockets() -> None:
    async with echo_server(native=True, half_open=1) as (server, client):
        port = int(host(client).partition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        silent = server.engine.edge._silent
        await until(lambda: silent)
        (connection,) = silent
        silent[connection] -= 2 * SPEAKS_WITHIN
        assert (await client.request(EIO="4", transport="polling")).status == 200
        assert await ended(reader)
        writer.close()
        await until(lambda: not silent)


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server hangs up without a word."""
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE) == b""
    except ConnectionResetError:
        return True
