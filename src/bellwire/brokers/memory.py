"""The broker inside the process: the whole contract without a network; what it keeps ends with the process.

Its generations are random, so that a position from another process, or from before a restart, is known to be one.
For tests it also does on request what other brokers do on their own: `Faults`.
"""

import asyncio
import math
import secrets
from collections import deque
from collections.abc import Callable
from typing import ClassVar, Final, TypeAlias

from typing_extensions import override

from bellwire.brokers.base import Broker, Kept, Listener
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from bellwire.core.rounds import Rounds
from bellwire.delivery.answer import PAGE_BYTES, PAGE_MESSAGES, Answer
from bellwire.delivery.entry import MARKER_MID, Draft, Entry, enter
from bellwire.delivery.log import DEFAULT_LIMITS, Appended, Footing, Limits, Log, dense
from bellwire.delivery.position import START, Position

FORGET_AFTER: Final = 24 * 3600.0
"""Seconds after which a stream without new entries and without a listener is forgotten; one that never had an entry
is after the history's age, and one with nothing but markers when nobody can stand in it (`Limits.standing`). What is
made again under its name has another generation, so nobody takes it for the old."""

Stored: TypeAlias = tuple[bytes, int, float | None]
"""What is kept under a key: the value, its revision, and when it runs out, None for never. Plain: there are many."""

_SWEPT_PER_CALL: Final = 2
"""How many streams, or keys, are looked after for each call that adds one: more than one, so that what ran out goes."""
_SWEPT_AT_ONCE: Final = 16
"""The turns of so many streams are gathered, for one second at most: to begin takes longer than to look at one."""


