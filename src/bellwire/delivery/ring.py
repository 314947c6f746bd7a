"""What a node keeps of a stream that it serves: the newest entries, proved and repaired once for all its clients.

The states (the guarantee, "The node")::

    state      input                                    next       meaning
    OPENING    live entry                               OPENING    HELD
    OPENING    open(top)                                FOLLOWING  stands at the log's top; what was held follows
    FOLLOWING  live entry, its prev is our top          FOLLOWING  ACCEPTED
    FOLLOWING  live entry that we have, tag and all     FOLLOWING  DUPLICATE
    FOLLOWING  live entry, its prev lies beyond our top REPAIRING  GAP: ask behind our top
    FOLLOWING  any other live entry, or an older number
               under another tag                        REPAIRING  SUSPECT: ask behind our base
    FOLLOWING  compare(top) with another top            REPAIRING  GAP or SUSPECT
    REPAIRING  live entry                               REPAIRING  HELD
    REPAIRING  page that goes on                        REPAIRING  ask behind what is proved so far
    REPAIRING  last page                                FOLLOWING  what we held beyond the proved point is taken back
    REPAIRING  last page, but something held has a gap  REPAIRING  ask again
    REPAIRING  no proof, but the log's base is ours     REPAIRING  ask behind that
    REPAIRING  no proof behind our top: diverged        REPAIRING  ask behind our base
    REPAIRING  no proof otherwise                       REPAIRING  all is taken back: ask behind what came before

A suspicion is no verdict: the log is. Whatever a deposed leader still publishes costs a read and changes nothing.
"""

from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple

from bellwire.delivery.answer import Answer, Page, Reason, Unproved
from bellwire.delivery.chain import Chain, Place
from bellwire.delivery.entry import Entry
from bellwire.delivery.position import Point, Position, position

RING_MESSAGES: Final = 256
"""How many entries a node keeps of a stream: enough for those who were away for a moment; the rest is in the log."""

RING_BYTES: Final = 1024 * 1024
"""The most bytes it keeps, beside the newest entry."""

HELD_MESSAGES: Final = 256
"""How many live entries are held during a repair. Those beyond are in the log, and asked for there."""


class State(Enum):
    """The states of a ring."""

    OPENING = "opening"
    FOLLOWING = "following"
    REPAIRING = "repairing"


