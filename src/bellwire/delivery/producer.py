"""The client's side of a producer: it sends each event until it has an outcome ("Up: client to server").

An event's number is bound to its payload when it is emitted, and for good. So whatever the network keeps back,
doubles or brings in another order, a number cannot take effect as two events; nothing is ever renumbered. An event
that was given up leaves its number to be skipped, in its turn, so that those behind it are not held up.

What happens to one event::

    state      input                             next       actions
    WAITING    its turn, connected               FLYING     Store(Sent) before the first time; Send
    WAITING    given up, no mark                 EMPTY      Store(Withdrawn), Fail(withdrawn)
    WAITING    given up, marked                  EMPTY      Store(Withdrawn), Fail(outcome_unknown)
    FLYING     given up                          ORPHAN     Store(Withdrawn), Fail(outcome_unknown)
    FLYING     reply                             -          Resolve, Prune
    FLYING     refused                           -          Fail, Prune
    FLYING     nack, first sent on this          WAITING    Store(Unsent): the mark is taken off
               connection
    FLYING     nack, sent before                 WAITING
    FLYING     disconnected                      WAITING
    ORPHAN     reply, refused                    -          Prune
    ORPHAN     nack, disconnected                EMPTY
    EMPTY      its turn, connected               SKIPPING   Skip
    SKIPPING   nack, disconnected                EMPTY
    SKIPPING   skipped                           -          Prune

"Given up" is a ``call`` that timed out or whose program ended: a call ends with the one who waits for it.

**The mark.** Before an event is written for the first time, the generation that the server told on this connection is
stored with it, and it goes along whenever the event is sent: the server runs a number only in the generation it is
marked with. A nack says that this frame did nothing. If it was the only one there ever was, that
is to say if the event was first sent on this connection, then nothing did, the mark is taken off, and the event can
still be withdrawn, or run in another generation. If it was sent on another connection before, its old frame may still
lie in a socket's buffer somewhere, so the mark stays.

**A nack stops the rest.** What was sent behind a number that was refused is refused as well, each frame with a nack
of its own. Nothing is sent until all of these have come and the time is over that the server asked for; then all are
sent again in the order of their numbers. So a rate holds back the events behind it as well: the price of order.

**The server knows less than the client.** If it expects a number whose event is over, because its record expired or
a failover took back its newest writes, the client declares these numbers as skipped: an outcome that was told stays.
**The server knows more**, if the outbox's file lost its end in a power failure: new events come after the last number
that it knows. One emitted before that was found out has the number of a forgotten one, and is refused as
``idempotency_mismatch``, without an effect.

Inputs return actions, to be done in their order; each that needs it is told the time, of any clock that only goes
forward. Frames of one connection are answered on it, each once, and an answer is given to this machine only while
that connection is the present one.
"""

from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Final, Literal, NamedTuple, TypeAlias

from bellwire.delivery.inbox import WINDOW, Refusal
from bellwire.delivery.outbox import Emitted, OutboxRecord, Passed, Sent, State, Unsent, Withdrawn

MAX_NUMBER: Final = 2**53 - 1
"""The highest number: the largest integer that every JSON reader has exactly (RFC 8259, section 6)."""

MAX_RETRY_SECONDS: Final = 300.0
"""The longest time that a server can ask to wait for before the next attempt."""

_RETRY_BASE: Final = 0.05
_RETRY_LIMIT: Final = 5.0

Failure: TypeAlias = Refusal | Literal["withdrawn"]
"""Why an event has no reply: the server's word for it, or ``withdrawn``: it has had no effect and will have none."""


# --- actions


class Store(NamedTuple):
    """Store this record; until that is done, nothing that comes after it may be."""

    record: OutboxRecord


class Send(NamedTuple):
    """Write the event to the connection, with its mark, and whether it may have been written before.

    The mark of an event that is not resent is nearly always the generation that this connection began with: a wire
    leaves it out then.
    """

    number: int
    payload: bytes
    generation: str
    resent: bool


class Skip(NamedTuple):
    """Tell the server that the numbers from ``first`` to ``upto`` will not come."""

    first: int
    upto: int


class Resolve(NamedTuple):
    """The event was handled, and this is the reply."""

    number: int
    reply: bytes


class Fail(NamedTuple):
    """The event has no reply, and this is why."""

    number: int
    code: Failure


class Prune(NamedTuple):
    """The events up to ``upto`` are over: store `Pruned`, at leisure; if it is lost, their outcomes are told again."""

    upto: int


class RetryAt(NamedTuple):
    """Call `Producer.tick` at this time; it replaces an earlier one."""

    time: float


Action: TypeAlias = Store | Send | Skip | Resolve | Fail | Prune | RetryAt


class _Stage(Enum):
    WAITING = "waiting"
    FLYING = "flying"
    ORPHAN = "orphan"
    EMPTY = "empty"
    SKIPPING = "skipping"


