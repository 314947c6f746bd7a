"""Between this node's rooms and the broker: what is emitted goes out by streams, what comes in is read once.

An event goes to one stream after the other, in the order in which its rooms were named, and each copy carries the
places of those before it. A stream that nobody can have a position in is not appended to: the event is published.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Coroutine, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec

from bellwire.brokers.base import Broker
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from bellwire.delivery.answer import PAGE_BYTES, Page
from bellwire.delivery.effects import APPEND_SECONDS
from bellwire.delivery.entry import Copy, Draft, Entry
from bellwire.delivery.handling import Append
from bellwire.delivery.log import Appended
from bellwire.delivery.position import Point, Position
from bellwire.protocol.post import Delivery, Post
from bellwire.server.newest import Newest

if TYPE_CHECKING:
    from bellwire.server.fanout import Fanout
    from bellwire.server.room import Room

logger = logging.getLogger("bellwire.server")

MAX_MID: Final = 128
"""Characters of a message's id."""

KEPT_POSTS: Final = 1_024
"""How many of the newest posts are kept in their wire forms: what a node emits comes back to it from the broker."""
KEPT_PAGES: Final = 256
"""The same of pages of the history."""
KEPT_BYTES: Final = 8 * 1024 * 1024
"""And how many bytes of them; the newest is kept whatever its size."""

FIRST_PAUSE: Final = 0.05
"""Seconds between an attempt that had no answer and the next; each pause is twice the one before, up to"""
LAST_PAUSE: Final = 1.0


class User(NamedTuple):
    """The key under which all sockets of one user are found; no room's name can collide with it."""

    id: str


class Everyone(NamedTuple):
    """The key of all sockets in a namespace."""


EVERYONE: Final = Everyone()

Key: TypeAlias = "str | User | Everyone"
"""A room's name, a socket's id (which is a room that holds just it), a user, or everyone in the namespace."""


def kind_of(key: Key) -> tuple[str, str]:
    """Return a key as it is stored: a letter and a name."""
    if isinstance(key, str):
        return "r", key
    return ("u", key.id) if isinstance(key, User) else ("n", "")


def key_of(kind: str, name: str) -> Key:
    """Return the key that `kind_of` told."""
    return User(name) if kind == "u" else EVERYONE if kind == "n" else name


def name_stream(namespace: str, key: Key) -> str:
    """Return the name of a stream, 32 hexadecimal digits: clients see it, and no room's name."""
    kind, name = kind_of(key)
    data = f"{kind}{len(namespace)}:{namespace}{name}".encode(errors="surrogatepass")
    return blake2b(data, digest_size=16).hexdigest()


stream_of: Final = lru_cache(maxsize=65_536)(name_stream)
"""The same for whoever is about to ask again."""


