"""The first bytes of a connection: what opens a WebSocket and is plain needs no parser, all else goes to uvicorn's.

A parser for each connection, a call for each of its fields and a head that is put together again cost more than all
that is asked of the request. Most connections are WebSockets, and their heads come whole and in the plainest form.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from bellwire.core.clock import Timer
from bellwire.protocol.handshake import asks_for_websocket
from bellwire.protocol.plain_head import read_plain_head
from bellwire.transports.base import Request
from bellwire.transports.descriptor import number_of
from bellwire.transports.engine import Engine
from bellwire.transports.native_http import HttpProtocol
from bellwire.transports.native_upgrade import native_route, open_websocket, request_on


class FirstRead(asyncio.Protocol):
    """A connection on which nothing has come yet; it is `bellwire.transports.edge.Silent`."""

    __slots__ = ("_engine", "_timer", "_transport", "_uvicorn")

    def __init__(self, engine: Engine, uvicorn: dict[str, Any]) -> None:
        self._engine = engine
        self._uvicorn = uvicorn  # what it gives to each protocol of HTTP

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first head is due from now on."""
        engine = self._engine
        self._transport = cast("asyncio.Transport", transport)
        self._uvicorn["server_state"].connections.add(self)
        engine.edge.note(number_of(transport))
        engine.edge.knock(self, engine.loop.time())
        self._timer: Timer = engine.wheel.after(engine.config.head_timeout, self.hang_up)

    def data_received(self, data: bytes) -> None:
        """The client says what it wants, or begins to."""
        request = plain_upgrade(data, self._transport)
        endpoint = None if request is None else native_route(self._engine, request)
        if request is None or endpoint is None:
            self._hand_over(data)
            return
        self._spoke()
        carrier = open_websocket(endpoint, request, "GET", self._transport, self._uvicorn["server_state"])
        if carrier is not None:
            self._transport.set_protocol(carrier)

    def _hand_over(self, data: bytes) -> None:
        """Leave it to uvicorn, by the deadline that this connection has."""
        self._uvicorn["server_state"].connections.discard(self)
        http = HttpProtocol(self._engine, self, self._timer, **self._uvicorn)
        http.connection_made(self._transport)
        self._transport.set_protocol(http)
        http.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone without a word."""
        self._spoke()

    def _spoke(self) -> None:
        self._uvicorn["server_state"].connections.discard(self)
        self._engine.edge.spoke(self)
        self._timer.cancel()

    def hang_up(self) -> None:
        """End it: no head has come."""
        self._transport.abort()

    def shutdown(self) -> None:
        """Uvicorn stops."""
        self._transport.close()


def plain_upgrade(data: bytes, transport: asyncio.BaseTransport) -> Request | None:
    """The request that ``data`` is if it asks for a WebSocket, and needs no parser."""
    head = read_plain_head(data)
    if head is None or head.headers.get("upgrade", "").lower() != "websocket" or not asks_for_websocket(head.headers):
        return None
    return request_on(transport, *head)


def native_http(engine: Callable[[], Engine]) -> Callable[..., asyncio.Protocol]:
    """What to give uvicorn as ``http=``."""

    def make(**uvicorn: Any) -> asyncio.Protocol:
        return FirstRead(engine(), uvicorn)

    return make
