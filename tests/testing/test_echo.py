"""The echo for conformance suites: any path, compression, no limits worth the name."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from bellwire.testing.echo import MAX_MESSAGE, listen

pytestmark = pytest.mark.bellwire(clock="real", uvloop=True)


@asynccontextmanager
async def echo(path: str = "/", compress: int = 0) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A client of an echo on a free port."""
    async with (
        asyncio.timeout(20),
        listen("127.0.0.1", 0) as (_, port),
        aiohttp.ClientSession() as session,
        session.ws_connect(f"ws://127.0.0.1:{port}{path}", compress=compress, max_msg_size=0) as client,
    ):
        yield client


@pytest.mark.parametrize("path", ["/", "/any/path?at=all", "/socket.io/"])
async def test_text_and_binary_come_back_on_any_path(path: str) -> None:
    async with echo(path) as client:
        await client.send_str("grüße")
        await client.send_bytes(b"\x00\xff")
        assert await client.receive_str() == "grüße"
        assert await client.receive_bytes() == b"\x00\xff"


async def test_messages_come_back_in_order() -> None:
    async with echo() as client:
        for number in range(500):
            await client.send_str(str(number))
        assert [await client.receive_str() for _ in range(500)] == [str(number) for number in range(500)]


async def test_compression_is_agreed_and_used() -> None:
    async with echo(compress=15) as client:
        assert client.compress == 15
        await client.send_str("bellwire " * 1000)
        assert await client.receive_str() == "bellwire " * 1000


async def test_messages_beyond_a_server_s_usual_limit_come_back() -> None:
    data = bytes(range(256)) * (8 * 4096)
    assert 1_000_000 < len(data) < MAX_MESSAGE
    async with echo() as client:
        await client.send_bytes(data)
        assert await client.receive_bytes() == data


async def test_a_request_without_an_upgrade_is_told_what_is_served() -> None:
    async with (
        asyncio.timeout(20),
        listen("127.0.0.1", 0) as (_, port),
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/") as response,
    ):
        assert response.status == 426


async def test_the_echo_ends_while_a_client_is_connected() -> None:
    async with asyncio.timeout(20), aiohttp.ClientSession() as session:
        async with listen("127.0.0.1", 0) as (_, port):
            client = await session.ws_connect(f"ws://127.0.0.1:{port}/")
            waiting = asyncio.ensure_future(client.receive())
        assert (await waiting).type is aiohttp.WSMsgType.CLOSE
        assert client.close_code == 1012
