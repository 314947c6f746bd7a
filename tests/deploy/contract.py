"""What every proxy has to do with its recipe, whoever the client is."""

import asyncio
import json
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import socketio

from bellwire import Client
from tests.chaos.program import Program, program
from tests.chaos.test_stock import LISTENER, NODE
from tests.client.house import Heard
from tests.deploy.application import CLIENT, HEADERS, NOTE, NOTED, WHERE
from tests.deploy.fronts import PATIENCE, Front
from tests.interop.processes import ServerProcess
from tests.interop.test_python_socketio import TRANSPORTS, Collected, ask, new_client

NOTES: Final = 60
"""While a node is taken away; it goes after a third of them."""

ADDRESSES: Final = [f"127.0.0.{last}" for last in range(2, 18)]
"""So many that they lead to both nodes where that depends on them."""

each_transport = pytest.mark.parametrize("transport", TRANSPORTS)


class Own:
    """Bellwire's client, and what it is told."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.heard = Heard()
        self.states = Heard()
        self.resets: list[object] = []
        client.on(NOTED)(self.heard)
        client.on_state(self.states)
        client.on_reset(self.resets.append)

    async def where(self) -> int:
        return await self.client.call(WHERE, timeout=PATIENCE)


@asynccontextmanager
async def own(url: str) -> AsyncIterator[Own]:
    made = Own(Client(url))
    async with made.client:
        yield made


@asynccontextmanager
async def stock(front: Front, modules: Path, transport: str, *, cookies: bool = True) -> AsyncIterator[Program]:
    """An unmodified socket.io-client, connected by this transport. In Node it keeps cookies only if it is told to."""
    options = json.dumps({"transports": TRANSPORTS[transport], "withCredentials": cookies})
    async with program(NODE, LISTENER, front.url, options, environ={"NODE_PATH": str(modules)}) as client:
        last = TRANSPORTS[transport][-1]
        await client.until(lambda: ["transport", last] in client.said, last)
        yield client


@asynccontextmanager
async def python(front: Front, transport: str, address: str = "127.0.0.1") -> AsyncIterator[socketio.AsyncClient]:
    """An unmodified client of python-socketio, connected by this transport."""
    options = {"reconnection_delay": 0.05, "reconnection_delay_max": 0.2}
    async with new_client(front.connector(address), **options) as client:
        await client.connect(front.url, transports=TRANSPORTS[transport], wait_timeout=PATIENCE)
        assert client.transport() == TRANSPORTS[transport][-1]
        yield client
    await turns()


@asynccontextmanager
async def one_on_each(front: Front) -> AsyncIterator[list[Own]]:
    """Bellwire's clients, the first on one node and the last on the other."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(own(front.url))]
        while len({await client.where() for client in clients}) == 1:
            clients.append(await stack.enter_async_context(own(front.url)))
        yield clients


async def turns() -> None:
    """Let connections with TLS end that were aborted; aiohttp does not wait for them."""
    for _ in range(5):
        await asyncio.sleep(0)


async def note_at(node: ServerProcess, number: int) -> None:
    """Let a client of this very node tell everybody, from an address that is not the proxy's."""
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.9", 0), family=socket.AF_INET)
    async with new_client(connector) as client:
        await client.connect(node.url, transports=["websocket"], wait_timeout=PATIENCE)
        assert await ask(client, NOTE.name, number) is True


class ClientContract:
    """What works through every proxy; subclass it where there is a fixture ``front``."""

    cookies = True
    """Whether a client in Node keeps them; browsers do."""

    @each_transport
    async def test_a_client_in_javascript(self, front: Front, node_modules: Path, transport: str) -> None:
        async with stock(front, node_modules, transport, cookies=self.cookies) as client:
            for number, node in enumerate(front.nodes):
                await note_at(node, number)
            client.tell(json.dumps(["note", 2]))
            assert await client.hear("answer", 1) == [["note", True]]
            assert [number for number, *_ in await client.hear("noted", 3)] == [0, 1, 2]
            assert client.of("disconnect") == []

    @each_transport
    async def test_a_client_of_python_socketio(self, front: Front, transport: str) -> None:
        async with python(front, transport) as client:
            heard = Collected(client, "noted")
            for number, node in enumerate(front.nodes):
                await note_at(node, number)
            assert await ask(client, "note", 2) is True
            await heard.until(3)
            assert [number for number, _ in heard] == [0, 1, 2]

    @pytest.mark.parametrize("wire", ["url", "ws"])
    async def test_a_client_of_bellwire(self, front: Front, wire: str) -> None:
        async with own(getattr(front, wire)) as client:
            for number, node in enumerate(front.nodes):
                await note_at(node, number)
            assert await client.client.call(NOTE, 2, timeout=PATIENCE)
            assert await client.heard.count(3) == [0, 1, 2]


