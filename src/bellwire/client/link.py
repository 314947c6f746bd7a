"""One connection to a Socket.IO server, from the client's side; sans-I/O.

The way of a link (Engine.IO protocol v4, "Handshake" and "Heartbeat"; Socket.IO protocol v5, "Connection to a
namespace")::

    phase     packet                    next      action
    OPENING   0 open                    JOINING   Send: CONNECT to the namespace
    JOINING   CONNECT                   JOINED    Joined
    JOINING   CONNECT_ERROR             OVER      Refused
    JOINED    EVENT, BINARY_EVENT       JOINED    Received, once its attachments are here
    JOINED    ACK, BINARY_ACK           JOINED    Answered, once its attachments are here
    JOINED    DISCONNECT                OVER      Ended("io server disconnect")
    any       2 ping                    -         Send: a pong; not while OPENING
    any       1 close                   OVER      Ended("transport close")
    any       6 noop                    -         nothing
    any       anything else             OVER      PacketError
    JOINED    silence                   OVER      Ended("ping timeout"), by :meth:`Link.tick`
    before    silence                   OVER      Ended("connect timeout"), by :meth:`Link.tick`

Silence lasts ``pingInterval + pingTimeout`` of the handshake once the client has joined: the server's ping is due
within it, and whatever else arrives is as good a sign of life. Before that there are `OPEN_SECONDS` for the open packet
and `JOIN_SECONDS` more for the answer to CONNECT, which may wait for an application's authentication.

One namespace is joined and none else: a packet of another is a PacketError.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from bellwire.core.errors import PacketError
from bellwire.protocol import engineio, socketio
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.socketio import Assembly, Packet

OPEN_SECONDS: Final = 20.0
"""For the connection, the handshakes and the open packet, as socket.io-client's ``timeout``."""
JOIN_SECONDS: Final = 45.0
"""For the answer to CONNECT, as Node's server gives a client for its CONNECT."""

MAX_BYTES: Final = 16 * 1024 * 1024
"""Bytes of one message from the server, and of all attachments of one packet."""


class Phase(Enum):
    """How far a link has come."""

    OPENING = "opening"
    JOINING = "joining"
    JOINED = "joined"
    OVER = "over"


class Send(NamedTuple):
    """Write this."""

    message: Outgoing


class Joined(NamedTuple):
    """The server accepted CONNECT; ``sid`` is the socket's id."""

    sid: str


class Refused(NamedTuple):
    """The server refused CONNECT; close the connection."""

    message: str
    data: Any


class Received(NamedTuple):
    """An event; ``objects`` is the payload of a binary one, decoded."""

    packet: Packet
    objects: list[Any] | None


class Answered(NamedTuple):
    """The acknowledgement of an event of this client's."""

    packet: Packet
    objects: list[Any] | None


class Ended(NamedTuple):
    """The connection is over; close it. ``reason`` is socket.io-client's word for it."""

    reason: str


Action: TypeAlias = Send | Joined | Refused | Received | Answered | Ended

_NEXT: Final[Mapping[tuple[Phase, int], Phase]] = {
    (Phase.JOINING, socketio.CONNECT): Phase.JOINED,
    (Phase.JOINING, socketio.CONNECT_ERROR): Phase.OVER,
    (Phase.JOINED, socketio.EVENT): Phase.JOINED,
    (Phase.JOINED, socketio.BINARY_EVENT): Phase.JOINED,
    (Phase.JOINED, socketio.ACK): Phase.JOINED,
    (Phase.JOINED, socketio.BINARY_ACK): Phase.JOINED,
    (Phase.JOINED, socketio.DISCONNECT): Phase.OVER,
}

_PONG: Final = Send(Outgoing(engineio.PONG))
_EVENTS: Final = (socketio.EVENT, socketio.BINARY_EVENT)


class _Welcome(msgspec.Struct):
    sid: str


_decode_welcome: Final = msgspec.json.Decoder(_Welcome).decode


