"""An Engine.IO session: what outlives the change from long-polling to a WebSocket.

Engine.IO protocol v4, "Protocol", "Upgrade" and "Heartbeat". Which packet may come when is decided by the tables in
:mod:`bellwire.protocol.engineio`; this file carries their verdicts out.
"""

import logging
from typing import TYPE_CHECKING

from typing_extensions import override

from bellwire.core.clock import Timer
from bellwire.core.errors import PacketError
from bellwire.protocol.engineio import (
    CLOSE,
    MESSAGE,
    NOOP,
    PING,
    PROBE_ANSWER,
    Control,
    Upgrade,
    UpgradeAction,
    UpgradeState,
    read_packet,
)
from bellwire.protocol.outgoing import Outgoing
from bellwire.transports.base import Carrier, Request
from bellwire.transports.base_session import BaseSession

if TYPE_CHECKING:
    from bellwire.transports.engine import Engine

logger = logging.getLogger("bellwire.transports")

_PING = Outgoing(PING)
_NOOP = Outgoing(NOOP)
_CLOSE = Outgoing(CLOSE)


class Session(BaseSession):
    """One client's Engine.IO session. ``sid`` is its secret: who knows it can speak in its place."""

    __slots__ = ("_candidate", "_timer", "_upgrade", "sid")

    def __init__(self, sid: str, engine: "Engine", carrier: Carrier, request: Request) -> None:
        super().__init__(engine, carrier, request)
        self.sid = sid
        self._candidate: Carrier | None = None
        self._upgrade: Upgrade | None = None
        self._timer: Timer | None = None

    # --- from the client

    @override
    def received(self, carrier: Carrier, packet: str | bytes) -> None:
        """A packet arrived on ``carrier``: a text packet with its type digit, or the bytes of a binary message."""
        if self.closed:
            return
        self.alive = True
        if carrier is not self.carrier:
            self._probe(carrier, packet)
        elif type(packet) is str and packet[:1] == MESSAGE:
            self.receiver.received(packet[1:])
        else:
            self._control(packet)

    def _control(self, packet: str | bytes) -> None:
        try:
            message = read_packet(packet)
        except PacketError as error:
            logger.debug("a client is disconnected, parse error: %s", error)
            self.close("parse error")
            return
        if message is Control.CLOSE:
            self.close("transport close", farewell=_NOOP)
            return
        self._heard()
        if not isinstance(message, Control):
            self.receiver.received(message)

    # --- the upgrade (Engine.IO protocol v4, "Upgrade")

    @property
    @override
    def upgrading(self) -> bool:
        """Whether a WebSocket is being probed; the session stays on long-polling until the client says so."""
        return self._candidate is not None

    @property
    def probed(self) -> bool:
        """Whether the client may leave long-polling at any moment, and waits for its GET to be able to."""
        return self._upgrade is not None and self._upgrade.state is UpgradeState.PROBING

    def offer(self, carrier: Carrier) -> None:
        """A WebSocket opened with this session's sid. A second one is closed, as Node's server does."""
        if self.closed or self._candidate is not None or self.carrier.name == "websocket":
            carrier.close()
            return
        self._candidate = carrier
        self._upgrade = Upgrade()
        self._timer = self._engine.wheel.after(self._engine.config.upgrade_timeout, self._drop_candidate)

    def _probe(self, carrier: Carrier, packet: str | bytes) -> None:
        if carrier is not self._candidate or self._upgrade is None:
            carrier.close()
            return
        action = self._upgrade.receive(packet)
        if action is UpgradeAction.ANSWER_PROBE:
            carrier.send(Outgoing(PROBE_ANSWER))
            self.carrier.send(_NOOP)  # frees the client's pending GET: it upgrades once that has returned
        elif action is UpgradeAction.SWITCH:
            self._switch(carrier)
        else:
            self._drop_candidate()

    def _switch(self, carrier: Carrier) -> None:
        self.receiver.settle()  # what was broadcast before goes the old way, and is handed over
        polling = self.carrier
        if polling.congested:
            self.congested(polling)  # it may not have said so yet
        self._forget_candidate()
        self.carrier = carrier
        if self.paused:
            carrier.set_reading(False)
        self._engine.hand_over(polling, carrier)
        self.receiver.moved(carrier)
        self._carried_on()

    def _drop_candidate(self) -> None:
        candidate = self._candidate
        self._forget_candidate()
        if candidate is not None:
            candidate.close()

    def _forget_candidate(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._candidate = self._upgrade = self._timer = None

    # --- the heartbeat (driven from above, for all sessions at once)

    @override
    def ping(self) -> None:
        self.alive = False
        self.carrier.send(_PING)

    # --- the end

    @override
    def lost(self, carrier: Carrier, reason: str) -> None:
        if carrier is self.carrier:
            self.close(reason)
        elif carrier is self._candidate:
            self._forget_candidate()

    @override
    def close(self, reason: str, *, code: int = 1000, abort: bool = False, farewell: Outgoing = _CLOSE) -> None:
        """End the session. What was sent before is still written, unless ``abort`` says that nobody reads.

        A WebSocket closes with ``code``; on long-polling the pending GET is answered with the packet ``farewell``.
        """
        if self.closed:
            return
        self.receiver.settle()  # what was broadcast before still leaves
        self._ended()
        self._drop_candidate()
        carrier = self.carrier
        if abort:
            carrier.abort()
        else:
            if carrier.name == "polling":
                carrier.send(farewell)
            carrier.close(code)
        self._engine.forget(self, reason)
        self._part(reason)
