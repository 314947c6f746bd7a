"""A broker as a program beside the servers uses it: it emits or reads, and keeps to their limits of history.

Whoever appends to a stream, or reads it, shortens it. So the servers say at the broker how much they keep, and a guest
does as they say: it would take from their clients what they promised to keep, or leave what they do not want to keep.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from bellwire.brokers.base import Broker
from bellwire.brokers.urls import PREFIX, make_broker
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, ConfigError, OutcomeUnknown
from bellwire.core.redaction import without_secrets
from bellwire.delivery.log import Limits

KEY: Final = "limits"
"""Under which the servers keep their limits."""

LOOK_EVERY: Final = 60.0
"""Seconds between two looks at the limits: servers may have been started again with others."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Limits).decode

logger = logging.getLogger("bellwire.brokers")


async def announce(broker: Broker, limits: Limits) -> None:
    """Say for guests how much the servers keep; of several that differ, the last one to start counts.

    A broker that does not take it now, because it is full for instance, is no reason not to serve: that is logged.
    """
    value = _encode(limits)
    try:
        kept = await broker.get(KEY)
        if kept is None or kept.value != value:
            await broker.put(KEY, value)
    except (BrokerUnavailable, OutcomeUnknown) as error:
        logger.warning("emitters may not learn how much history is kept: %s", error)


def check_address(url: str) -> None:
    """Check that there is such a broker as ``url`` names, and that another process can reach it.

    Raises:
        ConfigError: there is none, it is the memory of one process, or a package is missing.

    """
    if url.partition("://")[0] == "memory":
        raise ConfigError(
            f"broker = {without_secrets(url)!r} is the memory of one process, and nobody else can emit to "
            "it: give this program and the servers the same broker, such as redis://host:6379 or nats://host:4222"
        )
    make_broker(url, None, Counters())


@asynccontextmanager
async def visit(url: str, counters: Counters, *, prefix: str = PREFIX) -> AsyncIterator[Broker]:
    """The broker at ``url``, started, with the limits of the servers; closed at the end.

    Raises:
        ConfigError: as `check_address`.
        BrokerUnavailable: it does not answer.

    """
    check_address(url)
    broker = make_broker(url, None, counters, prefix=prefix)
    try:
        await broker.start()
        await _learn(broker)
        following = asyncio.create_task(follow(broker), name="bellwire: the limits of history")
        try:
            yield broker
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    finally:
        await broker.close()


async def follow(broker: Broker) -> None:
    """Look at the limits of the servers now and then, for ever."""
    while True:
        await asyncio.sleep(LOOK_EVERY)
        with contextlib.suppress(BrokerUnavailable):
            await _learn(broker)


async def _learn(broker: Broker) -> None:
    kept = await broker.get(KEY)
    if kept is not None:  # else no server was there yet, and nobody stands anywhere
        with contextlib.suppress(msgspec.MsgspecError):  # another version's: it goes on as it is
            broker.limit(_decode(kept.value))
