"""Where a stock Socket.IO client stands in all its streams, as one string (the guarantee, "Stock clients").

Connection state recovery, as socket.io-client has it: with every event comes an offset, the client remembers the last
one, and when it comes back it gives that one back. So one string has to stand for all streams of the client::

    offset   entry head entry*
    entry    38 characters: 28 bytes, of the stream's name 8, the generation's hash 8, the number 8, the tag 4
    head     12 characters: 9 bytes, the version 1, the checkpoint 8

all in base64url (RFC 4648 section 5) without padding, numbers with the highest byte first. The first entry is of the
stream whose event carries the offset; all zeros if there was none yet. The others are, sorted, of the other streams
that moved since the checkpoint. Those that are not listed stand where they stood at the checkpoint. Checkpoint 0 is
CONNECT, where every stream stands at its join. When too many have moved, their positions are stored under another
number, and the offset goes on from there (`Trail.full`).

The number of a checkpoint is random. A client that could not recover keeps its last offset beside the new session until
the first event of that arrives, and must not be believed that it has what the new session counts from.

**Trails.** All clients to which the same has happened since CONNECT, or since their join, share a `Trail`: an event is
written once for each trail in its audience. Whatever ways they came, who has the same others and gets the same event
has the same trail from there on. The entry of an event is the same for everybody, and the rest stays what it is while
events of one stream come: so also those that share nothing else share all but the end of what they are sent.

**Generations.** Eight bytes of a hash keep the entry short and of one length, since the names of generations are the
brokers' own. They are compared with those that the session and the log have now. One that is none of these is of a log
between two failovers, or of another log; nobody can ask a broker about it, so it is not proved.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Mapping
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar
from weakref import WeakValueDictionary, ref

import msgspec

from bellwire.delivery.position import Position

MAX_OTHERS: Final = 8
"""How many streams an offset lists beside its own before a checkpoint is due."""

MAX_ENTRIES: Final = 192
"""How many an offset has at most that comes back: more than a socket has streams, if nobody raised its limits.
What moves until a checkpoint is stored is listed as well."""

_VERSION: Final = 1
_ENTRY: Final = Struct(">8s8sQI")
_HEAD: Final = Struct(">BQ")
_ENTRY_LENGTH: Final = 38
_HEAD_LENGTH: Final = 12
_NOWHERE: Final = "A" * _ENTRY_LENGTH
_is_base64url: Final = re.compile(r"[A-Za-z0-9_-]*").fullmatch
_MAX_SEQ: Final = 2**63 - 1
_MAX_CHECKPOINT: Final = 2**64 - 1

T = TypeVar("T", bound="Trail")


# --- writing


class Mark(msgspec.Struct, frozen=True, gc=False):
    """A position in a stream, and the entry that says so."""

    stream: str
    gen: str
    seq: int
    tag: int
    text: str

    @property
    def at(self) -> Position:
        """The position."""
        return Position(self.gen, self.seq, self.tag)


def make_mark(stream: str, gen: str, seq: int, tag: int) -> Mark:
    """Return what an event at a place of ``stream`` leaves; 16 hexadecimal digits of the name or more are its id."""
    data = _ENTRY.pack(bytes.fromhex(stream[:16]), _hash(gen), seq, tag)
    return Mark(stream, gen, seq, tag, urlsafe_b64encode(data)[:_ENTRY_LENGTH].decode())


mark: Final = lru_cache(maxsize=1024)(make_mark)
"""The same for those who may ask for one mark many times."""


@lru_cache(maxsize=1024)
def _hash(gen: str) -> bytes:
    return blake2b(gen.encode(errors="surrogatepass"), digest_size=8).digest()


class _Tail(Generic[T]):
    """All of a trail but its last mark: what does not change while events of one stream come."""

    __slots__ = ("__weakref__", "_class", "_latest", "checkpoint", "others", "text")

    def __init__(self, class_: "type[T]", checkpoint: int, others: dict[str, Mark], text: str) -> None:
        self.checkpoint = checkpoint
        self.others = others
        self.text = text
        self._class = class_
        self._latest: ref[T] | None = None

    def at(self, mark: Mark | None) -> T:
        """Return the trail with this mark. The newest one is known, so that those who get it share it."""
        latest = None if self._latest is None else self._latest()
        if latest is not None:
            known = latest.mark
            if known is mark or known == mark:
                return latest
            if known is not None and mark is not None and known.stream == mark.stream and known.seq > mark.seq:
                return self._class(self, mark)  # on its way to the newest, through the events of a batch
        trail = self._class(self, mark)
        self._latest = ref(trail)
        return trail


class Trail:
    """What has moved for a client since its last checkpoint. It does not change, and is shared by all who stand alike.

    It may be subclassed by what goes the same way; `like` makes one of another class, and steps keep the class.
    """

    __slots__ = ("__weakref__", "_tail", "mark")

    def __init__(self, tail: "_Tail[Any]", mark: Mark | None) -> None:
        self.mark = mark
        """Of the event that came last, None if there was none."""
        self._tail = tail

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.checkpoint}, {self.moved})"

    @classmethod
    def like(cls, trail: "Trail") -> Self:
        """Return the trail of this class that says the same."""
        return _tail(cls, trail.checkpoint, trail._tail.others).at(trail.mark)

    @property
    def checkpoint(self) -> int:
        """The number of the checkpoint from which it counts, 0 for CONNECT."""
        return self._tail.checkpoint

    @property
    def offset(self) -> str:
        """The string that a client gets now, with an event in no stream for example."""
        return (_NOWHERE if self.mark is None else self.mark.text) + self._tail.text

    @property
    def tail(self) -> str:
        """The offset behind its first entry, which is that of ``mark``."""
        return self._tail.text

    def step(self, mark: Mark) -> Self:
        """Return the trail of those who were given the event that leaves this mark; it has the event's offset.

        Take the same step where nothing between two points was for the client: then it stands at the second one.
        """
        last = self.mark
        tail: _Tail[Self] = self._tail
        if last is None:
            if mark.stream in tail.others:
                tail = self._turned(mark.stream)
        elif last.stream != mark.stream:
            tail = self._turned(mark.stream)
        return tail.at(mark)

    def _turned(self, stream: str) -> "_Tail[Self]":
        others, last = self._tail.others.copy(), self.mark
        if last is not None:
            others[last.stream] = last
        others.pop(stream, None)
        return _tail(type(self), self.checkpoint, others)

    @property
    def full(self) -> bool:
        """Whether a checkpoint is due: store a `vector` under a new number, then call `checkpointed`."""
        return len(self._tail.others) > MAX_OTHERS

    @property
    def moved(self) -> dict[str, Position]:
        """Where the client stands in the streams that moved since the checkpoint."""
        moved = {stream: mark.at for stream, mark in self._tail.others.items()}
        if self.mark is not None:
            moved[self.mark.stream] = self.mark.at
        return moved

    def vector(self, before: Mapping[str, Position], streams: Collection[str]) -> dict[str, Position]:
        """Return what is to be stored as a checkpoint.

        ``before`` is the vector of the checkpoint that this trail goes on from, empty for 0; ``streams`` are those that
        the session still has.
        """
        kept = {stream: at for stream, at in before.items() if stream in streams}
        return kept | self.moved

    def checkpointed(self, checkpoint: int, vector: Mapping[str, Position]) -> Self:
        """Return the trail that goes on from ``vector``, which is stored; what has moved meanwhile is still listed.

        The number is random, from 1 to 2^64 - 1; ValueError if it is not. Whoever gets an offset with it has got all
        that was sent before, and so stands beyond the vector.
        """
        if not 1 <= checkpoint <= _MAX_CHECKPOINT:
            raise ValueError(f"a checkpoint has a number from 1 to 2^64 - 1, not {checkpoint}")
        others = {stream: mark for stream, mark in self._tail.others.items() if vector.get(stream) != mark.at}
        return _tail(type(self), checkpoint, others).at(self.mark)


_tails: Final[WeakValueDictionary[tuple[type[Trail], str], _Tail[Any]]] = WeakValueDictionary()


def _tail(class_: type[T], checkpoint: int, others: dict[str, Mark]) -> _Tail[T]:
    head = urlsafe_b64encode(_HEAD.pack(_VERSION, checkpoint)).decode()
    text = head + "".join(sorted([mark.text for mark in others.values()]))
    tail: _Tail[T] | None = _tails.get((class_, text))
    if tail is None:
        tail = _tails[class_, text] = _Tail(class_, checkpoint, others, text)
    return tail


CONNECTED: Final = _tail(Trail, 0, {}).at(None)
"""The trail of a client that nothing was sent to yet."""


# --- reading


class Entry(NamedTuple):
    """Where a client says that it stands in a stream; ``gen`` is the generation's hash."""

    gen: bytes
    seq: int
    tag: int


