"""How much may come how often: token buckets. No clock is in here; each call is told the time.

A bucket holds as many tokens as its rate names (``"100/s"``: a hundred), begins full, and fills evenly, so that its
owner can use a second's worth at once and no more than the rate in the long run. All that is kept of it is one number,
the time at which it will be full again: the tokens in it follow from that (the generic cell rate algorithm, ITU-T
I.371, annex A).
"""

import math
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from bellwire.core.rate import Rate
from bellwire.delivery.inbox import WINDOW

__all__ = ["Bucket", "Buckets", "Hold", "told"]

SLACK: Final = 1e-6
"""Seconds by which a token may be early: what floats lose when times of a long uptime are added up."""

MOST_OWED: Final = 10
"""How many times what a bucket holds its owner may owe, so that one large charge does not shut him out for good."""

K = TypeVar("K", bound=Hashable)


class Bucket:
    """The tokens of one owner."""

    __slots__ = ("_full_at", "_interval", "_span")

    def __init__(self, rate: Rate) -> None:
        self._interval = rate.seconds / rate.tokens
        self._span = rate.seconds
        self._full_at = -math.inf

    def take(self, now: float) -> float:
        """Take a token: 0.0; where there is none, nothing changes: the seconds until there will be one."""
        full_at = self._full_at
        if full_at < now:  # it is full
            full_at = now
        after = full_at + self._interval
        wait = after - now - self._span
        if wait > SLACK:
            return wait
        self._full_at = after
        return 0.0

    def charge(self, now: float, tokens: float) -> None:
        """Take ``tokens`` whether they are there or not; what is missing, up to `MOST_OWED`, has to fill up first."""
        charged = max(self._full_at, now) + tokens * self._interval
        self._full_at = min(charged, now + (1 + MOST_OWED) * self._span)

    def wait(self, now: float, tokens: int = 1) -> float:
        """The seconds until ``tokens`` are there, or all that it can hold; 0.0 if they are there now."""
        missing = max(self._full_at, now) - now + tokens * self._interval - self._span
        return max(0.0, min(missing, self._full_at - now))

    def is_full(self, now: float) -> bool:
        """Whether it is as a new one would be."""
        return self._full_at <= now


class Buckets(Generic[K]):
    """A bucket for each of any number of owners; those that are full again are forgotten."""

    __slots__ = ("_buckets", "_most", "_rate")

    FEWEST: Final = 1_024
    """Up to so many there is no need to look for full ones."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: dict[K, Bucket] = {}
        self._most = self.FEWEST

    def __len__(self) -> int:
        return len(self._buckets)

    def of(self, key: K, now: float) -> Bucket:
        """Return the bucket of ``key``, to be used at once."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._most:
                self._tidy(now)
            bucket = self._buckets[key] = Bucket(self._rate)
        return bucket

    def _tidy(self, now: float) -> None:
        # Twice as many as are in use until the next look: so it costs each new one a constant share.
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if not bucket.is_full(now)}
        self._most = max(self.FEWEST, 2 * len(self._buckets))


class Hold:
    """What follows a numbered event that was refused for its rate: its client sends it again, and all behind it.

    What was under way behind it is turned away with it, since it can run only after it, and waits for tokens of its
    own: so all of it comes in when it comes again.
    """

    __slots__ = ("_behind", "_bucket", "_highest", "number", "until")

    def __init__(self, number: int, bucket: Bucket, until: float) -> None:
        self.number = number
        """The event that is waited for."""
        self.until = until
        """When it may come."""
        self._bucket = bucket
        self._highest = number
        self._behind = 0

    def is_fair(self, number: int) -> bool:
        """Whether an event behind it can have been sent before its client was told; each number once."""
        return self._highest < number <= self.number + WINDOW

    def wait(self, number: int, now: float) -> float:
        """Turn away an event behind it; return the seconds until it may come."""
        self._highest = max(self._highest, number)
        self._behind = min(self._behind + 1, WINDOW)
        return self._bucket.wait(now, 1 + self._behind)


def told(wait: float) -> float:
    """``retry_after`` as clients are told it: whole milliseconds, and none too few."""
    return max(1, math.ceil((wait - SLACK) * 1000)) / 1000
