"""One client's connection: a socket for each of its namespaces, whichever protocol it speaks.

What its messages mean is for `bellwire.server.socketio_connection` and `bellwire.server.raw_connection`. Here is what
both have in common: who is let in, what happens to those who are not, and how it ends. A connection whose client joins
no namespace within ``Config.connect_timeout`` is ended.

Where the server itself took the client out of a namespace, messages that were on their way are dropped and counted: a
client cannot know better, and its other namespaces are not to suffer for it.
"""

import logging
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from bellwire.core.clock import Timer
from bellwire.core.errors import (
    AuthUnavailable,
    BrokerUnavailable,
    ConnectRefused,
    Disconnected,
    EventRefused,
    PacketError,
    TokenRefused,
    TooManyConnections,
)
from bellwire.core.renewal import AUTH_EXPIRED, AuthExpired
from bellwire.guard.auth import Identity
from bellwire.guard.packets import post
from bellwire.protocol.embedding import Hello
from bellwire.protocol.outgoing import Message
from bellwire.protocol.wire import CloseCode
from bellwire.server.admission import Admission, Authenticator
from bellwire.server.dialects import Dialect
from bellwire.server.dispatch import Outcome
from bellwire.server.held import Held
from bellwire.server.inbound import Phase, described
from bellwire.server.meter import FLOODED, POLICY_VIOLATION, Meter
from bellwire.server.namespace import Namespace
from bellwire.server.recovery import Plea
from bellwire.server.sessions import Overtaken
from bellwire.server.socket import Socket
from bellwire.server.tenure import Tenure
from bellwire.transports.base import Carrier, Receiver
from bellwire.transports.base_session import BaseSession

if TYPE_CHECKING:
    from bellwire.server.runtime import Runtime
    from bellwire.server.server import Server

logger = logging.getLogger("bellwire.server")

MAX_AUTH = 16_384
"""Characters of what a client sends with CONNECT; it is kept for as long as the client is connected."""

MAX_NAMESPACES = 128
"""Namespaces that one connection can be in; a pattern would otherwise let a client have as many as it likes."""

TRY_AGAIN_LATER = 1013
"""The close code for a server that cannot do its work for a while (of the registry that RFC 6455 §11.7 began)."""

_INTERNAL = ConnectRefused("internal error", {"code": "internal"})


class TooLate(Exception):  # noqa: N818 - no error: it was on its way when the server disconnected the client
    """A message for a namespace that the server took the client out of."""


