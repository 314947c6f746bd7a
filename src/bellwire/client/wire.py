"""One connection's bytes: TCP or TLS, the opening handshake, frames, and the timer of its link."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias, cast

from typing_extensions import override

from bellwire.client.address import Address
from bellwire.client.link import MAX_BYTES, OPEN_SECONDS, Action, Ended, Joined, Link, News, Refused, Send, Welcome
from bellwire.core.errors import ConnectRefused, PacketError
from bellwire.protocol.client_handshake import Response, ResponseError, build_request, new_key, subprotocols
from bellwire.protocol.client_websocket import ClientWebSocket
from bellwire.protocol.outgoing import Message
from bellwire.protocol.websocket import CLOSED

CLOSING_SECONDS: Final = 2.0
"""For the server's part in the end of a connection; then it is aborted."""

MAX_OWED_BYTES: Final = 1024 * 1024
"""Bytes of answers (pongs, acknowledgements) that wait for a server that asks and does not read."""


class Listener(Protocol):
    """Who is told what happens on a wire."""

    def attached(self, wire: "Wire") -> None:
        """There is a connection; what is told from now on is of this one."""

    def joined(self, welcome: Welcome) -> None:
        """The namespace is joined."""

    def refused(self, error: ConnectRefused) -> None:
        """The server refused the client; the wire closes."""

    def told(self, news: News) -> None:
        """Something came. Raises PacketError if it cannot be read."""

    def relieved(self) -> None:
        """The wire is writable again."""


MakeLink: TypeAlias = Callable[[str | None, float], Link]
"""Makes the link for the sub-protocol that was chosen, and for a connection begun at that time."""


