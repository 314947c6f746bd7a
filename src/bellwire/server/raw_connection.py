"""The side of a session that speaks bellwire.v1 (the specification is ``docs/reference/bellwire-v1.md``).

What a message means depends on the socket of its namespace::

    message           no socket              CONNECTING, ENTERING  CONNECTED
    connect           admit the client       end the connection    end the connection
    e, n, skip, r     end the connection     end the connection    to the socket
    disconnect        end the connection     the socket leaves     the socket leaves
    ask               close the stream       close the stream      to the socket that has the stream
    ping, pong        answer, nothing        answer, nothing       answer, nothing

An event becomes a packet of Socket.IO without a wire: from there on both kinds of clients are the same.
"""

from typing import TYPE_CHECKING, Any, Final

import msgspec
from typing_extensions import override

from bellwire.core.errors import PacketError
from bellwire.delivery.answer import Reason
from bellwire.delivery.effects import payload_digest
from bellwire.delivery.position import Position
from bellwire.protocol import wire
from bellwire.protocol.embedding import VERSION, Hello
from bellwire.protocol.outgoing import Message, Outgoing
from bellwire.protocol.socketio import ACK, EVENT, RESERVED_EVENTS, Packet
from bellwire.server.connection import Connection, TooLate
from bellwire.server.dialects import raw
from bellwire.server.inbound import Phase
from bellwire.server.numbers import Numbered
from bellwire.server.socket import Socket
from bellwire.transports.raw import RawSession

if TYPE_CHECKING:
    from bellwire.server.runtime import Runtime
    from bellwire.server.server import Server

_to_json: Final = msgspec.json.Encoder().encode
_array: Final = msgspec.msgpack.Decoder(list[Any]).decode


class RawConnection(Connection):
    """Brings each message to its socket."""

    __slots__ = ("_msgpack",)

    def __init__(self, server: "Server", runtime: "Runtime", session: RawSession) -> None:
        super().__init__(server, runtime, session)
        self._msgpack = session.msgpack

    @override
    def received(self, message: str | bytes) -> None:
        try:
            self._take(message)
        except (PacketError, TooLate) as error:
            self.fail(error)

    def _take(self, message: str | bytes) -> None:
        found = wire.parse(message)
        match found:
            case wire.ClientEvent(namespace, name, args, number):
                packet, objects = self._packet(namespace, name, args, number)
                self.connected_in(namespace).receive(packet, objects, len(args) if self._msgpack else 0)
            case wire.NumberedEvent():
                self._numbered(found)
            case wire.Reply():
                self._replied(found)
            case wire.Connect():
                self._connect(found)
            case wire.Disconnect(namespace):
                self.remove(self.socket_in(namespace), "client namespace disconnect")
            case wire.Skip(namespace):
                self.connected_in(namespace).receive(_NOTHING, number=found)
            case wire.Ask():
                self._ask(found)
            case wire.Ping():
                if self.work():
                    self._say(wire.Pong())
            case wire.Pong():
                pass

    # --- events

    def _packet(
        self, namespace: str, name: str, args: msgspec.Raw, number: int | None
    ) -> tuple[Packet, list[Any] | None]:
        """Return an event as the sockets take it; its objects too if they are not in the packet's text."""
        spelt = _to_json(name).decode()
        known = "" if name in RESERVED_EVENTS else name
        if not self._msgpack:
            text = _text(args)
            inside = text[1:].lstrip()
            payload = f"[{spelt}{inside}" if inside == "]" else f"[{spelt},{inside}"
            return Packet(EVENT, namespace, number, payload, 0, known), None
        return Packet(EVENT, namespace, number, f"[{spelt}]", 0, known), [name, *_objects(args)]

    def _numbered(self, event: wire.NumberedEvent) -> None:
        packet, objects = self._packet(event.namespace, event.name, event.args, None)
        digest = payload_digest(event.namespace.encode(), event.name.encode(), bytes(event.args))
        number = Numbered(event.number, digest, event.generation, resent=event.resent)
        size = len(event.args) if self._msgpack else 0
        self.connected_in(event.namespace).receive(packet, objects, size, number)

    def _replied(self, reply: wire.Reply) -> None:
        payload, objects = ("", _objects(reply.args)) if self._msgpack else (_text(reply.args), None)
        packet = Packet(ACK, reply.namespace, reply.id, payload, 0)
        self.connected_in(reply.namespace).acknowledged(packet, objects)

    # --- streams

    def _ask(self, ask: wire.Ask) -> None:
        if not self.work():
            return
        for socket in self._sockets.values():
            if socket.phase is Phase.CONNECTED and socket.reader is not None and ask.stream in socket.reader.spans:
                socket.reader.ask(ask.stream, Position(ask.gen, ask.seq, ask.tag))
                return
        self._say(wire.Close(ask.stream, Reason.TRUNCATED))

    # --- connect

    def _connect(self, asked: wire.Connect) -> None:
        name = asked.namespace
        if self.is_joined(name):
            raise PacketError("connect for a namespace that was joined already")
        if not self.asks() or self.is_overdone(name, len(_to_json(asked.auth))):
            return
        hello = None
        if asked.instance is not None:
            hello = Hello(VERSION, asked.instance, asked.producer, asked.session, asked.cursors, asked.attempt)
        self.connect(name, asked.auth, hello, raw(msgpack=self._msgpack, streams=hello is not None))

    @override
    def welcome(self, socket: Socket) -> Message:
        connected = wire.Connected(socket.namespace, socket.id, wire.MAX_MESSAGE)
        reader = socket.reader
        if reader is not None:
            greeting = None if socket.numbers is None else socket.numbers.greeting
            connected = wire.Connected(
                socket.namespace, socket.id, wire.MAX_MESSAGE, reader.session.secret, reader.recovered, greeting
            )
        return self._encoded(connected)

    @override
    def refusal(self, namespace: str, message: str, data: Any = None) -> Message:
        return self._encoded(wire.Refused(namespace, message, data))

    @override
    def dismissal(self, namespace: str) -> Message:
        return self._encoded(wire.Disconnect(namespace))

    def _say(self, message: wire.ServerMessage) -> None:
        self.send(self._encoded(message))

    def _encoded(self, message: wire.ServerMessage) -> Outgoing:
        return Outgoing(wire.encode(message, msgpack=self._msgpack))


_NOTHING: Final = Packet(EVENT, "", None, "", 0)


def _text(args: msgspec.Raw) -> str:
    text = bytes(args).decode().strip()
    if text[:1] != "[":
        raise PacketError("the arguments are not an array")
    return text


def _objects(args: msgspec.Raw) -> list[Any]:
    try:
        return _array(args)
    except (msgspec.MsgspecError, ValueError) as error:
        raise PacketError(f"the arguments are not an array: {error}"[:256]) from None