class Connection(Receiver):
    """What takes a session's messages, and brings each to its socket."""

    __slots__ = (
        "_asked",
        "_delayed",
        "_expelled",
        "_meter",
        "_server",
        "_sockets",
        "_timer",
        "runtime",
        "session",
        "vouched",
    )

    def __init__(self, server: "Server", runtime: "Runtime", session: BaseSession) -> None:
        self.runtime = runtime
        self.session = session
        self.vouched: Identity | None = None
        """Who it is, where that is known without asking: a test's client."""
        self._server = server
        self._sockets: dict[str, Socket] = {}
        self._asked = False
        self._delayed = 0
        self._expelled: set[str] | None = None
        self._meter: Meter | None = None
        self._timer: Timer | None = runtime.wheel.after(runtime.config.connect_timeout, self._nobody_came)

    # --- in the words of the protocol

    @abstractmethod
    def welcome(self, socket: Socket) -> Message:
        """What tells the client that it is connected."""

    @abstractmethod
    def refusal(self, namespace: str, message: str, data: Any = None) -> Message:
        """What tells it that it is not. Raises what an encoder does for data that cannot be encoded."""

    @abstractmethod
    def dismissal(self, namespace: str) -> Message:
        """What tells it that the server took it out of a namespace."""

    # --- as the session's receiver

    @override
    def moved(self, carrier: Carrier) -> None:
        for socket in self._sockets.values():
            if socket.phase is Phase.CONNECTED:
                socket.sink = carrier

    @override
    def congested(self) -> None:
        for socket in self._sockets.values():
            if socket.reader is not None:
                socket.reader.lag()

    @override
    def drained(self) -> None:
        for socket in tuple(self._sockets.values()):
            socket.drained()

    @override
    def settle(self) -> None:
        for socket in self._sockets.values():
            socket.settle()

    @override
    def closed(self, reason: str) -> None:
        self._somebody_came()
        self._server.departed(self)
        for socket in list(self._sockets.values()):
            self.remove(socket, reason)

    # --- its sockets

    def socket_in(self, namespace: str) -> Socket:
        """The client's socket in ``namespace``. Raises :class:`PacketError` if there is none, and `TooLate`."""
        socket = self._sockets.get(namespace)
        if socket is None:
            if self.is_late(namespace):
                raise TooLate
            raise PacketError("a packet for a namespace that was not joined")
        return socket

    def connected_in(self, namespace: str) -> Socket:
        """The same; it has been told that it is connected."""
        socket = self.socket_in(namespace)
        if socket.phase is not Phase.CONNECTED:
            raise PacketError("a packet before the answer to CONNECT")
        return socket

    def is_late(self, namespace: str) -> bool:
        """Whether the server took the client out of ``namespace``."""
        return self._expelled is not None and namespace in self._expelled

    # --- CONNECT

    def connect(self, name: str, auth: Mapping[str, Any] | None, hello: Hello | Plea | None, dialect: Dialect) -> None:
        """The client wants into the namespace ``name``: see whether it may."""
        found = self._server.find(name)
        if found is None or len(self._sockets) >= MAX_NAMESPACES:
            self.runtime.counters.add("connects_refused_total", reason="invalid_namespace")
            why = "no namespace has this name" if found is None else f"the client is in {MAX_NAMESPACES} already"
            self.refuse(name, "Invalid namespace", why)
            return
        if self._expelled is not None:
            self._expelled.discard(name)
        namespace, params = found
        held = Held(self.runtime.engine, self.session)
        hub = namespace.hub(name)
        socket = Socket(self, namespace, hub, sink=held, dialect=dialect, auth=auth, params=params, hello=hello)
        self._sockets[name] = socket
        socket.hold()

        admission = socket.stay = self._admission(socket, namespace)

        def finished(outcome: Outcome) -> None:
            self._admitted(socket, admission, outcome)

        socket.start(admission.run(), finished)
        admission.watch(self.runtime.wheel, self.runtime.config.connect_timeout, lambda: self._overdue(socket))

    def is_joined(self, name: str) -> bool:
        """Whether the client is in the namespace, or on its way."""
        return name in self._sockets

    def _admission(self, socket: Socket, namespace: Namespace) -> Admission:
        if self.vouched is None:
            return Admission(socket, namespace, self._server.authenticator)
        return Admission(socket, namespace, None, self.vouched)

    def _admitted(self, socket: Socket, admission: Admission, outcome: Outcome) -> None:
        socket.stay = None
        if outcome.error is not None:
            if not admission.cut_off(outcome.error):  # else the client is gone, and what there is to say was said
                self._turn_away(socket, outcome.error)
        elif socket.phase is Phase.ENTERING:
            self._let_in(socket)
        socket.go_on()

    def _let_in(self, socket: Socket) -> None:
        self._somebody_came()
        self.send(self.welcome(socket))
        held, socket.sink = socket.sink, self.session.carrier
        if isinstance(held, Held):
            held.release(socket.sink)
        socket.phase = Phase.CONNECTED
        self.limit(socket)
        if socket.sink.writable:
            socket.send_latest()
        if socket.reader is not None:
            socket.reader.begin()

    def _turn_away(self, socket: Socket, error: BaseException) -> None:
        if isinstance(error, EventRefused):  # what join() raises, for example
            logger.debug("refused to connect %r: %s", socket, described(error))
            data = {key: value for key, value in error.as_reply()["error"].items() if key != "message"}
            error = ConnectRefused(str(error.message), data)
        elif isinstance(error, ConnectRefused):
            logger.debug("refused to connect %r: %s", socket, type(error).__name__)
        elif isinstance(error, Overtaken):  # where clocks differ it is the client's newest after all: it comes back
            self.session.close("a newer connection has the session", code=TRY_AGAIN_LATER)
            return
        elif isinstance(error, BrokerUnavailable | AuthUnavailable):  # a refusal would be for good, and it is to return
            self.runtime.unconnected.warning("%r could not be connected: %s", socket, error)
            self.session.close(error.code.replace("_", " "), code=TRY_AGAIN_LATER)
            return
        elif isinstance(error, Disconnected) and socket.reader is not None and socket.reader.session.over:
            self.replaced(socket)  # another connection has taken its session up meanwhile
            socket.miss_farewell()
            return
        else:
            if not self.runtime.dispatcher.ended(error):
                self._server.log_failure("connecting", socket, error)
            error = _INTERNAL
        socket.miss_farewell()
        if socket.phase is not Phase.DISCONNECTED:
            self._refuse(socket, error)

    def _refuse(self, socket: Socket, error: ConnectRefused) -> None:
        reason = error.code if isinstance(error, TooManyConnections | TokenRefused) else "refused"
        self.runtime.counters.add("connects_refused_total", reason=reason)
        try:
            message = self.refusal(socket.namespace, error.message, error.data)
        except Exception as fault:  # the application gave it data that is no JSON
            self._server.log_failure("refusing", socket, fault)
            message = self.refusal(socket.namespace, _INTERNAL.message, _INTERNAL.data)
        self.send(message)
        self._forget(socket, "refused")

    @property
    def authenticator(self) -> Authenticator | None:
        """What finds out who a client is."""
        return self._server.authenticator

    def limit(self, socket: Socket) -> None:
        """Let ``socket`` stay for as long as its identity holds."""
        if isinstance(socket.stay, Admission):  # it was let in to be told that it is put out
            return
        if socket.stay is not None:
            socket.stay.leave()
        expires = socket.expires
        socket.stay = None if expires is None else Tenure(self.runtime.wheel, expires, lambda: self._expire(socket))

    def _expire(self, socket: Socket) -> None:
        """The identity of ``socket`` has expired: the client is told, and may come back with another one."""
        socket.deliver(post(socket.namespace, AUTH_EXPIRED, (AuthExpired(),)))
        self.session.close("identity expired", code=CloseCode.EXPIRED)

    def _overdue(self, socket: Socket) -> None:
        """It takes too long to let ``socket`` in. The client's other namespaces are not to suffer for it."""
        self.runtime.counters.add("connects_refused_total", reason="connect_timeout")
        why = "it took too long to let you in"
        self.refuse(socket.namespace, why, f"{socket!r} was not let in in time", {"code": "connect_timeout"})
        self.remove(socket, "connect timeout")

    def _nobody_came(self) -> None:
        self._timer = None
        self.session.close("connect timeout")

    def _somebody_came(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.runtime.engine.settle(self.session)

    # --- the end

    def remove(self, socket: Socket, reason: str) -> None:
        """``socket`` leaves its namespace."""
        bids = socket.phase is not Phase.CONNECTING
        self._forget(socket, reason)
        if bids:
            socket.bid_farewell(reason)

    def expel(self, socket: Socket) -> None:
        """The server takes ``socket`` out of its namespace, and says so. One that has left is left alone."""
        if socket.phase is Phase.DISCONNECTED:
            return
        if socket.phase is Phase.CONNECTING:
            self._refuse(socket, ConnectRefused("disconnected"))
            return
        if socket.phase is Phase.ENTERING:
            self._let_in(socket)
        self.send(self.dismissal(socket.namespace))
        self._remember(socket.namespace)
        self.remove(socket, "server namespace disconnect")

    def _remember(self, name: str) -> None:
        if self._expelled is None:
            self._expelled = set()
        elif len(self._expelled) >= MAX_NAMESPACES:
            self._expelled.pop()
        self._expelled.add(name)

    def replaced(self, socket: Socket) -> None:
        """Another connection took the session of ``socket`` up: nobody reads on this one any more."""
        self.session.close("session replaced", code=CloseCode.REPLACED)

    def close(self) -> None:
        """Take the client out of all its namespaces, so that it does not come back, and end the connection."""
        for socket in list(self._sockets.values()):
            self.expel(socket)
        self.session.close("forced server close")

    def _forget(self, socket: Socket, reason: str) -> None:
        self._sockets.pop(socket.namespace, None)
        if isinstance(socket.sink, Held):
            socket.sink.drop(reason="disconnected")
        socket.depart(self.runtime.nowhere, reason)

    def fail(self, error: "PacketError | TooLate") -> None:
        """A message cannot be taken. If the client broke the protocol its connection ends."""
        if isinstance(error, TooLate):
            self.runtime.counters.dropped("packet", reason="disconnected", policy="at_most_once")
            return
        logger.debug("a client is disconnected, parse error: %s", str(error)[:200])
        self.session.close("parse error")

    def refuse(self, name: str, message: str, why: str, data: Any = None) -> None:
        """Refuse a client that no socket was made for."""
        logger.debug("refused CONNECT to %r: %s", name[:64], why)
        self.send(self.refusal(name, message, data))

    # --- rates

    @property
    def meter(self) -> Meter:
        """What it may send yet."""
        if self._meter is None:
            self._meter = Meter(self.runtime.limits, self.session.request.address)
        return self._meter

    def asks(self) -> bool:
        """As `work`, of a client that wants into a namespace; the first time is free, and needs no meter."""
        first, self._asked = not self._asked, True
        return first or self.work()

    def work(self) -> bool:
        """Count something that is no event, and is served; False if it was too much, and the connection has ended."""
        if self.meter.admit() is not None:
            self.resent()
        return not self.session.closed

    def resent(self) -> None:
        """The client sent what it may not yet: after too much of that its connection ends."""
        if not self.meter.is_patient() and not self.session.closed:
            logger.info("a client is disconnected, rate limited: it went on sending what was refused")
            self.session.close(FLOODED, code=POLICY_VIOLATION)

    def is_overdone(self, name: str, size: int) -> bool:
        """Refuse a CONNECT whose ``size`` characters are too many to keep, or whose handlers would have to wait."""
        if size > MAX_AUTH:
            why = f"auth is larger than {MAX_AUTH} characters"
        elif self._delayed >= self.runtime.config.inbound_queue_events:
            why = "too many events wait"
        else:
            return False
        self.runtime.counters.add("connects_refused_total", reason="too_much")
        self.refuse(name, why, why)
        return True

    def delay(self, n: int) -> None:
        """``n`` events more, or less, wait for their turn; sockets that left and are not done yet count as well.

        An event counts once, and once more for each KiB of it. From ``Config.inbound_queue_events`` on nothing is read
        from the client, until half of them have been handled.
        """
        self._delayed += n
        limit = self.runtime.config.inbound_queue_events
        session = self.session
        if session.paused:
            if self._delayed <= limit // 2 and not session.closed:
                session.alive = True  # nobody listened to it: the next check of its heartbeat would find it silent
                session.pause(False)
        elif self._delayed >= limit and not session.closed:
            session.pause(True)

    def send(self, message: Message) -> None:
        """Send a message behind all that was broadcast before it."""
        self.settle()
        self.session.send(message)
