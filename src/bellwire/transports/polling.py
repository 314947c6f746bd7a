"""Long-polling: a GET that waits for packets, POSTs that bring them (Engine.IO protocol v4, "HTTP long-polling").

What Node's server answers in each case is kept to the letter, since clients of many languages were written to it.
"""

import asyncio
import gzip
import logging
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from typing_extensions import override

from bellwire.core.errors import PacketError
from bellwire.protocol.engineio import NOOP, decode_payload
from bellwire.protocol.outgoing import Message, Outgoing, join
from bellwire.transports.base import Request
from bellwire.transports.queued import QueuedCarrier
from bellwire.transports.session import Session

if TYPE_CHECKING:
    from bellwire.transports.engine import Engine

logger = logging.getLogger("bellwire.transports")

COMPRESS_FROM = 1024
"""Responses of this many bytes and more are compressed if the client takes that (Node's ``httpCompression``)."""

ANSWERS = 4
"""Into how many answers a full send buffer goes, unless a message is longer than such a part: so it is seen that a
client on a slow line reads, and little is given to a connection that nobody reads from."""

_NOOP = Outgoing(NOOP)


class Response(NamedTuple):
    """An HTTP response whose body is complete."""

    status: int
    body: bytes = b""
    content_type: str = "text/html"
    headers: tuple[tuple[str, str], ...] = ()


OVERLAP = Response(400)
GONE = Response(400)
TOO_LARGE = Response(413)
OK = Response(200, b"ok")