class MemoryBroker(Broker):
    """Streams and keys in dictionaries; ``clock`` is the loop's time unless another is given.

    Nothing runs on its own: for each call that adds something two others are looked after that may have run out.
    """

    immediate: ClassVar[bool] = True

    def __init__(
        self,
        limits: Limits = DEFAULT_LIMITS,
        *,
        step: Callable[[int], int] = dense,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._limits = limits
        self._step = step
        self._clock = clock
        self._running = False
        self._epoch = secrets.token_hex(6)
        self._made = 0
        self._revision = 0
        self._generation = self.new_generation()
        self._logs: dict[str, Log | Footing] = {}
        self._log_rounds = Rounds(self._logs)
        self._turns, self._turns_due = 0, -math.inf
        self._listeners: dict[str, Listener | tuple[Listener, ...]] = {}  # most streams have one
        self._keys: dict[str, Stored] = {}
        self._key_rounds = Rounds(self._keys)
        self._faults: Faults | None = None

    @property
    def faults(self) -> "Faults":
        """What it is to do wrong; made when it is first asked for, as only tests do."""
        if self._faults is None:
            self._faults = Faults(self)
        return self._faults

    @override
    async def start(self) -> None:
        if self._clock is None:
            self._clock = asyncio.get_running_loop().time
        self._running = True

    @override
    async def close(self) -> None:
        self._running = False
        self._listeners.clear()

    @override
    def clock(self) -> float:
        return 0.0 if self._clock is None else self._clock()

    @override
    def limit(self, limits: Limits) -> None:
        self._limits = limits
        for log in self._logs.values():
            if isinstance(log, Log):
                log.limit(limits)

    # --- streams

    @override
    async def append(self, stream: str, draft: Draft, *, deadline: float | None = None) -> Appended:
        self._check()
        now = self.clock()
        if deadline is not None and now > deadline:
            raise BrokerUnavailable(f"the attempt came {now - deadline:.3f} s after its deadline")
        lost_answer = None if self._faults is None else self._faults.next_answer()
        if lost_answer == "not_done":
            raise OutcomeUnknown(draft.mid)
        self._sweep_streams(now)
        appended = (self._mark if draft.mid == MARKER_MID else self._append)(stream, draft, now)
        if lost_answer == "done":
            raise OutcomeUnknown(draft.mid)
        return appended

    def _append(self, stream: str, draft: Draft, now: float) -> Appended:
        log = self._log_of(stream, now)
        appended = log.append(draft, now)
        if not appended.duplicate:
            self._tell(stream, appended.gen, log.newest)
        return appended

    def _mark(self, stream: str, marker: Draft, now: float) -> Appended:
        """Append a marker; a stream that begins with it is no log before something else comes."""
        if stream not in self._logs:
            return self._found(stream, marker, now)
        appended = self._append(stream, marker, now)
        log = self._log_of(stream, now)
        self._logs[stream] = log.footing or log
        return appended

    def _found(self, stream: str, draft: Draft, now: float) -> Appended:
        gen, entry = self.new_generation(), enter(draft, self._step(0), START, now)
        self._logs[stream] = Footing(gen, entry.seq, entry.tag, now)
        self._tell(stream, gen, entry)
        return Appended(gen, entry.point, START, duplicate=False)

    @override
    async def read(
        self,
        stream: str,
        after: Position,
        *,
        messages: int = PAGE_MESSAGES,
        size: int = PAGE_BYTES,
        confirmed: bool = False,
    ) -> Answer:
        self._check()
        log = self._logs.get(stream)
        log = self._opened(log) if isinstance(log, Footing) else self._log(stream)
        log.expire(self.clock())
        lag = 0 if self._faults is None else self._faults.lag_of(stream)
        if lag and not confirmed:
            return log.as_of(lag).read(after, messages, size, confirmed=False)
        return log.read(after, messages, size)

    @override
    async def top(self, stream: str) -> Position:
        self._check()
        log = self._logs.get(stream)
        if isinstance(log, Footing):  # somebody stands in it, or is about to
            self._logs[stream] = Footing(*log.top, self.clock())
            return log.top
        log = self._log(stream)
        if log.bare and log.begun:
            log.touched = self.clock()
        return log.top

    @override
    async def forget(self, stream: str) -> None:
        self._check()
        self._logs.pop(stream, None)

    @override
    async def subscribe(self, stream: str, listener: Listener, *, new: bool = False) -> None:
        self._check()
        listeners = self._hearing(stream)
        if listener not in listeners:
            self._listeners[stream] = (*listeners, listener) if listeners else listener

    @override
    async def unsubscribe(self, stream: str, listener: Listener) -> None:
        self._check()
        left = [other for other in self._hearing(stream) if other is not listener]
        self._listeners.pop(stream, None)
        if left:
            self._listeners[stream] = left[0] if len(left) == 1 else tuple(left)

    @override
    async def publish(self, stream: str, body: bytes) -> None:
        self._check()
        for listener in self._hearing(stream):
            listener.volatile(stream, body)

    @override
    def has_log(self, stream: str) -> bool:
        log = self._logs.get(stream)
        return log is not None and (isinstance(log, Footing) or log.begun)

    # --- keyed state

    @override
    def generation(self) -> str:
        return self._generation

    @override
    async def get(self, key: str) -> Kept | None:
        self._check()
        return self._kept(key)

    @override
    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl: float | None = None) -> int | None:
        self._check()
        if expected is not None and self._revision_of(key) != expected:
            return None
        lost_answer = None if self._faults is None else self._faults.next_put_answer()
        if lost_answer == "not_done":
            raise OutcomeUnknown(key)
        self._revision += 1
        now = self.clock()
        self._keys[key] = value, self._revision, None if ttl is None else now + ttl
        self._sweep_keys(now)
        if lost_answer == "done":
            raise OutcomeUnknown(key)
        return self._revision

    @override
    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        self._check()
        revision = self._revision_of(key)
        if not revision or (expected is not None and revision != expected):
            return False
        del self._keys[key]
        return True

    # --- within

    def _check(self) -> None:
        if not self._running:
            raise BrokerUnavailable("the broker is not started, or closed")
        if self._faults is not None:
            self._faults.check()

    def _log(self, stream: str) -> Log:
        now = self.clock()
        if stream not in self._logs:
            self._sweep_streams(now)
        return self._log_of(stream, now)

    def _log_of(self, stream: str, now: float) -> Log:
        log = self._logs.get(stream)
        if log is None:
            log = self._logs[stream] = Log(self.new_generation(), self._limits, self._step, now)
        elif isinstance(log, Footing):
            log = self._logs[stream] = self._opened(log)
        return log

    def _opened(self, footing: Footing) -> Log:
        return Log.on(footing, self._limits, self._step)

    def fall_back_to(self, keys: dict[str, Stored]) -> None:
        """Know nothing newer than ``keys``."""
        self._keys = dict(keys)
        self._key_rounds = Rounds(self._keys)
        self._generation = self.new_generation()

    def new_generation(self) -> str:
        """Return a generation that never was: a count, which is its era, and this process's random bits."""
        self._made += 1
        return f"{self._made}.{self._epoch}"

    def _tell(self, stream: str, gen: str, entry: Entry) -> None:
        listeners = self._hearing(stream)
        if self._faults is not None:
            listeners = self._faults.hearing(listeners, stream, gen, entry)
        for listener in listeners:
            listener.entry(stream, gen, entry)

    def _hearing(self, stream: str) -> tuple[Listener, ...]:
        listeners = self._listeners.get(stream, ())
        return listeners if isinstance(listeners, tuple) else (listeners,)

    def _kept(self, key: str) -> Kept | None:
        found = self._keys.get(key)
        if found is None:
            return None
        value, revision, ends = found
        if ends is not None and ends <= self.clock():
            del self._keys[key]
            return None
        return Kept(value, revision)

    def _revision_of(self, key: str) -> int:
        kept = self._kept(key)
        return 0 if kept is None else kept.revision

    def _sweep_keys(self, now: float) -> None:
        keys = self._keys
        for key in self._key_rounds.next(_SWEPT_PER_CALL):
            ends = keys[key][2]
            if ends is not None and ends <= now:
                del keys[key]

    def _sweep_streams(self, now: float) -> None:
        self._turns += _SWEPT_PER_CALL
        if self._turns < _SWEPT_AT_ONCE and now < self._turns_due:
            return
        turns, self._turns, self._turns_due = self._turns, 0, now + 1.0
        logs = self._logs
        for stream in self._log_rounds.next(turns):
            log = logs[stream]
            if isinstance(log, Log) and now > log.due:
                log.expire(now)
            if log.touched < now - self._patience(log) and stream not in self._listeners:
                del logs[stream]

    def _patience(self, log: Log | Footing) -> float:
        if isinstance(log, Footing):
            return self._limits.standing
        if log.bare:
            return self._limits.standing if log.begun else self._limits.age
        return FORGET_AFTER


