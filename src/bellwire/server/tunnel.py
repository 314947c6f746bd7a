"""A WebSocket that has reached one node, and upgrades a session of another: its messages go through a channel.

The session's node has a carrier that is like any other. What it sends counts as buffered until the other node has given
it to the client's connection and that has room, so a client that does not keep up is dealt with where its session is.
Whichever side cannot go on ends both, and the client has lost its connection.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Final

import msgspec
from typing_extensions import override

from bellwire.brokers.envelope import UNREADABLE
from bellwire.core.clock import Timer
from bellwire.protocol.outgoing import Message, Outgoing
from bellwire.server.channels import Channel, Pump, Receiver
from bellwire.server.dispatch import Dispatcher
from bellwire.transports.base import Carrier, Link
from bellwire.transports.engine import Engine
from bellwire.transports.queued import QueuedCarrier
from bellwire.transports.session import Session

MAX_WAITING: Final = 65_536
"""Characters and bytes from a client that may wait for the broker; then the client waits."""

SERVICE_RESTART: Final = 1012
"""The close code for a client whose session's node is gone: come back (the registry of RFC 6455 §11.7)."""

_ABORT: Final = 1006
"""The code that is never sent (RFC 6455 §7.4.1): the connection is to end without a closing handshake."""


class Burst(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one side tells the other."""

    packets: list[Any] = []
    """Engine.IO packets, in order: text, or bytes."""
    size: int = 0
    """What they count as in the sender's buffer."""
    taken: int = 0
    """How much of what the other side has sent is in its buffer no more."""
    reading: bool | None = None
    """Whether the client is to be read from, if that has changed."""
    overflowed: bool = False
    """Whether the client was cut off because it did not read."""
    close: int = 0
    """The code with which the client's connection is to end, after the packets; 0 if it is to go on."""


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Burst).decode


class TunnelCarrier(QueuedCarrier[Session], Receiver):
    """The session's side of it."""

    __slots__ = ("_channel", "_closing", "_pump", "_reading", "_said", "_unread")

    name: ClassVar[str] = "websocket"

    def __init__(self, engine: Engine, dispatcher: Dispatcher, channel: Channel) -> None:
        super().__init__(engine)
        self._channel = channel
        self._pump = Pump(channel, dispatcher, self._next)
        self._unread = 0  # bytes that were sent, and that the client's connection has no room for yet
        self._reading: bool | None = None
        self._closing = 0
        self._said = False  # that it closes

    # --- as a carrier

    @override
    def send(self, message: Message) -> None:
        if self._closing:
            return
        self._enqueue(message)
        if len(self._queue) == 1:
            self._engine.tick.touch(self)
        elif self._unread and self._buffered > self._engine.config.send_buffer_bytes:
            self._engine.overflow(self.session)  # with nothing unread it is this tick's, and no backlog

    @override
    def flush(self) -> None:
        self._pump.wake()

    @override
    def close(self, code: int = 1000) -> None:
        self._closing = self._closing or code
        self._pump.wake()

    @override
    def abort(self) -> None:
        self._clear()
        self.close(_ABORT)

    @override
    def set_reading(self, reading: bool) -> None:
        self._reading = reading
        self._pump.wake()

    def _next(self) -> bytes | None:
        if self._said:
            self._channel.forget()
            return None
        queue, self._queue = self._queue, []
        reading, self._reading = self._reading, None
        if not queue and reading is None and not self._closing:
            return None
        self._said = self._closing != 0
        size = sum([message.size for message in queue])
        self._unread += size
        packets = [part for message in queue for part in message.parts]
        return _encode(Burst(packets, size, reading=reading, close=self._closing))

    # --- as the receiver of what the other side tells

    @override
    def arrived(self, message: bytes) -> None:
        burst = _read(message)
        if burst is None:
            self._channel.close()
            self.over()
            return
        taken = min(burst.taken, self._unread)
        self._unread -= taken
        self._dequeue(taken)
        for packet in burst.packets:
            self.session.received(self, packet)
        if burst.overflowed:
            self.session.close("slow consumer", abort=True)

    @override
    def over(self) -> None:
        self._closing = self._closing or _ABORT
        self._clear()
        self.session.lost(self, "transport close")


