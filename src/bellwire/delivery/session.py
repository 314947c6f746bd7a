"""A session as the broker keeps it: where a socket is a member, and who may write that down.

A socket that can recover has a record, written when it connects and whenever it joins or leaves; from it any node can
take the socket up again. One connection at a time holds a session. Whoever takes it up raises the ``fence`` in the
record and puts a random number of its own beside it, the ``holder``. All writes compare with the revision last seen, so
the holder before cannot write any more. When a write was refused or not answered, the holder reads back what stands
there (`judge`)::

    found                                      verdict   means                                 then
    nothing                                    NOTHING   the broker lost it, or its time is    write it anew, unless it
                                                         over                                  was to be removed
    this holder's, the edition just written    MINE      the write was kept                    go on
    this holder's, an earlier edition          MINE      it was not, or not yet                write again
    another's, with a lower fence, or of an    OLDER     the broker fell back behind this      write over it
    older connection (`Record.is_newer`)                 holder
    another's, any other                       TAKEN     somebody took the session up          stop

A holder never writes two editions under one number, so a write that arrives late cannot be taken for another.

All functions are pure: a record in, a record out, the same one if nothing changes. Random numbers are given to them.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Final, NamedTuple

import msgspec

from bellwire.core.errors import BellwireError
from bellwire.delivery.membership import Membership
from bellwire.delivery.position import Position

MAX_LEFT: Final = 128
"""How many memberships that ended are kept for a reader that has not come to their end; the oldest gives way."""

MAX_LOST: Final = 1_024
"""Of how many streams it is remembered that a membership gave way: as many as a client remembers the end of. With more
the session cannot be taken up, for nobody could tell its client all that it has missed."""

MAX_READ: Final = 32
"""How many memberships are remembered beside those, to whose end the reader has come. Of an event to several streams
it may have taken the copy there, and be behind in another stream."""

MAX_CHECKPOINTS: Final = 4
"""How many checkpoints are kept; the oldest gives way, and whoever still names it cannot recover."""

MAX_DATA: Final = 64 * 1024
"""Bytes of an application's own data in a session."""

FIRST_FENCE: Final = 1
"""The fence of a session that nobody has taken up yet: no earlier holder can be about."""

SLOWEST: Final = 60.0
"""Seconds within which a connection takes a session up, or is none any more."""

_VERSION: Final = 1