class PollingCarrier(QueuedCarrier[Session]):
    """The server's half of long-polling: packets wait here for the client's next GET."""

    __slots__ = ("_closing", "_posting", "_reading", "_touched", "_waiter", "_waiting")

    name: ClassVar[str] = "polling"

    def __init__(self, engine: "Engine") -> None:
        super().__init__(engine)
        self._waiter: asyncio.Future[str | None] | None = None
        self._waiting: asyncio.Timeout | None = None  # as long as the waiter is there
        self._touched = False
        self._posting = False
        self._reading: asyncio.Timeout | None = None  # while a POST is read
        self._closing = False

    # --- as a carrier

    @override
    def send(self, message: Message) -> None:
        self._enqueue(message)
        if self._waiter is not None:
            if not self._touched:
                self._touched = True
                self._engine.tick.touch(self)
        elif self._buffered > self._engine.config.send_buffer_bytes and not self._closing:
            self._engine.overflow(self.session)

    @override
    def flush(self) -> None:
        self._touched = False
        if self._queue and self._waiter is not None and not self._waiter.done():
            self._answer(self._take())

    @override
    def close(self, code: int = 1000) -> None:
        self._end()
        self.flush()

    @override
    def abort(self) -> None:
        self._end()
        self._clear()
        self._answer(None)

    def _end(self) -> None:
        self._closing = True
        self.set_reading(True)
        self._interrupt(self._reading)

    @property
    def lingers(self) -> bool:
        """Whether the session ended with packets that no GET has fetched yet."""
        return self._closing and bool(self._queue)

    def release(self) -> list[Message]:
        """Give up what is queued, and answer a GET that still waits: the session goes on elsewhere."""
        queue = self._queue[:]
        self._clear()
        self.set_reading(True)
        self._answer(_NOOP.payload)
        return queue

    def let_go(self) -> None:
        """Answer a GET that waits, though there is nothing to tell."""
        if self._waiter is not None:
            self.send(_NOOP)

    def _take(self) -> str:
        # The packet that ends the session comes last, and in a payload of its own, as from Node's server: clients act
        # on it at once but on messages a moment later, and would take a disconnect before it for a broken connection.
        last = len(self._queue) - 1 if self._closing else 0
        queue = _first(self._queue[:last] or self._queue, self._engine.config.send_buffer_bytes // ANSWERS)
        self._queue = self._queue[len(queue) :]
        self._dequeue(sum([message.size for message in queue]))
        return join(queue).payload

    # --- GET

    async def get(self, disconnected: Callable[[], Awaitable[None]]) -> Response:
        """Wait for packets. ``disconnected`` returns when the client gives this request up."""
        if self._waiter is not None:
            self.session.close("transport error")
            return OVERLAP
        if self._queue:
            return _packets(self._take())
        if self._closing:
            return GONE
        if self.session.probed:
            return _packets(_NOOP.payload)
        payload = await self._wait(disconnected)
        return GONE if payload is None else _packets(payload)

    async def _wait(self, disconnected: Callable[[], Awaitable[None]]) -> str | None:
        self._waiter = waiter = self._engine.loop.create_future()
        try:
            # A task for each of the two that may come first would be a quarter of all that a request costs.
            async with asyncio.timeout(None) as self._waiting:
                await disconnected()
        except TimeoutError:
            payload: str | None = waiter.result()
            return payload
        finally:
            self._waiter = self._waiting = None
        if self.session.carrier is self:  # an aborted GET ends the session; what it would have carried is lost with it
            self.session.close("transport close", abort=True)
        return None

    def _answer(self, payload: str | None) -> None:
        """Let the GET that waits return, if there is one and nothing else has."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(payload)
            self._interrupt(self._waiting)

    def _interrupt(self, waiting: asyncio.Timeout | None) -> None:
        """End what is awaited, unless that is being done already: then it could not be told again."""
        if waiting is not None and not waiting.expired():
            waiting.reschedule(self._engine.loop.time())

    # --- POST

    async def post(self, body: Callable[[], Awaitable[bytes | None]], content_type: str) -> Response:
        """Take the packets of a POST. ``body`` reads it and returns None if it is larger than allowed."""
        session = self.session
        if self._posting or content_type == "application/octet-stream":
            session.close("transport error")
            return OVERLAP
        self._posting = True
        try:
            content = await self._while_open(body())
            if content is None:
                return TOO_LARGE
            return await self._deliver(content)
        finally:
            self._posting = False

    async def _while_open(self, body: Awaitable[bytes | None]) -> bytes | None:
        """What ``body`` brings, nothing if this carrier ends before: a client may never send the rest."""
        try:
            async with asyncio.timeout(None) as self._reading:
                return await body
        except TimeoutError:
            return b""
        finally:
            self._reading = None

    async def _deliver(self, content: bytes) -> Response:
        session = self.session
        if session.closed or session.carrier is not self:  # it ended, or was upgraded, while the body came
            return GONE
        try:
            packets = decode_payload(content, max_packets=self._engine.config.max_packets_per_post)
        except PacketError as error:
            logger.debug("a client is disconnected, parse error: %s", error)
            session.close("parse error")
            return GONE
        for packet in packets:
            session.received(self, packet)
            await self._may_read()
        return OK


def _first(queue: list[Message], most: int) -> list[Message]:
    """As much of it as goes into one answer of ``most`` bytes; the first message whatever its size."""
    size = 0
    for place, message in enumerate(queue):
        size += message.size
        if size > most and place:
            return queue[:place]
    return queue


def _packets(payload: str) -> Response:
    return Response(200, payload.encode(), "text/plain; charset=UTF-8", (("cache-control", "no-store"),))


def compress(response: Response, request: Request) -> Response:
    """``response``, compressed if it is worth it and the client's Accept-Encoding has gzip or deflate."""
    if len(response.body) < COMPRESS_FROM:
        return response
    accepted = _accepted_encodings(request.headers)
    if "gzip" in accepted:
        return _encoded(response, gzip.compress(response.body, compresslevel=1, mtime=0), "gzip")
    if "deflate" in accepted:
        return _encoded(response, zlib.compress(response.body, level=1), "deflate")
    return response


def _encoded(response: Response, body: bytes, encoding: str) -> Response:
    return response._replace(body=body, headers=(*response.headers, ("content-encoding", encoding)))


def _accepted_encodings(headers: Mapping[str, str]) -> set[str]:
    """The encodings that a client takes (RFC 9110 §12.5.3); those with ``q=0`` are refused ones."""
    accepted = set()
    for item in headers.get("accept-encoding", "").split(","):
        name, _, parameters = item.partition(";")
        if parameters.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}:
            accepted.add(name.strip().lower())
    return accepted
