"""The client of python-socketio: what the scenarios in js/scenarios.js show, for the other large client."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
import socketio
from engineio.payload import Payload

from tests.interop.processes import ServerProcess, running_server

PATIENCE = 10

TRANSPORTS = {"polling": ["polling"], "websocket": ["websocket"], "upgrade": ["polling", "websocket"]}

real = pytest.mark.bellwire(clock="real")
each_transport = pytest.mark.parametrize("transport", TRANSPORTS)


@asynccontextmanager
async def new_client(
    connector: aiohttp.BaseConnector | None = None, **options: Any
) -> AsyncIterator[socketio.AsyncClient]:
    """A client with an HTTP session of ours: its own it forgets to close when a connection breaks."""
    async with aiohttp.ClientSession(connector=connector) as http:
        client = socketio.AsyncClient(http_session=http, **options)
        try:
            yield client
        finally:
            await client.disconnect()
            await client.shutdown()


@asynccontextmanager
async def connected(server: ServerProcess, transport: str, **options: Any) -> AsyncIterator[socketio.AsyncClient]:
    """A client that is connected, on the transport that it asked for."""
    async with new_client(reconnection=False) as client:
        await client.connect(server.url, transports=TRANSPORTS[transport], wait_timeout=PATIENCE, **options)
        assert client.transport() == ("polling" if transport == "polling" else "websocket")
        yield client


class Collected(list[Any]):
    """What comes as one event."""

    def __init__(self, client: socketio.AsyncClient, event: str) -> None:
        super().__init__()
        self._changed = asyncio.Event()

        async def take(*args: Any) -> None:
            self.append(args[0] if len(args) == 1 else args)
            self._changed.set()

        client.on(event, take)

    async def until(self, count: int) -> None:
        """Wait for so many of them."""
        async with asyncio.timeout(PATIENCE):
            while len(self) < count:
                self._changed.clear()
                await self._changed.wait()


async def ask(client: socketio.AsyncClient, *args: Any, **options: Any) -> Any:
    """Emit with an acknowledgement; the answer."""
    event, *data = args
    return await client.call(event, tuple(data), timeout=PATIENCE, **options)


async def reasons_of(witness: socketio.AsyncClient, name: str) -> list[str]:
    """Why the server says that a client went; it may be about to notice."""
    async with asyncio.timeout(PATIENCE):
        while not (reasons := await ask(witness, "reasons", name)):
            pass
    assert isinstance(reasons, list)
    return reasons


@each_transport
@real
async def test_echo(transport: str, server: ServerProcess) -> None:
    async with connected(server, transport) as client:
        assert len(client.get_sid()) == 20
        assert client.get_sid() != client.eio.sid
        assert await ask(client, "echo", "héllo ✓") == "héllo ✓"


@each_transport
@real
async def test_rooms(transport: str, server: ServerProcess) -> None:
    room = str(uuid4())
    async with (
        connected(server, transport) as a,
        connected(server, transport) as b,
        connected(server, transport) as c,
    ):
        lists = [Collected(client, "said") for client in (a, b, c)]
        await ask(a, "join", room)
        await ask(b, "join", room)
        await ask(a, "say", room, "one")
        await lists[1].until(1)
        await ask(b, "leave", room)
        await ask(a, "say", room, "two")
        for client in (a, b, c):
            await ask(client, "echo", "fence")
        assert lists == [[], ["one"], []]


@each_transport
@real
async def test_namespaces(transport: str, server: ServerProcess) -> None:
    async with connected(server, transport, namespaces=["/", "/admin", "/org/7"]) as client:
        assert await ask(client, "echo", "a") == "a"
        assert await ask(client, "echo", "b", namespace="/admin") == "/admin b"
        assert await ask(client, "echo", "c", namespace="/org/7") == "7 c"


@each_transport
@real
async def test_auth(transport: str, server: ServerProcess) -> None:
    async with connected(server, transport, auth={"token": "ada"}) as client:
        assert await ask(client, "who am i") == "ada"


@each_transport
@real
async def test_refusal(transport: str, server: ServerProcess) -> None:
    async with new_client(reconnection=False) as client:
        refused = Collected(client, "connect_error")
        with pytest.raises(socketio.exceptions.ConnectionError):
            await client.connect(server.url, transports=TRANSPORTS[transport], auth={"token": "bad"})
        await refused.until(1)
        assert refused == [{"message": "not authorized", "data": {"code": "E1", "tries": [1, 2]}}]


@each_transport
@real
async def test_binary(transport: str, server: ServerProcess) -> None:
    async with connected(server, transport) as client:
        parcels = Collected(client, "parcel")
        parcel = {"label": "ü", "blob": b"\x00\x01\xff", "more": [b"a", b""]}
        answer = await ask(client, "echo parcel", parcel, b"extra")
        await parcels.until(1)
        assert parcels == [(parcel, b"extra")]
        assert answer == parcel | {"more": [b"a", b"", b"extra"]}


@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")  # aiohttp's, of the client
@each_transport
@real
async def test_large_payloads(transport: str, server: ServerProcess) -> None:
    async with connected(server, transport) as client:
        text = "a" * 500_000
        assert await ask(client, "echo", text) == text
        data = bytes(n % 251 for n in range(500_000))
        assert await ask(client, "echo bytes", data) == data


@each_transport
@real
async def test_order(transport: str, server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    # Over long-polling this client ends a connection that has more than 16 packets for it at a time, whatever the
    # server; its documentation names this remedy.
    monkeypatch.setattr(Payload, "max_decode_packets", 2000)
    async with connected(server, transport) as client:
        for n in range(1000):
            await client.emit("number", n)
        assert await ask(client, "numbers") == list(range(1000))
        counted = Collected(client, "counted")
        await ask(client, "count", 1000)
        await counted.until(1000)
        # The client starts a task for each event; they run in the order in which they were made.
        assert counted == list(range(1000))


@each_transport
@real
async def test_server_calls_client(transport: str, server: ServerProcess) -> None:
    async with connected(server, transport) as client:

        async def answer(question: str) -> str:
            return f"{question}!"

        client.on("question", answer)
        assert await ask(client, "ask me", "well") == "well!"


@each_transport
@real
async def test_broadcast_call(transport: str, server: ServerProcess) -> None:
    room = str(uuid4())
    async with connected(server, transport) as one, connected(server, transport) as two:
        for n, client in enumerate((one, two)):

            async def answer(question: str, n: int = n) -> str:
                return f"{question} {n}"

            client.on("question", answer)
            await ask(client, "join", room)
        assert await ask(one, "ask room", room, "who") == {"answers": ["who 0", "who 1"], "missing": 0}


@each_transport
@real
async def test_client_disconnects(transport: str, server: ServerProcess) -> None:
    name = str(uuid4())
    async with connected(server, transport) as witness, connected(server, transport, auth={"name": name}) as client:
        left = Collected(client, "disconnect")
        await client.disconnect()
        await left.until(1)
        assert left == ["client disconnect"]
        # This client may close its WebSocket before it has written the packet.
        assert (await reasons_of(witness, name))[0] in ("client namespace disconnect", "transport close")


@each_transport
@pytest.mark.parametrize("close", [False, True])
@real
async def test_server_disconnects(close: bool, transport: str, server: ServerProcess) -> None:
    name = str(uuid4())
    async with connected(server, transport) as witness, connected(server, transport, auth={"name": name}) as client:
        left = Collected(client, "disconnect")
        await client.emit("kick", close)
        await left.until(1)
        assert left == ["server disconnect"]
        assert await reasons_of(witness, name) == ["server namespace disconnect"]


@each_transport
@real
async def test_reconnection_after_the_server_was_killed(transport: str) -> None:
    async with (
        in_thread(running_server()) as own,
        new_client(reconnection_delay=0.05, reconnection_delay_max=0.2) as client,
    ):
        left, came = Collected(client, "disconnect"), asyncio.Event()

        async def connected_again() -> None:
            came.set()

        await client.connect(own.url, transports=TRANSPORTS[transport])
        client.on("connect", connected_again)
        await asyncio.to_thread(own.end, signal.SIGKILL)
        await left.until(1)
        assert left[0] in ("transport close", "transport error")
        await asyncio.to_thread(own.start)
        async with asyncio.timeout(PATIENCE):
            await came.wait()
        assert await ask(client, "echo", "again") == "again"


@asynccontextmanager
async def in_thread(context: AbstractContextManager[ServerProcess]) -> AsyncIterator[ServerProcess]:
    """Enter and leave a context manager that blocks."""
    entered = await asyncio.to_thread(context.__enter__)
    try:
        yield entered
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


@real
async def test_messages_during_the_upgrade(server: ServerProcess) -> None:
    """None is lost, none doubled, none out of order: the client upgrades before it connects, the server sends."""
    for _ in range(5):
        async with connected(server, "upgrade") as client:
            streamed: list[int] = []

            async def answer(n: int, streamed: list[int] = streamed) -> int:
                streamed.append(n)
                return n

            client.on("streamed", answer)
            await ask(client, "stream")
            for n in range(50):
                await client.emit("number", n)
            assert await ask(client, "numbers") == list(range(50))
            assert await ask(client, "stream end") == len(streamed)
            assert streamed == list(range(len(streamed)))


@real
async def test_200_connections_at_once(server: ServerProcess) -> None:
    async with AsyncExitStack() as stack:
        clients = await asyncio.gather(*(stack.enter_async_context(connected(server, "websocket")) for _ in range(200)))
        answers = await asyncio.gather(*(ask(client, "echo", str(n)) for n, client in enumerate(clients)))
        assert answers == [str(n) for n in range(200)]
