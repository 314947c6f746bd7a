"""What a client of each kind says and understands, for one namespace.

::

    stock        Socket.IO 5 over Engine.IO 4: what every Socket.IO server speaks
    recovering   the same, on a server with connection state recovery: an offset follows on every event
    v1           bellwire.v1.msgpack, with a session: every event of a stream names the one before it
"""

import json
import secrets
from abc import ABC, abstractmethod
from base64 import urlsafe_b64decode
from struct import Struct
from typing import Any, ClassVar, TypeAlias

import msgspec

from bench import wire

Said: TypeAlias = tuple[str | int, object]
"""An event's name, or the number of a reply, and the text that came with it."""

OPEN, PING, PONG = b"0", b"2", b"3"  # Engine.IO packets
CONNECT, CONNECT_ERROR, EVENT, ACK = b"40", b"44", b"42", b"43"  # Socket.IO packets in Engine.IO messages

KINDS = ECHO, NUMBERED, RELAY = "echo", "numbered", "relay"
"""Ways to ask for a reply: an event with an acknowledgement; one with a number that is handled at most once; one with a
number whose handler emits to the client itself."""


class LoadError(Exception):
    """The server did something else than it should, or stopped doing it."""


class Client(ABC):
    """One client's side of the conversation. ``kind`` is how it will ask for replies."""

    OPCODE: ClassVar[int]
    PING: ClassVar[bytes]
    PONG: ClassVar[bytes]

    def __init__(self, kind: str = ECHO) -> None:
        self.kind = kind
        self.ready = False

    @staticmethod
    @abstractmethod
    def request(host: str, port: int) -> bytes:
        """The opening handshake."""

    @abstractmethod
    def begin(self) -> bytes:
        """What it says first, once the WebSocket is open."""

    @abstractmethod
    def enter(self, payload: bytes) -> bytes:
        """Take a message on the way into the namespace, until ``ready``; return what to answer."""

    @abstractmethod
    def publish(self, text: str) -> bytes:
        """The event ``pub``, as a frame."""

    @abstractmethod
    def ask(self, number: int, text: str) -> bytes:
        """The event that asks for a reply with ``text``."""

    @abstractmethod
    def reply(self, number: int, text: str) -> bytes:
        """That reply, as the bytes that probably come."""

    @abstractmethod
    def read(self, payload: bytes) -> Said | None:
        """Take a message; None for one that says nothing here."""

    def join(self, other: "Client") -> None:  # noqa: B027 - most do not count
        """What ``other`` has received of common streams this one has received as well, unread."""


class Stock(Client):
    """A Socket.IO client."""

    OPCODE = wire.TEXT
    PING = PING
    PONG = wire.masked(PONG)

    @staticmethod
    def request(host: str, port: int) -> bytes:
        """Straight to the WebSocket transport."""
        return wire.request(host, port, "/socket.io/?EIO=4&transport=websocket")

    def begin(self) -> bytes:
        """Nothing: the server begins."""
        return b""

    def enter(self, payload: bytes) -> bytes:
        """Go on with the handshakes of Engine.IO and Socket.IO."""
        if payload.startswith(OPEN):
            return wire.masked(CONNECT)
        if not payload.startswith(CONNECT):
            raise LoadError(f"the server refused the namespace: {payload[:200]!r}")
        self.connected(json.loads(payload[len(CONNECT) :]))
        self.ready = True
        return b""

    def connected(self, data: dict[str, object]) -> None:
        """The data of the answer to CONNECT."""

    def publish(self, text: str) -> bytes:
        """An EVENT packet."""
        return wire.masked(EVENT + _json(["pub", text]))

    def ask(self, number: int, text: str) -> bytes:
        """An EVENT packet with an acknowledgement id."""
        return wire.masked(EVENT + str(number).encode() + _json([ECHO, text]))

    def reply(self, number: int, text: str) -> bytes:
        """An ACK packet."""
        return wire.unmasked(ACK + str(number).encode() + _json([text]))

    def read(self, payload: bytes) -> Said | None:
        """Read an EVENT or an ACK packet."""
        if payload.startswith(ACK):
            at = payload.index(b"[")
            (said,) = json.loads(payload[at:])
            return int(payload[len(ACK) : at]), said
        if not payload.startswith(EVENT):
            raise LoadError(f"not an event: {payload[:100]!r}")
        name, *arguments = json.loads(payload[len(EVENT) :])
        (said,) = self.check(arguments)
        return name, said

    def check(self, arguments: list[object]) -> list[object]:
        """Return what is the application's of an event's arguments."""
        return arguments


