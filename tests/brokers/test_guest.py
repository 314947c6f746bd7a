"""A broker as programs beside the servers use it, on a real Valkey and a real nats-server."""

import asyncio
from typing import Any, cast

import pytest

from bellwire.brokers.base import Broker
from bellwire.brokers.guest import KEY, LOOK_EVERY, announce, check_address, follow, visit
from bellwire.brokers.memory import MemoryBroker
from bellwire.brokers.urls import make_broker
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, ConfigError
from bellwire.delivery.log import DEFAULT_LIMITS, Limits
from bellwire.testing.clock import advance
from tests.brokers.nats_server import NatsServer
from tests.brokers.redis_server import RedisServer

REAL = pytest.mark.bellwire(clock="real")
LIMITS = Limits(messages=7, size=5_000, age=33.0)


@pytest.fixture(params=["redis", "nats"])
def url(request: pytest.FixtureRequest) -> str:
    server: RedisServer | NatsServer = request.getfixturevalue("redis" if request.param == "redis" else "server")
    return server.url


def limits_of(broker: Broker) -> Limits:
    return cast("Limits", cast("Any", broker)._limits)


async def serve_once(url: str, limits: Limits) -> None:
    """A server starts, and is over."""
    server = make_broker(url, limits, Counters())
    await server.start()
    await announce(server, limits)
    await server.close()


@REAL
async def test_a_guest_keeps_as_much_as_the_last_server_that_started(url: str) -> None:
    for limits in (LIMITS, LIMITS._replace(messages=9)):
        await serve_once(url, limits)
        async with visit(url, Counters()) as broker:
            assert limits_of(broker) == limits


@REAL
async def test_a_guest_leaves_it_to_the_servers_how_much_jetstream_keeps(server: NatsServer) -> None:
    await serve_once(server.url, LIMITS)
    async with visit(server.url, Counters()):
        pass
    served = make_broker(server.url, None, Counters())
    await served.start()
    try:
        info = await cast("Any", served)._link.ask("$JS.API.STREAM.INFO.bellwire_0", b"")
        assert b'"max_msgs_per_subject":9,' in info.data  # two more, see partition_config
    finally:
        await served.close()


async def test_a_guest_learns_of_other_limits_while_it_is_there() -> None:
    broker = MemoryBroker()
    await broker.start()
    following = asyncio.create_task(follow(broker))
    await announce(broker, LIMITS)
    await advance(LOOK_EVERY)
    assert limits_of(broker) == LIMITS
    await broker.put(KEY, b"\xc1")  # another version's: it is left alone
    await advance(LOOK_EVERY)
    broker.faults.go_away()
    await advance(LOOK_EVERY)
    assert limits_of(broker) == LIMITS
    broker.faults.come_back()
    await announce(broker, DEFAULT_LIMITS)
    await advance(LOOK_EVERY)
    assert limits_of(broker) == DEFAULT_LIMITS
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


@REAL
async def test_before_any_server_was_there_it_keeps_what_servers_keep_by_default(url: str) -> None:
    async with visit(url, Counters()) as broker:
        await broker.delete(KEY)
    async with visit(url, Counters()) as broker:
        assert limits_of(broker) == DEFAULT_LIMITS


async def test_what_is_said_already_is_not_written_again() -> None:
    broker = MemoryBroker()
    await broker.start()
    await announce(broker, LIMITS)
    first = await broker.get(KEY)
    await announce(broker, LIMITS)
    assert await broker.get(KEY) == first
    await announce(broker, DEFAULT_LIMITS)
    assert await broker.get(KEY) != first


async def test_a_broker_that_takes_nothing_keeps_no_server_from_serving(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = MemoryBroker()
    await broker.start()
    broker.faults.go_away()
    await announce(broker, LIMITS)
    assert "emitters may not learn how much history is kept" in caplog.text


def test_the_memory_of_one_process_has_no_guests() -> None:
    with pytest.raises(ConfigError, match=r"broker = 'memory://' is the memory of one process.*such as redis://"):
        check_address("memory://")


@pytest.mark.parametrize("url", ["memcached://secret@host", "redis://secret@host:x", "host:6379"])
def test_an_address_that_is_none_is_said_without_secrets(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_address(url)
    assert "secret" not in str(raised.value)


@REAL
async def test_a_broker_that_does_not_answer_is_unavailable() -> None:
    with pytest.raises(BrokerUnavailable):
        async with visit("redis://127.0.0.1:1", Counters()):
            pass