class Verdict(Enum):
    """What a live entry was to the ring."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    HELD = "held"
    GAP = "gap"
    SUSPECT = "suspect"


# To find a member in its Enum takes CPython 3.11 longer than all else that is done with it.
_FOLLOWING: Final = State.FOLLOWING
_ACCEPTED: Final = Verdict.ACCEPTED


class Broken(NamedTuple):
    """What the node handed out is not the log's: whoever stands beyond ``common`` must be told ``reason``.

    ``common`` is the last point that the ring and the log share, None if there is none: then it concerns everyone.
    All go on from ``restart``.
    """

    reason: Reason
    common: Point | None
    restart: Position


class Repair(NamedTuple):
    """The outcome of one answer: first who was ``broken``, then the ``entries`` that everyone gets, under ``gen``."""

    broken: Broken | None
    entries: list[tuple[str, Entry]]


class Ring:
    """The newest entries of one stream on one node.

    ``question`` is the position behind which the node must read, all acknowledged entries included, and answer
    with `repair`; None when nothing is to be asked. While it is OPENING the node reads the stream's top instead.
    """

    __slots__ = ("_held", "_messages", "_missed", "_proved", "_size", "chain", "gen", "question", "state")

    def __init__(self, messages: int = RING_MESSAGES, size: int = RING_BYTES) -> None:
        self.chain = Chain()
        self.gen = ""
        self.state = State.OPENING
        self.question: Position | None = None
        self._messages = messages
        self._size = size
        self._proved = self.chain.base
        self._held: dict[Point, tuple[str, Entry]] = {}
        self._missed = False  # something was not even held

    @property
    def following(self) -> bool:
        """Whether the ring stands where the live entries are."""
        return self.state is State.FOLLOWING

    @property
    def top(self) -> Position:
        """The position behind the newest entry."""
        return position(self.gen, self.chain.top)

    def open(self, top: Position) -> list[tuple[str, Entry]]:
        """Start at the log's top, and return what was published since it was read; ValueError if it was started."""
        if self.state is not State.OPENING:
            raise ValueError("the ring is open")
        self.chain = Chain(top.point)
        self.gen = top.gen
        self._held = {point: held for point, held in self._held.items() if point.seq > top.seq}
        return self._follow()

    def accept(self, gen: str, entry: Entry) -> Verdict:
        """Judge a live entry. Only an ``ACCEPTED`` one is to be handed out; the others need no care."""
        if self.state is not _FOLLOWING:
            self._hold(gen, entry)
            return Verdict.HELD
        chain = self.chain
        top = chain.top
        if entry.prev == top and entry.seq > top.seq and (top.seq or gen == self.gen):
            chain.append(entry)
            self.gen = gen
            chain.shorten(self._messages, self._size)
            return _ACCEPTED
        verdict = self._judge(entry)
        if verdict is not Verdict.DUPLICATE:
            self._ask(verdict)
        return verdict

    def compare(self, top: Position) -> bool:
        """Compare with the log's top, as the idle probe does; False if a repair is needed, or under way."""
        ours = self.top
        if self.following and (top.point != ours.point or (not top.seq and top.gen != ours.gen)):
            self._ask(Verdict.GAP if top.seq > ours.seq else Verdict.SUSPECT)
        return self.following

    def stands(self, at: Position) -> bool:
        """Whether ``at`` is proved by what the ring holds now. The start of a stream is proved by its generation."""
        return self.following and self.chain.locate(at.point) is Place.PROVED and (at.seq > 0 or at.gen == self.gen)

    def repair(self, answer: Answer) -> Repair:
        """Take the answer to ``question``; ask on until it is None."""
        if self.question is None:
            raise ValueError("nothing was asked")
        if isinstance(answer, Page):
            return self._read_on(answer)
        return self._unproved(answer)

    def _judge(self, entry: Entry) -> Verdict:
        """Tell what an entry is that does not follow on the top."""
        top = self.chain.top
        if entry.seq <= top.seq and self.chain.locate(entry.point) is Place.PROVED:
            return Verdict.DUPLICATE
        return Verdict.GAP if entry.prev.seq > top.seq else Verdict.SUSPECT

    def _hold(self, gen: str, entry: Entry) -> None:
        if len(self._held) < HELD_MESSAGES:
            self._held[entry.point] = gen, entry
        else:
            self._missed = True

    def _ask(self, verdict: Verdict) -> None:
        self.state = State.REPAIRING
        self._prove(self.chain.top if verdict is Verdict.GAP else self.chain.base)

    def _prove(self, point: Point) -> None:
        """All up to ``point`` is proved, or taken for granted: read what follows."""
        self._proved = point
        self.question = position(self.gen, point)

    def _follow(self) -> list[tuple[str, Entry]]:
        """Stand at the top of the log, and take what was held until something of it does not fit."""
        self.state = State.FOLLOWING
        self.question = None
        if self._missed:
            self._missed = False
            self._ask(Verdict.GAP)
            return []
        held, self._held = self._held, {}
        taken = []
        for gen, entry in held.values():
            # Once one of them made it ask, those up to its top are covered by the same question.
            if (self.following or entry.seq > self.chain.top.seq) and self.accept(gen, entry) is Verdict.ACCEPTED:
                taken.append((gen, entry))
        return taken

    def _read_on(self, page: Page) -> Repair:
        chain, gen = self.chain, page.top.gen
        entries = iter(page.entries)
        fresh = self._match(entries)
        broken = None if fresh is None and page.more else self._take_back(gen)
        new = [] if fresh is None else [(gen, fresh), *((gen, entry) for entry in entries)]
        for _, entry in new:
            chain.append(entry)
            self._held.pop(entry.point, None)
        self.gen = gen
        chain.shorten(self._messages, self._size)
        if page.more:
            self._prove(chain.top if new else self._proved)
        else:
            new += self._follow()
        return Repair(broken, new)

    def _match(self, entries: Iterable[Entry]) -> Entry | None:
        """Follow the log along the ring as far as they agree; return the log's first entry that is not ours."""
        ours = iter(self.chain.after(self._proved, len(self.chain), self.chain.size)[0])
        for entry in entries:
            self._held.pop(entry.point, None)
            mine = next(ours, None)
            if mine is None or mine.point != entry.point:
                return entry
            self._proved = entry.point
        return None

    def _take_back(self, gen: str) -> Broken | None:
        common = self._proved
        if not self.chain.cut(common):
            return None
        return Broken(Reason.DIVERGED, common, position(gen, common))

    def _unproved(self, answer: Unproved) -> Repair:
        restart = answer.restart
        if answer.reason is not Reason.GENERATION:
            if restart.point != self._proved and self.chain.locate(restart.point) is Place.PROVED:
                self.gen = restart.gen
                self._prove(restart.point)  # the log's base is one of ours: what lies before it is common
                return Repair(None, [])
            if answer.reason is Reason.DIVERGED and self._proved != self.chain.base:
                self._prove(self.chain.base)
                return Repair(None, [])
        # Members have what came before, or are not to be shown it.
        start = answer.since or restart
        self.chain = Chain(start.point)
        self.gen = start.gen
        self._prove(start.point)
        return Repair(Broken(answer.reason, None, start), [])
