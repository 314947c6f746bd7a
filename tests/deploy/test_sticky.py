"""Servers that know nothing of each other, behind HAProxy: their clients stay only if it keeps them where they are.

The two backends are those of the guide `docs/howto/several-processes.md`.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.chaos.application import ROOM
from tests.chaos.program import ROOT, SCALE, program, serving
from tests.chaos.test_stock import LISTENER, NODE
from tests.deploy.fronts import HAPROXY
from tests.ports import free_port

pytestmark = [
    pytest.mark.node,
    pytest.mark.haproxy,
    pytest.mark.bellwire(clock="real"),
    pytest.mark.timeout(60 * SCALE),
    pytest.mark.skipif(HAPROXY is None, reason="HAProxy is not installed"),
]

FRONT = """
defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 75s
    timeout tunnel 1h
frontend chat
    bind 127.0.0.1:{port}
    default_backend bellwire
"""


BACKENDS = re.findall(r"```haproxy\n(.*?)```", (ROOT / "docs/howto/several-processes.md").read_text(), re.DOTALL)


@asynccontextmanager
async def haproxy(backend: str, folder: Path, *ports: int) -> AsyncIterator[int]:
    """HAProxy in front of these ports; its own."""
    assert HAPROXY is not None
    port, names = free_port(), iter(ports)
    backend = re.sub(r"10\.0\.0\.\d:8000", lambda _: f"127.0.0.1:{next(names)}", backend)
    file = folder / "haproxy.cfg"
    await asyncio.to_thread(file.write_text, FRONT.format(port=port) + backend)
    async with program(HAPROXY, "-db", "-q", "-f", str(file)) as running:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    assert running.process.returncode is None, running.errors
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        yield port


@pytest.mark.parametrize("number", [0, 1], ids=["cookie of the balancer", "cookie of the session"])
async def test_clients_stay_where_they_are(number: int, node_modules: Path, tmp_path: Path) -> None:
    flags = ("--cookie", "io") if number else ()
    async with (
        serving(*flags) as one,
        serving(*flags) as other,
        haproxy(BACKENDS[number], tmp_path, one.port, other.port) as port,
        AsyncExitStack() as stack,
    ):
        for transports in ('["polling"]', '["polling", "websocket"]'):
            options = f'{{"transports": {transports}, "withCredentials": true}}'
            command = NODE, LISTENER, f"http://localhost:{port}", options
            clients = [
                await stack.enter_async_context(program(*command, environ={"NODE_PATH": str(node_modules)}))
                for _ in range(4)
            ]
            for client in clients:
                await client.hear("connect", 1)
                for count in range(5):
                    client.tell(f'["join", "{ROOM}"]')
                    await client.hear("answer", count + 1)
                assert len(client.of("connect")) == 1, client.said
            if "websocket" in transports:
                for client in clients:
                    await client.until(lambda c=client: ["transport", "websocket"] in c.said, "the upgrade")  # type: ignore[misc]
