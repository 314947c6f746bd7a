"""The client that applications use."""

import asyncio
import logging
import math
import os
import secrets
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar, TypeVarTuple, overload

from typing_extensions import override

from bellwire.client.address import parse_url
from bellwire.client.backoff import Backoff
from bellwire.client.codec import Codec, RawCodec, SocketIOCodec, check_payload
from bellwire.client.credentials import Auth, Credentials, Payload
from bellwire.client.downstream import Downstream
from bellwire.client.journal import Journal, MemoryJournal, open_journal
from bellwire.client.link import Answered, Link, News, Received, Settled, Welcome
from bellwire.client.messages import Messages
from bellwire.client.program import Program
from bellwire.client.raw_link import RawLink
from bellwire.client.reports import DeadLetter, Failed, Reset
from bellwire.client.session import EJECTED, Owner, Session, State
from bellwire.client.socketio_link import SocketIOLink
from bellwire.client.upstream import Upstream
from bellwire.client.wire import Listener, Wire, open_wire
from bellwire.core.counters import Counters
from bellwire.core.errors import Disconnected
from bellwire.core.events import Event
from bellwire.protocol import wire as v1
from bellwire.protocol.embedding import VERSION, Hello

R = TypeVar("R")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
Ts = TypeVarTuple("Ts")
StateHandler = TypeVar("StateHandler", bound=Callable[[State], object])
ResetHandler = TypeVar("ResetHandler", bound=Callable[[Reset], object])
LetterHandler = TypeVar("LetterHandler", bound=Callable[[DeadLetter], object])
FailedHandler = TypeVar("FailedHandler", bound=Callable[[Failed], object])

logger = logging.getLogger("bellwire.client")

CLOSING_SECONDS: Final = 5.0
"""How long a client that leaves waits for the outcomes of what it has emitted."""


class _Streams(NamedTuple):
    """What a client has from its entry on."""

    journal: Journal
    up: Upstream
    down: Downstream


