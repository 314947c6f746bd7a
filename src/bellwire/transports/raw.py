"""A session of bellwire.v1: a WebSocket and nothing between it and the messages.

What the messages are is no business of this floor, but for three things: they are text or binary as the sub-protocol
has it, there is a ping among them, and the codes that close the connection tell the client whether to come back
(:class:`bellwire.protocol.wire.CloseCode`).
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.wire import JSON, MSGPACK, CloseCode, Ping, encode
from bellwire.transports.base import Carrier, Request
from bellwire.transports.base_session import BaseSession

if TYPE_CHECKING:
    from bellwire.transports.engine import Engine

logger = logging.getLogger("bellwire.transports")

_JSON_PING: Final = Outgoing(encode(Ping(), msgpack=False))
_MSGPACK_PING: Final = Outgoing(encode(Ping(), msgpack=True))

CLOSE_CODES: Final[Mapping[str, int]] = {
    "server shutting down": CloseCode.DRAINING,
    "ping timeout": CloseCode.SILENT,
    "slow consumer": CloseCode.SLOW,
    "connect timeout": CloseCode.LATE,
    "message timeout": CloseCode.LATE,
    "rate limited": CloseCode.FLOODING,
    "identity expired": CloseCode.EXPIRED,
    "parse error": CloseCode.MALFORMED,
    "session replaced": CloseCode.REPLACED,
    "forced server close": CloseCode.EJECTED,
}
"""What the client is told, by the reason that the server knows."""


class RawSession(BaseSession):
    """One client's connection. ``msgpack`` says what its messages are: bytes if it is true, text if not."""

    __slots__ = ("msgpack",)

    def __init__(self, engine: "Engine", carrier: Carrier, request: Request, *, msgpack: bool) -> None:
        super().__init__(engine, carrier, request)
        self.msgpack = msgpack

    @property
    def subprotocol(self) -> str:
        """The sub-protocol that was agreed on."""
        return MSGPACK if self.msgpack else JSON

    @override
    def received(self, carrier: Carrier, packet: str | bytes) -> None:
        if self.closed:
            return
        self.alive = True
        if self._questions is not None:
            self._heard()
        if isinstance(packet, bytes) is self.msgpack:
            self.receiver.received(packet)
        else:
            kind = "text" if self.msgpack else "binary"
            logger.debug("a client is disconnected, parse error: a %s frame on %s", kind, self.subprotocol)
            self.close("parse error")

    @override
    def lost(self, carrier: Carrier, reason: str) -> None:
        self.close(reason)

    @override
    def ping(self) -> None:
        self.alive = False
        self.carrier.send(_MSGPACK_PING if self.msgpack else _JSON_PING)

    @override
    def close(self, reason: str, *, code: int = 1000, abort: bool = False) -> None:
        """End the session, and tell the receiver why; nothing happens if it has ended.

        The reasons of `CLOSE_CODES` have codes of their own, all others close with ``code``. ``abort`` makes no
        difference: a slow consumer too has a few seconds to read what was sent, and the code behind it.
        """
        if self.closed:
            return
        self.receiver.settle()  # what was broadcast before still leaves
        self._ended()
        self.carrier.close(CLOSE_CODES.get(reason, code))
        self._engine.forget_raw(self, reason)
        self._part(reason)