class Wire(asyncio.Protocol):
    """A connection; ``over`` is done, with why, when it is gone for good.

    ``offered`` are sub-protocols of the WebSocket, the best first. ``link`` is None until the WebSocket is open.
    """

    __slots__ = (
        "_closing",
        "_ended",
        "_listener",
        "_loop",
        "_make_link",
        "_owed",
        "_reading",
        "_request",
        "_response",
        "_started",
        "_timer",
        "_transport",
        "_watched",
        "_ws",
        "link",
        "over",
        "writable",
    )

    def __init__(self, address: Address, offered: Sequence[str], make_link: MakeLink, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        key = new_key()
        headers = [subprotocols(offered)] if offered else []
        self._loop = loop
        self._listener = listener
        self._make_link = make_link
        self._started = loop.time()
        self._request = build_request(address.authority, address.target, key, headers)
        self._response: Response | None = Response(key, offered)
        self._ws = ClientWebSocket(max_message=MAX_BYTES)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watched = 0.0  # what the timer is set to
        self._ended: Ended | None = None  # why this side ended it
        self._closing = False
        self._reading = True
        self._owed = 0
        self.link: Link | None = None
        self.over: asyncio.Future[Ended] = loop.create_future()
        self.writable = True
        """Whether the server keeps up with what is sent; False once the connection is being closed."""

    # --- what the session does

    def send(self, message: Message) -> None:
        """Write a message, whether the wire is writable or not."""
        if self._transport is not None and not self._closing:
            self._transport.write(self._encode(message))

    def answer(self, message: Message) -> None:
        """Write what the server asked for; one that asks on and on and does not read loses the connection."""
        self._write_owed(self._encode(message))

    def leave(self, reason: str) -> None:
        """Leave the namespace and close the connection, behind all that was sent."""
        if self.link is not None:
            self.send(self.link.codec.leave())
        self.close(Ended(reason))

    def close(self, ended: Ended, code: int = 1000) -> None:
        """Start the closing handshake (RFC 6455, section 7.1.2); the server may have the client back."""
        if self._closing or self._transport is None:
            return
        self._end(ended)
        if self._response is None:
            self._ws.close(code)
            self._transport.write(self._ws.take_outgoing())
        else:
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Be rid of the connection at once."""
        self._end(Ended(reason))
        if self._transport is not None:
            self._transport.abort()

    def set_reading(self, reading: bool) -> None:
        """Stop to read, so that TCP slows the server down, or go on; silence is not the server's fault meanwhile."""
        if self._reading is reading or self._transport is None:
            return
        self._reading = reading
        if reading and self.link is not None:
            self.link.heard(self._loop.time())
        if self._closing or self._transport.is_closing():
            return
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    # --- what the loop says

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)
        self._watch()
        self._listener.attached(self)

    @override
    def data_received(self, data: bytes) -> None:
        now = self._loop.time()
        link = self.link
        if link is None:
            rest = self._open(data, now)
            link = self.link
            if link is None or not rest:
                return
            data = rest
        link.heard(now)
        ws = self._ws
        for message in ws.receive(data):
            self._take(link, message, now)
        if ws.outgoing:
            owed = ws.take_outgoing()
            if not self._closing or ws.state == CLOSED:  # nobody's ping is answered behind a close frame
                self._write_owed(owed)
        if ws.state == CLOSED and self._transport is not None:
            self._end(link.closed(ws.close_code) if ws.error is None else Ended("transport error"))
            self._transport.close()

    @override
    def pause_writing(self) -> None:
        self.writable = False

    @override
    def resume_writing(self) -> None:
        self._owed = 0
        if not self._closing:
            self.writable = True
            self._listener.relieved()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        if not self.over.done():
            lost = Ended("transport close" if exc is None else "transport error")
            self.over.set_result(self._ended or lost)

    # --- inside

    def _open(self, data: bytes, now: float) -> bytes | None:
        if self._response is None or self._closing:
            return None
        try:
            rest = self._response.receive(data)
        except ResponseError as error:
            self.abort(str(error))
            return None
        if rest is not None:
            link = self.link = self._make_link(self._response.subprotocol, self._started)
            self._response = None
            self._do(link.opened(now))
        return rest

    def _take(self, link: Link, message: str | bytes, now: float) -> None:
        if self._closing:
            return
        try:
            self._do(link.receive(message, now))
        except PacketError:
            self.close(Ended("parse error"), 1002)

    def _do(self, action: Action | None) -> None:
        match action:
            case None:
                pass
            case Send(message):
                self._write_owed(self._encode(message))
                self._hurry()
            case Joined(welcome):
                self._hurry()
                self._listener.joined(welcome)
            case Refused(message, data):
                self._listener.refused(ConnectRefused(message, data))
                self.close(Ended("connect_error", final=True))
            case Ended():
                self.close(action)
            case _:
                self._listener.told(action)

    def _tick(self) -> None:
        link = self.link
        if self._closing:
            self.abort("transport close")
        elif not self._reading:
            self._timer = self._loop.call_later(OPEN_SECONDS, self._tick)
        elif link is None:
            self.abort("connect timeout")
        elif isinstance(action := link.tick(self._loop.time()), Ended):
            self.abort(action.reason)
        else:
            self._do(action)
            self._watch()

    def _watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._closing:
            return
        self._watched = self._started + OPEN_SECONDS if self.link is None else self.link.deadline
        self._timer = self._loop.call_at(self._watched, self._tick)

    def _hurry(self) -> None:
        """The deadline may have come nearer; one that has moved away is found out when the timer is due."""
        if self.link is not None and self.link.deadline < self._watched:
            self._watch()

    def _end(self, ended: Ended) -> None:
        """From here on nothing that comes is heard; the server has `CLOSING_SECONDS`."""
        if self._closing:
            return
        self._closing = True
        self.writable = False  # what is sent from now on waits for another connection
        self._ended = ended
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None and not self.over.done():
            self._timer = self._loop.call_later(CLOSING_SECONDS, self._tick)
            if not self._reading and not self._transport.is_closing():
                self._transport.resume_reading()  # the server's close frame lies behind what was not read

    def _encode(self, message: Message) -> bytes:
        encode = self._ws.encode
        parts = message.parts
        return encode(parts[0]) if len(parts) == 1 else b"".join([encode(part) for part in parts])

    def _write_owed(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if not self.writable:
            self._owed += len(data)
            if self._owed > MAX_OWED_BYTES:
                self.abort("transport error")
                return
        self._transport.write(data)


async def open_wire(
    address: Address,
    context: ssl.SSLContext | None,
    offered: Sequence[str],
    make_link: MakeLink,
    listener: Listener,
) -> Wire:
    """Connect, and return as soon as bytes can go; what comes of it the listener hears.

    Raises OSError, TimeoutError among them, if there is no connection.
    """
    loop = asyncio.get_running_loop()
    wire = Wire(address, offered, make_link, listener)
    try:
        async with asyncio.timeout(OPEN_SECONDS):
            await loop.create_connection(
                lambda: wire,
                address.host,
                address.port,
                ssl=context,
                server_hostname=address.host if context is not None else None,
            )
    except BaseException:
        wire.abort("connect timeout")
        raise
    return wire
