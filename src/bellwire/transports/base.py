"""What a transport is to the rest of the house, and what the house is to a transport.

A *carrier* is one way to a client: a WebSocket, or the pair of requests of long-polling. A *link* is what a carrier
brings its messages to: a session. A *receiver* is what takes a session's messages. Transports know these and nothing of
the server above them.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeAlias, runtime_checkable
from urllib.parse import parse_qsl

from bellwire.protocol.outgoing import Message

if TYPE_CHECKING:
    from bellwire.transports.raw import RawSession
    from bellwire.transports.session import Session

Scope: TypeAlias = MutableMapping[str, Any]
ASGIMessage: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[ASGIMessage]]
Send: TypeAlias = Callable[[ASGIMessage], Awaitable[None]]

CLOSE_TIMEOUT = 5.0
"""Seconds for a client to read what was sent and to answer a close frame; then it is cut off (RFC 6455 §7.1.1)."""

MAX_PARAMETERS = 64
"""Parameters of a query that are read."""


class Request:
    """The HTTP request that opened a session.

    The head is kept as the bytes that came and read on demand: a session lives for hours and is asked about its
    headers once, if ever. Until it begins what was read is kept too, as each check reads it again (`put_away`).
    """

    __slots__ = ("_begins", "_headers", "_query", "client", "head", "path", "query_string", "scheme")

    def __init__(
        self,
        *,
        path: str,
        query_string: bytes = b"",
        head: bytes = b"",
        headers: Mapping[str, str] | None = None,
        client: tuple[str, int] | None = None,
        scheme: str = "http",
    ) -> None:
        self.path = path
        self.query_string = query_string
        self.head = head
        self.client = client
        self.scheme = scheme
        self._begins = True
        self._headers = headers
        self._query: Mapping[str, str] | None = None

    @classmethod
    def from_scope(cls, scope: Scope) -> "Request":
        """The request of an ASGI scope of the type ``http`` or ``websocket``."""
        client = scope.get("client")
        return cls(
            path=scope["path"],
            query_string=scope.get("query_string", b""),
            head=join_headers(scope["headers"]),
            client=(client[0], client[1]) if client else None,
            scheme="https" if scope.get("scheme") in ("https", "wss") else "http",
        )

    @property
    def address(self) -> str | None:
        """The client's address without its port, None if it is not known."""
        return None if self.client is None else self.client[0]

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers by lower-case name; those that came several times are joined by a comma (RFC 9110 §5.2)."""
        headers = self._headers
        if headers is None:
            headers = parse_headers(self.head)
            if self._begins:
                self._headers = headers
        return headers

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of the query; of those that came several times, the last."""
        query = self._query
        if query is None:
            query = parse_query(self.query_string)
            if self._begins:
                self._query = query
        return query

    def put_away(self) -> None:
        """Let go of what was read, and keep the bytes: its session has begun."""
        self._begins = False
        self._headers = self._query = None

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies that came with the request; none where the header cannot be read (RFC 6265 §4.2)."""
        try:
            jar = SimpleCookie(self.headers.get("cookie", ""))
        except CookieError:
            return {}
        return {name: morsel.value for name, morsel in jar.items()}

    def __repr__(self) -> str:
        return f"Request({self.path!r}, client={self.client!r})"


def join_headers(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Header pairs as the lines of a request's head."""
    return b"\r\n".join(b"%b: %b" % pair for pair in headers)


def parse_headers(head: bytes) -> dict[str, str]:
    """The lines of a request's head as a dictionary."""
    found: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n"):
        name, separator, value = line.partition(":")
        if separator:
            name, value = name.strip().lower(), value.strip()
            found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def parse_query(query_string: bytes) -> dict[str, str]:
    """A query string as a dictionary. More than 64 parameters are no Socket.IO client's: it is then empty."""
    text = query_string.decode("latin-1")
    if text.count("&") >= MAX_PARAMETERS:
        return {}
    if "%" in text or "+" in text:
        return dict(parse_qsl(text, keep_blank_values=True))
    pairs = [pair.partition("=") for pair in text.split("&") if pair]  # the same, in a third of the time
    return {name: value for name, _, value in pairs}


class Sink(ABC):
    """Something that messages to one client are given to. They leave in the order in which they were given."""

    __slots__ = ()

    @abstractmethod
    def send(self, message: Message) -> None:
        """Take a message; it is written when the tick of the event loop ends, together with all others."""

    outlet: int = -1
    """The descriptor that the frames of a message may be written to at once; -1 if it has to be sent.

    It is good for as long as nothing else is done. `unwritten` is called for what the kernel did not take.
    """

    def unwritten(self, data: memoryview) -> None:
        """The kernel took none of ``data``, which was to be written to the descriptor."""
        raise NotImplementedError(f"{type(self).__name__} has no outlet, but {len(data)} bytes were written to it")

    @property
    @abstractmethod
    def buffered(self) -> int:
        """Bytes that were taken and that the kernel, or the client's next request, has not taken yet."""

    @property
    @abstractmethod
    def writable(self) -> bool:
        """Whether the client keeps up: not from ``Config.volatile_buffer_bytes`` on until most of it is read."""


