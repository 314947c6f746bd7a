"""One reader's way back into one stream, on any node (the guarantee, "Resume on any node").

The node follows the stream before it reads the history, and its `Ring` is the buffer in which the live entries wait:
one for all who resume at that moment. The states::

    state       what is known                            next       step
    SUBSCRIBED  the position lies below the floor        READING    Read, from the floor
    SUBSCRIBED  the position stands in the ring          MERGING    Proved
    SUBSCRIBED  it does not                              READING    Read, from the position
    READING     a page                                   READING    Proved (the first time), Hand, Read on
    READING     no proof, the answer not confirmed       READING    Read again, confirmed: silence is no verdict
    READING     no proof, confirmed                      READING    Reset, then Read from the restart
    READING     the same, the restart is below the floor READING    Read, from the floor
    READING     from the floor: a page                   READING    Reset to the floor, Hand, Read on
    READING     from the floor: no proof                 READING    Reset to what came since, if the reader is before
                                                                    that; else the Reset that it was read for, or the
                                                                    position is judged as if there were no floor
    READING     what was handed last is in the ring      MERGING
    READING     the log ends, the ring is elsewhere      MERGING    Wait: the ring compares itself with the log
    MERGING     the ring is being repaired               MERGING    Wait
    MERGING     the ring goes on from there              MERGING    Hand
    MERGING     the ring ends there                      LIVE       Live
    MERGING     the ring ends before the membership does READING    Read from there, confirmed: the ring is behind
    MERGING     and so does the log                      ENDED      Ended: a failover took back what came before its end
    MERGING     it is not in the ring                    READING    Read from there, confirmed
    any         the end of the membership is reached     ENDED      Ended

The *floor* is where the reader became a member. What it claims to have may be older than that, by mistake or to see
what was never meant for it: it gets nothing from below. Where a failover has taken the floor itself back, it gets what
came after that, as far as it is known.

Each step is taken when the reader's socket has room for it, and a page is read only then. A reader whose socket is
slow comes here too and pulls; when the history has gone past it, the reason is ``too_far``.
"""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, TypeAlias

from bellwire.delivery.answer import PAGE_BYTES, PAGE_MESSAGES, Answer, Page, Reason, Unproved
from bellwire.delivery.chain import Place
from bellwire.delivery.entry import Entry
from bellwire.delivery.position import Point, Position, position
from bellwire.delivery.ring import Ring


class State(Enum):
    """The states of a resume."""

    SUBSCRIBED = "subscribed"
    READING = "reading"
    MERGING = "merging"
    LIVE = "live"
    ENDED = "ended"


class Read(NamedTuple):
    """Read the log behind ``after`` and call `Resume.answered`; ``confirmed`` as in `Page`."""

    after: Position
    messages: int
    size: int
    confirmed: bool


class Proved(NamedTuple):
    """The reader's position is in the log; it is ``at`` under the present generation."""

    at: Position


class Reset(NamedTuple):
    """Tell the reader that it cannot go on, and why; it stands at ``restart`` from now on."""

    reason: Reason
    restart: Position


class Hand(NamedTuple):
    """Send these entries under ``gen``, the first with ``prev`` as its previous point, each other with the one before.

    There is at least one. Ask for the next step when the socket has taken them.
    """

    gen: str
    prev: Point
    entries: tuple[Entry, ...]


class Wait(NamedTuple):
    """Ask again when the answer or the ring's repair is there."""


class Live(NamedTuple):
    """The reader has all up to the ring's top; the last it was given is ``known``."""

    known: Point


class Ended(NamedTuple):
    """The reader has all up to the end of its membership; the last it was given is ``known``."""

    known: Point


Step: TypeAlias = Read | Proved | Reset | Hand | Wait | Live | Ended

_WAIT = Wait()


