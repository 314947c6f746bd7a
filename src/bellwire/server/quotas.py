"""What one user, or one address, may send: over all of their connections, on all nodes together.

Each node has a bucket for whoever sends here. Once a second it tells the others who took how much of theirs, and they
take as much: so within that second each node may let through what one alone would, and whoever uses several of them
owes that everywhere, and waits until it has filled up. In the long run the rate is kept. A node that the others do not
hear, because the broker is away, keeps it by itself.

Those who send most are told of, `TOLD` in a second. Keys are digests, so that long names cost no more than short ones.
"""

import heapq
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import msgspec

from bellwire.brokers.envelope import UNREADABLE
from bellwire.core.clock import Timer, Wheel
from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, MessageTooLarge, OutcomeUnknown
from bellwire.core.rate import Rate, parse_rate
from bellwire.guard.rates import Bucket, Buckets
from bellwire.server.cluster import Cluster
from bellwire.server.dispatch import Dispatcher, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TOLD", "Quota", "Quotas"]

KIND: Final = "quota"
"""Of what nodes tell each other."""

SECONDS: Final = 1.0
"""Between two times that they do."""

TOLD: Final = 1_000
"""How many users, and addresses, a node tells of each time."""

MOST: Final = 1_000_000
"""Tokens of one owner that are believed at a time."""


class _Taken(msgspec.Struct, array_like=True, frozen=True):
    """What was taken on a node, by digests."""

    users: dict[bytes, int]
    addresses: dict[bytes, int]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Taken).decode


class Quota:
    """One limit, for all who fall under it; ``wake`` is called when the others have something to be told."""

    __slots__ = ("_buckets", "_taken", "_wake")

    def __init__(self, rate: Rate, wake: Callable[[], None]) -> None:
        self._buckets: Buckets[bytes] = Buckets(rate)
        self._taken: dict[bytes, int] = {}
        self._wake = wake

    def take(self, owner: str, now: float) -> tuple[Bucket, float]:
        """Take a token of ``owner``: the bucket, and the seconds until there is one, 0.0 if there was."""
        key = blake2b(owner.encode(errors="surrogatepass"), digest_size=8).digest()
        bucket = self._buckets.of(key, now)
        wait = bucket.take(now)
        if not wait:
            taken = self._taken
            if not taken:
                self._wake()
            taken[key] = taken.get(key, 0) + 1
        return bucket, wait

    def tell(self) -> dict[bytes, int]:
        """What was taken since this was asked last; of those who took most."""
        taken, self._taken = self._taken, {}
        if len(taken) <= TOLD:
            return taken
        return {key: taken[key] for key in heapq.nlargest(TOLD, taken, key=taken.__getitem__)}

    def hear(self, taken: "Mapping[bytes, int]", now: float) -> None:
        """Take what was taken elsewhere."""
        for key, tokens in taken.items():
            if len(key) == 8 and 0 < tokens <= MOST:
                self._buckets.of(key, now).charge(now, tokens)


class Quotas:
    """Both limits, on one node."""

    def __init__(
        self,
        config: Config,
        counters: Counters,
        clock: Callable[[], float],
        cluster: Cluster,
        wheel: Wheel,
        dispatcher: Dispatcher,
    ) -> None:
        users, addresses = parse_rate(config.user_rate), parse_rate(config.address_rate)
        self.users = None if users is None else Quota(users, self._wake)
        """Of the users; None if they are not limited."""
        self.addresses = None if addresses is None else Quota(addresses, self._wake)
        """The same of addresses."""
        self._counters = counters
        self._clock = clock
        self._cluster = cluster
        self._wheel = wheel
        self._dispatcher = dispatcher
        self._timer: Timer | None = None
        cluster.hear(KIND, self._hear)

    @property
    def limits(self) -> bool:
        """Whether it has anything to do."""
        return self.users is not None or self.addresses is not None

    def close(self) -> None:
        """Tell nobody any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        if self._timer is None:
            self._timer = self._wheel.after(SECONDS, self._tell)

    def _tell(self) -> None:
        self._timer = None
        taken = _Taken(*({} if quota is None else quota.tell() for quota in (self.users, self.addresses)))
        if self._cluster.peers.ids:
            self._dispatcher.run(self._cluster.tell(KIND, _encode(taken)), self._told)

    def _told(self, outcome: Outcome) -> None:
        if isinstance(outcome.error, BrokerUnavailable | OutcomeUnknown | MessageTooLarge):
            self._counters.dropped("quota", reason="broker_away", policy="kept_by_each_node")

    def _hear(self, node: str, body: bytes) -> None:
        try:
            taken = _decode(body)
        except UNREADABLE:
            self._counters.dropped("envelope", reason="malformed", policy="ignored")
            return
        now = self._clock()
        for quota, tokens in ((self.users, taken.users), (self.addresses, taken.addresses)):
            if quota is not None:
                quota.hear(tokens, now)
