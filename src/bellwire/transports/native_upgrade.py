"""The opening of a WebSocket on uvicorn's own sockets: whom a request is for, whether it may come in, the 101.

uvicorn parses a request's head and, at an upgrade, makes an object of its configured WebSocket class, calls
``connection_made(transport)`` and ``data_received(head)`` on it, and makes it the transport's protocol. The class here
looks at the path: Socket.IO's and that of bellwire.v1 go to :class:`NativeWebSocket`, every other one to uvicorn's
implementation and so to the user's ASGI application. What needs no parser does not come this way
(`bellwire.transports.first_read`), and is opened by the same function.
"""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, TypeAlias, cast
from urllib.parse import unquote

from uvicorn.config import Config as UvicornConfig
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from bellwire.protocol.deflate import DEFAULT_WINDOW_BITS, negotiate
from bellwire.protocol.engineio import RequestError
from bellwire.protocol.handshake import HandshakeError, build_response, check_upgrade
from bellwire.protocol.websocket import WebSocket
from bellwire.protocol.wire import MAX_MESSAGE, PATH
from bellwire.transports.base import Link, Request
from bellwire.transports.engine import Engine
from bellwire.transports.native import NativeWebSocket

MAX_FRAGMENTS = 1024
"""Frames of one message; a peer could otherwise have each byte cost a frame's work."""


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


def open_websocket(
    endpoint: Endpoint, request: Request, method: str, transport: asyncio.Transport, server_state: ServerState
) -> NativeWebSocket | None:
    """Open a WebSocket on ``transport``: return what takes its bytes. None if that was refused, and the client told."""
    try:
        key = check_upgrade(method, "1.1", request.headers)
        admission = endpoint.admit(request)
    except (HandshakeError, RequestError) as error:
        _refuse(transport, error.status, error.message, error.headers)
        return None
    bits = endpoint.deflate_bits
    offer = request.headers.get("sec-websocket-extensions") if bits else None
    inflate, extensions = negotiate(offer, max_window_bits=bits) or (None, None)
    ws = WebSocket(max_message=endpoint.max_message, max_fragments=endpoint.max_fragments, inflate=inflate)
    agreed = 0 if inflate is None else inflate.parameters.server_max_window_bits
    carrier = NativeWebSocket(
        endpoint.engine, server_state, transport, ws, base64=admission.base64, deflate_bits=agreed
    )
    carrier.open(build_response(key, subprotocol=admission.subprotocol, extensions=extensions), admission.connect)
    return carrier


def _refuse(transport: asyncio.Transport, status: int, message: str, headers: Iterable[tuple[str, str]]) -> None:
    """Refuse an upgrade as Node's server does: the bare message, and the connection ends."""
    body = message.encode()
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Connection: close",
        "Content-type: text/html",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    transport.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
    transport.close()


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
        if endpoint is None:
            self._next = self._delegate(data)
        else:
            method = data.partition(b" ")[0].decode()
            self._next = open_websocket(endpoint, request, method, self._transport, self._uvicorn[1])
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


def parse_head(head: bytes, transport: asyncio.BaseTransport) -> Request:
    """The request that uvicorn hands over: checked, with lower-case names, and whole."""
    request_line, _, fields = head.partition(b"\r\n")
    return request_on(transport, request_line.split(b" ")[1], fields[:-4])


def request_on(
    transport: asyncio.BaseTransport, target: bytes, fields: bytes, headers: dict[str, str] | None = None
) -> Request:
    """The request for ``target`` that came on a connection; ``headers`` are its ``fields`` if they were read."""
    path, _, query = target.partition(b"?")
    peer = transport.get_extra_info("peername")
    return Request(
        path=unquote(path.decode("latin-1")),
        query_string=query,
        head=fields,
        headers=headers,
        client=(peer[0], peer[1]) if isinstance(peer, tuple) else None,
        scheme="https" if transport.get_extra_info("sslcontext") else "http",
    )


def native_websockets(engine: Callable[[], Engine]) -> Callable[..., asyncio.Protocol]:
    """What to give uvicorn as ``ws=``. ``engine`` is called at each upgrade, when the server has started."""
    return partial(NativeUpgrade, lambda request: native_route(engine(), request))


def native_route(engine: Engine, request: Request) -> Endpoint | None:
    """What serves a request on the paths of ``engine``; None for all others."""
    if request.path == PATH and engine.raw_application is not None:
        return raw_endpoint(engine)
    return engineio_endpoint(engine) if request.path.startswith(engine.config.path) else None


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
