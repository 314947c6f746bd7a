"""The client that applications use."""

import asyncio
import inspect
import logging
import math
import ssl
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, TypeVarTuple, overload
from weakref import WeakSet

from typing_extensions import override

from bellwire.client.address import parse_url
from bellwire.client.backoff import Backoff
from bellwire.client.calls import Call, Calls
from bellwire.client.messages import Messages
from bellwire.client.session import Owner, Session, State
from bellwire.client.turns import Outcome, Turn, Turns
from bellwire.client.wire import Listener, Wire, open_wire
from bellwire.core.counters import Counters
from bellwire.core.errors import CallTimeout, Disconnected, EventRefused
from bellwire.core.events import Event, require_event
from bellwire.guard.packets import pack
from bellwire.guard.schema import PayloadReader, ReplyReader
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.socketio import Packet, encode_ack, event_name

R = TypeVar("R")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
Ts = TypeVarTuple("Ts")
StateHandler = TypeVar("StateHandler", bound=Callable[[State], object])

logger = logging.getLogger("bellwire.client")


class _Subscription:
    """What is done with one event: a handler, iterators, or both."""

    __slots__ = ("event", "handler", "iterators", "reader")

    def __init__(self, event: Event[Any, *tuple[Any, ...]]) -> None:
        self.event = event
        self.reader = PayloadReader(event)
        self.handler: Callable[..., Any] | None = None
        self.iterators: WeakSet[Messages[Any]] = WeakSet()


