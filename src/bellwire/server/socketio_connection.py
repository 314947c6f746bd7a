"""The Socket.IO side of a session.

Socket.IO protocol v5. What a packet means depends on the socket of its namespace::

    packet            no socket              CONNECTING, ENTERING  CONNECTED
    CONNECT           admit the client       end the connection    end the connection
    EVENT, ACK        end the connection     end the connection    to the socket
    DISCONNECT        end the connection     the socket leaves     the socket leaves
    CONNECT_ERROR     end the connection     end the connection    end the connection

Of a client that negotiated streams, an event may have a number, or be a message of bellwire.v1 itself
(`bellwire.protocol.embedding`).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from typing_extensions import override

from bellwire.core.errors import ConnectRefused, PacketError
from bellwire.delivery.effects import payload_digest
from bellwire.delivery.position import Position
from bellwire.protocol.embedding import (
    KEY,
    Hello,
    Welcome,
    encode_welcome,
    is_message,
    read_request,
    take_hello,
    take_number,
)
from bellwire.protocol.outgoing import Message
from bellwire.protocol.socketio import (
    ACK,
    BINARY_ACK,
    BINARY_EVENT,
    CONNECT,
    CONNECT_ERROR,
    DISCONNECT,
    EVENT,
    Assembly,
    Packet,
    check_ack_payload,
    check_connect_payload,
    encode_connect,
    encode_connect_error,
    encode_disconnect,
    parse_packet,
)
from bellwire.protocol.wire import Skip
from bellwire.server.connection import Connection, TooLate
from bellwire.server.dialects import STOCK, embedded
from bellwire.server.inbound import Phase
from bellwire.server.numbers import Numbered
from bellwire.server.recovery import AT_CONNECT, Plea, RecoveringReader, take_plea
from bellwire.server.socket import Socket
from bellwire.transports.arrival import Arrival
from bellwire.transports.base_session import BaseSession

if TYPE_CHECKING:
    from bellwire.server.runtime import Runtime
    from bellwire.server.server import Server

MAX_HELLO: Final = 131_072
"""Characters of CONNECT that are read from a client that asks for streams: it names where it stands in each."""

_CONNECTED: Final = Phase.CONNECTED  # on CPython 3.11 a member costs 0.07 us to be found in its Enum

_to_json: Final = msgspec.json.Encoder().encode


class SocketIOConnection(Connection):
    """Takes a session's packets apart and brings each to its socket."""

    __slots__ = ("_arrival", "_assembly")

    def __init__(self, server: "Server", runtime: "Runtime", session: BaseSession) -> None:
        super().__init__(server, runtime, session)
        self._assembly: Assembly | None = None
        self._arrival: Arrival | None = None  # while there is an assembly

    @override
    def received(self, message: str | bytes) -> None:
        try:
            if not isinstance(message, str) or self._assembly is not None:
                self._attach(message)
                return
            packet = parse_packet(message, self.runtime.config.max_attachments)
            if packet.type == EVENT:
                self._event(packet, None)
            else:
                self._other(packet)
        except (PacketError, TooLate) as error:
            self.fail(error)

    @override
    def closed(self, reason: str) -> None:
        self._forget_assembly()
        super().closed(reason)

    # --- packets

    def _attach(self, message: str | bytes) -> None:
        assembly = self._assembly
        if assembly is None or isinstance(message, str):
            raise PacketError("a binary frame when none is due, or none when one is")
        if not assembly.add(message):
            return
        self._forget_assembly()
        if assembly.packet.type == BINARY_EVENT:
            self._event(assembly.packet, assembly.resolve(), assembly.attachments)
        else:
            self._acknowledged(assembly.packet, assembly.resolve())

    def _other(self, packet: Packet) -> None:
        kind = packet.type
        if kind == ACK:
            self._acknowledged(packet, None)
        elif kind == CONNECT:
            self._connect(packet)
        elif kind == DISCONNECT:
            self.remove(self.socket_in(packet.namespace), "client namespace disconnect")
        elif kind in (BINARY_EVENT, BINARY_ACK):
            if not self.is_late(packet.namespace):
                self.connected_in(packet.namespace)
            self._assemble(packet)
        elif kind == CONNECT_ERROR:
            raise PacketError("a client refuses no namespaces")

    def _assemble(self, packet: Packet) -> None:
        runtime, session = self.runtime, self.session
        self._assembly = assembly = Assembly(packet, max_bytes=runtime.config.max_message_bytes)
        self._arrival = Arrival(
            runtime.wheel,
            runtime.config.message_timeout,
            lambda: None if session.paused else sum(map(len, assembly.attachments)),
            lambda: session.close("message timeout"),
        )

    def _forget_assembly(self) -> None:
        self._assembly = None
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    def _event(self, packet: Packet, objects: list[Any] | None, attached: Sequence[bytes] = ()) -> None:
        socket = self._sockets.get(packet.namespace)
        if socket is None or socket.phase is not _CONNECTED:
            socket = self.connected_in(packet.namespace)  # it says what is wrong
        if type(socket.hello) is not Hello:
            socket.receive(packet, objects, sum(map(len, attached)) if attached else 0)
        elif is_message(packet):
            self._request(socket, packet)
        else:
            self._numbered(socket, packet, objects, attached)

    def _request(self, socket: Socket, packet: Packet) -> None:
        request = read_request(packet)
        if isinstance(request, Skip):
            socket.receive(packet, number=request)
        elif socket.reader is not None and self.work():
            socket.reader.ask(request.stream, Position(request.gen, request.seq, request.tag))

    def _numbered(self, socket: Socket, packet: Packet, objects: list[Any] | None, attached: Sequence[bytes]) -> None:
        payload, found = take_number(packet)
        if payload is not packet.payload:
            packet = msgspec.structs.replace(packet, payload=payload)
            objects = None if objects is None else objects[:-1]
        number = None
        if found is not None:
            digest = payload_digest(packet.namespace.encode(), payload.encode(errors="surrogatepass"), *attached)
            number = Numbered(found.number, digest, found.generation, resent=found.resent)
        socket.receive(packet, objects, sum(map(len, attached)), number)

    def _acknowledged(self, packet: Packet, objects: list[Any] | None) -> None:
        socket = self.connected_in(packet.namespace)
        if objects is None:
            check_ack_payload(packet.payload)
        socket.acknowledged(packet, objects)

    # --- CONNECT

    def _connect(self, packet: Packet) -> None:
        name = packet.namespace
        if self.is_joined(name):
            raise PacketError("CONNECT for a namespace that was joined already")
        if not self.asks():
            return
        size = len(packet.payload)
        if f'"{KEY}"' in packet.payload[:MAX_HELLO]:  # its cursors are not kept, and are looked at by themselves
            size -= min(size, MAX_HELLO)
        if self.is_overdone(name, size):  # before what is too large is decoded
            return
        auth = check_connect_payload(packet.payload)
        try:
            hello = self._wish(auth)
        except ConnectRefused as error:
            self.runtime.counters.add("connects_refused_total", reason="invalid_hello")
            self.refuse(name, error.message, error.message, error.data)
            return
        if type(hello) is Hello and self.is_overdone(name, len(_to_json(auth))):
            return
        dialect = STOCK if hello is None else AT_CONNECT if isinstance(hello, Plea) else embedded(name)
        self.connect(name, auth, hello, dialect)

    def _wish(self, auth: dict[str, Any] | None) -> Hello | Plea | None:
        """What the client asks for beyond Socket.IO, taken out of ``auth``."""
        hello = take_hello(auth)
        if hello is None and self.runtime.config.connection_state_recovery:
            return take_plea(auth)
        return hello

    @override
    def welcome(self, socket: Socket) -> Message:
        reader = socket.reader
        if reader is None:
            return encode_connect(socket.namespace, {"sid": socket.id})
        if isinstance(reader, RecoveringReader):
            return encode_connect(socket.namespace, {"sid": socket.id, "pid": reader.session.secret})
        greeting = None if socket.numbers is None else socket.numbers.greeting
        return encode_welcome(socket.namespace, socket.id, Welcome(reader.session.secret, reader.recovered, greeting))

    @override
    def refusal(self, namespace: str, message: str, data: Any = None) -> Message:
        return encode_connect_error(namespace, message, data)

    @override
    def dismissal(self, namespace: str) -> Message:
        return encode_disconnect(namespace)
