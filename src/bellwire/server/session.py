"""One connection's view of a session that the broker keeps: what it may still change, and how that is written.

The record is that of `bellwire.delivery.session`, and so are the rules by which a holder finds out what stands there::

    state      what happens                                next       written
    HELD       detach: the connection was lost             DETACHED   to be kept for its lifetime
    HELD       end: the client or the application left     ENDED      removed
    HELD       somebody else is found to hold it           OVER       nothing; the holder is told
    DETACHED   end; or a change when its lifetime is over  ENDED      removed
    DETACHED   somebody else is found to hold it           OVER       nothing
    ENDED      it is removed, or somebody else's           OVER

A handler that outlives its connection still joins and leaves for a session that is DETACHED: its reply is stored, and
what that says must be so when the client comes back.

Two puts of one session are never under way at once. What comes while one is goes into the next, all of it. What nobody
waits for (the end of a connection, the renewal of a lease, the repair of a write whose fate is not known) is done by
one task for all sessions, which tries until the broker answers or has forgotten the session by itself.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from bellwire.brokers.base import Kept
from bellwire.core.errors import BellwireError, BrokerUnavailable, Disconnected, OutcomeUnknown
from bellwire.delivery.position import Position
from bellwire.delivery.session import (
    FIRST_FENCE,
    MAX_DATA,
    Member,
    Record,
    Verdict,
    decode_record,
    encode_record,
    judge,
)

if TYPE_CHECKING:
    from bellwire.server.sessions import Sessions

HELD_SECONDS: Final = 24 * 3600.0
"""How long the broker keeps the record of a session that is held, counted from when it was written last."""

ATTEMPTS: Final = 8
"""How often a record is written, and read again when somebody else was faster, before the broker counts as away."""

_OVER: Final = "the session is over, or somebody else holds it"

_Change: TypeAlias = Callable[[Record], Record]


class Holder(Protocol):
    """The connection that holds a session, as a session sees it."""

    def replaced(self) -> None:
        """Somebody else holds the session now: end the connection. It is called once at most, and does not raise."""

    async def probe(self) -> bool:
        """Whether the client is still there: it is asked, and answers within a short time."""
        ...


class _Waiting:
    """A change on its way to the broker; ``awaited`` says whether somebody waits until it is there."""

    __slots__ = ("apply", "awaited", "error", "settled")

    def __init__(self, apply: _Change, *, awaited: bool) -> None:
        self.apply = apply
        self.awaited = awaited
        self.settled = False
        self.error: BellwireError | None = None

    def settle(self, error: BellwireError | None = None) -> None:
        """It is written, or it is not to be."""
        self.settled = True
        self.error = error


class _State(Enum):
    HELD = "held"
    DETACHED = "detached"
    ENDED = "ended"
    OVER = "over"


class Session:
    """One holder's view of a session; made by `Sessions`.

    What waits raises, and has changed nothing then:

    - `BrokerUnavailable`: the broker cannot be asked. Should it have kept the change without saying so, that is taken
      back.
    - `Disconnected`: the session has ended, or somebody else holds it. That one goes by what it found on record.
    """

    __slots__ = (
        "_changes",
        "_due",
        "_edition",
        "_holder",
        "_node",
        "_record",
        "_revision",
        "_state",
        "_until",
        "_written",
        "doubt",
        "forked",
        "found",
        "key",
        "secret",
    )

    def __init__(
        self, node: "Sessions", secret: str, key: str, record: Record, holder: Holder, *, doubt: bool = False
    ) -> None:
        self.secret = secret
        """What the client resumes with: 128 random bits as 22 characters of ``[A-Za-z0-9_-]``."""
        self.key = key
        """What the broker keeps it under."""
        self.forked = False
        """Whether it is a copy of a session with which somebody else goes on."""
        self.found: Record | None = None
        """The record as it was when it was taken up, with all that the client may have to come back to."""
        self._node = node
        self._record: Record | bytes = record  # encoded once it was written, as the broker has it
        self._holder: Holder | None = holder
        self._state = _State.HELD
        self._changes: tuple[_Waiting, ...] = ()
        self.doubt = doubt
        """Whether it is unknown what the broker has under the key."""
        self._revision: int | None = None  # None until a write is known to be kept
        self._edition = record.edition  # of the newest attempt to write, kept or not
        self._due = False  # whether it is to be written though nothing changes
        self._written = node.now
        self._until = 0.0

    @property
    def record(self) -> Record:
        """The record as it was last written: read anew each time, since most sessions are never asked for it."""
        return self._record if isinstance(self._record, Record) else decode_record(self._record)

    @property
    def held(self) -> bool:
        """Whether its connection stands, and nobody else has taken it up as far as this node knows."""
        return self._state is _State.HELD

    @property
    def over(self) -> bool:
        """Whether nothing more can be done with it: somebody else holds it, or it has ended."""
        return self._state is _State.OVER

    @property
    def unsettled(self) -> bool:
        """Whether something is to be written that nobody waits for."""
        return self._state is not _State.OVER and (self._due or self.doubt)

    @property
    def age(self) -> float:
        """Seconds since it was written last."""
        return self._node.now - self._written

    # --- what changes

    async def join(self, stream: str, member: Member) -> None:
        """Be a member of ``stream``; being one already changes nothing. A join that is cancelled is taken back."""
        try:
            await self._change(lambda record: record.joined(stream, member))
        except asyncio.CancelledError:
            self._later(lambda record: record.withdrawn(stream, member))
            raise

    async def leave(self, stream: str, position: Position) -> None:
        """Be a member of ``stream`` up to ``position`` only. A leave that is cancelled is made all the same."""
        try:
            await self._change(lambda record: record.departed(stream, position))
        except asyncio.CancelledError:
            self._later(lambda record: record.departed(stream, position))
            raise

    async def save(self, data: bytes) -> None:
        """Keep the application's own data; a ValueError if it has more than `MAX_DATA` bytes."""
        check_data(data)
        await self._change(lambda record: record.saved(data))

    async def checkpoint(self, k: int, vector: Mapping[str, Position], *, since: int = 0) -> None:
        """Keep ``vector`` as checkpoint ``k``, and of those before it the ones from ``since`` on.

        ``since`` is the oldest that the client may still name. No more than `MAX_CHECKPOINTS` are kept in any case.
        """
        await self._change(lambda record: record.marked(k, vector, since))

    def forget(self, stream: str, left: Position) -> None:
        """Forget the membership of ``stream`` that ended at ``left``: the reader is there. The next write says so."""
        if any(past.stream == stream and past.member.left == left for past in self.record.left):
            self._changes = (*self._changes, _Waiting(lambda record: record.forgotten(stream, left), awaited=False))

    # --- how it ends

    def detach(self) -> None:
        """The connection was lost: the session can be taken up again for its lifetime, which begins now."""
        if self._state is _State.HELD:
            self._state = _State.DETACHED
            self._until = self._node.now + self._node.lifetime
            self._release()

    def end(self) -> None:
        """The session is over for good."""
        if self._state is _State.HELD or self._state is _State.DETACHED:
            self._state = _State.ENDED
            self._release()

    def _release(self) -> None:
        self._node.released(self)
        self._holder = None
        self.renew()

    def abandon(self, *, ended: bool) -> None:
        """Never known to be written, it is not wanted any more: if it was, let it run out, or remove it (``ended``)."""
        self._state = _State.ENDED if ended else _State.DETACHED
        self._until = self._node.now + self._node.lifetime
        if not self.doubt or not self._node.upkeep.add(self, optional=True):
            self._stop()

    def displaced(self) -> None:
        """Somebody else holds it: the holder is told, unless it has let go already."""
        holder = self._holder
        self._stop()
        if holder is not None:
            self._node.counters.add("sessions_total", outcome="replaced")
            holder.replaced()

    def _stop(self) -> None:
        self._state = _State.OVER
        self._node.released(self)
        self._holder = None

    # --- writing

    async def settle(self) -> None:
        """Write what nobody waits for. Raises BrokerUnavailable: it is to be tried again."""
        try:
            async with self._node.lock(self):
                await self.write()
        except Disconnected:
            pass
        except BrokerUnavailable:
            if self.held or self.age < HELD_SECONDS:
                raise
            self._stop()
            self._node.counters.dropped("session", reason="broker_away", policy="left_to_expire")

    async def probe(self) -> bool:
        """Whether it is held, and the client is there."""
        return self._holder is not None and await self._holder.probe()

    def renew(self) -> None:
        """Write it soon, though nothing changes."""
        self._due = True
        self._node.upkeep.add(self)

    def _later(self, apply: _Change) -> None:
        """Make a change that nobody waits for."""
        if self._state is not _State.OVER:
            self._changes = (*self._changes, _Waiting(apply, awaited=False))
            self.renew()

    async def _change(self, apply: _Change) -> None:
        self._check()
        change = _Waiting(apply, awaited=True)
        self._changes = (*self._changes, change)
        try:
            async with self._node.lock(self):
                if not change.settled:  # else the one before has written it as well
                    await self.write()
        except asyncio.CancelledError:
            self._changes = tuple([other for other in self._changes if other is not change])
            raise
        except BellwireError:
            if change.error is None:
                raise
        if change.error is not None:  # several may have waited for one put: each is told by an error of its own
            raise type(change.error)(*change.error.args) from change.error

    def _check(self) -> None:
        """Raise unless it can be changed."""
        if self._state is _State.DETACHED and self._node.now >= self._until:
            self.end()
        if self._state is _State.ENDED or self._state is _State.OVER:
            raise Disconnected(_OVER)

    async def write(self) -> None:
        """Write all that waits, with the lock held. If it is cancelled, all of it still waits."""
        changes, self._changes = self._changes, ()
        due, self._due = self._due, False
        try:
            await self._commit(changes, due)
        except BaseException as error:
            self._due = self._due or due
            if isinstance(error, BellwireError):
                for change in changes:
                    if change.awaited and not change.settled:
                        change.settle(error)
            self._changes = (*(change for change in changes if not change.settled), *self._changes)
            raise
        else:
            for change in changes:
                if not change.settled:
                    change.settle()
        finally:
            if self.unsettled and self._revision is not None:
                self._node.upkeep.add(self)

    async def _commit(self, changes: Sequence[_Waiting], due: bool) -> None:
        attempt: Record | None = None
        value = b""
        begun = self._node.now
        for _ in range(ATTEMPTS):
            if self._state is _State.OVER:
                raise Disconnected(_OVER)
            if self.doubt:
                revision = await self._look_back(attempt)
                if revision is not None and attempt is not None:
                    self.stored(attempt, value, revision, begun)
                    return
            if attempt is None:
                record = self.record
                composed = self._composed(record, changes)
                if composed is record and not (due or self.doubt or self._revision is None):
                    return
                self._edition += 1
                attempt = composed.written(self._edition)
                value = encode_record(attempt.trimmed())
            revision = await self.send(attempt, value, self._revision or 0)
            if revision is not None:
                self.stored(attempt, value, revision, begun)
                return
        raise BrokerUnavailable("the session's record changes faster than it can be written")

    def _composed(self, record: Record, changes: Sequence[_Waiting]) -> Record:
        """Return the record as it is to be; what is too late for it is told so."""
        if self._state is _State.ENDED:
            for change in changes:
                change.settle(Disconnected(_OVER))
            return record.ended()
        for change in changes:
            record = change.apply(record)
        return record

    async def send(self, attempt: Record, value: bytes, expected: int) -> int | None:
        """Put it there and return its revision; None if something else stands there, or if nobody knows."""
        doubt, self.doubt = self.doubt, True  # so it is if this is cancelled
        broker = self._node.broker
        try:
            if attempt.over and attempt.fence == FIRST_FENCE:  # nobody held it before, so nobody is to be told
                revision = expected if await broker.delete(self.key, expected=expected) else None
            else:
                revision = await broker.put(self.key, value, expected=expected, ttl=self._ttl(attempt))
        except OutcomeUnknown:
            return None
        except BellwireError:
            self.doubt = doubt  # nothing was done
            raise
        return revision

    def _ttl(self, attempt: Record) -> float:
        if attempt.over:
            return self._node.lifetime
        return max(self._until - self._node.now, 1.0) if self._state is _State.DETACHED else HELD_SECONDS

    async def _look_back(self, attempt: Record | None) -> int | None:
        """Read what stands under the key, to go on from there. Its revision if it is ``attempt``, else None."""
        kept = await self._node.broker.get(self.key)
        found = None if kept is None else read_kept(kept)
        verdict = Verdict.TAKEN if kept is not None and found is None else judge(found, self.record)
        if verdict is Verdict.TAKEN:
            self.displaced()
        elif verdict is not Verdict.MINE and self._is_pointless(verdict):
            self._stop()
        if self._state is _State.OVER:
            raise Disconnected(_OVER)
        if kept is not None:
            self._revision = kept.revision
        elif self._revision is not None:
            self._revision = 0
        is_there = found is not None and attempt is not None and found.edition == attempt.edition
        return self._revision if is_there and verdict is Verdict.MINE else None

    def _is_pointless(self, verdict: Verdict) -> bool:
        """Whether there is no need to write it anew: it is removed, or never was there and nobody wants it."""
        if self._state is _State.ENDED and verdict is Verdict.NOTHING:
            return True
        return self._revision is None and self._state is not _State.HELD

    def stored(self, record: Record, value: bytes, revision: int, begun: float) -> None:
        """``record`` stands there as ``value`` under this revision; it was asked for at ``begun``."""
        kept = record.trimmed()
        if kept is not record:
            self._node.gave_up(record, kept)
        self._record = value
        self._revision = revision
        self.doubt = False
        self._written = begun
        if kept.over:
            self._stop()
        elif self._state is _State.HELD:
            self._node.holds(self)


def read_kept(kept: Kept) -> Record | None:
    """Return the record, None if this program cannot read it."""
    try:
        return decode_record(kept.value)
    except BellwireError:  # another version of this program wrote it
        return None


def check_data(data: bytes) -> None:
    """Raise ValueError if this is too much for a session."""
    if len(data) > MAX_DATA:
        raise ValueError(
            f"a session holds {MAX_DATA} bytes of data, this is {len(data)}: keep the rest in a database, and what "
            "finds it there in the session"
        )
