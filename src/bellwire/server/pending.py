"""The index of relays that may be unfinished: where a node that starts looks for what one that died left behind.

A broker keeps keys and lists none of them, so the producers whose relays may be open are listed under keys of their
own, spread over `SLICES` of them. A producer is listed for some minutes, not for each of its events: so most events
write nothing here, and nobody has to take it out. One that is listed without need costs whoever recovers one reading.
"""

import asyncio
from typing import Final

import msgspec

from bellwire.brokers.base import Broker
from bellwire.brokers.envelope import UNREADABLE
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from bellwire.delivery.effects import DEDUPE_SECONDS

SLICES: Final = 64
"""Over how many keys the index is spread. It is a part of where a producer is listed: never change it."""

LISTED_SECONDS: Final = 300.0
"""How long a producer is listed; the entry is made anew when less is left than a relay can be open for."""

_NEEDED: Final = DEDUPE_SECONDS + 30.0
_SWEPT_PER_CALL: Final = 2

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(dict[str, float]).decode  # a producer's key -> until when it is listed


class Pending:
    """The index, as one node writes and reads it. ``producer`` is always a producer's key: 128 bits in hexadecimal."""

    __slots__ = ("_broker", "_generation", "_until")

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._generation = ""
        self._until: dict[str, float] = {}  # what this node has listed, the oldest first

    async def add(self, producer: str) -> None:
        """List ``producer``, so that a relay of it that is stored now is found as long as it can be completed.

        Raises:
            BrokerUnavailable: it may not be listed.

        """
        broker = self._broker
        if broker.generation() != self._generation:  # what was listed may be lost
            self._generation = broker.generation()
            self._until.clear()
        now = broker.clock()
        if self._until.get(producer, 0.0) >= now + _NEEDED:
            return
        until = now + LISTED_SECONDS
        await self._list(_key(_slice(producer)), producer, until)
        self._sweep(now)
        self._until.pop(producer, None)
        self._until[producer] = until

    async def _list(self, key: str, producer: str, until: float) -> None:
        while True:
            now = self._broker.clock()
            kept = await self._broker.get(key)
            listed = {} if kept is None else {name: end for name, end in _read(kept.value).items() if end > now}
            listed[producer] = until
            expected = 0 if kept is None else kept.revision
            try:
                if await self._broker.put(key, _encode(listed), expected=expected, ttl=LISTED_SECONDS) is not None:
                    return
            except OutcomeUnknown:
                continue  # to list it twice does no harm

    def _sweep(self, now: float) -> None:
        for _ in range(min(_SWEPT_PER_CALL, len(self._until))):
            oldest = next(iter(self._until))
            if self._until[oldest] > now:
                return
            del self._until[oldest]

    async def producers(self) -> list[str]:
        """Return all that are listed, by whichever node.

        Raises:
            BrokerUnavailable: the index could not be read.

        """
        slices = await asyncio.gather(*(self._broker.get(_key(number)) for number in range(SLICES)))
        now = self._broker.clock()
        listed = [_read(kept.value) for kept in slices if kept is not None]
        return [producer for each in listed for producer, until in each.items() if until > now]


def _slice(producer: str) -> int:
    return int(producer[:8], 16) % SLICES


def _key(number: int) -> str:
    return f"bellwire:relays:{number}"


def _read(value: bytes) -> dict[str, float]:
    try:
        return _decode(value)
    except UNREADABLE as error:
        raise BrokerUnavailable(f"the index of relays was not written by Bellwire: {error}") from None