class Published(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What goes to a stream's listeners beside the log.

    ``excluded`` names rooms and sockets that do not get it; whoever is in one of the streams ``earlier`` had it there.
    """

    body: bytes
    volatile: bool = False
    excluded: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Published).decode
_bits: Final = random.getrandbits


class Kept(NamedTuple):
    """A page of a stream's history, and when it was read, by the loop's clock."""

    page: Page
    at: float


class Streams:
    """What the rooms of this node share; ``page_bytes`` is what a client on its way back is handed in one step."""

    __slots__ = (
        "_mids",
        "_placed",
        "_posts",
        "_prefix",
        "_published",
        "broker",
        "counters",
        "fanout",
        "page_bytes",
        "pages",
        "served",
        "settle",
    )

    def __init__(self, broker: Broker, fanout: "Fanout", counters: Counters, *, page_bytes: int = PAGE_BYTES) -> None:
        self.broker = broker
        self.fanout = fanout
        self.settle = fanout.settle  # one object for all rooms
        self.counters = counters
        self.page_bytes = page_bytes
        self._prefix = secrets.token_hex(9)
        self._mids = count()
        self.pages: Newest[tuple[str, Position, int, int], Kept] = Newest(KEPT_PAGES, KEPT_BYTES)
        """What was read last for those who come back, by where it follows, and how many messages and bytes of it."""
        self._posts: Newest[bytes, Post] = Newest(KEPT_POSTS, KEPT_BYTES)
        self._placed: Newest[tuple[str, str, Point, int, int], Delivery] = Newest(KEPT_POSTS, KEPT_BYTES)
        self._published: tuple[bytes, Published] | None = None  # a broker in this process gives it back at once
        self.served: set[Room] = set()
        """The rooms with members that recover."""

    # --- out

    async def emit(
        self,
        streams: Sequence[str],
        post: Post,
        *,
        excluded: tuple[str, ...] = (),
        volatile: bool = False,
        mid: str | None = None,
    ) -> None:
        """Bring ``post`` to the members of ``streams``; when this returns, the broker has it.

        Raises:
            BrokerUnavailable: nothing was sent.
            OutcomeUnknown: it may have been; ``done`` has the streams that have it for certain.

        """
        if mid is not None:
            _check_mid(mid)
        body = post.body
        self._posts.put(body, post, len(body))
        if len(streams) != 1 or volatile or mid is not None:
            await self.emit_body(streams, body, excluded=excluded, volatile=volatile, mid=mid)
        elif self.broker.has_log(streams[0]):  # most are of this kind, or of the next
            await self._append(streams[0], self._new_mid(), body, excluded, (), self.broker.clock() + APPEND_SECONDS)
        else:
            await self._publish(streams[0], Published(body, False, excluded))

    async def emit_body(
        self,
        streams: Sequence[str],
        body: bytes,
        *,
        excluded: tuple[str, ...] = (),
        volatile: bool = False,
        mid: str | None = None,
    ) -> None:
        """As :meth:`emit`, for a post that is encoded already.

        What the caller named with a ``mid`` is appended in any case: only a log knows that it was there before.
        """
        logged = mid is not None
        mid = mid or self._new_mid()
        copies: tuple[Copy, ...] = ()
        for place, stream in enumerate(streams):
            earlier = tuple(streams[:place])
            try:
                if volatile:
                    await self._publish(stream, Published(body, True, excluded, earlier))
                else:
                    copies += (await self.send(stream, mid, body, excluded, copies, earlier, logged=logged),)
            except OutcomeUnknown:
                raise OutcomeUnknown(mid, earlier) from None
            except BrokerUnavailable:
                if not place:
                    raise
                raise OutcomeUnknown(mid, earlier) from None

    def _new_mid(self) -> str:
        return f"{self._prefix}{next(self._mids):x}"

    async def send(
        self,
        stream: str,
        mid: str,
        body: bytes,
        excluded: tuple[str, ...],
        copies: tuple[Copy, ...],
        earlier: tuple[str, ...],
        *,
        logged: bool = False,
    ) -> Copy:
        """Append one copy and return where it stands; publish it if nobody has a position there, unless ``logged``.

        A copy that was published stands at number 0, before all that recover: only members that cannot had it.

        Raises:
            BrokerUnavailable: nothing was done.
            OutcomeUnknown: it was tried for as long as the broker can tell a double, and there was no answer.

        """
        if not logged and not self.broker.has_log(stream):
            await self._publish(stream, Published(body, False, excluded, earlier))
            return Copy(stream, "", 0)
        deadline = self.broker.clock() + APPEND_SECONDS
        appended = await self._append(stream, mid, body, excluded, copies, deadline)
        return Copy(stream, appended.gen, appended.point.seq)

    async def attempt(self, step: Append) -> Copy:
        """Do the same for a relay's emission, once (`bellwire.server.producers.Appender`)."""
        if not self.broker.has_log(step.stream):
            await self._publish(step.stream, Published(step.body, False, step.excluded, step.earlier))
            return Copy(step.stream, "", 0)
        draft = Draft(step.mid, _bits(32), step.body, step.excluded, step.copies)
        appended = await self.broker.append(step.stream, draft, deadline=step.deadline)
        return Copy(step.stream, appended.gen, appended.point.seq)

    async def _append(
        self,
        stream: str,
        mid: str,
        body: bytes,
        excluded: tuple[str, ...],
        copies: tuple[Copy, ...],
        deadline: float,
    ) -> Appended:
        unknown, pause = False, FIRST_PAUSE
        while True:
            try:
                draft = Draft(mid, _bits(32), body, excluded, copies)
                return await self.broker.append(stream, draft, deadline=deadline)
            except OutcomeUnknown:
                unknown = True
            except BrokerUnavailable:
                if not unknown:
                    raise
            if self.broker.clock() + pause > deadline:
                raise OutcomeUnknown(mid)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    def _publish(self, stream: str, published: Published) -> Coroutine[Any, Any, None]:
        encoded = _encode(published)
        self._published = encoded, published
        return self.broker.publish(stream, encoded)

    # --- in

    def read(self, namespace: str, body: bytes) -> Post | None:
        """Return the post that ``body`` holds, None if it is not one of this program's: that is counted."""
        post = self._posts.get(body)
        if post is not None and post.namespace == namespace:
            return post
        try:
            post = Post.read(namespace, body)
        except Exception:
            self.counters.dropped("event", reason="unreadable", policy="no_event")
            return None
        self._posts.put(body, post, len(body))
        return post

    def placed(self, namespace: str, stream: str, gen: str, prev: Point, entry: Entry) -> Delivery | None:
        """Return an entry at its place behind ``prev``, one object for all who stand there; None as `read` does."""
        key = stream, gen, prev, entry.seq, entry.tag
        item = self._placed.get(key)
        if item is None:
            post = self.read(namespace, entry.body)
            if post is None:
                return None
            item = Delivery(post, stream, gen, prev, entry.seq, entry.tag, entry.mid, named=True)
            self._placed.put(key, item, len(entry.body))
        return item

    def published(self, body: bytes) -> Published | None:
        """Return what was published, None if it is not of this program: that is counted."""
        newest = self._published
        if newest is not None and newest[0] is body:
            return newest[1]
        try:
            return _decode(body)
        except msgspec.MsgspecError:
            self.counters.dropped("event", reason="unreadable", policy="no_event")
            return None

    def fault(self, room: object, error: BaseException) -> None:
        """Reading for a room failed in a way that should not be: it is logged, and the room goes on when asked to."""
        self.counters.add("stream_faults_total")
        logger.error("reading for %r failed", room, exc_info=error)


def _check_mid(mid: object) -> None:
    if not isinstance(mid, str):
        raise TypeError(f"mid is a str, not {type(mid).__name__}: emit(..., mid=str(order.id))")
    if not 0 < len(mid) <= MAX_MID:
        raise ValueError(f"mid has {len(mid)} characters: give 1 to {MAX_MID}")
