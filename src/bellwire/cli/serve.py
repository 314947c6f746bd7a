"""Serving in this process: uvicorn for the sockets and the HTTP of others, the native transports for our own.

What a signal means depends on how far the server is (SIGINT is Ctrl+C, SIGTERM what supervisors send)::

    signal      starting            running             stopping
    SIGINT      give up, leave      stop                leave at once
    SIGTERM     give up, leave      stop                go on stopping
    SIGHUP      with a certificate, read it again; without, it is a terminal that was closed: as SIGTERM

Starting: the address is taken, the broker is waited for, the application's lifespan begins, the address is listened on.
Stopping: nobody is let in any more, every session is told to come back later (close code 1012, "service restart", of
the registry that RFC 6455 §11.7 began), pending requests are answered, the application's lifespan ends, and then the
broker.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final, Protocol, cast

import click
import uvicorn

from bellwire.cli.binding import bind, check_exposure, refused, url_of
from bellwire.cli.broker import BrokerError, BrokerKeeper, Private, check_data, private_nats, shared_by_workers
from bellwire.cli.certificate import Certificate, CertificateError, certificate_of
from bellwire.cli.collector import rare_collections
from bellwire.cli.logs import set_up_logging
from bellwire.cli.settings import merge
from bellwire.cli.tracebacks import format_user_traceback
from bellwire.core import open_files
from bellwire.core.config import Config
from bellwire.core.errors import BellwireError
from bellwire.server.server import Server
from bellwire.transports.base import CLOSE_TIMEOUT, ASGIMessage, Receive, Scope, Send
from bellwire.transports.first_read import native_http
from bellwire.transports.native_upgrade import native_websockets

logger = logging.getLogger("bellwire.server")

SERVICE_RESTART: Final = 1012
FORCED: Final = 130
"""The exit code of a program that SIGINT ended: 128 and the signal's number, as shells have it."""


class Supervisor(Private, Protocol):
    """What has started this process as one of several; it keeps their private nats-server, if they need one."""

    @property
    def worker(self) -> str:
        """The name of this process, for people."""
        ...


class LifespanError(click.ClickException):
    """The application failed to start, or to end; ``details`` has the lines of its traceback that are its own."""

    exit_code = 3

    def __init__(self, details: str, *, started: bool) -> None:
        super().__init__(f"the application failed {'at its end' if started else 'to start'}, see above")
        self.details = details

    def show(self, file: IO[Any] | None = None) -> None:
        """Print to ``file``, standard error by default."""
        click.echo(self.details, file=file, err=file is None)
        super().show(file)


def serve(
    server: Server,
    *,
    host: str,
    port: int,
    toml: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    data: Path | None = None,
    log_level: str = "info",
    supervisor: Supervisor | None = None,
    ready: Callable[[str], None],
) -> None:
    """Serve until a signal comes; ``ready`` is called with the address once it is listened on.

    ``data`` is the directory of a private nats-server, which then is the broker. ``log_level`` is that of Bellwire's
    own records, unless the application has set logging up by itself. With a ``supervisor`` this process is one of
    several on the address.

    Raises:
        SettingsError: a setting is wrong, or ``data`` is not the only one to say where the broker is.
        CertificateError: the certificate cannot be used.
        BindError: the address cannot be had.
        ExposedError: other machines could reach it without TLS.
        BrokerError: the data directory cannot be had, or its nats-server does not start.
        LifespanError: the application failed to start, or to end.
        click.exceptions.Exit: a second SIGINT cut the shutdown short.

    """
    open_files.raise_limit()
    name = "" if supervisor is None else supervisor.worker
    settings = merge(server.config, toml, flags or {})
    private = _private(server, toml, flags or {}, data, supervisor)
    keeper = BrokerKeeper(
        settings, private, server.counters, tell=lambda line: click.echo(f"{name and name + ': '}{line}", err=True)
    )
    server.configure(toml=toml, flags=flags, broker=keeper.broker)
    set_up_logging(log_level, worker=name)
    certificate = certificate_of(settings)
    sockets = bind(host, port, shared=supervisor is not None)
    application = _Application(server)
    url = url_of(host, sockets[0], tls=certificate is not None)
    runner = _Runner(application, settings, keeper, certificate, ready=lambda: ready(url))
    try:
        check_exposure(host, sockets, settings)
        runner.run(sockets)
    finally:
        for bound in sockets:
            bound.close()
    if runner.failure is not None:
        raise BrokerError(runner.failure)
    if runner.refusal is not None:
        raise refused(host, port, runner.refusal)
    if application.details is not None and not runner.given_up:
        raise LifespanError(application.details, started=application.started)
    if runner.force_exit:
        raise click.exceptions.Exit(FORCED)


def _private(
    server: Server, toml: Path | None, flags: Mapping[str, Any], data: Path | None, supervisor: Supervisor | None
) -> Private | None:
    """The nats-server that is the broker, if the settings name none: of a directory, or of several workers."""
    if data is not None:
        check_data(server.config, toml, flags)
        return supervisor or private_nats(data, server.counters)
    if supervisor is not None and not shared_by_workers(server.config, toml, flags):
        return supervisor
    return None


