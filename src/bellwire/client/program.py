"""The program behind a client: its handlers and iterators, and what is done with each event for it.

Handlers have their turns one after the other (`Turns`). What a handler of an event returns is the answer, if the server
asked for one; an event of a stream has been handed over when its handler has ended, and comes again if that failed.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from typing_extensions import override

from bellwire.client.codec import Codec
from bellwire.client.downstream import Audience, Handed
from bellwire.client.link import Received
from bellwire.client.messages import Messages
from bellwire.client.parcel import Parcel
from bellwire.client.reports import DeadLetter, Failed, Reset
from bellwire.client.session import Session, State
from bellwire.client.turns import Outcome, Turn, Turns
from bellwire.core.counters import Counters
from bellwire.core.errors import EventRefused, PacketError
from bellwire.core.events import Event, require_event
from bellwire.guard.schema import PayloadReader
from bellwire.protocol.outgoing import Outgoing

logger = logging.getLogger("bellwire.client")


class Subscription:
    """What is done with one event: a handler, iterators, or both."""

    __slots__ = ("event", "handler", "iterators", "reader")

    def __init__(self, event: Event[Any, *tuple[Any, ...]]) -> None:
        self.event = event
        self.reader = PayloadReader(event)
        self.handler: Callable[..., Any] | None = None
        self.iterators: WeakSet[Messages[Any]] = WeakSet()

    def read(self, parcel: Parcel) -> tuple[Any, ...]:
        """Return the payload. Raises EventRefused if it is not the event's, PacketError if it is none at all."""
        return parcel.read(self.reader)


