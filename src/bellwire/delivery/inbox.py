"""What a server keeps of a producer, and what becomes of an event that arrives ("Up: client to server").

A producer numbers its events 1, 2, 3, … and sends an event again, with its number, until it has an answer. Its record
holds the last number taken and the newest outcomes; of all numbers only the last can be *open*, which is to say
without an outcome. What arrives is judged by the first row that fits (`receive`)::

    number      on record                                       verdict                     written
    ≤ last      no outcome (it is too old, or was skipped)      Refuse producer_unknown
    ≤ last      another payload                                 Refuse idempotency_mismatch
    ≤ last      an outcome                                      Answer, or Refuse
    = last      started by me: my write, read back              Run                         started, lease
    = last      started, the lease runs                         Wait
    = last      started, the lease is over: runs again          Run                         started, lease
                                            does not            Refuse outcome_unknown      outcome_unknown
    = last      relaying, before its deadline                   Complete
    = last      relaying, beyond it                             Wait
    = last      relaying, beyond the dedupe window              Refuse outcome_unknown      outcome_unknown
    > last      the last one is open                            as above: Wait, Complete; when nobody has it
                                                                any more, Nack expect last
    > last + 1  -                                               Nack expect last + 1
    = last + 1  another mark, resent: of this broker, for a     Refuse producer_unknown     producer_unknown
                record that expired
                                  of another broker             Refuse outcome_unknown      outcome_unknown
    = last + 1  another mark, new                               Nack, with this generation
    = last + 1  a relay                                         Run
    = last + 1  any other                                       Run                         started, lease

An outcome, once written, is final: `finish`, `commit` and `complete` write only where none is, and `finish` only for
the lease that is on record, so a process that was stopped and wakes finds that it lost and writes nothing.

**A number runs only in the generation it is marked with.** The generation that a client is told is the broker's,
which changes when the broker may have lost writes, and the record's own birth, which changes when it expired. Before
an event is written to a connection for the first time, the client stores the generation told on it, and the mark goes
along with the event. If an event is sent again that is not on record, under a mark that is not of now, it may have run
in a state that is gone: it never runs again. A new one, whose mark is wrong because the broker changed under a live
connection, is turned away once, to come again under the right one.

All functions are pure: a record (None: none is stored) in, a `Decision` out. Whoever stores records reads one, calls,
and writes what came back by compare-and-set against what it read, from the start again if that fails. Reading says
under which generation the broker answered, and the broker's time: no client's time is in any decision.
"""

from typing import Final, Literal, TypeAlias

import msgspec

from bellwire.core.errors import BellwireError
from bellwire.delivery.effects import APPEND_SECONDS, DEDUPE_SECONDS, RULES, Effect, Emission

WINDOW: Final = 32
"""How many numbers a producer may be ahead of its oldest one without an outcome, and how many outcomes are held."""

HELD_BYTES: Final = 256 * 1024
"""How many bytes of outcomes a record holds; the newest is held whatever its size, the oldest ones give way."""

RECORD_SECONDS: Final = 24 * 3600.0
"""How long a record lives after it was written last."""

GREETED_SECONDS: Final = 600.0
"""The same for the record of a producer that has sent nothing yet: whoever connects makes one."""

LEASE_SECONDS: Final = 30.0
"""How long a started event belongs to the process that started it; it renews at a third."""

_VERSION: Final = 1

Refusal: TypeAlias = Literal["producer_unknown", "idempotency_mismatch", "outcome_unknown"]
"""Why an event has no reply: ``producer_unknown`` no outcome is held any more, ``idempotency_mismatch`` the number
stands for another payload and nothing was done, ``outcome_unknown`` it may have taken effect or not."""


# --- what is stored


