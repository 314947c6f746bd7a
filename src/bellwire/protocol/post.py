"""An event on its way to clients: one object whoever gets it, and each wire's form of it made once.

A `Post` is an event; a `Delivery` is a post at its place in a stream. Socket.IO's form is made with the post, so that
what cannot be encoded is the sender's error; the others are made when somebody needs them, from the bytes that the
broker has, because an application may change its objects meanwhile.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from bellwire.core.errors import PacketError, TooManyAttachments
from bellwire.protocol.embedding import Placed, as_plain, embed
from bellwire.protocol.json_text import MAX_DEPTH, check_depth
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.socketio import encode_event
from bellwire.protocol.wire import ServerEvent, StreamEvent, encode


class _Body(msgspec.Struct, frozen=True, array_like=True, gc=False):
    name: str
    binary: bool
    args: msgspec.Raw


_MAX_COMPLAINT: Final = 256  # characters of an error; msgspec quotes what it found

_to_json: Final = msgspec.json.Encoder().encode
_to_msgpack: Final = msgspec.msgpack.Encoder().encode
_objects: Final = msgspec.msgpack.Decoder(list[Any]).decode
_read: Final = msgspec.msgpack.Decoder(_Body).decode


class Post:
    """An event in a namespace, encoded.

    ``stock`` is what every Socket.IO client understands. ``id``, a number, asks for an acknowledgement. ``body`` is
    what brokers carry: msgpack, the event's name, whether its payload may hold bytes, and its arguments.
    """

    __slots__ = ("_args", "_body", "_raw_json", "_raw_msgpack", "binary", "id", "name", "namespace", "stock")

    def __init__(
        self,
        namespace: str,
        name: str,
        args: Sequence[Any],
        *,
        binary: bool,
        id: int | None = None,  # noqa: A002 - the protocol's word
        body: bytes | None = None,
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.binary = binary
        self.id = id
        self.stock = encode_event(namespace, (name, *args), id=id, binary=binary)
        self._args = args
        self._body = body
        self._raw_json: Outgoing | None = None
        self._raw_msgpack: Outgoing | None = None

    @classmethod
    def read(cls, namespace: str, body: bytes, id: int | None = None) -> "Post":  # noqa: A002
        """Return the post that ``body`` was made of; `PacketError` if it is none: brokers bring what anybody wrote."""
        try:
            found = _read(body)
            post = cls(namespace, found.name, _objects(found.args), binary=found.binary, id=id, body=body)
            post._check_depth()
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError, TooManyAttachments) as error:
            raise PacketError(f"this is no event: {error}"[:_MAX_COMPLAINT]) from None
        return post

    @property
    def body(self) -> bytes:
        """The bytes for brokers. Raises TypeError for what msgpack cannot hold, as an integer of more than 64 bits."""
        body = self._body
        if body is None:
            self._check_depth()
            try:
                body = self._body = _to_msgpack((self.name, self.binary, self._args))
            except (ValueError, OverflowError) as error:
                raise TypeError(f"{self.name!r} cannot be sent: {error}") from None
            self._args = ()  # an application may change its objects: from here on the bytes count
        return body

    def _check_depth(self) -> None:
        """What is in a stream must be readable on every wire."""
        text = str(self.stock.parts[0])
        if text.count("[") + text.count("{") > MAX_DEPTH:
            try:
                check_depth(text[text.index("[") :], MAX_DEPTH)
            except PacketError:
                raise TypeError(
                    f"{self.name!r} cannot be sent: it is nested more than {MAX_DEPTH} levels deep"
                ) from None

    @property
    def json_args(self) -> msgspec.Raw:
        """The arguments as a JSON array, bytes as base64."""
        return msgspec.Raw(_to_json(_objects(_read(self.body).args)))

    @property
    def msgpack_args(self) -> msgspec.Raw:
        """The arguments as an array of MessagePack."""
        return _read(self.body).args

    @property
    def raw_json(self) -> Outgoing:
        """The event in bellwire.v1.json."""
        made = self._raw_json
        if made is None:
            event = ServerEvent(self.namespace, self.name, self.json_args, self.id)
            made = self._raw_json = Outgoing(encode(event, msgpack=False))
        return made

    @property
    def raw_msgpack(self) -> Outgoing:
        """The event in bellwire.v1.msgpack."""
        made = self._raw_msgpack
        if made is None:
            event = ServerEvent(self.namespace, self.name, self.msgpack_args, self.id)
            made = self._raw_msgpack = Outgoing(encode(event, msgpack=True))
        return made

    @property
    def embedded(self) -> Outgoing:
        """The event for a Socket.IO client that negotiated streams: as a rule the stock one."""
        return as_plain(self.stock)


class Delivery:
    """A post at ``(seq, tag)`` of ``stream``, right behind ``prev`` for those who get it.

    ``alias`` is what this node calls the stream. ``gen`` is the stream's generation; ``named`` says that readers have
    to be told it, because it is not certain that it is the one of the point before.
    """

    __slots__ = (
        "_embedded",
        "_raw_json",
        "_raw_msgpack",
        "alias",
        "gen",
        "mid",
        "named",
        "opened",
        "post",
        "prev",
        "seq",
        "stream",
        "tag",
    )

    def __init__(
        self,
        post: Post,
        stream: str,
        alias: int,
        gen: str,
        prev: tuple[int, int],
        seq: int,
        tag: int,
        mid: str,
        *,
        named: bool,
    ) -> None:
        self.post = post
        self.stream = stream
        self.alias = alias
        self.gen = gen
        self.prev = prev
        self.seq = seq
        self.tag = tag
        self.mid = mid
        self.named = named
        self.opened: Any = None
        """What the dialects of recovering stock clients share of it, made by the first."""
        self._embedded: Outgoing | None = None
        self._raw_json: Outgoing | None = None
        self._raw_msgpack: Outgoing | None = None

    @property
    def name(self) -> str:
        """The event's name."""
        return self.post.name

    @property
    def stock(self) -> Outgoing:
        """The event without its place."""
        return self.post.stock

    @property
    def embedded(self) -> Outgoing:
        """The event for a Socket.IO client that negotiated streams: its place is one argument more."""
        made = self._embedded
        if made is None:
            made = self._embedded = embed(self.post.stock, Placed(*self._place(), self.mid, self._gen()))
        return made

    @property
    def raw_json(self) -> Outgoing:
        """The event in bellwire.v1.json."""
        made = self._raw_json
        if made is None:
            made = self._raw_json = Outgoing(encode(self._event(self.post.json_args), msgpack=False))
        return made

    @property
    def raw_msgpack(self) -> Outgoing:
        """The event in bellwire.v1.msgpack."""
        made = self._raw_msgpack
        if made is None:
            made = self._raw_msgpack = Outgoing(encode(self._event(self.post.msgpack_args), msgpack=True))
        return made

    def _event(self, args: msgspec.Raw) -> StreamEvent:
        return StreamEvent(*self._place(), self.mid, self.post.name, args, self._gen())

    def _place(self) -> tuple[int, int, int, int, int]:
        prev_seq, prev_tag = self.prev
        return self.alias, self.seq, self.tag, self.seq - prev_seq, prev_tag

    def _gen(self) -> str | None:
        return self.gen if self.named else None
