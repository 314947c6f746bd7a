"""One stream as this node serves it: a room, a user's sockets, or everyone in a namespace.

Plain members get what comes, as it comes; nothing is kept for them. Members that can recover stand in a
`~bellwire.delivery.feed.Feed`, which says who gets what, unless all is quiet (`bellwire.server.standing`); the room
reads for it, tells its members, and goes on with those who are on their way back whenever their sockets have room.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from bellwire.brokers.publisher import FIRST_PAUSE, LAST_PAUSE
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.answer import PAGE_BYTES, PAGE_MESSAGES, Answer, Page
from bellwire.delivery.entry import Entry
from bellwire.delivery.feed import Advance, Cast, Feed, Output, Own, Told
from bellwire.delivery.membership import taken_elsewhere
from bellwire.delivery.naming import Key
from bellwire.delivery.position import Point, Position, position
from bellwire.delivery.resume import Ended, Hand, Live, Proved, Read, Reset, Wait
from bellwire.protocol.post import Delivery, Post
from bellwire.server.dispatch import Dispatcher, Outcome
from bellwire.server.standing import Standing, Way
from bellwire.server.streams import Kept, Streams

if TYPE_CHECKING:
    from bellwire.server.backlog import Audience
    from bellwire.server.hub import Hub
    from bellwire.server.reader import Reader
    from bellwire.server.socket import Socket

_NOBODY: Final[frozenset["Socket"]] = frozenset()

PAGE_SECONDS: Final = 1.0
"""How long a page of the history is kept for others who come back from the same place."""

BATCH: Final = 1_024
"""How many entries are handed to those who come back before the loop turns to something else."""


class Room(Standing):
    """The members of one stream on this node; the broker tells it what is new (`bellwire.brokers.base.Listener`)."""

    __slots__ = (
        "_again",
        "_alias",
        "_all",
        "_bare",
        "_dispatcher",
        "_driving",
        "_due",
        "_gen",
        "_page_read",
        "_untold",
        "plain",
    )

    def __init__(self, hub: "Hub", key: Key, streams: Streams, dispatcher: Dispatcher, stream: str) -> None:
        super().__init__(hub, key, streams, stream)
        self._alias = 0
        self.plain: set[Socket] | frozenset[Socket] = _NOBODY
        """Members that recover nothing."""
        self._dispatcher = dispatcher
        self._bare: Audience = ()  # one object each, for the fan-out to join what goes to it
        self._all: Audience = ()
        self._gen = ""
        self._driving = False
        self._again = False  # all who resume are due, not just
        self._due: dict[Socket, None] | None = None
        self._page_read: tuple[str, Position, int, int] | None = None  # the key of the newest
        self._untold: list[Output[Socket]] | None = None  # while something is told

    def __repr__(self) -> str:
        return f"Room({self._hub.name!r}, {self.key!r})"

    @property
    def alias(self) -> int:
        """What its messages call the stream."""
        if not self._alias:
            self._alias = self._streams.new_alias()
        return self._alias

    # --- members

    def add(self, socket: "Socket") -> None:
        """Let a ``socket`` that recovers nothing have what comes; settle before."""
        plain = self.plain
        if isinstance(plain, frozenset):
            plain = self.plain = set()
            self._address()
        plain.add(socket)

    def discard(self, socket: "Socket") -> None:
        """Let it have nothing more; settle before."""
        if isinstance(self.plain, set):
            self.plain.discard(socket)

    @override
    def _address(self) -> None:
        self._bare = (self.plain,) if isinstance(self.plain, set) else ()
        self._all = self._bare if self._feed is None else (*self._bare, self._feed.audience.live)

    @property
    def members(self) -> "Collection[Socket]":
        """Everyone in it."""
        if self._feed is not None:
            return self.plain.union(self._feed.audience.members, self._returning(self._feed))
        lone = self._lone
        return self.plain if lone is None or not self.has(lone) else self.plain.union((lone,))

    @property
    def count(self) -> int:
        """How many they are, but for those on their way back."""
        if self._feed is not None:
            return len(self.plain) + len(self._feed.audience)
        return len(self.plain) + (self._lone is not None and self._way is Way.LIVE)

    def _returning(self, feed: "Feed[Socket]") -> "list[Socket]":
        """Those who are on their way back and still belong here: not those who read what came before they left."""
        return [socket for socket in feed.resuming if self._belongs(socket)]

    def _belongs(self, socket: "Socket") -> bool:
        reader = socket.reader
        return reader is not None and reader.belongs(self.stream)  # else it has to prove first where it stands

    def has(self, socket: "Socket") -> bool:
        """Whether ``socket`` is among the members."""
        feed = self._feed
        if socket in self.plain:
            return True
        if feed is None:
            return socket is self._lone and (self._way is Way.LIVE or self._belongs(socket))
        return socket in feed.audience or (socket in feed.resuming and self._belongs(socket))

    @property
    def empty(self) -> bool:
        """Whether nobody is in it, or about to be."""
        return not self.plain and not self.guests and self._forsaken

    @override
    async def _subscribe(self, *, new: bool) -> None:
        await self._streams.broker.subscribe(self.stream, self, new=new)
        self.subscribed = True

    def __contains__(self, socket: object) -> bool:
        """Whether ``socket`` gets anything from here."""
        return socket in self.plain or self._recovers(socket)

    def _recovers(self, socket: object) -> bool:
        feed = self._feed
        if feed is None:
            return socket is self._lone and socket is not None
        return socket in feed.audience or socket in feed.resuming

    def admit(
        self, socket: "Socket", position: Position, until: Position | None = None, floor: Position | None = None
    ) -> None:
        """Let a recoverable ``socket`` have what follows on ``position``, and nothing from before ``floor``."""
        if position == self._at and self._lone is None and until is None and floor in (None, position):
            self._lone, self._way = socket, Way.COMING
            return
        feed = self.feed
        assert feed is not None  # noqa: S101 - it stands here: see stand()
        feed.resume(socket, position, until=until, floor=floor)

    def dismiss(self, socket: "Socket") -> Position | None:
        """Forget a recoverable ``socket`` and return where it stood; None if it was not here."""
        if not self._recovers(socket):
            return None
        if self._feed is not None:
            return self._feed.leave(socket)
        self._lone = None
        return self._at

    def let_go(self, socket: "Socket") -> None:
        """A recoverable ``socket`` is gone: forget it, and the room if it was the last."""
        self.dismiss(socket)
        self._hub.vacate(self)

    def lag(self, socket: "Socket") -> None:
        """The ``socket`` is full: from now on it takes from the history."""
        feed = self._feed
        if feed is not None and socket in feed.audience:
            self.catch_up(socket)
            feed.lag(socket, floor=self._floor(socket))
        elif socket is self._lone and self._way is Way.LIVE:
            self._way = Way.LAGGING

    def catch_up(self, socket: "Socket") -> None:
        """Tell a recoverable ``socket`` where it stands, if what came last was not for it."""
        if self._feed is not None:
            self._tell(self._feed.catch_up(socket))

    def point(self, socket: "Socket") -> Point | None:
        """Behind which entry ``socket`` will stand once it has all that is on its way to it; None if it is not here."""
        feed = self._feed
        if feed is None:
            return self._top.point if socket is self._lone else None
        if socket in feed.resuming:
            return feed.ring.top.point
        return feed.audience.point(socket) if socket in feed.audience else None

    # --- from the broker

    def entry(self, stream: str, gen: str, entry: Entry) -> None:
        """An entry was appended."""
        self.idle = False
        if self._is_told(entry):
            return
        post = None if entry.is_marker else self._streams.read(self._hub.name, entry.body)
        feed = self.feed
        apart = bool(entry.excluded or entry.copies)
        outputs: Sequence[Output[Socket]] = () if feed is None else feed.live(gen, entry)
        if feed is not None and len(outputs) == 1 and not apart and self._untold is None:
            output = outputs[0]
            if type(output) is Cast and output.members is feed.audience.live and post is not None:
                self._streams.fanout.cast(self._all, self._place(post, gen, entry, entry.prev), room=self.stream)
                return
        if post is not None and self.plain:
            plain = self.plain.difference(self._skipped(entry)) if apart else self.plain
            self._streams.fanout.cast((plain,) if apart else self._bare, post, room=self.stream)
        if feed is not None:
            self._tell(outputs)

    def volatile(self, stream: str, body: bytes) -> None:
        """An event was published beside the log."""
        published = self._streams.published(body)
        post = None if published is None else self._streams.read(self._hub.name, published.body)
        if published is None or post is None:
            return
        feed = self._feed
        audience, lone = self._all, self._lone
        if published.excluded or published.earlier:
            skipped = self._excluded(published.excluded)
            skipped.update(*map(self._hub.members_in, published.earlier))
            audience = (set(self.members) - skipped,)
        elif lone is not None and self.has(lone):
            audience = (*audience, (lone,))
        elif feed is not None and (feed.audience.behind or feed.resuming):
            audience = (*audience, [*feed.audience.behind, *self._returning(feed)])
        self._streams.fanout.cast(audience, post, room=self.stream, volatile=published.volatile)

    def _place(self, post: Post, gen: str, entry: Entry, prev: Point) -> Delivery:
        named = gen != self._gen
        self._gen = gen
        return Delivery(post, self.stream, self.alias, gen, prev, entry.seq, entry.tag, entry.mid, named=named)

    # --- who does not get it

    @override
    def _skipped(self, entry: Entry) -> "set[Socket]":
        skipped = self._excluded(entry.excluded)
        for copy in entry.copies:
            skipped.update(self._hub.plain_in(copy.stream))
        if entry.copies and self._feed is not None:
            for socket in self._feed.audience.members:
                reader = self._reader(socket)
                if reader.undecided(entry):  # it takes this entry, or does not, when that is known
                    self._feed.lag(socket, floor=reader.floor(self))
                elif taken_elsewhere(entry, reader.spans):
                    skipped.add(socket)
        return skipped

    @override
    def _takes(self, socket: "Socket", entry: Entry) -> bool:
        if any(self._hub.holds(name, socket) for name in entry.excluded):
            return False
        return not taken_elsewhere(entry, self._reader(socket).spans)

    def _excluded(self, names: Sequence[str]) -> "set[Socket]":
        return set().union(*map(self._hub.members, names)) if names else set()

    # --- to those who recover

    @override
    def _tell(self, outputs: "Sequence[Output[Socket]]") -> None:
        if self._untold is not None:  # who was told left, and its handler emitted: that goes behind the rest
            self._untold.extend(map(_kept, outputs))
            return
        self._untold = list(outputs)
        try:
            for output in self._untold:
                self._say(output)
        finally:
            self._untold = None
        feed = self._feed  # another than before, if all left and somebody came
        if feed is not None and feed.question is not None:  # who resumes goes on when its socket has room
            self.drive()

    def _say(self, output: "Output[Socket]") -> None:
        match output:
            case Cast(gen, entry, members):
                post = self._streams.read(self._hub.name, entry.body)
                if post is not None:
                    item = self._place(post, gen, entry, entry.prev)
                    self._streams.fanout.cast((members,), item, room=self.stream)
                else:
                    for socket in tuple(members):
                        self._pass_over(socket, gen, entry.prev, entry)
            case Own(gen, entry, socket, prev):
                self._hand(socket, gen, prev, (entry,))
            case Told(socket, reason, restart):
                self._reader(socket).reset(self, reason, restart)
            case Advance(socket, prev, to):
                self._reader(socket).advance(self, prev, to)

    def _hand(self, socket: "Socket", gen: str, prev: Point, entries: Sequence[Entry]) -> None:
        items: list[Delivery] = []
        for entry in entries:
            item = self._streams.placed(self, self._hub.name, gen, prev, entry)
            if item is not None:
                items.append(item)
            else:
                if items:
                    socket.deliver(*items)
                    items.clear()
                self._pass_over(socket, gen, prev, entry)
            prev = entry.point
        if items:
            socket.deliver(*items)

    def _pass_over(self, socket: "Socket", gen: str, prev: Point, entry: Entry) -> None:
        """What nobody can read would leave a gap in the client's chain."""
        self._reader(socket).advance(self, prev, position(gen, entry.point))

    @staticmethod
    def _reader(socket: "Socket") -> "Reader":
        assert socket.reader is not None  # noqa: S101 - only those who recover are in the feed
        return socket.reader

    @override
    def _floor(self, socket: "Socket") -> Position:
        return self._reader(socket).floor(self)

    # --- reading for them

    def drive(self, socket: "Socket | None" = None) -> None:
        """Go on with what waits for the log, or with one ``socket`` that has room again: many others may not have."""
        if self._at is not None:
            self._tell_lone()
            return
        if socket is None:
            self._again = True
        elif self._come_live(socket):
            return
        else:
            self._call(socket)
        if self._driving:
            return
        self._driving = True
        self._dispatcher.run(self._drive(), self._driven)

    def _tell_lone(self) -> None:
        """Let the one member of a quiet stream be live, if it can take something."""
        reader, at, way = None if self._lone is None else self._lone.reader, self._at, self._way
        if at is None or reader is None or way is Way.LIVE or not reader.ready:
            return
        self._way = Way.LIVE
        if way is Way.COMING:
            reader.proved(self, at)

    def _come_live(self, socket: "Socket") -> bool:
        """Let one be live at once that stands where the stream does, as whoever begins a session: nothing is read."""
        feed, reader = self._feed, socket.reader
        at = None if feed is None or reader is None or not reader.ready else feed.come_live(socket)
        if at is None or reader is None:
            return False
        reader.proved(self, at)
        self._catch_up(reader)
        self._quieten()
        return True

    def _call(self, socket: "Socket") -> None:
        if self._due is None:
            self._due = {}
        self._due[socket] = None

    def _driven(self, outcome: Outcome) -> None:
        self._driving = False
        if outcome.error is not None and not self._dispatcher.ended(outcome.error):
            self._streams.fault(self, outcome.error)

    async def _drive(self) -> None:
        while self._again or self._due:
            handed = 0
            for socket in await self._next():
                handed += await self._bring(socket)
                if handed >= BATCH:
                    handed = 0
                    await asyncio.sleep(0)

    async def _next(self) -> "Iterable[Socket]":
        """Repair the ring if it needs that, for which all may have waited; return whose turn it is."""
        repaired = await self._repair()
        again, self._again = self._again or repaired, False
        due, self._due = self._due, None
        resuming = {} if self._feed is None else self._feed.resuming
        turn = resuming if again else [socket for socket in due or () if socket in resuming]
        return sorted(
            turn, key=lambda socket: resuming[socket].known.seq
        )  # what is read for one who is far behind is for the others too

    async def _repair(self) -> bool:
        repaired = False
        while (feed := self._feed) is not None and (question := feed.question) is not None:
            answer = await self._read(feed, question)
            if answer is not None and self._feed is feed and feed.question == question:
                self._tell(feed.answered(answer))
            repaired = True
        return repaired

    async def _bring(self, socket: "Socket") -> int:
        """Take the steps of one member's way back, until it is live, has to wait, or its socket is full.

        Once something was read for it, it is the others' turn. Return how many entries it was handed.
        """
        reader, handed = socket.reader, 0
        if reader is None:  # it has to prove first where it stands
            return 0
        while (feed := self._feed) is not None and (resume := feed.resuming.get(socket)) is not None and reader.ready:
            step = feed.next(socket)
            if isinstance(step, Read):
                answer = await self._page(feed, step)
                if answer is not None and self._feed is feed and feed.resuming.get(socket) is resume:
                    feed.read(socket, answer)  # else it has left, or begun anew from somewhere else
                self._call(socket)
                break
            if isinstance(step, Wait):
                self._again = self._again or feed.question is not None
                break
            handed += len(step.entries) if isinstance(step, Hand) else 0
            self._take(reader, step)
            if socket.sink.buffered > self._streams.page_bytes:
                await asyncio.sleep(0)  # the tick ends: what was handed is written, and it is known if there is room
        return handed

    async def prove(self, socket: "Socket") -> bool:
        """Whether a member that comes back stands where it says; nothing is handed to it."""
        if socket is self._lone:
            return True
        while (feed := self._feed) is not None and (resume := feed.resuming.get(socket)) is not None:
            step = feed.next(socket)
            if not isinstance(step, Read):
                return isinstance(step, Proved)
            answer = await self._page(feed, step)
            if answer is not None and self._feed is feed and feed.resuming.get(socket) is resume:
                feed.read(socket, answer)
        return False

    async def _page(self, feed: "Feed[Socket]", step: Read) -> Answer | None:
        """Read for one who comes back. What is read for one is for all who come back from there, or from behind it.

        A page is what it was whenever it was read; only that nothing follows on it is true for a moment.
        """
        if step.confirmed:
            return await self._read(feed, *step)
        answer: Answer | None = None

        def is_there() -> bool:
            nonlocal answer
            answer = answer or self._kept(step)
            return answer is not None or self._feed is not feed

        async def read() -> None:
            nonlocal answer
            answer = await self._read(feed, *step)
            if isinstance(answer, Page):
                self._keep(step, answer._replace(confirmed=False))

        await self._once("page", is_there, read)
        return answer

    def _kept(self, step: Read) -> Page | None:
        """The page, or the rest of one, that was read a moment ago."""
        now = asyncio.get_running_loop().time()
        for key in ((self.stream, step.after, step.messages, step.size), self._page_read):
            kept = None if key is None else self._streams.pages.get(key)
            if kept is not None and key is not None and now - kept.at <= PAGE_SECONDS:
                page = kept.page if key[1] == step.after else kept.page.behind(step.after)
                if page is not None:
                    return page
        return None

    def _keep(self, step: Read, page: Page) -> None:
        self._page_read = self.stream, step.after, step.messages, step.size
        kept = Kept(page, asyncio.get_running_loop().time())
        self._streams.pages.put(self._page_read, kept, sum(entry.size for entry in page.entries))

    def _take(self, reader: "Reader", step: Proved | Reset | Hand | Live | Ended) -> None:
        match step:
            case Proved(at):
                reader.proved(self, at)
            case Reset(reason, restart):
                reader.reset(self, reason, restart)
            case Hand(gen, prev, entries):
                self._hand(reader.socket, gen, prev, entries)
            case Live():
                self._catch_up(reader)
                self._quieten()
            case Ended(known):
                reader.ended(self, known)
                self._hub.vacate(self)

    def _catch_up(self, reader: "Reader") -> None:
        """Tell one who is live how far, if the last entries were not for it: something may have to come behind them."""
        feed, socket = self._feed, reader.socket
        if feed is not None and socket in feed.audience.behind:
            prev = feed.audience.catch_up(socket)
            reader.advance(self, prev, position(feed.ring.gen, feed.audience.top))

    async def _read(
        self,
        feed: "Feed[Socket]",
        after: Position,
        messages: int = PAGE_MESSAGES,
        size: int = PAGE_BYTES,
        confirmed: bool = True,
    ) -> Answer | None:
        """Read until the broker answers; None if nobody waits for it any more."""
        pause = FIRST_PAUSE
        while self._feed is feed:
            try:
                return await self._streams.broker.read(
                    self.stream, after, messages=messages, size=size, confirmed=confirmed
                )
            except BrokerUnavailable:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE)
        return None

    async def probe(self) -> None:
        """Compare with the log if nothing came for a while: so what was lost is found. Raises BrokerUnavailable.

        Then the subscription may be dead for good, and another one is made.
        """
        idle, self.idle = self.idle, True
        if not idle or not self._is_following:
            return
        self.guests += 1
        try:
            if not await self._compare() or not self.subscribed:
                self.subscribed = False
                await self._streams.broker.unsubscribe(self.stream, self)
                await self.subscribe()
                await self._compare()
            elif self.idle:
                self._quieten(idle=True)
        finally:
            self._hub.part(self)


def _kept(output: "Output[Socket]") -> "Output[Socket]":
    """An output for later, when the audience may have changed."""
    return Cast(output.gen, output.entry, tuple(output.members)) if isinstance(output, Cast) else output
