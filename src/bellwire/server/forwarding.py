"""Requests of Engine.IO for the sessions of other nodes, and those of other nodes for ours.

Each is a channel between the node that the request has reached and the one that has its session::

    entry to owner              owner to entry      afterwards
    the head
    a POST's body in chunks,
    and its end                 the response        both forget the channel

The owner answers as if the request had reached it, and is told at once when the client gives it up. A request is handed
over once, whatever happens. Where it stays without an answer, or the answer gets lost, the client is told that its
session is over, and it is: what the answer held can be had again only by a client that recovers.

What becomes of the client in such a case::

    the owner is dead, as far as is known       400 "Session ID unknown", at once
    it dies                                     400 "Session ID unknown", as soon as that is known
    a part is lost, or the broker is away       503, and the session is ended
    no answer for as long as a client waits     503, and the session is ended
    no answer, and this node is to stop         503 after half of `Config.shutdown_grace`, and the session is ended
    `MAX_FORWARDED` are under way here          503, and the session is ended
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec
from typing_extensions import override

from bellwire.brokers.envelope import UNREADABLE
from bellwire.core.errors import BellwireError
from bellwire.protocol.engineio import BAD_REQUEST, UNKNOWN_SID, RequestError, refuse_request
from bellwire.server.channels import Channel, ChannelClosed, Channels, Receiver
from bellwire.server.cluster import Cluster
from bellwire.server.dispatch import Dispatcher, Outcome
from bellwire.server.tunnel import TunnelCarrier, TunnelEnd
from bellwire.transports.base import Carrier, Link, Request
from bellwire.transports.engine import Engine
from bellwire.transports.exchange import Abandoned, Exchange, Forwarder, refusal, respond
from bellwire.transports.polling import PollingCarrier, Response

MAX_FORWARDED: Final = 16_384
"""Requests and WebSockets for other nodes that are under way here."""

MAX_BYTES: Final = 64 * 1024 * 1024
"""Of one message between two nodes: far more than a session may have waiting, so a bound for what is no such thing."""

_OVER: Final = "session over"
_FAILED: Final = Response(503)

logger = logging.getLogger("bellwire.server")


class Head(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A request but for its body."""

    method: str
    upgrade: bool
    path: str
    query_string: bytes
    head: bytes
    client: tuple[str, int] | None
    scheme: str

    @classmethod
    def of(cls, request: Request, method: str, *, upgrade: bool = False) -> "Head":
        """Return that of ``request``."""
        return cls(method, upgrade, request.path, request.query_string, request.head, request.client, request.scheme)

    @property
    def request(self) -> Request:
        """The request, as it reached the other node."""
        return Request(
            path=self.path,
            query_string=self.query_string,
            head=self.head,
            client=self.client,
            scheme=self.scheme,
        )