class Program(Audience):
    """The handlers of one client; ``name`` is what its faults are logged under."""

    def __init__(self, name: str, session: Session, counters: Counters) -> None:
        self.turns = Turns(session.press)
        self.leaving = False
        self._staying = False
        self._name = name
        self._session = session
        self._counters = counters
        self._subscriptions: dict[str, Subscription] = {}
        self._states: list[Callable[[State], object]] = []
        self._resets: list[Callable[[Reset], object]] = []
        self._letters: list[Callable[[DeadLetter], object]] = []
        self._failures: list[Callable[[Failed], object]] = []

    # --- what it wants to know

    def subscribe(self, event: Event[Any, *tuple[Any, ...]], where: str) -> Subscription:
        """Return what is done with ``event``; ``where`` is what the application called.

        Raises TypeError if it is no `Event`, ValueError if another one of this name is in use.
        """
        require_event(event, where)
        subscription = self._subscriptions.setdefault(event.name, Subscription(event))
        if subscription.event is not event:
            raise ValueError(f"another event {event.name!r} is in use here: declare it once")
        return subscription

    def handle(self, subscription: Subscription, handler: Callable[..., Any]) -> None:
        """Call ``handler`` for an event. Raises TypeError if it cannot be called so, ValueError if there is one."""
        event = subscription.event
        check_handler(handler, len(event.payload_types), f"on({event.name!r})")
        if subscription.handler is not None:
            raise ValueError(f"{event.name!r} has a handler already: one event, one handler")
        subscription.handler = handler

    def on_state(self, handler: Callable[[State], object]) -> None:
        """See `Client.on_state`."""
        check_handler(handler, 1, "on_state")
        self._states.append(handler)

    def on_reset(self, handler: Callable[[Reset], object]) -> None:
        """See `Client.on_reset`."""
        check_handler(handler, 1, "on_reset")
        self._resets.append(handler)

    def on_dead_letter(self, handler: Callable[[DeadLetter], object]) -> None:
        """See `Client.on_dead_letter`."""
        check_handler(handler, 1, "on_dead_letter")
        self._letters.append(handler)

    def on_failed(self, handler: Callable[[Failed], object]) -> None:
        """See `Client.on_failed`."""
        check_handler(handler, 1, "on_failed")
        self._failures.append(handler)

    # --- what it is told

    def changed(self, state: State) -> None:
        """The state is another one."""
        for handler in self._states:
            self.turns.put(Turn(handler, (state,), self._told, lasting=True))

    def failed(self, failed: Failed) -> None:
        """An event that was emitted came to nothing."""
        if not self._failures:
            logger.warning("%r was emitted and came to nothing: %s", failed.event, failed.error)
        for handler in self._failures:
            self.turns.put(Turn(handler, (failed,), self._told))

    def ended(self) -> None:
        """Nothing more will come."""
        for subscription in self._subscriptions.values():
            for messages in subscription.iterators:
                messages.end()

    @override
    def event(self, parcel: Parcel, handed: Handed) -> None:
        if self.leaving:
            self._leave_out()
            return
        subscription = self._subscriptions.get(parcel.name)
        try:
            if subscription is None:
                raise EventRefused("unknown_event", "no handler takes this event")
            payload = subscription.read(parcel)
        except (EventRefused, PacketError) as refusal:  # it would be the same the next time
            self._refused(parcel, refusal)
            handed(Outcome())
            return
        self._feed(subscription, parcel, payload)
        if subscription.handler is None:
            handed(Outcome())
            return

        def finished(outcome: Outcome) -> None:
            if isinstance(outcome.error, EventRefused):
                self._refused(parcel, outcome.error)
            else:
                self._told(outcome)
            if not (self.leaving and isinstance(outcome.error, asyncio.CancelledError)):
                handed(outcome)

        self.turns.put(Turn(subscription.handler, payload, finished, parcel.size))

    @override
    def beside(self, event: Received, connection: int) -> None:
        parcel, ack = event.parcel, event.ack
        if self.leaving:
            self._leave_out()
            return
        subscription = self._subscriptions.get(parcel.name)
        try:
            if subscription is None:
                raise EventRefused("unknown_event", "no handler takes this event")
            payload = subscription.read(parcel)
            self._feed(subscription, parcel, payload)
            if subscription.handler is None and ack is not None:
                raise EventRefused("unknown_event", "no handler takes this event")
        except EventRefused as refusal:
            self._refuse(ack, connection, refusal)
            return
        if subscription.handler is not None:
            declared = subscription.event

            def finished(outcome: Outcome) -> None:
                self._settle(ack, connection, declared, outcome)

            self.turns.put(Turn(subscription.handler, payload, finished, parcel.size))

    @override
    def reset(self, reset: Reset, handed: Handed) -> None:
        self._counters.add("resets_total")
        handlers = self._resets
        left = len(handlers)
        if not left:
            logger.warning("events of a stream may be missing: %s", reset.reason)
            handed(Outcome())

        def finished(outcome: Outcome) -> None:
            nonlocal left
            self._told(outcome)
            left -= 1
            if not left and not (self.leaving and isinstance(outcome.error, asyncio.CancelledError)):
                handed(outcome)

        for handler in handlers:
            self.turns.put(Turn(handler, (reset,), finished))

    @override
    def dead_letter(self, parcel: Parcel, error: BaseException) -> None:
        self._counters.add("dead_letters_total")
        subscription = self._subscriptions[parcel.name]
        letter = DeadLetter(parcel.name, subscription.read(parcel), error)
        for handler in self._letters:
            self.turns.put(Turn(handler, (letter,), self._told))

    def leave(self, waiting: int, *, stay: bool) -> None:
        """Hand over nothing more. What waits, here and elsewhere, is dropped, unless another program will have it."""
        self.leaving = True
        self._staying = stay
        self._leave_out(waiting + self.turns.clear())

    def _leave_out(self, n: int = 1) -> None:
        if not self._staying:
            self._counters.dropped("event", reason="client_closed", policy="at_most_once", n=n)

    def _refused(self, parcel: Parcel, error: EventRefused | PacketError) -> None:
        self._counters.add("events_refused_total")
        logger.debug("an event %r was refused: %s", parcel.name, error)

    def _feed(self, subscription: Subscription, parcel: Parcel, payload: tuple[Any, ...]) -> None:
        if parcel.taken:
            return
        parcel.taken = True
        for messages in subscription.iterators:
            if not messages.feed(payload, parcel.size):
                self._counters.dropped("event", reason="buffer_full", policy="oldest_kept")

    # --- answers

    def _settle(self, ack: int | None, connection: int, event: Event[Any, *tuple[Any, ...]], outcome: Outcome) -> None:
        if isinstance(outcome.error, EventRefused):
            self._refuse(ack, connection, outcome.error)
        elif outcome.error is not None:
            self._broken(ack, connection, outcome.error)
        elif ack is not None:
            self._answer(ack, connection, lambda codec: codec.reply(ack, event, outcome.result))

    def _refuse(self, ack: int | None, connection: int, refusal: EventRefused) -> None:
        self._counters.add("events_refused_total")
        if ack is not None:
            self._answer(ack, connection, lambda codec: codec.refuse(ack, refusal))

    def _broken(self, ack: int | None, connection: int, error: BaseException) -> None:
        self._told(Outcome(error=error))
        if ack is not None:
            refusal = EventRefused("internal", "the client failed to handle this event")
            self._answer(ack, connection, lambda codec: codec.refuse(ack, refusal))

    def _told(self, outcome: Outcome) -> None:
        """A handler whose result nobody wants is done."""
        error = outcome.error
        if isinstance(error, asyncio.CancelledError) and self.leaving:
            self._counters.add("handlers_cancelled_total")
        elif error is not None:
            self._counters.add("handler_errors_total")
            logger.error("a handler of %s failed", self._name, exc_info=error)

    def _answer(self, ack: int, connection: int, encode: Callable[[Codec], Outgoing]) -> None:
        """Answer on the connection that asked: on another one the id would mean another event."""
        wire = self._session.wire
        if wire is None or wire.link is None or connection != self._session.number:
            self._counters.dropped("acknowledgement", reason="disconnected", policy="at_most_once")
            return
        try:
            message = encode(wire.link.codec)
        except Exception as error:  # the application made it of something that cannot be sent
            self._broken(ack, connection, error)
        else:
            wire.answer(message)


def check_handler(handler: Callable[..., Any], count: int, where: str) -> None:
    """Raise TypeError if ``handler`` cannot be called with ``count`` arguments: here, not at the first event."""
    if not callable(handler):
        raise TypeError(f"{where} takes a function, not {type(handler).__name__}")
    try:
        inspect.signature(handler).bind(*range(count))
    except TypeError as error:
        given = "no argument" if not count else "1 argument" if count == 1 else f"{count} arguments"
        raise TypeError(f"{where} calls its handler with {given}, without a socket: {error}") from None
    except ValueError:
        return  # a builtin that does not tell its signature
