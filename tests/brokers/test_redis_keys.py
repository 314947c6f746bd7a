"""Keys in Redis: comparisons that were not answered, and revisions that never come again."""

import asyncio

import pytest

from bellwire.brokers import redis as broker_module
from bellwire.brokers.redis_streams import place_of
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from tests.brokers.contract import name
from tests.brokers.redis_server import RedisServer, again, broker_at, proxied

pytestmark = pytest.mark.bellwire(clock="real")


async def test_a_value_without_an_answer_may_have_been_kept(redis: RedisServer) -> None:
    async with proxied(redis) as (url, proxy), broker_at(url) as broker, broker_at(redis.url) as other:
        key = name()
        proxy.mute()
        attempt = asyncio.create_task(broker.put(key, b"x", expected=0))
        kept = None
        async with asyncio.timeout(5):
            while kept is None:
                kept = await other.get(key)
        proxy.cut()
        with pytest.raises(OutcomeUnknown):
            await attempt
        assert await again(lambda: broker.get(key)) == kept
        proxy.mute()
        removal = asyncio.create_task(broker.delete(key, expected=kept.revision))
        async with asyncio.timeout(5):
            while await other.get(key) is not None:
                pass
        proxy.cut()
        with pytest.raises(OutcomeUnknown):
            await removal


async def test_a_server_that_has_become_a_replica_is_left(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "LOOK_EVERY", 60.0)
    async with broker_at(redis.url) as broker:
        key = name()
        revision = await broker.put(key, b"x")
        for attempt in (lambda: broker.get(key), lambda: broker.put(key, b"y"), lambda: broker.delete(key)):
            assert await again(lambda: broker.get(key)) == (b"x", revision)
            await redis.ask("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(BrokerUnavailable, match=r"READONLY|MASTERDOWN"):
                await attempt()
            with pytest.raises(BrokerUnavailable):
                await broker.get(key)
            await redis.ask("REPLICAOF", "NO", "ONE")


async def test_a_value_that_was_never_written_by_us_is_no_value(redis: RedisServer) -> None:
    async with broker_at(redis.url) as broker:
        key = name()
        await redis.ask("SET", place_of("bellwire", key).key.decode(), "someone else's")
        with pytest.raises(BrokerUnavailable):
            await broker.get(key)


async def test_a_revision_is_greater_than_any_before_though_the_server_forgot_them(redis: RedisServer) -> None:
    async with broker_at(redis.url) as broker:
        key = name()
        first = await broker.put(key, b"x")
        await redis.ask("DEL", place_of("bellwire", key).key.decode())
        second = await broker.put(key, b"x", expected=0)
        assert first is not None
        assert second is not None
        assert second > first


async def test_a_revision_grows_though_the_servers_clock_was_set_back(redis: RedisServer) -> None:
    async with broker_at(redis.url) as broker:
        key, ahead = name(), 9_000_000_000_000_000
        await redis.ask("SET", place_of("bellwire", key).key.decode(), f"{ahead} 0\nx")
        assert await broker.put(key, b"y", expected=ahead) == ahead + 1
        assert await broker.delete(key)
        assert await broker.put(key, b"z", expected=0) == ahead + 3


async def test_a_key_goes_when_it_is_over_and_its_revision_a_while_later(redis: RedisServer) -> None:
    async with broker_at(redis.url) as broker:
        key = name()
        there = place_of("bellwire", key).key.decode()
        await broker.put(key, b"x", ttl=10)
        assert 600_000 < await redis.ask("PTTL", there) <= 611_000
        await broker.delete(key)
        assert 0 < await redis.ask("PTTL", there) <= 600_000
        await broker.put(key, b"x")
        assert await redis.ask("PTTL", there) == -1
