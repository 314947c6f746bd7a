"""One request of long-polling, however it reached this node, and how it is answered.

An Engine.IO session lives on one node, and its sid names it. Behind a balancer that is not sticky a request may reach
another node; that one has the owner answer it, through a *forwarder*, and hands the answer back.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from bellwire.protocol.engineio import RequestError
from bellwire.transports.arrival import Arrival
from bellwire.transports.base import Carrier, Link, Request
from bellwire.transports.polling import PollingCarrier, Response
from bellwire.transports.session import Session

if TYPE_CHECKING:
    from bellwire.transports.engine import Engine


class Abandoned(Exception):  # noqa: N818 - the word for it: a request is abandoned
    """The client gave its request up before all of it had come."""


class Exchange(ABC):
    """A request, and what is known of its client until it is answered."""

    def __init__(self, request: Request, method: str) -> None:
        self.request = request
        self.method = method

    @abstractmethod
    async def chunk(self) -> tuple[bytes, bool]:
        """Return the next piece of the body, and whether there are others behind it. Raises `Abandoned`."""

    @abstractmethod
    async def disconnected(self) -> None:
        """Return when the client gives the request up; once all of its body has come."""


class Forwarder(Protocol):
    """What brings requests to the nodes that they belong to."""

    def knows(self, node: str) -> bool:
        """Whether there is such another node."""
        ...

    async def forward(self, node: str, exchange: Exchange) -> Response:
        """Have ``node`` answer. It is handed over at most once, and what goes wrong is an answer too."""
        ...

    def tunnel(self, node: str, request: Request) -> Callable[[Carrier], Link]:
        """Return what makes a link for a WebSocket to a session of ``node``, until either ends it.

        Raises :class:`~bellwire.protocol.engineio.RequestError` if there are too many.
        """
        ...

    def close(self, code: int) -> None:
        """Have what waits answered soon, and close WebSockets with ``code``: the node is about to stop."""


async def respond(engine: "Engine", exchange: Exchange) -> Response:
    """Answer a request here: it opens a session, or belongs to one of this node's."""
    request, method = exchange.request, exchange.method
    sid = request.query.get("sid", "")
    lingering = engine.lingering.get(sid) if method == "GET" else None
    if lingering is not None:
        response = await lingering.get(_never)
        if not lingering.lingers:
            engine.lingering.pop(sid, None)
        return response
    try:
        session = engine.check(request, method=method, upgrade=False)
    except RequestError as error:
        return refusal(error)
    if session is None:
        try:
            engine.edge.welcome(request, engine.loop.time())
        except RequestError as error:
            return refusal(error)
        return await _handshake(engine, request)
    carrier = session.carrier
    assert isinstance(carrier, PollingCarrier)  # noqa: S101 - check() refuses every other pair
    if method == "GET":
        return await carrier.get(exchange.disconnected)
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return await carrier.post(lambda: _read_body(engine, session, exchange), content_type)


def refusal(error: RequestError) -> Response:
    """The answer to a request that is refused."""
    return Response(error.status, error.body, "application/json", error.headers)


async def _handshake(engine: "Engine", request: Request) -> Response:
    carrier = PollingCarrier(engine)
    carrier.session = session = engine.open(carrier, request)
    response = await carrier.get(_never)
    cookie = engine.config.cookie
    if cookie:
        secure = "; Secure" if request.scheme == "https" else ""
        value = f"{cookie}={session.sid}; Path=/; HttpOnly; SameSite=Lax{secure}"
        response = response._replace(headers=(*response.headers, ("set-cookie", value)))
    return response


async def _never() -> None:
    await asyncio.get_running_loop().create_future()


async def _read_body(engine: "Engine", session: Session, exchange: Exchange) -> bytes | None:
    """The body of a POST; None as soon as it is known to be larger than a message may be, however it is sent.

    The session ends if it takes too long, and this with it.
    """
    limit = engine.config.max_message_bytes
    declared = exchange.request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        return None
    body = bytearray()
    late = partial(session.close, "message timeout")
    arrival = Arrival(engine.wheel, engine.config.message_timeout, lambda: len(body), late)
    try:
        more = True
        while more:
            chunk, more = await exchange.chunk()
            session.alive = True  # a slow upload is a sign of life as well
            body += chunk
            if len(body) > limit:
                return None
    except Abandoned:
        session.close("transport error")
        return b""
    finally:
        arrival.cancel()
    return bytes(body)
