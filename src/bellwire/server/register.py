"""The register of nodes: who was there last, for a node that starts and has heard nobody yet.

One key at the broker. A node enters itself when it starts and is taken out when it ends, by itself or by another that
missed it; so it may name the dead for a while. One that was missed and is there after all enters itself again with its
next beat.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final

import msgspec

from bellwire.brokers.base import Broker
from bellwire.brokers.envelope import UNREADABLE
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown

KEY: Final = "nodes"

ATTEMPTS: Final = 64
"""How often it is tried again when another node was faster: all nodes may start at the same moment."""

FIRST_PAUSE: Final = 0.01
"""Seconds between the first two tries at most. It is drawn, and twice as long each time, up to"""
LAST_PAUSE: Final = 1.0
"""so that n nodes at the same moment come one by one, with a few tries each. Without it they take n squared."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(frozenset[str]).decode


class Register:
    """The register at ``broker``."""

    __slots__ = ("_broker",)

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def add(self, node: str) -> frozenset[str]:
        """Enter ``node`` and return all that stand there. Raises `BrokerUnavailable`."""
        return await self._change(lambda nodes: nodes | {node})

    async def remove(self, gone: set[str]) -> None:
        """Take these out. Raises `BrokerUnavailable`."""
        await self._change(lambda nodes: nodes - gone)

    async def _change(self, apply: Callable[[frozenset[str]], frozenset[str]]) -> frozenset[str]:
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(random.uniform(0.0, min(FIRST_PAUSE * 2**attempt, LAST_PAUSE)))  # noqa: S311 - nothing secret
            kept = await self._broker.get(KEY)
            before = frozenset[str]() if kept is None else _read(kept.value)
            after = apply(before)
            if after == before:
                return after
            try:
                revision = await self._broker.put(
                    KEY, _encode(sorted(after)), expected=0 if kept is None else kept.revision
                )
            except OutcomeUnknown:
                continue  # the next look tells
            if revision is not None:
                return after
        raise BrokerUnavailable("the register of nodes changes faster than it can be written")


def _read(value: bytes) -> frozenset[str]:
    try:
        return _decode(value)
    except UNREADABLE:  # another program wrote it: it is written anew
        return frozenset()
