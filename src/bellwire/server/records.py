"""Producers' records in a broker: read, judged, stored by compare-and-set (the steps that `handling.Update` asks for).

What was written last is remembered. So the next event of a producer needs no reading: it is judged on what is
remembered, and if the comparison succeeds, that is what stood there. A judgement that stores nothing proves nothing
about what it was made on, and is made again on what the broker has.
"""

from collections.abc import Callable
from typing import Final, Generic, TypeAlias, TypeVar

import msgspec

from bellwire.brokers.base import Broker
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from bellwire.delivery.inbox import LEASE_SECONDS, Record, Relaying, View, decode_record, encode_record, lifetime
from bellwire.server.pending import Pending

REMEMBERED_BYTES: Final = 16 * 1024 * 1024
"""How many bytes of records are remembered, as they are encoded; the oldest are forgotten first."""

TIMELY: Final = LEASE_SECONDS / 3
"""Seconds between a reading and the answer to what was written on it: beyond them a lease is too old to begin with."""

_FIXED_BYTES: Final = 512
"""What each is counted with beside its contents."""

V = TypeVar("V")
Decide: TypeAlias = Callable[[Record | None, View], tuple[V, Record | None]]
"""A rule of `delivery.inbox`: what is on record in, a verdict and what must be stored before it is true out."""


class Ruling(msgspec.Struct, Generic[V], frozen=True):
    """A verdict, the generation in which it is true, and when (the broker's time) what it stands on was read."""

    verdict: V
    generation: str
    at: float


class _Seen(msgspec.Struct, frozen=True):
    """A record as it was found, or stored."""

    generation: str
    at: float
    revision: int
    record: Record | None
    size: int = 0


class Records:
    """The records of all producers; ``pending`` is the index of those whose relays may be open."""

    __slots__ = ("_broker", "_bytes", "_pending", "_remembered")

    def __init__(self, broker: Broker, pending: Pending) -> None:
        self._broker = broker
        self._pending = pending
        self._remembered: dict[str, _Seen] = {}
        self._bytes = 0

    async def update(self, producer: str, decide: Decide[V], lease: str, *, pending: bool = False) -> Ruling[V]:
        """Return the verdict of ``decide`` on the record of ``producer``, once what it wants stored is stored.

        ``lease`` signs what is written. With ``pending`` the producer is listed before a relay of it is stored.

        Raises:
            BrokerUnavailable: nothing was stored.
            OutcomeUnknown: something may have been stored; ask again, under the same lease.
            MessageTooLarge: the broker does not take so large a record; nothing was stored.
            BellwireError: what is on record was not written by this version of Bellwire, or an earlier one.

        """
        doubt = False
        seen = self._recall(producer)
        while True:
            fresh = seen is None
            try:
                if seen is None:
                    seen = await self._read(producer)
                verdict, changed = decide(seen.record, View(seen.generation, seen.at, lease))
                if changed is None:
                    if fresh:
                        return Ruling(verdict, seen.generation, seen.at)
                elif await self._store(producer, seen, changed, pending=pending):
                    if self._holds(seen):
                        return Ruling(verdict, seen.generation, seen.at)
                    doubt = True
            except OutcomeUnknown:
                doubt = True
            except BrokerUnavailable as error:
                if doubt:
                    raise OutcomeUnknown(producer) from error
                raise
            seen = None

    def forget(self, producer: str) -> None:
        """Remember nothing of ``producer`` any more."""
        seen = self._remembered.pop(producer, None)
        if seen is not None:
            self._bytes -= seen.size

    async def _read(self, producer: str) -> _Seen:
        broker = self._broker
        while True:
            generation, at = broker.generation(), broker.clock()
            kept = await broker.get(_key(producer))
            if broker.generation() != generation:
                continue
            if kept is None:
                return _Seen(generation, at, 0, None)
            known = self._remembered.get(producer)
            if known is not None and (known.revision, known.generation) == (kept.revision, generation):
                return msgspec.structs.replace(known, at=at)  # no need to decode it
            return _Seen(generation, at, kept.revision, decode_record(kept.value))

    async def _store(self, producer: str, seen: _Seen, changed: Record, *, pending: bool) -> bool:
        """Store a record where ``seen`` still stands; False if it does not."""
        self.forget(producer)
        if pending and isinstance(changed.open, Relaying):
            await self._pending.add(producer)
        value = encode_record(changed)
        revision = await self._broker.put(_key(producer), value, expected=seen.revision, ttl=lifetime(changed))
        if revision is None:
            return False
        if self._holds(seen):
            self._remember(producer, _Seen(seen.generation, 0.0, revision, changed, len(value) + _FIXED_BYTES))
        return True

    def _holds(self, seen: _Seen) -> bool:
        """Whether a verdict on ``seen`` holds after the writing: it did not take too long, and nothing failed over."""
        broker = self._broker
        return broker.generation() == seen.generation and broker.clock() <= seen.at + TIMELY

    def _recall(self, producer: str) -> _Seen | None:
        """Return what was stored last, as if it had been read now."""
        seen = self._remembered.get(producer)
        if seen is None or seen.generation != self._broker.generation():
            return None
        return msgspec.structs.replace(seen, at=self._broker.clock())

    def _remember(self, producer: str, seen: _Seen) -> None:
        self._remembered[producer] = seen
        self._bytes += seen.size
        while self._bytes > REMEMBERED_BYTES:
            self.forget(next(iter(self._remembered)))


def _key(producer: str) -> str:
    return f"bellwire:producer:{producer}"
