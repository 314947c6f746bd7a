"""Between this node's rooms and the broker: what is emitted goes out by streams, what comes in is read once."""

import logging
from collections.abc import Coroutine, Sequence
from itertools import chain, count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from bellwire.brokers.base import Broker
from bellwire.brokers.publisher import Publisher
from bellwire.core.counters import Counters
from bellwire.core.errors import PacketError
from bellwire.delivery.answer import PAGE_BYTES, Page
from bellwire.delivery.entry import Entry
from bellwire.delivery.naming import direct_of
from bellwire.delivery.position import Point, Position
from bellwire.delivery.published import Published, decode_published
from bellwire.protocol.post import Delivery, Post
from bellwire.server.newest import Newest

if TYPE_CHECKING:
    from bellwire.server.fanout import Fanout
    from bellwire.server.hub import Hub
    from bellwire.server.room import Room

logger = logging.getLogger("bellwire.server")

KEPT_POSTS: Final = 1_024
"""How many of the newest posts are kept in their wire forms: what a node emits comes back to it from the broker."""
KEPT_PAGES: Final = 256
"""The same of pages of the history."""
KEPT_BYTES: Final = 8 * 1024 * 1024
"""And how many bytes of them; the newest is kept whatever its size."""


class Kept(NamedTuple):
    """A page of a stream's history, and when it was read, by the loop's clock."""

    page: Page
    at: float


class Streams:
    """What the rooms of this node share; ``page_bytes`` is what a client on its way back is handed in one step."""

    __slots__ = (
        "_aliases",
        "_placed",
        "_posts",
        "broker",
        "counters",
        "departing",
        "fanout",
        "hubs",
        "page_bytes",
        "pages",
        "publisher",
        "settle",
    )

    def __init__(self, broker: Broker, fanout: "Fanout", counters: Counters, *, page_bytes: int = PAGE_BYTES) -> None:
        self.broker = broker
        self.publisher = Publisher(broker)
        self.departing = 0
        """How many emissions of relays are on their way (`bellwire.server.departures`)."""
        self.fanout = fanout
        self.settle = fanout.settle  # one object for all rooms
        self.counters = counters
        self.page_bytes = page_bytes
        self.pages: Newest[tuple[str, Position, int, int], Kept] = Newest(KEPT_PAGES, KEPT_BYTES)
        """What was read last for those who come back, by where it follows, and how many messages and bytes of it."""
        self._posts: Newest[bytes, Post] = Newest(KEPT_POSTS, KEPT_BYTES)
        self._aliases = count(1)
        self._placed: Newest[tuple[int, str, Point, int, int], Delivery] = Newest(KEPT_POSTS, KEPT_BYTES)
        self.hubs: dict[str, Hub] = {}
        """The live namespaces by their marks."""

    @property
    def rooms(self) -> "list[Room]":
        """All rooms of this node."""
        return list(chain.from_iterable([hub.streams.values() for hub in self.hubs.values()]))

    # --- out

    def emit(
        self,
        streams: Sequence[str],
        post: Post,
        *,
        excluded: tuple[str, ...] = (),
        volatile: bool = False,
        mid: str | None = None,
    ) -> Coroutine[Any, Any, object]:
        """Bring ``post`` to the members of ``streams``; to be awaited, and raises, as `Publisher.emit`.

        While too much waits for members here it waits as well, unless it is volatile.
        """
        body = self.remember(post)
        if not volatile and self.fanout.full(streams):
            return self._emit_later(streams, body, excluded, mid)
        return self.publisher.emit(streams, body, excluded, volatile, mid)

    def remember(self, post: Post) -> bytes:
        """Return the body of a ``post`` that is about to come back from the broker, and need not be read then."""
        body = post.body
        self._posts.put(body, post, len(body))
        return body

    async def _emit_later(
        self, streams: Sequence[str], body: bytes, excluded: tuple[str, ...], mid: str | None
    ) -> None:
        self.counters.add("emits_delayed_total")
        await self.fanout.room_in(streams, len(body))
        await self.publisher.emit(streams, body, excluded, False, mid)

    # --- in

    def new_alias(self) -> int:
        """Return what to call a stream in each message: the same for all clients of this node, and never used again."""
        return next(self._aliases)

    def read(self, namespace: str, body: bytes) -> Post | None:
        """Return the post that ``body`` holds, None if it is not one of this program's: that is counted."""
        post = self._posts.get(body)
        if post is not None and post.namespace == namespace:
            return post
        try:
            post = Post.read(namespace, body)
        except PacketError:
            self.counters.dropped("event", reason="unreadable", policy="no_event")
            return None
        self._posts.put(body, post, len(body))
        return post

    def placed(self, room: "Room", namespace: str, gen: str, prev: Point, entry: Entry) -> Delivery | None:
        """Return an entry at its place behind ``prev``, one object for all who stand there; None as `read` does."""
        key = room.alias, gen, prev, entry.seq, entry.tag
        item = self._placed.get(key)
        if item is None:
            post = self.read(namespace, entry.body)
            if post is None:
                return None
            item = Delivery(post, room.stream, room.alias, gen, prev, entry.seq, entry.tag, entry.mid, named=True)
            self._placed.put(key, item, len(entry.body))
        return item

    def published(self, body: bytes) -> Published | None:
        """Return what was published, None if it is not of this program: that is counted."""
        newest = self.publisher.newest
        if newest is not None and newest[0] is body:
            return newest[1]
        try:
            return decode_published(body)
        except msgspec.MsgspecError:
            self.counters.dropped("event", reason="unreadable", policy="no_event")
            return None

    def direct(self, stream: str, body: bytes) -> None:
        """Take an event for one socket that does not recover, and has it at most once: not if it is gone."""
        target, published = direct_of(stream), self.published(body)
        hub = None if target is None else self.hubs.get(target.namespace)
        if target is not None and hub is not None and published is not None:
            hub.hand(target.id, published)

    def fault(self, room: object, error: BaseException) -> None:
        """Reading for a room failed in a way that should not be: it is logged, and the room goes on when asked to."""
        self.counters.add("stream_faults_total")
        logger.error("reading for %r failed", room, exc_info=error)
