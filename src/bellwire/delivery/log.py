"""One stream's bounded history: the model of what every broker keeps (the guarantee, "Down: server to client").

What a reader is answered, by its position and the first rule that applies::

    the position's generation is not known               generation
    its number lies beyond its generation's reach        diverged     from the oldest entry on
    its (seq, tag) stands in the log, or is its base     a page       the base is the last point trimmed away
    its number lies below the base                       truncated    from the oldest entry on
    anything else: beyond the top, or another entry      diverged     from the oldest entry on

Whoever became a member at a position that has diverged is shown what came after it, and nothing from before: what lies
beyond its generation's reach, or beyond its own number if the generation went on.

How far a generation reaches says only that a reader has seen too much. It is no place to restart from: two failovers
ago the log may have gone on under the same generation with other entries, and the reader has not seen those.
"""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from bellwire.core.config import Config
from bellwire.delivery.answer import PAGE_BYTES, PAGE_MESSAGES, Answer, Page, Reason, Unproved
from bellwire.delivery.chain import Chain, Place
from bellwire.delivery.entry import MARKER_MID, Draft, Entry, enter, marker
from bellwire.delivery.position import START, Generations, Point, Position, position
from bellwire.delivery.recent_ids import RecentIds


class Limits(NamedTuple):
    """How much history a stream keeps; the first limit reached counts.

    All count what lies behind the newest entry: that one is never dropped, and the point before the oldest is
    remembered, so that a quiet stream resets nobody who saw its last message.
    """

    messages: int = 1_000
    size: int = 4 * 1024 * 1024
    """Bytes."""
    age: float = 600.0
    """Seconds."""
    dedupe: float = 120.0
    """Seconds for which the id of a message is remembered: by time only."""
    standing: float = 660.0
    """Seconds for which a stream with nothing but markers is kept, since somebody looked where it ends. Whoever serves
    it looks every 30 s, and whoever was cut off and stands in it comes back within a session's lifetime."""


DEFAULT_LIMITS: Final = Limits()

_MARGIN: Final = 60.0
"""Seconds beyond a session's lifetime for which such a stream is kept: two looks of whoever serves it."""


def limits_of(config: Config) -> Limits:
    """Return what a server's settings say."""
    standing = config.session_lifetime + _MARGIN
    return Limits(config.history_messages, config.history_bytes, config.history_seconds, standing=standing)


class Appended(msgspec.Struct, frozen=True, gc=False):
    """Where a message stands in its stream; ``duplicate`` if an earlier attempt had brought it there."""

    gen: str
    point: Point
    prev: Point
    duplicate: bool

    @property
    def again(self) -> "Appended":
        """What is answered to a later attempt."""
        return msgspec.structs.replace(self, duplicate=True)


class Footing(msgspec.Struct, frozen=True, gc=False):
    """All that there is to a log with nothing but one marker: each client that recovers has one for himself.

    ``touched`` is as that of a `Log`; the marker counts as no older.
    """

    gen: str
    seq: int
    tag: int
    touched: float

    @property
    def top(self) -> Position:
        """The position behind the marker."""
        return Position(self.gen, self.seq, self.tag)


def dense(last: int) -> int:
    """Return the number after ``last`` without leaving any out."""
    return last + 1