class Client(Owner):
    """A connection to one namespace of a Socket.IO server, made again whenever it breaks.

    ``url`` is ``http://host:port`` or ``https://host:port``; a path in it is that of the server's endpoint, which is
    ``/socket.io/`` otherwise. ``auth`` is what the server's authentication is shown. Use it as
    ``async with Client(url) as client``: entering waits until it is connected.

    Delivery is Socket.IO's: at most once, and in order for as long as a connection lasts. What is emitted while the
    client is away is kept, within bounds, and sent when it is back; what was on its way when a connection broke may be
    lost, and so is what the server sent meanwhile.

    Raises:
        ValueError: ``url`` is no address of a server, or ``namespace`` no name of a namespace.

    """

    def __init__(self, url: str, *, namespace: str = "/", auth: Mapping[str, Any] | None = None) -> None:
        if not namespace.startswith("/") or "," in namespace or "?" in namespace:
            raise ValueError(f"{namespace!r} is no namespace: it begins with '/' and has no ',' or '?', like '/chat'")
        self.counters = Counters()
        """What was dropped or refused, by reason."""
        self._address = parse_url(url)
        self._context = ssl.create_default_context() if self._address.secure else None
        self._namespace = namespace
        self._auth = auth
        self._session = Session(self, self._connect, Backoff())
        self._turns = Turns(self._session.press)
        self._calls = Calls()
        self._subscriptions: dict[str, _Subscription] = {}
        self._state_handlers: list[Callable[[State], object]] = []
        self._reason = ""
        self._leaving = False

    def __repr__(self) -> str:
        return f"Client({self._address.authority!r}, {self._namespace!r}, {self.state!r})"

    # --- being connected

    async def __aenter__(self) -> Self:
        """Connect, however often that takes.

        Raises:
            ConnectRefused: the server refused this client.
            RuntimeError: the client was entered before.

        """
        if self._session.started:
            raise RuntimeError("a Client is entered once: make another one to connect again")
        self._session.start()
        try:
            await self._session.ready()
            if self.state == "disconnected":
                raise Disconnected(self._reason)
        except BaseException:
            await self.disconnect()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.disconnect()

    async def disconnect(self) -> None:
        """Send what waits, leave the server, and stay away; the end of the ``async with`` block does the same.

        A handler that is under way is cancelled, unless it is the one that calls this, and the events that wait for one
        are dropped; then the handlers of `on_state` are told.
        """
        if not self._leaving:
            self._leaving = True
            dropped = self._turns.clear()
            self.counters.dropped("event", reason="client_closed", policy="at_most_once", n=dropped)
        await self._session.close()
        await self._turns.settled()

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
        _check_handler(handler, 1, "on_state")
        self._state_handlers.append(handler)
        return handler

    # --- to the server

    async def emit(self, event: Event[Any, *Ts], /, *payload: *Ts) -> None:
        """Send ``event``, at most once, behind all that was emitted before.

        Returns when it is written, or kept for the next connection; waits while too much is kept (1,024 events,
        or 1 MiB). A volatile event is dropped, and counted, if it cannot be written at once.

        Raises:
            Disconnected: the client has disconnected, or does before there is room; if the server refused it when it
                came back, the ConnectRefused is the error's ``__cause__``.
            TypeError: the payload is not what the event declares.

        """
        message = pack(self._namespace, event, payload)
        outlet = self._opened().outlet
        if event.volatile and not outlet.writable:
            reason = "buffer_full" if self.state == "connected" else "disconnected"
            self.counters.dropped("volatile", reason=reason, policy="oldest_kept")
            return
        await outlet.put(message)

    async def call(self, event: Event[R, *Ts], /, *payload: *Ts, timeout: float) -> R:  # noqa: ASYNC109
        """Send ``event`` and return the reply of the server's handler, at most ``timeout`` seconds later.

        An event that could not be sent within the time never is.

        Raises:
            CallTimeout: no acknowledgement came in time; if the event was sent, it may have been handled.
            Disconnected: the connection broke after the event was sent, or the client has disconnected.
            EventRefused: the server refused the event, or answered with something that is no reply of it.
            TypeError: the payload is not what the event declares.
            ValueError: ``timeout`` is negative or not finite.

        """
        if not 0 <= timeout < math.inf:
            raise ValueError(f"timeout is {timeout!r}: give a finite number of seconds from 0 on")
        number = self._calls.number()
        message = pack(self._namespace, event, payload, number)
        outlet = self._opened().outlet
        call: Call[R] = Call(ReplyReader(event), message)
        self._calls.expect(number, call)
        try:
            async with asyncio.timeout(timeout):
                await outlet.put(message)
                return await call.reply()
        except TimeoutError:
            raise CallTimeout(f"no acknowledgement of {event.name!r} within {timeout:g} s") from None
        finally:
            self._calls.forget(number)
            outlet.withdraw(message)

    def _opened(self) -> Session:
        if not self._session.started:
            raise RuntimeError("the client is not connected yet: use it inside 'async with Client(...) as client'")
        if self.state == "disconnected":
            raise Disconnected(self._reason) from self._session.refusal
        return self._session

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
        subscription = self._subscribe(event, "on")

        def register(handler: Callable[[*Ts], Awaitable[R] | R]) -> Callable[[*Ts], Awaitable[R] | R]:
            _check_handler(handler, len(event.payload_types), f"on({event.name!r})")
            if subscription.handler is not None:
                raise ValueError(f"{event.name!r} has a handler already: one event, one handler")
            subscription.handler = handler
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
        subscription = self._subscribe(event, "messages")
        messages: Messages[Any] = Messages(event.name)
        subscription.iterators.add(messages)
        if self._session.started and self.state == "disconnected":
            messages.end()
        return messages

    def _subscribe(self, event: Event[Any, *tuple[Any, ...]], where: str) -> _Subscription:
        require_event(event, where)
        subscription = self._subscriptions.setdefault(event.name, _Subscription(event))
        if subscription.event is not event:
            raise ValueError(f"another event {event.name!r} is in use here: declare it once")
        return subscription

    # --- what the session says

    @override
    def changed(self, state: State) -> None:
        for handler in self._state_handlers:
            self._turns.put(Turn(handler, (state,), self._told, lasting=True))

    @override
    def received(self, packet: Packet, objects: list[Any] | None) -> None:
        subscription = self._subscriptions.get(event_name(packet.payload))
        try:
            if subscription is None:
                raise EventRefused("unknown_event", "no handler takes this event")
            reader = subscription.reader
            payload = reader.read(packet.payload) if objects is None else reader.read_objects(objects[1:])
            self._hand_over(subscription, packet, payload)
        except EventRefused as refusal:
            self._refuse(packet.id, self._session.number, refusal)

    def _hand_over(self, subscription: _Subscription, packet: Packet, payload: tuple[Any, ...]) -> None:
        size = len(packet.payload)
        for messages in subscription.iterators:
            if not messages.feed(payload, size):
                self.counters.dropped("event", reason="buffer_full", policy="oldest_kept")
        if subscription.handler is not None:
            number, connection, event = packet.id, self._session.number, subscription.event

            def finished(outcome: Outcome) -> None:
                self._settle(number, connection, event, outcome)

            self._turns.put(Turn(subscription.handler, payload, finished, size))
        elif packet.id is not None:
            raise EventRefused("unknown_event", "no handler takes this event")

    @override
    def answered(self, packet: Packet, objects: list[Any] | None) -> None:
        self._calls.answered(packet, objects)

    @override
    def lost(self, reason: str) -> None:
        self._calls.lost(reason, self._session.outlet.holds)

    @override
    def ended(self, reason: str, dropped: int) -> None:
        self._reason = reason
        self.counters.dropped("event", reason="disconnected", policy="at_most_once", n=dropped)
        self._calls.lost(reason, lambda _: False)
        for subscription in self._subscriptions.values():
            for messages in subscription.iterators:
                messages.end()

    # --- answers

    def _settle(
        self, number: int | None, connection: int, event: Event[Any, *tuple[Any, ...]], outcome: Outcome
    ) -> None:
        if isinstance(outcome.error, EventRefused):
            self._refuse(number, connection, outcome.error)
        elif outcome.error is not None:
            self._failed(number, connection, outcome.error)
        elif number is not None:
            reply = () if event.reply is None else (outcome.result,)
            try:
                message = encode_ack(self._namespace, number, reply, binary=event.reply_binary)
            except Exception as error:
                self._failed(number, connection, error)
            else:
                self._answer(connection, message)

    def _refuse(self, number: int | None, connection: int, refusal: EventRefused) -> None:
        self.counters.add("events_refused_total")
        if number is not None:
            try:
                message = encode_ack(self._namespace, number, (refusal.as_reply(),), binary=False)
            except Exception as error:  # the application made it of something that is no JSON
                self._failed(number, connection, error)
            else:
                self._answer(connection, message)

    def _failed(self, number: int | None, connection: int, error: BaseException) -> None:
        self._told(Outcome(error=error))
        if number is not None:
            refusal = EventRefused("internal", "the client failed to handle this event")
            self._answer(connection, encode_ack(self._namespace, number, (refusal.as_reply(),), binary=False))

    def _told(self, outcome: Outcome) -> None:
        """A handler whose result nobody wants is done."""
        error = outcome.error
        if isinstance(error, asyncio.CancelledError) and self._leaving:
            self.counters.add("handlers_cancelled_total")
        elif error is not None:
            self.counters.add("handler_errors_total")
            logger.error("a handler of %r failed", self, exc_info=error)

    def _answer(self, connection: int, message: Outgoing) -> None:
        """Answer on the connection that asked: on another one the id would mean another event."""
        wire = self._session.wire
        if wire is not None and connection == self._session.number:
            wire.answer(message)
        else:
            self.counters.dropped("acknowledgement", reason="disconnected", policy="at_most_once")

    async def _connect(self, listener: Listener) -> Wire:
        return await open_wire(self._address, self._context, self._namespace, self._auth, listener)


def _check_handler(handler: Callable[..., Any], count: int, where: str) -> None:
    """Whether ``handler`` can be called with ``count`` arguments is found out here, not at the first event."""
    if not callable(handler):
        raise TypeError(f"{where} takes a function, not {type(handler).__name__}")
    try:
        inspect.signature(handler).bind(*range(count))
    except TypeError as error:
        raise TypeError(f"{where} calls its handler with {count} argument(s): {error}") from None
    except ValueError:
        return  # a builtin that does not tell its signature