class Resume:
    """One reader in one stream, from its ``cursor`` until it is live.

    ``takes`` tells whether the reader gets an entry; what it does not get only advances it. ``until`` is where its
    membership ended, ``floor`` where it began. ``lagging`` marks a reader that was live and has become slow.
    """

    __slots__ = (
        "_asked",
        "_at",
        "_brought",
        "_claim",
        "_confirmed",
        "_entries",
        "_floor",
        "_known",
        "_messages",
        "_more",
        "_proved",
        "_ring",
        "_size",
        "_sought",
        "_sounding",
        "_takes",
        "_until",
        "_verdict",
        "state",
    )

    def __init__(
        self,
        ring: Ring,
        cursor: Position,
        takes: Callable[[Entry], bool],
        *,
        until: Position | None = None,
        floor: Position | None = None,
        lagging: bool = False,
        messages: int = PAGE_MESSAGES,
        size: int = PAGE_BYTES,
    ) -> None:
        self.state = State.SUBSCRIBED
        self._ring = ring
        self._at = cursor  # how far the log was gone through
        self._known = cursor.point  # what the reader was given last
        self._takes = takes
        self._until = until
        self._floor = floor
        self._sounding = False  # the floor is being read, for
        self._claim: Reset | None = None  # this, or for the position if it is None
        self._messages = messages
        self._size = size
        self._proved = lagging  # once proved, what is missing is too far away rather than truncated
        self._verdict: Proved | Reset | None = None
        self._entries: list[Entry] = []
        self._asked = False
        self._more = False
        self._confirmed = False
        self._brought = False  # the last answer had entries
        self._sought = False  # the log was asked for what is missing up to the end of the membership

    @property
    def level(self) -> bool:
        """Whether it begins at the ring's top: the next steps are `Proved` and `Live`, and nothing is read for it."""
        at, ring = self._at, self._ring
        begins = self.state is State.SUBSCRIBED and not (self._asked or self._proved) and self._until is None
        return begins and at.point == ring.chain.top and ring.stands(at) and not self._is_below(at)

    def next(self) -> Step:
        """Return what is to be done next."""
        while True:
            step = self._turn()
            if step is not None:
                return step

    def answered(self, answer: Answer) -> None:
        """Take the answer to a `Read`; ValueError if there was none."""
        if not self._asked:
            raise ValueError("nothing was asked")
        self._asked = False
        self._confirmed = answer.confirmed
        if self._sounding:
            self._sounded(answer)
        elif isinstance(answer, Page):
            self._take(answer)
            self._prove(answer.top.gen)
        else:
            self._more = False
            if answer.confirmed:
                self._unproved(answer)

    def _take(self, page: Page) -> None:
        self._more = page.more
        self._entries = page.entries
        self._brought = bool(page.entries)
        self._sought = self._sought and not self._brought

    def _unproved(self, answer: Unproved) -> None:
        far = self._proved and answer.reason is Reason.TRUNCATED
        reset = Reset(Reason.TOO_FAR if far else answer.reason, answer.restart)
        if self._is_below(reset.restart):
            self._claim = reset
        else:
            self._restart(reset)

    def _sounded(self, answer: Answer) -> None:
        self._sounding = False
        claim, self._claim = self._claim, None
        floor, self._floor = self._floor, None
        if isinstance(answer, Page) and floor is not None:
            reason = Reason.TRUNCATED if claim is None else claim.reason
            self._start_at(Reset(reason, position(answer.top.gen, floor.point)))
            self._take(answer)
            self._floor = floor
            return
        since = answer.since if isinstance(answer, Unproved) else None
        if since is not None and (claim is not None or self._at.seq < since.seq):
            self._restart(Reset(Reason.DIVERGED if claim is None else claim.reason, since))
        elif claim is not None:
            self._restart(claim)
        else:
            self.state = State.SUBSCRIBED

    def _restart(self, reset: Reset) -> None:
        if reset.reason is Reason.GENERATION and self._until is not None:
            self._until = reset.restart  # the membership ended in a log that is no more
        self._start_at(reset)

    def _start_at(self, reset: Reset) -> None:
        self._proved, self._more = True, True
        self._at, self._known = reset.restart, reset.restart.point
        self._verdict = reset

    def _is_below(self, at: Position) -> bool:
        return self._floor is not None and at.seq < self._floor.seq

    @property
    def known(self) -> Position:
        """What the reader was given last."""
        return position(self._at.gen, self._known)

    def _prove(self, gen: str) -> None:
        self._at = position(gen, self._at.point)
        if not self._proved:
            self._proved = True
            self._verdict = Proved(position(gen, self._known))

    def _turn(self) -> Step | None:
        if self._verdict is not None:
            verdict, self._verdict = self._verdict, None
            return verdict
        if self._entries:
            return self._hand()
        if self.state is State.ENDED or (self._until is not None and self._proved and self._at.seq >= self._until.seq):
            self.state = State.ENDED
            return Ended(self._known)
        if self.state is State.MERGING:
            return self._merge()
        if self.state is State.LIVE:
            return Live(self._known)
        return self._read_on()

    def _read_on(self) -> Step | None:
        if self._asked:
            return _WAIT
        if self._claim is not None or (self.state is State.SUBSCRIBED and self._is_below(self._at)):
            self._sounding = True
            return self._read(confirmed=True)
        if self._ring.stands(self._at):
            self.state = State.MERGING
            self._prove(self._ring.gen)
            return None
        if self.state is State.SUBSCRIBED or self._more:
            return self._read(confirmed=False)
        overtaken = self._brought and self._ring.chain.locate(self._at.point) is Place.BEHIND
        if overtaken or not self._confirmed:
            return self._read(confirmed=True)
        self._ring.compare(self._at)
        self.state = State.MERGING
        return _WAIT

    def _read(self, *, confirmed: bool) -> Read:
        self.state = State.READING
        self._asked = True
        after = self._floor if self._sounding and self._floor is not None else self._at
        return Read(after, self._messages, self._size, confirmed)

    def _merge(self) -> Step | None:
        ring = self._ring
        if not ring.following:
            return _WAIT
        if not ring.stands(self._at):
            return self._read(confirmed=True)
        self._entries, _ = ring.chain.after(self._at.point, self._messages, self._size)
        self._at = position(ring.gen, self._at.point)
        if self._entries:
            return None
        if self._until is not None:
            return self._seek_end()
        self.state = State.LIVE
        return Live(self._known)

    def _seek_end(self) -> Step:
        if self._sought:
            self.state = State.ENDED
            return Ended(self._known)
        self._sought = True
        return self._read(confirmed=True)

    def _hand(self) -> Hand | None:
        entries, self._entries = self._entries, []
        self._at = position(self._at.gen, entries[-1].point)
        if self._until is not None:
            entries = [entry for entry in entries if entry.seq <= self._until.seq]
        prev = self._known
        taken = tuple(entry for entry in entries if not entry.is_marker and self._takes(entry))
        if not taken:
            return None
        self._known = taken[-1].point
        return Hand(self._at.gen, prev, taken)
