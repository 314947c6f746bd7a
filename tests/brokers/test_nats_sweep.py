"""The sweep: what limits leave over goes, what proves where the history starts stays."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from bellwire.brokers.nats import PARTITIONS
from bellwire.brokers.nats_fence import Fence
from bellwire.brokers.nats_link import Link
from bellwire.brokers.nats_streams import Reader, ask_api, partition_name, place_of
from bellwire.brokers.nats_sweep import FORGET_AFTER, Sweep
from bellwire.core.counters import Counters
from bellwire.delivery.answer import Page, Reason, Unproved
from bellwire.delivery.log import DEFAULT_LIMITS, Limits
from bellwire.delivery.position import START, position
from tests.brokers.contract import Ears, draft, name
from tests.brokers.nats_server import NatsServer, broker_at, tail_of

pytestmark = pytest.mark.bellwire(clock="real")


@asynccontextmanager
async def sweeping(
    server: NatsServer, clock: Callable[[], float], limits: Limits = DEFAULT_LIMITS, prefix: str = "sweep"
) -> AsyncIterator[tuple[Sweep, Link, Counters]]:
    counters, link = Counters(), Link()
    await link.open(server.url)
    yield Sweep(prefix, Reader(prefix, PARTITIONS, Fence()), limits, clock, time.monotonic, counters), link, counters
    await link.close()


async def stored_in(link: Link, stream: str, prefix: str = "sweep") -> int:
    place = place_of(stream, PARTITIONS)
    subject = f"{prefix}.in.{place.partition}.{place.hash}"
    info = await ask_api(link, f"STREAM.INFO.{partition_name(prefix, place.partition)}", {"subjects_filter": subject})
    return int(info["state"].get("subjects", {}).get(subject, 0))


async def test_what_is_too_old_goes_and_the_point_before_the_rest_stays(server: NatsServer) -> None:
    async with (
        broker_at(server.url, prefix="sweep") as broker,
        sweeping(server, lambda: broker.clock() + 3600) as (sweep, link, counters),
    ):
        stream = name()
        made = [await broker.append(stream, draft(f"m{n}")) for n in range(5)]
        assert not await sweep.sweep(link, stream)
        assert await stored_in(link, stream) == 2
        page = await broker.read(stream, position(made[3].gen, made[3].point), confirmed=True)
        assert isinstance(page, Page)
        assert [entry.mid for entry in page.entries] == ["m4"]
        assert not await sweep.sweep(link, stream)
        assert counters.get("broker_swept_streams_total") == 1


async def test_what_is_young_stays_and_is_looked_after_again(server: NatsServer) -> None:
    async with (
        broker_at(server.url, prefix="sweep") as broker,
        sweeping(server, broker.clock) as (sweep, link, counters),
    ):
        stream = name()
        for n in range(5):
            await broker.append(stream, draft(f"m{n}"))
        assert await sweep.sweep(link, stream)
        assert await stored_in(link, stream) == 5
        assert not counters.snapshot()


async def test_bytes_are_counted_while_appending(server: NatsServer) -> None:
    counters, limits = Counters(), Limits(size=10_000)
    async with (
        broker_at(server.url, limits, counters=counters, prefix="sweep") as broker,
        sweeping(server, broker.clock, limits) as (sweep, link, _),
    ):
        stream = name()
        for n in range(40):
            await broker.append(stream, draft(f"m{n}", b"x" * 1_000))
        async with asyncio.timeout(5):
            while not counters.get("broker_swept_streams_total"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await sweep.sweep(link, stream)
        assert await stored_in(link, stream) == 11
        assert await tail_of(broker, stream) == [f"m{n}" for n in range(30, 40)]


async def test_a_stream_of_which_nobody_heard_for_a_day_is_forgotten(server: NatsServer) -> None:
    async with broker_at(server.url, prefix="day") as broker:
        async with sweeping(server, lambda: broker.clock() + FORGET_AFTER + 1, prefix="day") as (sweep, link, counters):
            followed, quiet = name(), name()
            await broker.subscribe(followed, Ears())
            await broker.append(followed, draft("m"))
            old = await broker.append(quiet, draft("m"))
            await sweep.forget(link, broker._followed)
            assert await stored_in(link, followed, "day") == 1
            assert await stored_in(link, quiet, "day") == 0
            assert counters.get("broker_forgotten_streams_total") == 1
        assert (await broker.top(quiet)).point == START
        new = await broker.append(quiet, draft("n"))
        assert new.prev == START
        answer = await broker.read(quiet, position(old.gen, old.point), confirmed=True)
        assert isinstance(answer, Unproved)
        assert answer.reason is Reason.DIVERGED


async def test_a_stream_that_is_followed_on_another_node_is_not_forgotten(server: NatsServer) -> None:
    async with (
        broker_at(server.url, prefix="elsewhere") as broker,
        broker_at(server.url, prefix="elsewhere") as other,
        sweeping(server, lambda: broker.clock() + FORGET_AFTER + 1, prefix="elsewhere") as (sweep, link, counters),
    ):
        followed, ears = name(), Ears()
        await other.subscribe(followed, ears)
        await broker.append(followed, draft("m"))
        await sweep.forget(link, broker._followed)
        assert await stored_in(link, followed, "elsewhere") == 1
        assert not counters.snapshot()
        await other.publish(followed, b"told")
        await ears.until(2)
        assert ears.bodies == [(followed, b"told")]  # and nothing of the question whether it listens


async def test_a_stream_that_was_heard_of_today_is_not_forgotten(server: NatsServer) -> None:
    async with (
        broker_at(server.url, prefix="today") as broker,
        sweeping(server, lambda: broker.clock() + FORGET_AFTER - 5, prefix="today") as (sweep, link, counters),
    ):
        stream = name()
        for n in range(3):
            await broker.append(stream, draft(f"m{n}"))
        await sweep.forget(link, set)
        assert await stored_in(link, stream, "today") == 3
        assert not counters.snapshot()
