"""One stream as this node serves it: a room, a user's sockets, or everyone in a namespace.

Plain members get what comes, as it comes; nothing is kept for them. Members that can recover stand in a
`~bellwire.delivery.feed.Feed`, which says who gets what; the room reads for it, tells its members, and goes on with
those who are on their way back whenever their sockets have room.
"""

import asyncio
import random
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from bellwire.delivery.answer import Answer
from bellwire.delivery.entry import Entry, marker
from bellwire.delivery.feed import Advance, Cast, Feed, Output, Own, Told
from bellwire.delivery.membership import taken_elsewhere
from bellwire.delivery.position import Point, Position, position
from bellwire.delivery.resume import Ended, Hand, Live, Proved, Read, Reset, Wait
from bellwire.protocol.post import Delivery, Post
from bellwire.server.dispatch import Dispatcher, Outcome
from bellwire.server.streams import FIRST_PAUSE, LAST_PAUSE, Key, Streams, stream_of

if TYPE_CHECKING:
    from bellwire.server.fanout import Audience
    from bellwire.server.hub import Hub
    from bellwire.server.reader import Reader
    from bellwire.server.socket import Socket

_NOBODY: Final[frozenset["Socket"]] = frozenset()


class Room:
    """The members of one stream on this node; the broker tells it what is new (`bellwire.brokers.base.Listener`)."""

    __slots__ = (
        "_again",
        "_all",
        "_bare",
        "_dispatcher",
        "_driving",
        "_gen",
        "_hub",
        "_opening",
        "_streams",
        "feed",
        "guests",
        "idle",
        "key",
        "plain",
        "stream",
        "subscribed",
    )

    def __init__(self, hub: "Hub", key: Key, streams: Streams, dispatcher: Dispatcher) -> None:
        self.key = key
        self.stream = stream_of(hub.name, key)
        self.plain: set[Socket] = set()
        """Members that recover nothing."""
        self.feed: Feed[Socket] | None = None
        """Members that do; None while there are none."""
        self.subscribed = False
        self.guests = 0
        """How many are about to come in: the room is not given up meanwhile."""
        self.idle = True
        """Whether nothing came since the last probe."""
        self._hub = hub
        self._streams = streams
        self._dispatcher = dispatcher
        self._bare: Audience = (self.plain,)  # one object each, for the fan-out to join what goes to it
        self._all = self._bare
        self._gen = ""
        self._opening: asyncio.Future[None] | None = None
        self._driving = False
        self._again = False

    def __repr__(self) -> str:
        return f"Room({self._hub.name!r}, {self.key!r})"

    # --- members

    @property
    def members(self) -> "Collection[Socket]":
        """Everyone in it."""
        feed = self.feed
        if feed is None:
            return self.plain
        return self.plain.union(feed.audience.members, feed.resuming)

    @property
    def empty(self) -> bool:
        """Whether nobody is in it, or about to be."""
        return not self.plain and not self.guests and (self.feed is None or self.feed.empty)

    async def subscribe(self) -> None:
        """Hear of what is new from now on. Raises BrokerUnavailable."""
        while not self.subscribed:
            if self._opening is not None:
                await asyncio.shield(self._opening)
                continue
            opening = self._opening = asyncio.get_running_loop().create_future()
            try:
                await self._streams.broker.subscribe(self.stream, self)
                self.subscribed = True
            finally:
                self._opening = None
                opening.set_result(None)

    async def stand(self) -> Position:
        """Hear of what is new, and return the position of somebody who joins now. Raises BrokerUnavailable."""
        await self.subscribe()
        feed = self.feed
        if feed is None:
            self._streams.fanout.settle()
            feed = self.feed = Feed(self._skipped, self._streams.fanout.settle)
            self._all = (self.plain, feed.audience.live)
        if not feed.ring.top.gen:
            top = await self._top()
            if not feed.ring.top.gen:  # else somebody who came at the same time was faster
                self._tell(feed, feed.opened(top))
        return feed.ring.top

    async def _top(self) -> Position:
        broker = self._streams.broker
        top = await broker.top(self.stream)
        if top.seq:
            return top
        try:
            await broker.append(self.stream, marker(random.getrandbits(32)))
        except OutcomeUnknown:  # it is there, or it is not: the next look tells
            return await self._top()
        return await broker.top(self.stream)

    def admit(self, socket: "Socket", position: Position, until: Position | None = None) -> None:
        """Let a recoverable ``socket`` have what follows on ``position``."""
        assert self.feed is not None  # noqa: S101 - it stands here: see stand()
        self.feed.resume(socket, position, until=until)

    def dismiss(self, socket: "Socket") -> Position | None:
        """Forget a recoverable ``socket`` and return where it stood; None if it was not here."""
        feed = self.feed
        if feed is None or not (socket in feed.audience or socket in feed.resuming):
            return None
        return feed.leave(socket)

    def tidy(self) -> None:
        """Give up what is kept for members that recover if there are none, and nobody is about to come in."""
        if self.feed is not None and self.feed.empty and not self.guests:
            self._streams.fanout.settle()
            self.feed = None
            self._all = self._bare

    def lag(self, socket: "Socket") -> None:
        """The ``socket`` is full: from now on it takes from the history."""
        if self.feed is not None and socket in self.feed.audience:
            self.feed.lag(socket)

    def point(self, socket: "Socket") -> Point | None:
        """Behind which entry ``socket`` will stand once it has all that is on its way to it; None if it is not here."""
        feed = self.feed
        if feed is None:
            return None
        if socket in feed.resuming:
            return feed.ring.top.point
        return feed.audience.point(socket) if socket in feed.audience else None

    # --- from the broker

    def entry(self, stream: str, gen: str, entry: Entry) -> None:
        """An entry was appended."""
        self.idle = False
        post = None if entry.is_marker else self._streams.read(self._hub.name, entry.body)
        feed = self.feed
        apart = bool(entry.excluded or entry.copies)
        outputs: Sequence[Output[Socket]] = () if feed is None else feed.live(gen, entry)
        if feed is not None and len(outputs) == 1 and not apart:
            output = outputs[0]
            if type(output) is Cast and output.members is feed.audience.live and post is not None:
                self._streams.fanout.cast(self._all, self._place(post, gen, entry, entry.prev))
                return
        if post is not None and self.plain:
            plain = self.plain.difference(self._skipped(entry)) if apart else self.plain
            self._streams.fanout.cast((plain,) if apart else self._bare, post)
        if feed is not None:
            self._tell(feed, outputs)

    def volatile(self, stream: str, body: bytes) -> None:
        """An event was published beside the log."""
        published = self._streams.published(body)
        post = None if published is None else self._streams.read(self._hub.name, published.body)
        if published is None or post is None:
            return
        audience = self._all
        feed = self.feed
        if published.excluded or published.earlier:
            skipped = self._excluded(published.excluded)
            skipped.update(*map(self._members_of, published.earlier))
            audience = (set(self.members) - skipped,)
        elif feed is not None and (feed.audience.behind or feed.resuming):
            audience = (*audience, [*feed.audience.behind, *feed.resuming])
        self._streams.fanout.cast(audience, post, volatile=published.volatile)

    def _place(self, post: Post, gen: str, entry: Entry, prev: Point) -> Delivery:
        named = gen != self._gen
        self._gen = gen
        return Delivery(post, self.stream, gen, prev, entry.seq, entry.tag, entry.mid, named=named)

    # --- who does not get it

    def _skipped(self, entry: Entry) -> "set[Socket]":
        skipped = self._excluded(entry.excluded)
        for copy in entry.copies:
            room = self._hub.streams.get(copy.stream)
            if room is not None:
                skipped |= room.plain
        if entry.copies and self.feed is not None:
            for socket in (*self.feed.audience.members, *self.feed.resuming):
                if socket.reader is not None and taken_elsewhere(entry, socket.reader.spans):
                    skipped.add(socket)
        return skipped

    def _excluded(self, names: Sequence[str]) -> "set[Socket]":
        return set().union(*map(self._hub.members, names)) if names else set()

    def _members_of(self, stream: str) -> "Collection[Socket]":
        room = self._hub.streams.get(stream)
        return _NOBODY if room is None else room.members

    # --- to those who recover

    def _tell(self, feed: "Feed[Socket]", outputs: "Sequence[Output[Socket]]") -> None:
        for output in outputs:
            match output:
                case Cast(gen, entry, members):
                    post = self._streams.read(self._hub.name, entry.body)
                    if post is not None:
                        self._streams.fanout.cast((members,), self._place(post, gen, entry, entry.prev))
                    else:
                        for socket in tuple(members):
                            self._pass_over(socket, gen, entry.prev, entry)
                case Own(gen, entry, socket, prev):
                    if not self._hand(socket, gen, prev, entry):
                        self._pass_over(socket, gen, prev, entry)
                case Told(socket, reason, restart):
                    self._reader(socket).reset(self, reason, restart)
                case Advance(socket, prev, to):
                    self._reader(socket).advance(self, prev, to)
        if feed.question is not None:  # who resumes needs nothing of this: it goes on when its socket has room
            self.drive()

    def _hand(self, socket: "Socket", gen: str, prev: Point, entry: Entry) -> bool:
        post = self._streams.read(self._hub.name, entry.body)
        if post is not None:
            socket.deliver(Delivery(post, self.stream, gen, prev, entry.seq, entry.tag, entry.mid, named=True))
        return post is not None

    def _pass_over(self, socket: "Socket", gen: str, prev: Point, entry: Entry) -> None:
        """What nobody can read would leave a gap in the client's chain."""
        self._reader(socket).advance(self, prev, position(gen, entry.point))

    @staticmethod
    def _reader(socket: "Socket") -> "Reader":
        assert socket.reader is not None  # noqa: S101 - only those who recover are in the feed
        return socket.reader

    # --- reading for them

    def drive(self) -> None:
        """Go on with what waits for the log, or for a socket that has room again."""
        if self._driving:
            self._again = True
            return
        self._driving = True
        outcome = self._dispatcher.start(self._drive(), self._driven)
        if outcome is not None:
            self._driven(outcome)

    def _driven(self, outcome: Outcome) -> None:
        self._driving = False
        if outcome.error is not None and not self._dispatcher.ended(outcome.error):
            self._streams.fault(self, outcome.error)

    async def _drive(self) -> None:
        self._again = True
        while self._again:
            self._again = False
            await self._repair()
            for socket in () if self.feed is None else tuple(self.feed.resuming):
                await self._bring(socket)

    async def _repair(self) -> None:
        while (feed := self.feed) is not None and (question := feed.question) is not None:
            answer = await self._read(feed, question, confirmed=True)
            if answer is not None and self.feed is feed and feed.question == question:
                self._tell(feed, feed.answered(answer))

    async def _bring(self, socket: "Socket") -> None:
        """Take the steps of one member's way back, until it is live, has to wait, or its socket is full."""
        reader = self._reader(socket)
        while (feed := self.feed) is not None and socket in feed.resuming and reader.ready:
            step = feed.next(socket)
            if isinstance(step, Read):
                answer = await self._read(step.after, messages=step.messages, size=step.size, confirmed=step.confirmed)
                if self.feed is feed and socket in feed.resuming:
                    feed.read(socket, answer)
            elif isinstance(step, Wait):
                self._again = self._again or feed.question is not None
                return
            else:
                self._take(reader, step)

    def _take(self, reader: "Reader", step: Proved | Reset | Hand | Live | Ended) -> None:
        match step:
            case Proved(at):
                reader.proved(self, at)
            case Reset(reason, restart):
                reader.reset(self, reason, restart)
            case Hand(gen, prev, entries):
                for entry in entries:
                    if not self._hand(reader.socket, gen, prev, entry):
                        self._pass_over(reader.socket, gen, prev, entry)
                    prev = entry.point
            case Ended():
                reader.ended(self)
                self._hub.vacate(self)

    async def _read(self, after: Position, *, confirmed: bool, messages: int = 500, size: int = 1024 * 1024) -> Answer:
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._streams.broker.read(
                    self.stream, after, messages=messages, size=size, confirmed=confirmed
                )
            except BrokerUnavailable:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE)

    async def probe(self) -> None:
        """Compare with the log if nothing came for a while: what was lost on the way is found."""
        feed, idle, self.idle = self.feed, self.idle, True
        if feed is None or not idle or not feed.ring.following:
            return
        top = await self._streams.broker.top(self.stream)
        if self.feed is feed and self.idle:
            self._tell(feed, feed.probe(top))
