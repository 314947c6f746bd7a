"""The clients' events that are numbered, on one node: who is greeted, which handlers run, what a dead node left behind.

The rules are `delivery.inbox`'s and the order of the steps `delivery.handling`'s; here are the broker, the clock and
the handlers. `Inlet` takes the events of one connection through.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from bellwire.brokers.base import Broker
from bellwire.core.clock import Timer, Wheel
from bellwire.core.errors import BellwireError, BrokerUnavailable, OutcomeUnknown
from bellwire.delivery import inbox
from bellwire.delivery.effects import producer_key
from bellwire.delivery.entry import Copy
from bellwire.delivery.handling import Append
from bellwire.delivery.inbox import LEASE_SECONDS
from bellwire.server.inlet import Inlet
from bellwire.server.pending import Pending
from bellwire.server.records import Records

Appender: TypeAlias = Callable[[Append], Awaitable[Copy | None]]
"""Makes one attempt at an append and says where the copy stands; None if the stream has no log and the message was
published. It raises `BrokerUnavailable` if this attempt did nothing, `OutcomeUnknown` if it may have, and
`MessageTooLarge`; to try again, and to find out whether the deadline has passed, is not its part."""

RENEWED_AFTER: Final = LEASE_SECONDS / 6
"""Seconds after which a lease is renewed at the next look, and between two looks: so at a third of its time."""

_AT_ONCE: Final = 32
"""How many leases are renewed at a time, and how many producers looked at that a dead node may have left."""

logger = logging.getLogger("bellwire.server")


class Producers:
    """All producers that are connected to this node.

    ``append`` brings a relay's emission to a stream. ``too_large`` is the reply to an event whose handler has run and
    returned, or wanted emitted, more than the broker takes.
    """

    def __init__(self, broker: Broker, append: Appender, wheel: Wheel, *, too_large: bytes) -> None:
        self.broker = broker
        self.append = append
        self.wheel = wheel
        self.too_large = too_large
        self.closed = False
        self._pending = Pending(broker)
        self.records = Records(broker, self._pending)
        self._waiting: dict[str, dict[Inlet, None]] = {}
        self._held: dict[Inlet, None] = {}
        self._timer: Timer | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def greet(self, principal: str | None, producer_id: str) -> Inlet:
        """Take up a producer: ``principal`` is who authenticated (None: nobody), ``producer_id`` what the client says.

        Raises:
            ValueError: ``producer_id`` is none.
            BrokerUnavailable: ask again.
            BellwireError: what is on record was written by a later version of Bellwire.

        """
        key = producer_key(principal, producer_id)
        try:
            ruling = await self.records.update(key, inbox.connect, secrets.token_hex(8))
        except OutcomeUnknown as error:  # to be greeted twice does no harm
            raise BrokerUnavailable("the broker did not answer") from error
        return Inlet(self, key, ruling.verdict.generation, ruling.verdict.last)

    def close(self) -> None:
        """Wait for nothing any more; handlers that run are somebody else's."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._renewing is not None:
            self._renewing.cancel()
        for inlets in [*self._waiting.values()]:
            for inlet in [*inlets]:
                inlet.wake()

    # --- several connections of one producer

    def waits(self, inlet: Inlet) -> None:
        """``inlet`` waits: for another one of the same producer, or for the broker."""
        self._waiting.setdefault(inlet.key, {})[inlet] = None

    def waits_no_more(self, inlet: Inlet) -> None:
        """``inlet`` goes on."""
        inlets = self._waiting[inlet.key]
        del inlets[inlet]
        if not inlets:
            del self._waiting[inlet.key]

    def wake(self, inlet: Inlet) -> None:
        """Let the others of this producer look at the record, which has changed."""
        for other in self._waiting.get(inlet.key, ()):
            other.wake()

    # --- the leases of handlers that run

    def hold(self, inlet: Inlet) -> None:
        """Renew the lease of ``inlet`` until `let_go`."""
        self._held[inlet] = None
        if self._timer is None and self._renewing is None:
            self._arm()

    def let_go(self, inlet: Inlet) -> None:
        """Do not renew its lease any more."""
        self._held.pop(inlet, None)

    def _arm(self) -> None:
        self._timer = self.wheel.after(RENEWED_AFTER, self._look) if self._held and not self.closed else None

    def _look(self) -> None:
        self._timer = None
        due = self.broker.clock() - RENEWED_AFTER
        inlets = [inlet for inlet in self._held if inlet.renewed <= due]
        if inlets:
            self._renewing = asyncio.get_running_loop().create_task(self._renew(inlets), name="bellwire: leases")
        else:
            self._arm()

    async def _renew(self, inlets: list[Inlet]) -> None:
        try:
            for start in range(0, len(inlets), _AT_ONCE):
                await asyncio.gather(*map(self._renew_one, inlets[start : start + _AT_ONCE]))
        finally:
            self._renewing = None
            self._arm()

    async def _renew_one(self, inlet: Inlet) -> None:
        try:
            renewed = await inlet.renew()
        except (BrokerUnavailable, OutcomeUnknown):
            return  # at the next look again
        except BellwireError:
            logger.exception("the lease of a running handler cannot be renewed")
            renewed = False
        if not renewed:
            self.let_go(inlet)

    # --- what dead nodes left behind

    async def recover(self) -> None:
        """Complete the relays that nobody completes, of clients that may never come again; for a node that starts.

        It tries until the broker answers. What a live node is about to do itself is done twice, and once by the
        broker. What is found too late is left, and its client will be told that the outcome is unknown.

        Raises:
            BrokerUnavailable: what is to be done could not be read.

        """
        producers = await self._pending.producers()
        for start in range(0, len(producers), _AT_ONCE):
            if self.closed:
                return
            await asyncio.gather(*map(self._recover_one, producers[start : start + _AT_ONCE]))

    async def _recover_one(self, producer: str) -> None:
        try:
            in_time = await Inlet(self, producer, "", 0).recover()
        except BellwireError:
            logger.exception("a relay that was left in the middle cannot be completed")
        else:
            if not in_time:
                logger.warning("a relay that was left in the middle was found too late to be completed")
