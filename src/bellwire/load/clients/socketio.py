"""Socket.IO 5 over Engine.IO 4, straight on the WebSocket transport."""

import json
from base64 import urlsafe_b64decode
from struct import Struct

from bellwire.core.errors import PacketError
from bellwire.load import wire
from bellwire.load.clients.base import ECHO, Client, Content, LoadError, Manner, RefusedError, Said
from bellwire.protocol.socketio import read_refusal

OPEN, PING, PONG = b"0", b"2", b"3"  # Engine.IO packets
CONNECT, CONNECT_ERROR, EVENT, ACK, BINARY_EVENT = b"40", b"44", b"42", b"43", b"451-"  # Socket.IO packets in messages
PLACEHOLDER: object = {"_placeholder": True, "num": 0}


def prefix(namespace: str) -> bytes:
    """What stands behind the type of each packet of a namespace."""
    return b"" if namespace == "/" else namespace.encode() + b","


def refusal(packet: bytes, namespace: bytes) -> str | bytes:
    """What CONNECT_ERROR says; any other packet as it is. ``namespace`` is its `prefix`."""
    try:
        return read_refusal(packet.removeprefix(CONNECT_ERROR + namespace).decode())[0]
    except (PacketError, UnicodeDecodeError):
        return packet


class Stock(Client):
    """A Socket.IO client."""

    OPCODE = wire.TEXT
    PING = PING
    PONG = wire.masked(PONG)

    def __init__(self, manner: Manner, room: str = "") -> None:
        super().__init__(manner, room)
        self._namespace = prefix(manner.namespace)
        self._announced: Said | None = None  # an event whose bytes are in the next message

    def target(self, query: str) -> str:
        """Engine.IO's path."""
        return f"/socket.io/?EIO=4&transport=websocket{query and '&'}{query}"

    def begin(self) -> bytes:
        """Nothing: the server begins."""
        return b""

    def enter(self, payload: bytes) -> bytes:
        """Go on with the handshakes of Engine.IO and Socket.IO."""
        if payload.startswith(OPEN):
            auth = b"" if self.manner.auth is None else _json(self.manner.auth)
            return wire.masked(CONNECT + self._namespace + auth)
        if not payload.startswith(CONNECT):
            raise RefusedError(refusal(payload, self._namespace))
        self.connected(json.loads(payload[len(CONNECT + self._namespace) :]))
        self.ready = True
        return b""

    def connected(self, data: dict[str, object]) -> None:
        """The data of the answer to CONNECT."""

    def publish(self, content: Content) -> bytes:
        """An EVENT packet, or a BINARY_EVENT packet and its attachment."""
        if isinstance(content, bytes):
            return wire.masked(BINARY_EVENT + self._event("", self.pub, PLACEHOLDER)) + wire.masked(
                content, wire.BINARY
            )
        return wire.masked(EVENT + self._event("", self.pub, content))

    def ask(self, number: int, text: str) -> bytes:
        """An EVENT packet with an acknowledgement id."""
        return wire.masked(EVENT + self._event(number, ECHO, text))

    def reply(self, number: int, text: str) -> bytes:
        """An ACK packet."""
        return wire.unmasked(ACK + self._namespace + str(number).encode() + _json([text]))

    def _event(self, number: int | str, name: str, content: object) -> bytes:
        return self._namespace + str(number).encode() + _json([name, content])

    def read(self, payload: bytes) -> Said | None:
        """Read an EVENT or an ACK packet, or the bytes that belong to one."""
        if self._announced is not None:
            (name, _), self._announced = self._announced, None
            return name, payload
        kind, binary = payload[:2], payload.startswith(BINARY_EVENT)
        at = payload.find(b"[")
        if kind == ACK:
            (said,) = json.loads(payload[at:])
            return int(payload[len(ACK + self._namespace) : at]), said
        if kind != EVENT and not binary:
            raise LoadError(f"not an event: {payload[:100]!r}")
        name, *arguments = json.loads(payload[at:])
        said, *others = self.check(arguments)
        if others:
            raise LoadError(f"an event with more than was published: {payload[:200]!r}")
        if not binary:
            return name, said
        if said != PLACEHOLDER:
            raise LoadError(f"not an event with one attachment: {payload[:100]!r}")
        self._announced = name, said
        return None

    def check(self, arguments: list[object]) -> list[object]:
        """Return what is the application's of an event's arguments."""
        return arguments


class Recovering(Stock):
    """One that can come back, as it would after the server's next word: its offsets have to go up."""

    _ENTRY = Struct(">8s8sQI")
    _ENTRY_LENGTH = 38

    def __init__(self, manner: Manner, room: str = "") -> None:
        super().__init__(manner, room)
        self._stands: dict[bytes, int] = {}

    def connected(self, data: dict[str, object]) -> None:
        """It needs a private id to come back with."""
        if not isinstance(data.get("pid"), str):
            raise LoadError("the server has connection state recovery off: add --connection-state-recovery")

    def check(self, arguments: list[object]) -> list[object]:
        """The last argument is the offset, and further than the one before it."""
        *arguments, offset = arguments
        if not arguments or not isinstance(offset, str):
            raise LoadError(f"an event without an offset: {offset!r}")
        stream, _, seq, _ = self._ENTRY.unpack(urlsafe_b64decode(offset[: self._ENTRY_LENGTH] + "=="))
        if seq <= self._stands.get(stream, 0):
            raise LoadError(f"event {seq} came behind event {self._stands[stream]}")
        self._stands[stream] = seq
        return arguments


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
