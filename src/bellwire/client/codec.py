"""How a client writes what it sends, on each wire.

An event is encoded when it is emitted, once: its name and arguments lie in the outbox as they will be on the wire, and
the same bytes are sent whenever it is sent again. What differs from one sending to the next is put around them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from typing_extensions import override

from bellwire.core.errors import BellwireError, EventRefused, PacketError
from bellwire.core.events import Event, require_event
from bellwire.delivery.position import Position
from bellwire.guard.packets import pack, unsendable
from bellwire.protocol import embedding, json_text, socketio, wire
from bellwire.protocol.outgoing import Outgoing

SOCKET_IO: Final = "socket.io"
"""The dialect of the Socket.IO wire; those of bellwire.v1 are called as its sub-protocols."""

ENVELOPE_BYTES: Final = 512
"""What is put around an event, at most: its number, its mark, and the header of its packet."""


class Encoded(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event of ``namespace`` in a dialect; ``args`` are its arguments, with the name first in Socket.IO's."""

    dialect: str
    namespace: str
    name: str
    args: bytes
    attachments: tuple[bytes, ...] = ()

    def to_bytes(self) -> bytes:
        """Return what lies in an outbox."""
        return _to_msgpack(self)

    @property
    def size(self) -> int:
        """Bytes of the longest message that it can become."""
        return ENVELOPE_BYTES + len(self.name) + len(self.namespace) + len(self.args) + sum(map(len, self.attachments))


_to_msgpack: Final = msgspec.msgpack.Encoder().encode
_from_msgpack: Final = msgspec.msgpack.Decoder(Encoded).decode


def read_encoded(data: bytes) -> Encoded:
    """Read what an outbox holds. Raises BellwireError if it is no event."""
    try:
        return _from_msgpack(data)
    except msgspec.DecodeError as error:
        raise BellwireError(f"the outbox holds an event this program does not know: {error}") from None


class Codec(ABC):
    """Writes in one dialect, in one namespace."""

    __slots__ = ("namespace",)

    dialect: str

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    @abstractmethod
    def for_dialect(self, dialect: str) -> "Codec | None":
        """Return the codec for ``dialect``, if the servers that this one is for may speak it."""

    @abstractmethod
    def encode(self, event: Event[Any, *tuple[Any, ...]], payload: tuple[Any, ...]) -> Encoded:
        """Encode ``event``. Raises TypeError, ValueError or TooManyAttachments for what cannot be sent."""

    @abstractmethod
    def plain(self, event: Encoded, ack: int | None = None) -> Outgoing:
        """The event without a number; ``ack`` asks for an acknowledgement."""

    def beside(self, event: Encoded) -> Outgoing:
        """The event without a number, on a connection where others have one."""
        return self.plain(event)

    @abstractmethod
    def numbered(self, event: Encoded, number: int, generation: str | None, resent: bool) -> Outgoing:
        """The event with its number; ``generation`` is its mark, None for the one of this connection."""

    @abstractmethod
    def skip(self, first: int, upto: int) -> Outgoing:
        """The numbers from ``first`` to ``upto`` will not come."""

    @abstractmethod
    def ask(self, stream: str, at: Position) -> Outgoing:
        """Ask for a proof of ``at``, and for what follows on it."""

    @abstractmethod
    def reply(self, ack: int, event: Event[Any, *tuple[Any, ...]], result: Any) -> Outgoing:
        """The acknowledgement of ``event``; whatever msgspec raises if ``result`` cannot be encoded."""

    @abstractmethod
    def refuse(self, ack: int, refusal: EventRefused) -> Outgoing:
        """The acknowledgement that says no; whatever msgspec raises if that cannot be encoded."""

    @abstractmethod
    def leave(self) -> Outgoing:
        """Leave the namespace, and the session with it."""


