"""What a client sends: each event lies in the outbox until it has its outcome.

On a connection to a server that knows producers, an event has its number and is sent, on this connection and on those
after it, until the server has said what became of it (`bellwire.delivery.producer`). To any other server it is written
once, without a number, and is over when that is done: at most once. One that may have been written to a server before
is not written again then.

The producer says what is to be done, and in which order (`Steps`); this does it. What was to be written to a connection
that is gone by then is left out: the producer gives it to the next one.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from bellwire.client.codec import Codec, Encoded, read_encoded
from bellwire.client.journal import Journal
from bellwire.client.link import Answered, Settled, Welcome, Writer
from bellwire.client.parcel import Answer
from bellwire.client.reports import Failed
from bellwire.client.steps import Steps
from bellwire.core.counters import Counters
from bellwire.core.errors import (
    BellwireError,
    CallTimeout,
    Disconnected,
    EventRefused,
    MessageTooLarge,
    OutcomeUnknown,
    PacketError,
)
from bellwire.core.events import Event
from bellwire.delivery import producer as machine
from bellwire.delivery.inbox import Refusal
from bellwire.delivery.outbox import Emitted, Opened, OutboxRecord, Pruned, State
from bellwire.delivery.producer import Fail, Producer, Prune, Resolve, RetryAt, Skip, Store
from bellwire.guard.schema import ReplyReader
from bellwire.protocol.wire import Nack, Skipped

R = TypeVar("R")

logger = logging.getLogger("bellwire.client")

_REFUSALS: Final[dict[str, Refusal]] = {
    "outcome_unknown": "outcome_unknown",
    "producer_unknown": "producer_unknown",
    "idempotency_mismatch": "idempotency_mismatch",
}

# An event of a program before this one, or without a reply, may be answered with anything.
_ANYTHING: Final = ReplyReader(Event("anything", reply=object))


class _Open:
    """An event without an outcome."""

    __slots__ = ("dialect", "inherited", "name", "number", "payload", "placed", "quiet", "size", "stored", "written")

    def __init__(self, encoded: Encoded, payload: bytes) -> None:
        self.name = encoded.name
        self.dialect = encoded.dialect
        self.size = encoded.size
        self.payload = payload
        self.number = 0
        self.inherited = False  # from a program before this one
        self.written = False
        self.quiet = False  # its end has been told
        self.stored = False
        self.placed: asyncio.Future[None] | None = None  # somebody waits until it is in the outbox

    def settle_placed(self, error: Exception | None) -> None:
        if self.placed is None or self.placed.done():
            return
        if error is None:
            self.placed.set_result(None)
        else:
            self.placed.set_exception(error)


class _Called(_Open, Generic[R]):
    """One whose reply somebody waits for; ``ack`` is its id if it was written without a number."""

    __slots__ = ("ack", "reader", "reply")

    def __init__(self, encoded: Encoded, payload: bytes, reader: ReplyReader[R]) -> None:
        super().__init__(encoded, payload)
        self.reader = reader
        self.reply: asyncio.Future[R | BellwireError] = asyncio.get_running_loop().create_future()
        self.ack: int | None = None

    def answer(self, outcome: Any) -> None:
        if not self.reply.done():
            self.reply.set_result(outcome)


class Upstream:
    """The events of one client, on their way through connections; ``report`` is told of those that failed.

    ``codec`` writes new events. Raises BellwireError if the outbox holds what this client cannot send.
    """

    def __init__(self, journal: Journal, codec: Codec, counters: Counters, report: Callable[[Failed], None]) -> None:
        self.codec = codec
        self._journal = journal
        self._counters = counters
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._producer = Producer(journal.state)
        self._last = journal.state.last
        self._open: dict[int, _Open] = {}
        self._bytes = 0
        self._emits = 0  # of those that are open: no calls
        self._waiters: deque[_Open] = deque()  # for room
        self._acks: dict[int, _Called[Any]] = {}
        self._next_ack = 0
        self._outcomes: dict[int, Any] = {}  # told by the server, and not yet by the producer
        self._steps = Steps(journal, self._act, self._stored, self._not_stored)
        # the connection
        self._writer: Writer | None = None
        self._connection = 0
        self._plain = True
        self._generation = ""
        self._limit = 0
        self._unpaid: deque[int] = deque()  # written without a number to a server that does not keep up
        self._timer: asyncio.TimerHandle | None = None
        self._closed: str | None = None
        self._idle: list[asyncio.Future[None]] = []
        self._load()

    def _load(self) -> None:
        """Take up what a program before this one left."""
        for event in self._journal.state.events.values():
            if event.payload is None:
                continue
            encoded = read_encoded(event.payload)
            codec = self.codec.for_dialect(encoded.dialect)
            if codec is None or encoded.namespace != codec.namespace:
                raise BellwireError(
                    f"the outbox holds events for {encoded.namespace!r} in {encoded.dialect}: connect there until it "
                    "is empty, or give another path"
                )
            entry = _Open(encoded, event.payload)
            entry.number, entry.inherited, entry.stored = event.number, True, True
            entry.written, entry.quiet = event.sent is not None, event.call
            self.codec = codec
            self._add(entry)
        self._do(self._producer.start())

    @property
    def producer(self) -> str:
        """The producer's id."""
        return self._producer.id

    @property
    def dialect(self) -> str | None:
        """The dialect of all the events that have no outcome; None if there are none."""
        return next(iter(self._open.values())).dialect if self._open else None

    # --- from the application

    def cast(self, event: Event[Any, *tuple[Any, ...]], payload: tuple[Any, ...]) -> bool:
        """Write a volatile event, if that is possible at once; return whether it was. Raises as `emit`."""
        encoded = self._encode(event, payload)
        writer = self._writer
        if writer is None or not writer.writable:
            return False
        writer.send(self.codec.plain(encoded) if self._plain else self.codec.beside(encoded))
        return True

    async def emit(self, event: Event[Any, *tuple[Any, ...]], payload: tuple[Any, ...]) -> None:
        """Put ``event`` into the outbox, behind all that was put before; wait while there is no room.

        Raises Disconnected if the client has ended, or ends meanwhile; OSError if the outbox cannot be written;
        MessageTooLarge; what the codec raises.
        """
        encoded = self._encode(event, payload)
        await self._put(_Open(encoded, encoded.to_bytes()))

    async def call(self, event: Event[R, *tuple[Any, ...]], payload: tuple[Any, ...], timeout: float) -> R:  # noqa: ASYNC109
        """Put ``event`` into the outbox and return its reply.

        An event that nobody waits for any longer is not sent, or not sent again. Raises as `emit`; EventRefused;
        CallTimeout if it was not sent, OutcomeUnknown if it may have been handled.
        """
        encoded = self._encode(event, payload)
        entry = _Called(encoded, encoded.to_bytes(), ReplyReader(event))
        try:
            async with asyncio.timeout(timeout):
                await self._put(entry)
                answer = await entry.reply
        except TimeoutError:
            raise self._expired(entry, self._give_up(entry), timeout) from None
        finally:
            self._give_up(entry)
        if isinstance(answer, BellwireError):
            raise answer
        return answer

    def _encode(self, event: Event[Any, *tuple[Any, ...]], payload: tuple[Any, ...]) -> Encoded:
        encoded = self.codec.encode(event, payload)
        if self._limit and encoded.size > self._limit:
            raise MessageTooLarge(encoded.size, self._limit, "server")
        return encoded

    async def _put(self, entry: _Open) -> None:
        if self._closed is not None:
            raise Disconnected(self._closed)
        if self._steps.failure is not None:
            raise _copy(self._steps.failure)
        if self._waiters or not self._fits(entry):
            self._waiters.append(entry)
        else:
            self._number(entry)
        if not entry.stored:
            entry.placed = self._loop.create_future()
            try:
                await entry.placed
            except asyncio.CancelledError:
                self._unwait(entry)
                raise

    def _fits(self, entry: _Open) -> bool:
        journal, count = self._journal, len(self._open)
        return not count or (count < journal.max_events and self._bytes + entry.size <= journal.max_bytes)

    def _number(self, entry: _Open) -> None:
        entry.number, actions = self._producer.emit(entry.payload, call=isinstance(entry, _Called))
        self._last = entry.number
        self._add(entry)
        self._do(actions)

    def _admit(self) -> None:
        waiters = self._waiters
        while waiters and self._fits(waiters[0]):
            self._number(waiters.popleft())

    def _unwait(self, entry: _Open) -> bool:
        """Let ``entry`` wait for room no longer; whether it did."""
        if entry not in self._waiters:
            return False
        self._waiters.remove(entry)
        self._admit()
        return True

    def _add(self, entry: _Open) -> None:
        self._open[entry.number] = entry
        self._bytes += entry.size
        self._emits += not isinstance(entry, _Called)

    def _remove(self, number: int) -> _Open | None:
        entry = self._open.pop(number, None)
        if entry is not None:
            self._bytes -= entry.size
            self._emits -= not isinstance(entry, _Called)
            self._admit()
            self._rest()
        return entry

    def _give_up(self, entry: _Called[Any]) -> machine.Failure:
        """Nobody waits for a call: say what is known of it then. What has its outcome is left as it is."""
        if entry.ack is not None:
            self._acks.pop(entry.ack, None)
            return "outcome_unknown"
        if self._unwait(entry) or entry.number not in self._open:
            return "withdrawn"
        actions = self._producer.call_timed_out(entry.number)
        self._do(actions)
        for action in actions:
            if isinstance(action, Fail):
                return action.code
        return "outcome_unknown"

    def _expired(self, entry: _Open, code: machine.Failure, timeout: float) -> BellwireError:
        if code == "withdrawn":
            return CallTimeout(f"{entry.name!r} could not be sent within {timeout:g} s")
        return _unknown(entry, f"no reply came within {timeout:g} s")

    # --- from the connection

    def joined(self, writer: Writer, codec: Codec, welcome: Welcome) -> None:
        """Go on with a server."""
        self._change(writer)
        self.codec = codec
        self._limit = welcome.limit
        greeting = welcome.greeting
        self._plain = greeting is None
        if greeting is not None and greeting.producer != self._producer.id:
            self._fork(greeting.producer)
        elif greeting is not None:
            self._last = max(self._last, greeting.last)
        self._give_up_too_large()
        self._generation = "" if greeting is None else greeting.generation
        self._do(self._producer.connected(self._generation, 0 if greeting is None else greeting.last))

    def lost(self, reason: str) -> None:
        """The connection is gone: what was asked without a number will not be answered any more."""
        self._change(None)
        self._do(self._producer.disconnected())
        self._lose_calls(reason)

    def relieved(self) -> None:
        """The server keeps up again."""
        while self._unpaid and self._writer is not None and self._writer.writable:
            self._do(self._producer.replied(self._unpaid.popleft(), b""))

    def answered(self, news: Answered) -> None:
        """Take an acknowledgement; one that nobody waits for is ignored. Raises PacketError if it is none."""
        entry = self._acks.pop(news.ack, None)
        if entry is not None:
            entry.answer(_read(entry, news.answer))

    def settled(self, news: Settled) -> None:
        """Take the outcome of an event."""
        number, entry = news.number, self._open.get(news.number)
        try:
            outcome = _read(entry, news.answer)
        except PacketError as error:  # a connection that ended for it would be told it again
            outcome = EventRefused("invalid_reply", str(error))
        if entry is not None:
            self._outcomes[number] = outcome
        refusal = _REFUSALS.get(outcome.code) if isinstance(outcome, EventRefused) else None
        if refusal is None:
            self._do(self._producer.replied(number, b""))
        else:
            self._do(self._producer.refused(number, refusal))

    def nacked(self, news: Nack) -> None:
        """Take the answer that a message did nothing."""
        wait = news.retry_after or 0.0
        now = self._loop.time()
        self._do(self._producer.nack(news.number, news.expect, now, retry_after=wait, generation=news.generation))

    def skipped(self, news: Skipped) -> None:
        """Take the answer to a skip."""
        self._do(self._producer.skipped(news.first))

    def _change(self, writer: Writer | None) -> None:
        self._connection += 1
        self._writer = writer
        self._unpaid.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _lose_calls(self, reason: str) -> None:
        acks, self._acks = self._acks, {}
        for entry in acks.values():
            entry.answer(Disconnected(reason))

    def _give_up_too_large(self) -> None:
        for entry in list(self._open.values()):
            if 0 < self._limit < entry.size:
                self._outcomes[entry.number] = MessageTooLarge(entry.size, self._limit, "server")
                self._do(self._producer.call_timed_out(entry.number))

    def _fork(self, producer: str) -> None:
        """Go on under another id: the outbox is a copy of one that is in use, and the other program sends what it had.

        What this program has emitted and never sent is emitted again.
        """
        logger.warning("the outbox is a copy of one that is in use: this client goes on under an id of its own")
        self._do([Store(Pruned(self._last)), Store(Opened(producer))])
        fresh = State(producer)
        fresh.last = self._last
        self._producer = Producer(fresh)
        entries, self._open, self._bytes, self._emits = list(self._open.values()), {}, 0, 0
        for entry in entries:
            if entry.inherited:
                self._counters.dropped("event", reason="copied", policy="sent_by_the_other")
            elif entry.written:
                self._failed(entry, _unknown(entry, "it was sent under another id"))
            else:
                entry.stored = False
                self._number(entry)
        self._rest()

    # --- what the producer wants

    def _do(self, actions: list[machine.Action]) -> None:
        self._steps.add(self._connection, actions)

    def _act(self, connection: int, action: machine.Action) -> None:
        match action:
            case machine.Send() if connection == self._connection:
                self._send(action)
            case Skip(first, upto) if connection == self._connection:
                self._skip(first, upto)
            case Resolve(number, _):
                self._resolve(number)
            case Fail(number, code):
                self._fail(number, code)
            case Prune(upto):
                self._journal.later(Pruned(upto))
            case RetryAt(time) if connection == self._connection:
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = self._loop.call_at(time, lambda: self._do(self._producer.tick(time)))
            case _:
                pass  # it was for a connection that is gone

    def _send(self, action: machine.Send) -> None:
        entry, writer, number = self._open.get(action.number), self._writer, action.number
        if writer is None:
            return
        if self._plain and action.resent:
            self._do(self._producer.refused(number, "outcome_unknown"))
            return
        if entry is not None:
            entry.written = True
        encoded = read_encoded(action.payload)
        if self._plain:
            writer.send(self.codec.plain(encoded, self._expect(entry)))
            self._unpaid.append(number)
            self.relieved()
        else:
            mark = None if action.generation == self._generation else action.generation
            writer.send(self.codec.numbered(encoded, number, mark, action.resent))

    def _expect(self, entry: _Open | None) -> int | None:
        """Ask for an acknowledgement of a call; an id is used once in a client's life."""
        if not isinstance(entry, _Called):
            return None
        ack = entry.ack = self._next_ack
        self._next_ack += 1
        self._acks[ack] = entry
        return ack

    def _skip(self, first: int, upto: int) -> None:
        if self._writer is None:
            return
        if self._plain:
            self._do(self._producer.skipped(first))
        else:
            self._writer.send(self.codec.skip(first, upto))

    def _resolve(self, number: int) -> None:
        entry, outcome = self._remove(number), self._outcomes.pop(number, None)
        if isinstance(entry, _Called):
            if entry.ack is None:  # one that was written without a number waits for its acknowledgement
                entry.answer(outcome)
        elif entry is not None and isinstance(outcome, EventRefused):
            self._failed(entry, outcome)

    def _fail(self, number: int, code: machine.Failure) -> None:
        entry, outcome = self._remove(number), self._outcomes.pop(number, None)
        if entry is None:
            return
        if code == "outcome_unknown":
            outcome = _unknown(entry, "the server does not know, and it is not sent again")
        elif not isinstance(outcome, BellwireError):
            outcome = CallTimeout(f"{entry.name!r} was given up")
        self._failed(entry, outcome)

    def _failed(self, entry: _Open, error: BellwireError) -> None:
        if isinstance(entry, _Called):
            entry.answer(error)
        elif not entry.quiet:
            self._counters.add("emits_failed_total")
            self._report(Failed(entry.name, error))

    # --- the outbox

    def _stored(self, record: OutboxRecord) -> None:
        entry = self._open.get(record.number) if isinstance(record, Emitted) else None
        if entry is not None:
            entry.stored = True
            entry.settle_placed(None)

    def _not_stored(self, error: OSError) -> None:
        """Give up the events that are not in the outbox: they had no effect, and whoever emitted them is told so.

        What was to be sent once they were stored must not be then, so the connection ends here.
        """
        writer = self._writer
        if writer is not None:
            self.lost("outbox failed")
            writer.abort("outbox failed")
        for entry in list(self._open.values()):
            if not entry.stored and not entry.quiet:
                entry.quiet = True
                entry.settle_placed(_copy(error))
                self._do(self._producer.call_timed_out(entry.number))

    # --- the end

    async def emptied(self) -> None:
        """Wait until everything that was emitted has its outcome; calls have somebody else who waits for them."""
        if self._emits:
            idle = self._loop.create_future()
            self._idle.append(idle)
            await idle

    def _rest(self) -> None:
        if not self._emits:
            idle, self._idle = self._idle, []
            for waiter in idle:
                if not waiter.done():
                    waiter.set_result(None)

    def end(self, reason: str) -> int:
        """There will be no connection any more: return how many events are lost with the outbox."""
        self._closed = reason
        self._change(None)
        self._lose_calls(reason)
        for entry in (*self._open.values(), *self._waiters):
            if isinstance(entry, _Called):
                entry.answer(Disconnected(reason))
        waiters, self._waiters = self._waiters, deque()
        for entry in waiters:
            entry.settle_placed(Disconnected(reason))
        lost = 0 if self._journal.outlives else self._emits
        self._emits = 0
        self._rest()
        return lost

    async def close(self) -> None:
        """Wait until all that there is to be stored is; after `end`."""
        await self._steps.close()
        for entry in self._open.values():
            entry.settle_placed(Disconnected(self._closed or ""))


def _copy(error: OSError) -> OSError:
    """The same error for somebody else: one that is raised twice would collect both places."""
    return OSError(error.errno, error.strerror, error.filename)


def _unknown(entry: _Open, why: str) -> OutcomeUnknown:
    return OutcomeUnknown(str(entry.number), message=f"{entry.name!r} may have been handled or not: {why}")


def _read(entry: _Open | None, answer: Answer) -> Any:
    """Return the reply, or the EventRefused that stands in its place. Raises PacketError if it cannot be read."""
    try:
        return answer.read(entry.reader if isinstance(entry, _Called) else _ANYTHING)
    except EventRefused as refusal:
        return refusal
