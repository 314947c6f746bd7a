import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import pytest
from fastapi import FastAPI

from bellwire import BellwireError, Config, ConfigError, Disconnected, EventRefused, Server, Socket
from bellwire.brokers.memory import MemoryBroker
from bellwire.core.errors import BrokerUnavailable
from bellwire.server.server import relative_path
from bellwire.testing import connect
from bellwire.testing.clock import advance
from tests.server.house import ASK, SAY
from tests.server.test_lifespan import Host


async def ask(app: Callable[..., Any], path: str, root_path: str = "", **scope: Any) -> list[dict[str, Any]]:
    """What an ASGI application answers to a GET (or another scope)."""
    told: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    full = {"type": "http", "method": "GET", "path": path, "root_path": root_path, "query_string": b"", "headers": []}
    await app(full | scope, receive, send)
    return told


HANDSHAKE = {"query_string": b"EIO=4&transport=polling"}


async def handshakes(app: Callable[..., Any], path: str, root_path: str = "") -> bool:
    start, body = await ask(app, path, root_path, **HANDSHAKE)
    return bool(start["status"] == 200 and body["body"].startswith(b'0{"sid":'))


# --- construction and registration


def test_constructing_a_server_needs_no_loop_and_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BELLWIRE_PING_INTERVAL", "nonsense")
    server = Server()
    server.namespace("/")
    assert not server.running
    with pytest.raises(BellwireError, match=r"not running: it starts with .* lifespan=server.lifespan"):
        server.engine  # noqa: B018


