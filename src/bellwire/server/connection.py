"""The Socket.IO side of a session: one connection, a socket for each of its namespaces.

Socket.IO protocol v5. What a packet means depends on the socket of its namespace::

    packet            no socket              CONNECTING            CONNECTED
    CONNECT           admit the client       end the connection    end the connection
    EVENT, ACK        end the connection     end the connection    to the socket
    DISCONNECT        end the connection     the socket leaves     the socket leaves
    CONNECT_ERROR     end the connection     end the connection    end the connection

A connection whose client joins no namespace within ``connect_timeout`` is ended as well.
"""

from typing import TYPE_CHECKING, Any

from typing_extensions import override

from bellwire.core.clock import Timer
from bellwire.core.errors import ConnectRefused, PacketError
from bellwire.guard.auth import Identity
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
    parse_packet,
)
from bellwire.server.admission import admit
from bellwire.server.dispatch import Job, Outcome
from bellwire.server.held import Held
from bellwire.server.namespace import Namespace
from bellwire.server.socket import Phase, Socket
from bellwire.transports.base import Carrier, Receiver
from bellwire.transports.session import Session

if TYPE_CHECKING:
    from bellwire.server.runtime import Runtime
    from bellwire.server.server import Server

MAX_NAMESPACES = 128
"""Namespaces that one connection can be in; a pattern would otherwise let a client have as many as it likes."""


class Connection(Receiver):
    """Takes a session's messages apart and brings each to its socket."""

    __slots__ = ("_assembly", "_server", "_sockets", "_timer", "runtime", "session", "vouched")

    def __init__(self, server: "Server", runtime: "Runtime", session: Session) -> None:
        self.runtime = runtime
        self.session = session
        self.vouched: Identity | None = None
        """Who it is, where that is known without asking: a test's client."""
        self._server = server
        self._sockets: dict[str, Socket] = {}
        self._assembly: Assembly | None = None
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
        except PacketError:
            self.fail()

    @override
    def moved(self, carrier: Carrier) -> None:
        self.runtime.fanout.settle()
        for socket in self._sockets.values():
            if socket.phase is Phase.CONNECTED:
                socket.carrier = carrier

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
            self._event(assembly.packet, assembly.resolve())
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
            self._connected(packet)
            self._assembly = Assembly(packet, max_bytes=self.runtime.config.max_message_bytes)
        elif kind == CONNECT_ERROR:
            raise PacketError("a client refuses no namespaces")

    def _event(self, packet: Packet, objects: list[Any] | None) -> None:
        self._connected(packet).receive(packet, objects)

    def _acknowledged(self, packet: Packet, objects: list[Any] | None) -> None:
        socket = self._connected(packet)
        if objects is None:
            check_ack_payload(packet.payload)
        socket.acknowledged(packet, objects)

    def _socket(self, packet: Packet) -> Socket:
        socket = self._sockets.get(packet.namespace)
        if socket is None:
            raise PacketError("a packet for a namespace that was not joined")
        return socket

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
        auth = check_connect_payload(packet.payload)
        found = self._server.find(name)
        if found is None or len(self._sockets) >= MAX_NAMESPACES:
            self.runtime.counters.add("connects_refused_total", reason="invalid_namespace")
            self._send(encode_connect_error(name, "Invalid namespace"))
            return
        namespace, params = found
        held = Held(self.runtime.engine, self.session)
        socket = Socket(self, namespace, namespace.hub(name), carrier=held, auth=auth, params=params)
        self._sockets[name] = socket
        socket.hold()

        def finished(outcome: Outcome) -> None:
            self._admitted(socket, held, outcome)

        outcome = self.runtime.dispatcher.start(self._admission(socket, namespace), finished)
        if outcome is not None:
            finished(outcome)

    def _admission(self, socket: Socket, namespace: Namespace) -> Job:
        if self.vouched is None:
            return admit(socket, namespace, self._server.authenticator)
        socket.identify(self.vouched)
        return admit(socket, namespace, None)

    def _admitted(self, socket: Socket, held: Held, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._turn_away(socket, outcome.error)
        elif socket.phase is Phase.DISCONNECTED:
            socket.bid_farewell("transport close")
        else:
            self._somebody_came()
            self._send(encode_connect(socket.namespace, {"sid": socket.id}))
            self.runtime.fanout.settle()
            held.release(self.session.carrier)
            socket.carrier = self.session.carrier
            socket.phase = Phase.CONNECTED
        socket.go_on()

    def _turn_away(self, socket: Socket, error: BaseException) -> None:
        if not isinstance(error, ConnectRefused):
            self._server.log_failure("connecting", socket, error)
            error = ConnectRefused("internal error", {"code": "internal"})
        self.runtime.counters.add("connects_refused_total", reason="refused")
        if socket.phase is Phase.DISCONNECTED:
            return
        self._send(encode_connect_error(socket.namespace, error.message, error.data))
        self._forget(socket, "refused")

    def _nobody_came(self) -> None:
        self._timer = None
        self.runtime.counters.add("sessions_closed_total", reason="connect_timeout")
        self.session.close("forced server close")

    def _somebody_came(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- the end

    def remove(self, socket: Socket, reason: str) -> None:
        """``socket`` leaves its namespace."""
        welcomed = socket.phase is Phase.CONNECTED
        self._forget(socket, reason)
        if welcomed:
            socket.bid_farewell(reason)

    def _forget(self, socket: Socket, reason: str) -> None:
        self._sockets.pop(socket.namespace, None)
        socket.depart(self.runtime.nowhere, reason)

    def fail(self) -> None:
        """The client broke the protocol: its connection ends."""
        self.runtime.counters.add("sessions_closed_total", reason="parse_error")
        self.session.close("parse error")

    def pause(self, paused: bool) -> None:
        """Stop reading from the client until its events have been handled, or go on."""
        self.session.pause(paused)

    def _send(self, message: Outgoing) -> None:
        self.runtime.fanout.settle()
        self.session.send(message)
