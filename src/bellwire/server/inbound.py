"""The events of one client on their way to their handlers: one after the other, in the order in which they came.

::

    state   event                     next    action
    IDLE    an event                  BUSY    its handler runs; if it was done at once: IDLE
    BUSY    an event                  BUSY    it waits
    BUSY    the handler returns       BUSY    the event is answered; the next that waits is handled
    BUSY    the last one returns      IDLE    the farewell is said, if the client is gone
    IDLE    the client is gone        BUSY    the farewell is said

A socket is busy from its birth until it is connected. What is in line, or on its way to the broker, counts against the
connection's limit (`bellwire.server.connection.Connection.delay`).
"""

import logging
from abc import ABC, abstractmethod
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from bellwire.core.errors import ConnectRefused, EventRefused, PacketError
from bellwire.core.renewal import AuthRenewed
from bellwire.protocol.outgoing import Message
from bellwire.protocol.socketio import Packet, name_of
from bellwire.protocol.wire import Skip
from bellwire.server.callables import full_name
from bellwire.server.departures import Departing, Departures
from bellwire.server.dialects import Dialect
from bellwire.server.dispatch import Job, Outcome
from bellwire.server.numbers import Numbered, Numbers
from bellwire.server.tenure import renew

if TYPE_CHECKING:
    from bellwire.server.connection import Connection
    from bellwire.server.hub import Hub
    from bellwire.server.meter import Meter
    from bellwire.server.namespace import Namespace, Registration, Work
    from bellwire.server.runtime import Runtime
    from bellwire.server.socket import Socket

logger = logging.getLogger("bellwire.server")

_MISPLACED = ": ConnectRefused is for auth, middleware and on_connect; raise EventRefused(code, message) here"


class Phase(Enum):
    """Where a socket is on its way."""

    CONNECTING = "connecting"
    """Authentication and middleware: it may still be refused."""
    ENTERING = "entering"
    """``on_connect``: what it is sent waits for the CONNECT reply."""
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