class Client(Owner):
    """A connection to one namespace of a server, made again whenever it breaks.

    ``url`` says what is spoken: ``http://host:port`` or ``https://host:port`` is Socket.IO, ``ws://host:port/bellwire``
    or ``wss://host:port/bellwire`` bellwire.v1. Without a path it is that of the server's endpoint, ``/socket.io/`` or
    ``/bellwire``. ``auth`` is what the server's authentication is shown, or a function, plain or
    async, that returns it for each connection: a token that has not expired. One that raises something is called again
    for the next attempt. Use the client as
    ``async with Client(url) as client``: entering waits until it is connected.

    With a Bellwire server, on both wires, every event that is not volatile arrives once and in order, or the handlers
    of `on_reset` are told before anything newer arrives. What is emitted takes effect at most once, and is sent until
    the server has said what became of it. Until then it lies in the outbox: in memory, or in the file that ``outbox``
    names, which outlives the program. A file belongs to one client at a time, to one namespace and one user; it holds
    secrets, is readable for its owner only, and is synchronised with the disk before ``emit`` returns. The next program
    that opens it sends what is left, and goes on behind the last event that this one has handled.

    With another Socket.IO server delivery is Socket.IO's: at most once, and in order for as long as a connection lasts.
    What was on its way when a connection broke may be lost, and so is what the server sent meanwhile.

    Raises:
        TypeError: ``auth`` is neither a mapping nor a function, or cannot be sent as JSON.
        ValueError: ``url`` is no address of a server, or ``namespace`` no name of a namespace; ``auth`` has the key
            ``bellwire``, which is Bellwire's own.

    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "/",
        auth: Auth = None,
        outbox: str | os.PathLike[str] | None = None,
    ) -> None:
        if not namespace.startswith("/") or "," in namespace or "?" in namespace:
            raise ValueError(f"{namespace!r} is no namespace: it begins with '/' and has no ',' or '?', like '/chat'")
        self.counters = Counters()
        """What was dropped or refused, by reason."""
        self._address = parse_url(url)
        self._context = ssl.create_default_context() if self._address.secure else None
        self._namespace = namespace
        self._credentials = Credentials(auth)
        self._outbox = outbox
        self._instance = secrets.token_urlsafe(16)
        self._attempts = 0  # connections on which a session was asked for
        self._session = Session(self, self._connect, Backoff())
        self._program = Program(f"{self._address.authority}{namespace}", self._session, self.counters)
        self._entered: _Streams | None = None
        self._reason = ""
        self._leaving = False

    def __repr__(self) -> str:
        return f"Client({self._address.authority!r}, {self._namespace!r}, {self.state!r})"

    # --- being connected

    async def __aenter__(self) -> Self:
        """Open the outbox and connect, however often that takes.

        Raises:
            BellwireError: the outbox's file is none, or holds events for another namespace or another wire.
            ConnectRefused: the server refused this client.
            OSError: the outbox's file cannot be read or written.
            OutboxInUse: another client has it.
            RuntimeError: the client was entered before.

        """
        if self._entered is not None or self._leaving:
            raise RuntimeError("a Client is entered once: make another one to connect again")
        try:
            await self._enter()
            self._session.start()
            await self._session.ready()
            if self.state == "disconnected":
                raise Disconnected(self._reason)
        except BaseException:
            await self._leave(flush=False, stay=self._outbox is not None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave(flush=error is None or isinstance(error, Exception), stay=self._outbox is not None)

    async def disconnect(self) -> None:
        """Leave the server, and stay away; the end of the ``async with`` block does nearly the same.

        What was emitted has up to five seconds to get its outcome, if the client is connected. A handler that is under
        way is cancelled, unless it is the one that calls this, and the events that wait for one are dropped; then the
        handlers of `on_state` are told. The session is over, and nothing can be missed from here on. At the end of the
        block of a client whose outbox is a file it is not: the next program resumes it, for as long as the server keeps
        it, and is handed what was not handled.
        """
        await self._leave(flush=True, stay=False)

    async def _enter(self) -> None:
        journal: Journal = MemoryJournal() if self._outbox is None else await open_journal(self._outbox)
        raw = self._address.raw
        codec: Codec = RawCodec(self._namespace, v1.MSGPACK) if raw else SocketIOCodec(self._namespace)
        try:
            up = Upstream(journal, codec, self.counters, self._program.failed)
            self._entered = _Streams(journal, up, Downstream(journal, codec, self._program))
        except BaseException:
            await journal.close()
            raise

    async def _leave(self, *, flush: bool, stay: bool) -> None:
        """End; ``stay`` leaves the session to the program that comes after this one."""
        entered = self._entered
        if not self._leaving:
            self._leaving = True
            self._program.leave(0 if entered is None else entered.down.waiting, stay=stay)
        if entered is None:
            return
        if flush and self.state == "connected":
            await self._flush(entered.up)
        if not stay:
            entered.down.forget()
        await self._session.close(leave=not stay)
        await self._program.turns.settled()
        await entered.up.close()
        await entered.journal.close()

    async def _flush(self, up: Upstream) -> None:
        try:
            async with asyncio.timeout(CLOSING_SECONDS):
                await up.emptied()
        except TimeoutError:
            logger.warning("%r leaves without the outcome of all that was emitted", self)

    @property
    def state(self) -> State:
        """``connecting`` until the first connection, ``connected``, ``reconnecting``, and ``disconnected`` for good."""
        return self._session.state

    @property
    def id(self) -> str | None:
        """The socket's id on the server, None while there is no connection; each connection has another."""
        return self._session.id

    def on_state(self, handler: StateHandler) -> StateHandler:
        """Call ``handler(state)``, plain or async, at every change of `state`.

        It has its turn among the handlers of events: behind those of the connection before, ahead of those of the next.
        """
        self._program.on_state(handler)
        return handler

    # --- to the server

    def on_reset(self, handler: ResetHandler) -> ResetHandler:
        """Call ``handler(Reset(room, reason))``, plain or async, when events of a stream may be missing.

        It has finished before anything newer of that stream is handed over.
        """
        self._program.on_reset(handler)
        return handler

    def on_dead_letter(self, handler: LetterHandler) -> LetterHandler:
        """Call ``handler(DeadLetter(event, payload, error))``, plain or async, for an event that cannot be handled.

        That is one whose handler raised something three times. The next event comes after it.
        """
        self._program.on_dead_letter(handler)
        return handler

    def on_failed(self, handler: FailedHandler) -> FailedHandler:
        """Call ``handler(Failed(event, error))``, plain or async, when an event that was emitted came to nothing.

        The server refused it, or it is unknown whether it was handled. Of a ``call`` its caller is told.
        """
        self._program.on_failed(handler)
        return handler

    # --- to the server

    async def emit(self, event: Event[Any, *Ts], /, *payload: *Ts) -> None:
        """Send ``event``, behind all that was emitted before.

        Returns when it is in the outbox; waits while too much is there: 1,024 events or 1 MiB, in a file 16,384 or 16
        MiB. If it is cancelled, the event may be sent nevertheless. What becomes of it is told to the handlers of
        `on_failed`, if it is not handled. A volatile event does not go there: it is written at once, or dropped and
        counted.

        Raises:
            Disconnected: the client has disconnected, or does before there is room; if the server refused it when it
                came back, the ConnectRefused is the error's ``__cause__``.
            MessageTooLarge: the server does not take so much.
            OSError: the outbox's file cannot be written; the event is not sent.
            TypeError: the payload is not what the event declares.
            ValueError: it cannot be encoded, or is nested more than 32 levels deep.

        """
        check_payload(event, payload, "emit")
        up = self._opened()
        if not event.volatile:
            await up.emit(event, payload)
        elif not up.cast(event, payload):
            reason = "buffer_full" if self.state == "connected" else "disconnected"
            self.counters.dropped("volatile", reason=reason, policy="oldest_kept")

    async def call(self, event: Event[R, *Ts], /, *payload: *Ts, timeout: float) -> R:  # noqa: ASYNC109
        """Send ``event`` and return the reply of the server's handler, at most ``timeout`` seconds later.

        Connections may break meanwhile, if the server knows how to go on. What is not sent within the time never is.

        Raises:
            CallTimeout: it could not be sent in time; it has had no effect and will have none.
            Disconnected: the client has disconnected; or the connection broke after the event was sent to a server that
                is none of Bellwire's.
            EventRefused: the server refused the event, or answered with something that is no reply of it.
            MessageTooLarge: the server does not take so much.
            OSError: the outbox's file cannot be written; the event is not sent.
            OutcomeUnknown: it was sent, and there was no reply in time, or the server does not know what became of it:
                it may have been handled, and will not be sent again.
            TypeError: the payload is not what the event declares.
            ValueError: ``timeout`` is negative or not finite; or the payload as for ``emit``.

        """
        if not 0 <= timeout < math.inf:
            raise ValueError(f"timeout is {timeout!r}: give a finite number of seconds from 0 on")
        check_payload(event, payload, "call")
        return await self._opened().call(event, payload, timeout)

    def _opened(self) -> Upstream:
        if self._entered is None or not self._session.started:
            raise RuntimeError("the client is not connected yet: use it inside 'async with Client(...) as client'")
        if self.state == "disconnected":
            raise Disconnected(self._reason) from self._session.refusal
        return self._entered.up

    # --- from the server

    def on(
        self, event: Event[R, *Ts], /
    ) -> Callable[[Callable[[*Ts], Awaitable[R] | R]], Callable[[*Ts], Awaitable[R] | R]]:
        """Handle ``event``: ``handler(*payload)``, plain or async; one after the other, in the order of arrival.

        What it returns is the answer if the server asked for one; an :class:`EventRefused` that it raises is one too.

        Raises:
            TypeError: ``event`` is a name and no :class:`Event`, or the handler cannot be called with its payload.
            ValueError: the event has a handler, or another event of the same name is in use.

        """
        subscription = self._program.subscribe(event, "on")

        def register(handler: Callable[[*Ts], Awaitable[R] | R]) -> Callable[[*Ts], Awaitable[R] | R]:
            self._program.handle(subscription, handler)
            return handler

        return register

    @overload
    def messages(self, event: Event[Any], /) -> Messages[None]: ...
    @overload
    def messages(self, event: Event[Any, T1], /) -> Messages[T1]: ...
    @overload
    def messages(self, event: Event[Any, T1, T2], /) -> Messages[tuple[T1, T2]]: ...
    @overload
    def messages(self, event: Event[Any, T1, T2, T3], /) -> Messages[tuple[T1, T2, T3]]: ...
    @overload
    def messages(self, event: Event[Any, T1, T2, T3, T4], /) -> Messages[tuple[T1, T2, T3, T4]]: ...
    @overload
    def messages(self, event: Event[Any, T1, T2, T3, T4, T5], /) -> Messages[tuple[T1, T2, T3, T4, T5]]: ...
    def messages(self, event: Event[Any, *tuple[Any, ...]], /) -> Messages[Any]:
        """Iterate over the payloads of ``event`` from now on: a value, a tuple of several, None without any.

        The iterator buffers 1,024 events or 16 MiB and raises MessagesLost where more were dropped. It ends when the
        client has disconnected. It answers nothing: a server that asks needs a handler.

        Raises:
            TypeError: ``event`` is a name and no :class:`Event`.
            ValueError: another event of the same name is in use.

        """
        subscription = self._program.subscribe(event, "messages")
        messages: Messages[Any] = Messages(event.name)
        subscription.iterators.add(messages)
        if self._session.started and self.state == "disconnected":
            messages.end()
        return messages

    # --- what the session says

    @override
    def changed(self, state: State) -> None:
        self._program.changed(state)

    @override
    def joined(self, wire: Wire, welcome: Welcome) -> None:
        entered = self._entered
        if entered is not None and wire.link is not None:
            codec = wire.link.codec
            entered.down.joined(wire, codec, welcome)
            entered.up.joined(wire, codec, welcome)

    @override
    def told(self, news: News) -> None:
        if self._entered is None:
            return
        _, up, down = self._entered
        match news:
            case Received():
                down.received(news, self._session.number)
            case Answered():
                up.answered(news)
            case Settled():
                up.settled(news)
            case v1.Nack():
                up.nacked(news)
            case v1.Skipped():
                up.skipped(news)
            case v1.Drain():
                pass  # the session's
            case _:
                down.take(news)

    @override
    def relieved(self) -> None:
        if self._entered is not None:
            self._entered.up.relieved()

    @override
    def lost(self, reason: str) -> None:
        if self._entered is not None:
            self._entered.up.lost(reason)
            self._entered.down.lost()

    @override
    def ended(self, reason: str) -> None:
        self._reason = reason
        if self._entered is not None:
            self._entered.down.lost()
            if reason == EJECTED:
                self._entered.down.forget()
            dropped = self._entered.up.end(reason)
            self.counters.dropped("event", reason="disconnected", policy="at_most_once", n=dropped)
        self._program.ended()

    # --- connections

    async def _connect(self, listener: Listener) -> Wire:
        make_link = partial(self._make_link, await self._credentials.present())
        return await open_wire(self._address, self._context, self._offered(), make_link, listener)

    def _offered(self) -> tuple[str, ...]:
        """Return the sub-protocols for the next connection: only that of the events in the outbox, if there are any."""
        if not self._address.raw:
            return ()
        dialect = self._entered.up.dialect if self._entered is not None else None
        return (v1.MSGPACK, v1.JSON) if dialect is None else (dialect,)

    def _make_link(self, auth: Payload, subprotocol: str | None, now: float) -> Link:
        if subprotocol is None:
            return SocketIOLink(SocketIOCodec(self._namespace), auth, self._hello, now)
        return RawLink(RawCodec(self._namespace, subprotocol), auth, self._hello, now)

    def _hello(self) -> Hello | None:
        if self._entered is None:
            return None
        _, up, down = self._entered
        self._attempts += 1
        cursors = down.cursors() if down.session else ()
        return Hello(VERSION, self._instance, up.producer, down.session, cursors, self._attempts)
