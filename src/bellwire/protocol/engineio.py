"""Engine.IO protocol v4: packets, the long-polling payload, request checks, the upgrade; sans-I/O.

What a session takes from its client ("Packet types", "Heartbeat"; :func:`read_packet`)::

    packet                         outcome
    4<text>                        a text message
    bytes, or the text b<base64>   a binary message
    3, 3<anything>                 a pong: a sign of life, asked for or not
    1                              the client closes the session
    2<anything>                    PacketError: in version 4 it is the server that pings
    0<anything>, 6                 PacketError: only servers send these
    5                              PacketError: only a WebSocket under probe may send it

The upgrade from long-polling ("Upgrade"; :class:`Upgrade`, one for each candidate WebSocket)::

    state     packet       next      action
    POLLING   2probe       PROBING   ANSWER_PROBE: 3probe here, and 6 to the pending GET
    PROBING   2probe       PROBING   ANSWER_PROBE: once more, as the reference server does
    PROBING   5            UPGRADED  SWITCH: long-polling is over, the queue goes out here
    any       all else     FAILED    CLOSE_CANDIDATE: the session stays on long-polling
"""

import binascii
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import Final

import msgspec

from bellwire.core.errors import PacketError, ProtocolError
from bellwire.core.randomness import random_bytes

OPEN: Final = "0"
CLOSE: Final = "1"
PING: Final = "2"
PONG: Final = "3"
MESSAGE: Final = "4"
UPGRADE: Final = "5"
NOOP: Final = "6"

SEPARATOR: Final = "\x1e"
"""Between the packets of one payload: the record separator (protocol v4, "HTTP long-polling")."""

PROTOCOL: Final = "4"
"""The value of the query parameter ``EIO``."""

PROBE: Final = "2probe"
PROBE_ANSWER: Final = "3probe"

_SID: Final = re.compile(r"[0-9a-f]{8}[A-Za-z0-9_-]{16}")

_BASE64: Final = "b"
_FIRST_CHARACTERS: Final = frozenset("0123456")


# --- the handshake (protocol v4, "Handshake")


class Handshake(msgspec.Struct, frozen=True, rename="camel"):
    """What the open packet tells the client: these five keys, in this order, times in milliseconds."""

    sid: str
    upgrades: tuple[str, ...]
    ping_interval: int
    ping_timeout: int
    max_payload: int = 0
    """Bytes of one message to the server; 0 if it does not say, as Node's before engine.io 6.2 (2022)."""


_decode_handshake: Final = msgspec.json.Decoder(Handshake).decode


def encode_handshake(
    sid: str, *, upgrades: Sequence[str], ping_interval: float, ping_timeout: float, max_payload: int
) -> str:
    """Build the open packet. Times are seconds here and milliseconds on the wire, ``max_payload`` bytes."""
    handshake = Handshake(sid, tuple(upgrades), round(ping_interval * 1000), round(ping_timeout * 1000), max_payload)
    return OPEN + msgspec.json.encode(handshake).decode()


def decode_handshake(packet: str) -> Handshake:
    """Read an open packet, as a client does. Raises :class:`PacketError` if it is none."""
    if packet[:1] != OPEN:
        raise PacketError("the session does not begin with an open packet")
    try:
        return _decode_handshake(packet[1:])
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise PacketError(f"the handshake cannot be read: {error}") from None


def new_sid(node: str) -> str:
    """Make a session's id: that of its ``node``, 8 hexadecimal digits, and 96 random bits as ``[A-Za-z0-9_-]``."""
    return node + urlsafe_b64encode(random_bytes(12)).decode()


def node_of(sid: str) -> str | None:
    """Return the node of the session that ``sid`` is the id of; None if it is none."""
    return sid[:8] if _SID.fullmatch(sid) else None


# --- packets


class Control(Enum):
    """What a packet can mean that is no message."""

    PONG = "pong"
    CLOSE = "close"


_RECEIVED: Final[Mapping[str, Control | str]] = {
    PONG: Control.PONG,
    CLOSE: Control.CLOSE,
    PING: "invalid heartbeat direction: in Engine.IO v4 the server pings",
    OPEN: "an open packet from a client",
    UPGRADE: "an upgrade packet outside an upgrade",
    NOOP: "a noop packet from a client",
}


