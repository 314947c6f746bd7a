"""Every error Bellwire raises on purpose: one tree, each class with a stable ``code``.

::

    BellwireError                  "error"
     ├── ConfigError               "config"
     ├── ConnectRefused            "connect_refused"
     │    ├── TooManyConnections   "too_many_connections"
     │    └── TokenRefused         "token_invalid", or what else is wrong with the token
     ├── AuthUnavailable           "auth_unavailable"
     ├── EventRefused              the refusal's own code, e.g. "invalid_payload"
     │    ├── RoomLimit            "room_limit"
     │    └── RateLimited          "rate_limited"
     ├── CallTimeout               "timeout"               (also a TimeoutError)
     ├── Disconnected              "disconnected"
     ├── TooManyAttachments        "too_many_attachments"
     ├── CallLimit                 "call_limit"
     ├── MessageTooLarge           "message_too_large"
     ├── MessagesLost              "messages_lost"         in the client floor
     ├── OutboxInUse               "outbox_in_use"         in the client floor
     ├── BrokerUnavailable         "broker_unavailable"
     ├── OutcomeUnknown            "outcome_unknown"
     ├── NodesUnreachable          "nodes_unreachable"
     └── ProtocolError             "protocol_error"        a peer broke the wire
          ├── WebSocketError       "websocket_error"       carries the close code of RFC 6455
          ├── PacketError          "packet_error"          Engine.IO v4, Socket.IO v5
          ├── RequestError         "request_error"         in the protocol floor
          ├── HandshakeError       "handshake_error"       in the protocol floor
          └── ResponseError        "response_error"        in the protocol floor

Codes are part of the public surface: they do not change between minor versions, messages may. A
message says what is wrong and what to do about it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias


class BellwireError(Exception):
    """Base of every error Bellwire raises on purpose."""

    code: str = "error"


class ConfigError(BellwireError, ValueError):
    """A setting has a value the server cannot run with; the message names field, value and remedy."""

    code = "config"


class ConnectRefused(BellwireError):  # noqa: N818 - the word of the domain: a connection is refused
    """Raise it in authentication, middleware or ``on_connect`` to turn a client away.

    The client sees it as ``connect_error``: Socket.IO protocol v5, packet type 4 with the payload
    ``{"message": message, "data": data}``; ``data`` is left out when it is None. Typed clients raise
    it when a server refused them.
    """

    code = "connect_refused"

    def __init__(self, message: str, data: Any = None) -> None:
        if not isinstance(message, str):
            raise TypeError(
                f"ConnectRefused takes its message as text, not {type(message).__name__}; data carries the rest: "
                "ConnectRefused('no', {'code': ...})"
            )
        super().__init__(message, data)
        self.message = message
        self.data = data

    def __str__(self) -> str:
        return self.message


class TooManyConnections(ConnectRefused):
    """A user has as many connections in the whole cluster as ``Config.connections_per_user`` allows.

    The client finds ``{"code": "too_many_connections", "limit": limit}`` in the data of its ``connect_error``.
    """

    code = "too_many_connections"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"this user has {limit} connections, and no more are allowed: close one of them",
            {"code": self.code, "limit": limit},
        )
        self.limit = limit

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.limit,)


TokenFault: TypeAlias = Literal["token_missing", "token_invalid", "token_expired", "token_revoked"]

_TOKEN_FAULTS: Final[Mapping[TokenFault, str]] = {
    "token_missing": "a token is needed",
    "token_invalid": "the token is not valid",
    "token_expired": "the token has expired",
    "token_revoked": "the token was revoked",
}


class TokenRefused(ConnectRefused):
    """A client's token is missing, wrong, too old or revoked; ``code`` says which.

    The client finds ``{"code": code}`` in the data of its ``connect_error``, and nothing that helps to guess a token.
    """

    code = "token_invalid"

    def __init__(self, fault: TokenFault) -> None:
        super().__init__(_TOKEN_FAULTS[fault], {"code": fault})
        self.code = fault

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code,)


class AuthUnavailable(BellwireError):  # noqa: N818
    """Who a client is cannot be found out now, as when the keys of its issuer cannot be read.

    Raise it in an authentication of your own whose database is away: the client's connection is closed, so that it
    comes back by itself. A ``ConnectRefused`` would be for good.
    """

    code = "auth_unavailable"


class EventRefused(BellwireError):  # noqa: N818
    """An event was not accepted: its payload is wrong, it came too often, or a handler said no.

    A handler may raise it with a code of the application's own. ``path`` points at the fault inside
    the payload (``$.text``), ``retry_after`` is in seconds.
    """

    def __init__(self, code: str, message: str, *, path: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(code, message, path, retry_after)
        self.code = code
        self.message = message
        self.path = path
        self.retry_after = retry_after

    def __str__(self) -> str:
        where = f" - at `{self.path}`" if self.path is not None else ""
        return f"{self.code}: {self.message}{where}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _event_refused, (self.code, self.message, self.path, self.retry_after)

    def as_reply(self) -> dict[str, Any]:
        """Return the acknowledgement's one argument: ``{"error": {...}}``, keys without a value left out."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.path is not None:
            error["path"] = self.path
        if self.retry_after is not None:
            error["retry_after"] = self.retry_after
        return {"error": error}


