"""Servers that cannot carry the guarantee are refused, with what to do about it."""

import re
from pathlib import Path

import pytest

from bellwire.brokers.redis_link import Refused
from bellwire.brokers.redis_server import check_server
from bellwire.core.errors import BrokerUnavailable, ConfigError
from bellwire.delivery.answer import Page
from bellwire.delivery.position import position
from tests.brokers.contract import Ears, draft, name
from tests.brokers.making import answering
from tests.brokers.redis_server import RedisServer, broker_at, linked

GUIDE = (Path(__file__).parents[2] / "docs" / "howto" / "redis.md").read_text("utf-8")

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


async def test_a_user_with_the_rights_that_the_guide_names_needs_no_more(redis: RedisServer) -> None:
    (command,) = re.findall(r"^(ACL SETUSER .*\n(?:  .*\n)*)", GUIDE, re.MULTILINE)
    await redis.ask(*command.split())
    url = redis.url.replace(":for-tests-only@", "bellwire:password@")
    async with broker_at(url) as broker:
        stream, ears = name(), Ears()
        await broker.subscribe(stream, ears)
        first = await broker.append(stream, draft("m1"))
        await broker.append(stream, draft("m2"))
        await broker.publish(stream, b"now")
        await ears.until(3)
        page = await broker.read(stream, position(first.gen, first.point), confirmed=True)
        assert isinstance(page, Page)
        revision = await broker.put(stream, b"value", ttl=10)
        assert await broker.get(stream) == (b"value", revision)
        assert await broker.delete(stream)
        await broker.forget(stream)
        broker._untouched = [stream]
        broker._touch()
        await broker.unsubscribe(stream, ears)
        await broker._masters.look()
    log = await redis.ask("ACL", "LOG")
    assert [dict(zip(entry[::2], entry[1::2], strict=True))[b"object"] for entry in log] == []
