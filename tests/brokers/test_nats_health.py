"""What is read from a nats-server's health, by a server that answers whatever a test says."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bellwire.brokers import nats_health
from bellwire.brokers.nats_health import write_error
from tests.brokers.nats_server import NatsServer

FAULT = "JetStream stream '$G > x' write error: write 1.blk: no space left on device"


@asynccontextmanager
async def monitoring(answer: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


async def test_a_write_that_failed_is_told() -> None:
    answer = b'HTTP/1.0 503 Service Unavailable\r\n\r\n{"status":"unavailable","error":"%s"}' % FAULT.encode()
    async with monitoring(answer) as (port, asked):
        assert await write_error(port, "/secret") == FAULT
        assert asked == [b"GET /secret/healthz HTTP/1.0\r\n\r\n"]


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.0 200 OK\r\n\r\n{"status":"ok"}',
        b'HTTP/1.0 503 Service Unavailable\r\n\r\n{"error":"JetStream is still recovering streams"}',
        b"HTTP/1.0 503 Service Unavailable\r\n\r\nwrite error",
        b"HTTP/1.0 503 Service Unavailable\r\n\r\n[]",
        b"HTTP/1.0 503 Service Unavailable\r\n\r\n{}",
        b"HTTP/1.0 404 Not Found\r\n\r\nwrite error",
        b"\xff write error",
        b"",
    ],
)
async def test_nothing_else_is_one(answer: bytes) -> None:
    async with monitoring(answer) as (port, _):
        assert await write_error(port) is None


async def test_nobody_there_is_none() -> None:
    async with monitoring(b"") as (port, _):
        pass
    assert await write_error(port) is None


async def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = asyncio.get_running_loop().time()
        assert await write_error(silent.getsockname()[1]) is None
        assert asyncio.get_running_loop().time() - began == pytest.approx(nats_health.ANSWERS_WITHIN, abs=0.1)


@pytest.mark.bellwire(clock="real")
async def test_a_server_that_is_well(server: NatsServer) -> None:
    assert await write_error(server.port) is None