def read_packet(packet: str | bytes) -> str | bytes | Control:
    """Judge a packet that a session's client sent; the table is at the top of this file.

    Returns the message without its type (``str`` for text, ``bytes`` for binary) or what the packet
    means for the session. Raises :class:`PacketError` if the session has to be closed.
    """
    if not isinstance(packet, str):
        return packet
    kind = packet[:1]
    if kind == MESSAGE:
        return packet[1:]
    if kind == _BASE64:
        return _decode_base64(packet)
    verdict = _RECEIVED.get(kind, "unknown packet type" if kind else "empty packet")
    if isinstance(verdict, Control):
        return verdict
    raise PacketError(verdict)


def decode_payload(body: bytes, *, max_packets: int = 1024) -> list[str | bytes]:
    r"""Split a long-polling payload into packets: text packets with their type, binary ones as ``bytes``.

    Protocol v4, "HTTP long-polling": packets are joined by ``\x1e``, a binary packet is ``b`` and base64.
    Raises :class:`PacketError` for invalid UTF-8, invalid base64, an empty packet, an unknown type, or
    more than ``max_packets`` packets (counted before any is made).
    """
    count = body.count(b"\x1e") + 1
    if count > max_packets:
        raise PacketError(f"{count} packets in one payload, {max_packets} are allowed")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise PacketError("the payload is not valid UTF-8") from None
    return [_decode_packet(packet) for packet in text.split(SEPARATOR)]


def encode_payload(packets: Iterable[str | bytes]) -> str:
    """Join packets to a long-polling payload; ``bytes`` become ``b`` and base64."""
    return SEPARATOR.join([packet if isinstance(packet, str) else encode_base64(packet) for packet in packets])


def encode_base64(data: bytes) -> str:
    """Encode a binary message as text, for a payload or for a client that asked for ``b64=1``."""
    return _BASE64 + binascii.b2a_base64(data, newline=False).decode()


def _decode_packet(packet: str) -> str | bytes:
    kind = packet[:1]
    if kind in _FIRST_CHARACTERS:
        return packet
    if kind == _BASE64:
        return _decode_base64(packet)
    raise PacketError("unknown packet type" if kind else "empty packet")


def _decode_base64(packet: str) -> bytes:
    try:
        return binascii.a2b_base64(packet[1:], strict_mode=True)
    except ValueError:  # binascii.Error is one
        raise PacketError("a binary packet is not valid base64") from None


# --- the upgrade (protocol v4, "Upgrade")


class UpgradeState(Enum):
    """How far a candidate WebSocket has come."""

    POLLING = "polling"
    PROBING = "probing"
    UPGRADED = "upgraded"
    FAILED = "failed"


class UpgradeAction(Enum):
    """What the transport does next with a candidate WebSocket."""

    ANSWER_PROBE = "answer probe"
    SWITCH = "switch"
    CLOSE_CANDIDATE = "close candidate"


_UPGRADE: Final[Mapping[tuple[UpgradeState, str], tuple[UpgradeState, UpgradeAction]]] = {
    (UpgradeState.POLLING, PROBE): (UpgradeState.PROBING, UpgradeAction.ANSWER_PROBE),
    (UpgradeState.PROBING, PROBE): (UpgradeState.PROBING, UpgradeAction.ANSWER_PROBE),
    (UpgradeState.PROBING, UPGRADE): (UpgradeState.UPGRADED, UpgradeAction.SWITCH),
}
_UPGRADE_FAILED: Final = (UpgradeState.FAILED, UpgradeAction.CLOSE_CANDIDATE)


class Upgrade:
    """One attempt to move a session from long-polling to a WebSocket; its table is at the top of the file."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = UpgradeState.POLLING

    def receive(self, packet: str | bytes) -> UpgradeAction:
        """Take a packet that came on the candidate; after ``SWITCH`` its packets are the session's own."""
        step = _UPGRADE.get((self.state, packet)) if isinstance(packet, str) else None
        self.state, action = step or _UPGRADE_FAILED
        return action


# --- requests


