"""WebSockets on uvicorn's own sockets: own framing, pre-framed bytes, no task and no queue per connection.

uvicorn parses a request's head and, at an upgrade, makes an object of its configured WebSocket class, calls
``connection_made(transport)`` and ``data_received(head)`` on it, and makes it the transport's protocol. The class here
looks at the path: Socket.IO's and that of bellwire.v1 go to :class:`NativeWebSocket`, every other one to uvicorn's
implementation and so to the user's ASGI application.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar, NamedTuple, TypeAlias, cast
from urllib.parse import unquote

from typing_extensions import override
from uvicorn.config import Config as UvicornConfig
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from bellwire.core.clock import Timer
from bellwire.protocol.deflate import DEFAULT_WINDOW_BITS, negotiate
from bellwire.protocol.engineio import RequestError
from bellwire.protocol.handshake import HandshakeError, build_response, check_upgrade
from bellwire.protocol.outgoing import Message
from bellwire.protocol.websocket import CLOSED, OPEN, WebSocket
from bellwire.protocol.wire import MAX_MESSAGE, PATH
from bellwire.transports.arrival import Arrival
from bellwire.transports.base import CLOSE_TIMEOUT, Carrier, Link, Request
from bellwire.transports.descriptor import descriptor_of
from bellwire.transports.engine import Engine
from bellwire.transports.unread import Cause

logger = logging.getLogger("bellwire.transports")

MAX_FRAGMENTS = 1024
"""Frames of one message; a peer could otherwise have each byte cost a frame's work."""

MUCH = 65_536
"""Bytes of one read after which the answers are written at once: libuv reads up to 32 times before a tick ends."""


class NativeWebSocket(asyncio.Protocol, Carrier):
    """One WebSocket connection, from the 101 on."""

    __slots__ = (
        "_arrival",
        "_base64",
        "_congested",
        "_deflated",
        "_ended",
        "_engine",
        "_fd",
        "_out",
        "_paused",
        "_pressed",
        "_reading",
        "_server_state",
        "_timer",
        "_transport",
        "_ws",
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
        deflated: bool,
    ) -> None:
        self._engine = engine
        self._server_state = server_state
        self._transport = transport
        self._ws = ws
        self._base64 = base64
        self._deflated = deflated
        self._fd = -1  # a descriptor while it may be written to: see `bellwire.transports.descriptor`
        self._out: bytes | list[bytes] | None = None
        self._paused = False  # from `Unread.noted_from` on
        self._pressed = 0  # bytes that were written since it is paused
        self._congested = False
        self._ended = False  # not before the close frame is written: messages before a fault are still answered
        self._timer: Timer | None = None
        self._reading = True
        self._arrival: Arrival | None = None  # while a message has begun and is not complete
        server_state.connections.add(cast("Any", self))

    def begin(self, session: Link) -> None:
        """What comes goes to ``session`` from now on."""
        self.session = session
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
        self._fd = -1
        self._server_state.connections.discard(cast("Any", self))
        self._out = None
        self._ended = True
        self._engine.unread.forget(self)
        self.session.lost(self, "transport close" if exc is None else "transport error")
        if self._timer is not None:
            self._timer.cancel()
        if self._arrival is not None:
            self._arrival.cancel()

    def pause_writing(self) -> None:
        """The kernel takes no more: from now on what is sent is counted against the send buffer."""
        self._fd = -1
        self._paused = True
        self._pressed = 0
        self._weigh()

    def resume_writing(self) -> None:
        """The client reads again."""
        if not (self._ended or self._transport.is_closing()):
            self._fd = descriptor_of(self._transport)
        self._paused = False
        self._engine.unread.forget(self)
        if self._congested:
            self._congested = False
            self.session.drained(self)

    def _weigh(self) -> None:
        """See how much waits for a client that does not keep up."""
        size, unread = self.buffered, self._engine.unread
        unread.note(self, size)
        if not self._congested and size > unread.limit:
            self._congested = True
            self.session.congested(self)

    def shutdown(self) -> None:
        """Uvicorn stops: the client is told to come back elsewhere (close code 1012)."""
        self.session.close("server shutting down", code=1012)

    # --- as a carrier

    @override
    def send(self, message: Message) -> None:
        ws = self._ws
        if self._ended:
            return
        if self._deflated:
            frames = b"".join([ws.encode(part) for part in (message.base64_parts if self._base64 else message.parts)])
        else:
            frames = message.frames_base64 if self._base64 else message.frames
        out = self._out
        if out is None:
            self._out = frames
            self._engine.tick.touch(self)
        elif isinstance(out, list):
            out.append(frames)
        else:
            self._out = [out, frames]
        if self._paused:
            self._press()

    @override
    def send_last(self, message: Message) -> None:
        if self._fd < 0 or self._out is not None or self._base64 or self._deflated:
            self.send(message)
        else:
            self._write(message.frames)

    def _press(self) -> None:
        """More waits for a client that does not keep up."""
        if self.buffered > self._engine.config.send_buffer_bytes:
            self._engine.overflow(self.session)
            self.set_reading(False)

    @override
    def flush(self) -> None:
        out = self._out
        if out is not None:
            self._out = None
            self._write(b"".join(out) if isinstance(out, list) else out)

    def _write(self, data: bytes | bytearray) -> None:
        if self._fd >= 0:
            try:
                written = os.write(self._fd, data)
            except OSError:  # the kernel takes no more, or the client is gone: the transport knows what to do
                written = 0
            if written < len(data):
                self._transport.write(data[written:])
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
        self._fd = -1
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
        self._fd = -1
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


