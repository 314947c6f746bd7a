"""The Socket.IO side of a session: one connection, a socket for each of its namespaces.

Socket.IO protocol v5. What a packet means depends on the socket of its namespace::

    packet            no socket              CONNECTING, ENTERING  CONNECTED
    CONNECT           admit the client       end the connection    end the connection
    EVENT, ACK        end the connection     end the connection    to the socket
    DISCONNECT        end the connection     the socket leaves     the socket leaves
    CONNECT_ERROR     end the connection     end the connection    end the connection

Where the server itself took the client out of the namespace, packets that were on their way are dropped and counted:
a client cannot know better, and its other namespaces are not to suffer for it.

A connection whose client joins no namespace within ``connect_timeout`` is ended as well.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from typing_extensions import override

from bellwire.core.clock import Timer
from bellwire.core.errors import BrokerUnavailable, ConnectRefused, EventRefused, PacketError
from bellwire.delivery.effects import payload_digest
from bellwire.delivery.position import Position
from bellwire.guard.auth import Identity
from bellwire.protocol.embedding import (
    Hello,
    Welcome,
    encode_welcome,
    is_message,
    read_request,
    take_hello,
    take_number,
)
from bellwire.protocol.outgoing import Outgoing
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
from bellwire.protocol.wire import CloseCode, Skip
from bellwire.server.admission import admit
from bellwire.server.dialects import STOCK, embedded
from bellwire.server.dispatch import Job, Outcome
from bellwire.server.held import Held
from bellwire.server.namespace import Namespace
from bellwire.server.numbers import Numbered
from bellwire.server.recovery import AT_CONNECT, Plea, RecoveringReader, take_plea
from bellwire.server.socket import Phase, Socket, described
from bellwire.transports.base import Carrier, Receiver
from bellwire.transports.session import Session

if TYPE_CHECKING:
    from bellwire.server.runtime import Runtime
    from bellwire.server.server import Server

logger = logging.getLogger("bellwire.server")

MAX_AUTH = 16_384
"""Characters of what a client sends with CONNECT; it is kept for as long as the client is connected."""

MAX_NAMESPACES = 128
"""Namespaces that one connection can be in; a pattern would otherwise let a client have as many as it likes."""


TRY_AGAIN_LATER = 1013
"""The close code for a server that cannot do its work for a while (of the registry that RFC 6455 §11.7 began)."""

_INTERNAL = ConnectRefused("internal error", {"code": "internal"})


class _TooLate(Exception):  # noqa: N818 - no error: it was on its way when the server disconnected the client
    """A packet for a namespace that the server took the client out of."""


class Connection(Receiver):
    """Takes a session's messages apart and brings each to its socket."""

    __slots__ = ("_assembly", "_delayed", "_expelled", "_server", "_sockets", "_timer", "runtime", "session", "vouched")

    def __init__(self, server: "Server", runtime: "Runtime", session: Session) -> None:
        self.runtime = runtime
        self.session = session
        self.vouched: Identity | None = None
        """Who it is, where that is known without asking: a test's client."""
        self._server = server
        self._sockets: dict[str, Socket] = {}
        self._assembly: Assembly | None = None
        self._delayed = 0
        self._expelled: set[str] | None = None
        self._timer: Timer | None = runtime.wheel.after(runtime.config.connect_timeout, self._nobody_came)

    # --- as the session's receiver

    @override
    def received(self, message: str | bytes) -> None:
        try:
            if isinstance(message, str) and self._assembly is None:
                packet = parse_packet(message, max_attachments=self.runtime.config.max_attachments)
                if packet.type == EVENT:
                    self._event(packet, None)
                else:
                    self._other(packet)
            else:
                self._attach(message)
        except _TooLate:
            self.runtime.counters.dropped("packet", reason="disconnected", policy="at_most_once")
        except PacketError as error:
            self.fail(error)

    @override
    def moved(self, carrier: Carrier) -> None:
        for socket in self._sockets.values():
            if socket.phase is Phase.CONNECTED:
                socket.sink = carrier

    @override
    def closed(self, reason: str) -> None:
        self._somebody_came()
        self._assembly = None
        self._server.departed(self)
        for socket in list(self._sockets.values()):
            self.remove(socket, reason)

    # --- packets

    def _attach(self, message: str | bytes) -> None:
        assembly = self._assembly
        if assembly is None or isinstance(message, str):
            raise PacketError("a binary frame when none is due, or none when one is")
        if not assembly.add(message):
            return
        self._assembly = None
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
            self.remove(self._socket(packet), "client namespace disconnect")
        elif kind in (BINARY_EVENT, BINARY_ACK):
            if not self._late(packet):
                self._connected(packet)
            self._assembly = Assembly(packet, max_bytes=self.runtime.config.max_message_bytes)
        elif kind == CONNECT_ERROR:
            raise PacketError("a client refuses no namespaces")

    def _event(self, packet: Packet, objects: list[Any] | None, attached: Sequence[bytes] = ()) -> None:
        socket = self._connected(packet)
        if type(socket.hello) is not Hello:
            socket.receive(packet, objects, sum(map(len, attached)))
        elif is_message(packet):
            self._request(socket, packet)
        else:
            self._numbered(socket, packet, objects, attached)

    def _request(self, socket: Socket, packet: Packet) -> None:
        request = read_request(packet)
        if isinstance(request, Skip):
            socket.receive(packet, number=request)
        elif socket.reader is not None:
            socket.reader.ask(request.stream, Position(request.gen, request.seq, request.tag))

    def _numbered(self, socket: Socket, packet: Packet, objects: list[Any] | None, attached: Sequence[bytes]) -> None:
        payload, found = take_number(packet)
        if payload is not packet.payload:
            packet = msgspec.structs.replace(packet, payload=payload)
            objects = None if objects is None else objects[:-1]
        number = None
        if found is not None:
            digest = payload_digest(payload.encode(errors="surrogatepass"), *attached)
            number = Numbered(found.number, digest, found.generation, resent=found.resent)
        socket.receive(packet, objects, sum(map(len, attached)), number)

    def _acknowledged(self, packet: Packet, objects: list[Any] | None) -> None:
        socket = self._connected(packet)
        if objects is None:
            check_ack_payload(packet.payload)
        socket.acknowledged(packet, objects)

    def _socket(self, packet: Packet) -> Socket:
        socket = self._sockets.get(packet.namespace)
        if socket is None:
            if self._late(packet):
                raise _TooLate
            raise PacketError("a packet for a namespace that was not joined")
        return socket

    def _late(self, packet: Packet) -> bool:
        """Whether the server took the client out of the packet's namespace."""
        return self._expelled is not None and packet.namespace in self._expelled

    def _connected(self, packet: Packet) -> Socket:
        socket = self._socket(packet)
        if socket.phase is not Phase.CONNECTED:
            raise PacketError("a packet before the answer to CONNECT")
        return socket

    # --- CONNECT

    def _connect(self, packet: Packet) -> None:
        name = packet.namespace
        if name in self._sockets:
            raise PacketError("CONNECT for a namespace that was joined already")
        overdone = self._overdone(packet)
        if overdone is not None:  # before what is too large is decoded
            self.runtime.counters.add("connects_refused_total", reason="too_much")
            self._refuse_connect(name, overdone, overdone)
            return
        auth = check_connect_payload(packet.payload)
        try:
            hello = self._wish(auth)
        except ConnectRefused as error:
            self.runtime.counters.add("connects_refused_total", reason="invalid_hello")
            self._send(encode_connect_error(name, error.message, error.data))
            return
        found = self._server.find(name)
        if found is None or len(self._sockets) >= MAX_NAMESPACES:
            self.runtime.counters.add("connects_refused_total", reason="invalid_namespace")
            why = "no namespace has this name" if found is None else f"the client is in {MAX_NAMESPACES} already"
            self._refuse_connect(name, "Invalid namespace", why)
            return
        if self._expelled is not None:
            self._expelled.discard(name)
        namespace, params = found
        held = Held(self.runtime.engine, self.session)
        dialect = STOCK if hello is None else AT_CONNECT if isinstance(hello, Plea) else embedded(name)
        hub = namespace.hub(name)
        socket = Socket(self, namespace, hub, sink=held, dialect=dialect, auth=auth, params=params, hello=hello)
        self._sockets[name] = socket
        socket.hold()

        def finished(outcome: Outcome) -> None:
            self._admitted(socket, outcome)

        outcome = self.runtime.dispatcher.start(self._admission(socket, namespace), finished)
        if outcome is not None:
            finished(outcome)

    def _wish(self, auth: dict[str, Any] | None) -> Hello | Plea | None:
        """What the client asks for beyond Socket.IO, taken out of ``auth``."""
        hello = take_hello(auth)
        if hello is None and self.runtime.config.connection_state_recovery:
            return take_plea(auth)
        return hello

    def _admission(self, socket: Socket, namespace: Namespace) -> Job:
        if self.vouched is None:
            return admit(socket, namespace, self._server.authenticator)
        socket.identify(self.vouched)
        return admit(socket, namespace, None)

    def _admitted(self, socket: Socket, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._turn_away(socket, outcome.error)
        elif socket.phase is Phase.ENTERING:
            self._welcome(socket)
        socket.go_on()

    def _welcome(self, socket: Socket) -> None:
        self._somebody_came()
        self._send(self._greeting(socket))
        held, socket.sink = socket.sink, self.session.carrier
        if isinstance(held, Held):
            held.release(socket.sink)
        socket.phase = Phase.CONNECTED
        if socket.reader is not None:
            socket.reader.begin()

    def _greeting(self, socket: Socket) -> Outgoing:
        reader = socket.reader
        if reader is None:
            return encode_connect(socket.namespace, {"sid": socket.id})
        if isinstance(reader, RecoveringReader):
            return encode_connect(socket.namespace, {"sid": socket.id, "pid": reader.session.secret})
        welcome = Welcome(
            reader.session.secret, reader.recovered, None if socket.numbers is None else socket.numbers.greeting
        )
        return encode_welcome(socket.namespace, socket.id, welcome)

    def _turn_away(self, socket: Socket, error: BaseException) -> None:
        if isinstance(error, EventRefused):  # what join() raises, for example
            logger.debug("refused to connect %r: %s", socket, described(error))
            data = {key: value for key, value in error.as_reply()["error"].items() if key != "message"}
            error = ConnectRefused(str(error.message), data)
        elif isinstance(error, ConnectRefused):
            logger.debug("refused to connect %r: ConnectRefused", socket)
        elif isinstance(error, BrokerUnavailable):  # a refusal would be for good: the client is to come back
            logger.warning("%r could not be connected: %s", socket, error)
            self.session.close("broker unavailable", code=TRY_AGAIN_LATER)
            return
        else:
            if not self.runtime.dispatcher.ended(error):
                self._server.log_failure("connecting", socket, error)
            error = _INTERNAL
        socket.miss_farewell()
        if socket.phase is not Phase.DISCONNECTED:
            self._refuse(socket, error)

    def _refuse(self, socket: Socket, error: ConnectRefused) -> None:
        self.runtime.counters.add("connects_refused_total", reason="refused")
        try:
            message = encode_connect_error(socket.namespace, error.message, error.data)
        except Exception as fault:  # the application gave it data that is no JSON
            self._server.log_failure("refusing", socket, fault)
            message = encode_connect_error(socket.namespace, _INTERNAL.message, _INTERNAL.data)
        self._send(message)
        self._forget(socket, "refused")

    def _nobody_came(self) -> None:
        self._timer = None
        self.session.close("connect timeout")

    def _somebody_came(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- the end

    def remove(self, socket: Socket, reason: str) -> None:
        """``socket`` leaves its namespace."""
        bids = socket.phase is not Phase.CONNECTING
        self._forget(socket, reason)
        if bids:
            socket.bid_farewell(reason)

    def expel(self, socket: Socket) -> None:
        """The server takes ``socket`` out of its namespace, and says so. One that has left is left alone."""
        if socket.phase is Phase.DISCONNECTED:
            return
        if socket.phase is Phase.CONNECTING:
            self._refuse(socket, ConnectRefused("disconnected"))
            return
        if socket.phase is Phase.ENTERING:
            self._welcome(socket)
        self._send(encode_disconnect(socket.namespace))
        self._remember(socket.namespace)
        self.remove(socket, "server namespace disconnect")

    def _remember(self, name: str) -> None:
        if self._expelled is None:
            self._expelled = set()
        elif len(self._expelled) >= MAX_NAMESPACES:
            self._expelled.pop()
        self._expelled.add(name)

    def replaced(self, socket: Socket) -> None:
        """Another connection took the session of ``socket`` up: nobody reads on this one any more."""
        self.session.close("session replaced", code=CloseCode.REPLACED)

    def close(self) -> None:
        """Take the client out of all its namespaces, so that it does not come back, and end the connection."""
        for socket in list(self._sockets.values()):
            self.expel(socket)
        self.session.close("forced server close")

    def _forget(self, socket: Socket, reason: str) -> None:
        self._sockets.pop(socket.namespace, None)
        if isinstance(socket.sink, Held):
            socket.sink.drop(reason="disconnected")
        socket.depart(self.runtime.nowhere, reason)

    def fail(self, error: PacketError) -> None:
        """The client broke the protocol: its connection ends."""
        logger.debug("a client is disconnected, parse error: %s", str(error)[:200])
        self.session.close("parse error")

    def _refuse_connect(self, name: str, message: str, why: str) -> None:
        logger.debug("refused CONNECT to %r: %s", name[:64], why)
        self._send(encode_connect_error(name, message))

    def _overdone(self, packet: Packet) -> str | None:
        """What is too much about a CONNECT: what it sends is kept, and its handlers may have to wait."""
        if len(packet.payload) > MAX_AUTH:
            return f"auth is larger than {MAX_AUTH} characters"
        if self._delayed >= self.runtime.config.inbound_queue_events:
            return "too many events wait"
        return None

    def delay(self, n: int) -> None:
        """``n`` events more, or less, wait for their turn; sockets that left and are not done yet count as well.

        An event counts once, and once more for each KiB of it. From ``Config.inbound_queue_events`` on nothing is read
        from the client, until half of them have been handled.
        """
        self._delayed += n
        limit = self.runtime.config.inbound_queue_events
        session = self.session
        if session.paused:
            if self._delayed <= limit // 2 and not session.closed:
                session.alive = True  # nobody listened to it: the next check of its heartbeat would find it silent
                session.pause(False)
        elif self._delayed >= limit and not session.closed:
            session.pause(True)

    def _send(self, message: Outgoing) -> None:
        self.runtime.fanout.settle()
        self.session.send(message)
