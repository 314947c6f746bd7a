"""Which requests are let in, what the others are told (Engine.IO's error codes 0 to 5), and how all sessions end."""

import asyncio
import re
from contextlib import AsyncExitStack

import aiohttp
import pytest

from bellwire.protocol.engineio import PROTOCOL
from bellwire.protocol.wire import JSON, CloseCode
from bellwire.transports.base import Request
from bellwire.transports.engine import AT_ONCE
from tests.serving import serve
from tests.transports.pipe import Pipe
from tests.transports.wire import Client, EchoServer, connect, echo_server, on_both, until

TRANSPORT_UNKNOWN = (400, '{"code":0,"message":"Transport unknown"}')
SID_UNKNOWN = (400, '{"code":1,"message":"Session ID unknown"}')
BAD_METHOD = (400, '{"code":2,"message":"Bad handshake method"}')
BAD_REQUEST = (400, '{"code":3,"message":"Bad request"}')
BAD_VERSION = (400, '{"code":5,"message":"Unsupported protocol version"}')


async def refusal(client: Client, method: str, **query: str) -> tuple[int, str]:
    answer = await client.request(method, **query)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.text))
    return answer.status, answer.text


@on_both
@pytest.mark.parametrize(
    ("method", "query", "expected"),
    [
        ("GET", {"EIO": "4"}, TRANSPORT_UNKNOWN),
        ("GET", {"EIO": "4", "transport": "tesla"}, TRANSPORT_UNKNOWN),
        ("GET", {"EIO": "4", "transport": "polling", "sid": "nobody"}, SID_UNKNOWN),
        ("POST", {"EIO": "4", "transport": "polling", "sid": "nobody"}, SID_UNKNOWN),
        ("POST", {"EIO": "4", "transport": "polling"}, BAD_METHOD),
        ("OPTIONS", {"EIO": "4", "transport": "polling"}, BAD_METHOD),
        ("GET", {"EIO": "4", "transport": "websocket"}, BAD_REQUEST),
        ("GET", {"EIO": "3", "transport": "polling"}, BAD_VERSION),
        ("GET", {"transport": "polling"}, BAD_VERSION),
    ],
    ids=lambda value: "&".join(value.values()) if isinstance(value, dict) else None,
)
async def test_error_body(native: bool, method: str, query: dict[str, str], expected: tuple[int, str]) -> None:
    async with echo_server(native=native) as (server, client):
        assert await refusal(client, method, **query) == expected
        assert not server.engine.sessions


@on_both
@pytest.mark.parametrize(
    ("method", "query", "expected"),
    [
        ("POST", {"EIO": "3", "transport": "tesla", "sid": "nobody"}, TRANSPORT_UNKNOWN),
        ("POST", {"EIO": "3", "transport": "websocket", "sid": "nobody"}, SID_UNKNOWN),
        ("POST", {"EIO": "3", "transport": "websocket"}, BAD_METHOD),
        ("GET", {"EIO": "3", "transport": "websocket"}, BAD_REQUEST),
    ],
    ids=["transport", "sid", "method", "upgrade"],
)
async def test_order_of_checks(native: bool, method: str, query: dict[str, str], expected: tuple[int, str]) -> None:
    """Each request is wrong in this and in all later ways."""
    async with echo_server(native=native) as (_, client):
        assert await refusal(client, method, **query) == expected


@on_both
async def test_known_session_is_asked_for_transport_then_protocol_then_method(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        assert await refusal(client, "PUT", EIO="3", transport="websocket", sid=sid) == BAD_REQUEST
        assert await refusal(client, "GET", EIO="3", transport="polling", sid=sid) == BAD_REQUEST
        assert await refusal(client, "PUT", EIO="4", transport="polling", sid=sid) == BAD_REQUEST
        assert not server.echoes[sid].reasons, "it was another's mistake"


@on_both
async def test_transport_that_is_off_is_unknown(native: bool) -> None:
    async with echo_server(native=native, transports=("websocket",)) as (_, client):
        assert await refusal(client, "GET", EIO="4", transport="polling") == TRANSPORT_UNKNOWN


@on_both
@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"transport": "tesla"}, "Transport unknown"),
        ({"sid": "nobody"}, "Session ID unknown"),
        ({"transport": "polling"}, "Bad request"),
        ({"EIO": "3"}, "Unsupported protocol version"),
    ],
    ids=["transport", "sid", "polling", "protocol"],
)
async def test_upgrade_request_is_refused_with_the_bare_message(
    native: bool, query: dict[str, str], message: str
) -> None:
    async with serve(EchoServer(), native=native) as url:
        target = "&".join(f"{name}={value}" for name, value in ({"EIO": "4", "transport": "websocket"} | query).items())
        head, body = await upgrade(url, f"/socket.io/?{target}")
        assert head[0] == "HTTP/1.1 400 Bad Request"
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        assert headers["connection"] == "close"
        assert headers["content-type"] == "text/html"
        assert headers["content-length"] == str(len(message))
        assert body == message


