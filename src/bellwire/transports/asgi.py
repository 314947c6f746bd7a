"""Engine.IO and bellwire.v1 as ASGI 3 applications: long-polling under every server, WebSockets under those not ours.

Here each message costs what the ASGI server makes of it: a task, a queue and a frame of its own per client. The native
transport has none of these, and is used wherever Bellwire runs the server itself.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import ClassVar

from typing_extensions import override

from bellwire.core.clock import Timer
from bellwire.protocol.engineio import RequestError
from bellwire.protocol.handshake import HandshakeError
from bellwire.protocol.outgoing import Message
from bellwire.protocol.wire import MAX_MESSAGE
from bellwire.transports.base import CLOSE_TIMEOUT, ASGIMessage, Link, Receive, Request, Scope, Send
from bellwire.transports.cors import is_preflight, preflight, with_cors
from bellwire.transports.engine import Engine
from bellwire.transports.exchange import Abandoned, Exchange, refusal
from bellwire.transports.polling import Response, compress
from bellwire.transports.queued import QueuedCarrier

logger = logging.getLogger("bellwire.transports")


async def handle_http(engine: Engine, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one long-polling request."""
    request, method = Request.from_scope(scope), scope["method"]
    try:
        verdict = engine.edge.enter(request)
    except RequestError as error:
        await _send_response(refusal(error), send)
        return
    if verdict is not None and is_preflight(request, method):
        response = preflight(request)
    else:
        response = await engine.answer(_Exchange(request, method, receive))
    await _send_response(compress(with_cors(response, request, verdict), request), send)


class _Exchange(Exchange):
    """A request that came to this node."""

    def __init__(self, request: Request, method: str, receive: Receive) -> None:
        super().__init__(request, method)
        self._receive = receive

    @override
    async def chunk(self) -> tuple[bytes, bool]:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Abandoned
        return message.get("body", b""), message.get("more_body", False)

    @override
    async def disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _send_response(response: Response, send: Send) -> None:
    headers = [
        (b"content-type", response.content_type.encode()),
        (b"content-length", str(len(response.body)).encode()),
        (b"x-content-type-options", b"nosniff"),  # what others wrote is in it
        *_encoded(response.headers),
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


# --- WebSocket


async def handle_websocket(engine: Engine, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one WebSocket of Engine.IO until it ends."""
    await receive()  # websocket.connect
    request = Request.from_scope(scope)
    try:
        attach = engine.admit(request)
    except RequestError as error:
        await _deny(error, scope, send)
        return
    await send({"type": "websocket.accept"})
    base64 = request.query.get("b64") == "1"
    carrier = ASGIWebSocket(engine, receive, send, max_message=engine.config.max_message_bytes, base64=base64)
    carrier.session = attach(carrier)
    await carrier.run()


async def handle_raw_websocket(engine: Engine, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one WebSocket of bellwire.v1 until it ends."""
    await receive()  # websocket.connect
    request = Request.from_scope(scope)
    try:
        subprotocol = engine.check_raw(request, scope.get("subprotocols", ()))
    except (RequestError, HandshakeError) as error:
        await _deny(error, scope, send)
        return
    await send({"type": "websocket.accept", "subprotocol": subprotocol})
    carrier = ASGIWebSocket(engine, receive, send, max_message=MAX_MESSAGE)
    carrier.session = engine.open_raw(carrier, request, subprotocol)
    await carrier.run()


async def _deny(error: RequestError | HandshakeError, scope: Scope, send: Send) -> None:
    """Refuse an upgrade as Node's server does, with the bare message."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    body = error.message.encode()
    headers = [
        (b"content-type", b"text/html"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *_encoded(error.headers),
    ]
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers]


class ASGIWebSocket(QueuedCarrier[Link]):
    """A WebSocket of somebody else's server."""

    __slots__ = (
        "_base64",
        "_closing",
        "_end",
        "_max_message",
        "_receive",
        "_send",
        "_timer",
        "_wake",
    )

    name: ClassVar[str] = "websocket"

    def __init__(self, engine: Engine, receive: Receive, send: Send, *, max_message: int, base64: bool = False) -> None:
        super().__init__(engine)
        self._receive = receive
        self._send = send
        self._max_message = max_message
        self._base64 = base64
        self._wake: asyncio.Future[None] | None = None
        self._closing: int | None = None
        self._end: asyncio.Future[None] = engine.loop.create_future()
        self._timer: Timer | None = None

    # --- as a carrier

    @override
    def send(self, message: Message) -> None:
        if self._closing is not None:
            return
        self._enqueue(message)
        if len(self._queue) == 1:
            self._engine.tick.touch(self)
        elif self._wake is None and self._buffered > self._engine.config.send_buffer_bytes:
            self._engine.overflow(self.session)  # a writer that is idle shows that it is this tick's, and no backlog

    @override
    def flush(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    @override
    def close(self, code: int = 1000) -> None:
        if self._closing is None:
            self._closing = code
            self._timer = self._engine.wheel.after(CLOSE_TIMEOUT, self.abort)
            self.set_reading(True)
            self.flush()

    @override
    def abort(self) -> None:
        self._closing = self._closing or 1011
        if not self._end.done():
            self._end.set_result(None)

    # --- the two halves

    async def run(self) -> None:
        """Read and write until either side ends it."""
        reader = asyncio.ensure_future(self._read())
        writer = asyncio.ensure_future(self._write())
        try:
            await asyncio.wait((reader, writer, self._end), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._closing = self._closing or 1006  # there is nobody to be told
            if self._timer is not None:
                self._timer.cancel()
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            self._clear()
            self.session.lost(self, "transport close")

    async def _read(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return
            self._take(message)
            await self._may_read()

    def _take(self, message: ASGIMessage) -> None:
        packet = message.get("text")
        if packet is None:
            packet = message.get("bytes") or b""
        if _is_longer(packet, self._max_message):
            logger.debug("a client is disconnected, transport error: message is too long (close code 1009)")
            self.close(1009)
            self.session.lost(self, "transport error")
        else:
            self.session.received(self, packet)

    async def _write(self) -> None:
        while True:
            queue, self._queue = self._queue, []
            for message in queue:
                await self._write_message(message)
            if self._queue:
                continue
            if self._closing is not None:
                await self._send({"type": "websocket.close", "code": self._closing})
                return
            self._wake = self._engine.loop.create_future()
            await self._wake
            self._wake = None

    async def _write_message(self, message: Message) -> None:
        for part in message.base64_parts if self._base64 else message.parts:
            await self._send(
                {"type": "websocket.send", **({"text": part} if isinstance(part, str) else {"bytes": part})}
            )
        self._dequeue(message.size)


def _is_longer(packet: str | bytes, limit: int) -> bool:
    """Whether ``packet`` has more than ``limit`` bytes; text is counted as UTF-8, and only where that can matter."""
    if len(packet) > limit:
        return True
    return isinstance(packet, str) and len(packet) * 4 > limit and len(packet.encode()) > limit
