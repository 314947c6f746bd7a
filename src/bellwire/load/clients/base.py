"""What all kinds of clients have in common."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeAlias
from urllib.parse import quote

from bellwire.load import wire

Content: TypeAlias = str | bytes
"""What a message carries."""
Said: TypeAlias = tuple[str | int, object]
"""An event's name, or the number of a reply, and the content that came with it."""

KINDS = ECHO, NUMBERED, RELAY = "echo", "numbered", "relay"
"""Ways to ask for a reply: an event with an acknowledgement; one with a number that is handled at most once; one with a
number whose handler emits to the client itself."""
EVENTS = {False: ("pub", "msg"), True: ("pub-bytes", "msg-bytes")}
"""What a client publishes, and what everyone gets of it; by whether it is bytes."""
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover"
"""The offer to compress. Without context takeover all receivers get the same bytes, which are counted."""


class LoadError(Exception):
    """The server did something else than it should, or stopped doing it."""


class RefusedError(LoadError):
    """The server lets nobody into the namespace; it said why, or something else than an answer."""

    def __init__(self, said: str | bytes) -> None:
        super().__init__(f"the server refused the namespace: {said[:200]!r}")


@dataclass(frozen=True)
class Manner:
    """How the clients of a measurement behave.

    ``kind`` is how they ask for replies, ``binary`` whether they publish bytes, ``auth`` what they say to be let in.
    """

    kind: str = ECHO
    binary: bool = False
    deflate: bool = False
    namespace: str = "/"
    auth: object = None


class Client(ABC):
    """One client's side of the conversation, in a room if it is named."""

    OPCODE: ClassVar[int]
    PING: ClassVar[bytes]
    PONG: ClassVar[bytes]

    def __init__(self, manner: Manner, room: str = "") -> None:
        self.manner = manner
        self.pub, self.msg = EVENTS[manner.binary]
        self.opcodes = {self.OPCODE, wire.PING} | ({wire.BINARY} if manner.binary else set())
        self.ready = False
        self._room = room

    def counter(self) -> wire.Counter:
        """Return what counts the events in its bytes, unread."""
        return wire.Counter(len(self.PING), wire.BINARY if self.manner.binary else None)

    def request(self, host: str, port: int) -> bytes:
        """The opening handshake."""
        room = f"room={quote(self._room, safe='')}" if self._room else ""
        return wire.request(host, port, self.target(room), *self.lines(), *[DEFLATE] * self.manner.deflate)

    @abstractmethod
    def target(self, query: str) -> str:
        """The path, with more for its query."""

    def lines(self) -> tuple[str, ...]:
        """More lines for the head."""
        return ()

    @abstractmethod
    def begin(self) -> bytes:
        """What it says first, once the WebSocket is open."""

    @abstractmethod
    def enter(self, payload: bytes) -> bytes:
        """Take a message on the way into the namespace, until ``ready``; return what to answer."""

    @abstractmethod
    def publish(self, content: Content) -> bytes:
        """Publish, in frames."""

    @abstractmethod
    def ask(self, number: int, text: str) -> bytes:
        """The event that asks for a reply with ``text``."""

    @abstractmethod
    def reply(self, number: int, text: str) -> bytes:
        """That reply, as the bytes that probably come."""

    @abstractmethod
    def read(self, payload: bytes) -> Said | None:
        """Take a message; None for one that says nothing here, or not everything yet."""

    def join(self, other: "Client") -> None:  # noqa: B027 - most do not count
        """What ``other`` has received of common streams this one has received as well, unread."""