class SocketIOCodec(Codec):
    """Socket.IO's packets, with bellwire.v1 inside (`embedding`)."""

    __slots__ = ("_header",)

    dialect = SOCKET_IO

    def __init__(self, namespace: str) -> None:
        super().__init__(namespace)
        self._header = "" if namespace == socketio.ROOT else f"{namespace},"

    @override
    def for_dialect(self, dialect: str) -> Codec | None:
        return self if dialect == SOCKET_IO else None

    @override
    def encode(self, event: Event[Any, *tuple[Any, ...]], payload: tuple[Any, ...]) -> Encoded:
        head, *attachments = pack(self.namespace, event, payload).parts
        text = str(head)
        args = text[text.index("[", text.index(self._header) + len(self._header)) :]
        with _telling(event):
            json_text.check_depth(args, json_text.MAX_DEPTH)
            data = args.encode()
        return Encoded(SOCKET_IO, self.namespace, event.name, data, tuple(map(_binary, attachments)))

    @override
    def plain(self, event: Encoded, ack: int | None = None) -> Outgoing:
        count = len(event.attachments)
        start = f"45{count}-" if count else "42"
        id_ = "" if ack is None else ack
        return Outgoing(f"{start}{self._header}{id_}{event.args.decode()}", *event.attachments)

    @override
    def beside(self, event: Encoded) -> Outgoing:
        return embedding.as_plain(self.plain(event))

    @override
    def numbered(self, event: Encoded, number: int, generation: str | None, resent: bool) -> Outgoing:
        return embedding.embed(self.plain(event), embedding.Numbered(number, generation, resent))

    @override
    def skip(self, first: int, upto: int) -> Outgoing:
        return embedding.encode_message(self.namespace, wire.Skip(self.namespace, first, upto))

    @override
    def ask(self, stream: str, at: Position) -> Outgoing:
        return embedding.encode_message(self.namespace, wire.Ask(stream, *at))

    @override
    def reply(self, ack: int, event: Event[Any, *tuple[Any, ...]], result: Any) -> Outgoing:
        reply = () if event.reply is None else (result,)
        return socketio.encode_ack(self.namespace, ack, reply, binary=event.reply_binary)

    @override
    def refuse(self, ack: int, refusal: EventRefused) -> Outgoing:
        return socketio.encode_ack(self.namespace, ack, (refusal.as_reply(),), binary=False)

    @override
    def leave(self) -> Outgoing:
        return socketio.encode_disconnect(self.namespace)


class RawCodec(Codec):
    """Messages of bellwire.v1 (`wire`), in the encoding of the sub-protocol ``dialect``."""

    __slots__ = ("_msgpack", "dialect")

    def __init__(self, namespace: str, dialect: str) -> None:
        super().__init__(namespace)
        self.dialect = dialect
        self._msgpack = dialect == wire.MSGPACK

    @override
    def for_dialect(self, dialect: str) -> Codec | None:
        return RawCodec(self.namespace, dialect) if dialect in (wire.JSON, wire.MSGPACK) else None

    @override
    def encode(self, event: Event[Any, *tuple[Any, ...]], payload: tuple[Any, ...]) -> Encoded:
        with _telling(event):
            raw = wire.encode_args(payload, msgpack=self._msgpack)
            if len(bytes(raw)) > json_text.MAX_DEPTH:  # each level takes a byte at least
                wire.parse(self._write(wire.ClientEvent(self.namespace, event.name, raw)))
        return Encoded(self.dialect, self.namespace, event.name, bytes(raw))

    @override
    def plain(self, event: Encoded, ack: int | None = None) -> Outgoing:
        return Outgoing(self._write(wire.ClientEvent(self.namespace, event.name, msgspec.Raw(event.args), ack)))

    @override
    def numbered(self, event: Encoded, number: int, generation: str | None, resent: bool) -> Outgoing:
        args = msgspec.Raw(event.args)
        return Outgoing(self._write(wire.NumberedEvent(self.namespace, number, event.name, args, generation, resent)))

    @override
    def skip(self, first: int, upto: int) -> Outgoing:
        return Outgoing(self._write(wire.Skip(self.namespace, first, upto)))

    @override
    def ask(self, stream: str, at: Position) -> Outgoing:
        return Outgoing(self._write(wire.Ask(stream, *at)))

    @override
    def reply(self, ack: int, event: Event[Any, *tuple[Any, ...]], result: Any) -> Outgoing:
        return self._reply(ack, () if event.reply is None else (result,))

    @override
    def refuse(self, ack: int, refusal: EventRefused) -> Outgoing:
        return self._reply(ack, (refusal.as_reply(),))

    @override
    def leave(self) -> Outgoing:
        return Outgoing(self._write(wire.Disconnect(self.namespace)))

    def _reply(self, ack: int, args: tuple[Any, ...]) -> Outgoing:
        raw = wire.encode_args(args, msgpack=self._msgpack)
        return Outgoing(self._write(wire.Reply(self.namespace, ack, raw)))

    def _write(self, message: wire.ClientMessage) -> str | bytes:
        return wire.encode(message, msgpack=self._msgpack)


def check_payload(event: Event[Any, *tuple[Any, ...]], payload: tuple[Any, ...], where: str) -> None:
    """Raise TypeError if ``event`` is no `Event`, or ``payload`` has not as many items as it has types.

    ``where`` is what the application called.
    """
    if type(event) is not Event:
        require_event(event, where)
    if len(payload) != len(event.payload_types):
        raise TypeError(
            f"{event.name!r} takes {len(event.payload_types)} payload argument(s), {len(payload)} were given: "
            "give one for each type of its Event"
        )


@contextmanager
def _telling(event: Event[Any, *tuple[Any, ...]]) -> Iterator[None]:
    """Name the event that cannot be sent: it is nested too deeply, or holds text that is no Unicode."""
    try:
        yield
    except (PacketError, OverflowError, UnicodeEncodeError) as error:
        raise ValueError(f"{event.name!r} cannot be sent: {error}") from None
    except TypeError as error:
        raise unsendable(event, error) from None


def _binary(part: str | bytes) -> bytes:
    return part if isinstance(part, bytes) else part.encode()