class Held(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The outcome of a number: a reply as it is encoded on the wire, or why there is none."""

    number: int
    digest: bytes
    reply: bytes
    refusal: Refusal | None = None


class Started(msgspec.Struct, frozen=True, array_like=True, tag="started"):
    """A handler runs, or ran when its process died; ``until`` is the end of the lease in the broker's time."""

    digest: bytes
    effect: Effect
    lease: str
    until: float
    again: bool = False


class Relaying(msgspec.Struct, frozen=True, array_like=True, tag="relaying"):
    """A relay has returned and its emissions are to be appended; ``since`` is when that was stored."""

    digest: bytes
    reply: bytes
    emissions: tuple[Emission, ...]
    since: float

    @property
    def deadline(self) -> float:
        """Until when the emissions may be appended, in the broker's time."""
        return self.since + APPEND_SECONDS


class Record(msgspec.Struct, frozen=True, array_like=True):
    """All that is known of a producer. ``open`` belongs to the number ``last``, ``held`` ends with the newest."""

    version: int
    born: str
    """Random, drawn when the record was made."""
    last: int = 0
    held: tuple[Held, ...] = ()
    open: Started | Relaying | None = None


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Record).decode


def encode_record(record: Record) -> bytes:
    """Encode a record to be stored (msgpack, an array that begins with the version)."""
    return _encode(record)


def decode_record(data: bytes) -> Record:
    """Decode a stored record.

    Raises:
        BellwireError: it is none, or of a version that this program does not know. It must not be taken for no record:
            what ran would run again.

    """
    try:
        record = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BellwireError(f"a producer's record cannot be read: {error}") from None
    if record.version != _VERSION:
        raise BellwireError(f"a producer's record has version {record.version}, this program knows {_VERSION}")
    return record


# --- what is asked


class Arrival(msgspec.Struct, frozen=True):
    """An event that came in."""

    number: int
    digest: bytes
    effect: Effect
    generation: str
    """The generation that the client marked the event with."""
    resent: bool
    """Whether the client may have sent it before."""


class View(msgspec.Struct, frozen=True):
    """Under which circumstances a record was read."""

    generation: str
    """The broker's generation, read with the record."""
    now: float
    """The broker's time in seconds."""
    lease: str
    """What the caller signs its lease with: at least 64 random bits, drawn anew for each event it handles."""


# --- what is answered


class Run(msgspec.Struct, frozen=True):
    """Run the handler; ``again``: a process that died may have run it before."""

    again: bool


class Answer(msgspec.Struct, frozen=True):
    """The event has been handled: send this reply, the same bytes each time."""

    reply: bytes


class Refuse(msgspec.Struct, frozen=True):
    """The event has no reply, for good."""

    code: Refusal


class Wait(msgspec.Struct, frozen=True):
    """Somebody is at it: judge again at ``until`` (the broker's time), or as soon as the record changes."""

    until: float


class Complete(msgspec.Struct, frozen=True):
    """The relay of ``number`` is not done: append its emissions, then judge again. To do it twice does no harm."""

    number: int
    relay: Relaying


class Nack(msgspec.Struct, frozen=True):
    """Nothing was done and the number is not taken: send from ``expect`` on, under ``generation``.

    ``retry_after`` (seconds) comes from a rate or a broker that is away; then ``expect`` is the number itself.
    """

    expect: int
    generation: str
    retry_after: float = 0.0


class Skipped(msgspec.Struct, frozen=True):
    """The numbers up to ``upto`` will never run, unless they did."""

    upto: int


class Connected(msgspec.Struct, frozen=True):
    """What a client is told when it connects: the generation, and the last number taken (0: none)."""

    generation: str
    last: int


Verdict: TypeAlias = Run | Answer | Refuse | Wait | Complete | Nack | Skipped

Decision: TypeAlias = tuple[Verdict, Record | None]
"""A verdict, and the record that must be stored before it is true (None: nothing to store)."""


# --- the rules


def lifetime(record: Record) -> float:
    """Return for how many seconds a record is to be stored."""
    return RECORD_SECONDS if record.last else GREETED_SECONDS


def connect(record: Record | None, view: View) -> tuple[Connected, Record]:
    """Greet a producer. The record is always written, so that it lives on for its time."""
    record = record or _new(view)
    return Connected(_told(record, view), record.last), record


def receive(record: Record | None, arrival: Arrival, view: View) -> Decision:
    """Judge an event by the table at the top of this file."""
    if record is None:
        made = _new(view)
        verdict, changed = _judge(made, arrival, view)
        return verdict, changed or made
    return _judge(record, arrival, view)


