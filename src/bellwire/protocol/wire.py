"""bellwire.v1: the messages of the raw WebSocket protocol, in JSON and in msgpack; sans-I/O.

The specification for those who write clients is ``docs/reference/bellwire-v1.md``. A message is an array that begins
with its tag; elements may be left out at the end where they have a default, and readers pass over what follows the
last one that they know::

    tag         from the client      from the server    about
    connect     Connect                                 a namespace: join it, resume in it
    connected                        Connected
    refused                          Refused
    disconnect  Disconnect           Disconnect
    e           ClientEvent          ServerEvent        an event, at most once
    r           Reply                Reply              its acknowledgement, by the id it asked for
    n           NumberedEvent        Outcome            an event of a producer, once; its reply, by its number
    nack                             Nack
    skip        Skip
    skipped                          Skipped
    s                                StreamEvent        an event of a stream, once and in order
    open                             Open
    close                            Close
    advance                          Advance
    ask         Ask
    proved                           Proved
    reset                            Reset
    ping, pong  Ping, Pong           Ping, Pong         the connection
    drain                            Drain

Arguments of events and replies are kept as `msgspec.Raw`, undecoded: their reader knows the types. They hold the bytes
as they came, so that what is sent again can be told from something else, and reference the whole message until they
are copied.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, get_args, overload

import msgspec
from msgspec import Meta, Raw

from bellwire.core.errors import PacketError
from bellwire.protocol.json_text import MAX_DEPTH, TOO_DEEP, decode_text

PATH: Final = "/bellwire"
"""Where a server offers the protocol."""

JSON: Final = "bellwire.v1.json"
"""The sub-protocol whose messages are text frames."""

MSGPACK: Final = "bellwire.v1.msgpack"
"""The sub-protocol whose messages are binary frames."""

MAX_MESSAGE: Final = 64 * 1024
"""Bytes of a message that a server takes unless it is told otherwise; a connection learns it from `Connected`."""

MAX_CURSORS: Final = 1_024
"""Streams that can be resumed with one `Connect`, if they fit into a message."""

MAX_NAMESPACE: Final = 255
"""Characters of a namespace's name."""

MAX_NAME: Final = 128
"""Characters of an event's name."""

MAX_OPAQUE: Final = 128
"""Characters of the strings whose meaning only their maker knows: streams, generations, sessions, instances."""

MAX_REASON: Final = 255
"""Characters of the reason for leaving a namespace."""

CONNECT_SECONDS: Final = 15.0
"""How long a server waits for the first `Connect`."""


class CloseCode(IntEnum):
    """The codes with which a server ends a connection (RFC 6455 section 7.4.2 leaves 4000 to 4999 to applications).

    Up to 4499 the client should come back, from 4500 on it should not.
    """

    DRAINING = 4000
    """The server stops; others serve on."""
    SILENT = 4001
    """Pings were not answered."""
    SLOW = 4002
    """The client did not read, and more was waiting for it than the server holds."""
    LATE = 4003
    """No `Connect` came in time, or not all of a message."""
    FLOODING = 4004
    """The client went on sending what was refused for its rate."""
    EXPIRED = 4005
    """The client's identity has expired: it is to come back with another one."""
    MALFORMED = 4500
    """Not a message, or not one that may come here."""
    REPLACED = 4501
    """The session was taken up by another connection."""
    EJECTED = 4502
    """The application ended the connection."""


# RFC 6455 section 7.4.1: what would happen again, and 1000, after which there is nothing to come back for.
_FINAL_CODES: Final = frozenset((1000, 1002, 1003, 1007, 1008, 1009, 1010))


def may_return(code: int) -> bool:
    """Return whether a client should connect again after a connection that ended with ``code``."""
    return not 4500 <= code <= 4999 and code not in _FINAL_CODES


def choose_subprotocol(offered: Iterable[str]) -> str | None:
    """Return the first of the client's sub-protocols that is ours, None if there is none."""
    return next((name for name in offered if name in (JSON, MSGPACK)), None)


# --- the elements

_MAX_EXACT: Final = 2**53 - 1  # what every JSON reader holds exactly: RFC 8259 section 6

Namespace: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_NAMESPACE)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
Opaque: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_OPAQUE)]
ProducerId: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Whole: TypeAlias = Annotated[int, Meta(ge=0, le=_MAX_EXACT)]
Number: TypeAlias = Annotated[int, Meta(ge=1, le=_MAX_EXACT)]
Tag: TypeAlias = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=86_400)]


