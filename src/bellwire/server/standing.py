"""Where one stream stands on this node: heard of, its position known, and compared with the log now and then.

Most streams are quiet: each client that recovers has one of its own, and as a rule nothing comes there. As long as
nothing came since the position was read, and one member at most is here, these two are all that is kept; a
`~bellwire.delivery.feed.Feed` is made of them by whatever happens::

    state    what is kept           event                                                  next
    ABSENT   nothing                `stand`                                                QUIET, its position unknown
    QUIET    a position, a member   the position is read                                   QUIET
    QUIET                           an entry, or a volatile event                          FED
    QUIET                           a member that stands elsewhere, or one more            FED
    QUIET                           the log stands elsewhere, or the member does not read  FED
    QUIET                           nobody is left                                         ABSENT
    FED      a Feed                 one live member is on its way no more, and no entry    QUIET
    FED                             one live member is left, and nothing came for a while  QUIET
    FED                             nobody is left                                         ABSENT
"""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Sequence
from enum import Enum
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from bellwire.brokers.publisher import FIRST_PAUSE, LAST_PAUSE
from bellwire.core.errors import OutcomeUnknown
from bellwire.delivery.chain import Place
from bellwire.delivery.entry import Entry, marker
from bellwire.delivery.feed import Feed, Output
from bellwire.delivery.naming import Key
from bellwire.delivery.position import Position, position
from bellwire.server.streams import Streams

if TYPE_CHECKING:
    from bellwire.server.hub import Hub
    from bellwire.server.socket import Socket


class Way(Enum):
    """How far the one member of a quiet stream is."""

    COMING = "coming"
    """It stands where the stream does, and has not been told so."""
    LIVE = "live"
    LAGGING = "lagging"
    """It was live, and takes from the history what follows."""


_UNKNOWN: Final = Position("", 0, 0)
"""Where a stream stands until that was read."""


