"""Unmodified clients on ``bellwire run --workers 3``, where any request may reach any worker."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import socketio

from tests.interop.processes import Node, ServerProcess, running_server
from tests.interop.test_python_socketio import PATIENCE, Collected, ask, connected, each_transport, new_client, real
from tests.interop.test_python_socketio import TRANSPORTS as PYTHON_TRANSPORTS
from tests.interop.test_socketio_client import EVERYWHERE, TRANSPORTS

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers need Linux")

OF_ONE_PROCESS = ("client disconnects", "server disconnects", "connection breaks")
"""Scenarios that ask the application what one of its processes remembers."""


@pytest.fixture(scope="module")
def workers() -> Iterator[ServerProcess]:
    with running_server("--workers", "3") as process:
        yield process


@pytest.mark.node
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scenario", [name for name in EVERYWHERE if name not in OF_ONE_PROCESS])
def test_scenario(scenario: str, transport: str, node: Node, workers: ServerProcess) -> None:
    node.run(scenario, workers.url, "4.8", transport)


@pytest.mark.node
@pytest.mark.parametrize("attempt", range(5))
def test_messages_during_the_upgrade(attempt: int, node: Node, workers: ServerProcess) -> None:
    node.run("messages during the upgrade", workers.url, "4.8", "upgrade")


@pytest.mark.node
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_burst(transport: str, node: Node, workers: ServerProcess) -> None:
    node.run("burst", workers.url, "4.8", transport)


# --- the client of python-socketio


async def everybody_hears_everybody(clients: list[socketio.AsyncClient], heard: list[Collected], room: str) -> None:
    for number, client in enumerate(clients):
        assert await ask(client, "say", room, f"hello from {number}") is True
    for number, texts in enumerate(heard):
        await texts.until(len(clients) - 1)
        assert texts == [f"hello from {other}" for other in range(len(clients)) if other != number]
        texts.clear()


@real
@each_transport
async def test_a_room_of_many_clients(workers: ServerProcess, transport: str) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(workers, transport)) for _ in range(12)]
        for client in clients:
            assert await ask(client, "join", f"room {transport}") is True
        heard = [Collected(client, "said") for client in clients]
        await everybody_hears_everybody(clients, heard, f"room {transport}")
        large = "a" * 900_000
        assert await asyncio.gather(*[ask(client, "echo", large) for client in clients]) == [large] * len(clients)


@real
@pytest.mark.timeout(120)
@each_transport
async def test_clients_come_back_when_a_worker_is_killed(workers: ServerProcess, transport: str) -> None:
    room = f"coming back {transport}"
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(new_client(reconnection_delay=0.1, reconnection_delay_max=0.5))
            for _ in range(9)
        ]
        joined = asyncio.Event()
        heard = [Collected(client, "said") for client in clients]
        inside: set[str | None] = set()
        for client in clients:

            async def enter(client: socketio.AsyncClient = client) -> None:
                await ask(client, "join", room)
                inside.add(client.get_sid())
                joined.set()

            client.on("connect", enter)
            await client.connect(workers.url, transports=PYTHON_TRANSPORTS[transport], wait_timeout=PATIENCE)
        await until_all(clients, inside, joined)
        await everybody_hears_everybody(clients, heard, room)
        victim = await asyncio.to_thread(a_worker_of, workers)
        os.kill(victim, signal.SIGKILL)
        for client in clients:  # whoever was on it, or is on its way to it, finds out by this
            await still_there(client)
        await until_all(clients, inside, joined)
        await everybody_hears_everybody(clients, heard, room)


async def until_all(clients: list[socketio.AsyncClient], inside: set[str | None], joined: asyncio.Event) -> None:
    """Wait until each client has entered the room on the connection that it has now."""
    async with asyncio.timeout(6 * PATIENCE):
        while not {client.get_sid() for client in clients} <= inside:
            joined.clear()
            await joined.wait()


async def still_there(client: socketio.AsyncClient) -> None:
    """Have the client use its connection until that works."""
    async with asyncio.timeout(6 * PATIENCE):
        while True:
            try:
                if await client.call("echo", "still there?", timeout=PATIENCE) == "still there?":
                    return
            except socketio.exceptions.SocketIOError:
                await asyncio.sleep(0.1)


def a_worker_of(server: ServerProcess) -> int:
    pid = server.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return next(int(child) for child in children if b"cli.worker" in Path(f"/proc/{child}/cmdline").read_bytes())
