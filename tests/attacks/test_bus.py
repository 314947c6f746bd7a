"""S11: wherever nodes listen, what Bellwire has not said is ignored, and counted.

What is *stored* is another matter: who may write into the logs of the broker is trusted (see the threat model).
"""

import asyncio
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import nats
import pytest
import redis

from tests.attacks.target import Target, running
from tests.brokers.nats_server import NatsServer
from tests.brokers.redis_server import PASSWORD, RedisServer

GARBAGE = (
    b"",
    b"\0",
    b"garbage",
    b"\x80\x04cposix\nsystem\n(S'true'\ntR.",
    pickle.dumps({"method": "emit", "event": "x", "data": "y"}),
    b"\x02" + b"\x93\xa5alive\xa800000000\xc3",
    b"\x01\x93\xa5alive",
    b"\x01\x92\xa5alive\xa8../../..",
    b"\x91" * 100_000,
    b"\xdd\xff\xff\xff\xff",
    b"\xff" * 900_000,
    b'{"version":1}',
)
MIB = 1024 * 1024


@contextmanager
def clustered(log: str, url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with running(tmp_path_factory.mktemp(log) / "log", "--broker", url) as target:
        member = target.join()
        member.call("join", "members")
        yield target


def still_works(target: Target) -> None:
    member = target.join()
    assert member.call("join", "members") is True
    target.bystander.call("say", "members", "as ever")
    while not member.text().startswith('42["said","as ever"'):
        pass
    target.until(lambda: target.counted("dropped_total") >= len(GARBAGE))


def test_s11_garbage_on_every_channel_of_redis(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    try:
        with clustered("on-redis", server.url, tmp_path_factory) as target, target.grows_by_at_most(48 * MIB):
            with redis.Redis(port=server.port, password=PASSWORD) as client:
                channels = client.execute_command("PUBSUB", "SHARDCHANNELS")
                assert len(channels) >= 2
                for channel in channels:
                    for garbage in GARBAGE:
                        client.execute_command("SPUBLISH", channel, garbage)
            still_works(target)
    finally:
        server.kill()


def test_s11_garbage_on_every_subject_of_nats(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    try:
        with clustered("on-nats", server.url, tmp_path_factory) as target, target.grows_by_at_most(48 * MIB):
            subjects = asyncio.run(_pollute(server.url, target))
            assert subjects
            still_works(target)
    finally:
        server.kill()


async def _pollute(url: str, target: Target) -> set[str]:
    """Listen to everything, let the server speak, and answer on each of its subjects with garbage."""
    client = await nats.connect(url)
    heard: set[str] = set()

    async def hear(message: Any) -> None:
        if ".out." in message.subject:
            heard.add(message.subject)

    await client.subscribe(">", cb=hear)
    await client.flush()
    for _ in range(5):
        await asyncio.to_thread(target.bystander.call, "say", "members", "hello")
    await client.flush()
    subjects = set(heard)
    for subject in subjects:
        for garbage in GARBAGE:
            await client.publish(subject, garbage)
            await client.flush()
    await client.close()
    return subjects
