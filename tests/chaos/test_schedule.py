"""Trouble by schedule: the same for the same seed, about as often as was said, and over when it is calm."""

import asyncio
import itertools
from collections import Counter

import pytest

from tests.chaos.proxy import Connection
from tests.chaos.schedule import ENDINGS, KINDS, Kind, Schedule, troubles
from tests.chaos.test_proxy import is_reset, peers


def test_the_same_seed_and_number_bring_the_same_trouble() -> None:
    first, same, other, later = (
        [*itertools.islice(troubles(seed, number), 50)] for seed, number in ((1, 0), (1, 0), (2, 0), (1, 1))
    )
    assert first == same
    assert first != other
    assert first != later


def test_every_kind_comes_as_often_and_every_second_or_so() -> None:
    some = [*itertools.islice(troubles(7, 0, every=2.0), 7_000)]
    assert all(800 < count < 1_200 for count in Counter(trouble.kind for trouble in some).values())
    assert {trouble.kind for trouble in some} == set(KINDS)
    assert 1.9 < sum(trouble.after for trouble in some) / 7_000 < 2.1
    assert min(trouble.after for trouble in some) >= 0.6
    assert max(trouble.lasts for trouble in some) <= 2.0


@pytest.mark.parametrize("kind", ENDINGS)
async def test_some_trouble_ends_a_connection(kind: Kind) -> None:
    async with peers() as p:
        schedule = p.proxy.on_connect = Schedule(1, kinds=[kind])
        client, server, connection = await p.pair()
        async with asyncio.timeout(4):
            while not connection.ended.is_set():
                client[1].write(b"x")
                server[1].write(b"x")
                await asyncio.sleep(0.1)
        assert p.proxy.faults[kind] == 1
        await schedule.calm()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ENDINGS])
async def test_other_trouble_loses_nothing(kind: Kind) -> None:
    async with peers() as p:
        schedule = p.proxy.on_connect = Schedule(1, kinds=[kind])
        client, server, connection = await p.pair()
        for n in range(300):
            client[1].write(b"%6d" % n)
            await asyncio.sleep(0.05)
        assert await server[0].readexactly(1_800) == b"".join(b"%6d" % n for n in range(300))
        assert p.proxy.faults[kind] > 5
        await schedule.calm()
        assert not connection.ended.is_set()
        client[1].write(b"calm")
        assert await server[0].readexactly(4) == b"calm"


async def test_when_it_is_calm_all_works_or_has_ended() -> None:
    async with peers() as p:
        schedule = p.proxy.on_connect = Schedule(3, kinds=["stall", "half_open"])
        pairs = [await p.pair() for _ in range(10)]
        await asyncio.sleep(1.7)
        await schedule.calm()
        assert p.proxy.faults["stall"] > 0
        assert p.proxy.faults["half_open"] > 0
        for client, server, connection in pairs:
            client[1].write(b"x")
            if await works(connection):
                assert await server[0].readexactly(1) == b"x"
            else:
                assert await is_reset(client)
                assert await is_reset(server)
        client, server, connection = await p.pair()
        faults = p.proxy.faults.total()
        await asyncio.sleep(60)
        assert not connection.ended.is_set()
        assert p.proxy.faults.total() == faults


async def works(connection: Connection) -> bool:
    """Whether a byte passed, rather than the connection ended."""
    passed = asyncio.create_task(connection.up.until_passed(1))
    ended = asyncio.create_task(connection.ended.wait())
    await asyncio.wait((passed, ended), return_when=asyncio.FIRST_COMPLETED)
    passed.cancel()
    ended.cancel()
    await asyncio.gather(passed, ended, return_exceptions=True)
    return not connection.ended.is_set()
