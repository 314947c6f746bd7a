import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bellwire import Server, Socket
from bellwire.testing import connect
from bellwire.testing.clock import advance


class Host:
    """An ASGI server's side of the lifespan."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self._inbox: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self.told: list[dict[str, Any]] = []
        self._app = app
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.task = asyncio.ensure_future(self._app({"type": "lifespan", "asgi": {}}, self._inbox.get, self._hear))
        self._inbox.put_nowait({"type": "lifespan.startup"})
        await advance()

    async def stop(self) -> None:
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        await advance(60)

    async def _hear(self, message: dict[str, Any]) -> None:
        self.told.append(message)

    @property
    def words(self) -> list[str]:
        return [message["type"].removeprefix("lifespan.") for message in self.told]

    async def error(self) -> BaseException | None:
        assert self.task is not None
        (result,) = await asyncio.gather(self.task, return_exceptions=True)
        return result


async def test_the_server_runs_between_startup_and_shutdown() -> None:
    server = Server()
    host = Host(server)
    await host.start()
    assert (host.words, server.running) == (["startup.complete"], True)
    await host.stop()
    assert (host.words, server.running) == (["startup.complete", "shutdown.complete"], False)
    assert await host.error() is None


async def test_the_servers_own_lifespan_is_around_the_clients() -> None:
    order = []

    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        order.append("enter")
        yield
        order.append("leave")

    server = Server(lifespan=lifespan)
    root = server.namespace("/")

    @root.on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        await asyncio.sleep(1)
        order.append(reason)

    host = Host(server)
    await host.start()
    async with connect(server) as client:
        await host.stop()
        assert client.reason is not None
    assert order == ["enter", "server shutting down", "leave"]
    assert host.words == ["startup.complete", "shutdown.complete"]


async def test_the_end_is_told_when_all_has_ended_and_not_before() -> None:
    """An ASGI server stops the event loop once it hears of it."""
    told: list[str] = []
    host: Host

    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        yield
        await asyncio.sleep(1)
        told.extend(host.words)

    async def http(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    for server in (Server(lifespan=lifespan), Server(lifespan=lifespan, http=http)):
        told.clear()
        host = Host(server)
        await host.start()
        await host.stop()
        assert told == ["startup.complete"]
        assert host.words == ["startup.complete", "shutdown.complete"]


async def test_a_failing_lifespan_is_told_and_nothing_runs() -> None:
    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        raise LookupError("no database")
        yield

    server = Server(lifespan=lifespan)
    host = Host(server)
    await host.start()
    assert host.told == [{"type": "lifespan.startup.failed", "message": "LookupError: no database"}]
    assert isinstance(await host.error(), LookupError)
    assert not server.running


async def test_a_wrong_setting_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BELLWIRE_PING_INTERVAL", "soon")
    host = Host(Server())
    await host.start()
    (message,) = host.told
    assert message["type"] == "lifespan.startup.failed"
    assert "ping_interval = 'soon'" in message["message"]
    assert await host.error() is not None


async def test_a_failing_end_is_told() -> None:
    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        yield
        raise LookupError("no way out")

    server = Server(lifespan=lifespan)
    host = Host(server)
    await host.start()
    await host.stop()
    assert host.words == ["startup.complete", "shutdown.failed"]
    assert isinstance(await host.error(), LookupError)
    assert not server.running


# --- with an HTTP application beside it


async def test_the_http_applications_lifespan_is_inside_the_servers() -> None:
    order = []

    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        order.append("server in")
        yield
        order.append("server out")

    async def http(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        assert (await receive())["type"] == "lifespan.startup"
        order.append("http in")
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        order.append("http out")
        await send({"type": "lifespan.shutdown.complete"})

    host = Host(Server(lifespan=lifespan, http=http))
    await host.start()
    await host.stop()
    assert order == ["server in", "http in", "http out", "server out"]
    assert host.words == ["startup.complete", "shutdown.complete"]


async def test_an_http_application_whose_startup_fails_stops_the_server() -> None:
    async def http(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    server = Server(http=http)
    host = Host(server)
    await host.start()
    assert host.words == ["startup.failed"]
    assert await host.error() is None
    assert not server.running


async def _raises(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError(scope["type"])


async def _raises_late(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise KeyError("path")


async def _returns(scope: Any, receive: Any, send: Any) -> None: ...


async def _returns_early(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})


@pytest.mark.parametrize("http", [_raises, _raises_late, _returns, _returns_early])
async def test_an_http_application_without_a_whole_lifespan_is_served_all_the_same(http: Any) -> None:
    server = Server(http=http)
    host = Host(server)
    await host.start()
    assert (host.words, server.running) == (["startup.complete"], True)
    await host.stop()
    assert host.words == ["startup.complete", "shutdown.complete"]
    assert await host.error() is None
