"""Failovers that take acknowledged entries back: whoever saw them is told before anything newer.

A replica is promoted while the old master still acknowledges; then the old one follows it and is promoted again.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bellwire.brokers import redis as broker_module
from bellwire.brokers.redis import RedisBroker
from bellwire.brokers.redis_streams import place_of
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.answer import Page, Reason, Unproved
from bellwire.delivery.entry import Draft
from bellwire.delivery.log import Appended
from bellwire.delivery.position import Position, era, position
from tests.brokers.contract import Ears, draft, name
from tests.brokers.redis_node import Node
from tests.brokers.redis_server import RedisServer, again, broker_at, the_master

pytestmark = pytest.mark.bellwire(clock="real")


@asynccontextmanager
async def failed_over(
    servers: tuple[RedisServer, RedisServer], stream: str
) -> AsyncIterator[tuple[RedisBroker, list[Position], list[Appended]]]:
    """A broker on the first server, which acknowledged m1 to m8; the second was promoted when it had m1 to m5."""
    a, b = servers
    await b.follow(a)
    async with broker_at(a.url) as broker:
        positions = [await broker.top(stream)]
        appended = [await broker.append(stream, draft(f"m{n}")) for n in range(1, 6)]
        await b.catch_up(a)
        await b.promote()
        appended += [await broker.append(stream, draft(f"m{n}")) for n in range(6, 9)]
        positions += [position(each.gen, each.point) for each in appended]
        yield broker, positions, appended


async def _judged(broker: RedisBroker, stream: str, positions: list[Position], right: list[str]) -> None:
    """Who saw phantoms is told so, and all that is right; the others just go on."""
    for n, at in enumerate(positions):
        answer = await broker.read(stream, at, confirmed=True)
        if n <= 5:
            assert isinstance(answer, Page)
            assert [entry.mid for entry in answer.entries] == right[n:]
        else:
            assert isinstance(answer, Unproved)
            assert answer.reason is Reason.DIVERGED
            assert answer.since is not None
            assert 5 <= answer.since.seq <= n
            page = await broker.read(stream, answer.restart, confirmed=True)
            assert isinstance(page, Page)
            assert [entry.mid for entry in page.entries] == right


@pytest.mark.parametrize("others", [["x6", "x7", "x8"], ["x6", "m7", "x8"], []])
async def test_a_failover_that_takes_acknowledged_entries_back(
    servers: tuple[RedisServer, RedisServer], others: list[str]
) -> None:
    stream = name()
    async with failed_over(servers, stream) as (_, positions, _), broker_at(servers[1].url) as broker:
        for mid in others:
            appended = await broker.append(stream, draft(mid))
            assert not appended.duplicate
            assert era(appended.gen) > era(positions[0].gen)
        right = [f"m{n}" for n in range(1, 6)] + others
        await _judged(broker, stream, positions, right)
        assert (await broker.append(stream, draft("m3"))).point == positions[3].point


async def test_there_and_back_with_others_entries_between_opens_a_generation(
    servers: tuple[RedisServer, RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "LOOK_EVERY", 60.0)
    a, b = servers
    stream = name()
    async with failed_over(servers, stream) as (broker, positions, _), broker_at(b.url) as other:
        connection = the_master(broker).link
        await other.append(stream, draft("x6"))
        await a.follow(b)
        await a.promote()
        assert era((await broker.append(stream, draft("x7"))).gen) > era(positions[0].gen)
        assert era((await broker.append(stream, draft("x8"))).gen) > era(positions[0].gen)
        assert the_master(broker).link is connection
        await _judged(broker, stream, positions, [*(f"m{n}" for n in range(1, 6)), "x6", "x7", "x8"])


async def test_there_and_back_unnoticed_is_caught_by_the_chain_under_the_same_generation(
    servers: tuple[RedisServer, RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "LOOK_EVERY", 60.0)
    a, b = servers
    stream, ears = name(), Ears()
    async with failed_over(servers, stream) as (broker, positions, phantoms):
        await broker.subscribe(stream, ears)
        connection = the_master(broker).link
        await a.follow(b)
        await a.promote()
        news = [await broker.append(stream, draft(mid)) for mid in ("x6", "m7", "x8")]
        assert the_master(broker).link is connection
        assert [new.gen for new in news] == [positions[0].gen] * 3
        assert [new.point.seq for new in news] == [old.point.seq for old in phantoms[5:]]
        await _judged(broker, stream, positions, [*(f"m{n}" for n in range(1, 6)), "x6", "m7", "x8"])
        await ears.until(3)
        assert ears.entries[0][2].prev == positions[5].point != positions[8].point


async def test_a_failover_after_one_that_nobody_noticed_skips_nothing_of_what_came_between_them(
    servers: tuple[RedisServer, RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "LOOK_EVERY", 60.0)
    a, b = servers
    stream = name()
    async with failed_over(servers, stream) as (broker, positions, _):
        await a.follow(b)
        await a.promote()
        for mid in ("x6", "x7"):
            assert (await broker.append(stream, draft(mid))).gen == positions[0].gen
        await b.follow(a)
        await b.catch_up(a)
        await b.promote()
        async with broker_at(b.url) as other:
            assert (await other.append(stream, draft("y8"))).gen != positions[0].gen
            await _judged(other, stream, positions, [*(f"m{n}" for n in range(1, 6)), "x6", "x7", "y8"])


@pytest.mark.parametrize(
    ("tag", "news"),
    [
        (None, ["[diverged]", "x6", "m7", "x8", "last"]),
        (1, ["last"]),  # where all tags are equal there is no chain, and the fault appears
    ],
)
async def test_those_who_saw_phantoms_are_told_before_anything_newer(
    servers: tuple[RedisServer, RedisServer], monkeypatch: pytest.MonkeyPatch, tag: int | None, news: list[str]
) -> None:
    monkeypatch.setattr(broker_module, "LOOK_EVERY", 60.0)
    a, b = servers
    await b.follow(a)
    async with broker_at(a.url) as broker, broker_at(a.url) as writer:
        stream = name()

        async def write(*mids: str) -> None:
            for mid in mids:
                await writer.append(stream, Draft(mid, secrets.randbits(32) if tag is None else tag, b"x"))

        node = Node(broker, stream)
        await write("m0")
        await node.open()
        await write("m1", "m2", "m3", "m4", "m5")
        await b.catch_up(a)
        await b.promote()
        await write("m6", "m7", "m8")
        before = [*await node.until("m8")]
        assert before == [f"m{n}" for n in range(1, 9)]
        await a.follow(b)
        await a.promote()
        await write("x6", "m7", "x8", "last")
        assert await node.until("last") == [*before, *news]


async def test_keys_that_fell_back_are_another_generation_before_they_are_read(
    servers: tuple[RedisServer, RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "LOOK_EVERY", 60.0)
    a, b = servers
    await b.follow(a)
    async with broker_at(a.url) as broker:
        nine = await broker.put("producer", b"9")
        await b.catch_up(a)
        await b.promote()
        ten = await broker.put("producer", b"10", expected=nine)
        before = broker.generation()
        assert await broker.get("producer") == (b"10", ten)
        assert broker.generation() == before
        await a.follow(b)
        await a.promote()
        assert await broker.get("producer") == (b"9", nine)
        assert broker.generation() != before
        assert await broker.put("producer", b"11", expected=ten) is None
        other = await broker.put("producer", b"other", expected=nine)
        assert other is not None
        assert ten is not None
        assert other > ten


async def test_a_master_that_was_demoted_is_left_and_found_again(servers: tuple[RedisServer, RedisServer]) -> None:
    a, b = servers
    stream = name()
    place = [a]
    broker = RedisBroker(lambda: place[0].url)
    await broker.start()
    ears = Ears()
    await broker.subscribe(stream, ears)
    await broker.append(stream, draft("m1"))
    await b.follow(a)
    await b.promote()
    await a.follow(b)
    with pytest.raises(BrokerUnavailable, match=r"READONLY|replica|away|lost"):
        await broker.append(stream, draft("m2"))
    with pytest.raises(BrokerUnavailable):
        await broker.top(stream)
    place[0] = b
    appended = await again(lambda: broker.append(stream, draft("m2")))
    await ears.until(2)
    assert ears.entries[1][2].point == appended.point
    assert ears.entries[1][2].prev == ears.entries[0][2].point
    await broker.close()


async def test_a_replica_is_no_broker(servers: tuple[RedisServer, RedisServer]) -> None:
    a, b = servers
    await b.follow(a)
    with pytest.raises(BrokerUnavailable, match="replica"):
        await RedisBroker(b.url).start()


async def test_a_generation_that_is_too_old_is_not_known_and_the_newer_ones_are(redis: RedisServer) -> None:
    async with broker_at(redis.url) as broker:
        stream = name()
        meta, made = place_of("bellwire", stream).meta.decode(), []
        for n in range(20):
            made.append(await broker.append(stream, draft(f"m{n}")))
            await redis.ask("HSET", meta, "rid", f"another{n}")
        answers = [await broker.read(stream, position(each.gen, each.point), confirmed=True) for each in made]
        known = [n for n, answer in enumerate(answers) if isinstance(answer, Page)]
        assert known == [*range(4, 20)]
        assert all(isinstance(a, Unproved) and a.reason is Reason.GENERATION for a in answers[:4])