class Inbound(ABC):
    """What a socket receives; `bellwire.server.socket.Socket` is the rest of it."""

    __slots__ = (
        "__weakref__",
        "_busy",
        "_connection",
        "_current",
        "_departures",
        "_farewell",
        "_hub",
        "_namespace",
        "_queue",
        "_runtime",
        "_user",
        "dialect",
        "numbers",
        "phase",
    )

    def __init__(self, connection: "Connection", namespace: "Namespace", hub: "Hub", dialect: Dialect) -> None:
        self.dialect = dialect
        """How its client is spoken to."""
        self.numbers: Numbers | None = None
        """What it does with events that have numbers; None if its client gives them none."""
        self.phase = Phase.CONNECTING
        self._connection = connection
        self._namespace = namespace
        self._hub = hub
        self._runtime: Runtime = connection.runtime
        self._queue: deque[tuple[Packet, list[Any] | None, Numbered | Skip | None, int]] | None = None
        self._current: tuple[int | None, Registration | None] = (None, None)
        self._departures: Departures | None = None
        self._farewell: str | None = None
        self._busy = False
        self._user: str | None = None

    @property
    def namespace(self) -> str:
        """The namespace's name; where it is a pattern, the name that the client connected to."""
        return self._hub.name

    @abstractmethod
    def send(self, message: Message) -> None:
        """Send a message as it stands, behind all that was broadcast before it."""

    @property
    def _socket(self) -> "Socket":
        return cast("Socket", self)  # there is no other kind

    @property
    def meter(self) -> "Meter":
        """What its connection may send."""
        return self._connection.meter

    def receive(
        self,
        packet: Packet,
        objects: list[Any] | None = None,
        attached: int = 0,
        number: Numbered | Skip | None = None,
    ) -> None:
        """An event arrived: it is handled now, or when those before it are done.

        ``objects`` is the decoded payload of a binary packet, ``attached`` the bytes of its attachments, ``number``
        the event's, if the client gives its events numbers; of a `Skip` nothing else counts. Raises
        :class:`PacketError` if the payload is no event.
        """
        if self._comes_too_early(packet, number):
            return
        if self._busy:
            self._line_up(packet, objects, number, _weight(len(packet.payload) + attached))
            return
        self._busy = True
        try:
            waits = self._handle(packet, objects, number)
        except PacketError:
            self._busy = False
            raise
        if not waits:
            self._busy = False
            if self._queue is not None or self._farewell is not None:
                self.go_on()

    def _comes_too_early(self, packet: Packet, number: Numbered | Skip | None) -> bool:
        """Whether the event is more than its client may send now; it is answered then, and is over."""
        rates = self._namespace.rates
        event = rates.get(packet.name or name_of(packet)) if rates and type(number) is not Skip else None
        if number is not None and self.numbers is not None:
            return self.numbers.come_too_early(number, event, self._connection)
        if event is not None and event.rate == "off":
            return False
        excess = self._connection.meter.admit(event, self._user)
        if excess is None:
            return False
        self._refuse(packet.id, excess.refusal(), _name_for_the_log(packet))
        if packet.id is None:
            self._runtime.limits.tell_of_loss(excess.limit)
        self._connection.resent()
        return True

    def _line_up(self, packet: Packet, objects: list[Any] | None, number: Numbered | Skip | None, weight: int) -> None:
        if self._queue is None:
            self._queue = deque()
        self._queue.append((packet, objects, number, weight))
        self._connection.delay(weight)

    def _handle(self, packet: Packet, objects: list[Any] | None, number: Numbered | Skip | None) -> bool:
        """Run the event's handler; whether it has to wait."""
        if number is not None:
            return self._handle_numbered(packet, objects, number)
        try:
            registration, job = self._namespace.job(self, packet, objects)
        except EventRefused as refusal:
            self._refuse(packet.id, refusal, name_of(packet))
            return False
        except PacketError:
            raise
        except Exception as error:  # a payload type's own __post_init__
            self._failed(packet.id, error, f"handling {name_of(packet)[:64]!r}")
            return False
        self._current = (packet.id, registration)
        if self._departures:
            job = self._in_turn(job, registration)
        outcome = self._runtime.dispatcher.start(job, self._finished)
        if outcome is None:
            return True
        self._settle(outcome)
        return False

    def _in_turn(self, job: Job, registration: "Registration | None") -> Job:
        """While something is on its way that relays emitted, only another relay's handler need not wait for it."""
        assert self._departures is not None  # noqa: S101 - there are some
        is_relay = registration is not None and registration.effect == "relay"
        return job if is_relay and not self._departures.full else self._behind(job)

    async def _behind(self, job: Job) -> Any:
        try:
            await self.departed()
        except BaseException:
            job.close()
            raise
        return await job

    async def departed(self) -> None:
        """Return when the broker has what relays emitted before, or that has failed."""
        if self._departures:
            await self._departures.arrived()

    def _handle_numbered(self, packet: Packet, objects: list[Any] | None, number: Numbered | Skip) -> bool:
        if self.numbers is None:
            raise PacketError("an event with a number from a client that named no producer")
        self._current = (None, None)
        if isinstance(number, Skip):
            job = self.numbers.skip(number)
        else:
            job = self.numbers.handle(number, self._read(packet, objects))
        if self._departures:
            job = self._behind(job)
        outcome = self._runtime.dispatcher.start(job, self._finished)
        if outcome is None:
            return True
        self._settle(outcome)
        return False

    def _read(self, packet: Packet, objects: list[Any] | None) -> "Work | EventRefused":
        """What an event asks for, or why it is refused. Raises :class:`PacketError`."""
        name = name_of(packet)
        try:
            return self._namespace.read(packet, objects, self._hub.name)
        except EventRefused as refusal:
            self.count_refused(refusal, name)
            return refusal
        except PacketError:
            raise
        except Exception as error:  # a payload type's own __post_init__
            self.count_failed(error, f"handling {name[:64]!r}")
            return EventRefused("internal", "the server failed to handle this event")

    def handle(self, work: "Work") -> Job:
        """Run an event's handlers."""
        return self._namespace.handle(self._socket, work)

    async def renew(self, payload: dict[str, Any]) -> AuthRenewed:
        """Ask who the client is again. Raises EventRefused: it is who it was, for as long as it was to be."""
        return await renew(self._socket, self._connection, payload)

    def _finished(self, outcome: Outcome) -> None:
        """A handler that had to wait is done: on with those behind it."""
        self._settle(outcome)
        self.go_on()

    def go_on(self) -> None:
        """Handle what waits, until a handler has to wait itself."""
        self._busy = True
        while self._queue:
            packet, objects, number, weight = self._queue.popleft()
            self._connection.delay(-weight)
            try:
                if self._handle(packet, objects, number):
                    return
            except PacketError as error:
                self._connection.delay(-sum([behind for *_, behind in self._queue]))
                self._queue.clear()  # as if it had been read at once: nothing counts behind a broken packet
                self._connection.fail(error)
        self._queue = None
        self._busy = False
        if self._departures:
            return  # the last that arrives says it
        if self._farewell is not None:
            self._say_farewell(self._farewell)
        elif self.phase is Phase.DISCONNECTED:
            self._connection.delay(-1)

    def hold(self) -> None:
        """Handle nothing before :meth:`go_on`: the socket is being connected."""
        self._busy = True

    def bid_farewell(self, reason: str) -> None:
        """Run the ``on_disconnect`` handlers, behind the events that came before."""
        if self._busy or self._departures:
            self._farewell = reason
        else:
            self._say_farewell(reason)

    def miss_farewell(self) -> None:
        """It was refused after all: ``on_connect`` did not finish, so there is nothing to undo."""
        self._farewell = None

    def _say_farewell(self, reason: str) -> None:
        self._farewell = None
        self._current = (None, None)
        job = self._namespace.farewell(self._socket, reason)
        if job is None:
            self._parted(Outcome())
        else:
            self._runtime.dispatcher.run(job, self._parted)

    def _parted(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._failed(None, outcome.error, "on_disconnect")
        self._connection.delay(-1)

    def _settle(self, outcome: Outcome) -> None:
        number, registration = self._current
        if outcome.error is not None:
            self._blame(number, registration, outcome.error)
        elif type(outcome.result) is Departing:
            self._depart(outcome.result)
        elif number is not None:
            event = None if registration is None else registration.event
            reply = () if event is None or event.reply is None else (outcome.result,)
            binary = event is not None and event.reply_binary
            try:
                message = self.dialect.reply(self._hub.name, number, reply, binary)
            except Exception as error:
                self._failed(number, error, _handling(registration))
            else:
                self.send(message)

    def _depart(self, departing: Departing) -> None:
        """A relay's handler is done: the event is answered when the broker has what it emitted."""
        event = self._current
        departures = self._departures
        if departures is None:
            departures = self._departures = Departures(self._runtime.streams)
        weight = _weight(len(departing.emission.body))

        def arrived(outcome: Outcome) -> None:
            self._connection.delay(-weight)
            current, self._current = self._current, event  # another event may have begun
            self._settle(outcome)
            self._current = current
            if self._farewell is not None and not (self._busy or departures):
                self._say_farewell(self._farewell)

        job = departures.bring(departing)
        outcome = self._runtime.dispatcher.start(job, arrived)
        if outcome is None:
            self._connection.delay(weight)
        else:
            self._settle(outcome)

    def _blame(self, number: int | None, registration: "Registration | None", error: BaseException) -> None:
        """A handler raised."""
        if isinstance(error, EventRefused):
            self._refuse(number, error, "" if registration is None else registration.event.name)
        else:
            self._failed(number, error, _handling(registration))

    def _failed(self, number: int | None, error: BaseException, doing: str) -> None:
        self.count_failed(error, doing)
        if number is not None:
            self._answer(number, EventRefused("internal", "the server failed to handle this event"))

    def count_failed(self, error: BaseException, doing: str) -> None:
        """The application's code failed."""
        if self._runtime.dispatcher.ended(error):
            self._runtime.counters.add("handlers_cancelled_total")
        else:
            self._runtime.counters.add("handler_errors_total")
            hint = _MISPLACED if isinstance(error, ConnectRefused) else ""
            logger.error("%s failed for %r%s", doing, self, hint, exc_info=error)

    def count_refused(self, refusal: EventRefused, name: str) -> None:
        """An event was refused."""
        self._runtime.counters.add("events_refused_total")
        logger.debug("refused the event %r of %r: %s", name[:64], self, described(refusal))

    def _refuse(self, number: int | None, refusal: EventRefused, name: str) -> None:
        self.count_refused(refusal, name)
        if number is not None:
            self._answer(number, refusal)

    def _answer(self, number: int, refusal: EventRefused) -> None:
        try:
            message = self.dialect.reply(self._hub.name, number, (refusal.as_reply(),), binary=False)
        except Exception as error:  # the application made it of something that is no JSON
            self._failed(number, error, "answering with a refusal")
        else:
            self.send(message)


def _weight(size: int) -> int:
    """What an event of ``size`` bytes counts against the limit while it waits, or while what it emitted does."""
    return 1 + size // 1024


def _handling(registration: "Registration | None") -> str:
    """What is being done, for the log."""
    if registration is None:
        return "on_any"
    return f"handling {registration.event.name!r} ({full_name(registration.handler)})"


def _name_for_the_log(packet: Packet) -> str:
    """Return the name of an event that is refused unread, "" if nobody is to see it: it can take time to find."""
    if not logger.isEnabledFor(logging.DEBUG):
        return ""
    try:
        return name_of(packet)
    except PacketError:
        return ""


def described(refusal: EventRefused) -> str:
    """A refusal for the log. Its message stays out, for that may quote the payload."""
    code = str(refusal.code)[:64]
    return code if refusal.path is None else f"{code} at {str(refusal.path)[:64]!r}"