class Log:
    """A stream's history; ``step`` gives the number after a number (a stream in JetStream leaves some out).

    ``touched`` is when it was last appended to, or made, in the broker's time. Before ``due`` nothing in it is too old.
    ``bare`` says that nothing but markers was ever appended.
    """

    __slots__ = ("_chain", "_ids", "_ids_due", "_limits", "_step", "bare", "due", "generations", "touched")

    def __init__(
        self, gen: str, limits: Limits = DEFAULT_LIMITS, step: Callable[[int], int] = dense, now: float = 0.0
    ) -> None:
        self.touched = now
        self.bare = True
        self.due = math.inf
        self.generations = Generations(gen)
        self._limits = limits
        self._step = step
        self._chain = Chain()
        self._ids = RecentIds()
        self._ids_due = math.inf

    @classmethod
    def on(cls, footing: Footing, limits: Limits, step: Callable[[int], int] = dense) -> "Log":
        """Return the log that ``footing`` stands for."""
        log = cls(footing.gen, limits, step, footing.touched)
        log._enter(marker(footing.tag), footing.seq, START, footing.touched)
        return log

    @property
    def footing(self) -> Footing | None:
        """What says the same in less room, None if nothing does."""
        if not self.bare or len(self._chain) != 1 or self._chain.base != START or self.generations.history:
            return None
        return Footing(*self.top, self.touched)

    def __len__(self) -> int:
        return len(self._chain)

    @property
    def top(self) -> Position:
        """The position behind the newest entry; it outlives the entries."""
        return position(self.generations.current, self._chain.top)

    @property
    def begun(self) -> bool:
        """Whether something was ever appended: somebody may stand behind it."""
        return self._chain.top.seq > 0

    @property
    def base(self) -> Point:
        """The point before the oldest entry that is still there."""
        return self._chain.base

    @property
    def newest(self) -> Entry:
        """The last entry; IndexError before the first."""
        return self._chain.newest

    def limit(self, limits: Limits) -> None:
        """Keep this much from now on."""
        self._limits = limits
        self.due = -math.inf

    def append(self, draft: Draft, now: float) -> Appended:
        """Append a message, or find it: an id that was appended within the window is not appended again."""
        if now > self.due:
            self.expire(now)
        known = self._ids.find(draft.mid)
        if known is not None and known[0] >= now - self._limits.dedupe:
            _, gen, *numbers = known
            return Appended(gen, Point(*numbers[:2]), Point(*numbers[2:]), duplicate=True)
        gen, chain, limits = self.generations.current, self._chain, self._limits
        prev = chain.top
        point = self._enter(draft, self._step(prev.seq), prev, now)
        behind = len(chain) - 1
        if behind > limits.messages:
            chain.shift()
        if behind < 2 or chain.size > limits.size:
            self._trim(now)
        return Appended(gen, point, prev, duplicate=False)

    def _enter(self, draft: Draft, seq: int, prev: Point, now: float) -> Point:
        entry = enter(draft, seq, prev, now)
        self._chain.append(entry)
        self.touched = now
        self.bare = self.bare and draft.mid == MARKER_MID
        window = self._limits.dedupe
        if self._ids_due == math.inf:
            self._ids_due = now + window
            self.due = min(self.due, self._ids_due)
        self._ids.add(draft.mid, (now, self.generations.current, seq, draft.tag, prev.seq, prev.tag), window)
        return entry.point

    def read(
        self, after: Position, messages: int = PAGE_MESSAGES, size: int = PAGE_BYTES, *, confirmed: bool = True
    ) -> Answer:
        """Prove the position ``after`` and return what follows on it; ``confirmed`` is passed on."""
        point, chain = after.point, self._chain
        reach = self.generations.reach(after.gen)
        if reach is None:
            return self._unproved(Reason.GENERATION, None, confirmed)
        if point.seq > reach:
            return self._unproved(Reason.DIVERGED, reach, confirmed)
        place = chain.locate(point)
        if place is Place.PROVED:
            entries, more = chain.after(point, messages, size)
            return Page(entries, self.top, more, confirmed)
        reason = Reason.TRUNCATED if place is Place.BEHIND else Reason.DIVERGED
        return self._unproved(reason, None if place is Place.BEHIND else point.seq, confirmed)

    def _unproved(self, reason: Reason, last: int | None, confirmed: bool) -> Unproved:
        gen, chain = self.generations.current, self._chain
        since = None if last is None else position(gen, chain.at_most(last))
        return Unproved(reason, position(gen, chain.base), self.top, confirmed, since)

    def expire(self, now: float) -> None:
        """Drop what is too old at ``now``, the broker's time in seconds."""
        if now <= self.due:
            return
        if now > self._ids_due:
            self._forget(now - self._limits.dedupe)
        self._trim(now)

    def _forget(self, horizon: float) -> None:
        self._ids.forget(horizon)
        oldest = self._ids.oldest
        self._ids_due = math.inf if oldest is None else oldest + self._limits.dedupe

    def _trim(self, now: float) -> None:
        chain, limits = self._chain, self._limits
        behind, horizon = len(chain) - 1, now - limits.age
        while behind > 0 and (behind > limits.messages or chain.oldest.at < horizon):
            chain.shift()
            behind -= 1
        if chain.size > limits.size:  # hardly ever: only then it must be known what the newest one has
            chain.shorten(len(chain), limits.size + chain.newest.size)
        # What is appended later will be too old later.
        self.due = min(self._ids_due, chain.oldest.at + limits.age) if len(chain) > 1 else self._ids_due

    # --- what happens to brokers, for the one in memory to simulate

    def lose_tail(self, count: int, gen: str | None = None) -> list[Entry]:
        """Take the newest ``count`` entries back, and all memory of their ids, as a failover does.

        The log goes on under ``gen``, or under the same generation (a failover from A to B and back to A).
        """
        entries = list(self._chain)
        keep = max(0, len(entries) - count)
        gone = self._chain.cut(entries[keep - 1].point if keep else self._chain.base)
        for entry in gone:
            self._ids.discard(entry.mid)
        last = self._chain.top.seq
        self.generations.clip(last)
        if gen is not None:
            self.generations.open(gen, last)
        return gone

    def forget_mids(self) -> None:
        """Lose the memory of ids, as a purge followed by a restart does."""
        self._ids.clear()
        self._ids_due = math.inf

    def truncate(self, keep: int) -> None:
        """Keep only the newest ``keep`` entries."""
        while len(self._chain) > keep:
            self._chain.shift()

    def as_of(self, behind: int) -> "Log":
        """Return the log as it was ``behind`` entries ago: what a follower that lags answers from."""
        past = Log(self.generations.current, self._limits, self._step)
        past.generations = self.generations
        past._chain = Chain(self._chain.base)
        for entry in list(self._chain)[: max(0, len(self._chain) - behind)]:
            past._chain.append(entry)
        return past
