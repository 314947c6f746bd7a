"""Redis away, in all the ways it can be: what is said of each append is true, and all is followed again.

And subscribers that the server cuts off because they do not read.
"""

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable

import pytest

from bellwire.brokers import redis_link
from bellwire.brokers.redis import RedisBroker
from bellwire.brokers.redis_streams import place_of
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from bellwire.delivery.log import Limits
from tests.brokers.attempts import Attempts
from tests.brokers.contract import Ears, draft, name
from tests.brokers.nats_server import Proxy
from tests.brokers.redis_node import Node
from tests.brokers.redis_server import RedisServer, again, broker_at, entries_of, proxied, the_master

pytestmark = pytest.mark.bellwire(clock="real")

AWAY = (BrokerUnavailable, OutcomeUnknown)
EVERYTHING = Limits(messages=100_000, size=2**30)


async def _crash(server: RedisServer, proxy: Proxy) -> None:
    await server.crash()


async def _freeze(server: RedisServer, proxy: Proxy) -> None:
    await server.freeze()
    await asyncio.sleep(0.5)
    server.thaw()


async def _kill_commands(server: RedisServer, proxy: Proxy) -> None:
    await server.ask("CLIENT", "KILL", "TYPE", "normal")


async def _kill_subscriptions(server: RedisServer, proxy: Proxy) -> None:
    await server.ask("CLIENT", "KILL", "TYPE", "pubsub")


async def _cut(server: RedisServer, proxy: Proxy) -> None:
    proxy.cut()


async def _lose_answers(server: RedisServer, proxy: Proxy) -> None:
    proxy.mute()
    await asyncio.sleep(0.01)
    proxy.cut()


async def _lose_questions(server: RedisServer, proxy: Proxy) -> None:
    proxy.swallow()
    await asyncio.sleep(0.01)
    proxy.cut()


FAULTS: list[Callable[[RedisServer, Proxy], Awaitable[None]]] = [
    _crash,
    _freeze,
    _kill_commands,
    _kill_subscriptions,
    _cut,
    _lose_answers,
    _lose_questions,
]


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_is_said_of_an_append_is_true_and_all_is_followed_again(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, fault: Callable[[RedisServer, Proxy], Awaitable[None]]
) -> None:
    monkeypatch.setattr(redis_link, "ANSWER_TIMEOUT", 0.2)
    stream = name()
    async with proxied(redis) as (url, proxy), broker_at(url, EVERYTHING) as broker:
        await broker.append(stream, draft("m0"))
        node = Node(broker, stream)
        await node.open()
        attempts = Attempts(broker, stream)
        for _ in range(3):
            await attempts.make(40)
            making = asyncio.create_task(attempts.make(400))
            await fault(redis, proxy)
            await making
            await again(lambda: broker.top(stream))
        await again(lambda: broker.append(stream, draft("last")), AWAY)
        log = await entries_of(broker, stream)
        assert len(set(log)) == len(log)
        assert set(attempts.acknowledged) <= set(log)
        assert not attempts.unavailable & set(log)
        assert set(log) - {"m0", "last"} <= {*attempts.acknowledged, *attempts.unknown}
        assert await node.until("last", 20) == log[1:]


async def test_what_waits_while_the_server_stands_still_is_unknown_and_what_comes_later_was_never_sent(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "ANSWER_TIMEOUT", 0.5)
    stream = name()
    async with broker_at(redis.url) as broker:
        await broker.append(stream, draft("m0"))
        early, late = Attempts(broker, stream), Attempts(broker, stream)
        await redis.freeze()
        try:
            await early.make(20)
            assert early.unknown == {f"m{n}" for n in range(1, 21)}
            late._made = 20
            await late.make(20)
            assert late.unavailable == {f"m{n}" for n in range(21, 41)}
        finally:
            redis.thaw()
        await again(lambda: broker.append(stream, draft("last")), AWAY)
        assert set(await entries_of(broker, stream)) == {"m0", "last", *early.unknown}


async def test_a_wiped_server_is_told_to_those_who_follow(redis: RedisServer) -> None:
    async with broker_at(redis.url) as broker, broker_at(redis.url) as other:
        stream = name()
        await other.append(stream, draft("m0"))
        node = Node(broker, stream)
        await node.open()
        await other.append(stream, draft("m1"))
        await node.until("m1")
        await redis.ask("FLUSHALL")
        await other.append(stream, draft("m2"))
        assert await node.until("m2") == ["m1", "[generation]", "m2"]


# --- subscribers that do not read


async def test_a_burst_is_taken_as_it_comes(redis: RedisServer) -> None:
    """Some 20 MB, and answers to commands at the same time, with the limits that a server has of its own accord."""
    counters, ears, stream = Counters(), Ears(), name()
    async with broker_at(redis.url, EVERYTHING, counters=counters) as broker, broker_at(redis.url, EVERYTHING) as other:
        await broker.subscribe(stream, ears)
        body = random.Random(1).randbytes(2_000)

        async def write(who: str, writer: RedisBroker, to: str, rounds: int) -> None:
            for n in range(rounds):
                await asyncio.gather(*(writer.append(to, draft(f"{who}.{n}.{k}", body)) for k in range(100)))

        await asyncio.gather(write("other", other, stream, 100), write("broker", broker, name(), 30))
        await ears.until(10_000, seconds=30)
        assert ears.mids == [f"other.{n}.{k}" for n in range(100) for k in range(100)]
        assert not counters.get("broker_connections_lost_total")


async def test_who_is_cut_off_because_it_does_not_read_misses_nothing(redis: RedisServer) -> None:
    await redis.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 0 0")
    counters, stream = Counters(), name()
    async with broker_at(redis.url, EVERYTHING, counters=counters) as broker, broker_at(redis.url, EVERYTHING) as other:
        await other.append(stream, draft("m0"))
        node = Node(broker, stream)
        await node.open()
        transport = the_master(broker).subscriptions._transport
        assert transport is not None
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        transport.pause_reading()
        body, count = b"x" * 10_000, 0
        channel = place_of("bellwire", stream).channel.decode()
        while await redis.ask("PUBSUB", "SHARDNUMSUB", channel) == [channel.encode(), 1]:
            for _ in range(50):
                count += 1
                await other.append(stream, draft(f"m{count}", body))
        transport.resume_reading()
        await other.append(stream, draft("last"))
        assert await node.until("last", 20) == [*(f"m{n}" for n in range(1, count + 1)), "last"]
        assert counters.get("broker_connections_lost_total") == 1
    await redis.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 60")