class Cursor(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a client stands in a stream."""

    stream: Opaque
    gen: Opaque
    seq: Whole
    tag: Tag


class After(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What has to be handed over before an event, if the stream is open."""

    stream: Opaque
    seq: Whole
    tag: Tag


class Greeting(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a server knows of a producer: its id, the last number it took, and the generation to mark events with."""

    producer: ProducerId
    last: Whole
    generation: Opaque


# --- from the client


class Connect(msgspec.Struct, frozen=True, array_like=True, tag="connect"):
    """Join ``namespace``, authenticated by ``auth``.

    ``instance`` is random per program start; without one there is no session, and all events are at most once.
    ``producer`` numbers events; ``session`` is the secret of the last `Connected`, with ``cursors`` to resume from.
    ``attempt`` counts the connections of the instance from 1 on, 0 if it does not: the newest has the session.
    """

    namespace: Namespace
    auth: dict[str, Any] | None = None
    instance: Opaque | None = None
    producer: ProducerId | None = None
    session: Opaque | None = None
    cursors: Annotated[tuple[Cursor, ...], Meta(max_length=MAX_CURSORS)] = ()
    attempt: Whole = 0


class ClientEvent(msgspec.Struct, frozen=True, array_like=True, tag="e", gc=False):
    """An event, at most once; ``id`` asks for a `Reply`."""

    namespace: Namespace
    name: Name
    args: Raw
    id: Whole | None = None


class NumberedEvent(msgspec.Struct, frozen=True, array_like=True, tag="n", gc=False):
    """Event ``number`` of the producer, answered by an `Outcome` or a `Nack`.

    ``generation`` is the one it was marked with, None for that of `Connected`; ``resent``: it may have come before.
    """

    namespace: Namespace
    number: Number
    name: Name
    args: Raw
    generation: Opaque | None = None
    resent: bool = False


class Skip(msgspec.Struct, frozen=True, array_like=True, tag="skip", gc=False):
    """The numbers from ``first`` to ``upto`` will not come; answered by `Skipped` or a `Nack` of ``first``."""

    namespace: Namespace
    first: Number
    upto: Number


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask", gc=False):
    """Prove this position and send what follows on it; answered by `Proved`, `Reset` or `Close`."""

    stream: Opaque
    gen: Opaque
    seq: Whole
    tag: Tag


# --- from both


class Disconnect(msgspec.Struct, frozen=True, array_like=True, tag="disconnect", gc=False):
    """Leave ``namespace``, and the session with it."""

    namespace: Namespace
    reason: Annotated[str, Meta(max_length=MAX_REASON)] | None = None


class Reply(msgspec.Struct, frozen=True, array_like=True, tag="r", gc=False):
    """The acknowledgement of the event that asked for it with ``id``."""

    namespace: Namespace
    id: Whole
    args: Raw


class Ping(msgspec.Struct, frozen=True, array_like=True, tag="ping", gc=False):
    """Answer with `Pong`."""


class Pong(msgspec.Struct, frozen=True, array_like=True, tag="pong", gc=False):
    """The answer to `Ping`."""


# --- from the server


class Connected(msgspec.Struct, frozen=True, array_like=True, tag="connected", gc=False):
    """The client is in ``namespace`` as the socket ``id``.

    ``max_message`` is the length of the longest message that the server takes, in bytes. ``session`` is the secret
    to resume with; ``resumed`` says that the memberships of the session given are those of this socket.
    """

    namespace: Namespace
    id: Opaque
    max_message: Number
    session: Opaque | None = None
    resumed: bool = False
    producer: Greeting | None = None


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """The client is not in ``namespace``, and why."""

    namespace: Namespace
    message: str
    data: Any = None


class ServerEvent(msgspec.Struct, frozen=True, array_like=True, tag="e", gc=False):
    """An event in no stream, at most once; ``id`` asks for a `Reply`, ``after`` puts it behind a stream's event."""

    namespace: Namespace
    name: Name
    args: Raw
    id: Whole | None = None
    after: After | None = None


class StreamEvent(msgspec.Struct, frozen=True, array_like=True, tag="s", gc=False):
    """An event at ``(seq, tag)`` of a stream, right behind ``(seq - back, prev_tag)`` for this client.

    It goes out as often as there are clients, so it is short: ``alias`` is what the stream was called when it was
    opened, proved or reset on this connection. ``gen`` is its generation, None if it is that of the previous point.
    """

    alias: Number
    seq: Number
    tag: Tag
    back: Number
    prev_tag: Tag
    mid: str
    name: Name
    args: Raw
    gen: Opaque | None = None


class Open(msgspec.Struct, frozen=True, array_like=True, tag="open", gc=False):
    """The client is a member of a stream from this position on; ``alias`` is 0 if no `StreamEvent` of it comes."""

    namespace: Namespace
    stream: Opaque
    alias: Whole
    gen: Opaque
    seq: Whole
    tag: Tag


class Close(msgspec.Struct, frozen=True, array_like=True, tag="close", gc=False):
    """Nothing more of this stream. With a ``reason`` something before this may be missing."""

    stream: Opaque
    reason: Opaque | None = None


class Advance(msgspec.Struct, frozen=True, array_like=True, tag="advance", gc=False):
    """Nothing between ``(prev_seq, prev_tag)`` and this position is for the client."""

    stream: Opaque
    prev_seq: Whole
    prev_tag: Tag
    gen: Opaque
    seq: Whole
    tag: Tag


class Proved(msgspec.Struct, frozen=True, array_like=True, tag="proved", gc=False):
    """The client's position is in the log, under this generation; what follows on it comes."""

    stream: Opaque
    alias: Number
    gen: Opaque
    seq: Whole
    tag: Tag


class Reset(msgspec.Struct, frozen=True, array_like=True, tag="reset", gc=False):
    """The stream goes on from this position; what lay between it and the client's own may be missing."""

    stream: Opaque
    alias: Number
    reason: Opaque
    gen: Opaque
    seq: Whole
    tag: Tag


class Outcome(msgspec.Struct, frozen=True, array_like=True, tag="n", gc=False):
    """The reply to a `NumberedEvent`, or ``[{"error": …}]``; the event is over."""

    namespace: Namespace
    number: Number
    args: Raw


class Nack(msgspec.Struct, frozen=True, array_like=True, tag="nack", gc=False):
    """The message that carried ``number`` did nothing; the server expects the number ``expect``.

    ``generation`` marks new events from now on, if it is known; ``retry_after`` is the least time to wait, in seconds.
    """

    namespace: Namespace
    number: Number
    expect: Number
    generation: Opaque | None = None
    retry_after: Seconds | None = None


class Skipped(msgspec.Struct, frozen=True, array_like=True, tag="skipped", gc=False):
    """The answer to the `Skip` that began with ``first``."""

    namespace: Namespace
    first: Number


class Drain(msgspec.Struct, frozen=True, array_like=True, tag="drain", gc=False):
    """The server is about to stop: connect anew after ``reconnect_after`` seconds."""

    reconnect_after: Seconds


ClientMessage: TypeAlias = Connect | Disconnect | ClientEvent | NumberedEvent | Skip | Ask | Reply | Ping | Pong
"""What a client sends."""

ServerMessage: TypeAlias = (
    Connected
    | Refused
    | Disconnect
    | ServerEvent
    | StreamEvent
    | Open
    | Close
    | Advance
    | Proved
    | Reset
    | Reply
    | Outcome
    | Nack
    | Skipped
    | Ping
    | Pong
    | Drain
)
"""What a server sends."""


# --- reading

_MAX_COMPLAINT: Final = 256  # characters of an error; msgspec quotes tags, and those may be long

# MessagePack, "Formats": arrays and maps begin with these bytes, so a message has at most as many of them.
_NO_CONTAINERS: Final = bytes(set(range(256)) - {*range(0x80, 0xA0), *range(0xDC, 0xE0)})
_CONTAINERS: Final = frozenset((list, dict, tuple))  # a tuple is an array that is a map's key

_client_json: Final[Callable[[str], ClientMessage]] = msgspec.json.Decoder(ClientMessage).decode
_client_msgpack: Final[Callable[[bytes], ClientMessage]] = msgspec.msgpack.Decoder(ClientMessage).decode
_server_json: Final[Callable[[str], ServerMessage]] = msgspec.json.Decoder(ServerMessage).decode
_server_msgpack: Final[Callable[[bytes], ServerMessage]] = msgspec.msgpack.Decoder(ServerMessage).decode
_decode_msgpack: Final = msgspec.msgpack.Decoder().decode

M = TypeVar("M")


def parse(data: str | bytes) -> ClientMessage:
    """Read a client's message: text is JSON, bytes are msgpack.

    ``args`` are checked to be of the encoding and not nested too deeply; that they are an array, and what is in it, is
    for their reader to check. Raises `PacketError` for everything else that is not a message.
    """
    return _read(data, _client_json, _client_msgpack)


def parse_server(data: str | bytes) -> ServerMessage:
    """Read a server's message, as `parse` does a client's."""
    return _read(data, _server_json, _server_msgpack)


def _read(data: str | bytes, from_json: Callable[[str], M], from_msgpack: Callable[[bytes], M]) -> M:
    return read_json(data, from_json) if isinstance(data, str) else _guard(lambda: _read_msgpack(data, from_msgpack))


def read_json(text: str, decode: Callable[[str], M], levels: int = MAX_DEPTH + 1) -> M:
    """Decode what a peer sent as JSON, if it has at most so many levels of arrays and maps; else `PacketError`."""
    return _guard(lambda: decode_text(text, decode, levels))


def _guard(read: Callable[[], M]) -> M:
    try:
        return read()
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: text that is no Unicode
        raise PacketError(f"not a message of bellwire.v1: {error}"[:_MAX_COMPLAINT]) from None
    except (RecursionError, MemoryError):
        raise PacketError(TOO_DEEP) from None


def _read_msgpack(data: bytes, decode: Callable[[bytes], M]) -> M:
    message = decode(data)
    if len(data.translate(None, _NO_CONTAINERS)) > MAX_DEPTH + 1 and _is_deep(_decode_msgpack(data)):
        raise PacketError(TOO_DEEP)
    return message


def _is_deep(tree: Any) -> bool:
    """Whether there are more than `MAX_DEPTH` levels in a message: each round goes to the next one."""
    level = [tree]
    for _ in range(MAX_DEPTH + 1):
        values = [item for c in level if type(c) is dict for item in c.values() if type(item) in _CONTAINERS]
        level = [item for c in level for item in c if type(item) in _CONTAINERS]  # of a map, these are the keys
        level += values
        if not level:
            return False
    return True


# --- writing

_to_json: Final = msgspec.json.Encoder().encode
_to_msgpack: Final = msgspec.msgpack.Encoder().encode


def _trailing(cls: Any) -> tuple[tuple[str, Any, int], ...]:
    """Return what may be left out of a message, the last first: field, default, and its length in JSON, with comma."""
    defaults = cls.__struct_defaults__
    fields = cls.__struct_fields__[len(cls.__struct_fields__) - len(defaults) :]
    return tuple([(f, d, len(_to_json(d)) + 1) for f, d in zip(fields, defaults, strict=True)][::-1])


_TRAILING: Final = {cls: _trailing(cls) for cls in (*get_args(ClientMessage), *get_args(ServerMessage))}


@overload
def encode(message: ClientMessage | ServerMessage, *, msgpack: Literal[False]) -> str: ...
@overload
def encode(message: ClientMessage | ServerMessage, *, msgpack: Literal[True]) -> bytes: ...
@overload
def encode(message: ClientMessage | ServerMessage, *, msgpack: bool) -> str | bytes: ...
def encode(message: ClientMessage | ServerMessage, *, msgpack: bool) -> str | bytes:
    """Return ``message`` as the payload of a text frame (JSON) or of a binary frame (msgpack).

    Its ``args`` must be of that encoding: see `encode_args`. What has its default at the end is left out. Lengths and
    ranges are not checked: a server that keeps to its own limits cannot exceed them.
    """
    count = surplus = 0
    for field, default, width in _TRAILING[type(message)]:
        if getattr(message, field) is not default:  # None, False and () are each one object
            break
        count += 1
        surplus += width
    if msgpack:
        data = _to_msgpack(message)
        # MessagePack, "Array format family": up to 15 elements are counted in the first byte. Defaults take a byte.
        return bytes((data[0] - count,)) + data[1 : len(data) - count] if count else data
    text = _to_json(message).decode()
    return f"{text[: -1 - surplus]}]" if count else text


def encode_args(args: Sequence[Any], *, msgpack: bool) -> Raw:
    """Encode the arguments of an event or a reply, anything that msgspec encodes.

    ``bytes`` are themselves in msgpack and base64 text in JSON (RFC 4648 section 4), as msgspec writes and reads them
    where an event's type says bytes. Raises TypeError, ValueError or OverflowError for what cannot be encoded.
    """
    return Raw(_to_msgpack(args) if msgpack else _to_json(args))