class RequestError(ProtocolError):
    """A request that is answered with an error of Engine.IO.

    ``status`` is the HTTP status, ``engine_code`` Engine.IO's own (0 to 5), ``message`` what
    goes with it, ``context`` why, for logs and counters: a constant, never the client's bytes. On an
    upgrade request Node's server answers with the bare message instead of ``body``. A client may come again in
    ``retry_after`` seconds, if that is not None.
    """

    code = "request_error"

    def __init__(
        self, status: int, engine_code: int, message: str, context: str, retry_after: int | None = None
    ) -> None:
        super().__init__(status, engine_code, message, context, retry_after)
        self.status = status
        self.engine_code = engine_code
        self.message = message
        self.context = context
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} ({self.context})"

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What belongs into the answer's head."""
        return () if self.retry_after is None else (("retry-after", str(self.retry_after)),)

    @property
    def body(self) -> bytes:
        """The answer's body, ``application/json``: ``{"code":0,"message":"Transport unknown"}``."""
        return msgspec.json.encode({"code": self.engine_code, "message": self.message})


UNKNOWN_TRANSPORT: Final = 0
UNKNOWN_SID: Final = 1
BAD_HANDSHAKE_METHOD: Final = 2
BAD_REQUEST: Final = 3
FORBIDDEN: Final = 4
UNSUPPORTED_PROTOCOL_VERSION: Final = 5

_ERRORS: Final[Mapping[int, tuple[int, str]]] = {
    UNKNOWN_TRANSPORT: (400, "Transport unknown"),
    UNKNOWN_SID: (400, "Session ID unknown"),
    BAD_HANDSHAKE_METHOD: (400, "Bad handshake method"),
    BAD_REQUEST: (400, "Bad request"),
    FORBIDDEN: (403, "Forbidden"),
    UNSUPPORTED_PROTOCOL_VERSION: (400, "Unsupported protocol version"),
}

# What a header value may consist of: RFC 9110 section 5.5 (field-vchar, obs-text, SP and HTAB).
_INVALID_HEADER_CHARACTER: Final = re.compile(r"[^\t\x20-\x7e\x80-\xff]")


def refuse_request(engine_code: int, context: str, message: str | None = None) -> RequestError:
    """Make the error for one of Engine.IO's codes; ``message`` replaces the usual text."""
    status, usual = _ERRORS[engine_code]
    return RequestError(status, engine_code, usual if message is None else message, context)


def check_request(
    *,
    method: str,
    query: Mapping[str, str],
    transport_of: Callable[[str], str | None],
    is_upgrade: bool,
    origin: str | None,
    transports: Collection[str] = ("polling", "websocket"),
) -> None:
    """Check a request in the order of Node's server, so that clients see the same error for the same mistake.

    ``transport_of`` gives the transport a session is on (``"polling"`` or ``"websocket"``; one that is
    being upgraded is still on polling), or None for an unknown sid. ``is_upgrade`` says that the request
    asks for a WebSocket, ``transports`` which ones this server offers. Raises :class:`RequestError`.

    A WebSocket for a session that has one already passes: it has to be accepted (101) and then closed,
    because clients meet a refused upgrade with an error that nobody handles.
    """
    transport = query.get("transport")
    if transport not in transports:
        raise refuse_request(UNKNOWN_TRANSPORT, "UNKNOWN_TRANSPORT")
    if origin is not None and _INVALID_HEADER_CHARACTER.search(origin):
        raise refuse_request(BAD_REQUEST, "INVALID_ORIGIN")
    sid = query.get("sid")
    if sid:
        _check_session(method, query, transport_of(sid), is_upgrade)
    elif method != "GET":
        raise refuse_request(BAD_HANDSHAKE_METHOD, "BAD_HANDSHAKE_METHOD")
    if (transport == "websocket") is not is_upgrade:
        raise refuse_request(BAD_REQUEST, "TRANSPORT_HANDSHAKE_ERROR")
    if query.get("EIO") != PROTOCOL:  # of a new session; one with a sid was asked above
        raise refuse_request(UNSUPPORTED_PROTOCOL_VERSION, "UNSUPPORTED_PROTOCOL_VERSION")


def _check_session(method: str, query: Mapping[str, str], current: str | None, is_upgrade: bool) -> None:
    """Check a request that names a session: known, on this transport or on its way to it, same protocol."""
    if current is None:
        raise refuse_request(UNKNOWN_SID, "UNKNOWN_SID")
    if not is_upgrade and query["transport"] != current:
        raise refuse_request(BAD_REQUEST, "TRANSPORT_MISMATCH")
    if query.get("EIO") != PROTOCOL:
        raise refuse_request(BAD_REQUEST, "PROTOCOL_MISMATCH")
    if method != "GET" and (is_upgrade or method != "POST"):
        raise refuse_request(BAD_REQUEST, "BAD_METHOD")