def settle(record: Record | None, arrival: Arrival, reply: bytes, view: View) -> Decision:
    """Judge an event that needs no handler: its reply is known, for instance the refusal of a wrong payload."""
    verdict, changed = receive(record, arrival, view)
    if record is None or type(verdict) is not Run:
        return verdict, changed
    if verdict.again:  # it was right once, and a handler may have run
        return Refuse("outcome_unknown"), _unknown(record, arrival.number, arrival.digest)
    return Answer(reply), _close(record, Held(arrival.number, arrival.digest, reply))


def renew(record: Record | None, number: int, view: View) -> tuple[bool, Record | None]:
    """Prolong the lease on ``number``; False if it is no longer the caller's."""
    mine = _mine(record, number, view.lease)
    if record is None or mine is None:
        return False, None
    started = Started(mine.digest, mine.effect, mine.lease, view.now + LEASE_SECONDS, mine.again)
    return True, _opened(record, number, started)


def finish(record: Record | None, number: int, reply: bytes, view: View) -> Decision:
    """Record what the handler of a started event returned, if the lease is still the caller's."""
    mine = _mine(record, number, view.lease)
    if record is not None and mine is not None:
        return Answer(reply), _close(record, Held(number, mine.digest, reply))
    return _found(record, number, view), None


def commit(
    record: Record | None, arrival: Arrival, reply: bytes, emissions: tuple[Emission, ...], view: View
) -> Decision:
    """Record what a relay returned and wants emitted; the first to write decides. Without emissions it is done."""
    verdict, changed = receive(record, arrival, view)
    if record is None or type(verdict) is not Run:
        return verdict, changed
    if not emissions:
        return Answer(reply), _close(record, Held(arrival.number, arrival.digest, reply))
    relay = Relaying(arrival.digest, reply, emissions, view.now)
    return Complete(arrival.number, relay), _opened(record, arrival.number, relay)


def complete(record: Record | None, number: int, relay: Relaying, view: View) -> Decision:
    """Record that all emissions of a relay are appended."""
    if record is not None and record.last == number:
        still = record.open
        if isinstance(still, Relaying) and still.digest == relay.digest:
            return Answer(still.reply), _close(record, Held(number, still.digest, still.reply))
    return _found(record, number, view), None


def unfinished(record: Record | None, view: View) -> tuple[Complete | Wait | None, Record | None]:
    """Look for a relay to complete: what a node asks about a producer in the index of such. None: not any more."""
    if record is None or not isinstance(record.open, Relaying):
        return None, None
    lapsed = _lapse(record, view)
    if lapsed is not record:
        return None, lapsed
    return _relaying(record.last, record.open, view), None


def skip(record: Record | None, first: int, upto: int, view: View) -> Decision:
    """Take the numbers from ``first`` to ``upto`` without running anything: their client gave them up."""
    stored = record
    record = _lapse(record or _new(view), view)
    changed = None if record is stored else record
    if upto < record.last or (upto == record.last and record.open is None):
        return Skipped(upto), changed
    if record.open is not None:
        verdict = _busy(record, view)
        if type(verdict) is not Nack:
            return verdict, changed
        if first > record.last:
            return verdict, changed
        record = _unknown(record, record.last, record.open.digest)
    if first > record.last + 1:
        return Nack(record.last + 1, _told(record, view)), changed
    return Skipped(upto), msgspec.structs.replace(record, last=upto)


# --- their parts


def _judge(record: Record, arrival: Arrival, view: View) -> Decision:
    if record.open is not None:
        lapsed = _lapse(record, view)
        if lapsed is not record:
            verdict, changed = _judge(lapsed, arrival, view)
            return verdict, changed or lapsed
    if arrival.number <= record.last:
        return _repeated(record, arrival, view)
    if record.open is not None:
        return _busy(record, view), None
    if arrival.number > record.last + 1:
        return Nack(record.last + 1, _told(record, view)), None
    return _next(record, arrival, view)


def _next(record: Record, arrival: Arrival, view: View) -> Decision:
    """Judge the number that is expected."""
    told = _told(record, view)
    if arrival.generation != told:
        if not arrival.resent:
            return Nack(arrival.number, told), None
        expired = _broker_of(arrival.generation) == view.generation
        code: Refusal = "producer_unknown" if expired else "outcome_unknown"
        return Refuse(code), _close(record, Held(arrival.number, arrival.digest, b"", code))
    if not RULES[arrival.effect].started:
        return Run(again=False), None
    return Run(again=False), _opened(record, arrival.number, _started(arrival, view, again=False))