class TunnelEnd(Link, Receiver):
    """The side of the client's connection, which is ``carrier``; ``begin`` is the first message on the channel.

    ``ended`` is called once, when the connection is gone.
    """

    def __init__(
        self,
        engine: Engine,
        dispatcher: Dispatcher,
        carrier: Carrier,
        begin: bytes,
        ended: Callable[["TunnelEnd"], None],
    ) -> None:
        self.alive = True
        self.overflowed = False
        self._carrier = carrier
        self._dispatcher = dispatcher
        self._begin: bytes | None = begin
        self._ended = ended
        self._channel: Channel
        self._pump: Pump
        self._packets: list[str | bytes] = []
        self._waiting = 0
        self._taken = 0
        self._tell_from = engine.config.volatile_buffer_bytes // 8
        self._wanted = True  # that the client is read from, by its session
        self._reading = True
        self._congested = False
        self._lost = False
        self._timer: Timer | None = engine.wheel.after(engine.config.upgrade_timeout, self._give_up)

    def start(self, channel: Channel) -> None:
        """Speak on ``channel``."""
        self._channel = channel
        self._pump = Pump(channel, self._dispatcher, self._next)
        self._pump.wake()

    def _next(self) -> bytes | None:
        begin, self._begin = self._begin, None
        if begin is not None:
            return begin
        taken = 0 if self._congested or self._taken <= self._tell_from else self._taken
        if not self._packets and not taken and not self.overflowed:
            if self._lost:
                self._channel.close()
            return None
        packets, self._packets = self._packets, []
        overflowed, self.overflowed = self.overflowed, False
        self._taken -= taken
        self._waiting = 0
        self._set_reading()
        return _encode(Burst(packets, taken=taken, overflowed=overflowed))

    def _set_reading(self) -> None:
        reading = self._wanted and self._waiting <= MAX_WAITING
        if reading is not self._reading:
            self._reading = reading
            self._carrier.set_reading(reading)

    # --- as what the connection's messages go to

    @override
    def received(self, carrier: Carrier, packet: str | bytes) -> None:
        self._packets.append(packet)
        self._waiting += len(packet)
        self._pump.wake()
        self._set_reading()

    @override
    def congested(self, carrier: Carrier) -> None:
        self._congested = True

    @override
    def drained(self, carrier: Carrier) -> None:
        self._congested = False
        self._pump.wake()

    @override
    def lost(self, carrier: Carrier, reason: str) -> None:
        if self._lost:
            return
        self._lost = True
        self._stop_timer()
        self._pump.wake()  # what the client has said before still goes, and then the end of it
        self._ended(self)

    @override
    def close(self, reason: str, *, code: int = 1000, abort: bool = False) -> None:
        if abort:
            self._carrier.abort()
        else:
            self._carrier.close(code)

    # --- as the receiver of what the session's side tells

    @override
    def arrived(self, message: bytes) -> None:
        self._stop_timer()
        burst = _read(message)
        if burst is None:
            self._give_up()
            return
        if burst.packets:
            self._carrier.send(Outgoing(*burst.packets))
            self._taken += burst.size
            self._pump.wake()
        if burst.reading is not None:
            self._wanted = burst.reading
            self._set_reading()
        if burst.close:
            self._channel.forget()
            self.close("", code=burst.close, abort=burst.close == _ABORT)

    @override
    def over(self) -> None:
        self._stop_timer()
        self._carrier.close(SERVICE_RESTART)

    def _give_up(self) -> None:
        """The other side speaks something else, or has said nothing for as long as an upgrade may take."""
        self._channel.close()
        self.over()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _read(message: bytes) -> Burst | None:
    try:
        burst = _decode(message)
    except UNREADABLE:
        return None
    return burst if all(isinstance(packet, str | bytes) for packet in burst.packets) else None
