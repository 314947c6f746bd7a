"""The opening of a WebSocket on uvicorn's sockets: our paths and those of others, and who is refused."""

import asyncio

import aiohttp
import fastapi
import pytest

from bellwire import Server
from bellwire.transports.base import Receive, Scope, Send
from bellwire.transports.engine import Engine
from tests.serving import serve
from tests.transports.wire import PATIENCE, EchoServer, connect, dial, on_both, real, socketio_server


def fast_api() -> fastapi.FastAPI:
    app = fastapi.FastAPI()

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    @app.websocket("/live")
    async def live(websocket: fastapi.WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text.upper())

    return app


async def speak_socketio(url: str, path: str = "/socket.io/") -> None:
    """An echo by Socket.IO over both transports."""
    async with connect(url, path) as client:
        sid = await client.open()
        await client.post(sid, '40\x1e420["echo","a"]')
        packets = (await client.get(sid)).text.split("\x1e")
        while '430["a"]' not in packets:
            packets += (await client.get(sid)).text.split("\x1e")
        await client.post(sid, "1")
        _, ws = await client.open_websocket()
        await ws.send("40")
        assert (await ws.text()).startswith("40{")
        await ws.send('421["echo","b"]')
        assert await ws.text() == '431["b"]'
        await ws.close()


async def speak_fastapi(url: str) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{url}/hello") as answer:
            assert await answer.json() == "hello"
        async with http.ws_connect(f"{url}/live") as ws:
            await ws.send_str("abc")
            assert await ws.receive_str(timeout=PATIENCE) == "ABC"
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await http.ws_connect(f"{url}/nothing")
        assert caught.value.status == 403


@on_both
async def test_fastapi_beside_the_server(native: bool) -> None:
    async with serve(socketio_server(http=fast_api()), native=native) as url:
        await speak_socketio(url)
        await speak_fastapi(url)


@real
async def test_fastapi_with_the_server_mounted() -> None:
    server = socketio_server()
    app = fast_api()
    app.router.lifespan_context = server.lifespan
    app.mount("/", server)
    async with serve(Mounted(app, server), native=False) as url:
        await speak_fastapi(url)
        await speak_socketio(url)


@real
async def test_fastapi_with_the_server_mounted_below_a_path() -> None:
    server = socketio_server()
    app = fast_api()
    app.router.lifespan_context = server.lifespan
    app.mount("/realtime", server)
    async with serve(Mounted(app, server), native=False) as url:
        await speak_fastapi(url)
        await speak_socketio(url, "/realtime/socket.io/")


class Mounted:
    """An application that has a server inside."""

    def __init__(self, app: fastapi.FastAPI, server: Server) -> None:
        self._app = app
        self._server = server

    @property
    def engine(self) -> Engine:
        return self._server.engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


@on_both
async def test_websocket_of_nobody_is_refused(native: bool) -> None:
    async with serve(socketio_server(), native=native) as url, aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await http.ws_connect(f"{url}/elsewhere")
        assert caught.value.status == 403
        async with http.get(f"{url}/elsewhere") as answer:
            assert answer.status == 404


@real
async def test_upgrade_request_that_is_no_websocket_handshake_is_refused() -> None:
    async with serve(EchoServer()) as url, dial(url) as (reader, writer), asyncio.timeout(PATIENCE):
        writer.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = (await reader.read()).decode().split("\r\n")
        assert head[0] == "HTTP/1.1 426 Upgrade Required"
        assert "sec-websocket-version: 13" in [line.lower() for line in head]
