"""Users with connections to two processes that share a broker, with a stock client."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import socketio

from bellwire.server.peers import BEAT_SECONDS, LEASE_SECONDS
from tests.brokers.redis_server import RedisServer
from tests.interop.processes import ServerProcess
from tests.interop.test_python_socketio import PATIENCE, new_client

real = pytest.mark.bellwire(clock="real")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[ServerProcess]]:
    """Two of them, on a Valkey of their own."""
    broker = RedisServer(tmp_path)
    found: list[ServerProcess] = []
    try:
        found.append(ServerProcess("--broker", broker.url, target="tests.interop.users:server"))
        found.append(ServerProcess("--broker", broker.url, target="tests.interop.users:server"))
        yield found
    finally:
        for process in found:
            process.end(signal.SIGKILL)
        broker.kill()


class Lobby:
    """Who is there, as a client is told."""

    def __init__(self) -> None:
        self.present: set[str] = set()
        self._changed = asyncio.Condition()

    async def state(self, state: dict[str, Any]) -> None:
        async with self._changed:
            self.present = set(state["present"])
            self._changed.notify_all()

    async def diff(self, diff: dict[str, Any]) -> None:
        async with self._changed:
            self.present = (self.present | set(diff["joined"])) - set(diff["left"])
            self._changed.notify_all()

    async def until(self, *names: str, within: float = PATIENCE) -> None:
        """Wait until just these are there."""
        async with asyncio.timeout(within), self._changed:
            await self._changed.wait_for(lambda: self.present == set(names))


class Tabs(AsyncExitStack):
    """Connections, of one user if nothing else is said."""

    async def open(self, process: ServerProcess, user: str = "ada", lobby: Lobby | None = None) -> socketio.AsyncClient:
        """Connect one more. Raises what the client raises if it is refused."""
        client = await self.enter_async_context(new_client(reconnection=False))
        if lobby is not None:
            client.on("presence:state", lobby.state)
            client.on("presence:diff", lobby.diff)
        await client.connect(process.url, transports=["websocket"], auth={"user": user}, wait_timeout=PATIENCE)
        return client

    async def refusal(self, process: ServerProcess) -> dict[str, Any]:
        """What one more is told."""
        client = await self.enter_async_context(new_client(reconnection=False))
        told: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        client.on("connect_error", told.set_result)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await client.connect(process.url, transports=["websocket"], auth={"user": "ada"}, wait_timeout=PATIENCE)
        return await asyncio.wait_for(told, PATIENCE)


@asynccontextmanager
async def tabs() -> AsyncIterator[Tabs]:
    async with Tabs() as found:
        yield found


@real
async def test_five_connections_over_two_processes_and_more_when_one_is_killed(
    processes: list[ServerProcess],
) -> None:
    here, there = processes
    async with tabs() as ada:
        for process in (here, there, here, there, here):
            await ada.open(process)
        for process in (here, there):
            told = await ada.refusal(process)
            assert told["data"] == {"code": "too_many_connections", "limit": 5}
        await asyncio.to_thread(here.end, signal.SIGKILL)
        for _ in range(3):
            await ada.open(there)
        assert (await ada.refusal(there))["data"]["code"] == "too_many_connections"


@real
async def test_a_user_logs_out_everywhere(processes: list[ServerProcess]) -> None:
    async with tabs() as ada:
        clients = [await ada.open(process) for process in processes * 2]
        gone = [asyncio.get_running_loop().create_future() for _ in clients]
        for client, future in zip(clients, gone, strict=True):
            client.on("disconnect", lambda reason, future=future: future.set_result(reason))
        await clients[0].emit("log out everywhere")
        assert set(await asyncio.wait_for(asyncio.gather(*gone), PATIENCE)) == {"server disconnect"}


@real
async def test_all_see_who_is_there_and_who_is_gone_with_a_process_that_was_killed(
    processes: list[ServerProcess],
) -> None:
    here, there = processes
    async with tabs() as clients:
        lobby = Lobby()
        await clients.open(here, "ada", lobby)
        await clients.open(there, "bob")
        carl = await clients.open(there, "carl")
        await lobby.until("ada", "bob", "carl")
        await clients.open(here, "bob")
        await carl.disconnect()
        await lobby.until("ada", "bob")
        await clients.open(there, "dora")
        await lobby.until("ada", "bob", "dora")
        await asyncio.to_thread(there.end, signal.SIGKILL)
        await lobby.until("ada", "bob", within=LEASE_SECONDS + 3 * BEAT_SECONDS + PATIENCE)
