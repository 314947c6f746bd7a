"""Servers that cannot carry the guarantee are refused, with what to do about it."""

import pytest

from bellwire.brokers.redis_link import Refused
from bellwire.brokers.redis_server import check_server
from bellwire.core.errors import BrokerUnavailable, ConfigError
from tests.brokers.making import answering
from tests.brokers.redis_server import RedisServer, linked

pytestmark = pytest.mark.bellwire(clock="real")


def info(**more: str) -> bytes:
    lines = {"redis_version": "7.0.15", "redis_mode": "standalone", "maxmemory_policy": "noeviction", "role": "master"}
    text = "".join(f"{name}:{value}\r\n" for name, value in (lines | more).items())
    return f"${len(text)}\r\n{text}\r\n".encode()


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (info(redis_version="6.2.14"), ConfigError, "has version 6.2.14: 7.0 or newer"),
        (info(redis_version="5"), ConfigError, "has version 5: 7.0 or newer"),
        (info(maxmemory_policy="allkeys-lru"), ConfigError, "set it to noeviction"),
        (info(redis_mode="cluster"), ConfigError, "allow the user to ask it for CLUSTER SLOTS"),
        (info(server_mode="cluster"), ConfigError, "allow the user to ask it for CLUSTER SLOTS"),
        (info(role="slave"), BrokerUnavailable, "is a replica"),
        (b"-LOADING it\r\n", Refused, "LOADING"),
    ],
)
async def test_what_cannot_carry_the_guarantee_is_refused(answer: bytes, error: type[Exception], told: str) -> None:
    async with answering(answer) as link:
        with pytest.raises(error, match=told):
            await check_server(link, in_cluster=False)


@pytest.mark.parametrize("version", ["7.0.0", "7.2.4", "8.0-rc1", "255.255.255"])
async def test_what_can_is_taken(version: str) -> None:
    async with answering(info(redis_version=version)) as link:
        await check_server(link, in_cluster=False)


async def test_a_valkey_is_taken(redis: RedisServer) -> None:
    link = await linked(redis.url)
    await check_server(link, in_cluster=False)
    link.close()


async def test_who_may_not_ask_is_told_what_was_not_checked(caplog: pytest.LogCaptureFixture) -> None:
    async with answering(b"-NOPERM no\r\n") as link:
        await check_server(link, in_cluster=False)
    assert "whether maxmemory-policy is noeviction was not checked" in caplog.text
