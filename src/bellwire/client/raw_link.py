"""One connection that speaks bellwire.v1, from the client's side; sans-I/O.

The way of a link (bellwire.v1, "The connection")::

    phase     what happens              next      action
    OPENING   the WebSocket is open     JOINING   Send: connect
    JOINING   connected                 JOINED    Joined
    JOINING   refused                   OVER      Refused
    JOINED    an event, a reply, …      JOINED    what it is
    JOINED    disconnect                OVER      Ended("io server disconnect")
    any       ping                      -         Send: pong; not while OPENING
    any       pong                      -         nothing
    any       drain                     -         it; not while OPENING
    any       anything else             OVER      PacketError
    JOINED    silence                   -         Send: ping, after `QUIET_SECONDS`, by :meth:`Link.tick`
    JOINED    more of it                OVER      Ended("ping timeout"), `ANSWER_SECONDS` later
    before    silence                   OVER      Ended("connect timeout"), by :meth:`Link.tick`

One namespace is joined on a connection, and none else.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from typing_extensions import override

from bellwire.client.codec import RawCodec
from bellwire.client.link import (
    JOIN_SECONDS,
    Action,
    Answered,
    Ended,
    Joined,
    Link,
    Phase,
    Placed,
    Received,
    Refused,
    Send,
    Settled,
    Welcome,
    arrived,
)
from bellwire.client.parcel import raw_answer, raw_parcel
from bellwire.core.errors import PacketError
from bellwire.delivery.position import Point
from bellwire.protocol import wire
from bellwire.protocol.embedding import Hello
from bellwire.protocol.outgoing import Outgoing

QUIET_SECONDS: Final = 35.0
"""After so much silence the client asks whether the server is there (bellwire.v1, "Heartbeat"),"""
ANSWER_SECONDS: Final = 10.0
"""and waits so long for any sign of life."""

_CODES: Final = {code.value: code.name.lower() for code in wire.CloseCode}

_UNCHANGED: Final = (wire.Open, wire.Close, wire.Advance, wire.Proved, wire.Reset, wire.Nack, wire.Skipped)


class RawLink(Link):
    """See `Link`."""

    __slots__ = ("_asked", "_msgpack")

    def __init__(
        self, codec: RawCodec, auth: Mapping[str, Any] | None, hello: Callable[[], Hello | None], now: float
    ) -> None:
        super().__init__(codec, auth, hello, now)
        self._msgpack = codec.dialect == wire.MSGPACK
        self._asked = False

    @override
    def opened(self, now: float) -> Send:
        self.phase = Phase.JOINING
        self.deadline = now + JOIN_SECONDS
        auth = None if self.auth is None else dict(self.auth)
        hello = self.hello()
        if hello is None:
            return self._send(wire.Connect(self.namespace, auth))
        return self._send(
            wire.Connect(
                self.namespace, auth, hello.instance, hello.producer, hello.session, hello.cursors, hello.attempt
            )
        )

    @override
    def heard(self, now: float) -> None:
        if self.phase is Phase.JOINED:
            self._asked = False
            self.deadline = now + QUIET_SECONDS

    @override
    def tick(self, now: float) -> Action | None:
        if now < self.deadline or self.phase is Phase.OVER:
            return None
        if self.phase is Phase.JOINED and not self._asked:
            self._asked = True
            self.deadline = now + ANSWER_SECONDS
            return self._send(wire.Ping())
        reason = "ping timeout" if self.phase is Phase.JOINED else "connect timeout"
        self.phase = Phase.OVER
        return Ended(reason)

    @override
    def closed(self, code: int | None) -> Ended:
        if code is None or wire.may_return(code):
            return Ended("transport close")
        return Ended(f"closed by the server: {_CODES.get(code, code)}", final=True)

    @override
    def _receive(self, message: str | bytes, now: float) -> Action | None:
        if isinstance(message, bytes) is not self._msgpack:
            raise PacketError("a frame of the other sub-protocol's kind")
        found = wire.parse_server(message)
        if isinstance(found, wire.Ping):
            return self._send(wire.Pong())
        if isinstance(found, wire.Pong):
            return None
        if isinstance(found, wire.Drain):
            return found
        if getattr(found, "namespace", self.namespace) != self.namespace:
            raise PacketError("a message of another namespace")
        if self.phase is Phase.JOINING:
            return self._decided(found, now)
        return self._joined(found)

    def _decided(self, found: wire.ServerMessage, now: float) -> Action:
        if isinstance(found, wire.Connected):
            self.phase = Phase.JOINED
            self.deadline = now + QUIET_SECONDS
            return Joined(Welcome(found.id, found.session, found.resumed, found.producer, found.max_message))
        if isinstance(found, wire.Refused):
            self.phase = Phase.OVER
            return Refused(found.message, found.data)
        raise PacketError("a message before the answer to connect")

    def _joined(self, found: wire.ServerMessage) -> Action:
        if isinstance(found, wire.StreamEvent):
            parcel = raw_parcel(found.name, found.args, msgpack=self._msgpack)
            prev = Point(found.seq - found.back, found.prev_tag)
            entry = arrived(found.seq, found.tag, prev, found.mid, parcel)
            return Placed(found.alias, found.gen, prev, entry)
        if isinstance(found, wire.Outcome):
            return Settled(found.number, raw_answer(found.args, msgpack=self._msgpack))
        if isinstance(found, wire.ServerEvent):
            return Received(raw_parcel(found.name, found.args, msgpack=self._msgpack), found.id, found.after)
        if isinstance(found, wire.Reply):
            return Answered(found.id, raw_answer(found.args, msgpack=self._msgpack))
        if isinstance(found, wire.Disconnect):
            self.phase = Phase.OVER
            return Ended("io server disconnect", final=True)
        if isinstance(found, _UNCHANGED):
            return found
        raise PacketError("a message that is not due")

    def _send(self, message: wire.ClientMessage) -> Send:
        return Send(Outgoing(wire.encode(message, msgpack=self._msgpack)))
