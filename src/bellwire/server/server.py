"""The server: namespaces, authentication, and an ASGI application that can be run, mounted or joined to another."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from typing_extensions import override

from bellwire.brokers.base import Broker
from bellwire.brokers.guest import announce
from bellwire.brokers.urls import make_broker
from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.core.errors import BellwireError, BrokerUnavailable
from bellwire.core.events import Event
from bellwire.delivery.log import limits_of
from bellwire.guard.auth import require_user
from bellwire.ops.readiness import ENDED
from bellwire.protocol.wire import PATH
from bellwire.server.admission import Authenticator
from bellwire.server.callables import check_handler, check_lifespan, no_manager
from bellwire.server.connection import Connection
from bellwire.server.lifespan import serve_lifespan
from bellwire.server.namespace import Namespace
from bellwire.server.nodes import Nodes
from bellwire.server.raw_connection import RawConnection
from bellwire.server.runtime import NOT_RUNNING, Runtime
from bellwire.server.socket import Socket
from bellwire.server.socketio_connection import SocketIOConnection
from bellwire.server.user import UserTarget, serve_users
from bellwire.transports.asgi import handle_http, handle_raw_websocket, handle_websocket
from bellwire.transports.base import Application, Receive, Scope, Send
from bellwire.transports.engine import Engine
from bellwire.transports.raw import RawSession
from bellwire.transports.session import Session

ASGIApplication: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
Lifespan: TypeAlias = Callable[["Server"], AbstractAsyncContextManager[Any]]

logger = logging.getLogger("bellwire.server")


class Server(Application):
    """A Socket.IO server for stock clients of every language.

    It is an ASGI application: ``bellwire run`` serves it on sockets of its own, ``uvicorn module:server`` and every
    other ASGI server as it is, ``app.mount("/", server)`` inside another application.

    Args:
        config: the settings; environment variables ``BELLWIRE_*`` and the flags of ``bellwire run`` go before them.
        auth: ``async (request, payload) -> Identity | None``, called at every CONNECT. Without it all are guests.
        http: an ASGI application (FastAPI, Starlette, Django) that gets the lifespan and every other path.
        lifespan: ``async`` context manager of the server, entered before the first client and left after the last.

    Constructing it touches no event loop, no network and no environment.

    Raises:
        TypeError: an argument is not what it has to be.

    """

    def __init__(
        self,
        *,
        config: Config | None = None,
        auth: Authenticator | None = None,
        http: ASGIApplication | None = None,
        lifespan: Lifespan | None = None,
    ) -> None:
        _check_arguments(config, auth, http, lifespan)
        self.config = config or Config()
        """The settings as given in code; while the server runs, as merged with all others."""
        self.authenticator = auth
        self.http = http
        self.counters = Counters()
        """What was refused, dropped and closed."""
        self.nodes = Nodes()
        """The other processes with the same broker, for messages between servers."""
        self.namespaces: dict[str, Namespace] = {}
        """The registered namespaces by name or pattern."""
        self._given = self.config
        self._toml: Path | None = None
        self._flags: Mapping[str, Any] = {}
        self._given_broker: Broker | None = None
        self._broker: Broker | None = None
        self._lifespan = lifespan
        self._runtime: Runtime | None = None
        self._exit: AsyncExitStack | None = None
        self._ready = False
        self._changing: asyncio.Lock | None = None
        self._changing_on: asyncio.AbstractEventLoop | None = None

    # --- what applications call

    def namespace(self, name: str, *, emits: tuple[Event[Any, *tuple[Any, ...]], ...] = ()) -> Namespace:
        """Register a namespace: ``"/"``, ``"/chat"``, or a pattern such as ``"/org/{org}"``.

        Raises:
            TypeError: ``emits`` are no events.
            ValueError: the name is none, or is registered already, or is a pattern that another one hides.

        """
        if name in self.namespaces:
            raise ValueError(f"{name!r} is registered already: keep the object that namespace() returned")
        return self._add(Namespace(name, emits=emits))

    def include(self, namespace: Namespace) -> None:
        """Register a namespace that was made elsewhere; one of a name that is known becomes a part of that one.

        Raises:
            TypeError: it is no namespace.
            ValueError: an event has a handler in both, or both have an authorizer; or it is a pattern that another one
                hides.

        """
        if not isinstance(namespace, Namespace):
            raise TypeError(
                f"include takes a Namespace, not {type(namespace).__name__}: make it with Namespace('/chat')"
            )
        known = self.namespaces.get(namespace.name)
        if known is None:
            self._add(namespace)
        elif known is not namespace:
            known.extend(namespace)

    def _add(self, namespace: Namespace) -> Namespace:
        for earlier in self.namespaces.values():
            if earlier.hides(namespace):
                raise ValueError(
                    f"{namespace.name!r} is hidden by {earlier.name!r}, which takes all of its names: register the "
                    "narrower pattern first"
                )
        self.namespaces[namespace.name] = namespace
        namespace.bind(self._runtime)
        return namespace

    def user(self, id: str) -> UserTarget:  # noqa: A002 - the contract's word
        """All sockets of a user, in every namespace and on every node. Raises as `Identity` does for a wrong ``id``."""
        require_user(id, "user")
        return UserTarget(self, id)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Run the server inside another application's lifespan: ``FastAPI(lifespan=server.lifespan)``."""
        await self.start()
        try:
            yield
        finally:
            await self.close()

    async def close(self) -> None:
        """End all sessions, and all handlers after ``Config.shutdown_grace``; leave the server's own lifespan.

        Clients come back by themselves, if there is somebody to come back to.
        """
        async with self._lock():
            await self._close()

    async def _close(self) -> None:
        runtime, self._runtime, self._ready = self._runtime, None, False
        exit_stack, self._exit = self._exit, None
        try:
            if runtime is not None and not runtime.loop.is_closed():
                await runtime.close()
        finally:
            self.nodes.bind(None)
            for namespace in self.namespaces.values():
                namespace.bind(None)
            broker, self._broker = self._broker, None
            try:
                if exit_stack is not None:
                    await exit_stack.aclose()
            finally:
                if broker is not None:
                    await broker.close()

    # --- starting

    def configure(
        self, *, toml: Path | None = None, flags: Mapping[str, Any] | None = None, broker: Broker | None = None
    ) -> None:
        """Settings from a file and from flags, to be merged when the server starts.

        ``broker`` goes before the one that ``Config.broker`` names; the server starts and closes either.
        """
        self._toml = toml
        self._flags = flags or {}
        self._given_broker = broker

    async def start(self) -> None:
        """Merge the settings and get ready for clients; nothing happens if that is done.

        Raises:
            ConfigError: a setting is wrong; it names the field, the value and what would be right.
            BrokerUnavailable: the broker does not answer.

        """
        loop = asyncio.get_running_loop()
        if self._ready and self._runtime is not None and self._runtime.loop is loop:
            return
        async with self._lock():
            if self._runtime is not None and self._runtime.loop is not loop:
                await self._abandon(self._runtime.loop)
            if self._runtime is None:
                await self._start()

    def _lock(self) -> asyncio.Lock:
        """Whoever starts or closes the server holds it; a lock belongs to one event loop."""
        loop = asyncio.get_running_loop()
        if self._changing is None or self._changing_on is not loop:
            self._changing, self._changing_on = asyncio.Lock(), loop
        return self._changing

    async def _abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop that the server was started on has ended without a word, as ``asyncio.run`` does to a test."""
        if not loop.is_closed():
            raise BellwireError("the server is running on another event loop: close it there, or make one for each")
        self._exit = self._broker = None  # what they opened belonged to that loop, and ended with it
        await self._close()

    async def _start(self) -> None:
        self.config = Config.load(self._given, toml=self._toml, environ=os.environ, flags=self._flags)
        self._broker = await self._start_broker()
        self._runtime = Runtime(self, self.config, self.counters, self._broker)
        for namespace in self.namespaces.values():
            namespace.bind(self._runtime)
        self.nodes.bind(self._runtime)
        serve_users(self)
        try:
            await self._runtime.start()
            if self._lifespan is not None:
                self._exit = AsyncExitStack()
                await self._exit.enter_async_context(self._managed(self._lifespan))
        except BaseException:
            await self._close()
            raise
        self._ready = True

    async def _start_broker(self) -> Broker:
        config = self.config
        limits = limits_of(config)
        broker = self._given_broker or make_broker(config.broker, limits, self.counters, prefix=config.prefix)
        try:
            await broker.start()
            await announce(broker, limits)
        except BaseException:
            await broker.close()
            raise
        return broker

    def _managed(self, lifespan: Lifespan) -> AbstractAsyncContextManager[Any]:
        manager = lifespan(self)
        if not hasattr(manager, "__aenter__"):
            raise no_manager(lifespan, "Server(lifespan=...)")
        return manager

    @property
    def running(self) -> bool:
        """Whether it has started, and not been closed."""
        return self._runtime is not None

    @property
    def runtime(self) -> Runtime:
        """What it is made of while it runs. Raises :class:`BellwireError` if it does not."""
        if self._runtime is None:
            raise BellwireError(f"the server is not running: {NOT_RUNNING}")
        return self._runtime

    @property
    def engine(self) -> Engine:
        """The sessions, for the transports. Raises as :attr:`runtime` does."""
        return self.runtime.engine

    # --- ASGI

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        kind = scope["type"]
        if kind == "lifespan":
            await serve_lifespan(self, scope, receive, send)
            return
        try:
            await self.start()
        except BrokerUnavailable as error:  # nobody ran its lifespan, which would have told
            logger.warning("the server cannot start: %s", error)
            await _turn_away(scope, receive, send)
            return
        path = relative_path(scope)
        if path == PATH and kind == "websocket":
            await handle_raw_websocket(self.engine, scope, receive, send)
        elif path.startswith(self.config.path):
            handle = handle_http if kind == "http" else handle_websocket
            await handle(self.engine, scope, receive, send)
        elif path == self.config.ready_path and kind == "http":
            await self._tell_readiness(send)
        elif self.http is not None:
            await self.http(self.engine.edge.uncover(scope), receive, send)
        elif kind == "http":
            await _not_found(scope.get("root_path", "").rstrip("/"), self.config.path, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _tell_readiness(self, send: Send) -> None:
        runtime = self._runtime
        verdict = ENDED if runtime is None else await runtime.readiness.look()
        await _say(send, 200 if verdict.ready else 503, f"{verdict.reason}\n")

    # --- as the transports' application

    @override
    def opened(self, session: Session) -> Connection:
        runtime = self._runtime
        if runtime is None:
            raise BellwireError("a session was opened on a server that is not running")
        runtime.heartbeat.watch(session)
        return SocketIOConnection(self, runtime, session)

    def opened_raw(self, session: RawSession) -> Connection:
        """A client of bellwire.v1 connected (`bellwire.transports.base.RawApplication`)."""
        runtime = self._runtime
        if runtime is None:
            raise BellwireError("a session was opened on a server that is not running")
        runtime.heartbeat.watch(session)
        return RawConnection(self, runtime, session)

    def departed(self, connection: Connection) -> None:
        """A session ended."""
        connection.runtime.heartbeat.forget(connection.session)

    def find(self, name: str) -> tuple[Namespace, Mapping[str, str]] | None:
        """The namespace that a client means, and the parameters in its name. Exact names go before patterns."""
        exact = self.namespaces.get(name)
        for namespace in (exact,) if exact is not None else self.namespaces.values():
            params = namespace.match(name)
            if params is not None:
                return namespace, params
        return None

    def log_failure(self, doing: str, socket: Socket, error: BaseException) -> None:
        """Log what an application's code raised while ``doing`` something for ``socket``."""
        self.counters.add("handler_errors_total")
        logger.error("%s %r failed", doing, socket, exc_info=error)