class _Application:
    """The server as uvicorn calls it; what goes wrong in its lifespan is kept, to be told once and by us."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.started = False
        self.details: str | None = None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "lifespan":
            return self._lifespan(scope, receive, send)
        return self.server(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: ASGIMessage) -> None:
            if message["type"] == "lifespan.startup.complete":
                self.started = True
            elif message["type"].endswith(".failed"):
                self.details = message.get("message", "")
                message = {"type": message["type"]}
            await send(message)

        try:
            await self.server(scope, receive, send_on)
        except Exception as error:
            if self.started and self.details is None:
                await send_on({"type": "lifespan.shutdown.failed"})  # uvicorn would log the traceback itself
            self.details = format_user_traceback(error)
            raise


class _Runner(uvicorn.Server):
    """uvicorn's server, with our signals, our words and our sessions' end."""

    def __init__(
        self,
        application: _Application,
        settings: Config,
        keeper: BrokerKeeper,
        certificate: Certificate | None,
        *,
        ready: Callable[[], None],
    ) -> None:
        engine = lambda: application.server.engine  # noqa: E731
        super().__init__(
            uvicorn.Config(
                application,
                interface="asgi3",
                lifespan="on",
                ws=cast("Any", native_websockets(engine)),
                http=cast("Any", native_http(engine)),
                log_config=None,
                log_level="critical",  # until it has started: what fails before is told by serve()
                access_log=False,
                server_header=False,
                proxy_headers=False,  # whom to believe is for Config.behind_proxy to say
                timeout_graceful_shutdown=cast("int", settings.shutdown_grace),
            )
        )
        self.refusal: OSError | None = None
        """Why the address could not be listened on after all: somebody was quicker."""
        self.failure: BellwireError | None = None
        """Why there is no broker."""
        self.given_up = False
        """Whether a signal came before it had started."""
        self._server = application.server
        self._keeper = keeper
        self._certificate = certificate
        self._handshake_timeout = settings.head_timeout
        self._ready = ready
        self._starting: asyncio.Task[Any] | None = None
        self._ending: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the broker, run the lifespan's start, listen, and say so."""
        self._starting = asyncio.current_task()
        if sys.platform != "win32":
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)
        try:
            await self._keeper.start()
            await super().startup([])
            self.started = False
            await self._listen(sockets or ())
            self.started = True
        except BellwireError as error:
            self.failure = error
            self.should_exit = True
        except SystemExit:
            self.should_exit = True
        except OSError as error:
            self.refusal = error
            self.should_exit = True
            await self.lifespan.shutdown()
        except asyncio.CancelledError:
            if not self.should_exit:
                raise
            self.given_up = True
        finally:
            self._starting = None
        if self.started:
            logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it warns of each request that is none
            self._ready()
        else:
            await self._end_broker()

    async def _listen(self, sockets: Iterable[socket.socket]) -> None:
        """Listen as uvicorn would, with TLS that nobody can keep waiting: it leaves a handshake a minute."""
        loop, tls = asyncio.get_running_loop(), {}
        if self._certificate is not None:
            tls = {
                "ssl": self._certificate.context,
                "ssl_handshake_timeout": self._handshake_timeout,
                "ssl_shutdown_timeout": CLOSE_TIMEOUT,
            }
        for bound in sockets:
            self.servers.append(
                await loop.create_server(self._protocol, sock=bound, backlog=self.config.backlog, **cast("Any", tls))
            )

    def _protocol(self) -> asyncio.Protocol:
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def main_loop(self) -> None:
        """Serve until a signal comes."""
        with rare_collections():
            await super().main_loop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the sessions, wait at most ``shutdown_grace`` for the requests, end the lifespan and then the broker."""
        for listener in self.servers:
            listener.close()
        if self._server.running:
            await self._server.engine.close(SERVICE_RESTART)
        await super().shutdown(sockets)
        await self._end_broker()

    async def _end_broker(self) -> None:
        """Close the broker, unless and until a second SIGINT comes; a private nats-server dies with this process."""
        if self.force_exit:
            return
        self._ending = asyncio.create_task(self._keeper.close(), name="bellwire: end of the broker")
        await asyncio.wait((self._ending,))
        if not self._ending.cancelled():
            self._ending.result()

    def _hang_up(self) -> None:
        """Act on SIGHUP; see the table above."""
        if self._certificate is None:
            self.handle_exit(signal.SIGTERM, None)
            return
        try:
            self._certificate.reload()
        except CertificateError as error:
            logger.error("the certificate could not be read again, the one before stays: %s", error.message)
        else:
            logger.info("the certificate was read again, for the connections that come from now on")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Act on a signal; see the table above. Unlike uvicorn's it is not raised again: the exit code is 0."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
        given_up = self._starting or (self._ending if self.force_exit else None)
        if given_up is not None:
            given_up.get_loop().call_soon_threadsafe(given_up.cancel)
