"""The events that a client numbers: each is handled at most once, and answered the same however often it comes.

What an event asks for is read as any other's; `bellwire.server.inlet` decides whether its handler runs, and keeps the
reply. Here the one is given to the other, and the verdict to the client.
"""

import logging
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import ref

import msgspec

from bellwire.core.errors import EventRefused
from bellwire.delivery.effects import Effect, Emission
from bellwire.delivery.inbox import Answer, Arrival, Nack, Refuse, Skipped
from bellwire.guard.rates import SLACK, Hold, told
from bellwire.protocol import wire
from bellwire.server import relay
from bellwire.server.inlet import Inlet

if TYPE_CHECKING:
    from bellwire.core.events import Event
    from bellwire.server.connection import Connection
    from bellwire.server.namespace import Work
    from bellwire.server.socket import Socket

logger = logging.getLogger("bellwire.server")

TOO_LARGE: Final = EventRefused("too_large", "the event was handled, but its outcome is larger than the broker takes")

_INTERNAL: Final = EventRefused("internal", "the server failed to handle this event")

_REFUSED: Final = {
    "producer_unknown": "no outcome of this event is kept any more",
    "idempotency_mismatch": "another event had this number; this one was not handled",
    "outcome_unknown": "the event may have been handled or not",
}


Answered: TypeAlias = wire.Outcome | wire.Nack | wire.Skipped


class Numbers:
    """What a socket does with them."""

    __slots__ = ("_generation", "_hold", "_inlet", "_whose", "greeting")

    def __init__(self, socket: "Socket", inlet: Inlet, producer: str) -> None:
        self.greeting = wire.Greeting(producer, inlet.last, inlet.generation)
        """What the client is told when it is connected."""
        self._generation = inlet.generation
        self._hold: Hold | None = None
        self._inlet = inlet
        self._whose = ref(socket)  # as a reader's

    @property
    def _socket(self) -> "Socket":
        socket = self._whose()
        assert socket is not None  # noqa: S101 - whoever asks this for something has it
        return socket

    def close(self) -> None:
        """The connection has ended."""
        self._inlet.close()

    def come_too_early(
        self,
        number: "Numbered | wire.Skip",
        event: "Event[Any, *tuple[Any, ...]] | None",
        connection: "Connection",
    ) -> bool:
        """Whether an event is more than its client may send now, or comes behind one that is.

        Its number is not consumed then: the client is told when to send it again, and sends those behind it after it.
        """
        if isinstance(number, wire.Skip):
            if self._hold is not None and number.upto >= self._hold.number:
                self._hold = None
            return not connection.work()
        hold, meter = self._hold, connection.meter
        if hold is not None and number.number > hold.number:
            fair = hold.is_fair(number.number)
            wait = hold.wait(number.number, meter.now)
        else:
            excess = meter.admit(event, self._socket.user)
            if excess is None:
                if hold is not None and number.number == hold.number:
                    self._hold = None
                return False
            fair = hold is None or meter.now >= hold.until - SLACK
            wait = excess.wait
            hold = self._hold = Hold(number.number, excess.bucket, meter.now + wait)
        self._answer(number.number, Nack(hold.number, "", told(wait)))
        if not fair:
            connection.resent()
        return True

    async def handle(self, number: "Numbered", work: "Work | EventRefused") -> None:
        """Take an event to its answer; ``work`` is what was read, or why it was refused."""
        refusal = _reply(work.as_reply()) if isinstance(work, EventRefused) else None
        effect: Effect = "at_most_once"
        if not isinstance(work, EventRefused) and work.registration is not None:
            effect = work.registration.effect
        generation = number.generation or self._generation
        arrival = Arrival(number.number, number.digest, effect, generation, number.resent)

        async def invoke() -> tuple[bytes, tuple[Emission, ...]]:
            if isinstance(work, EventRefused):
                return _reply(work.as_reply()), ()
            return await self._invoke(work, effect)

        verdict = await self._inlet.handle(arrival, invoke, refusal)
        self._answer(number.number, verdict)

    async def skip(self, skip: wire.Skip) -> None:
        """Take the numbers that the client gave up."""
        self._answer(skip.first, await self._inlet.skip(skip.first, skip.upto))

    async def _invoke(self, work: "Work", effect: Effect) -> tuple[bytes, tuple[Emission, ...]]:
        """Run the handler. Whatever it raises is an outcome too; what a relay wanted emitted is not, then."""
        try:
            if effect != "relay":
                return self._encoded(work, await self._socket.handle(work)), ()
            with relay.Collecting() as emissions:
                result = await self._socket.handle(work)
            return self._encoded(work, result), tuple(emissions)
        except EventRefused as refusal:
            self._socket.count_refused(refusal, work.name)
            return self._refused(refusal, work), ()
        except Exception as error:
            self._failed(error, work)
            return _reply(_INTERNAL.as_reply()), ()

    def _encoded(self, work: "Work", result: Any) -> bytes:
        event = None if work.registration is None else work.registration.event
        return _reply() if event is None or event.reply is None else _reply(result)

    def _refused(self, refusal: EventRefused, work: "Work") -> bytes:
        try:
            return _reply(refusal.as_reply())
        except Exception as error:  # the application made it of something that cannot be encoded
            self._failed(error, work)
            return _reply(_INTERNAL.as_reply())

    def _failed(self, error: Exception, work: "Work") -> None:
        self._socket.count_failed(error, f"handling {work.name[:64]!r}")

    def _answer(self, number: int, verdict: Answer | Refuse | Nack | Skipped | None) -> None:
        socket = self._socket
        namespace, dialect = socket.namespace, socket.dialect
        match verdict:
            case Answer(reply):
                message: Answered = wire.Outcome(namespace, number, dialect.translated(reply))
            case Refuse(code):
                reply = _reply(EventRefused(code, _REFUSED[code]).as_reply())
                message = wire.Outcome(namespace, number, dialect.translated(reply))
            case Nack(expect, generation, retry_after):
                message = wire.Nack(namespace, number, expect, generation or None, retry_after or None)
            case Skipped():
                message = wire.Skipped(namespace, number)
            case None:
                return
        said = dialect.control(message)
        if said is not None:
            socket.send(said)


class Numbered(msgspec.Struct, frozen=True, gc=False):
    """The number of an event, and what tells the event from another under the same number."""

    number: int
    digest: bytes
    generation: str | None
    resent: bool


def _reply(*args: Any) -> bytes:
    """Replies are kept as msgpack, and are the same for a client that comes back on another wire."""
    return bytes(wire.encode_args(args, msgpack=True))