def relative_path(scope: Scope) -> str:
    """The path inside this application: a mount's prefix, ``root_path``, is not part of it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    rest = path.removeprefix(root.rstrip("/"))
    return rest if rest.startswith("/") else path  # some servers leave the prefix out of the path


def _check_arguments(config: object, auth: Any, http: object, lifespan: Any) -> None:
    if config is not None and not isinstance(config, Config):
        raise TypeError(
            f"Server(config=...) takes a Config, not {type(config).__name__}: write Config(ping_interval=20)"
        )
    if auth is not None:
        check_handler(auth, ("request", "payload"), "Server(auth=...)")
    if http is not None and not callable(http):
        raise TypeError(
            f"Server(http=...) takes an ASGI application, not {type(http).__name__}: pass the object itself"
        )
    if lifespan is not None:
        check_lifespan(lifespan, "Server(lifespan=...)")


async def _not_found(root: str, socketio: str, send: Send) -> None:
    text = (
        f"Not Found: Socket.IO is served at {root}{socketio}, WebSockets of bellwire.v1 at {root}{PATH}. "
        "Pages come from an application in Server(http=app).\n"
    )
    await _say(send, 404, text)


async def _turn_away(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for a server that cannot start now."""
    if scope["type"] == "http":
        await _say(send, 503, "the broker does not answer\n")
    else:
        await receive()
        await send({"type": "websocket.close", "code": 1013})


async def _say(send: Send, status: int, text: str) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode(errors="replace")})
