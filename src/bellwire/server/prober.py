"""The probe of idle subscriptions: what a broker told nobody about is found within two rounds.

A subscription may go dead while its connection is fine. So every room that serves members who recover, and that heard
nothing for a round, has its place compared with the broker's (the guarantee, "The node").
"""

import asyncio
from typing import Final

from bellwire.core.clock import Timer, Wheel
from bellwire.core.errors import BrokerUnavailable
from bellwire.server.dispatch import Dispatcher, Outcome
from bellwire.server.streams import Streams

PROBE_SECONDS: Final = 30.0
"""Between two rounds."""


AT_ONCE: Final = 32
"""How many rooms are looked at together: brokers take less time for questions that come so. Each client that recovers
has a room of his own, so there are very many."""


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
        rooms = self._streams.rooms
        for start in range(0, len(rooms), AT_ONCE):
            if start:
                await asyncio.sleep(0)  # there may be very many with nobody who recovers
            probes = [room.probe() for room in rooms[start : start + AT_ONCE] if room.serves]
            faults = [fault for fault in await asyncio.gather(*probes, return_exceptions=True) if fault is not None]
            for fault in faults:
                if not isinstance(fault, BrokerUnavailable):
                    raise fault
            if faults:  # the broker says so itself, and all is compared when it is back
                return

    def _ended(self, outcome: Outcome) -> None:
        if outcome.error is not None and not self._dispatcher.ended(outcome.error):
            self._streams.fault(self, outcome.error)
        if not self._dispatcher.closed:
            self._timer = self._wheel.after(PROBE_SECONDS, self._begin)