_WAITING: Final = _Stage.WAITING
_FLYING: Final = _Stage.FLYING
_ORPHAN: Final = _Stage.ORPHAN
_EMPTY: Final = _Stage.EMPTY
_SKIPPING: Final = _Stage.SKIPPING


class _Pending:
    """An event without an outcome; ``fresh``: its mark was set on the present connection."""

    __slots__ = ("call", "fresh", "number", "payload", "sent", "stage")

    def __init__(self, number: int, payload: bytes | None, call: bool, sent: str | None) -> None:
        self.number = number
        self.payload = payload
        self.call = call
        self.sent = sent
        self.fresh = False
        self.stage = _WAITING if payload is not None else _EMPTY


class Producer:
    """Numbers events and brings each to an outcome; ``state`` is what its outbox holds.

    What is in the outbox is sent again, except for calls: call `start` before anything else.
    """

    __slots__ = (
        "_connected",
        "_flying",
        "_generation",
        "_last",
        "_pending",
        "_pruned",
        "_queue",
        "_retry_at",
        "_returned",
        "_stalls",
        "_taken",
        "id",
    )

    def __init__(self, state: State) -> None:
        self.id = state.producer
        self._last = state.last
        self._pending = {
            event.number: _Pending(event.number, event.payload, event.call, event.sent)
            for event in state.events.values()
        }
        self._pruned = self._over()
        self._connected = False
        self._generation = ""
        self._queue: deque[_Pending] = deque()  # to be written on this connection, by number
        self._flying: dict[int, int] = {}  # frames without an answer, by the number they carry: their last number
        self._taken = 0  # the server has all up to here once it has read what was written
        self._returned: list[_Pending] | None = None  # nacked; while this is a list, nothing is written
        self._retry_at: float | None = None
        self._stalls = 0  # nacks in a row that came without any progress between them

    @property
    def pending(self) -> int:
        """How many events have no outcome yet, those not counted that were given up."""
        return sum(event.payload is not None for event in self._pending.values())

    def start(self) -> list[Action]:
        """Give up the calls of an earlier program: nobody waits for them."""
        actions: list[Action] = []
        for event in [event for event in self._pending.values() if event.call and event.payload is not None]:
            self._give_up(event, actions)
        return actions

    def emit(self, payload: bytes, *, call: bool = False) -> tuple[int, list[Action]]:
        """Take a new event; return its number and what is to be done.

        Raises:
            OverflowError: there are no numbers left after 2^53 - 1.

        """
        number = self._last + 1
        if number > MAX_NUMBER:
            raise OverflowError("this producer has given away its last number; begin a new outbox")
        self._last = number
        event = self._pending[number] = _Pending(number, payload, call, None)
        actions: list[Action] = [Store(Emitted(number, payload, call))]
        if self._connected:
            self._queue.append(event)
            self._write(actions)
        return number, actions

    # --- the connection

    def connected(self, generation: str, last: int) -> list[Action]:
        """Go on with a server that told its ``generation`` and the ``last`` number it has taken (0: none)."""
        self._forget_connection()
        self._connected = True
        self._generation = generation
        self._taken = last
        self._queue.extend(self._pending.values())
        actions: list[Action] = []
        if last > self._last:
            self._last = last
            actions.append(Store(Passed(last)))
        self._write(actions)
        return actions

    def disconnected(self) -> list[Action]:
        """Keep everything until the next connection."""
        self._forget_connection()
        return []

    def tick(self, now: float) -> list[Action]:
        """Go on if the time is over that a nack asked for."""
        actions: list[Action] = []
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            self._resume(actions)
        return actions

    # --- answers

    def replied(self, number: int, reply: bytes) -> list[Action]:
        """Take the reply to an event."""
        return self._ended(number, Resolve(number, reply))

    def refused(self, number: int, code: Refusal) -> list[Action]:
        """Take the server's word that an event has no reply."""
        return self._ended(number, Fail(number, code))

    def skipped(self, first: int) -> list[Action]:
        """Take the answer to a `Skip`."""
        actions: list[Action] = []
        upto = self._flying.pop(first, None)
        if upto is None:
            return actions
        event = self._pending.get(upto)
        if event is not None and event.stage is _SKIPPING:
            del self._pending[upto]
        self._progress(actions)
        return actions

    def nack(
        self, number: int, expect: int, now: float, *, retry_after: float = 0.0, generation: str | None = None
    ) -> list[Action]:
        """Take the answer that a frame did nothing, by the number (the first number) it carried.

        The server expects the number ``expect``, in ``retry_after`` seconds, and says its ``generation`` if it is
        known: if another one than before, then that of this connection from now on.
        """
        actions: list[Action] = []
        upto = self._flying.pop(number, None)
        if upto is None:
            return actions
        if generation is not None:
            self._generation = generation
        if self._returned is None:
            self._returned = []
            self._stalls += 1
        self._taken = max(0, min(self._taken, expect - 1, number - 1))
        self._take_back(upto, actions)
        self._wait(now, retry_after)
        if self._retry_at is not None:
            actions.append(RetryAt(self._retry_at))
        self._resume(actions)
        return actions

    def call_timed_out(self, number: int) -> list[Action]:
        """Give up an event whose caller does not wait any longer; without effect if it has its outcome."""
        actions: list[Action] = []
        event = self._pending.get(number)
        if event is not None and event.payload is not None:
            self._give_up(event, actions)
            if self._connected:
                self._write(actions)
        return actions

    # --- their parts

    def _ended(self, number: int, outcome: Resolve | Fail) -> list[Action]:
        actions: list[Action] = []
        event = self._pending.get(number)
        if event is None or self._flying.pop(number, None) is None:
            return actions
        if event.payload is not None:
            actions.append(outcome)
        del self._pending[number]
        self._progress(actions)
        return actions

    def _progress(self, actions: list[Action]) -> None:
        """Go on after an answer that was no nack."""
        self._stalls = 0
        over = self._over()
        if over > self._pruned:
            self._pruned = over
            actions.append(Prune(over))
        self._resume(actions)

    def _over(self) -> int:
        """Return up to which number all events have their outcome."""
        return next(iter(self._pending)) - 1 if self._pending else self._last

    def _give_up(self, event: _Pending, actions: list[Action]) -> None:
        code: Failure = "outcome_unknown" if event.sent is not None else "withdrawn"
        event.payload = None
        event.stage = _ORPHAN if event.stage is _FLYING else _EMPTY
        actions += (Store(Withdrawn(event.number)), Fail(event.number, code))

    def _forget_connection(self) -> None:
        self._connected = False
        self._queue.clear()
        self._flying.clear()
        self._returned = None
        self._retry_at = None
        self._stalls = 0
        for event in self._pending.values():
            event.fresh = False
            event.stage = _WAITING if event.payload is not None else _EMPTY

    def _take_back(self, number: int, actions: list[Action]) -> None:
        """Note that the frame of an event, or the skip that ended with it, did nothing."""
        event = self._pending.get(number)
        if event is None or self._returned is None or event.stage in (_WAITING, _EMPTY):
            return
        event.stage = _WAITING if event.payload is not None else _EMPTY
        self._returned.append(event)
        if event.fresh:
            event.fresh = False
            event.sent = None
            actions.append(Store(Unsent(number)))

    def _wait(self, now: float, retry_after: float) -> None:
        """Put the next attempt off: as long as was asked for, or longer each time that nothing came of it."""
        if retry_after > 0:
            pause = min(retry_after, MAX_RETRY_SECONDS)
        elif self._stalls > 2:
            pause = min(_RETRY_LIMIT, _RETRY_BASE * 2.0 ** min(self._stalls, 32))
        else:
            return
        self._retry_at = max(now + pause, self._retry_at or now)

    def _resume(self, actions: list[Action]) -> None:
        """Write on, unless a nack keeps us from it: then all frames behind it must have been answered first."""
        if self._returned is not None:
            if self._retry_at is not None or any(first > self._taken for first in self._flying):
                return
            self._queue.extendleft(sorted(self._returned, key=_number, reverse=True))
            self._returned = None
        self._write(actions)

    def _write(self, actions: list[Action]) -> None:
        """Write what fits into the window."""
        if self._returned is not None or not self._queue:
            return
        batch = list(self._batch())
        first = next((event for event in batch if event.sent is None and event.payload is not None), None)
        if first is not None:
            actions.append(Store(Sent(first.number, batch[-1].number, self._generation)))
        for event in batch:
            self._write_one(event, actions)

    def _batch(self) -> Iterator[_Pending]:
        """Take from the queue what fits into the window."""
        end = self._over() + WINDOW
        queue = self._queue
        while queue and queue[0].number <= end:
            yield queue.popleft()

    def _write_one(self, event: _Pending, actions: list[Action]) -> None:
        number = event.number
        if event.payload is None:
            event.stage = _SKIPPING
            self._skip(number, actions)
            return
        if number > self._taken + 1:
            self._skip(number - 1, actions)
        resent = event.sent is not None
        mark = event.sent if event.sent is not None else self._generation
        if not resent:
            event.sent = mark
            event.fresh = True
        event.stage = _FLYING
        self._flying[number] = number
        self._taken = max(self._taken, number)
        actions.append(Send(number, event.payload, mark, resent))

    def _skip(self, upto: int, actions: list[Action]) -> None:
        """Declare what lies between the last number that was written and ``upto``, or ``upto`` again."""
        first = min(self._taken + 1, upto)
        self._taken = max(self._taken, upto)
        self._flying[first] = upto
        actions.append(Skip(first, upto))


def _number(event: _Pending) -> int:
    return event.number
