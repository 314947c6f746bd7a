"""One connection's bytes: TCP or TLS, the opening handshake, frames, and the timer of its link."""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Final, Protocol, cast

from typing_extensions import override

from bellwire.client.address import Address
from bellwire.client.link import MAX_BYTES, OPEN_SECONDS, Action, Answered, Ended, Joined, Link, Received, Refused, Send
from bellwire.core.errors import ConnectRefused, PacketError
from bellwire.protocol.client_handshake import Response, ResponseError, build_request, new_key
from bellwire.protocol.client_websocket import ClientWebSocket
from bellwire.protocol.outgoing import Message
from bellwire.protocol.socketio import Packet, encode_disconnect
from bellwire.protocol.websocket import CLOSED

CLOSING_SECONDS: Final = 2.0
"""For the server's part in the end of a connection; then it is aborted."""

MAX_OWED_BYTES: Final = 1024 * 1024
"""Bytes of answers (pongs, acknowledgements) that wait for a server that asks and does not read."""


class Listener(Protocol):
    """Who is told what happens on a wire."""

    def attached(self, wire: "Wire") -> None:
        """There is a connection; what is told from now on is of this one."""

    def joined(self, sid: str) -> None:
        """The namespace is joined."""

    def refused(self, error: ConnectRefused) -> None:
        """The server refused the client; the wire closes."""

    def received(self, packet: Packet, objects: list[Any] | None) -> None:
        """An event came. Raises PacketError if it is none."""

    def answered(self, packet: Packet, objects: list[Any] | None) -> None:
        """An acknowledgement came. Raises PacketError if it cannot be read."""

    def relieved(self) -> None:
        """The wire is writable again."""


class Wire(asyncio.Protocol):
    """A connection; ``over`` is done, with the reason, when it is gone for good."""

    __slots__ = (
        "_closing",
        "_key",
        "_link",
        "_listener",
        "_loop",
        "_namespace",
        "_owed",
        "_reading",
        "_reason",
        "_request",
        "_response",
        "_timer",
        "_transport",
        "_ws",
        "over",
        "writable",
    )

    def __init__(self, address: Address, namespace: str, auth: Mapping[str, Any] | None, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        key = new_key()
        self._loop = loop
        self._namespace = namespace
        self._listener = listener
        self._link = Link(namespace, auth, loop.time())
        self._request = build_request(address.authority, address.target, key)
        self._response: Response | None = Response(key)
        self._ws = ClientWebSocket(max_message=MAX_BYTES)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reason: str | None = None  # why this side ended it
        self._closing = False
        self._reading = True
        self._owed = 0
        self.over: asyncio.Future[str] = loop.create_future()
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
        self.send(encode_disconnect(self._namespace))
        self.close(reason)

    def close(self, reason: str, code: int = 1000) -> None:
        """Start the closing handshake (RFC 6455, section 7.1.2)."""
        if self._closing or self._transport is None:
            return
        self._end(reason)
        if self._response is None:
            self._ws.close(code)
            self._transport.write(self._ws.take_outgoing())
        else:
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Be rid of the connection at once."""
        self._end(reason)
        if self._transport is not None:
            self._transport.abort()

    def set_reading(self, reading: bool) -> None:
        """Stop to read, so that TCP slows the server down, or go on; silence is not the server's fault meanwhile."""
        if self._reading is reading or self._transport is None:
            return
        self._reading = reading
        if reading:
            self._link.heard(self._loop.time())
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
        self._link.heard(now)
        if self._response is not None:
            rest = self._open(data)
            if not rest:
                return
            data = rest
        ws = self._ws
        for message in ws.receive(data):
            self._take(message, now)
        if ws.outgoing:
            owed = ws.take_outgoing()
            if not self._closing or ws.state == CLOSED:  # nobody's ping is answered behind a close frame
                self._write_owed(owed)
        if ws.state == CLOSED and self._transport is not None:
            self._end("transport close" if ws.error is None else "transport error")
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
            self.over.set_result(self._reason or ("transport close" if exc is None else "transport error"))

    # --- inside

    def _open(self, data: bytes) -> bytes | None:
        if self._response is None or self._closing:
            return None
        try:
            rest = self._response.receive(data)
        except ResponseError as error:
            self.abort(str(error))
            return None
        if rest is not None:
            self._response = None
        return rest

    def _take(self, message: str | bytes, now: float) -> None:
        if self._closing:
            return
        try:
            action = self._link.receive(message, now)
            if action is not None:
                self._do(action)
        except PacketError:
            self.close("parse error", 1002)

    def _do(self, action: Action) -> None:
        match action:
            case Received(packet, objects):
                self._listener.received(packet, objects)
            case Answered(packet, objects):
                self._listener.answered(packet, objects)
            case Send(message):
                self._write_owed(self._encode(message))
            case Joined(sid):
                self._watch()  # its deadline may have come nearer
                self._listener.joined(sid)
            case Refused(message, data):
                self._listener.refused(ConnectRefused(message, data))
                self.close("connect_error")
            case Ended(reason):
                self.close(reason)

    def _tick(self) -> None:
        now = self._loop.time()
        if self._closing:
            self.abort(self._reason or "transport close")
        elif not self._reading:
            self._timer = self._loop.call_later(OPEN_SECONDS, self._tick)
        elif (ended := self._link.tick(now)) is not None:
            self.abort(ended.reason)
        else:
            self._watch()

    def _watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._link.deadline, self._tick)

    def _end(self, reason: str) -> None:
        """From here on nothing that comes is heard; the server has `CLOSING_SECONDS`."""
        if self._closing:
            return
        self._closing = True
        self.writable = False  # what is sent from now on waits for another connection
        self._reason = reason
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
    namespace: str,
    auth: Mapping[str, Any] | None,
    listener: Listener,
) -> Wire:
    """Connect, and return as soon as bytes can go; what comes of it the listener hears.

    Raises OSError, TimeoutError among them, if there is no connection.
    """
    loop = asyncio.get_running_loop()
    wire = Wire(address, namespace, auth, listener)
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
