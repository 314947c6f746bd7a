"""The probe of idle subscriptions: what a broker told nobody about is found within two rounds.

A subscription may go dead while its connection is fine. So every room that serves members who recover, and that heard
nothing for a round, has its place compared with the broker's (the guarantee, "The node").
"""

from typing import Final

from bellwire.core.clock import Timer, Wheel
from bellwire.core.errors import BrokerUnavailable
from bellwire.server.dispatch import Dispatcher, Outcome
from bellwire.server.streams import Streams

PROBE_SECONDS: Final = 30.0
"""Between two rounds."""


class Prober:
    """One timer, and one job at a time, for all rooms of a node."""

    __slots__ = ("_dispatcher", "_streams", "_timer", "_wheel")

    def __init__(self, streams: Streams, wheel: Wheel, dispatcher: Dispatcher) -> None:
        self._streams = streams
        self._wheel = wheel
        self._dispatcher = dispatcher
        self._timer: Timer | None = wheel.after(PROBE_SECONDS, self._begin)

    def close(self) -> None:
        """Probe no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        self._timer = None
        self._dispatcher.run(self._probe(), self._ended)

    async def _probe(self) -> None:
        for room in tuple(self._streams.served):
            try:
                await room.probe()
            except BrokerUnavailable:  # it says so itself, and all is compared when it is back
                return

    def _ended(self, outcome: Outcome) -> None:
        if outcome.error is not None and not self._dispatcher.ended(outcome.error):
            self._streams.fault(self, outcome.error)
        if not self._dispatcher.closed:
            self._timer = self._wheel.after(PROBE_SECONDS, self._begin)
