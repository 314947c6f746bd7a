"""How a socket is spoken to: the wire form of what it is sent, by what its client negotiated.

::

    dialect       client                             an event of a stream        control messages
    Stock         any Socket.IO client               without its place           none
    Embedded      Socket.IO, negotiated "bellwire"   with a trailing argument    events named "bellwire"
    Raw           bellwire.v1, JSON or msgpack       as specified; without its   as specified
                                                     place if it has no session

What is broadcast is rendered once for each dialect that is in the audience, and joined once for each tick.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec
from typing_extensions import override

from bellwire.protocol.embedding import Control, Plain, embed, encode_message
from bellwire.protocol.outgoing import Message, Outgoing, join
from bellwire.protocol.post import Delivery, Post
from bellwire.protocol.socketio import encode_ack
from bellwire.protocol.wire import After, Reply, ServerEvent, encode, encode_args

_to_json: Final = msgspec.json.Encoder().encode
_from_msgpack: Final = msgspec.msgpack.Decoder().decode

Item: TypeAlias = "Post | Delivery"
"""What a socket is sent: an event, or an event at its place in a stream."""


class Dialect(ABC):
    """The wire forms for one kind of client. All but those of recovering stock clients keep no state."""

    __slots__ = ()

    @abstractmethod
    def render(self, item: Item) -> Message:
        """Return the wire form of one event."""

    @abstractmethod
    def control(self, message: Control) -> Message | None:
        """Return the wire form of a message about streams or numbers; None if the client knows of neither."""

    @abstractmethod
    def reply(self, namespace: str, id: int, args: Sequence[Any], binary: bool) -> Message:  # noqa: A002
        """Return the acknowledgement of the client's event ``id``. Raises what msgspec does."""

    def translated(self, args: bytes) -> msgspec.Raw:
        """Return arguments in msgpack as this client reads them."""
        return msgspec.Raw(_to_json(_from_msgpack(args)))

    def after(self, post: Post, place: After) -> Message:
        """Return a post that the client hands over behind a place of a stream."""
        return self.render(post)

    def deliver(self, items: Sequence[Item]) -> "tuple[Message, Dialect]":
        """Return ``items`` joined, and the dialect in which the next are rendered."""
        if len(items) == 1:
            return self.render(items[0]), self
        return join([self.render(item) for item in items]), self


class Stock(Dialect):
    """A Socket.IO client that knows nothing of streams."""

    __slots__ = ()

    @override
    def render(self, item: Item) -> Message:
        return item.stock

    @override
    def control(self, message: Control) -> Message | None:
        return None

    @override
    def reply(self, namespace: str, id: int, args: Sequence[Any], binary: bool) -> Message:
        return encode_ack(namespace, id, args, binary)


class Embedded(Stock):
    """A Socket.IO client that negotiated streams in ``namespace``: bellwire.v1 travels inside its events."""

    __slots__ = ("_namespace",)

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    @override
    def render(self, item: Item) -> Message:
        return item.embedded

    @override
    def control(self, message: Control) -> Message | None:
        return encode_message(self._namespace, message)

    @override
    def after(self, post: Post, place: After) -> Message:
        return embed(post.stock, Plain(place))


class Raw(Dialect):
    """A client of bellwire.v1; without ``streams`` it gets all events outside of them."""

    __slots__ = ("_msgpack", "_streams")

    def __init__(self, *, msgpack: bool, streams: bool) -> None:
        self._msgpack = msgpack
        self._streams = streams

    @override
    def render(self, item: Item) -> Message:
        if not self._streams and isinstance(item, Delivery):
            item = item.post
        return item.raw_msgpack if self._msgpack else item.raw_json

    @override
    def control(self, message: Control) -> Message | None:
        return Outgoing(encode(message, msgpack=self._msgpack))

    @override
    def reply(self, namespace: str, id: int, args: Sequence[Any], binary: bool) -> Message:
        return Outgoing(encode(Reply(namespace, id, encode_args(args, msgpack=self._msgpack)), msgpack=self._msgpack))

    @override
    def translated(self, args: bytes) -> msgspec.Raw:
        return msgspec.Raw(args) if self._msgpack else super().translated(args)

    @override
    def after(self, post: Post, place: After) -> Message:
        args = post.msgpack_args if self._msgpack else post.json_args
        event = ServerEvent(post.namespace, post.name, args, post.id, place)
        return Outgoing(encode(event, msgpack=self._msgpack))


@lru_cache(maxsize=1024)
def embedded(namespace: str) -> Embedded:
    """Return the dialect of those who negotiated streams in ``namespace``: one object, so that they share frames."""
    return Embedded(namespace)


STOCK: Final = Stock()
_RAW: Final = {
    (msgpack, streams): Raw(msgpack=msgpack, streams=streams) for msgpack in (False, True) for streams in (False, True)
}


def raw(*, msgpack: bool, streams: bool) -> Raw:
    """Return the dialect of a client of bellwire.v1, always the same object."""
    return _RAW[msgpack, streams]
