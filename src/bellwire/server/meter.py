"""What a connection sends, against the rates that it is allowed.

An event takes a token of each rate that it falls under: its connection's, the event's own on this connection, and its
user's and its address's (`bellwire.server.quotas`). What finds none is refused, and takes a token of the refusals: a
client that goes on and on is closed when there are no more of those. What is no event and still makes work (a skip, a
question about a stream, an acknowledgement that nobody waits for) is served, takes tokens as well, and counts as a
refusal where there are none.

A connection that has sent nothing yet has no meter, and a meter has no timer.
"""

import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.core.errors import RateLimited
from bellwire.core.events import Event
from bellwire.core.rate import parse_rate
from bellwire.guard.address import address_key
from bellwire.guard.rates import Bucket, told
from bellwire.server.quotas import Quotas

__all__ = ["FLOODED", "Excess", "Limits", "Meter"]

FLOODED: Final = "rate limited"
"""Why a connection ends whose client went on sending what was refused."""

logger = logging.getLogger("bellwire.server")

POLICY_VIOLATION: Final = 1008
"""The close code for that (RFC 6455, section 7.4.1)."""


class Excess(NamedTuple):
    """What an event came too early for."""

    limit: str
    """The limit's name: ``message_rate``, ``event``, ``user_rate`` or ``address_rate``."""
    bucket: Bucket
    wait: float
    """Seconds until there is a token."""

    def refusal(self) -> RateLimited:
        """What the client is answered."""
        return RateLimited("too many events in too short a time: send it again later", told(self.wait))


class Limits:
    """The rates of a server, which its meters share."""

    __slots__ = ("_told", "clock", "counters", "messages", "quotas", "refusals")

    def __init__(
        self, config: Config, counters: Counters, clock: Callable[[], float], quotas: Quotas | None = None
    ) -> None:
        self.clock = clock
        self.counters = counters
        self.messages = parse_rate(config.message_rate)
        self.refusals = parse_rate(config.refusal_rate)
        self.quotas = quotas
        self._told = False

    def tell_of_loss(self, limit: str) -> None:
        """Warn of the first event that was refused without anybody being told: nothing else would show it.

        ``message_rate`` alone is on without having been asked for; who has set another limit means it.
        """
        if limit == "message_rate" and not self._told:
            self._told = True
            logger.warning(
                "an event came beyond message_rate and is lost: its client asked for no acknowledgement, so it is not "
                "told. rate_limited_total counts more of them; if they are meant, raise message_rate, or ask for "
                "acknowledgements"
            )


class Meter:
    """One connection's; ``address`` is where it comes from, None if that is not known."""

    __slots__ = ("_address", "_events", "_limits", "_messages", "_refusals")

    def __init__(self, limits: Limits, address: str | None = None) -> None:
        self._limits = limits
        self._messages = None if limits.messages is None else Bucket(limits.messages)
        self._refusals: Bucket | None = None
        self._events: dict[Event[Any, *tuple[Any, ...]], Bucket] | None = None
        self._address = None if address is None or limits.quotas is None else address_key(address)

    @property
    def now(self) -> float:
        """The time that its buckets are told."""
        return self._limits.clock()

    def admit(self, event: Event[Any, *tuple[Any, ...]] | None = None, user: str | None = None) -> Excess | None:
        """Take the tokens of something that arrived; None if they were there, else what was missing is counted.

        ``event`` is the event that it is, if that has a rate of its own, and ``user`` who sent it.
        """
        if event is not None and event.rate == "off":
            return None
        limits = self._limits
        now = limits.clock()
        if event is not None:
            excess = self._missing(event, now)
        elif self._messages is not None and (wait := self._messages.take(now)):
            excess = Excess("message_rate", self._messages, wait)
        else:
            excess = None
        if excess is None and limits.quotas is not None:
            excess = self._owed(limits.quotas, user, now)
        if excess is not None:
            limits.counters.add("rate_limited_total", limit=excess.limit)
        return excess

    def _missing(self, event: Event[Any, *tuple[Any, ...]], now: float) -> Excess | None:
        if self._messages is not None and (wait := self._messages.take(now)):
            return Excess("message_rate", self._messages, wait)
        bucket = self._bucket_of(event)
        if bucket is not None and (wait := bucket.take(now)):
            return Excess("event", bucket, wait)
        return None

    def _owed(self, quotas: Quotas, user: str | None, now: float) -> Excess | None:
        for limit, quota, owner in (
            ("user_rate", quotas.users, user),
            ("address_rate", quotas.addresses, self._address),
        ):
            if quota is not None and owner is not None:
                bucket, wait = quota.take(owner, now)
                if wait:
                    return Excess(limit, bucket, wait)
        return None

    def _bucket_of(self, event: Event[Any, *tuple[Any, ...]]) -> Bucket | None:
        if self._events is None:
            self._events = {}
        bucket = self._events.get(event)
        if bucket is None:
            rate = parse_rate(event.rate or "off")
            if rate is None:
                return None
            bucket = self._events[event] = Bucket(rate)
        return bucket

    def charge(self, tokens: float) -> None:
        """Take tokens of the connection's rate for what its event caused, whether they are there or not."""
        if self._messages is not None:
            self._messages.charge(self._limits.clock(), tokens)

    def is_patient(self) -> bool:
        """Count something that was refused; False if there were too many of late."""
        rate = self._limits.refusals
        if rate is None:
            return True
        if self._refusals is None:
            self._refusals = Bucket(rate)
        return not self._refusals.take(self._limits.clock())
