"""Bellwire: a real-time server for Python.

One process and one port serve unmodified Socket.IO clients; events, their payloads and replies are typed. Everything
that an application needs is here; :mod:`bellwire.testing` has what its tests need.
"""

from bellwire.client.client import Client
from bellwire.client.journal import OutboxInUse
from bellwire.client.messages import Messages, MessagesLost
from bellwire.client.reports import DeadLetter, Failed, Reset
from bellwire.core.config import Config
from bellwire.core.errors import (
    AuthUnavailable,
    BellwireError,
    BrokerUnavailable,
    CallLimit,
    CallTimeout,
    ConfigError,
    ConnectRefused,
    Disconnected,
    EventRefused,
    MessageTooLarge,
    NodesUnreachable,
    OutcomeUnknown,
    RateLimited,
    RoomLimit,
    TokenRefused,
    TooManyAttachments,
    TooManyConnections,
)
from bellwire.core.events import Event, PlainText, RichText
from bellwire.core.presence import PRESENCE_DIFF, PRESENCE_STATE, PresenceDiff, PresenceState
from bellwire.core.renewal import AUTH_EXPIRED, AUTH_RENEW, AuthExpired, AuthRenewed
from bellwire.emitter.blocking import BlockingEmitter, BlockingTarget
from bellwire.emitter.emitter import Emitter
from bellwire.emitter.target import EmitterTarget
from bellwire.guard.auth import Identity
from bellwire.guard.jwt import JWTAuth
from bellwire.server.acks import Replies
from bellwire.server.namespace import Namespace
from bellwire.server.server import Server
from bellwire.server.socket import Socket
from bellwire.server.target import RemoteSocket, Sockets, Target
from bellwire.transports.base import Request

__all__ = [
    # declared
    "Event",
    "PlainText",
    "RichText",
    "AUTH_EXPIRED",
    "AUTH_RENEW",
    "AuthExpired",
    "AuthRenewed",
    "PRESENCE_DIFF",
    "PRESENCE_STATE",
    "PresenceDiff",
    "PresenceState",
    "Config",
    # served
    "Server",
    "Namespace",
    "Socket",
    "Target",
    "RemoteSocket",
    "Sockets",
    "Replies",
    "Request",
    "Identity",
    "JWTAuth",
    # connected
    "Client",
    "DeadLetter",
    "Failed",
    "Messages",
    "Reset",
    # beside the servers
    "Emitter",
    "EmitterTarget",
    "BlockingEmitter",
    "BlockingTarget",
    # raised
    "AuthUnavailable",
    "BellwireError",
    "BrokerUnavailable",
    "CallLimit",
    "CallTimeout",
    "ConfigError",
    "ConnectRefused",
    "Disconnected",
    "EventRefused",
    "MessageTooLarge",
    "NodesUnreachable",
    "MessagesLost",
    "OutboxInUse",
    "OutcomeUnknown",
    "RateLimited",
    "RoomLimit",
    "TokenRefused",
    "TooManyAttachments",
    "TooManyConnections",
]