def _event_refused(code: str, message: str, path: str | None, retry_after: float | None) -> EventRefused:
    return EventRefused(code, message, path=path, retry_after=retry_after)


class RoomLimit(EventRefused):
    """A socket wants into too many rooms, or a room's name is too long or a socket's id; the message says which.

    Clients may name the room: an event whose handler does not catch it is refused.
    """

    code = "room_limit"

    def __init__(self, message: str) -> None:
        super().__init__(RoomLimit.code, message)

    def __reduce__(self) -> tuple[Any, ...]:
        return RoomLimit, (self.message,)


class RateLimited(EventRefused):
    """Too many came in too short a time; ``retry_after`` says in how many seconds another one may.

    An event whose handler does not catch it is refused.
    """

    code = "rate_limited"

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(RateLimited.code, message, retry_after=retry_after)

    def __reduce__(self) -> tuple[Any, ...]:
        return RateLimited, (self.message, self.retry_after)


class CallTimeout(BellwireError, TimeoutError):  # noqa: N818
    """No acknowledgement arrived within the time of a ``call``; the event may still have been handled."""

    code = "timeout"


class Disconnected(BellwireError):  # noqa: N818
    """The connection ended before the operation could finish; ``reason`` is Socket.IO's word for why."""

    code = "disconnected"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the connection ended: {self.reason}"


class TooManyAttachments(BellwireError):  # noqa: N818
    """An event to be sent holds more binary attachments than receivers accept.

    socket.io-parser 4.2.6 refuses more than ten in one packet, and a client that meets one closes
    its connection. Send several events, or join the parts to one ``bytes`` value.
    """

    code = "too_many_attachments"

    def __init__(self, count: int, limit: int) -> None:
        super().__init__(count, limit)
        self.count = count
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"{self.count} binary attachments in one event, {self.limit} are allowed: "
            "send several events, or join the parts to one bytes value"
        )


class CallLimit(BellwireError):  # noqa: N818
    """Too many acknowledgements of one client are outstanding; wait for some, or call it less often."""

    code = "call_limit"


class MessageTooLarge(BellwireError):  # noqa: N818
    """A message has more bytes than its ``taker`` takes, a broker or a server; it was not sent.

    ``size`` and ``limit`` are in bytes.
    """

    code = "message_too_large"

    def __init__(self, size: int, limit: int, taker: str = "broker") -> None:
        super().__init__(size, limit, taker)
        self.size = size
        self.limit = limit
        self.taker = taker

    def __str__(self) -> str:
        remedy = "send less, or raise its max_payload" if self.taker == "broker" else "send less"
        return f"a message of {self.size} bytes, the {self.taker} takes {self.limit}: {remedy}"


class BrokerUnavailable(BellwireError):  # noqa: N818
    """The broker could not be asked, or refused: nothing happened, and the caller may try again."""

    code = "broker_unavailable"


class OutcomeUnknown(BellwireError):  # noqa: N818
    """Whether the message ``mid`` was accepted cannot be known; sent again with the same ``mid`` it is not doubled.

    That holds for two minutes, the window in which brokers remember message ids. ``done`` names the rooms that have
    the message for certain. For an event of a client's, ``mid`` is its number, and it is not sent again; the
    ``message`` says so.
    """

    code = "outcome_unknown"

    def __init__(self, mid: str, done: Iterable[str] = (), message: str | None = None) -> None:
        self.mid = mid
        self.done = tuple(done)
        self.message = message
        super().__init__(mid, self.done, message)

    def __str__(self) -> str:
        if self.message is not None:
            return self.message
        rooms = f"; these rooms have it: {', '.join(self.done)}" if self.done else ""
        return f"no answer for the message {self.mid!r}{rooms}: send it again with the same mid within two minutes"


class NodesUnreachable(BellwireError):  # noqa: N818
    """Something was asked of all nodes of a cluster, and some did not answer; what the others did stands.

    ``nodes`` are their ids. Whether they did what was asked cannot be known: they may be dead, or cut off from the
    broker, or only slow.
    """

    code = "nodes_unreachable"

    def __init__(self, nodes: tuple[str, ...]) -> None:
        super().__init__(nodes)
        self.nodes = nodes

    def __str__(self) -> str:
        return f"no answer from the nodes {', '.join(self.nodes)}: what was asked may not have been done there"


class ProtocolError(BellwireError):
    """A peer broke the wire protocol; it costs that peer its connection and nobody else anything."""

    code = "protocol_error"


class WebSocketError(ProtocolError):
    """The peer broke RFC 6455 or RFC 7692: fail the connection (section 7.1.7) with ``close_code``.

    ``close_code`` is one of section 7.4.1, ``reason`` at most 123 bytes of UTF-8 (section 5.5.1).
    """

    code = "websocket_error"

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(close_code, reason)
        self.close_code = close_code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason} (close code {self.close_code})"


class PacketError(ProtocolError):
    """Bytes that are no packet of Engine.IO v4 or Socket.IO v5, or a packet that is not allowed here."""

    code = "packet_error"
