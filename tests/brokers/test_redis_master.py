"""One master: its time, what tells its memory from others, and that both connections end together."""

import asyncio
import time
from collections.abc import Callable

import pytest

from bellwire.brokers.redis_address import RedisAddress
from bellwire.brokers.redis_link import Link, Subscriptions
from bellwire.brokers.redis_master import Master
from bellwire.brokers.redis_slots import SLOTS, Shard
from bellwire.brokers.redis_streams import Scripts
from bellwire.core.errors import BrokerUnavailable
from tests.brokers.redis_server import RedisServer

pytestmark = pytest.mark.bellwire(clock="real")


class Heard:
    def __init__(self) -> None:
        self.channels: asyncio.Queue[bytes] = asyncio.Queue()

    def __call__(self, source: Subscriptions, channel: bytes, payload: bytes) -> None:
        self.channels.put_nowait(channel)


async def opened(redis: RedisServer, heard: Heard | None = None, clock: Callable[[], float] = time.monotonic) -> Master:
    subscriptions = Subscriptions(heard or Heard(), lambda source, channel: None)
    master = Master(Link(), subscriptions, b"app:", b"salt", clock)
    address = RedisAddress.parse(redis.url)
    await master.open(Shard(address, ((0, SLOTS - 1),), in_cluster=False), Scripts())
    return master


async def test_its_time_is_never_told_too_early(redis: RedisServer) -> None:
    master = await opened(redis)
    for _ in range(20):
        told = time.monotonic() + master.offset
        seconds, micros = await redis.ask("TIME")
        assert told <= int(seconds) + int(micros) / 1e6
        await master.look(Scripts())
    master.close()


async def test_a_clock_that_was_set_is_followed_both_ways(redis: RedisServer) -> None:
    ahead = 0.0
    master = await opened(redis, clock=lambda: time.monotonic() - ahead)
    before = master.offset
    for ahead in (100.0, -100.0):
        await master.look(Scripts())
        assert master.offset - before == pytest.approx(ahead, abs=1)
    master.close()


async def test_its_memory_has_an_identity_in_its_first_slot_until_it_is_wiped(redis: RedisServer) -> None:
    heard = Heard()
    one, other = await opened(redis, heard), await opened(redis)
    assert one.identity == other.identity != b""
    first = one.identity
    await one.look(Scripts())
    channel = await heard.channels.get()
    await one.stand_on(5)
    await one.look(Scripts())
    assert one.identity != first
    assert await heard.channels.get() != channel
    await redis.ask("FLUSHALL")
    await other.look(Scripts())
    assert other.identity != first
    one.close()
    other.close()


async def test_where_one_connection_is_lost_both_are_to_be_left(redis: RedisServer) -> None:
    for kind in ("pubsub", "normal"):
        master = await opened(redis)
        assert not master.is_lost
        await redis.ask("CLIENT", "KILL", "TYPE", kind)
        await asyncio.wait_for((master.subscriptions if kind == "pubsub" else master.link).lost.wait(), 5)
        assert master.is_lost
        master.close()
        assert master.link.lost.is_set()
        assert master.subscriptions.lost.is_set()


async def test_what_cannot_be_used_leaves_no_connection(redis: RedisServer) -> None:
    await redis.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    try:
        with pytest.raises(BrokerUnavailable, match="NOREPLICAS"):
            await opened(redis)
        assert await redis.ask("CLIENT", "LIST", "TYPE", "pubsub") == b""
    finally:
        await redis.ask("CONFIG", "SET", "min-replicas-to-write", "0")