class Offset(NamedTuple):
    """What an offset says: of each stream that moved since the checkpoint, by the first 16 digits of its name."""

    checkpoint: int
    entries: dict[str, Entry]


def decode(offset: str) -> Offset:
    """Read an offset. Raises ValueError if it is none that could have been written."""
    count, rest = divmod(len(offset) - _HEAD_LENGTH, _ENTRY_LENGTH)
    if rest or not 1 <= count <= MAX_ENTRIES:
        raise ValueError("an offset of no possible length")
    if _is_base64url(offset) is None:
        raise ValueError("an offset with other characters than those of base64url")
    version, checkpoint = _HEAD.unpack(_bytes(offset[_ENTRY_LENGTH : _ENTRY_LENGTH + _HEAD_LENGTH]))
    if version != _VERSION:
        raise ValueError(f"an offset of version {version}")
    own = offset[:_ENTRY_LENGTH]
    texts = [] if own == _NOWHERE else [own]
    texts += [offset[start : start + _ENTRY_LENGTH] for start in range(50, len(offset), _ENTRY_LENGTH)]
    entries = dict(map(_entry, texts))
    if len(entries) < len(texts):
        raise ValueError("an offset that names a stream twice")
    return Offset(checkpoint, entries)


def _entry(text: str) -> tuple[str, Entry]:
    stream, gen, seq, tag = _ENTRY.unpack(_bytes(text))
    if not 1 <= seq <= _MAX_SEQ:
        raise ValueError("an offset with a number out of range")
    return stream.hex(), Entry(gen, seq, tag)


