"""Socket.IO protocol v5: packets to and from text and binary frames; sans-I/O.

Grammar of a packet ("Packet encoding"; here without the Engine.IO ``4`` in front)::

    packet = type [attachments "-"] [namespace ","] [id] [payload]

    type             attachments  id        payload                       payload checked by
    0 CONNECT        -            -         none or an object             check_connect_payload
    1 DISCONNECT     -            -         none                          parse_packet
    2 EVENT          -            optional  an array, its name first      event_name
    3 ACK            -            required  an array                      check_ack_payload
    4 CONNECT_ERROR  -            -         an object (servers only)      decode_json
    5 BINARY_EVENT   1 to 10      optional  as EVENT, with placeholders   event_name, Assembly
    6 BINARY_ACK     1 to 10      required  as ACK, with placeholders     Assembly

What a client sends against this is a :class:`PacketError` and costs it its connection; an ack without an
id, or with one that nobody waits for, is not an error but answers nothing. Namespaces end at a comma or
with the text; ids are ASCII digits, at most 15 of them, so that JavaScript holds them exactly.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from bellwire.core.errors import PacketError, TooManyAttachments
from bellwire.protocol.json_text import TOO_DEEP, decode_text
from bellwire.protocol.outgoing import Outgoing, Single, Stem

CONNECT: Final = 0
DISCONNECT: Final = 1
EVENT: Final = 2
ACK: Final = 3
CONNECT_ERROR: Final = 4
BINARY_EVENT: Final = 5
BINARY_ACK: Final = 6

RESERVED_EVENTS: Final = frozenset(
    ("connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener")
)
"""Names that no event may have: clients use them for themselves (socket.io-parser 4.2.7)."""

MAX_ATTACHMENTS: Final = 10
"""Binary attachments of one packet, both ways: clients since socket.io-parser 4.2.6 refuse more."""

ROOT: Final = "/"
"""The namespace that is meant where a packet names none."""


class Packet(msgspec.Struct, frozen=True, gc=False):
    """A packet's header, read, and its payload, not read yet.

    ``id`` is the acknowledgement's, None if there is none; ``payload`` JSON text, ``""`` if there is none;
    ``attachments`` how many binary frames follow.
    """

    type: int
    namespace: str
    id: int | None
    payload: str
    attachments: int
    name: str = ""
    """Of an event, its name where that was found on the way; :func:`name_of` finds it wherever it is."""


# --- reading a packet

# Nearly all that comes: an event whose name is plain. RFC 8259 section 7: in a string neither a quotation mark nor a
# control character stands unescaped.
_EVENT: Final = re.compile(r'2(?:(/[^,]*),)?([0-9]{1,15})?(\["([^"\\\x00-\x1f]*)"[,\]].*)', re.DOTALL)
_HEADER: Final = re.compile(
    r"(?P<type>[0-6])"
    r"(?:(?P<attachments>[0-9]{1,15})-)?"
    r"(?:(?P<namespace>/[^,]*),?)?"
    r"(?P<id>[0-9]*)"
    r"(?P<payload>.*)",
    re.DOTALL,
)
_MAX_ID_DIGITS: Final = 15  # below 2**53: JavaScript holds it exactly

# What the payload of each type begins with; JSON.stringify puts no white space before it.
# python-socketio refuses an unknown namespace with a bare string.
_PAYLOAD_STARTS: Final = ("{", "", "[", "[", '{"', "[", "[")
_PAYLOAD_OPTIONAL: Final = (True, True, False, False, False, False, False)


def parse_packet(text: str, max_attachments: int = MAX_ATTACHMENTS) -> Packet:
    """Read a packet's header from a message's text, which is given without Engine.IO's ``4``.

    The payload is only looked at, not decoded: its reader knows what it should be. Raises
    :class:`PacketError` for everything that the grammar at the top of this file does not allow.
    """
    match = _EVENT.match(text)
    if match is None:
        return parse_header(text, max_attachments)
    namespace, digits, payload, name = match.groups()
    known = "" if name in RESERVED_EVENTS else name
    return Packet(EVENT, namespace or ROOT, int(digits) if digits else None, payload, 0, known)


def parse_header(text: str, max_attachments: int) -> Packet:
    """Read any packet's header: what :func:`parse_packet` does, and says, but for the name."""
    match = _HEADER.fullmatch(text)
    if match is None:
        raise PacketError("unknown packet type")
    digits, count, namespace, id_digits, payload = match.groups()
    kind = int(digits)
    attachments = _check_attachments(kind, count, max_attachments)
    if len(id_digits) > _MAX_ID_DIGITS:
        raise PacketError(f"an acknowledgement id has more than {_MAX_ID_DIGITS} digits")
    if payload:
        if payload[0] not in _PAYLOAD_STARTS[kind]:
            raise PacketError("the payload is not what this type of packet carries")
    elif not _PAYLOAD_OPTIONAL[kind]:
        raise PacketError("this type of packet needs a payload")
    return Packet(kind, namespace or ROOT, int(id_digits) if id_digits else None, payload, attachments)


