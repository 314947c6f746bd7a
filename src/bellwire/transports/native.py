"""WebSockets on uvicorn's own sockets: own framing, pre-framed bytes, no task and no queue per connection."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, ClassVar, cast

from typing_extensions import override
from uvicorn.server import ServerState

from bellwire.core.clock import Timer
from bellwire.protocol.outgoing import Message
from bellwire.protocol.websocket import CLOSED, OPEN, WebSocket
from bellwire.transports.arrival import Arrival
from bellwire.transports.base import CLOSE_TIMEOUT, NO_LINK, Carrier, Link
from bellwire.transports.descriptor import descriptor_of, write_each
from bellwire.transports.engine import Engine
from bellwire.transports.unread import Cause

logger = logging.getLogger("bellwire.transports")

MUCH = 65_536
"""Bytes of one read after which the answers are written at once: libuv reads up to 32 times before a tick ends."""


class NativeWebSocket(asyncio.Protocol, Carrier):
    """One WebSocket connection, from the 101 on."""

    __slots__ = (
        "_arrival",
        "_base64",
        "_congested",
        "_deflate_bits",
        "_ended",
        "_engine",
        "_fd",
        "_out",
        "_paused",
        "_plain",
        "_pressed",
        "_reading",
        "_server_state",
        "_timer",
        "_transport",
        "_ws",
        "outlet",
        "session",
    )

    name: ClassVar[str] = "websocket"

    session: Link

    def __init__(
        self,
        engine: Engine,
        server_state: ServerState,
        transport: asyncio.Transport,
        ws: WebSocket,
        *,
        base64: bool,
        deflate_bits: int,
    ) -> None:
        self._engine = engine
        self._server_state = server_state
        self._transport = transport
        self._ws = ws
        self._base64 = base64
        self._deflate_bits = deflate_bits  # 0 for no compression
        self._plain = not (base64 or deflate_bits)
        self._fd = -1  # a descriptor while it may be written to: see `bellwire.transports.descriptor`
        self.outlet = -1  # the same while nothing waits in `_out`, and the frames are those that all share
        self._out: bytes | list[bytes] | None = None
        self._paused = False  # from `Unread.noted_from` on
        self._pressed = 0  # bytes that were written since it is paused
        self._congested = False
        self._ended = False  # not before the close frame is written: messages before a fault are still answered
        self._timer: Timer | None = None
        self._reading = True
        self._arrival: Arrival | None = None  # while a message has begun and is not complete
        server_state.connections.add(cast("Any", self))

    def open(self, response: bytes, connect: "Callable[[NativeWebSocket], Link]") -> None:
        """Answer the handshake with ``response``; what comes goes to what ``connect`` makes from now on."""
        self._out = response  # what is sent first leaves with it, in one write
        self._engine.tick.touch(self)
        self.session = connect(self)
        if not self._ended:
            self._fd = descriptor_of(self._transport)
        # Where it writes itself: not 0, for TLS transports pause when their buffer has come up to the limit.
        if _limit_writes(self._transport, 0 if self._fd >= 0 else max(self._engine.unread.noted_from, 1)):
            self.pause_writing()

    # --- as asyncio's protocol

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        ws = self._ws
        session = self.session
        session.alive = True
        messages = ws.receive(data)
        for message in messages:
            session.received(self, message)
        if ws.outgoing or ws.state is not OPEN:
            self._write_control()
        if not ws.fresh or self._arrival is not None:
            self._await_rest(bool(messages))
        if len(data) >= MUCH:
            self.flush()

    def _await_rest(self, began_anew: bool) -> None:
        """A message is incomplete, or was, or more is to be made of what came already."""
        ws = self._ws
        if self._arrival is not None and (began_anew or ws.fresh or ws.state is not OPEN):
            self._arrival.cancel()
            self._arrival = None
        if ws.more:
            self.set_reading(self._reading)
        elif self._arrival is None and ws.state is OPEN and not ws.fresh:
            engine = self._engine
            self._arrival = Arrival(engine.wheel, engine.config.message_timeout, self._arrived, self._too_late)

    def _arrived(self) -> int | None:
        return self._ws.unfinished if self._reading else None

    def _too_late(self) -> None:
        self._arrival = None
        self.session.lost(self, "message timeout")
        self.close()

    def _receive_more(self) -> None:
        if self._ws.more and self._reading:
            self.data_received(b"")
            if not self._ws.more:
                self.set_reading(self._reading)

    def eof_received(self) -> None:
        """The peer will send no more; a WebSocket is of no use half open."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; its descriptor is closed, and may be another's, once this returns."""
        self._fd = self.outlet = -1
        self._server_state.connections.discard(cast("Any", self))
        self._out = None
        self._ended = True
        self._engine.unread.forget(self)
        self.session.lost(self, "transport close" if exc is None else "transport error")
        if self._timer is not None:
            self._timer.cancel()
        if self._arrival is not None:
            self._arrival.cancel()
        self.session = NO_LINK

    def pause_writing(self) -> None:
        """The kernel takes no more: from now on what is sent is counted against the send buffer."""
        self._fd = self.outlet = -1
        self._paused = True
        self._pressed = 0
        self._weigh()

    def resume_writing(self) -> None:
        """The client reads again."""
        if not (self._ended or self._transport.is_closing()):
            self._fd = descriptor_of(self._transport)
            if self._plain and self._out is None:
                self.outlet = self._fd
        self._paused = False
        self._engine.unread.forget(self)
        if self._congested:
            self._congested = False
            self._engine.loop.call_soon(self._tell_drained)

    def _weigh(self) -> None:
        """See how much waits for a client that does not keep up.

        This may be in the middle of a write to many (`write_each`): whoever is told could send to the others of them.
        """
        size, unread = self.buffered, self._engine.unread
        unread.note(self, size)
        if not self._congested and size > unread.limit:
            self._congested = True
            self._engine.loop.call_soon(self._tell_congested)

    def _tell_congested(self) -> None:
        self.session.congested(self)

    def _tell_drained(self) -> None:
        self.session.drained(self)

    def shutdown(self) -> None:
        """Uvicorn stops: the client is told to come back elsewhere (close code 1012)."""
        self.session.close("server shutting down", code=1012)

    # --- as a carrier

    @override
    def send(self, message: Message) -> None:
        if self._ended:
            return
        frames = message.frames if self._plain else self._frames(message)
        out = self._out
        if out is None:
            self._out = frames
            self.outlet = -1
            self._engine.tick.touch(self)
        elif isinstance(out, list):
            out.append(frames)
        else:
            self._out = [out, frames]
        if self._paused:
            self._press()

    def _frames(self, message: Message) -> bytes:
        if self._deflate_bits:
            return message.deflated(self._deflate_bits, base64=self._base64)
        return message.frames_base64

    @override
    def unwritten(self, data: memoryview) -> None:
        self._transport.write(data)  # which pauses this

    @override
    def due(self) -> tuple[int, bytes] | None:
        out = self._out
        if self._fd < 0 or out is None:
            return None
        return self._fd, self._taken(out)

    def _taken(self, out: bytes | list[bytes]) -> bytes:
        """Nothing waits any more: return ``out``, which did, in one piece."""
        self._out = None
        if self._plain:
            self.outlet = self._fd
        return b"".join(out) if isinstance(out, list) else out

    def _press(self) -> None:
        """More waits for a client that does not keep up."""
        if self.buffered > self._engine.config.send_buffer_bytes:
            self._engine.overflow(self.session)
            self.set_reading(False)

    @override
    def flush(self) -> None:
        out = self._out
        if out is not None:
            self._write(self._taken(out))

    def _write(self, data: bytes | bytearray) -> None:
        if self._fd >= 0:
            write_each([self], [self._fd], [data])
            return
        transport = self._transport
        if not self._paused:
            transport.write(data)
            return
        before = transport.get_write_buffer_size()
        transport.write(data)
        self._pressed += transport.get_write_buffer_size() - before  # with TLS that is more than the data
        self._weigh()

    @override
    def close(self, code: int = 1000) -> None:
        if self._ws.state is OPEN and not self._ended:
            self.set_reading(True)  # or the answer to the close frame would not be read
            self._ws.close(code)
            self._write_control()

    @override
    def abort(self) -> None:
        self._out = None
        self._fd = self.outlet = -1
        self._transport.abort()

    @override
    def set_reading(self, reading: bool) -> None:
        self._reading = reading
        if self._transport.is_closing():
            return
        if reading and not self._ws.more:
            self._transport.resume_reading()
            return
        self._transport.pause_reading()
        if reading:  # what came already goes first
            self._engine.loop.call_soon(self._receive_more)

    @property
    @override
    def buffered(self) -> int:
        out = self._out
        pending = sum(map(len, out)) if isinstance(out, list) else len(out or b"")
        return pending + self._transport.get_write_buffer_size()

    @property
    @override
    def writable(self) -> bool:
        return not self._congested

    @property
    @override
    def congested(self) -> bool:
        return self._congested

    @property
    def progress(self) -> int:
        """While it is paused: a number that grows by what the kernel takes."""
        return self._pressed - self._transport.get_write_buffer_size()

    def cut(self, cause: Cause) -> None:
        """End it as a slow consumer, and let go of what waits."""
        self._engine.cut(self.session, self, cause)

    # --- the closing handshake

    def _write_control(self) -> None:
        """Write pongs at once: they may overtake (RFC 6455 §5.5.2). A close frame goes behind what was sent before."""
        state = self._ws.state
        if state is OPEN:
            pongs = self._ws.take_outgoing()
            self._write(pongs)
            if self._paused:  # they too pile up for a client that sends pings and does not read
                self._press()
            return
        self.flush()
        if self._ws.error is not None and not self._ended:
            logger.debug("a client is disconnected, transport error: %s", self._ws.error)
        self._ended = True
        self._fd = self.outlet = -1
        self._transport.write(self._ws.take_outgoing())
        if self._ws.error is not None:
            self.session.lost(self, "transport error")
        if state is CLOSED:
            self._transport.close()
        if self._timer is None:  # for a peer that does not answer, or does not read what is left
            self._timer = self._engine.wheel.after(CLOSE_TIMEOUT, self._transport.abort)


def _limit_writes(transport: asyncio.Transport, limit: int) -> bool:
    """Have ``transport`` pause its protocol above ``limit`` bytes; return whether it has done so already."""
    paused = transport.get_write_buffer_size() > 0
    if paused:  # an earlier response on this connection was not read, and nobody tells whether it is paused for that
        transport.set_write_buffer_limits(high=0)
    transport.set_write_buffer_limits(high=limit)
    return paused
