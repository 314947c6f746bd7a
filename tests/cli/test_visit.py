"""What a visitor finds out about a server and what stands before it."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bellwire import Config, ConnectRefused, Server, Socket
from bellwire.cli.checks import Finding
from bellwire.cli.visit import PROMPT, Visit, _why
from tests.serving import serve

pytestmark = pytest.mark.bellwire(clock="real")

QUICK = {"ping_interval": 0.4, "pong_timeout": 0.4, "client_ping_interval": 0.4, "client_ping_timeout": 0.4}


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[str]:
    server = Server(config=Config(**{**QUICK, **settings}))
    server.namespace("/")
    closed = server.namespace("/closed")

    @closed.on_connect
    async def refuse(socket: Socket) -> None:
        raise ConnectRefused("no")

    async with serve(server) as url:
        yield url


async def visit(url: str, packet: str = "40", **options: Any) -> dict[str, Finding]:
    """What is found, by what was looked at; in a thread, as it waits."""
    found = await asyncio.to_thread(lambda: list(Visit(url, "/socket.io/", packet, **options).findings()))
    return {finding.check: finding for finding in found}


async def test_all_is_well() -> None:
    async with served() as url:
        found = await visit(url)
    assert list(found) == ["TLS", "requests", "origins", "long-polling", "WebSocket", "silence"]
    assert {finding.status for finding in found.values()} == {"ok"}


async def test_the_silence_is_the_one_that_there_was() -> None:
    async with served(client_ping_interval=30) as url:  # clients are told another one than there is
        found = await visit(url)
    said = re.search(r"outlived ([0-9.]+) s", found["silence"].message)
    assert said is not None
    assert 0.2 < float(said[1]) < 20


async def test_a_server_that_does_not_know_its_proxy_is_told_of() -> None:
    async with served(behind_proxy=("127.0.0.1",)) as url:
        found = await visit(url)
    assert found["requests"].status == "fail"
    assert "tls_required" in found["requests"].message
    assert "X-Forwarded-Proto" in found["requests"].remedy


async def test_a_server_for_any_page_is_told_of() -> None:
    async with served(allowed_origins=("*",)) as url:
        assert (await visit(url))["origins"].status == "warn"


async def test_that_no_websocket_opens() -> None:
    async with served(transports=("polling",)) as url:
        found = await visit(url)
    assert found["long-polling"].status == "ok"
    assert found["WebSocket"].status == "fail"
    assert "Upgrade" in found["WebSocket"].remedy


async def test_who_may_not_join_cannot_know_about_silence() -> None:
    async with served() as url:
        found = await visit(url, "40/closed,")
    assert (found["silence"].status, found["long-polling"].status) == ("warn", "ok")
    assert found["silence"].message.endswith("did not let this client join ('no')")


@pytest.mark.parametrize(
    ("packet", "told"),
    [
        ('44{"message":"no"}', " ('no')"),
        ('44/a,{"message":"\\u001b["}', r" ('\x1b[')"),
        ("44", ""),
        ("44{", ""),
        ("44{}", ""),
    ],
)
def test_what_the_server_says_to_it_is_shown_as_it_is(packet: str, told: str) -> None:
    assert _why(packet) == told


async def test_nobody_listens() -> None:
    found = await visit("http://127.0.0.1:1")
    assert found["requests"].status == "fail"


async def test_it_is_another_server() -> None:
    async with served(path="/elsewhere/") as url:
        found = await visit(url)
    assert found["requests"].message == "status 404"


async def test_other_machines_need_tls() -> None:
    found = await visit("http://192.0.2.1.invalid")
    assert found["TLS"].status == "fail"


@asynccontextmanager
async def proxy(url: str, *, idle: float = 60.0, delay: float = 0.0) -> AsyncIterator[str]:
    """A proxy that cuts what is silent for ``idle`` seconds, and keeps answers back for ``delay``."""
    port = int(url.rpartition(":")[2])

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait: float) -> None:
        with contextlib.suppress(TimeoutError, OSError):
            while data := await asyncio.wait_for(reader.read(65_536), idle):
                await asyncio.sleep(wait)
                writer.write(data)
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(relay(reader, back, 0), relay(there, writer, delay))

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_a_proxy_that_cuts_what_is_silent_is_told_of() -> None:
    async with served(ping_interval=1.5, client_ping_interval=1.5) as url, proxy(url, idle=0.3) as front:
        found = await visit(front)
        assert found["silence"].status == "fail"
        assert "was cut after 0." in found["silence"].message


async def test_a_proxy_that_keeps_answers_back_is_told_of() -> None:
    async with served() as url, proxy(url, delay=0.3) as front:
        found = await visit(front, prompt=0.3)
        assert found["long-polling"].status == "warn"
        assert "proxy_buffering off" in found["long-polling"].remedy
    assert PROMPT > 0.3