def _check_attachments(kind: int, count: str | None, limit: int) -> int:
    """Return how many attachments follow: at least one for the binary types, none for all others."""
    if kind < BINARY_EVENT:
        if count is not None:
            raise PacketError("attachments of a packet that is not binary")
        return 0
    attachments = int(count) if count is not None else 0
    if attachments == 0:
        raise PacketError("a binary packet needs at least one attachment")
    if attachments > limit:
        raise PacketError(f"{attachments} attachments in one packet, {limit} are allowed")
    return attachments


# --- reading a payload

_decode: Final = msgspec.json.Decoder().decode

_PLAIN_NAME: Final = re.compile(r'\["([^"\\\x00-\x1f]*)"[,\]]')


def decode_json(payload: str) -> Any:
    """Decode JSON text. Raises :class:`PacketError` if it is malformed, too deep, or a number too large."""
    try:
        return decode_text(payload, _decode)
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: text that is no Unicode
        raise PacketError(f"the payload is not valid JSON: {error}") from None
    except (RecursionError, MemoryError):
        raise PacketError(TOO_DEEP) from None


def event_name(payload: str) -> str:
    """Return the name of an event from its payload ``["name",...]``, as a rule without decoding the rest.

    A number as a name is legal and returned as JavaScript writes it. What follows the name is not checked:
    who reads the payload, or :func:`decode_json`, does that. Raises :class:`PacketError` if the payload is
    no array that begins with a name, or the name is one of ``RESERVED_EVENTS``.
    """
    match = _PLAIN_NAME.match(payload)
    name = match[1] if match is not None else _decode_event_name(payload)
    if name in RESERVED_EVENTS:
        raise PacketError(f"the event name {name!r} is reserved")
    return name


def name_of(packet: Packet) -> str:
    """Return the name of an event. Raises :class:`PacketError` as :func:`event_name` does."""
    return packet.name or event_name(packet.payload)


def _decode_event_name(payload: str) -> str:
    """Find the name the long way: it has escapes, white space around it, or is no string at all."""
    args = decode_json(payload)
    if not isinstance(args, list) or not args:
        raise PacketError("an event's payload is not an array that begins with a name")
    name = args[0]
    if isinstance(name, float) and name.is_integer():
        name = int(name)  # JavaScript knows one kind of number: 1.0 is written 1
    if isinstance(name, (int, float)) and not isinstance(name, bool):
        return str(name)
    if not isinstance(name, str):
        raise PacketError("an event's name is neither a string nor a number")
    return name


def check_connect_payload(payload: str) -> dict[str, Any] | None:
    """Return what a client sent with CONNECT, None if it sent nothing. Raises :class:`PacketError`."""
    if not payload:
        return None
    auth = decode_json(payload)
    if not isinstance(auth, dict):
        raise PacketError("the payload of CONNECT is not an object")
    return auth


def read_refusal(payload: str) -> tuple[str, Any]:
    """Return what a server sent with CONNECT_ERROR: its message, and its data or None. Raises :class:`PacketError`."""
    refusal = decode_json(payload)
    if isinstance(refusal, str):
        return refusal, None
    message = refusal.get("message") if isinstance(refusal, dict) else None
    if not isinstance(message, str):
        raise PacketError("the payload of CONNECT_ERROR holds no message")
    return message, refusal.get("data")


