"""One connection to a server, from the client's side, whatever is spoken on it; sans-I/O.

`SocketIOLink` and `RawLink` are the two ways of a link. Both turn what arrives into the actions below, so that nothing
above them knows which wire it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from bellwire.client.codec import Codec
from bellwire.client.parcel import Answer, Parcel
from bellwire.core.errors import PacketError
from bellwire.delivery.entry import FIXED_BYTES, Entry
from bellwire.delivery.position import Point
from bellwire.protocol.embedding import Hello
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.wire import Advance, After, Close, Drain, Greeting, Nack, Open, Proved, Reset, Skipped

OPEN_SECONDS: Final = 20.0
"""For the connection and the handshakes below the namespace's, as socket.io-client's ``timeout``."""
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


class Welcome(NamedTuple):
    """What a server says to a client that has joined.

    ``id`` is the socket's; ``session`` the secret to resume with, None if nothing can be resumed; ``greeting`` what the
    server knows of the producer, None if events are at most once; ``limit`` the bytes of the longest message that the
    server takes, 0 if it does not say.
    """

    id: str
    session: str | None = None
    resumed: bool = False
    greeting: Greeting | None = None
    limit: int = 0


class Writer(Protocol):
    """A connection, as far as this file knows it."""

    @property
    def writable(self) -> bool:
        """Whether the server keeps up."""
        ...

    def send(self, message: Outgoing) -> None:
        """Write, whether it keeps up or not."""

    def abort(self, reason: str) -> None:
        """Be rid of the connection."""


class Arrived(Entry, frozen=True, gc=False):
    """An entry of a stream as it arrived; its contents are the ``parcel``."""

    parcel: Parcel


def arrived(seq: int, tag: int, prev: Point, mid: str, parcel: Parcel) -> Arrived:
    """Return what arrived with the number ``seq``, behind ``prev``."""
    size = FIXED_BYTES + len(mid) + parcel.size
    return Arrived(seq, tag, prev, mid, b"", (), (), 0.0, Point(seq, tag), size, parcel)


# --- actions


class Send(NamedTuple):
    """Write this."""

    message: Outgoing


class Joined(NamedTuple):
    """The server accepted the client in its namespace."""

    welcome: Welcome


class Refused(NamedTuple):
    """The server refused it; close the connection."""

    message: str
    data: Any


class Ended(NamedTuple):
    """The connection is over; close it.

    ``reason`` is socket.io-client's word for it; ``final`` says that the server does not want this client back.
    """

    reason: str
    final: bool = False


class Received(NamedTuple):
    """An event in no stream; ``ack`` asks for an acknowledgement, ``after`` puts it behind a stream's event."""

    parcel: Parcel
    ack: int | None
    after: After | None = None


class Placed(NamedTuple):
    """An event of the stream ``alias``, right behind ``prev``; ``gen`` is None if it is that of ``prev``."""

    alias: int
    gen: str | None
    prev: Point
    entry: Arrived


class Answered(NamedTuple):
    """The acknowledgement of an event of this client's."""

    ack: int
    answer: Answer


class Settled(NamedTuple):
    """The outcome of an event of this client's producer."""

    number: int
    answer: Answer


Control: TypeAlias = Open | Close | Advance | Proved | Reset | Nack | Skipped | Drain
"""What the server says besides, as it is."""

News: TypeAlias = Received | Placed | Answered | Settled | Control
"""What a link is for: everything that is not about the connection itself."""

Action: TypeAlias = Send | Joined | Refused | Ended | News


class Link(ABC):
    """The state of one connection; ``now`` is the time on any clock that only goes forward, in seconds.

    ``deadline`` is when to call `tick`; it moves into the future while the link is alive. ``hello`` is asked, when the
    client is about to join, for what it says of itself. ``codec`` writes what is sent on this connection.
    """

    __slots__ = ("auth", "codec", "deadline", "hello", "namespace", "phase")

    def __init__(
        self, codec: Codec, auth: Mapping[str, Any] | None, hello: Callable[[], Hello | None], now: float
    ) -> None:
        self.phase = Phase.OPENING
        self.deadline = now + OPEN_SECONDS
        self.codec = codec
        self.namespace = codec.namespace
        self.auth = auth
        self.hello = hello

    def opened(self, now: float) -> Action | None:
        """Take note that messages can be sent."""
        return None

    @abstractmethod
    def heard(self, now: float) -> None:
        """Take note that something came from the server."""

    @abstractmethod
    def tick(self, now: float) -> Action | None:
        """Say what silence means by now."""

    def receive(self, message: str | bytes, now: float) -> Action | None:
        """Take one message of the WebSocket; return what is to be done.

        Raises PacketError if the server broke the protocol; the link is over then.
        """
        try:
            return self._receive(message, now)
        except PacketError:
            self.phase = Phase.OVER
            raise

    @abstractmethod
    def _receive(self, message: str | bytes, now: float) -> Action | None: ...

    @abstractmethod
    def closed(self, code: int | None) -> Ended:
        """Say what the end of the connection means; ``code`` is that of the server's close frame, if there was one."""
