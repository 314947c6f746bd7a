"""bellwire.v1 inside Socket.IO, for clients that ask for it in their CONNECT; sans-I/O.

The specification for those who write clients is the section "Inside Socket.IO" of ``docs/reference/bellwire-v1.md``::

    in bellwire.v1              in Socket.IO
    connect, connected          CONNECT and its answer, under the key "bellwire"           Hello, Welcome
    refused, disconnect         CONNECT_ERROR, DISCONNECT
    r                           ACK
    s                           EVENT with one argument more, {"bellwire":["s",…]}         Placed
    e with after                EVENT with one argument more, {"bellwire":["e",[…]]}       Plain
    e                           EVENT
    n from the client           EVENT with one argument more, {"bellwire":["n",…]}         Numbered
    ask, skip                   EVENT named "bellwire" with one argument, the message      Request
    open close advance proved   the same                                                   Control
    reset n nack skipped drain
    ping, pong                  Engine.IO's own

The *trailer* is the last argument of an event if it is an object with the one key ``bellwire``. Its value is a message
of bellwire.v1 without the elements that the event itself holds. An event without a trailer whose own last argument
looks like one gets the trailer ``{"bellwire":["e"]}``, so that nobody can pass something of his own off as a place in a
stream (`as_plain`).

A trailer is taken off as text: what is left is, byte for byte, what was there before it was put on. So an event that
is sent again can be compared with the first one, and the JSON of an event is made once for those who get a trailer and
those who do not.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Raw

from bellwire.core.errors import ConnectRefused, PacketError
from bellwire.core.events import OWN_NAME
from bellwire.protocol.json_text import MAX_DEPTH, check_depth
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.socketio import Packet, append_argument, encode_connect, encode_event, name_of, parse_packet
from bellwire.protocol.wire import (
    MAX_CURSORS,
    Advance,
    After,
    Ask,
    Close,
    Cursor,
    Drain,
    Greeting,
    Nack,
    Number,
    Opaque,
    Open,
    Outcome,
    ProducerId,
    Proved,
    Reset,
    Skip,
    Skipped,
    Tag,
    Whole,
    encode,
    read_json,
)

VERSION: Final = 1
"""The version of bellwire that is spoken here."""

KEY: Final = OWN_NAME
"""The key of CONNECT's payload and of trailers, and the name of the events that are messages of bellwire.v1."""

_MAX_COMPLAINT: Final = 256  # characters of an error; msgspec quotes what it found


# --- CONNECT and its answer