class Standing(ABC):
    """One stream on this node; `bellwire.server.room.Room` is the rest of it."""

    __slots__ = (
        "_at",
        "_doing",
        "_feed",
        "_hub",
        "_lone",
        "_streams",
        "_way",
        "guests",
        "idle",
        "key",
        "stream",
        "subscribed",
    )

    def __init__(self, hub: "Hub", key: Key, streams: Streams, stream: str) -> None:
        self.key = key
        self.stream = stream
        self.subscribed = False
        self.guests = 0
        """How many are about to come in: the room is not given up meanwhile."""
        self.idle = True
        """Whether nothing came since the last probe."""
        self._hub = hub
        self._streams = streams
        self._feed: Feed[Socket] | None = None
        self._at: Position | None = None  # while it is quiet, where it stands
        self._lone: Socket | None = None  # and who is here
        self._way = Way.COMING
        self._doing: dict[object, asyncio.Future[None] | None] | None = None

    # --- in the words of the room

    @abstractmethod
    async def _subscribe(self, *, new: bool) -> None:
        """Ask the broker to tell it what is new."""

    @abstractmethod
    def _tell(self, outputs: "Sequence[Output[Socket]]") -> None:
        """Hand out what the feed says."""

    @abstractmethod
    def _skipped(self, entry: Entry) -> "Collection[Socket]":
        """Who does not get an entry that excludes someone, or has copies."""

    @abstractmethod
    def _takes(self, socket: "Socket", entry: Entry) -> bool:
        """The same of one of them."""

    @abstractmethod
    def _floor(self, socket: "Socket") -> Position:
        """Where the stay of one of them began."""

    @abstractmethod
    def _address(self) -> None:
        """The groups of members have become others."""

    # --- quiet, or not

    @property
    def feed(self) -> "Feed[Socket] | None":
        """What members that recover stand in, who need more than a position; None while there are none."""
        if self._at is not None:
            self._feed_with(self._at)
        return self._feed

    def _feed_with(self, at: Position) -> None:
        settle = self._streams.settle
        settle()  # this hands out what is others', and may fail there
        lone, self._lone, self._at = self._lone, None, None
        feed = self._feed = Feed(self._skipped, settle, takes=self._takes, page_bytes=self._streams.page_bytes)
        if at.gen:
            feed.opened(at)
        if lone is not None:
            self._bring_in(feed, lone, at)
        self._address()

    def _bring_in(self, feed: "Feed[Socket]", lone: "Socket", at: Position) -> None:
        if self._way is Way.COMING:
            feed.resume(lone, at, floor=at)
            return
        feed.join(lone)
        if self._way is Way.LAGGING:
            feed.lag(lone, floor=self._floor(lone))

    def _quieten(self, *, idle: bool = False) -> None:
        """Keep no feed where a position and a member say all, or would if entries that are ``idle`` were forgotten."""
        feed = self._feed
        if feed is not None and (feed.is_quiet or (idle and feed.is_plain)):
            self._streams.settle()
            self._at, self._lone, self._way = feed.ring.top, next(iter(feed.audience.live), None), Way.LIVE
            self._feed = None
            self._address()

    def _is_told(self, entry: Entry) -> bool:
        """Whether an entry that is published to a quiet stream says nothing new; what it hides the next one shows."""
        return self._at is not None and entry.is_marker and (not self._at.gen or entry.point == self._at.point)

    def _is_at(self, top: Position) -> bool:
        """Whether a quiet stream stands there."""
        return self._at is not None and self._at.point == top.point

    @property
    def serves(self) -> bool:
        """Whether it is here for members that recover."""
        return self._feed is not None or self._at is not None

    @property
    def _forsaken(self) -> bool:
        """Whether there are none."""
        return self._lone is None and (self._feed is None or self._feed.empty)

    def tidy(self) -> None:
        """Give up what is kept for members that recover if there are none, and nobody is about to come in."""
        if self.serves and self._forsaken and not self.guests:
            self._at = None
            if self._feed is not None:
                self._streams.settle()
                self._feed = None
                self._address()

    # --- where it stands

    async def subscribe(self, *, new: bool = False) -> None:
        """Hear of what is new from now on; ``new`` as in `stand`. Raises BrokerUnavailable."""
        await self._once("subscribe", lambda: self.subscribed, lambda: self._subscribe(new=new))

    async def _once(self, what: object, is_done: Callable[[], bool], do: Callable[[], Awaitable[None]]) -> None:
        """Do what several may want at the same time: one of them does it for all."""
        while not is_done():
            doing = self._doing
            if doing is None:
                doing = self._doing = {}
            if what in doing:
                done = doing[what] = doing[what] or asyncio.get_running_loop().create_future()
                await asyncio.shield(done)
                continue
            doing[what] = None  # until somebody waits for it
            try:
                await do()
            finally:
                waited = doing.pop(what)
                if not doing:
                    self._doing = None
                if waited is not None:
                    waited.set_result(None)

    @property
    def _top(self) -> Position:
        """The position up to which all is here."""
        if self._at is not None:
            return self._at
        return _UNKNOWN if self._feed is None else self._feed.ring.top

    async def stand(self, *, new: bool = False) -> Position:
        """Hear of what is new, and return the position up to which all is here. Raises BrokerUnavailable.

        If the stream is ``new``, so that nobody else has ever heard of it, it is not asked where it ends.
        """
        if not self.subscribed:
            await self.subscribe(new=new)
        if not self.serves:
            self._at = _UNKNOWN
        if not self._top.gen:
            await self._once("open", lambda: bool(self._top.gen), lambda: self._open(new=new))
        return self._top

    async def _open(self, *, new: bool) -> None:
        top = await self._find_top(new=new)
        if self._at is not None:
            self._at = top
        elif self._feed is not None:
            self._tell(self._feed.opened(top))

    async def now(self) -> Position:
        """Return the position behind all that was emitted before, whether it is here yet or not.

        It is one that the log has: where this node has something else, a failover has taken that back, and it is looked
        into. Raises BrokerUnavailable.
        """
        if not self._top.gen and (self._doing is None or "open" not in self._doing):
            return await self.stand()  # which asks from now on, if it is not asked for us meanwhile
        here = await self.stand()
        top = await self._streams.broker.top(self.stream)
        feed = self._feed if self._is_at(top) else self.feed
        if feed is None or not feed.ring.following:
            return top
        place = feed.ring.chain.locate(top.point)
        if place is Place.PROVED and top.seq >= here.seq:
            return max(top, feed.ring.top, key=attrgetter("seq"))  # something may have come since it was asked
        if place is not Place.AHEAD:
            self._tell(feed.probe(top))
        return top

    async def _find_top(self, *, new: bool) -> Position:
        broker, pause = self._streams.broker, FIRST_PAUSE
        while new or not (top := await broker.top(self.stream)).seq:
            new = False
            try:
                appended = await broker.append(self.stream, marker(random.getrandbits(32)))
                return position(appended.gen, appended.point)
            except OutcomeUnknown:  # it is there, or it is not: the next look tells
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE)
        return top

    @property
    def _is_following(self) -> bool:
        return bool(self._at.gen) if self._at is not None else self._feed is not None and self._feed.ring.following

    async def _compare(self) -> bool:
        """Whether the log has nothing that was not told; if it has, that is read."""
        before = self._top
        top = await self._streams.broker.top(self.stream)
        if self._top != before or not self.idle or self._is_at(top):
            return True
        feed = self.feed
        if feed is None:
            return True
        told = top.point == feed.ring.top.point
        self._tell(feed.probe(top))
        return told