class Carrier(Sink):
    """One way to one client, that can be read from and that ends."""

    __slots__ = ()

    name: ClassVar[str]
    """How Engine.IO calls this transport: ``polling`` or ``websocket``."""

    @abstractmethod
    def flush(self) -> None:
        """Write what was taken. Called by the tick, once however much was sent in it, unless `due` gave it out."""

    def due(self) -> tuple[int, bytes] | None:
        """Give out what was taken, and the descriptor to write it to at once; None where it has to be flushed.

        The rest is as for `outlet`.
        """
        return None

    @abstractmethod
    def close(self, code: int = 1000) -> None:
        """Write what was taken, then end. ``code`` is the close code of a WebSocket (RFC 6455 §7.4)."""

    @abstractmethod
    def abort(self) -> None:
        """End at once; what was not written is lost."""

    @abstractmethod
    def set_reading(self, reading: bool) -> None:
        """Stop taking bytes from the client, or go on: the client then feels TCP's own backpressure."""

    @property
    def congested(self) -> bool:
        """Whether its link is told that the client does not keep up, and was not yet told that it does again."""
        return False


class Link(Protocol):
    """What a carrier's messages go to: a session, or whatever else speaks on a path of its own."""

    alive: bool
    """Whether a byte came from the client since the last ping."""
    overflowed: bool
    """Whether more was sent than the client may leave unread; it is about to end."""

    def received(self, carrier: Carrier, packet: str | bytes) -> None:
        """A message arrived. It must not raise for anything that a client sends."""

    def congested(self, carrier: Carrier) -> None:
        """The client does not keep up: ``carrier`` has stopped being writable. Never told from inside ``send``."""

    def drained(self, carrier: Carrier) -> None:
        """The client has read most of what was waiting. Told once after each ``congested``."""

    def lost(self, carrier: Carrier, reason: str) -> None:
        """The connection ended by itself: ``transport close`` or ``transport error``."""

    def close(self, reason: str, *, code: int = 1000, abort: bool = False) -> None:
        """End it: the server stops, or the client does not read."""


class Receiver(Protocol):
    """What takes the messages of one session."""

    __slots__ = ()

    def received(self, message: str | bytes) -> None:
        """One message. It must not raise for anything that a client sends.

        Of Engine.IO without its type digit; of bellwire.v1 always of the sub-protocol's kind: str or bytes.
        """

    def moved(self, carrier: Carrier) -> None:
        """The session was upgraded: from now on it is ``carrier`` that reaches the client."""

    def congested(self) -> None:
        """The client does not keep up: the session has stopped being writable.

        Told in the tick of the event loop in which it happened, or the next one, and never from inside ``send``; the
        client may have read on by then. ``drained`` follows, unless the session ends.
        """
        return  # to have something to do with it is not a receiver's duty

    def drained(self) -> None:
        """After ``congested``: the client has read most of what was waiting for it."""
        return

    def settle(self) -> None:
        """Send what was broadcast before: the session is about to end, or to change its carrier."""

    def closed(self, reason: str) -> None:
        """The session ended. Called once; nothing is received after it."""


class _NoLink:
    """The link of a carrier that is over."""

    alive = overflowed = True

    def received(self, carrier: Carrier, packet: str | bytes) -> None:
        return

    def congested(self, carrier: Carrier) -> None:
        return

    def drained(self, carrier: Carrier) -> None:
        return

    def lost(self, carrier: Carrier, reason: str) -> None:
        return

    def close(self, reason: str, *, code: int = 1000, abort: bool = False) -> None:
        return


class _NoReceiver(Receiver):
    """The receiver of a session that is over."""

    __slots__ = ()

    def received(self, message: str | bytes) -> None:
        return

    def moved(self, carrier: Carrier) -> None:
        return

    def settle(self) -> None:
        return

    def closed(self, reason: str) -> None:
        return


NO_LINK: Final[Link] = _NoLink()
NO_RECEIVER: Final[Receiver] = _NoReceiver()
"""What is over points to these, and no longer to what points to it: so all of it is freed at once. A circle would be
left to the garbage collector, which stops everybody for as long as it looks through all that there is."""


class Application(Protocol):
    """What makes a receiver for each new session."""

    def opened(self, session: "Session") -> Receiver:
        """A handshake was accepted; the session is ready to send."""
        ...


@runtime_checkable
class RawApplication(Application, Protocol):
    """An application that speaks bellwire.v1 too, without Engine.IO."""

    def opened_raw(self, session: "RawSession") -> Receiver:
        """A WebSocket of bellwire.v1 was accepted; the session is ready to send."""
        ...
