"""One stream as a node serves it: its ring, its audience and those who are on their way back into it.

Values in, values out (the guarantee, "The node", "Resume on any node"). Whoever drives it subscribes to the stream,
reads its top and calls `Feed.opened`; passes every live entry to `Feed.live`; after each call reads behind
`Feed.question`, everything acknowledged included, until that is None; and asks `Feed.next` for each member in
`Feed.resuming` when its socket has room and a question was answered. What it is given to send is sent in that order.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, Generic, NamedTuple, TypeAlias

import msgspec

from bellwire.delivery.answer import PAGE_BYTES, Answer, Reason
from bellwire.delivery.audience import Audience, M
from bellwire.delivery.entry import Entry
from bellwire.delivery.position import Point, Position, position
from bellwire.delivery.resume import Ended, Live, Resume, Step
from bellwire.delivery.ring import Broken, Ring, Verdict

REMIND_EVERY: Final = 128
"""After how many entries those are told where they stand who were passed over by all that the ring holds."""

_ACCEPTED: Final = Verdict.ACCEPTED  # as in `bellwire.delivery.ring`


class Cast(msgspec.Struct, Generic[M], frozen=True, gc=False):
    """Send ``entry``, as it is, to all ``members``, which may be the audience's own set: settle before it changes."""

    gen: str
    entry: Entry
    members: Collection[M]


class Own(NamedTuple, Generic[M]):
    """Send ``entry`` to ``member`` with ``prev`` in the place of the entry's own."""

    gen: str
    entry: Entry
    member: M
    prev: Point


class Told(NamedTuple, Generic[M]):
    """Tell ``member`` that it is reset; it stands at ``restart``, and what follows is sent as to the others."""

    member: M
    reason: Reason
    restart: Position


class Advance(NamedTuple, Generic[M]):
    """Tell ``member`` that nothing between ``prev`` and ``to`` is for it, so that it resumes from there."""

    member: M
    prev: Point
    to: Position


Output: TypeAlias = Cast[M] | Own[M] | Told[M] | Advance[M]


