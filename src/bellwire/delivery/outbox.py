"""What a producer keeps of its events until each has an outcome ("Up: client to server").

The records, in the order in which they may be stored, and what each does to the state::

    Opened(producer, last)            the first of all: who this is, and the last number given away
    Emitted(number, payload, call)    a new event, ``last`` is its number
    Sent(first, last, generation)     those of these events that have no mark are marked with the generation
    Unsent(number)                    the mark is taken off again: the server said that it did nothing
    Withdrawn(number)                 given up: the payload goes, the number stays until the server skipped it
    Pruned(upto)                      the events up to this number are over
    Passed(last)                      the server knows numbers up to this one: the next events come after it
    Resumable(session)                the secret of the session; none, and no cursors, if it is empty
    Reached(stream, gen, seq, tag)    what the program has handled of a stream of that session
    Left(stream)                      nothing of the stream is to be handled any more

The last three are no business of the producer's. They lie here so that a program that begins again finds where it
stood together with what it was about to send; one of them that is lost has something handed over once more.

A record that is stored must be on the disk before what comes after it in a producer's actions happens; how sure that
is (``write``, ``fsync``) is for the one to decide who writes the file. Without fsync a power failure can take back
marks, and an event whose mark is gone may run twice if the server loses its state in the same moment.

A file is a header and frames, only ever appended to::

    header   8 bytes    b"BWOUTBX" and the version, 1
    frame    4 bytes    the length of the body, big-endian
             4 bytes    CRC-32 of the four bytes before and of the body
             body       one record, msgpack, an array that begins with its tag

What a crash leaves at the end of a file is not a frame, or one whose sum is wrong. `replay` stops there and says how
much is good: the file is cut to that length before anything is appended. From time to time it is written anew from
the state (`compact`), under another name, and renamed.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

import msgspec
from typing_extensions import override

from bellwire.core.errors import BellwireError
from bellwire.delivery.position import Position

HEADER: Final = b"BWOUTBX\x01"

MAX_BODY: Final = 64 * 1024 * 1024
"""The longest body of a frame, in bytes: a length beyond it is none."""

COMPACT_BYTES: Final = 256 * 1024
"""A file is not written anew before it is this long, and four times as long as what it holds."""

_FRAME: Final = 8


class Opened(msgspec.Struct, frozen=True, array_like=True, tag="o", gc=False):
    """Who the producer is, and the last number it has given away."""

    producer: str
    last: int = 0


class Emitted(msgspec.Struct, frozen=True, array_like=True, tag="e", gc=False):
    """A new event; ``call``: somebody waits for its reply."""

    number: int
    payload: bytes
    call: bool = False


class Sent(msgspec.Struct, frozen=True, array_like=True, tag="s", gc=False):
    """The events from ``first`` to ``last`` are about to be written to a server of this generation."""

    first: int
    last: int
    generation: str


class Unsent(msgspec.Struct, frozen=True, array_like=True, tag="u", gc=False):
    """No server has done anything with the event, or will."""

    number: int


class Withdrawn(msgspec.Struct, frozen=True, array_like=True, tag="w", gc=False):
    """Nobody waits for the event any more."""

    number: int


class Pruned(msgspec.Struct, frozen=True, array_like=True, tag="p", gc=False):
    """The events up to ``upto`` are over."""

    upto: int


class Passed(msgspec.Struct, frozen=True, array_like=True, tag="n", gc=False):
    """Numbers up to ``last`` are taken."""

    last: int


class Resumable(msgspec.Struct, frozen=True, array_like=True, tag="r", gc=False):
    """The session can be resumed with this secret; with an empty one there is none."""

    session: str


class Reached(msgspec.Struct, frozen=True, array_like=True, tag="c", gc=False):
    """All up to this position of a stream has been handled."""

    stream: str
    gen: str
    seq: int
    tag: int


class Left(msgspec.Struct, frozen=True, array_like=True, tag="x", gc=False):
    """The stream is closed, and all of it was handled."""

    stream: str


OutboxRecord: TypeAlias = Opened | Emitted | Sent | Unsent | Withdrawn | Pruned | Passed | Resumable | Reached | Left


class Event:
    """An event without an outcome; ``payload`` is None once it is withdrawn, ``sent`` its mark."""

    __slots__ = ("call", "number", "payload", "sent")

    def __init__(self, number: int, payload: bytes | None, call: bool = False, sent: str | None = None) -> None:
        self.number = number
        self.payload = payload
        self.call = call
        self.sent = sent


class State:
    """What the records stored so far amount to.

    ``events`` are by number, in the order of their numbers; ``cursors`` by stream, and only with a ``session``.
    """

    __slots__ = ("cursors", "events", "last", "producer", "session", "size")

    def __init__(self, producer: str) -> None:
        self.producer = producer
        self.last = 0
        self.events: dict[int, Event] = {}
        self.size = 0  # bytes of payload
        self.session: str | None = None
        self.cursors: dict[str, Position] = {}

    def apply(self, record: OutboxRecord) -> None:
        """Change the state as the table above says; what does not fit the state is passed over."""
        match record:
            case Emitted(number, payload, call):
                self._add(Event(number, payload, call))
            case Sent(first, last, generation):
                self._mark(first, last, generation)
            case Pruned(upto):
                self._prune(upto)
            case Unsent(number):
                if number in self.events:
                    self.events[number].sent = None
            case Withdrawn(number):
                self._withdraw(number)
            case Passed(last):
                self.last = max(self.last, last)
            case Opened(producer, last):
                self.producer = producer
                self.last = max(self.last, last)
            case _:
                self._read(record)

    def records(self) -> Iterator[OutboxRecord]:
        """Return the records that make this state out of nothing."""
        yield Opened(self.producer, self.events[next(iter(self.events))].number - 1 if self.events else self.last)
        for event in self.events.values():
            yield Emitted(event.number, event.payload or b"", event.call)
            if event.sent is not None:
                yield Sent(event.number, event.number, event.sent)
            if event.payload is None:
                yield Withdrawn(event.number)
        yield Passed(self.last)
        if self.session is not None:
            yield Resumable(self.session)
        for stream, at in self.cursors.items():
            yield Reached(stream, *at)

    def _read(self, record: Resumable | Reached | Left) -> None:
        match record:
            case Reached(stream, gen, seq, tag):
                self.cursors[stream] = Position(gen, seq, tag)
            case Left(stream):
                self.cursors.pop(stream, None)
            case Resumable(session):
                self.session = session or None
                if not session:
                    self.cursors.clear()

    def _add(self, event: Event) -> None:
        if event.number > self.last:
            self.last = event.number
            self.events[event.number] = event
            self.size += len(event.payload or b"")

    def _mark(self, first: int, last: int, generation: str) -> None:
        for number in range(first, min(last, self.last) + 1):
            event = self.events.get(number)
            if event is not None and event.sent is None:
                event.sent = generation

    def _withdraw(self, number: int) -> None:
        event = self.events.get(number)
        if event is not None:
            self.size -= len(event.payload or b"")
            event.payload = None

    def _prune(self, upto: int) -> None:
        while self.events and (number := next(iter(self.events))) <= upto:
            self._withdraw(number)
            del self.events[number]


class Outbox(ABC):
    """Where a producer stores what it must not forget."""

    __slots__ = ()

    @property
    @abstractmethod
    def state(self) -> State:
        """What has been stored, for the producer to begin with."""

    @abstractmethod
    def store(self, record: OutboxRecord) -> None:
        """Keep ``record``; when this returns, it outlives whatever this outbox is made to outlive.

        Raises:
            OSError: it could not be kept; nothing that comes after it in the producer's actions may happen.

        """


class MemoryOutbox(Outbox):
    """Outlives connections, but not the program; ``producer`` is 32 lower-case hexadecimal digits, drawn at random."""

    __slots__ = ("_state",)

    def __init__(self, producer: str) -> None:
        self._state = State(producer)

    @property
    @override
    def state(self) -> State:
        return self._state

    @override
    def store(self, record: OutboxRecord) -> None:
        self._state.apply(record)


# --- the file's format

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(OutboxRecord).decode


def encode_record(record: OutboxRecord) -> bytes:
    """Return the frame that is appended to a file for ``record``."""
    body = _encode(record)
    length = len(body).to_bytes(4, "big")
    return length + zlib.crc32(body, zlib.crc32(length)).to_bytes(4, "big") + body


def begin(producer: str) -> bytes:
    """Return what a new file begins with."""
    return HEADER + encode_record(Opened(producer))


def compact(state: State) -> bytes:
    """Return a whole file that holds ``state``."""
    return HEADER + b"".join(map(encode_record, state.records()))


def worth_compacting(file_size: int, state: State) -> bool:
    """Whether a file of ``file_size`` bytes should be written anew."""
    return file_size >= COMPACT_BYTES and file_size > 4 * (
        state.size + 64 * len(state.events) + 256 * len(state.cursors)
    )


class Replayed(NamedTuple):
    """What a file held: its state (None: not even who the producer is) and how many of its bytes are good."""

    state: State | None
    good: int


def replay(data: bytes) -> Replayed:
    """Read a file as far as it is whole.

    Raises:
        BellwireError: the file is none of this kind, or of another version. It is nothing that a crash can leave, and
            to begin a new one in its place would forget events.

    """
    if data[: len(HEADER)] != HEADER[: len(data)]:
        raise BellwireError("the file is no outbox of version 1; give another path, or move the file away")
    state: State | None = None
    good = len(HEADER)
    for record, end in _frames(data, good):
        if state is None:
            if not isinstance(record, Opened):
                break
            state = State(record.producer)
        state.apply(record)
        good = end
    return Replayed(state, good if state is not None else 0)


def _frames(data: bytes, start: int) -> Iterator[tuple[OutboxRecord, int]]:
    """Return the records from ``start`` on, each with where it ends, up to the first that is damaged."""
    view = memoryview(data)
    while start + _FRAME <= len(data):
        body = start + _FRAME
        length = int.from_bytes(view[start : start + 4], "big")
        end = body + length
        if length > MAX_BODY or end > len(data):
            return
        checked = zlib.crc32(view[body:end], zlib.crc32(view[start : start + 4]))
        if checked != int.from_bytes(view[start + 4 : body], "big"):
            return
        try:
            record = _decode(view[body:end])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BellwireError(f"the outbox holds a record this program does not know: {error}") from None
        yield record, end
        start = end