def check_ack_payload(payload: str) -> list[Any]:
    """Return an acknowledgement's arguments. Raises :class:`PacketError` if they are not an array."""
    args = decode_json(payload)
    if not isinstance(args, list):
        raise PacketError("the payload of an acknowledgement is not an array")
    return args


# --- binary packets (protocol v5, "Sending and receiving data")

_PLACEHOLDER: Final = "_placeholder"

_MIN_INTEGER: Final = -(2**63)
_MAX_INTEGER: Final = 2**64 - 1
"""MessagePack, "Integers", in which events travel."""


class Assembly:
    """Collects the binary frames of one packet, which follow it on the connection without anything between.

    While an assembly is not complete, a text frame is an error, and so is a binary frame when there is no
    assembly. ``max_bytes`` bounds all attachments together. ``packet`` is the one they belong to.
    """

    __slots__ = ("_room", "attachments", "packet")

    def __init__(self, packet: Packet, *, max_bytes: int) -> None:
        self.packet = packet
        self.attachments: list[bytes] = []
        """Those that are here."""
        self._room = max_bytes

    def add(self, data: bytes) -> bool:
        """Take a binary frame; say whether it was the last. Raises :class:`PacketError` if it is too much."""
        if self.complete:
            raise PacketError("a binary frame when none is due")
        self._room -= len(data)
        if self._room < 0:
            raise PacketError("the attachments of one packet are too large")
        self.attachments.append(data)
        return self.complete

    @property
    def complete(self) -> bool:
        """Whether every attachment of the packet is here."""
        return len(self.attachments) == self.packet.attachments

    def resolve(self) -> list[Any]:
        """Return the payload, decoded, with the attachments in the places that their placeholders hold.

        A placeholder is an object whose ``_placeholder`` is true, at any depth; its ``num`` is the index of
        an attachment. Every attachment has exactly one. Raises :class:`PacketError` otherwise, and if the
        payload is no JSON array.
        """
        if not self.complete:
            raise PacketError("binary frames are missing")
        tree = check_ack_payload(self.packet.payload)  # events and acks alike carry an array
        unused: list[bytes | None] = list(self.attachments)
        for container, key, value in _walk(tree):
            if isinstance(value, dict) and value.get(_PLACEHOLDER) is True:
                container[key] = _take(unused, value.get("num"))
            elif type(value) is int and not _MIN_INTEGER <= value <= _MAX_INTEGER:
                container[key] = _as_float(value)
        if any(attachment is not None for attachment in unused):
            raise PacketError("an attachment without a placeholder")
        return tree


def _as_float(value: int) -> float:
    """Return what JavaScript has for an integer of so many digits, which no broker could carry."""
    try:
        return float(value)
    except OverflowError:
        raise PacketError("a number is out of range") from None


def _take(unused: list[bytes | None], number: Any) -> bytes:
    """Take the attachment that a placeholder names: a real integer (``true`` is none), in range, once."""
    if type(number) is not int or not 0 <= number < len(unused):
        raise PacketError("a placeholder's num is not the index of an attachment")
    attachment = unused[number]
    if attachment is None:
        raise PacketError("two placeholders for one attachment")
    unused[number] = None
    return attachment


def _walk(tree: list[Any]) -> Iterator[tuple[Any, Any, Any]]:
    """Visit all of a tree of lists and dicts in document order, as (container, key, value).

    The visitor may put something else in the value's place: what stands there afterwards is descended
    into. Not recursive, so that a client's nesting cannot exhaust the stack.
    """
    stack: list[tuple[Any, Iterator[tuple[Any, Any]]]] = [(tree, enumerate(tree))]
    while stack:
        container, entries = stack[-1]
        for key, value in entries:
            yield container, key, value
            current = container[key]
            if isinstance(current, list):
                stack.append((current, enumerate(current)))
                break
            if isinstance(current, dict):
                stack.append((current, iter(current.items())))
                break
        else:
            stack.pop()


# --- writing packets

_BINARY_TYPES: Final = (bytes, bytearray, memoryview)

_encode: Final = msgspec.json.Encoder().encode