class Admission(NamedTuple):
    """Leave to open a WebSocket."""

    connect: Callable[[NativeWebSocket], Link]
    """Makes what its messages go to, once it is open."""
    subprotocol: str | None = None
    """What the client is told to speak, of what it offered (RFC 6455 §4.2.2)."""
    base64: bool = False
    """Whether the client takes no binary frames (``b64=1`` of Engine.IO)."""


class Endpoint(NamedTuple):
    """What is served on a path."""

    engine: Engine
    max_message: int
    """Bytes of one message."""
    max_fragments: int
    """Frames of one message."""
    deflate_bits: int
    """The largest window of permessage-deflate (RFC 7692 §7.1.2), 8 to 15; 0 for no compression."""
    admit: Callable[[Request], Admission]
    """Who may open a WebSocket, and how; raises :class:`RequestError` or :class:`HandshakeError`."""


Route: TypeAlias = Callable[[Request], Endpoint | None]
"""Finds what serves a request; None leaves it to the user's ASGI application."""


class NativeUpgrade(asyncio.Protocol):
    """What uvicorn makes for every upgrade request; see :func:`native_websockets`."""

    __slots__ = ("_next", "_route", "_transport", "_uvicorn")

    def __init__(
        self, route: Route, config: UvicornConfig, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        self._route = route
        self._uvicorn = (config, server_state, app_state)
        self._next: asyncio.Protocol | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport until the head comes, in the very next call."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """First the request's head; later, until the transport has its new protocol, that one's bytes."""
        if self._next is not None:
            self._next.data_received(data)
            return
        request = parse_head(data, self._transport)
        endpoint = self._route(request)
        method = data.partition(b" ")[0]
        self._next = self._delegate(data) if endpoint is None else self._accept(endpoint, request, method)
        if self._next is not None:
            # uvicorn makes *this* object the protocol once we return.
            asyncio.get_running_loop().call_soon(self._transport.set_protocol, self._next)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection was lost before its new protocol took over."""
        if self._next is not None:
            self._next.connection_lost(exc)

    def pause_writing(self) -> None:
        """The transport's buffer filled up before its new protocol took over."""
        if self._next is not None:
            self._next.pause_writing()

    def resume_writing(self) -> None:
        """The transport's buffer emptied before its new protocol took over."""
        if self._next is not None:
            self._next.resume_writing()

    def _delegate(self, head: bytes) -> asyncio.Protocol:
        config, server_state, app_state = self._uvicorn
        protocol = WebSocketsSansIOProtocol(config=config, server_state=server_state, app_state=app_state)
        protocol.connection_made(self._transport)
        protocol.data_received(head)
        return protocol

    def _accept(self, endpoint: Endpoint, request: Request, method: bytes) -> "NativeWebSocket | None":
        headers = request.headers
        try:
            key = check_upgrade(
                method, "1.1", {name.encode(): value.encode("latin-1") for name, value in headers.items()}
            )
            admission = endpoint.admit(request)
        except HandshakeError as error:
            self._refuse(error.status, error.message, error.headers)
            return None
        except RequestError as error:
            fields = tuple((name.encode(), value.encode()) for name, value in error.headers)
            self._refuse(error.status, error.message, fields)
            return None
        bits = endpoint.deflate_bits
        offer = headers.get("sec-websocket-extensions") if bits else None
        deflate, extensions = negotiate(offer, max_window_bits=bits) or (None, None)
        ws = WebSocket(max_message=endpoint.max_message, max_fragments=endpoint.max_fragments, deflate=deflate)
        self._transport.write(build_response(key, subprotocol=admission.subprotocol, extensions=extensions))
        carrier = NativeWebSocket(
            endpoint.engine,
            self._uvicorn[1],
            self._transport,
            ws,
            base64=admission.base64,
            deflated=deflate is not None,
        )
        carrier.begin(admission.connect(carrier))
        return carrier

    def _refuse(self, status: int, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """Refuse an upgrade as Node's server does: the bare message, and the connection ends."""
        body = message.encode()
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "Connection: close",
            "Content-type: text/html",
            f"Content-Length: {len(body)}",
            *(f"{name.decode()}: {value.decode()}" for name, value in headers),
        ]
        self._transport.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        self._transport.close()


def parse_head(head: bytes, transport: asyncio.BaseTransport) -> Request:
    """The request that uvicorn hands over: checked, with lower-case names, and whole."""
    request_line, _, lines = head.partition(b"\r\n")
    target = request_line.split(b" ")[1]
    path, _, query = target.partition(b"?")
    peer = transport.get_extra_info("peername")
    return Request(
        path=unquote(path.decode("latin-1")),
        query_string=query,
        head=lines[:-4],
        client=(peer[0], peer[1]) if isinstance(peer, tuple) else None,
        scheme="https" if transport.get_extra_info("sslcontext") else "http",
    )


def native_websockets(engine: Callable[[], Engine]) -> Callable[..., asyncio.Protocol]:
    """What to give uvicorn as ``ws=``. ``engine`` is called at each upgrade, when the server has started."""

    def route(request: Request) -> Endpoint | None:
        found = engine()
        if request.path == PATH and found.raw_application is not None:
            return raw_endpoint(found)
        return engineio_endpoint(found) if request.path.startswith(found.config.path) else None

    return partial(NativeUpgrade, route)


def engineio_endpoint(engine: Engine) -> Endpoint:
    """Engine.IO's WebSockets: new sessions, and upgrades of those on long-polling."""

    def admit(request: Request) -> Admission:
        return Admission(engine.admit(request), base64=request.query.get("b64") == "1")

    return Endpoint(engine, engine.config.max_message_bytes, MAX_FRAGMENTS, _deflate_bits(engine), admit)


def raw_endpoint(engine: Engine) -> Endpoint:
    """The WebSockets of bellwire.v1."""

    def admit(request: Request) -> Admission:
        offered = request.headers.get("sec-websocket-protocol", "")
        subprotocol = engine.check_raw(request, [name.strip() for name in offered.split(",")])
        return Admission(lambda carrier: engine.open_raw(carrier, request, subprotocol), subprotocol)

    return Endpoint(engine, MAX_MESSAGE, MAX_FRAGMENTS, _deflate_bits(engine), admit)


def _deflate_bits(engine: Engine) -> int:
    return DEFAULT_WINDOW_BITS if engine.config.per_message_deflate else 0
