"""A Redis Cluster whose masters fail over, by agreement and by crashes, and whose slots move, while it is written to.

``BELLWIRE_FAILOVERS=20`` does that twenty times instead of once.
"""

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from bellwire.brokers.redis import RedisBroker
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from bellwire.delivery.log import Limits
from tests.brokers.contract import draft, name
from tests.brokers.redis_cluster import Cluster
from tests.brokers.redis_node import Node
from tests.brokers.redis_server import again, broker_at, entries_of
from tests.brokers.test_redis_masters import journey, slot_of_stream

pytestmark = pytest.mark.bellwire(clock="real")

ROUNDS: Final = int(os.environ.get("BELLWIRE_FAILOVERS", "1"))
AWAY = (BrokerUnavailable, OutcomeUnknown)
EVERYTHING = Limits(messages=10_000, size=2**30, age=3_600)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, replicas=True, timeout=1_000)
    yield cluster
    cluster.kill()


class Writer:
    """Appends m1, m2, ... to one stream, each until it is acknowledged."""

    def __init__(self, broker: RedisBroker, stream: str) -> None:
        self.stream = stream
        self.acknowledged: list[str] = []
        self._broker = broker
        self._stopping = False
        self._wrote = asyncio.Event()
        self._task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while not self._stopping:
            mid = f"m{len(self.acknowledged) + 1}"
            await again(lambda m=mid: self._broker.append(self.stream, draft(m)), AWAY, seconds=60)  # type: ignore[misc]
            self.acknowledged.append(mid)
            self._wrote.set()
            await asyncio.sleep(0.01)

    async def go_on(self, count: int = 10) -> None:
        """Return when so many more are acknowledged."""
        goal = len(self.acknowledged) + count
        while len(self.acknowledged) < goal:
            self._wrote.clear()
            await self._wrote.wait()

    async def stop(self) -> None:
        self._stopping = True
        await self._task
        await again(lambda: self._broker.append(self.stream, draft("last")), AWAY, seconds=60)


def judge(log: list[str], told: list[str]) -> None:
    """What a member was told is the log, or it was told of a reset before what comes after that."""
    assert len(set(log)) == len(log)
    resets = [n for n, mid in enumerate(told) if mid.startswith("[")]
    if not resets:
        assert told == log[1:]
        return
    since = told[resets[-1] + 1 :]
    assert since == log[len(log) - len(since) :]
    for start, end in zip([-1, *resets], resets, strict=False):
        numbers = [int(mid[1:]) for mid in told[start + 1 : end]]
        assert numbers == sorted(set(numbers))


@pytest.mark.timeout(120 * ROUNDS)
async def test_members_have_what_the_log_has_or_are_told_whatever_becomes_of_the_masters(cluster: Cluster) -> None:
    dice = random.Random(8)
    async with broker_at(cluster.url, EVERYTHING) as reader, broker_at(cluster.url, EVERYTHING) as broker:
        streams = [name() for _ in range(9)]
        nodes = [Node(reader, stream) for stream in streams]
        for node, stream in zip(nodes, streams, strict=True):
            await broker.append(stream, draft("m0"))
            await node.open()
        writers = [Writer(broker, stream) for stream in streams]

        async def go_on() -> None:
            await asyncio.gather(*(writer.go_on() for writer in writers))

        for _ in range(ROUNDS):
            await go_on()
            await cluster.fail_over(await cluster.holder(slot_of_stream(dice.choice(streams))))
            await go_on()
            await cluster.move(*await journey(cluster, dice.choice(streams)))
            await go_on()
            await cluster.crash(await cluster.holder(slot_of_stream(dice.choice(streams))))
            await go_on()
        await asyncio.gather(*(writer.stop() for writer in writers))
        for node, stream in zip(nodes, streams, strict=True):
            judge(await entries_of(broker, stream), await node.until("last", 30))