class Feed(Generic[M]):
    """One stream on one node.

    ``skipped`` names, for an entry that excludes someone or has copies, who does not get it; it may name others than
    members. ``takes`` tells the same of one member, where that is faster. ``before_change`` is the audience's.
    ``page_bytes`` is the most that a member on its way back is handed in one step, unless one entry has more.
    """

    __slots__ = ("_casts", "_page_bytes", "_skipped", "_takes", "audience", "resuming", "ring")

    def __init__(
        self,
        skipped: Callable[[Entry], Collection[M]],
        before_change: Callable[[M | None], None],
        ring: Ring | None = None,
        *,
        takes: Callable[[M, Entry], bool] | None = None,
        page_bytes: int = PAGE_BYTES,
    ) -> None:
        self.ring = Ring() if ring is None else ring
        self.audience: Audience[M] = Audience(before_change=before_change)
        self.resuming: dict[M, Resume] = {}
        self._skipped = skipped
        self._takes = takes or (lambda member, entry: member not in skipped(entry))
        self._page_bytes = page_bytes
        self._casts = 0

    @property
    def question(self) -> Position | None:
        """Behind which position the node must read for the ring to go on, None if nothing is to be read."""
        return self.ring.question

    @property
    def empty(self) -> bool:
        """Whether nobody is served, so that the stream need not be followed."""
        return not self.audience and not self.resuming

    @property
    def is_plain(self) -> bool:
        """Whether it can be made anew of a position and one member that is live, or none; entries are in the log.

        A log that a failover has left with nothing has no position.
        """
        audience, ring = self.audience, self.ring
        stands = ring.following and ring.chain.top.seq > 0
        return stands and not (self.resuming or audience.behind) and len(audience.live) <= 1

    @property
    def is_quiet(self) -> bool:
        """Whether these say all, since there are no entries."""
        return self.is_plain and not len(self.ring.chain)

    # --- from the broker

    def opened(self, top: Position) -> list[Output[M]]:
        """``top`` was read after the subscription was made: the ring stands there now."""
        entries = self.ring.open(top)
        self.audience.top = top.point
        return self._cast_all(entries)

    def live(self, gen: str, entry: Entry) -> Sequence[Output[M]]:
        """Take an entry that the broker published under ``gen``."""
        if self.ring.accept(gen, entry) is _ACCEPTED:
            return self._cast(gen, entry)
        return ()

    def answered(self, answer: Answer) -> list[Output[M]]:
        """Take the answer to ``question``: one read repairs it for all members."""
        repair = self.ring.repair(answer)
        outputs = self._break(repair.broken) if repair.broken is not None else []
        return outputs + self._cast_all(repair.entries)

    def probe(self, top: Position) -> list[Output[M]]:
        """Compare with the log's ``top``, read when the stream was idle; a question may follow."""
        if self.ring.compare(top):
            return self._remind(top.seq, top.gen)
        return []

    # --- members

    def join(self, member: M) -> Position:
        """Let ``member`` have all that follows; return where it stands.

        Raises:
            ValueError: the stream is not open yet, or stands at its start: append a marker first.

        """
        top = self.ring.top
        if not top.seq:
            raise ValueError("there is no position to stand on: open the stream, and append a marker to an empty one")
        self.audience.join(member, top.point)
        return top

    def resume(
        self, member: M, cursor: Position, *, until: Position | None = None, floor: Position | None = None
    ) -> None:
        """Bring ``member`` back from its ``cursor``, from where its membership began up to where it ended if it did."""
        self._pull(member, cursor, until, floor, lagging=False)

    def lag(self, member: M, *, floor: Position | None = None) -> None:
        """Let ``member``, whose socket is slow, pull from the history until it has caught up; KeyError if not here."""
        cursor = position(self.ring.gen, self.audience.leave(member))
        self._pull(member, cursor, None, floor, lagging=True)

    def _pull(
        self, member: M, cursor: Position, until: Position | None, floor: Position | None, *, lagging: bool
    ) -> None:
        def takes(entry: Entry) -> bool:
            return not (entry.excluded or entry.copies) or self._takes(member, entry)

        self.resuming[member] = Resume(
            self.ring, cursor, takes, until=until, floor=floor, lagging=lagging, size=self._page_bytes
        )

    def come_live(self, member: M) -> Position | None:
        """Let a member that begins at the ring's top have all that follows; return where it stands, which is proved.

        None for all others: ask `next`.
        """
        resume = self.resuming.get(member)
        if resume is None or not resume.level:
            return None
        self._end(member)
        self.audience.join(member, self.ring.chain.top)
        return self.ring.top

    def next(self, member: M) -> Step:
        """Return the next step of a member that resumes; with `Live` and `Ended` it no longer does."""
        step = self.resuming[member].next()
        if isinstance(step, Live):
            self._end(member)
            self.audience.join(member, step.known)
        elif isinstance(step, Ended):
            self._end(member)
        return step

    def _end(self, member: M) -> Resume | None:
        """Forget the way of a member that resumes, and when nobody does, the room that this took."""
        resume = self.resuming.pop(member, None)
        if resume is not None and not self.resuming:
            self.resuming = {}
        return resume

    def read(self, member: M, answer: Answer) -> None:
        """Take the answer to the `Read` of a member that resumes."""
        self.resuming[member].answered(answer)

    def catch_up(self, member: M) -> list[Output[M]]:
        """Let ``member`` stand where the others do, if what came last was not for it.

        That is decided with what it is now. Whoever is about to pull from the history would be asked again, and may be
        something else by then.
        """
        if member not in self.audience.behind:
            return []
        return [Advance(member, self.audience.catch_up(member), position(self.ring.gen, self.audience.top))]

    def leave(self, member: M) -> Position:
        """Forget ``member`` and return where it stood; KeyError if it is not here."""
        resume = self._end(member)
        if resume is not None:
            return resume.known
        return position(self.ring.gen, self.audience.leave(member))

    # --- out

    def _cast(self, gen: str, entry: Entry) -> list[Output[M]]:
        if not (entry.excluded or entry.copies or self.audience.behind or entry.is_marker):
            members = self.audience.advance(entry).common
            return [Cast(gen, entry, members)] if members else []
        return self._cast_apart(gen, entry)

    def _cast_apart(self, gen: str, entry: Entry) -> list[Output[M]]:
        fan = self.audience.advance(entry, self._passed_over(entry))
        outputs: list[Output[M]] = [Cast(gen, entry, fan.common)] if fan.common else []
        if fan.others:
            outputs += [Own(gen, entry, member, prev) for member, prev in fan.others]
        if self.audience.behind:
            self._casts += 1
            if self._casts >= REMIND_EVERY:
                outputs += self._remind(self.ring.chain.base.seq, gen)
        return outputs

    def _cast_all(self, entries: Iterable[tuple[str, Entry]]) -> list[Output[M]]:
        """Cast several before any of it is sent: a later one may change the audience's set, so none may name that."""
        outputs: list[Output[M]] = []
        live, everyone = self.audience.live, None
        for gen, entry in entries:
            for output in self._cast(gen, entry):
                if isinstance(output, Cast) and output.members is live:
                    everyone = tuple(live) if everyone is None else everyone
                    outputs.append(Cast(gen, entry, everyone))
                else:
                    everyone = None
                    outputs.append(output)
        return outputs

    def _passed_over(self, entry: Entry) -> Collection[M]:
        if entry.excluded or entry.copies:
            return self._skipped(entry)
        return self.audience.members if entry.is_marker else ()

    def _break(self, broken: Broken) -> list[Output[M]]:
        beyond = self.audience.restart(broken.restart.point, broken.common)
        return [Told(member, broken.reason, broken.restart) for member in beyond]

    def _remind(self, below: int, gen: str) -> list[Output[M]]:
        """Tell those where they stand whose last point is below a number, lest the history go past them."""
        self._casts = 0
        at = position(gen, self.audience.top)  # the ring may be ahead of it, by entries that are still to be cast
        late = [member for member, point in self.audience.behind.items() if point.seq < below]
        return [Advance(member, self.audience.catch_up(member), at) for member in late]