async def upgrade(url: str, target: str, method: str = "GET", origin: str = "") -> tuple[list[str], str]:
    """Ask for a WebSocket byte by byte; the response's head and body, up to the end of the connection."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *([f"Origin: {origin}"] if origin else []),
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    async with asyncio.timeout(5):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        body = "" if " 101 " in head.split("\r\n")[0] else (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return head.removesuffix("\r\n\r\n").split("\r\n"), body


@on_both
async def test_upgrade_with_another_method_opens_nothing(native: bool) -> None:
    """RFC 6455 section 4.1: the method of the request must be GET."""
    server = EchoServer()
    async with serve(server, native=native) as url:
        head, _ = await upgrade(url, "/socket.io/?EIO=4&transport=websocket", method="PUT")
        assert re.match(r"HTTP/1.1 4\d\d ", head[0])
        assert not server.engine.sessions


@on_both
async def test_path_that_only_resembles_ours_is_not_ours(native: bool) -> None:
    async with serve(EchoServer(path="/live/"), native=native) as url, connect(url, "/live/") as client:
        assert await client.open()
        await (await client.open_websocket())[1].close()


# --- two clients


@on_both
async def test_sids_are_secret_and_different(native: bool) -> None:
    async with echo_server(native=native) as (_, client):
        sids = {await client.open() for _ in range(20)}
        assert len(sids) == 20
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{24}", sid) for sid in sids)


# --- the end of all


@on_both
async def test_closing_ends_every_session_and_leaves_nothing(native: bool) -> None:
    server = EchoServer()
    async with serve(server, native=native) as url, connect(url) as client:
        polling = await client.open()
        pending = asyncio.create_task(client.get(polling))
        carrier = server.engine.sessions[polling].carrier
        await until(lambda: carrier._waiter)  # type: ignore[attr-defined]
        _, websocket = await client.open_websocket()
        await server.engine.close(1012)
        assert (await pending).text == "1"
        assert await websocket.close_code() == 1012
        assert [echo.reasons for echo in server.echoes.values()] == [["server shutting down"]] * 2
        assert not server.engine.sessions
        assert not server.engine.lingering


@on_both
async def test_uvicorn_that_stops_tells_websockets_to_come_back_later(native: bool) -> None:
    server = EchoServer()
    async with AsyncExitStack() as serving:
        url = await serving.enter_async_context(serve(server, native=native))
        async with connect(url) as client:
            _, websocket = await client.open_websocket()
            closed = asyncio.create_task(websocket.close_code())
            await serving.aclose()
            assert await closed == 1012
    assert not server.engine.sessions


@on_both
async def test_sessions_that_came_and_went_leave_nothing(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        for _ in range(5):
            sid = await client.open()
            await client.post(sid, "1")
            await client.get(sid)
            _, ws = await client.open_websocket()
            await ws.close()
            _, ws = await client.open_websocket()
            await ws.send("1")
            await ws.close_code()
        await until(lambda: not server.engine.sessions)
        assert not server.engine.lingering


@on_both
async def test_websocket_handshake_offers_no_upgrade(native: bool) -> None:
    async with echo_server(native=native) as (_, client):
        ws = await client.websocket(EIO=PROTOCOL)
        assert '"upgrades":[]' in await ws.text()
        await ws.close()


@on_both
async def test_refused_upgrade_is_an_error_of_the_handshake(native: bool) -> None:
    async with echo_server(native=native) as (_, client):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.websocket("nobody")
        assert caught.value.status == 400


async def test_the_loop_turns_while_many_sessions_end() -> None:
    server = EchoServer()
    pipes = [Pipe() for _ in range(3 * AT_ONCE)]
    for pipe in pipes:
        server.engine.open_raw(pipe, Request(path="/bellwire"), JSON)
    closing, turns = asyncio.ensure_future(server.engine.close(1012)), 0
    while not closing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 3
    assert {pipe.closed for pipe in pipes} == {CloseCode.DRAINING}
