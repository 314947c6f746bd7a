"""Sentinels say where the master is, also after it moved; those that do not answer are passed over."""

import asyncio
from pathlib import Path

import pytest

from bellwire.brokers.redis_address import RedisAddress
from bellwire.brokers.redis_sentinel import locate
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from tests.brokers.contract import Ears, draft, name
from tests.brokers.redis_server import PASSWORD, RedisServer, Sentinel, again, broker_at, entries_of

pytestmark = pytest.mark.bellwire(clock="real")


async def test_without_sentinels_it_is_the_server_named() -> None:
    address = RedisAddress.parse("redis://host")
    assert await locate(address) == address


async def test_where_nobody_knows_it_is_told_why(redis: RedisServer) -> None:
    url = f"redis://:secret@127.0.0.1:1,127.0.0.1:{redis.port}?sentinel=main"
    with pytest.raises(BrokerUnavailable, match=r"no Sentinel knows the master of 'main': .*Connect.*NOAUTH") as raised:
        await locate(RedisAddress.parse(url))
    assert "secret" not in str(raised.value)


async def test_the_master_is_followed_through_a_failover(
    servers: tuple[RedisServer, RedisServer], tmp_path: Path
) -> None:
    a, b = servers
    await b.follow(a)
    sentinel = await asyncio.to_thread(Sentinel, tmp_path, a)
    url = f"redis://:{PASSWORD}@127.0.0.1:1,127.0.0.1:{sentinel.port}?sentinel=main"
    try:
        with pytest.raises(BrokerUnavailable, match="it knows no such name"):
            await locate(RedisAddress.parse(url.replace("=main", "=other")))
        async with broker_at(url) as broker:
            stream, ears = name(), Ears()
            await broker.subscribe(stream, ears)
            first = await broker.append(stream, draft("m1"))
            await b.catch_up(a)
            await asyncio.to_thread(a.kill)
            second = await again(lambda: broker.append(stream, draft("m2")), (BrokerUnavailable, OutcomeUnknown))
            await ears.until(2)
            assert second.gen != first.gen
            assert second.prev == first.point
            assert ears.mids == ["m1", "m2"]
            assert await entries_of(broker, stream) == ["m1", "m2"]
            assert (await locate(RedisAddress.parse(url))).port == b.port
    finally:
        sentinel.kill()
