"""The sessions of one server: who may open one, where a request belongs, how they all end."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from bellwire.core.clock import Wheel
from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.protocol.engineio import RequestError, check_request, encode_handshake, new_sid, node_of
from bellwire.protocol.handshake import HandshakeError
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.wire import JSON, MSGPACK, PATH, choose_subprotocol
from bellwire.transports.base import Application, Carrier, Link, RawApplication, Request
from bellwire.transports.base_session import BaseSession
from bellwire.transports.edge import Edge
from bellwire.transports.exchange import Exchange, Forwarder, respond
from bellwire.transports.polling import PollingCarrier, Response
from bellwire.transports.raw import RawSession
from bellwire.transports.session import Session
from bellwire.transports.tick import Tick
from bellwire.transports.unread import CUT, Cause, Unread

ALONE: Final = "00000000"
"""The id of a node that has no others beside it."""

AT_ONCE: Final = 128
"""How many sessions are ended in one turn of the event loop, which then turns to what else there is to do."""

logger = logging.getLogger("bellwire.transports")


class Engine:
    """What the transports of one event loop share: sessions, the tick, the timer wheel, the settings."""

    __slots__ = (
        "application",
        "config",
        "counters",
        "edge",
        "forwarder",
        "lingering",
        "loop",
        "node",
        "raw_application",
        "raw_sessions",
        "sessions",
        "tick",
        "unread",
        "wheel",
    )

    def __init__(
        self,
        application: Application,
        config: Config,
        counters: Counters,
        loop: asyncio.AbstractEventLoop,
        wheel: Wheel,
        node: str = ALONE,
    ) -> None:
        self.application = application
        self.raw_application = application if isinstance(application, RawApplication) else None
        """The application, if it speaks bellwire.v1."""
        self.config = config
        self.counters = counters
        self.loop = loop
        self.wheel = wheel
        self.node = node
        """The id of this node, in the sids of its sessions."""
        self.forwarder: Forwarder | None = None
        """What reaches the other nodes, if there can be any."""
        self.edge = Edge(config, counters)
        self.unread = Unread(config, loop, wheel)
        self.tick = Tick(loop, config.fanout_batch * config.fanout_concurrency)
        self.sessions: dict[str, Session] = {}
        """Those of Engine.IO, by their sid."""
        self.raw_sessions: set[RawSession] = set()
        """Those of bellwire.v1."""
        self.lingering: dict[str, PollingCarrier] = {}
        """Ended sessions whose last packets wait for the client's next GET."""

    # --- whose a request is

    def owner(self, request: Request) -> str | None:
        """The other node that a request belongs to; None if it is for this one to answer."""
        node = node_of(request.query.get("sid", ""))
        if node is None or node == self.node or self.forwarder is None or not self.forwarder.knows(node):
            return None
        return node

    async def answer(self, exchange: Exchange) -> Response:
        """Answer a request of long-polling that has been let in, here or where its session is."""
        owner = self.owner(exchange.request)
        if owner is None or self.forwarder is None:
            return await respond(self, exchange)
        return await self.forwarder.forward(owner, exchange)

    def admit(self, request: Request) -> Callable[[Carrier], Link]:
        """Say what a WebSocket is to be given to once it is open: for a new session, or to upgrade one, here or there.

        Raises :class:`~bellwire.protocol.engineio.RequestError` with what Node's server answers, or as `Edge.enter`
        does.
        """
        self.edge.enter(request)
        owner, forwarder = self.owner(request), self.forwarder
        if owner is None or forwarder is None:
            session = self.check(request, method="GET", upgrade=True)
            if session is None:
                self.edge.welcome(request, self.loop.time())
            return lambda carrier: self.attach(carrier, request, session)
        self._check(request, "GET", True, lambda _: "polling")  # the owner will see whether it is
        return forwarder.tunnel(owner, request)

    def check(self, request: Request, *, method: str, upgrade: bool) -> Session | None:
        """The session of this node that a request belongs to, None if it asks for a new one.

        Raises :class:`~bellwire.protocol.engineio.RequestError` with what Node's server answers.
        """
        self._check(request, method, upgrade, self._transport_of)
        sid = request.query.get("sid")
        return self.sessions[sid] if sid else None

    def _check(self, request: Request, method: str, upgrade: bool, transport_of: Callable[[str], str | None]) -> None:
        try:
            check_request(
                method=method,
                query=request.query,
                transport_of=transport_of,
                is_upgrade=upgrade,
                origin=request.headers.get("origin"),
                transports=self.config.transports,
            )
        except RequestError as error:
            self.counters.add("requests_refused_total", reason=error.context.lower())
            logger.debug("refused a request of Engine.IO: %s", error.context)
            raise

    def _transport_of(self, sid: str) -> str | None:
        session = self.sessions.get(sid)
        return None if session is None else session.carrier.name

    def open(self, carrier: Carrier, request: Request) -> Session:
        """Begin a session on ``carrier`` and greet the client."""
        session = Session(new_sid(self.node), self, carrier, request)
        self.edge.newcomers.add(request.address)
        self.sessions[session.sid] = session
        upgradable = carrier.name == "polling" and "websocket" in self.config.transports
        config = self.config
        carrier.send(
            Outgoing(
                encode_handshake(
                    session.sid,
                    upgrades=("websocket",) if upgradable else (),
                    ping_interval=config.client_ping_interval,
                    ping_timeout=config.client_ping_timeout,
                    max_payload=config.max_message_bytes,
                )
            )
        )
        session.receiver = self.application.opened(session)
        return session

    def attach(self, websocket: Carrier, request: Request, session: Session | None) -> Session:
        """Use a WebSocket that was opened: for a new session, or to upgrade the one that was asked for."""
        if session is None:
            return self.open(websocket, request)
        session.offer(websocket)
        return session

    def hand_over(self, polling: Carrier, websocket: Carrier) -> None:
        """The upgrade's last step: what long-polling still holds goes out on the WebSocket, before all else."""
        assert isinstance(polling, PollingCarrier)  # noqa: S101 - only long-polling can be upgraded
        for message in polling.release():
            websocket.send(message)

    def forget(self, session: Session, reason: str) -> None:
        """``session`` ended. Packets that its client has not fetched yet wait a little for its next GET."""
        self.settle(session)
        self.counters.add("sessions_closed_total", reason=reason.replace(" ", "_"))
        self.sessions.pop(session.sid, None)
        carrier = session.carrier
        if isinstance(carrier, PollingCarrier) and carrier.lingers:
            self.lingering[session.sid] = carrier
            self.wheel.after(self.config.upgrade_timeout, partial(self._give_up, session.sid))

    def settle(self, session: BaseSession) -> None:
        """``session`` has joined a namespace, or is over: it is no newcomer any more."""
        if session.newcomer:
            session.newcomer = False
            session.request.put_away()
            self.edge.newcomers.remove(session.request.address)

    def _give_up(self, sid: str) -> None:
        carrier = self.lingering.pop(sid, None)
        if carrier is not None:
            carrier.abort()

    # --- bellwire.v1

    def check_raw(self, request: Request, offered: Iterable[str]) -> str:
        """The sub-protocol to speak, of those that the client offers.

        Raises :class:`~bellwire.protocol.handshake.HandshakeError` if there is none, with what to answer, or as
        `Edge.enter` does.
        """
        self.edge.enter(request)
        subprotocol = choose_subprotocol(offered)
        if subprotocol is None:
            self.counters.add("requests_refused_total", reason="no_subprotocol")
            logger.debug("refused a WebSocket at %s: it offers no sub-protocol of bellwire.v1", PATH)
            raise HandshakeError(400, f"offer the sub-protocol {JSON} or {MSGPACK} in Sec-WebSocket-Protocol")
        self.edge.welcome(request, self.loop.time())
        return subprotocol

    def open_raw(self, carrier: Carrier, request: Request, subprotocol: str) -> RawSession:
        """Begin a session on ``carrier``. The application must be one that speaks bellwire.v1."""
        application = self.raw_application
        assert application is not None  # noqa: S101 - nothing leads here then
        session = RawSession(self, carrier, request, msgpack=subprotocol == MSGPACK)
        self.edge.newcomers.add(request.address)
        self.raw_sessions.add(session)
        session.receiver = application.opened_raw(session)
        return session

    def forget_raw(self, session: RawSession, reason: str) -> None:
        """``session`` ended."""
        self.settle(session)
        self.counters.add("sessions_closed_total", reason=reason.replace(" ", "_"))
        self.raw_sessions.discard(session)

    # --- the end of sessions

    def overflow(self, session: Link) -> None:
        """More waits for one client than may: its session ends, once, after the running broadcast."""
        if not session.overflowed:
            session.overflowed = True
            self.report_slow("buffer_full")
            self.loop.call_soon(partial(session.close, "slow consumer", abort=True))

    def cut(self, session: Link, carrier: Carrier, cause: Cause) -> None:
        """The client takes nothing, or too much waits for all, and then what waits on ``carrier`` goes at once."""
        if not session.overflowed:
            session.overflowed = True
            self.report_slow(cause)
            session.close("slow consumer", abort=True)
        if cause == "process_full":
            carrier.abort()

    def report_slow(self, cause: Cause) -> None:
        """A slow consumer is being cut off: count it and say why."""
        self.counters.add("slow_consumers_total", cause=cause)
        logger.warning("a slow consumer is cut off: %s", CUT[cause].format(config=self.config))

    async def close(self, code: int = 1001) -> None:
        """End every session; clients reconnect by themselves, elsewhere or later. The loop turns now and then."""
        if self.forwarder is not None:
            self.forwarder.close(code)
        for number, session in enumerate((*self.sessions.values(), *self.raw_sessions), 1):
            session.close("server shutting down", code=code)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