def _bytes(text: str) -> bytes:
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if urlsafe_b64encode(data).rstrip(b"=") != text.encode():
        raise ValueError("an offset with bits where there are none")
    return data


# --- resuming


class Standing(NamedTuple):
    """Where a client stands in each stream of its session, not proved yet, and the trail that it goes on with."""

    positions: dict[str, Position]
    trail: Trail


def stand(
    offset: object,
    joined: Mapping[str, Position],
    vectors: Mapping[int, Mapping[str, Position]],
    present: Mapping[str, str],
) -> Standing:
    """Return where a client stands that comes back with ``offset``, None if it has none: then nothing ever arrived.

    ``joined`` are the streams of the session, with the position from which on the client is in each; it gets nothing
    from before, whatever it says. ``vectors`` are the checkpoints that the session has, ``present`` the generations
    that the logs of its streams have now.

    Raises:
        ValueError: the offset does not fit to the session, and the client cannot recover.

    """
    if not isinstance(offset, str | None):
        raise ValueError("an offset that is no string")
    claim = _NOTHING if offset is None else decode(offset)
    vector = vectors.get(claim.checkpoint) if claim.checkpoint else {}
    if vector is None:
        raise ValueError("an offset from a checkpoint that the session does not have")
    positions: dict[str, Position] = {}
    moved: dict[str, Mark] = {}
    for stream, start in joined.items():
        at = max(start, vector.get(stream, start), key=lambda at: at.seq)
        entry = claim.entries.get(stream[:16])
        if entry is not None and entry.seq > at.seq:
            gens = (at.gen, start.gen, present.get(stream, at.gen))
            moved[stream] = mark(stream, _resolve(entry.gen, gens), entry.seq, entry.tag)
            at = moved[stream].at
        positions[stream] = at
    return Standing(positions, _tail(Trail, claim.checkpoint, moved).at(None))


def claimed(
    offset: object, streams: Collection[str], vectors: Mapping[int, Mapping[str, Position]]
) -> dict[str, Position]:
    """Return where a client says that it stands in those of ``streams`` that it still knows, all under no generation.

    Raises ValueError: ``offset`` is none.
    """
    claim = decode(offset) if isinstance(offset, str) else _NOTHING
    entries = {stream: claim.entries[stream[:16]] for stream in streams if stream[:16] in claim.entries}
    stood = {stream: at for stream, at in vectors.get(claim.checkpoint, {}).items() if stream in streams}
    return stood | {stream: Position("", entry.seq, entry.tag) for stream, entry in entries.items()}


_NOTHING: Final = Offset(0, {})


def _resolve(gen: bytes, candidates: Collection[str]) -> str:
    for candidate in candidates:
        if _hash(candidate) == gen:
            return candidate
    raise ValueError("an offset of a generation that is not known any more")