class Hello(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client says of itself in CONNECT; the elements are those of `wire.Connect`."""

    version: int
    instance: Opaque
    producer: ProducerId | None = None
    session: Opaque | None = None
    cursors: Annotated[tuple[Cursor, ...], Meta(max_length=MAX_CURSORS)] = ()
    attempt: Whole = 0


HEARD: Final = Hello(VERSION, "")
"""What is kept of one once it is taken up."""


class Welcome(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What the server answers; the elements are those of `wire.Connected`."""

    session: Opaque
    resumed: bool
    producer: Greeting | None = None


class _Version(msgspec.Struct):
    version: int


class _Answer(msgspec.Struct):
    sid: str
    bellwire: Welcome | None = None


_read_answer: Final = msgspec.json.Decoder(_Answer).decode


def encode_hello(namespace: str, auth: Mapping[str, Any] | None, hello: Hello) -> Outgoing:
    """CONNECT of a client that asks for streams. Raises ValueError if ``auth`` has the key itself."""
    if auth is not None and KEY in auth:
        raise ValueError(f"auth cannot have the key {KEY!r}: it is Bellwire's own")
    return encode_connect(namespace, {**(auth or {}), KEY: hello})


def take_hello(auth: dict[str, Any] | None) -> Hello | None:
    """Take out of CONNECT's payload what is for Bellwire, so that the application does not see it; None if nothing is.

    Raises:
        ConnectRefused: it is not what version 1 says, or of another version.

    """
    found = None if auth is None else auth.pop(KEY, None)
    if found is None:
        return None
    try:
        version = msgspec.convert(found, _Version).version
        if version == VERSION:
            return msgspec.convert(found, Hello)
    except (msgspec.ValidationError, ValueError) as error:  # ValueError: text that is no Unicode
        complaint = f"the key {KEY!r} of auth: {error}"[:_MAX_COMPLAINT]
        raise ConnectRefused(complaint, {"code": "invalid_hello"}) from None
    complaint = f"bellwire {version} is not spoken here: the version is {VERSION}"[:_MAX_COMPLAINT]
    raise ConnectRefused(complaint, {"code": "unknown_version", "version": VERSION})


def encode_welcome(namespace: str, sid: str, welcome: Welcome) -> Outgoing:
    """The answer to CONNECT for a client that asked for streams."""
    return encode_connect(namespace, {"sid": sid, KEY: welcome})


def read_welcome(payload: str) -> tuple[str, Welcome | None]:
    """Return the socket's id from the answer to CONNECT, and what the server says of streams; None if it has none.

    Raises:
        PacketError: the payload is not that of an answer.

    """
    answer = read_json(payload, _read_answer)
    return answer.sid, answer.bellwire


# --- trailers


class Placed(msgspec.Struct, frozen=True, array_like=True, tag="s", gc=False):
    """Where an event stands in a stream; the elements are those of `wire.StreamEvent`."""

    alias: Number
    seq: Number
    tag: Tag
    back: Number
    prev_tag: Tag
    mid: str
    gen: Opaque | None = None


class Plain(msgspec.Struct, frozen=True, array_like=True, tag="e", gc=False):
    """The event is in no stream; ``after`` is that of `wire.ServerEvent`."""

    after: After | None = None


class Numbered(msgspec.Struct, frozen=True, array_like=True, tag="n", gc=False):
    """The event has a number of the client's producer; the elements are those of `wire.NumberedEvent`."""

    number: Number
    generation: Opaque | None = None
    resent: bool = False


ClientTrailer: TypeAlias = Numbered | Plain
ServerTrailer: TypeAlias = Placed | Plain


class _FromClient(msgspec.Struct, forbid_unknown_fields=True):
    bellwire: ClientTrailer


class _FromServer(msgspec.Struct, forbid_unknown_fields=True):
    bellwire: ServerTrailer


_read_from_client: Final = msgspec.json.Decoder(_FromClient).decode
_read_from_server: Final = msgspec.json.Decoder(_FromServer).decode
_read_arguments: Final = msgspec.json.Decoder(list[Raw]).decode
_read_object: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_to_json: Final = msgspec.json.Encoder().encode

_MARK: Final = f'"{KEY}"'
_START: Final = f",{{{_MARK}:["  # in valid JSON, these quotation marks can only be those of a key
_END: Final = "]}]"
_DEFAULTS: Final = (",null]", ",false]")
_AS_PLAIN: Final = f'{{{_MARK}:["e"]}}'

T = TypeVar("T", _FromClient, _FromServer)


def embed(event: Outgoing, trailer: ClientTrailer | ServerTrailer) -> Outgoing:
    """Return an event, as `encode_event` made it, with its trailer; the event is not encoded again."""
    text = _to_json(trailer).decode()
    while text.endswith(_DEFAULTS):  # they are left out at the end, as in bellwire.v1
        text = f"{text[: text.rindex(',')]}]"
    return append_argument(event, f"{{{_MARK}:{text}}}")


def as_plain(event: Outgoing) -> Outgoing:
    """Return an event in no stream as those get it who take trailers off: nearly always the same object."""
    text = str(event.parts[0])
    if text[-2:-1] not in "} \t\r\n" or not (_MARK in text or "\\u" in text):
        return event
    return append_argument(event, _AS_PLAIN) if _written_otherwise(parse_packet(text[1:]).payload) else event


def take_number(packet: Packet) -> tuple[str, Numbered | None]:
    """Return an event's payload as the client's program gave it, and its number if it has one.

    The objects of a binary event have a trailer too, the last of them, whenever the payload is not the packet's.

    Raises:
        PacketError: there is a trailer that is none, or one for an event with an acknowledgement; or the event has
            a number, and more than `MAX_DEPTH` levels.

    """
    payload = packet.payload
    if _MARK not in payload and "\\u" not in payload:
        return payload, None
    payload, found = _split(payload, _read_from_client)
    if found is None or isinstance(found.bellwire, Plain):
        return payload, None
    if packet.id is not None:
        raise PacketError("an event with a number asks for no acknowledgement")
    check_depth(payload, MAX_DEPTH)
    return payload, found.bellwire


def take_place(packet: Packet) -> tuple[str, Placed | After | None]:
    """Return an event's payload as the server's program gave it, and its place in or behind a stream if it has one.

    The objects of a binary event are as for `take_number`.

    Raises:
        PacketError: there is a trailer that is none.

    """
    payload = packet.payload
    if _MARK not in payload and "\\u" not in payload:
        return payload, None
    payload, found = _split(payload, _read_from_server)
    trailer = None if found is None else found.bellwire
    return payload, trailer.after if isinstance(trailer, Plain) else trailer


def _split(payload: str, decode: Callable[[str], T]) -> tuple[str, T | None]:
    cut = payload.rfind(_START)
    if cut > 0 and payload.endswith(_END):
        try:
            return f"{payload[:cut]}]", decode(payload[cut + 1 : -1])
        except (msgspec.DecodeError, ValueError, RecursionError):
            pass  # it is further in, or not what it should be
    last = _written_otherwise(payload)
    if not last:
        return payload, None
    text = payload.rstrip()[:-1].rstrip()
    return f"{text[: len(text) - len(last)].rstrip()[:-1]}]", read_json(last, decode)


def _written_otherwise(payload: str) -> str:
    """Return the last argument if it is an object that has the key and no other, however it is written; else ``""``."""
    if not payload.rstrip()[:-1].rstrip().endswith("}"):
        return ""
    arguments = read_json(payload, _read_arguments, len(payload))
    last = bytes(arguments[-1]).decode() if len(arguments) > 1 else ""
    return last if last[:1] == "{" and read_json(last, _read_object, len(last)).keys() == {KEY} else ""


# --- messages

Request: TypeAlias = Ask | Skip
"""What a client sends as an event named ``bellwire``."""

Control: TypeAlias = Open | Close | Advance | Proved | Reset | Outcome | Nack | Skipped | Drain
"""What a server sends as an event named ``bellwire``."""


class _RequestEvent(msgspec.Struct, array_like=True):
    name: Literal["bellwire"]
    message: Request


class _ControlEvent(msgspec.Struct, array_like=True):
    name: Literal["bellwire"]
    message: Control


_read_request: Final = msgspec.json.Decoder(_RequestEvent).decode
_read_control: Final = msgspec.json.Decoder(_ControlEvent).decode


def encode_message(namespace: str, message: Request | Control) -> Outgoing:
    """Return a message as an event; the namespace in it, if it has one, is this one."""
    return append_argument(encode_event(namespace, (KEY,), binary=False), encode(message, msgpack=False))


def is_message(packet: Packet) -> bool:
    """Whether an event is a message of bellwire.v1. Raises what `name_of` does."""
    return name_of(packet) == KEY


def read_request(packet: Packet) -> Request:
    """Return the message in an event of a client's. Raises `PacketError` if there is none."""
    return _checked(packet, read_json(packet.payload, _read_request, MAX_DEPTH + 2).message)


def read_control(packet: Packet) -> Control:
    """Return the message in an event of a server's. Raises `PacketError` if there is none."""
    return _checked(packet, read_json(packet.payload, _read_control, MAX_DEPTH + 2).message)


M = TypeVar("M", Request, Control)


def _checked(packet: Packet, message: M) -> M:
    if packet.id is not None or packet.attachments:
        raise PacketError(f"an event named {KEY!r} has neither an acknowledgement nor attachments")
    if getattr(message, "namespace", packet.namespace) != packet.namespace:
        raise PacketError("a message of another namespace than its packet")
    return message
