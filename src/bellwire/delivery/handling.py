"""One event on its way through a node: which steps, in which order ("Up: client to server").

Whoever has the storage, the handlers and the clock does the steps; the machine says which is next, and a crash
between any two of them leaves one of the states in the tables of `inbox` and `effects`::

    state       what came                              next        step
    -           begin                                  JUDGING     Update(receive); with a refusal: Update(settle);
                                                                   of numbers to skip: Update(skip)
    JUDGING     Run                                    RUNNING     Invoke
    JUDGING     Complete                               APPENDING   Append the first copy
    JUDGING     Wait                                   WAITING     Pause
    JUDGING     Answer, Refuse, Nack, Skipped          ENDED       End
    JUDGING     Nack, after the handler has run        ENDED       End(Refuse outcome_unknown): the record is gone,
                                                                   but a nack would say that nothing was done
    WAITING     resumed                                JUDGING     as begin; if a relay has run: Update(commit)
    RUNNING     returned, a relay                      JUDGING     Update(commit)
    RUNNING     returned, any other                    JUDGING     Update(finish)
    JUDGING     too large to be stored, what a         JUDGING     the Update again, with a smaller reply and no
                handler returned                                   emissions
    APPENDING   appended                               APPENDING   Append the next copy
    APPENDING   appended the last one                  CLOSING     Update(complete)
    APPENDING   too late for the deadline              WAITING     Pause until the dedupe window is over
    APPENDING   the broker is another one now          WAITING     as resumed
    CLOSING     what became of this number             as JUDGING
    CLOSING     what became of an earlier number       as WAITING, resumed

A relay's record is stored before its first emission is appended, and ``complete`` after the last, so that every node
that finds the record can do the rest: each copy goes out under the id that `message_id` makes of producer, number
and index, and the broker drops a double. An emission to several streams is appended to one after the other, and each
copy carries the positions of the ones before, which a double is answered with as well.

An append that was not answered is tried again, the same step, until the broker says that it is too late. After a
failover the record is read again before anything is appended: the relay may have been done and its messages taken
back, and later ones may stand there in the meantime. The events of one producer on one connection go through their
machines one after the other: the next begins when this one ended.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from typing import Final, Literal, TypeAlias

import msgspec
from typing_extensions import override

from bellwire.delivery import inbox
from bellwire.delivery.effects import DEDUPE_SECONDS, RULES, Emission, Key, message_id
from bellwire.delivery.entry import Copy
from bellwire.delivery.inbox import (
    Answer,
    Arrival,
    Complete,
    Decision,
    Nack,
    Record,
    Refuse,
    Relaying,
    Run,
    Skipped,
    Verdict,
    View,
    Wait,
)


class Update(msgspec.Struct, frozen=True):
    """Read the producer's record, call ``decide`` on it, and store what it gives by compare-and-set.

    Begin again when that fails, when it is not known whether it did, or when more than a third of
    `inbox.LEASE_SECONDS` lies between the reading and the answer to the write: the lease is as old as the reading.
    Then give the verdict to `Course.decided`.
    ``pending``: the producer must be in the index of unfinished relays before the record is stored (``add``), or may be
    taken out of it afterwards (``remove``). In the same atomic write is best; one too many in it does no harm.
    """

    decide: Callable[[Record | None, View], Decision]
    pending: Literal["add", "remove"] | None = None


class Invoke(msgspec.Struct, frozen=True):
    """Run the handler, then call `Handling.returned`.

    Up to here a node whose broker is away may turn the event away with a `Nack`; from here on never: it tries until
    the broker answers, or ends the connection without an answer, and the client sends the event again under its mark.
    ``key`` is for a transactional handler; ``redelivered`` says that it may have run before. While it runs, the lease
    is renewed (`inbox.renew`) every third of `inbox.LEASE_SECONDS`.
    """

    key: Key | None
    redelivered: bool


class Append(msgspec.Struct, frozen=True):
    """Append to ``stream`` what has not been appended yet under ``mid``, before ``deadline`` in the broker's time.

    ``earlier`` are the streams of the same emission that came before, whether they have a log or not.
    Then call `Course.appended`; or `Course.too_late` if the broker refused it for the deadline. Without an answer,
    do the same step again. It holds only under the generation in which the last `Update` was decided: if the broker
    of the stream has another one by now, nothing may be appended; call `Course.moved`.
    """

    stream: str
    mid: str
    body: bytes
    excluded: tuple[str, ...]
    copies: tuple[Copy, ...]
    deadline: float
    earlier: tuple[str, ...] = ()


class Pause(msgspec.Struct, frozen=True):
    """Wait until this time (the broker's), or until the record has changed, then call `Course.resumed`."""

    until: float


Last: TypeAlias = Answer | Refuse | Nack | Skipped


class End(msgspec.Struct, frozen=True):
    """Answer the client; this machine is done."""

    verdict: Last


Step: TypeAlias = Update | Invoke | Append | Pause | End


class Completion:
    """The appends of one relay, in order; what a node does for itself, and for one that died."""

    __slots__ = ("_copies", "_index", "_producer", "_stream", "number", "relay")

    def __init__(self, producer: str, number: int, relay: Relaying) -> None:
        self.number = number
        self.relay = relay
        self._producer = producer
        self._index = 0
        self._stream = 0
        self._copies: tuple[Copy, ...] = ()
        self._settle()

    def step(self) -> Append | Update:
        """Return what is to be done next."""
        if self._index == len(self.relay.emissions):
            return Update(self._complete, pending="remove")
        emission: Emission = self.relay.emissions[self._index]
        mid = message_id(self._producer, self.number, self._index)
        stream = emission.streams[self._stream]
        earlier = emission.streams[: self._stream]
        return Append(stream, mid, emission.body, emission.excluded, self._copies, self.relay.deadline, earlier)

    def appended(self, copy: Copy | None) -> Append | Update:
        """Go on: the copy stands there now, or did before. None: the stream has no log, nobody could read it."""
        if copy is not None:
            self._copies += (copy,)
        self._stream += 1
        self._settle()
        return self.step()

    def _settle(self) -> None:
        """Go to the next emission that has a stream left."""
        emissions = self.relay.emissions
        while self._index < len(emissions) and self._stream == len(emissions[self._index].streams):
            self._index += 1
            self._stream = 0
            self._copies = ()

    def _complete(self, record: Record | None, view: View) -> Decision:
        return inbox.complete(record, self.number, self.relay, view)


class _State(Enum):
    JUDGING = "judging"
    WAITING = "waiting"
    RUNNING = "running"
    APPENDING = "appending"
    CLOSING = "closing"
    ENDED = "ended"


_JUDGING: Final = _State.JUDGING
_WAITING: Final = _State.WAITING
_RUNNING: Final = _State.RUNNING
_APPENDING: Final = _State.APPENDING
_CLOSING: Final = _State.CLOSING
_ENDED: Final = _State.ENDED


class Course(ABC):
    """What all frames of a producer have in common on their way.

    Methods that do not fit the state raise RuntimeError: the driver is at fault, never a client.
    """

    __slots__ = ("_completion", "_number", "_state", "producer")

    def __init__(self, producer: str, number: int) -> None:
        self.producer = producer
        self._number = number  # a relay of this number ends the course, one of another goes before it
        self._state = _WAITING
        self._completion: Completion | None = None

    @abstractmethod
    def _judge(self) -> Update:
        """Return the step that gives a verdict."""

    def begin(self) -> Step:
        """Return the first step."""
        return self.resumed()

    def resumed(self) -> Step:
        """Judge anew."""
        self._expect(_WAITING)
        self._state = _JUDGING
        return self._judge()

    def decided(self, verdict: Verdict) -> Step:
        """Go on after an `Update`."""
        if self._state is _CLOSING and self._completion is not None:
            if self._completion.number != self._number:
                self._state = _WAITING
                return self.resumed()
        else:
            self._expect(_JUDGING)
        return self._follow(verdict)

    def appended(self, copy: Copy | None) -> Step:
        """Go on after an `Append`."""
        self._expect(_APPENDING)
        return self._append(self._present().appended(copy))

    def too_late(self) -> Step:
        """Go on after an `Append` that was refused for its deadline."""
        self._expect(_APPENDING)
        self._state = _WAITING
        return Pause(self._present().relay.since + DEDUPE_SECONDS)

    def moved(self) -> Step:
        """Go on after an `Append` that was not made, because the broker has another generation now."""
        self._expect(_APPENDING)
        self._state = _WAITING
        return self.resumed()

    def _follow(self, verdict: Verdict) -> Step:
        match verdict:
            case Complete(number, relay):
                self._completion = Completion(self.producer, number, relay)
                return self._append(self._completion.step())
            case Wait(until):
                self._state = _WAITING
                return Pause(until)
            case Run():
                return self._run(verdict)
            case _:
                self._state = _ENDED
                return End(verdict)

    def _run(self, run: Run) -> Step:
        raise RuntimeError("there is no handler to run")

    def _append(self, step: Append | Update) -> Step:
        self._state = _APPENDING if isinstance(step, Append) else _CLOSING
        return step

    def _present(self) -> Completion:
        if self._completion is None:
            raise RuntimeError("no relay is being completed")
        return self._completion

    def _expect(self, state: _State) -> None:
        if self._state is not state:
            raise RuntimeError(f"this step belongs to the state {state.value}, the event is {self._state.value}")


class Handling(Course):
    """Brings one event of ``producer`` (its key) to an answer.

    ``refusal`` is the reply to an event whose handler is not to run, because its payload is wrong for instance.
    """

    __slots__ = ("_arrival", "_invoked", "_refusal", "_result")

    def __init__(self, producer: str, arrival: Arrival, refusal: bytes | None = None) -> None:
        super().__init__(producer, arrival.number)
        self._arrival = arrival
        self._refusal = refusal
        self._invoked = False
        self._result: tuple[bytes, tuple[Emission, ...]] | None = None  # of a relay that has run

    def returned(self, reply: bytes, emissions: tuple[Emission, ...] = ()) -> Step:
        """Go on after an `Invoke`; ``emissions`` are a relay's."""
        self._expect(_RUNNING)
        return self._record(reply, emissions)

    def too_large(self, reply: bytes) -> Step:
        """Go on after an `Update` that holds what a handler returned, and that is too large to be stored.

        ``reply`` says so in its place; what a relay wanted emitted is not emitted.
        """
        self._expect(_JUDGING)
        if not self._invoked:
            raise RuntimeError("no handler has returned anything yet")
        return self._record(reply, ())

    def _record(self, reply: bytes, emissions: tuple[Emission, ...]) -> Step:
        self._state = _JUDGING
        if not RULES[self._arrival.effect].started:
            self._result = (reply, emissions)
            return self._judge()
        return Update(lambda record, view: inbox.finish(record, self._number, reply, view))

    @override
    def _judge(self) -> Update:
        if self._result is not None:
            return Update(self._commit, pending="add")
        return Update(self._receive if self._refusal is None else self._settle)

    @override
    def _follow(self, verdict: Verdict) -> Step:
        if self._invoked and isinstance(verdict, Nack):
            verdict = Refuse("outcome_unknown")
        return super()._follow(verdict)

    @override
    def _run(self, run: Run) -> Step:
        self._state = _RUNNING
        self._invoked = True
        key = Key(self.producer, self._number) if RULES[self._arrival.effect].keyed else None
        return Invoke(key, run.again)

    def _receive(self, record: Record | None, view: View) -> Decision:
        return inbox.receive(record, self._arrival, view)

    def _settle(self, record: Record | None, view: View) -> Decision:
        return inbox.settle(record, self._arrival, self._refusal or b"", view)

    def _commit(self, record: Record | None, view: View) -> Decision:
        reply, emissions = self._result or (b"", ())
        return inbox.commit(record, self._arrival, reply, emissions, view)


class Skipping(Course):
    """Takes the numbers from ``first`` to ``upto``, which the client gave up; what still runs is waited for."""

    __slots__ = ("_first", "_upto")

    def __init__(self, producer: str, first: int, upto: int) -> None:
        super().__init__(producer, 0)
        self._first = first
        self._upto = upto

    @override
    def _judge(self) -> Update:
        return Update(self._skip)

    def _skip(self, record: Record | None, view: View) -> Decision:
        return inbox.skip(record, self._first, self._upto, view)


class Recovering(Course):
    """Completes the relay of a producer that a node may have left in the middle; it ends with `Skipped`.

    A `Pause` comes if it is too late: nothing can be done for it any more.
    """

    __slots__ = ()

    def __init__(self, producer: str) -> None:
        super().__init__(producer, 0)

    @override
    def _judge(self) -> Update:
        return Update(self._look)

    @staticmethod
    def _look(record: Record | None, view: View) -> Decision:
        found, changed = inbox.unfinished(record, view)
        return found or Skipped(0), changed