class Link:
    """The state of one connection; ``now`` is the time on any clock that only goes forward, in seconds.

    ``deadline`` is when to call `tick`; it moves into the future while the link is alive.
    """

    __slots__ = ("_assembly", "_auth", "_namespace", "_patience", "deadline", "phase")

    def __init__(self, namespace: str, auth: Mapping[str, Any] | None, now: float) -> None:
        self.phase = Phase.OPENING
        self.deadline = now + OPEN_SECONDS
        self._namespace = namespace
        self._auth = auth
        self._patience = 0.0
        self._assembly: Assembly | None = None

    def heard(self, now: float) -> None:
        """Something came from the server."""
        if self.phase is Phase.JOINED:
            self.deadline = now + self._patience

    def tick(self, now: float) -> Ended | None:
        """Say whether the server has been silent for too long."""
        if now < self.deadline or self.phase is Phase.OVER:
            return None
        reason = "ping timeout" if self.phase is Phase.JOINED else "connect timeout"
        self.phase = Phase.OVER
        return Ended(reason)

    def receive(self, packet: str | bytes, now: float) -> Action | None:
        """Take one packet of Engine.IO, as the message of a WebSocket holds it; return what is to be done.

        Raises PacketError if the server broke the protocol; the link is over then.
        """
        try:
            return self._receive(packet, now)
        except PacketError:
            self.phase = Phase.OVER
            raise

    def _receive(self, packet: str | bytes, now: float) -> Action | None:
        if not isinstance(packet, str):
            return self._attach(packet)
        kind = packet[:1]
        if kind == engineio.MESSAGE:
            return self._message(packet[1:], now)
        if self.phase is Phase.OPENING:
            if kind == engineio.OPEN:
                return self._open(packet, now)
        elif kind == engineio.PING:
            return _PONG
        if kind == engineio.CLOSE:
            self.phase = Phase.OVER
            return Ended("transport close")
        if kind == engineio.NOOP:
            return None
        raise PacketError("a packet that a server does not send here")

    def _open(self, packet: str, now: float) -> Send:
        handshake = engineio.decode_handshake(packet)
        if handshake.ping_interval <= 0 or handshake.ping_timeout < 0:
            raise PacketError("the handshake's times are no times")
        self._patience = (handshake.ping_interval + handshake.ping_timeout) / 1000
        self.phase = Phase.JOINING
        self.deadline = now + JOIN_SECONDS
        return Send(socketio.encode_connect(self._namespace, self._auth))

    def _message(self, text: str, now: float) -> Action | None:
        if self._assembly is not None:
            raise PacketError("a text frame among the attachments of a packet")
        packet = socketio.parse_packet(text)
        phase = _NEXT.get((self.phase, packet.type))
        if phase is None or packet.namespace != self._namespace:
            raise PacketError("a packet that is not due, or of another namespace")
        self.phase = phase
        if packet.attachments:
            self._assembly = Assembly(packet, max_bytes=MAX_BYTES)
            return None
        if packet.type in _EVENTS:
            return Received(packet, None)
        if packet.type == socketio.ACK:
            return Answered(packet, None)
        return self._decided(packet, now)

    def _decided(self, packet: Packet, now: float) -> Action:
        """What the server says of the connection itself."""
        if packet.type == socketio.CONNECT:
            self.deadline = now + self._patience
            return Joined(_sid(packet.payload))
        if packet.type == socketio.CONNECT_ERROR:
            return Refused(*socketio.read_refusal(packet.payload))
        return Ended("io server disconnect")

    def _attach(self, data: bytes) -> Action | None:
        assembly = self._assembly
        if assembly is None:
            raise PacketError("a binary frame when none is due")
        if not assembly.add(data):
            return None
        self._assembly = None
        packet, objects = assembly.packet, assembly.resolve()
        return Received(packet, objects) if packet.type in _EVENTS else Answered(packet, objects)


def _sid(payload: str) -> str:
    try:
        return _decode_welcome(payload).sid
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise PacketError(f"the answer to CONNECT cannot be read: {error}") from None
