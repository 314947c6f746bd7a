"""uvicorn's HTTP on Bellwire's terms: what a client sends, or does not read, is bounded in bytes and in time.

uvicorn's own timeout ends at the first byte, so a client that sends one byte a second holds a connection for as long as
it likes ("slowloris"), and so does one whose bytes begin no request. A response that nobody reads uvicorn keeps for
ever, also where it closes the connection; here it counts among what is `bellwire.transports.unread`.
"""

import asyncio
from typing import Any, cast

from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from bellwire.core.clock import Timer
from bellwire.transports.edge import Silent
from bellwire.transports.engine import Engine
from bellwire.transports.unread import Cause

MAX_HEAD = 65_536
"""Bytes of a request's head, and of a chunked body's trailers; llhttp keeps them all (nginx has 32 KiB, Node 16)."""


MAX_FIELDS = 128
"""Fields of a head; browsers send some twenty, proxies a few more (websockets has the same bound)."""

MAX_WAITING = 64
"""Requests that wait behind the one that is answered; each takes kilobytes, though it may have come in a few bytes."""

MAX_DISCARDED = 2 * 1024 * 1024
"""Bytes that are read after a head was refused, and looked at no more."""

COPIED = 65_536
"""Bytes up to which what follows a head is copied behind it."""

HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Joined:
    """What responses are written to: the head of each leaves with what follows in the same turn of the loop, at once.

    uvicorn writes each by itself, which a short answer is not worth.
    """

    __slots__ = ("_head", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head: bytes | None = None  # b"" once it has left

    def write(self, data: bytes) -> None:
        """Write the head, or what follows."""
        if self._head is None:
            self._head = data
            self._loop.call_soon(self.flush)
        elif self._head and len(data) <= COPIED:
            head, self._head = self._head, b""
            self._transport.write(head + data)
        else:
            self.flush()
            self._transport.write(data)

    def flush(self) -> None:
        """Write the head if it has not left yet."""
        if self._head:
            head, self._head = self._head, b""
            if not self._transport.is_closing():  # else uvloop raises
                self._transport.write(head)

    def complete(self) -> None:
        """A response has come to its end, maybe without a body; the next one begins with its own head."""
        self.flush()
        self._head = None

    def close(self) -> None:
        """End the connection."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether it is about to end."""
        return self._transport.is_closing()


class HttpProtocol(HttpToolsProtocol):
    """One connection of HTTP/1.1, with an absolute deadline for each head, and a watch on what waits to be read.

    The first head has the ``deadline`` that it was given when the connection came, and until then it is ``silent``.
    """

    def __init__(self, engine: Engine, silent: Silent, deadline: Timer, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._engine = engine
        self._wheel = engine.wheel
        self._head_timeout = engine.config.head_timeout
        self._silent = silent
        self._deadline: Timer | None = deadline
        self._overhead = 0  # bytes since a head, or a piece of a body, was complete
        self._fields = 0
        self._begun = False  # a head, which is not complete
        self._refused = False
        self._answered: RequestResponseCycle | None = None  # the request whose response is written, or was

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is known what to write to."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._responses = Joined(self.transport, self._engine.loop)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        self._overhead += len(data)
        if self._refused:  # they are let run into the void, for a while: cut off, he might never read the answer
            if self._overhead > MAX_DISCARDED:
                self.transport.abort()
            return
        super().data_received(data)
        if self._overhead > MAX_HEAD and not self._refused:
            self._refuse_head()
        elif self._deadline is None and (self._begun or self._idle) and not self.flow.read_paused:
            self._expect_head()

    @property
    def _idle(self) -> bool:
        """Whether no request is being answered, though this is still the connection's protocol."""
        cycle: RequestResponseCycle | None = self.cycle
        upgraded = self.transport.get_protocol() is not self
        return not upgraded and (cycle is None or cycle.response_complete)

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._overhead = 0
        super().on_body(body)

    def on_message_begin(self) -> None:
        """A further request on the same connection began."""
        if len(self.pipeline) >= MAX_WAITING:
            raise HttpParserError("too many requests")
        super().on_message_begin()
        self._fields = 0
        self._begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field of the head."""
        self._fields += 1
        if self._fields > MAX_FIELDS:
            raise HttpParserError("too many header fields")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is here."""
        self._overhead = 0
        self._begun = False
        self._head_came()
        super().on_headers_complete()
        if self.cycle is not None:  # else this begins a WebSocket
            self.cycle.transport = cast("Any", self._responses)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """It is the turn of a request to be answered."""
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over, and let go of the parser: it holds this object, and this object it."""
        if not self._idle:  # the 101 would come before the end of another answer, or in its middle
            self.transport.abort()
            return
        super().handle_websocket_upgrade()
        self.parser = None  # type: ignore[assignment]
        self._engine.unread.forget(self)

    def eof_received(self) -> None:
        """The client has sent all that it will, and uvicorn ends the connection behind what is written."""
        self._responses.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; of the requests that came behind the one that is answered nobody knows yet."""
        self._head_came()
        self._engine.unread.forget(self)
        self.cycle = self._answered  # type: ignore[assignment]  # which uvicorn tells
        super().connection_lost(exc)

    # --- responses that are not read

    def pause_writing(self) -> None:
        """The kernel takes no more of a response."""
        super().pause_writing()
        self._engine.unread.note(self, self.buffered)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._engine.unread.forget(self)

    def on_response_complete(self) -> None:
        """A response is written; the kernel may not have taken all of it."""
        self._responses.complete()
        super().on_response_complete()
        if self.buffered:
            self._engine.unread.note(self, self.buffered)

    @property
    def buffered(self) -> int:
        """Bytes of responses that the kernel has not taken."""
        return self.transport.get_write_buffer_size()

    @property
    def progress(self) -> int:
        """It falls when a further response is added, and grows when something is taken."""
        return -self.buffered

    def cut(self, cause: Cause) -> None:
        """End the connection, and let go of what waits."""
        self._engine.report_slow(cause)
        self.transport.abort()

    # --- deadlines

    def _expect_head(self) -> None:
        self._deadline = self._wheel.after(self._head_timeout, self._too_slow)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request of HTTP, or has too many fields, or is one request too many."""
        if self._fields > MAX_FIELDS:
            self._refuse_head()
            return
        self._engine.counters.add("requests_refused_total", reason="malformed")
        if len(self.pipeline) >= MAX_WAITING:  # this answer would come before theirs
            self.transport.abort()
            return
        super().send_400_response(msg)

    def _refuse_head(self) -> None:
        """The head is too large, or has too many fields: say so, where an answer can be expected."""
        self._engine.counters.add("requests_refused_total", reason="head_too_large")
        self._refused = True
        if not self._idle:
            self.transport.abort()
            return
        self.transport.write(HEAD_TOO_LARGE)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
        if self._deadline is None:
            self._expect_head()

    def _head_came(self) -> None:
        self._engine.edge.spoke(self._silent)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        self.transport.abort()