async def _auth(request: object) -> None: ...
def _sync_auth(request: object, payload: object) -> None: ...
async def _lifespan(server: Server) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": {"ping_interval": 20}}, r"Server\(config=...\) takes a Config, not dict"),
        ({"auth": _auth}, r"Server\(auth=...\): handler _auth takes 1 .*2: write async def _auth\(request, payload\)"),
        ({"auth": _sync_auth}, r"Server\(auth=...\) takes an async function: write 'async def _sync_auth'"),
        ({"http": "app:app"}, r"Server\(http=...\) takes an ASGI application, not str"),
        ({"lifespan": _lifespan}, r"write @asynccontextmanager \(of contextlib\) above async def _lifespan\(server\)"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Server(**arguments)


async def test_a_lifespan_that_gives_no_async_manager_says_so_at_the_start() -> None:
    @contextmanager
    def lifespan(server: Server) -> Iterator[None]:
        yield

    server = Server(lifespan=cast("Any", lifespan))
    with pytest.raises(TypeError, match="lifespan gives no async context manager: write @asynccontextmanager"):
        await server.start()
    assert not server.running


def test_only_a_namespace_can_be_included() -> None:
    with pytest.raises(TypeError, match=r"include takes a Namespace, not str: make it with Namespace\('/chat'\)"):
        Server().include(cast("Any", "/chat"))


def test_a_user_is_named_by_text() -> None:
    server = Server()
    for user in (server.user, server.namespace("/").user, server.namespace("/x").to("r").user):
        with pytest.raises(TypeError, match=r"write user\(str\(5\)\)"):
            user(cast("Any", 5))


def test_a_namespace_is_registered_once() -> None:
    server = Server()
    server.namespace("/chat")
    with pytest.raises(ValueError, match="keep the object"):
        server.namespace("/chat")


async def test_a_namespace_may_be_registered_while_the_server_runs() -> None:
    server = Server()
    async with server.lifespan():
        late = server.namespace("/late")
        async with connect(server, "/late") as client:
            await late.emit(SAY, "x")
            assert await client.receive(SAY) == "x"


# --- starting and closing


async def test_it_starts_on_first_use() -> None:
    server = Server()
    assert await handshakes(server, "/socket.io/")
    assert server.running
    await server.close()


async def test_starting_twice_or_at_the_same_time_starts_once() -> None:
    starts = []

    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        starts.append(server)
        await asyncio.sleep(1)
        yield

    server = Server(lifespan=lifespan)
    answers = await asyncio.gather(*(handshakes(server, "/socket.io/") for _ in range(5)))
    assert all(answers)
    assert asyncio.get_running_loop().time() == 1
    await server.start()
    assert len(starts) == 1
    await server.close()


async def test_a_start_that_failed_is_tried_again() -> None:
    attempts = []

    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        attempts.append(1)
        if len(attempts) == 1:
            raise LookupError("not yet")
        yield

    server = Server(lifespan=lifespan)
    with pytest.raises(LookupError):
        await server.start()
    assert not server.running
    await server.start()
    assert server.running
    await server.close()


async def test_closing_ends_the_sessions_and_tells_on_disconnect() -> None:
    server = Server()
    ends = []

    @server.namespace("/").on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        ends.append(reason)
        await socket.emit(SAY, "nobody hears it")
        await server.namespaces["/"].emit(SAY, "nor that")

    await server.start()
    async with connect(server) as client:
        await server.close()
        await server.close()
        assert client.reason is not None
        with pytest.raises(Disconnected):
            await client.emit(SAY, "x")
    assert ends == ["server shutting down"]


async def test_handlers_have_the_grace_to_finish_and_then_their_on_disconnect_runs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(config=Config(shutdown_grace=5))
    root = server.namespace("/")
    order: list[str] = []

    @root.on(SAY)
    async def say(socket: Socket, text: str) -> None:
        try:
            await asyncio.sleep(float(text))
            order.append(text)
        except asyncio.CancelledError:
            order.append(f"{text} cancelled")
            raise

    @root.on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        order.append(reason)

    await server.start()
    async with connect(server) as quick, connect(server) as slow:
        await quick.emit(SAY, "2")
        await slow.emit(SAY, "100")
        await server.close()
    assert asyncio.get_running_loop().time() == 5
    assert order == ["2", "server shutting down", "100 cancelled", "server shutting down"]
    assert caplog.records == []  # nothing failed
    assert server.counters.get("handlers_cancelled_total") == 1


async def test_an_admission_that_the_end_of_the_server_cuts_short_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(config=Config(shutdown_grace=0))

    @server.namespace("/").on_connect
    async def enter(socket: Socket) -> None:
        await asyncio.sleep(100)

    await server.start()
    connecting = asyncio.ensure_future(connect(server, timeout=50).__aenter__())
    await advance(1)
    await server.close()
    with pytest.raises(Disconnected):
        await connecting
    assert caplog.records == []


@pytest.mark.parametrize("pause", [False, True])
async def test_a_handler_may_close_the_server(pause: bool) -> None:
    server = Server()
    done = []

    @server.namespace("/").on(SAY)
    async def say(socket: Socket, text: str) -> None:
        if pause:
            await asyncio.sleep(1)
        await server.close()
        done.append(text)

    await server.start()
    async with connect(server) as client:
        await client.emit(SAY, "x")
        await advance(2)
        assert (done, server.running) == (["x"], False)
        assert client.reason is not None


async def test_it_can_be_started_again_after_it_was_closed() -> None:
    server = Server()
    root = server.namespace("/")
    for _ in range(2):
        async with connect(server) as client:
            await root.emit(SAY, "x")
            assert await client.receive(SAY) == "x"
        assert not server.running


def test_it_can_be_started_again_on_another_loop_that_the_first_was_closed_on_or_not() -> None:
    server = Server()
    root = server.namespace("/")

    async def use(*, close: bool) -> None:
        await asyncio.gather(server.start(), server.start())
        async with connect(server) as client:
            await root.emit(SAY, "x")
            assert await client.receive(SAY) == "x"
        if close:
            await server.close()

    for close in (True, False, True):
        asyncio.run(use(close=close))
    assert not server.running


async def test_it_runs_on_one_loop_at_a_time() -> None:
    server = Server()
    await server.start()
    errors = []

    def elsewhere() -> None:
        try:
            asyncio.run(server.start())
        except BellwireError as error:
            errors.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert "another event loop" in errors[0]
    await server.start()
    assert server.running
    await server.close()


async def test_settings_are_merged_when_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(config=Config(ping_interval=20, pong_timeout=4))
    server.configure(flags={"pong_timeout": "3"})
    monkeypatch.setenv("BELLWIRE_PING_INTERVAL", "21")
    async with server.lifespan():
        assert (server.config.ping_interval, server.config.pong_timeout) == (21, 3)
    server.configure(flags={"pong_timeout": "never"})
    with pytest.raises(ConfigError, match="pong_timeout"):
        await server.start()


# --- its broker


class Away(MemoryBroker):
    """A broker that answers at the second attempt only."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    async def start(self) -> None:
        self.told.append("start")
        if self.told.count("start") == 1:
            raise BrokerUnavailable("away")
        await super().start()

    async def close(self) -> None:
        self.told.append("close")
        await super().close()


async def test_it_runs_once_its_broker_answers_and_closes_it_after_its_lifespan() -> None:
    broker = Away()

    @asynccontextmanager
    async def lifespan(_: Server) -> AsyncIterator[None]:
        broker.told.append("lifespan")
        yield
        broker.told.append("end")

    server = Server(lifespan=lifespan)
    server.configure(broker=broker)
    with pytest.raises(BrokerUnavailable, match="away"):
        await server.start()
    assert not server.running
    async with server.lifespan():
        assert server.running
    assert broker.told == ["start", "close", "start", "lifespan", "end", "close"]


async def test_a_broker_that_there_is_not_is_told_at_the_start() -> None:
    server = Server(config=Config(broker="memcached://secret@host"))
    with pytest.raises(ConfigError, match=r"broker = 'memcached://\*\*\*@host' is none: there are memory://"):
        await server.start()
    assert not server.running


# --- as an ASGI application


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/socket.io/", "", "/socket.io/"),
        ("/realtime/socket.io/", "/realtime", "/socket.io/"),
        ("/realtime/socket.io/", "/realtime/", "/socket.io/"),
        ("/socket.io/", "/realtime", "/socket.io/"),
        ("/realtime/x", "/real", "/realtime/x"),
        ("/x", "/", "/x"),
    ],
)
def test_paths_are_relative_to_the_mount(path: str, root: str, expected: str) -> None:
    assert relative_path({"path": path, "root_path": root}) == expected


async def test_other_paths_are_not_found_without_an_http_application() -> None:
    server = Server()
    start, body = await ask(server, "/other")
    assert start["status"] == 404
    assert body["body"] == (
        b"Not Found: Socket.IO is served at /socket.io/, WebSockets of bellwire.v1 at /bellwire. "
        b"Pages come from an application in Server(http=app).\n"
    )
    assert (b"content-type", b"text/plain; charset=utf-8") in start["headers"]
    assert (b"x-content-type-options", b"nosniff") in start["headers"]
    assert await ask(server, "/other", type="websocket") == [{"type": "websocket.close", "code": 1008}]
    await server.close()


async def test_other_paths_go_to_the_http_application_as_they_came() -> None:
    scopes = []

    async def http(scope: Any, receive: Any, send: Any) -> None:
        scopes.append((scope["type"], scope["path"]))
        await send({"type": "http.response.start", "status": 204, "headers": []})

    server = Server(http=http)
    await ask(server, "/api")
    await ask(server, "/ws", type="websocket")
    assert await handshakes(server, "/socket.io/")
    assert scopes == [("http", "/api"), ("websocket", "/ws")]
    await server.close()


async def test_fastapi_runs_it_in_its_lifespan_and_mounts_it() -> None:
    for prefix in ("", "/realtime"):
        server = Server()
        app = FastAPI(lifespan=server.lifespan)
        app.mount(prefix or "/", server)
        async with app.router.lifespan_context(app):
            assert server.running
            assert await handshakes(app, f"{prefix}/socket.io/")
            start, body = await ask(app, f"{prefix}/nothing")
            assert start["status"] == 404
            assert f"{prefix}/socket.io/, WebSockets of bellwire.v1 at {prefix}/bellwire. ".encode() in body["body"]
        assert not server.running


async def test_fastapi_as_the_http_application_keeps_its_routes_and_its_lifespan() -> None:
    order = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        order.append("in")
        yield
        order.append("out")

    app = FastAPI(lifespan=lifespan)

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    server = Server(http=app)
    host = Host(server)
    await host.start()
    start, body = await ask(server, "/hello")
    assert (start["status"], body["body"]) == (200, b'"hello"')
    assert await handshakes(server, "/socket.io/")
    await host.stop()
    assert (order, host.words) == (["in", "out"], ["startup.complete", "shutdown.complete"])


async def test_what_fails_in_one_handler_is_counted() -> None:
    server = Server()

    @server.namespace("/").on(ASK)
    async def fail(socket: Socket, text: str) -> str:
        raise LookupError

    async with connect(server) as client:
        with pytest.raises(EventRefused):
            await client.call(ASK, "x")
        assert server.counters.get("handler_errors_total") == 1