class ProxyContract(ClientContract):
    """What a recipe has to do beside."""

    reload: signal.Signals
    """Has the proxy read its file again."""

    def taken_out(self, line: str) -> str:
        """The line of a node to which new clients are not to be led."""
        raise NotImplementedError

    @pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")  # aiohttp's, of the client
    async def test_a_large_message_passes(self, front: Front) -> None:
        async with python(front, "polling") as client:
            text = "a" * 900_000
            assert await ask(client, "echo", text) == text

    async def test_what_is_sent_is_passed_on_at_once(self, front: Front) -> None:
        """A first line, while the response goes on; and a poll, which would else end with a ping after 25 s."""
        async with asyncio.timeout(15):
            context = ssl.create_default_context(cafile=front.authority.pem)
            reader, writer = await asyncio.open_connection("localhost", front.port, ssl=context)
            writer.write(b"GET /lines HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"the first line\n")
            writer.transport.abort()
            async with python(front, "polling") as client:
                heard = Collected(client, "noted")
                await note_at(front.nodes[0], 1)
                await heard.until(1)

    async def test_the_node_is_told_who_the_client_is_and_believes_the_proxy_only(self, front: Front) -> None:
        async with new_client(front.connector()) as client:
            spoofed = {f"X-Forwarded-{name}": "spoofed" for name in ("For", "Proto", "Host")}
            await client.connect(front.url, headers=spoofed, transports=["websocket"], wait_timeout=PATIENCE)
            headers = await ask(client, HEADERS.name)
            assert headers["host"] == headers["x-forwarded-host"] == f"localhost:{front.port}"
            assert headers["x-forwarded-for"] == "127.0.0.1"
            assert headers["x-forwarded-proto"] == "https"
            assert await ask(client, CLIENT.name) == ["https", "127.0.0.1"]

    async def test_pages_of_its_own_origin_connect_and_others_do_not(self, front: Front) -> None:
        query = {"EIO": "4", "transport": "polling"}
        async with aiohttp.ClientSession(front.url, connector=front.connector()) as http:
            for origin, status in ((front.url, 200), ("https://evil.example", 403), (front.nodes[0].url, 403)):
                async with http.get("/socket.io/", params=query, headers={"origin": origin}) as answer:
                    assert answer.status == status

    async def test_plain_http_is_sent_to_tls(self, front: Front) -> None:
        async with (
            aiohttp.ClientSession(f"http://localhost:{front.plain}") as http,
            http.get("/where?x=1", allow_redirects=False) as answer,
        ):
            assert answer.status in (301, 302)
            assert answer.headers["location"].startswith("https://localhost")
            assert answer.headers["location"].endswith("/where?x=1")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    async def test_a_node_is_taken_away_and_comes_back(
        self, front: Front, node_modules: Path, number: signal.Signals
    ) -> None:
        """While everybody is connected and notes flow: Bellwire's clients and recovering stock ones miss nothing."""
        async with AsyncExitStack() as stack:
            writer = await stack.enter_async_context(own(front.url))
            own_ones = [await stack.enter_async_context(own(url)) for url in (front.url, front.ws) * 2]
            # A poll for a node that was killed may be brought to the other one, which needs up to 10 s to miss it: that
            # long wait is left out here.
            transports = TRANSPORTS if number == signal.SIGTERM else ("websocket", "upgrade")
            stocks = [await stack.enter_async_context(stock(front, node_modules, each)) for each in transports]
            guest = await stack.enter_async_context(python(front, "websocket"))
            heard = Collected(guest, "noted")
            victim = front.node(await writer.where())
            places = [await client.where() for client in own_ones]
            assert victim.pid in places

            writing = asyncio.ensure_future(write(writer.client))
            await own_ones[0].heard.count(NOTES // 3)
            said = await asyncio.to_thread(victim.end, number)
            assert "Traceback" not in said, said
            try:
                assert victim.pid not in [await front.where(address) for address in ADDRESSES]
                await writing
                for client in (writer, *own_ones):
                    assert await client.heard.count(NOTES) == [*range(NOTES)]
                    assert client.resets == []
                for client, place in zip(own_ones, places, strict=True):
                    assert ("reconnecting" in client.states.all) is (place == victim.pid)
                for each in stocks:
                    assert [note for note, *_ in await each.hear("noted", NOTES)] == [*range(NOTES)]
                    assert all(recovered for _, recovered in each.of("connect")[1:])
                before = len(heard)
                assert await again(guest, NOTES)
                await heard.until(before + 1)
            finally:
                await asyncio.to_thread(victim.start)
            await self.until_it_is_back(front, victim)

    async def test_a_node_is_taken_out_of_the_file_and_put_back_in(self, front: Front) -> None:
        """The proxy reads it again, and the clients that there are notice nothing."""
        async with own(front.url) as one, own(front.ws) as two:
            node = front.node(await one.where())
            text = await asyncio.to_thread(front.file.read_text)
            (line,) = [line for line in text.splitlines() if node.url.removeprefix("http://") in line]
            await asyncio.to_thread(front.rewrite, text.replace(line, self.taken_out(line)), self.reload)
            async with asyncio.timeout(PATIENCE):
                while node.pid in [await front.where(address) for address in ADDRESSES]:
                    pass
            assert await one.client.call(NOTE, 1, timeout=PATIENCE)
            assert await two.heard.count(1) == [1]
            assert await one.where() == node.pid
            await asyncio.to_thread(front.rewrite, text, self.reload)
            await self.until_it_is_back(front, node)
            assert one.states.all == two.states.all == ["connecting", "connected"]

    async def until_it_is_back(self, front: Front, node: ServerProcess) -> None:
        """Wait until new clients are led to this node."""
        async with asyncio.timeout(PATIENCE):
            while node.pid not in [await front.where(address) for address in ADDRESSES]:
                pass


async def write(client: Client) -> None:
    """One note after the other, as fast as they are accepted."""
    for number in range(NOTES):
        assert await client.call(NOTE, number, timeout=PATIENCE)


async def again(client: socketio.AsyncClient, number: int) -> Any:
    """Ask as soon as the client is connected again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await ask(client, "note", number)
            except (socketio.exceptions.SocketIOError, ValueError):
                await asyncio.sleep(0.02)
