"""The files of the how-to guides do what their pages say."""

import asyncio
import importlib
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import aiohttp
import httpx
import pytest
import socketio
from fastapi import FastAPI

from bellwire import PRESENCE_DIFF, PRESENCE_STATE, ConnectRefused, Event, Server, Socket
from bellwire.client.address import parse_url
from bellwire.testing import TestClient, connect
from tests.brokers.redis_server import RedisServer
from tests.docs.pages import ROOT, all_blocks, write_project
from tests.guard.tokens import SECRET, token
from tests.server.servers import SharedBroker
from tests.serving import Served, serve

Guide = Callable[[str], Any]

DEBUGGING = (ROOT / "docs" / "howto" / "debugging.md").read_text()


@pytest.fixture
def guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guide]:
    """Imports a file of the documentation by its name."""
    paths = write_project(tmp_path, [block for block in all_blocks() if block.title is not None])
    monkeypatch.syspath_prepend(tmp_path)
    known: dict[str, ModuleType] = dict(sys.modules)

    def load(name: str) -> Any:
        assert Path(f"{name}.py") in paths
        return importlib.import_module(name)

    yield load
    for name in set(sys.modules) - set(known):
        path = getattr(sys.modules[name], "__file__", None)
        if path is not None and Path(path).is_relative_to(tmp_path):
            del sys.modules[name]


async def heard(client: TestClient, event: Any, n: int) -> list[str]:
    said = [await client.receive(event) for _ in range(n)]
    await client.receive_nothing()
    return said


async def test_who_is_reached(guide: Guide) -> None:
    page = guide("audience")
    async with (
        connect(page.server, "/chat", user="bob") as bob,
        connect(page.server, "/chat", user="ada") as ada,
        connect(page.server, "/chat", user="ada") as other,
    ):
        assert await ada.call(page.JOIN, "red") == 1
        assert await heard(bob, page.NEWS, 1) == ["everyone in /chat"]
        assert await heard(other, page.NEWS, 2) == ["everyone in /chat", "every tab of one user"]
        assert await heard(ada, page.NEWS, 5) == [
            "this socket",
            "everyone in /chat",
            "the room, this socket included",
            "both rooms; who is in both gets it once",
            "every tab of one user",
        ]
        assert await bob.call(page.JOIN, "red") == 2
        assert await heard(ada, page.NEWS, 5) == [
            "everyone in /chat",
            "the room, this socket included",
            "the others in the room",
            "both rooms; who is in both gets it once",
            "every tab of one user",
        ]


async def test_asking_several(guide: Guide) -> None:
    page = guide("poll")
    async with connect(page.server) as yes, connect(page.server) as no, connect(page.server) as silent:
        asked = asyncio.ensure_future(page.ask("lunch?"))
        assert await yes.answer(page.VOTE, True) == "lunch?"
        await no.answer(page.VOTE, False)
        assert await silent.receive(page.VOTE) == "lunch?"
        assert await asked == (1, 1)


async def test_a_namespace_per_customer(guide: Guide) -> None:
    page = guide("tenants")
    async with connect(page.server, "/org/7") as seven, connect(page.server, "/org/8") as eight:
        assert await seven.receive(page.NOTICE) == "welcome to 7"
        assert await eight.receive(page.NOTICE) == "welcome to 8"
        await page.tell(7, "closed today")
        assert await seven.receive(page.NOTICE) == "closed today"
        await eight.receive_nothing()
    with pytest.raises(ConnectRefused, match="no such organisation"):
        async with connect(page.server, "/org/seven"):
            raise AssertionError


async def test_messages_between_processes(guide: Guide) -> None:
    page, other, broker = guide("cache"), Server(), SharedBroker()
    expired: list[str] = []

    @other.nodes.on(page.EXPIRED)
    async def forget(node: str, key: str) -> None:
        expired.append(key)

    @other.nodes.on(page.SIZE)
    async def size(node: str) -> int:
        return 2

    page.cache.update(a="1", b="2")
    for server in (page.server, other):
        server.configure(broker=broker)
    async with page.server.lifespan(), other.lifespan():
        assert await page.expire("a") == 1 + 2
        assert expired == ["a"]
        await other.nodes.emit(page.EXPIRED, "b")
        assert page.cache == {}


async def test_who_is_in_a_room(guide: Guide) -> None:
    page, onlooker = guide("lobby"), guide("onlookers")
    async with connect(page.server, "/chat", user="ada") as ada, connect(page.server, "/chat", user="bob") as bob:
        onlooker.seen(await ada.receive(PRESENCE_STATE))
        await bob.emit(page.MOOD, "excited")
        for _ in range(2):
            onlooker.changed(await ada.receive(PRESENCE_DIFF))
        assert onlooker.lobby.present == {"ada": [{"mood": "calm"}], "bob": [{"mood": "excited"}]}
        assert await page.is_there("bob")
        await bob.disconnect()
        onlooker.changed(await ada.receive(PRESENCE_DIFF))
        assert list(onlooker.lobby.present) == ["ada"]
        assert not await page.is_there("bob")