class Recovering(Stock):
    """One that can come back, as it would after the server's next word: its offsets have to go up."""

    _ENTRY = Struct(">8s8sQI")
    _ENTRY_LENGTH = 38

    def __init__(self, kind: str = ECHO) -> None:
        super().__init__(kind)
        self._stands: dict[bytes, int] = {}

    def connected(self, data: dict[str, object]) -> None:
        """It needs a private id to come back with."""
        if not isinstance(data.get("pid"), str):
            raise LoadError("the server has connection state recovery off: there is no pid")

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


class V1(Client):
    """A client of bellwire.v1 that has a session, and a producer's id if it will number its events."""

    OPCODE = wire.BINARY
    PING = msgspec.msgpack.encode(["ping"])
    PONG = wire.masked(msgspec.msgpack.encode(["pong"]), wire.BINARY)

    def __init__(self, kind: str = ECHO) -> None:
        super().__init__(kind)
        self._stands: dict[str, tuple[int, int]] = {}

    @staticmethod
    def request(host: str, port: int) -> bytes:
        """To its own path, with its sub-protocol."""
        return wire.request(host, port, "/bellwire", "Sec-WebSocket-Protocol: bellwire.v1.msgpack")

    def begin(self) -> bytes:
        """The first message authenticates, and asks for a session."""
        producer = None if self.kind == ECHO else secrets.token_hex(16)
        return _frame("connect", "/", None, secrets.token_hex(4), producer)

    def enter(self, payload: bytes) -> bytes:
        """Wait for ``connected``."""
        tag, *rest = _unpack(payload)
        if tag != "connected" or len(rest) < 4:
            raise LoadError(f"the server refused the namespace: {payload[:200]!r}")
        self.ready = True
        return b""

    def publish(self, text: str) -> bytes:
        """An event without a reply."""
        return _frame("e", "/", "pub", [text])

    def ask(self, number: int, text: str) -> bytes:
        """An event with an id, or with a number."""
        if self.kind == ECHO:
            return _frame("e", "/", ECHO, [text], number)
        return _frame("n", "/", number, ECHO if self.kind == NUMBERED else RELAY, [text])

    def reply(self, number: int, text: str) -> bytes:
        """The reply or the outcome."""
        tag = "r" if self.kind == ECHO else "n"
        return wire.unmasked(msgspec.msgpack.encode((tag, "/", number, [text])), wire.BINARY)

    def read(self, payload: bytes) -> Said | None:
        """Read any message; those of a stream have to follow on each other."""
        tag, *rest = _unpack(payload)
        if tag == "s":
            stream, prev_seq, prev_tag, seq, its_tag, _, name, (said,) = rest[:8]
            self._follow(stream, (prev_seq, prev_tag), (seq, its_tag))
            return name, said
        if tag == "open":
            _, stream, _, *point = rest
            self._stands[stream] = (point[0], point[1])
            return None
        if tag == "e":
            _, name, (said,) = rest[:3]
            return name, said
        if tag in ("r", "n"):
            _, number, (said,) = rest
            return number, said
        raise LoadError(f"an unexpected message: {payload[:100]!r}")

    def _follow(self, stream: str, prev: tuple[int, int], point: tuple[int, int]) -> None:
        if self._stands.get(stream) != prev:
            raise LoadError(f"an event that follows on {prev} came behind {self._stands.get(stream)}")
        self._stands[stream] = point

    def join(self, other: Client) -> None:
        """Stand where it stands."""
        if isinstance(other, V1):
            self._stands.update({stream: at for stream, at in other._stands.items() if stream in self._stands})


CLIENTS: dict[str, type[Client]] = {"stock": Stock, "recovering": Recovering, "v1": V1}


def _json(value: list[str]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _frame(*message: object) -> bytes:
    return wire.masked(msgspec.msgpack.encode(message), wire.BINARY)


def _unpack(payload: bytes) -> list[Any]:
    return msgspec.msgpack.decode(payload, type=list)