class Chunk(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A piece of a POST's body. For a GET it has none, and says that the request is to be answered soon."""

    data: bytes
    last: bool = False


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_head: Final = msgspec.msgpack.Decoder(Head).decode
_decode_chunk: Final = msgspec.msgpack.Decoder(Chunk).decode
_decode_response: Final = msgspec.msgpack.Decoder(Response).decode


class Forwarding(Forwarder):
    """Both ends of it, for one node; ``most`` is how much may be under way to others."""

    def __init__(self, engine: Engine, cluster: Cluster, dispatcher: Dispatcher, *, most: int = MAX_FORWARDED) -> None:
        config = engine.config
        self.engine = engine
        self._cluster = cluster
        self._dispatcher = dispatcher
        self._patience = config.client_ping_interval + config.client_ping_timeout
        self._grace = config.shutdown_grace / 2
        self._channels = Channels(cluster, dispatcher, engine.counters, self._accept, MAX_BYTES)
        self._most = most
        self._calls: set[_Call] = set()
        self._tunnels: set[TunnelEnd] = set()
        cluster.hear(_OVER, lambda _, sid: self._end(sid.decode("latin-1")))

    # --- where a request has come in

    @override
    def knows(self, node: str) -> bool:
        return node in self._cluster.peers

    @override
    async def forward(self, node: str, exchange: Exchange) -> Response:
        if self._full():
            self._tell_over(node, exchange.request)
            return _FAILED
        call = _Call(self._channels, node)
        self._calls.add(call)
        try:
            response = await call.answer(exchange, self._patience)
        except Abandoned:  # the end of the channel tells the owner
            return _FAILED
        finally:
            self._calls.discard(call)
            call.channel.close()
        if response is None:
            self._tell_over(node, exchange.request)
            return _FAILED if self.knows(node) else refusal(refuse_request(UNKNOWN_SID, "UNKNOWN_SID"))
        return response

    @override
    def tunnel(self, node: str, request: Request) -> Callable[[Carrier], Link]:
        if self._full():
            raise refuse_request(BAD_REQUEST, "TOO_MANY_FORWARDED")
        begin = _encode(Head.of(request, "GET", upgrade=True))

        def link(carrier: Carrier) -> Link:
            end = TunnelEnd(self.engine, self._dispatcher, carrier, begin, self._tunnels.discard)
            self._tunnels.add(end)
            end.start(self._channels.open(node, end))
            return end

        return link

    def _full(self) -> bool:
        if len(self._calls) + len(self._tunnels) < self._most:
            return False
        self.engine.counters.dropped("forwarded_request", reason="too_many", policy="refused")
        return True

    def _tell_over(self, node: str, request: Request) -> None:
        """Have a session ended whose client was, or will be, told so."""
        if self.knows(node):
            self._start(self._cluster.tell(_OVER, request.query["sid"].encode(), node))

    @override
    def close(self, code: int) -> None:
        for call in self._calls:
            if call.waits:
                self._start(call.channel.send(_encode(Chunk(b"", last=True))))
        self.engine.loop.call_later(self._grace, self._give_up)
        for end in tuple(self._tunnels):
            end.close("server shutting down", code=code)

    def _give_up(self) -> None:
        """Wait no more for owners that do not answer and may be dead: whoever stops this node waits for neither."""
        for call in self._calls:
            call.settle(None)

    # --- where its session is

    def _accept(self, channel: Channel) -> Receiver:
        return _Arrival(self, channel)

    def arrived(self, channel: Channel, head: Head) -> None:
        """Another node has a request for a session of this one."""
        request = head.request
        if not request.query.get("sid"):
            channel.close()
        elif head.upgrade:
            self._upgrade(channel, request)
        else:
            served = _Served(request, head.method, channel, self._let_go)
            channel.receiver = served
            self._start(self._serve(served, channel))

    def _upgrade(self, channel: Channel, request: Request) -> None:
        try:
            session = self.engine.check(request, method="GET", upgrade=True)
        except RequestError:
            channel.close()
            return
        carrier = TunnelCarrier(self.engine, self._dispatcher, channel)
        channel.receiver = carrier
        carrier.session = self.engine.attach(carrier, request, session)

    async def _serve(self, served: "_Served", channel: Channel) -> None:
        """Answer, once. An answer that cannot be given back is lost, and the session with it."""
        try:
            response = await respond(self.engine, served)
            await channel.send(_encode(response))
        except ChannelClosed:
            self._end(served.request.query["sid"])
        else:
            channel.forget()
        finally:
            channel.close()

    def _let_go(self, request: Request) -> None:
        """Answer the session's GET."""
        session = self.engine.sessions.get(request.query["sid"])
        if session is not None and isinstance(session.carrier, PollingCarrier):
            session.carrier.let_go()

    def _end(self, sid: str) -> None:
        session = self.engine.sessions.get(sid)
        if session is not None:
            session.close("transport error", abort=True)

    def _start(self, job: Coroutine[Any, Any, None]) -> None:
        self._dispatcher.run(job, _ended)


class _Call(Receiver):
    """A request that another node is to answer."""

    def __init__(self, channels: Channels, node: str) -> None:
        self.channel = channels.open(node, self)
        self.waits = False
        """Whether it is a GET, which waits for packets."""
        self._response: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()

    async def answer(self, exchange: Exchange, patience: float) -> Response | None:
        """Hand the request over and return the answer; None if there is none for ``patience`` seconds, or ever.

        Raises:
            Abandoned: the client has given it up.

        """
        self.waits = exchange.method == "GET"
        with contextlib.suppress(ChannelClosed):  # then it is settled
            await self._unless_settled(self._send(exchange))
        if await self._unless_settled(exchange.disconnected(), patience):
            raise Abandoned
        return self._response.result() if self._response.done() else None

    async def _unless_settled(self, step: Coroutine[Any, Any, None], patience: float | None = None) -> bool:
        """Take a step, until there is an answer or patience ends. Return whether the step was taken to its end."""
        taking = asyncio.ensure_future(step)
        try:
            await asyncio.wait((taking, self._response), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            taking.cancel()
        if not taking.done():
            return False
        taking.result()
        return True

    async def _send(self, exchange: Exchange) -> None:
        """Send the request, as fast as it comes in."""
        await self.channel.send(_encode(Head.of(exchange.request, exchange.method)))
        if exchange.method == "POST":
            more = True
            while more:
                data, more = await exchange.chunk()
                await self.channel.send(_encode(Chunk(data, last=not more)))

    @override
    def arrived(self, message: bytes) -> None:
        try:
            self.settle(_decode_response(message))
        except UNREADABLE:
            self.settle(None)
        else:
            self.channel.forget()

    @override
    def over(self) -> None:
        self.settle(None)

    def settle(self, response: Response | None) -> None:
        """Take this for the answer, if there is none yet."""
        if not self._response.done():
            self._response.set_result(response)


class _Arrival(Receiver):
    """What comes from another node, until it is known what it is."""

    def __init__(self, forwarding: Forwarding, channel: Channel) -> None:
        self._forwarding = forwarding
        self._channel = channel

    @override
    def arrived(self, message: bytes) -> None:
        try:
            head = _decode_head(message)
        except UNREADABLE:
            self._channel.close()
        else:
            self._forwarding.arrived(self._channel, head)

    @override
    def over(self) -> None:
        return


class _Served(Exchange, Receiver):
    """A request that has come in at another node."""

    def __init__(self, request: Request, method: str, channel: Channel, let_go: Callable[[Request], None]) -> None:
        super().__init__(request, method)
        self._channel = channel
        self._let_go = let_go
        self._chunks: asyncio.Queue[Chunk | None] = asyncio.Queue()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @override
    async def chunk(self) -> tuple[bytes, bool]:
        chunk = await self._chunks.get()
        if chunk is None:
            raise Abandoned
        return chunk.data, not chunk.last

    @override
    async def disconnected(self) -> None:
        await asyncio.wait((self._over,))

    @override
    def arrived(self, message: bytes) -> None:
        try:
            chunk = _decode_chunk(message)
        except UNREADABLE:
            self._channel.close()
            self.over()
            return
        if self.method == "POST":
            self._chunks.put_nowait(chunk)
        else:
            self._let_go(self.request)

    @override
    def over(self) -> None:
        self._chunks.put_nowait(None)
        if not self._over.done():
            self._over.set_result(None)


def _ended(outcome: Outcome) -> None:
    if not isinstance(outcome.error, BellwireError | ChannelClosed | asyncio.CancelledError | None):
        logger.error("a request from another node, or for one, was not answered", exc_info=outcome.error)