def encode_connect(namespace: str, payload: Mapping[str, Any] | None = None) -> Outgoing:
    """CONNECT: from a server ``40/admin,{"sid":...}``, from a client with what authenticates it."""
    return Outgoing(_header("40", namespace) + ("" if payload is None else _encode(payload).decode()))


def encode_connect_error(namespace: str, message: str, data: Any = None) -> Outgoing:
    """CONNECT_ERROR: ``44{"message":...,"data":...}``; without ``data`` if that is None."""
    payload = {"message": message} if data is None else {"message": message, "data": data}
    return Outgoing(_header("44", namespace) + _encode(payload).decode())


def encode_disconnect(namespace: str) -> Outgoing:
    """DISCONNECT: ``41`` or ``41/admin,``."""
    return Outgoing(_header("41", namespace))


def encode_event(
    namespace: str,
    args: Sequence[Any],
    *,
    id: int | None = None,  # noqa: A002 - the protocol's word
    binary: bool = True,
) -> Outgoing:
    """EVENT or BINARY_EVENT. ``args`` is the whole array, the event's name first.

    Its items are anything that msgspec encodes. ``bytes``, ``bytearray`` and ``memoryview`` at any depth
    become attachments; ``binary=False`` promises that there are none and saves the search. ``id`` asks for
    an acknowledgement. Raises :class:`~bellwire.core.errors.TooManyAttachments`, TypeError for what
    msgspec cannot encode, and ValueError for an object that clients would take for a placeholder.
    """
    if binary:
        return _encode_binary(EVENT, namespace, args, id)
    return Outgoing(_header("42", namespace) + ("" if id is None else str(id)) + _encode(args).decode())


def append_argument(event: Outgoing, argument: str) -> Outgoing:
    """Return an event with one argument more, ``argument``, which is JSON text; the rest is not encoded again."""
    head, *attachments = event.parts
    return Outgoing(f"{str(head)[:-1]},{argument}]", *attachments)  # the name comes first: there is no empty array


def open_argument(event: Outgoing, start: str) -> Stem:
    """Return an event with one argument more, of which ``start`` is JSON text; ``end`` the rest of it and a ``]``."""
    parts = event.parts
    return Stem(f"{str(parts[0])[:-1]},{start}", parts[1:])


def encode_ack(
    namespace: str,
    id: int,  # noqa: A002 - the protocol's word
    args: Sequence[Any],
    binary: bool = True,
) -> Outgoing:
    """ACK or BINARY_ACK for the event with this ``id``; ``args`` and errors as for :func:`encode_event`."""
    if binary:
        return _encode_binary(ACK, namespace, args, id)
    if namespace == ROOT:
        return Single(b"43%d%b" % (id, _encode(args)))
    return Single(b"43%b,%d%b" % (namespace.encode(), id, _encode(args)))


def _header(start: str, namespace: str) -> str:
    return start if namespace == ROOT else f"{start}{namespace},"


def _encode_binary(kind: int, namespace: str, args: Sequence[Any], ack: int | None) -> Outgoing:
    tree = msgspec.to_builtins(list(args), builtin_types=_BINARY_TYPES)
    attachments = _detach(tree)
    count = len(attachments)
    if count > MAX_ATTACHMENTS:
        raise TooManyAttachments(count, MAX_ATTACHMENTS)
    start = f"4{kind + 3}{count}-" if count else f"4{kind}"
    return Outgoing(
        _header(start, namespace) + ("" if ack is None else str(ack)) + _encode(tree).decode(), *attachments
    )


def _detach(tree: list[Any]) -> list[bytes]:
    """Put placeholders where a tree of builtins holds binary data, and return that data in their order."""
    attachments: list[bytes] = []
    forged = False
    for container, key, value in _walk(tree):
        if isinstance(value, tuple):
            container[key] = list(value)
        elif isinstance(value, _BINARY_TYPES):
            container[key] = {_PLACEHOLDER: True, "num": len(attachments)}
            attachments.append(bytes(value))
        elif isinstance(value, dict) and value.get(_PLACEHOLDER) is True:
            forged = True
    if forged and attachments:
        raise ValueError(
            "an object whose '_placeholder' is true next to binary data: clients would take it for an "
            "attachment; rename the key"
        )
    return attachments