class Member(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One membership: what the stream is (``kind`` is the server's word for it), and from where to where it reaches."""

    kind: str
    name: str
    joined: Position
    left: Position | None = None

    @property
    def span(self) -> Membership:
        """From which position on, and up to which."""
        return Membership(self.joined, self.left)


class Turn(NamedTuple):
    """Which of a client's connections one is.

    ``attempt`` counts those of one run of its program, from 1 on; 0 if the client does not say. ``since`` is when it
    asked for the session, in the broker's time.
    """

    attempt: int = 0
    since: float = 0.0


FIRST_TURN: Final = Turn()


class Past(NamedTuple):
    """A membership of ``stream`` that has ended."""

    stream: str
    member: Member


class Record(msgspec.Struct, frozen=True, array_like=True):
    """All that is kept of a session.

    Whose it is and in which namespace is not in it: the key that it is kept under is made of that (`session_key`).
    """

    version: int
    id: str
    """The socket's id, which stays the same whoever holds the session."""
    instance: str
    """The run of the client's program that has the session."""
    fence: int
    """How many holders there were, this one included."""
    holder: int
    """64 random bits that this holder drew."""
    edition: int = 0
    """The number of this write."""
    over: bool = False
    """Whether the session has ended; the record then only tells an earlier holder so."""
    streams: dict[str, Member] = {}
    """What the socket is a member of, by stream."""
    left: tuple[Past, ...] = ()
    """What it was a member of, the oldest first: a reader that is behind still has to read up to there."""
    data: bytes = b""
    """The application's own data, encoded."""
    checkpoints: dict[int, dict[str, Position]] = {}
    """By their numbers: where each stream stood that is not named in an offset of that checkpoint."""
    read: tuple[Past, ...] = ()
    """What it was a member of and has read to the end, the oldest first."""
    turn: Turn = FIRST_TURN
    """Which of its connections holds it, or held it last."""
    lost: dict[str, Position] = {}
    """By stream, the end of the newest membership that gave way (`MAX_LEFT`): who has not come there is to be told."""
    node: str = ""
    """Where its holder is, so that it can be told when somebody else takes the session up."""

    def spans(self, stream: str) -> list[Membership]:
        """Return all memberships of ``stream`` that are kept, the oldest first."""
        return [past.member.span for past in self.read if past.stream == stream] + self.unread(stream)

    def unread(self, stream: str, cursor: Position | None = None) -> list[Membership]:
        """Return those that the reader has still to come to the end of.

        One that had come there, and stands at a ``cursor`` from before it now, has to do so again: its program had not
        handled what it had received.
        """
        again = tuple(past for past in self.read if self._is_short(past, cursor))
        spans = [past.member.span for past in (*again, *self.left) if past.stream == stream]
        if stream in self.streams:
            spans.append(self.streams[stream].span)
        return spans

    def members(self, cursors: Mapping[str, Position]) -> dict[str, Member]:
        """Return by stream what a reader at ``cursors`` is a member of, or has still to read."""
        again = {past.stream: past.member for past in self.read if self._is_short(past, cursors.get(past.stream))}
        return again | {past.stream: past.member for past in self.left} | self.streams

    def has_read(self, stream: str, cursor: Position) -> bool:
        """Whether a reader at ``cursor`` has read a membership of ``stream`` to the end, as far as is remembered."""
        return any(past.stream == stream and self._is_reached(past, cursor) for past in self.read)

    def missed(self, cursors: Mapping[str, Position]) -> dict[str, Position]:
        """Return of ``lost`` what a reader at ``cursors`` has to be told: it has not come to the end of those."""
        lost = self.lost.items()
        return {stream: end for stream, end in lost if not _is_at(cursors.get(stream), end, self._unread(stream))}

    def _unread(self, stream: str) -> list[Member]:
        unread = [past.member for past in self.left if past.stream == stream]
        return [*unread, self.streams[stream]] if stream in self.streams else unread

    @property
    def is_patchy(self) -> bool:
        """Whether more has been lost than can be told."""
        return len(self.lost) > MAX_LOST

    def vector(self, k: int) -> Mapping[str, Position] | None:
        """Return checkpoint ``k``, None if it is not kept.

        A stream that is not in it stands where it was joined. Number 0 is the CONNECT, and empty unless it was stored.
        """
        return self.checkpoints.get(k, None if k else {})

    # --- what a holder changes

    def joined(self, stream: str, member: Member) -> "Record":
        """Be a member of ``stream``; being one already changes nothing."""
        if stream in self.streams:
            return self
        return msgspec.structs.replace(self, streams={**self.streams, stream: member})

    def withdrawn(self, stream: str, member: Member) -> "Record":
        """Take ``member`` out as if it had never been; nothing if another membership stands there."""
        if self.streams.get(stream) != member:
            return self
        return msgspec.structs.replace(self, streams=_without(self.streams, stream))

    def departed(self, stream: str, position: Position) -> "Record":
        """Be a member of ``stream`` up to ``position`` only; nothing if it is none."""
        member = self.streams.get(stream)
        if member is None:
            return self
        past = Past(stream, msgspec.structs.replace(member, left=position))
        return msgspec.structs.replace(self, streams=_without(self.streams, stream), left=(*self.left, past))

    def forgotten(self, stream: str, left: Position) -> "Record":
        """Forget that the reader has to read the membership of ``stream`` that ended at ``left``: it is there."""
        return self._read(lambda past: past.stream == stream and past.member.left == left)

    def reached(self, cursors: Mapping[str, Position]) -> "Record":
        """Do the same with the memberships to whose end a reader has come that stands at ``cursors``."""
        record, missed = self._read(lambda past: self._is_reached(past, cursors.get(past.stream))), self.missed(cursors)
        return record if len(missed) == len(self.lost) else msgspec.structs.replace(record, lost=missed)

    def _is_short(self, past: Past, cursor: Position | None) -> bool:
        return cursor is not None and not self._is_reached(past, cursor)

    def _is_reached(self, past: Past, cursor: Position | None) -> bool:
        left = past.member.left
        return left is not None and _is_at(cursor, left, self._later(past))

    def _later(self, past: Past) -> list[Member]:
        """Return the memberships of the same stream that followed on ``past``."""
        ended = (*self.read, *self.left)
        later = [other.member for other in ended[ended.index(past) + 1 :] if other.stream == past.stream]
        return [*later, self.streams[past.stream]] if past.stream in self.streams else later

    def _read(self, has_read: Callable[[Past], bool]) -> "Record":
        read = tuple(past for past in self.left if has_read(past))
        if not read:
            return self
        left = tuple(past for past in self.left if past not in read)
        return msgspec.structs.replace(self, left=left, read=(*self.read, *read)[-MAX_READ:])

    def saved(self, data: bytes) -> "Record":
        """Keep ``data`` in the place of what was there."""
        return self if data == self.data else msgspec.structs.replace(self, data=data)

    def marked(self, k: int, vector: Mapping[str, Position], since: int) -> "Record":
        """Keep ``vector`` as checkpoint ``k``, and of the earlier ones those from ``since`` on."""
        kept = {number: kept for number, kept in self.checkpoints.items() if number >= since}
        return msgspec.structs.replace(self, checkpoints={**kept, k: dict(vector)})

    def trimmed(self) -> "Record":
        """Give up the oldest of what there is too much of (`MAX_LEFT`, `MAX_CHECKPOINTS`)."""
        if len(self.left) <= MAX_LEFT and len(self.checkpoints) <= MAX_CHECKPOINTS:
            return self
        newest = sorted(self.checkpoints)[-MAX_CHECKPOINTS:]
        return msgspec.structs.replace(
            self,
            left=self.left[-MAX_LEFT:],
            checkpoints={k: self.checkpoints[k] for k in newest},
            lost=self._lost_with(self.left[:-MAX_LEFT]),
        )

    def _lost_with(self, given_up: tuple[Past, ...]) -> dict[str, Position]:
        ends = {past.stream: past.member.left for past in given_up}
        lost = self.lost | {stream: end for stream, end in ends.items() if end is not None}
        return dict(list(lost.items())[-MAX_LOST - 1 :])

    def written(self, edition: int) -> "Record":
        """Be the edition of this number."""
        return msgspec.structs.replace(self, edition=edition)

    # --- who holds it

    def is_newer(self, instance: str, turn: Turn) -> bool:
        """Whether whoever held it last came after this connection, which was slower to get here.

        What the program counts tells for certain. Where it does not count, and between two programs, the broker's time
        tells; a difference beyond `SLOWEST` is that of two clocks.
        """
        if self.instance == instance and self.turn.attempt and turn.attempt:
            return self.turn.attempt > turn.attempt
        return 0.0 < self.turn.since - turn.since <= SLOWEST

    def taken(self, instance: str, holder: int, turn: Turn = FIRST_TURN) -> "Record":
        """Be held by another holder from now on."""
        return msgspec.structs.replace(
            self, instance=instance, holder=holder, fence=self.fence + 1, edition=self.edition + 1, turn=turn
        )

    def forked(self, socket_id: str, instance: str, holder: int, turn: Turn = FIRST_TURN) -> "Record":
        """Be the beginning of another session with the same memberships and data.

        The socket's own stream is not among them, since the other is another socket, and neither are checkpoints.
        """
        streams = {stream: member for stream, member in self.streams.items() if not self._is_own(member)}
        left = tuple(past for past in self.left if not self._is_own(past.member))
        copy = new_record(socket_id, instance, holder, streams=streams, left=left, data=self.data, turn=turn)
        lost = {stream: end for stream, end in self.lost.items() if stream not in self.streams or stream in streams}
        return msgspec.structs.replace(copy, read=self.read, lost=lost)

    def _is_own(self, member: Member) -> bool:
        return member.name == self.id and member.kind != "u"

    def ended(self) -> "Record":
        """Hold nothing any more, and say so to whoever held it before."""
        return msgspec.structs.replace(
            self, instance="", over=True, streams={}, left=(), read=(), data=b"", checkpoints={}, lost={}
        )


def _is_at(cursor: Position | None, end: Position, later: Iterable[Member]) -> bool:
    """Whether a reader has come to the end of a stay: it stands right there, or in one of the ``later`` stays.

    A greater number alone does not say so: it may be that of an entry which a failover took back.
    """
    if cursor is None:
        return False
    return cursor.point == end.point or any(cursor.seq >= member.joined.seq for member in later)


def _without(streams: Mapping[str, Member], stream: str) -> dict[str, Member]:
    return {name: member for name, member in streams.items() if name != stream}


def new_record(
    socket_id: str,
    instance: str,
    holder: int,
    *,
    streams: Mapping[str, Member] | None = None,
    left: tuple[Past, ...] = (),
    data: bytes = b"",
    turn: Turn = FIRST_TURN,
) -> Record:
    """Return the record of a session that begins."""
    return Record(
        _VERSION,
        socket_id,
        instance,
        FIRST_FENCE,
        holder,
        streams=dict(streams or {}),
        left=left,
        data=data,
        turn=turn,
    )


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Record).decode


def encode_record(record: Record) -> bytes:
    """Encode a record to be stored (msgpack, an array that begins with the version)."""
    return bytes(memoryview(_encode(record)))  # a copy that has no room left at its end, for it is kept


def decode_record(data: bytes) -> Record:
    """Decode a stored record.

    Raises:
        BellwireError: it is none, or of a version that this program does not know.

    """
    try:
        record = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BellwireError(f"a session's record cannot be read: {error}") from None
    if record.version != _VERSION:
        raise BellwireError(f"a session's record has version {record.version}, this program knows {_VERSION}")
    return record


def session_key(secret: str, namespace: str, principal: str | None) -> str:
    """Return the key that a session is kept under.

    It is a hash of the secret, so that whoever can read the broker cannot resume; and of the namespace and of who
    authenticated (None: nobody), so that a secret is as good as unknown to anybody else.
    """
    owner = b"-" if principal is None else b"+" + principal.encode(errors="surrogatepass")
    digest = hashlib.sha256(b"bellwire.session.1")
    for part in (secret.encode(errors="surrogatepass"), namespace.encode(errors="surrogatepass"), owner):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return f"session.{digest.hexdigest()[:32]}"


class Verdict(Enum):
    """What a holder finds under its key: see the table above."""

    NOTHING = "nothing"
    MINE = "mine"
    OLDER = "older"
    TAKEN = "taken"


def judge(found: Record | None, mine: Record) -> Verdict:
    """Return what ``found`` means to the holder of ``mine``."""
    if found is None:
        return Verdict.NOTHING
    if found.holder == mine.holder:
        return Verdict.MINE
    older = found.fence < mine.fence or mine.is_newer(found.instance, found.turn)
    return Verdict.OLDER if older else Verdict.TAKEN