def _repeated(record: Record, arrival: Arrival, view: View) -> Decision:
    """Judge a number that was taken before."""
    if arrival.number < record.last or record.open is None:
        return _held(record, arrival), None
    still = record.open
    if still.digest != arrival.digest:
        return Refuse("idempotency_mismatch"), None
    if isinstance(still, Relaying):
        return _relaying(record.last, still, view), None
    if still.lease == view.lease:
        return Run(still.again), _opened(record, record.last, _started(arrival, view, again=still.again))
    if view.now < still.until:
        return Wait(still.until), None
    if still.effect != arrival.effect:  # the handler was given another effect while this one lay here
        return Refuse("outcome_unknown"), _unknown(record, record.last, still.digest)
    return Run(again=True), _opened(record, record.last, _started(arrival, view, again=True))


def _held(record: Record, arrival: Arrival) -> Verdict:
    for held in reversed(record.held):
        if held.number == arrival.number:
            return _outcome(held) if held.digest == arrival.digest else Refuse("idempotency_mismatch")
    return Refuse("producer_unknown")


def _found(record: Record | None, number: int, view: View) -> Verdict:
    """Say what became of a number that the caller worked on and that it may not write to."""
    if record is not None:
        for held in record.held:
            if held.number == number:
                return _outcome(held)
        if record.open is not None and record.last == number:
            verdict = _busy(record, view)
            return Wait(view.now) if type(verdict) is Nack else verdict
    return Refuse("outcome_unknown")


def _busy(record: Record, view: View) -> Verdict:
    """Say what an open number that has not lapsed keeps the next ones waiting for."""
    if isinstance(record.open, Relaying):
        return _relaying(record.last, record.open, view)
    if record.open is not None and view.now < record.open.until:
        return Wait(record.open.until)
    return Nack(record.last, _told(record, view))


def _relaying(number: int, relay: Relaying, view: View) -> Complete | Wait:
    if view.now < relay.deadline:
        return Complete(number, relay)
    return Wait(relay.since + DEDUPE_SECONDS)


def _lapse(record: Record, view: View) -> Record:
    """Close the open number as ``outcome_unknown`` if nobody can give it an outcome any more."""
    still = record.open
    if still is None:
        return record
    if isinstance(still, Relaying):
        lost = view.now >= still.since + DEDUPE_SECONDS
    else:
        lost = view.now >= still.until and not RULES[still.effect].again
    return _unknown(record, record.last, still.digest) if lost else record


def _outcome(held: Held) -> Answer | Refuse:
    return Answer(held.reply) if held.refusal is None else Refuse(held.refusal)


def _new(view: View) -> Record:
    return Record(_VERSION, view.lease)


def _mine(record: Record | None, number: int, lease: str) -> Started | None:
    """Return the open number if it was started by the owner of this lease."""
    if record is None or record.last != number or not isinstance(record.open, Started):
        return None
    return record.open if record.open.lease == lease else None


def _started(arrival: Arrival, view: View, *, again: bool) -> Started:
    return Started(arrival.digest, arrival.effect, view.lease, view.now + LEASE_SECONDS, again)


def _opened(record: Record, number: int, still: Started | Relaying) -> Record:
    return Record(record.version, record.born, number, record.held, still)


def _unknown(record: Record, number: int, digest: bytes) -> Record:
    return _close(record, Held(number, digest, b"", "outcome_unknown"))


def _close(record: Record, outcome: Held) -> Record:
    """Add an outcome, and let the oldest ones go that are too many."""
    held = (*record.held, outcome)[-WINDOW:]
    size = sum([len(each.reply) for each in held])
    surplus = 0
    while size > HELD_BYTES and surplus < len(held) - 1:
        size -= len(held[surplus].reply)
        surplus += 1
    return Record(record.version, record.born, outcome.number, held[surplus:])


def _told(record: Record, view: View) -> str:
    """Return the generation as clients are told it."""
    return f"{view.generation}.{record.born}"


def _broker_of(told: str) -> str:
    return told.rpartition(".")[0]
