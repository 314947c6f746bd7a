"""One connection to a Socket.IO server, from the client's side; sans-I/O.

The way of a link (Engine.IO protocol v4, "Handshake" and "Heartbeat"; Socket.IO protocol v5, "Connection to a
namespace"; bellwire.v1, "Inside Socket.IO")::

    phase     packet                    next      action
    OPENING   0 open                    JOINING   Send: CONNECT to the namespace
    JOINING   CONNECT                   JOINED    Joined
    JOINING   CONNECT_ERROR             OVER      Refused
    JOINED    EVENT, BINARY_EVENT       JOINED    Received, Placed, Settled or a control message, once its
                                                  attachments are here
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

One namespace is joined and none else: a packet of another is a PacketError. A server that did not answer the client's
offer of bellwire.v1 speaks Socket.IO only, and what looks otherwise is an application's.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from typing_extensions import override

from bellwire.client.codec import SocketIOCodec
from bellwire.client.link import (
    JOIN_SECONDS,
    MAX_BYTES,
    Action,
    Answered,
    Ended,
    Joined,
    Link,
    Phase,
    Placed,
    Received,
    Refused,
    Send,
    Settled,
    Welcome,
    arrived,
)
from bellwire.client.parcel import Answer, packet_parcel, raw_answer
from bellwire.core.errors import PacketError
from bellwire.delivery.position import Point
from bellwire.protocol import embedding, engineio, socketio
from bellwire.protocol.embedding import Hello
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.socketio import Assembly, Packet, event_name
from bellwire.protocol.wire import Outcome

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
_ACKS: Final = (socketio.ACK, socketio.BINARY_ACK)


class SocketIOLink(Link):
    """See `Link`."""

    __slots__ = ("_assembly", "_limit", "_negotiated", "_patience")

    def __init__(
        self, codec: SocketIOCodec, auth: Mapping[str, Any] | None, hello: Callable[[], Hello | None], now: float
    ) -> None:
        super().__init__(codec, auth, hello, now)
        self._patience = 0.0
        self._limit = 0
        self._negotiated = False
        self._assembly: Assembly | None = None

    @override
    def heard(self, now: float) -> None:
        if self.phase is Phase.JOINED:
            self.deadline = now + self._patience

    @override
    def tick(self, now: float) -> Ended | None:
        if now < self.deadline or self.phase is Phase.OVER:
            return None
        reason = "ping timeout" if self.phase is Phase.JOINED else "connect timeout"
        self.phase = Phase.OVER
        return Ended(reason)

    @override
    def closed(self, code: int | None) -> Ended:
        return Ended("transport close")  # Engine.IO gives the codes no meaning

    @override
    def _receive(self, message: str | bytes, now: float) -> Action | None:
        if not isinstance(message, str):
            return self._attach(message)
        kind = message[:1]
        if kind == engineio.MESSAGE:
            return self._message(message[1:], now)
        if self.phase is Phase.OPENING:
            if kind == engineio.OPEN:
                return self._open(message, now)
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
        self._limit = max(0, handshake.max_payload)
        self.phase = Phase.JOINING
        self.deadline = now + JOIN_SECONDS
        hello = self.hello()
        if hello is None:
            return Send(socketio.encode_connect(self.namespace, self.auth))
        return Send(embedding.encode_hello(self.namespace, self.auth, hello))

    def _message(self, text: str, now: float) -> Action | None:
        if self._assembly is not None:
            raise PacketError("a text frame among the attachments of a packet")
        packet = socketio.parse_packet(text)
        phase = _NEXT.get((self.phase, packet.type))
        if phase is None or packet.namespace != self.namespace:
            raise PacketError("a packet that is not due, or of another namespace")
        self.phase = phase
        if packet.attachments:
            self._assembly = Assembly(packet, max_bytes=MAX_BYTES)
            return None
        if packet.type in _EVENTS:
            return self._event(packet, None)
        if packet.type in _ACKS:
            return _answered(packet, None)
        return self._decided(packet, now)

    def _decided(self, packet: Packet, now: float) -> Action:
        """What the server says of the connection itself."""
        if packet.type == socketio.CONNECT:
            self.deadline = now + self._patience
            return self._joined(packet.payload)
        if packet.type == socketio.CONNECT_ERROR:
            return Refused(*socketio.read_refusal(packet.payload))
        return Ended("io server disconnect", final=True)

    def _joined(self, payload: str) -> Joined:
        sid, welcome = embedding.read_welcome(payload)
        if welcome is None:
            return Joined(Welcome(sid, limit=self._limit))
        self._negotiated = True
        return Joined(Welcome(sid, welcome.session, welcome.resumed, welcome.producer, self._limit))

    def _attach(self, data: bytes) -> Action | None:
        assembly = self._assembly
        if assembly is None:
            raise PacketError("a binary frame when none is due")
        if not assembly.add(data):
            return None
        self._assembly = None
        packet, objects = assembly.packet, assembly.resolve()
        return self._event(packet, objects) if packet.type in _EVENTS else _answered(packet, objects)

    def _event(self, packet: Packet, objects: list[Any] | None) -> Action:
        name = event_name(packet.payload)
        if not self._negotiated:
            return Received(packet_parcel(name, packet.payload, objects), packet.id)
        if name == embedding.KEY:
            message = embedding.read_control(packet)
            if isinstance(message, Outcome):
                return Settled(message.number, raw_answer(message.args, msgpack=False))
            return message
        payload, place = embedding.take_place(packet)
        if objects is not None and payload is not packet.payload:
            objects.pop()
        parcel = packet_parcel(name, payload, objects)
        if not isinstance(place, embedding.Placed):
            return Received(parcel, packet.id, place)
        if packet.id is not None:
            raise PacketError("an event of a stream asks for no acknowledgement")
        prev = Point(place.seq - place.back, place.prev_tag)
        entry = arrived(place.seq, place.tag, prev, place.mid, parcel)
        return Placed(place.alias, place.gen, prev, entry)


def _answered(packet: Packet, objects: list[Any] | None) -> Answered | None:
    """An acknowledgement; one without an id answers nothing, and is passed over as stock clients do."""
    return None if packet.id is None else Answered(packet.id, Answer(packet.payload, objects))