class Faults:
    """What brokers do to their users, done on request and never by itself."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._away = False
        self._answers: deque[str] = deque()
        self._puts: deque[str] = deque()
        self._lags: dict[str, int] = {}
        self._losing: dict[str, int] = {}
        self._deaf: set[Listener] = set()
        self._holding: set[str] = set()
        self.held: list[tuple[Listener, str, str, Entry]] = []

    # --- to be called by a test

    def go_away(self) -> None:
        """Be unavailable until `come_back`."""
        self._away = True

    def come_back(self) -> None:
        """Be there again."""
        self._away = False

    def lose_answer(self, *, done: bool) -> None:
        """Raise `OutcomeUnknown` from the next append, which is ``done`` or not."""
        self._answers.append("done" if done else "not_done")

    def lose_put_answer(self, *, done: bool) -> None:
        """Raise `OutcomeUnknown` from the next put whose comparison succeeds, which is ``done`` or not."""
        self._puts.append("done" if done else "not_done")

    def keys(self) -> dict[str, Stored]:
        """Return all keys as they are now, for `take_back` to return to."""
        return dict(self._broker._keys)

    def take_back(self, keys: dict[str, Stored]) -> None:
        """Fail over to a replica that knows nothing newer than ``keys``; their generation is another one from now on.

        The streams stay as they are: `lose_tail` is theirs.
        """
        self._broker.fall_back_to(keys)

    def lose_live(self, stream: str, count: int = 1) -> None:
        """Publish the next ``count`` entries of ``stream`` to nobody, and say nothing."""
        self._losing[stream] = self._losing.get(stream, 0) + count

    def deafen(self, listener: Listener) -> None:
        """Tell ``listener`` of no entry until `heal`: a subscription that died and looks alive."""
        self._deaf.add(listener)

    def heal(self, listener: Listener) -> None:
        """Tell ``listener`` again."""
        self._deaf.discard(listener)

    def hold_live(self, stream: str) -> None:
        """Put the live entries of ``stream`` into ``held``, for the test to pass on as it likes, until `let_go`."""
        self._holding.add(stream)

    def let_go(self, stream: str) -> None:
        """Pass live entries on again; what is in ``held`` stays the test's."""
        self._holding.discard(stream)

    def lag(self, stream: str, entries: int) -> None:
        """Answer unconfirmed reads from a follower that lacks the newest ``entries``; 0 for none."""
        self._lags[stream] = entries

    def lose_tail(self, stream: str, count: int, *, same_generation: bool = False) -> list[Entry]:
        """Fail over to a replica that lacks the newest ``count`` entries, and return those.

        The log goes on under a new generation, or under the same: A, then B, then A again.
        """
        gen = None if same_generation else self._broker.new_generation()
        return self._broker._log(stream).lose_tail(count, gen)

    def renew(self, stream: str) -> None:
        """Fail over to a replica that lacks nothing: only the generation changes."""
        self.lose_tail(stream, 0)

    def truncate(self, stream: str, keep: int) -> None:
        """Reach the limit of history now: keep only the newest ``keep`` entries."""
        self._broker._log(stream).truncate(keep)

    def forget_mids(self, stream: str) -> None:
        """Lose the memory of message ids within its window."""
        self._broker._log(stream).forget_mids()

    def wipe(self, stream: str) -> None:
        """Lose the stream; it is made again, under another generation, when it is used."""
        self._broker._logs.pop(stream, None)

    # --- called by the broker

    def check(self) -> None:
        """Raise if the broker is away."""
        if self._away:
            raise BrokerUnavailable("the broker is away")

    def next_answer(self) -> str | None:
        """Return how the next append's answer is lost, None if it is not."""
        return self._answers.popleft() if self._answers else None

    def next_put_answer(self) -> str | None:
        """Return how the next put's answer is lost, None if it is not."""
        return self._puts.popleft() if self._puts else None

    def lag_of(self, stream: str) -> int:
        """Return by how many entries a follower lags."""
        return self._lags.get(stream, 0)

    def hearing(self, listeners: tuple[Listener, ...], stream: str, gen: str, entry: Entry) -> tuple[Listener, ...]:
        """Return those of ``listeners`` who are told of this live entry now."""
        left = self._losing.get(stream, 0)
        if left:
            self._losing[stream] = left - 1
            return ()
        hearing = tuple([listener for listener in listeners if listener not in self._deaf])
        if stream in self._holding:
            self.held += [(listener, stream, gen, entry) for listener in hearing]
            return ()
        return hearing