async def test_a_user_logs_out_everywhere(guide: Guide) -> None:
    page = guide("logout")
    async with connect(page.server, user="ada") as ada, connect(page.server, user="ada") as other:
        await ada.emit(page.LOG_OUT)
        assert await other.closed() == await ada.closed() == "io server disconnect"


async def test_handlers_in_several_files(guide: Guide) -> None:
    page, event = guide("assembled"), guide("presence").AWAY
    async with connect(page.server, "/chat") as client:
        await client.call(event, True)
    assert page.chat.events == (event,)


async def test_binary_data(guide: Guide) -> None:
    page = guide("thumbnails")
    async with connect(page.server) as client:
        assert await client.call(page.THUMBNAIL, page.Picture("cat.png", b"\xff" * 2000)) == b"\xff" * 1000


async def test_a_json_web_token(guide: Guide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_KEY", SECRET)
    page = guide("jwt_auth")
    async with connect(page.server, auth={"token": token(aud="chat", role="member")}) as client:
        assert await client.call(page.WHOAMI) == "ada, member"
    for wrong, code in (({}, "token_missing"), ({"token": token()}, "token_invalid")):
        with pytest.raises(ConnectRefused) as refused:
            async with connect(page.server, auth=wrong):
                raise AssertionError
        assert refused.value.data == {"code": code}


async def test_guests_beside_members(guide: Guide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_KEY", SECRET)
    page = guide("guests")
    root = page.server.namespace("/")
    for auth, user in (({}, None), ({"token": token()}, "ada")):
        async with connect(page.server, auth=auth):
            assert [socket.user for socket in await root.sockets()] == [user]


async def test_a_token(guide: Guide) -> None:
    page = guide("token_auth")
    async with connect(page.server, auth={"token": "6f1c2b"}) as client:
        assert await client.call(page.WHOAMI) == "ada, member"
    for wrong in ({}, {"token": "x"}, {"token": 1}, {"token": "ä"}):
        with pytest.raises(ConnectRefused, match="not authorised") as refused:
            async with connect(page.server, auth=wrong):
                raise AssertionError
        assert refused.value.data == {"code": "bad_token"}


async def test_a_cookie(guide: Guide) -> None:
    page = guide("cookie_auth")
    root = page.server.namespace("/")
    page.SESSIONS["abc"] = "ada"
    async with connect(page.server, headers={"cookie": "theme=dark; session=abc"}):
        assert [socket.user for socket in await root.sockets()] == ["ada"]
    async with connect(page.server, headers={"cookie": "session=abcd"}):
        assert [socket.user for socket in await root.sockets()] == [None]


async def test_members_only(guide: Guide) -> None:
    with pytest.raises(ConnectRefused, match="staff only"):
        async with connect(guide("members_only").server, "/staff", user="ada"):
            raise AssertionError


async def test_the_migrated_handler(guide: Guide) -> None:
    page = guide("migrated")
    async with connect(page.server) as ada, connect(page.server) as bob:
        assert await ada.call(page.GREET, page.Visitor("Ada")) == "Hello, Ada"
        assert await bob.receive(page.ARRIVED) == "Ada"
        await ada.receive_nothing()


@pytest.mark.bellwire(clock="real")
async def test_a_client_in_python(guide: Guide, capsys: pytest.CaptureFixture[str]) -> None:
    events, page, station = guide("weather_events"), guide("weather"), guide("client_weather")
    async with serve(page.server) as url:
        station.client._address = parse_url(url)
        running = asyncio.ensure_future(station.main())
        async with connect(page.server, "/stations", auth={"token": "6f1c2b"}) as other:
            assert await other.receive(events.STORM, timeout=10) == "54.1 N, 7.9 E"
        await page.stations.disconnect()
        await running
    assert capsys.readouterr().out.splitlines() == ["storm at 54.1 N, 7.9 E", "4"]
    with pytest.raises(ConnectRefused, match="unknown station"):
        async with connect(page.server, "/stations"):
            raise AssertionError


@pytest.mark.bellwire(clock="real")
async def test_each_event_exactly_once(guide: Guide, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    events, page, customer = guide("order_events"), guide("orders"), guide("client_orders")
    page.DATABASE = tmp_path / page.DATABASE
    async with serve(page.server) as url:
        customer.client._address, customer.client._outbox = parse_url(url), tmp_path / customer.client._outbox
        async with connect(page.server, "/shop") as other:
            await customer.main()
            assert await other.receive(events.ORDER_PLACED, timeout=10) == 1
            assert await other.call(events.ORDER_PLACE, "coffee", timeout=10) == 2
            assert await other.receive(events.ORDER_PLACED, timeout=10) == 2
            await other.emit(events.CHAT_SEND, "thanks")
            assert await other.receive(events.CHAT_SAID, timeout=10) == "thanks"
    assert capsys.readouterr().out == "order 1\n"
    for _ in range(2):  # as when the handler runs again
        assert await asyncio.to_thread(page.write, "cake", "00112233445566778899aabbccddeeff", 7) == 3


async def test_who_recovers_is_in_its_room(guide: Guide) -> None:
    page = guide("bulletin")
    async with connect(page.server) as client:
        await client.call(page.POST, "hello")
        assert await client.receive(page.POSTED) == "hello"
        assert await client.call(page.BOARD) == ["hello"]


# --- beside FastAPI, on real sockets


@asynccontextmanager
async def stock(url: str, path: str = "socket.io") -> AsyncIterator[socketio.AsyncSimpleClient]:
    async with socketio.AsyncSimpleClient() as client:
        await client.connect(url, socketio_path=path)
        yield client


async def fetch(method: str, url: str) -> Any:
    async with aiohttp.ClientSession() as http, http.request(method, url) as response:
        assert response.status == 200
        return await response.json()


@pytest.mark.bellwire(clock="real")
async def test_bellwire_in_front(guide: Guide) -> None:
    page = guide("shop_front")

    async def joined(socket: Socket) -> None:
        await socket.join("order:7")

    page.root.on_connect(joined)
    async with serve(page.server) as url, stock(url) as client:
        assert await fetch("POST", f"{url}/orders/7/ship") == {"shipped": True}
        assert await client.receive(timeout=10) == ["order:shipped", 7]


@pytest.mark.bellwire(clock="real")
async def test_bellwire_mounted(guide: Guide) -> None:
    page = guide("shop_mounted")
    async with serve(cast("Served", page.app), native=False) as url:
        assert page.server.running
        assert await fetch("GET", f"{url}/health") == {"ok": True}
        async with stock(url) as client:
            assert await client.call("ping:me", timeout=10) in ("websocket", "polling")
    assert not page.server.running


@pytest.mark.bellwire(clock="real")
async def test_bellwire_mounted_under_a_prefix(guide: Guide) -> None:
    page = guide("shop_mounted")
    app = FastAPI(lifespan=page.server.lifespan)
    app.mount("/realtime", page.server)
    async with serve(cast("Served", app), native=False) as url, stock(url, "realtime/socket.io") as client:
        assert await client.call("ping:me", timeout=10) in ("websocket", "polling")


async def test_pydantic_at_the_edge(guide: Guide) -> None:
    page = guide("shop_models")
    transport = httpx.ASGITransport(page.app)
    async with connect(page.server) as client, httpx.AsyncClient(transport=transport, base_url="http://shop") as http:
        response = await http.post("/orders", json={"id": 7, "customer": "Ada"})
        assert response.json() == {"id": 7, "customer": "Ada"}
        assert await client.receive(page.ORDER_PLACED) == page.Placed(7, "Ada")
        await client.call(page.ORDER_PLACE, page.Placed(8, "Grace"))
    assert list(page.orders.values()) == [page.Order(id=7, customer="Ada"), page.Order(id=8, customer="Grace")]
    with pytest.raises(TypeError, match=r"Order.*cannot travel"):
        Event("order:placed", page.Order)


@pytest.mark.bellwire(clock="real")
async def test_both_lifespans(guide: Guide) -> None:
    page = guide("shop_lifespan")
    async with serve(cast("Served", page.app), native=False):
        assert page.server.running
    assert not page.server.running


@pytest.mark.bellwire(clock="real")
@pytest.mark.parametrize(
    ("namespace", "path", "said"),
    [
        ("/chta", "socket.io", "One or more namespaces failed to connect: /chta"),
        ("/", "realtime", "Unexpected status code 404"),
    ],
)
async def test_what_a_client_says_that_does_not_connect(guide: Guide, namespace: str, path: str, said: str) -> None:
    refusals: list[Any] = []
    client = socketio.AsyncClient(reconnection=False)
    client.on("connect_error", refusals.append, namespace=namespace)
    async with serve(guide("shop_front").server) as url:
        with pytest.raises(socketio.exceptions.ConnectionError, match=said):
            await client.connect(url, namespaces=[namespace], socketio_path=path)
        await client.disconnect()
    assert said in DEBUGGING
    assert "`Invalid namespace`" in DEBUGGING
    if path == "socket.io":
        assert refusals == [{"message": "Invalid namespace"}]


@pytest.mark.bellwire(clock="real")
async def test_emitting_from_a_task(guide: Guide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    redis = await asyncio.to_thread(RedisServer, tmp_path)
    monkeypatch.setenv("BELLWIRE_BROKER", redis.url)
    server, tasks, event = Server(), guide("invoice_tasks"), guide("invoice_events").INVOICE_READY
    server.namespace("/billing")
    try:
        async with server.lifespan(), connect(server, "/billing", user="u") as client:
            for invoice in ("7", "7", "8"):  # a task may run again
                await asyncio.to_thread(tasks.invoice_is_ready, invoice, "u")
            assert [await client.receive(event, timeout=20) for _ in range(2)] == ["7", "8"]
            await asyncio.to_thread(tasks.emitter.close)
    finally:
        redis.kill()


def test_the_guides_are_all_tried() -> None:
    tried = set(re.findall(r'guide\("(\w+)"\)', Path(__file__).read_text())) | {"lights"}
    titles = {block.title for block in all_blocks() if block.page.parent.name == "howto" and block.language == "python"}
    assert {Path(title).stem for title in titles if title and not title.startswith("test_")} == tried
