"""The broker on a Redis Cluster: the contract, and slots that move while they are used."""

import asyncio
from collections.abc import Iterator

import pytest

from bellwire.brokers import redis as broker_module
from bellwire.brokers import redis_masters
from bellwire.brokers.base import Broker
from bellwire.brokers.redis import RedisBroker
from bellwire.brokers.redis_streams import place_of
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, ConfigError, OutcomeUnknown
from bellwire.delivery.answer import Page
from bellwire.delivery.log import Appended, Limits
from bellwire.delivery.position import position
from tests.brokers.contract import Contract, Ears, draft, name
from tests.brokers.redis_cluster import MASTERS, Cluster
from tests.brokers.redis_server import REDIS_7, RedisServer, again, broker_at, entries_of, needs_redis_7
from tests.brokers.test_redis import Shifting

pytestmark = pytest.mark.bellwire(clock="real")

AWAY = (BrokerUnavailable, OutcomeUnknown)


@pytest.fixture(scope="module", params=["Valkey", pytest.param("Redis 7", marks=needs_redis_7)])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    binary = REDIS_7 if request.param == "Redis 7" else None
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), binary=binary)
    yield cluster
    cluster.kill()


class TestRedisCluster(Shifting, Contract):
    """The contract."""

    @pytest.fixture(autouse=True)
    def _cluster(self, cluster: Cluster, _server: None) -> None:
        self.url = cluster.url

    def make(self, *, messages: int = 1_000) -> Broker:
        return self.make_with(Limits(messages=messages), f"keep{messages}")


def slot_of_stream(stream: str) -> int:
    return place_of("bellwire", stream).slot


async def journey(cluster: Cluster, stream: str) -> tuple[int, RedisServer, RedisServer]:
    """The slot of a stream, the master that has it, and another one."""
    slot = slot_of_stream(stream)
    source = await cluster.holder(slot)
    return slot, source, await cluster.another(source)


def connections(broker: RedisBroker) -> set[int]:
    return {id(master) for master in broker._masters._masters.values()}


async def until_told(ears: Ears, mid: str) -> None:
    """Wait for the newest entry; those before it may have been missed."""
    async with asyncio.timeout(30):
        while mid not in ears.mids[-1:]:
            await ears.until(len(ears.entries) + len(ears.bodies) + 1, seconds=30)


# --- slots that move


async def test_a_slot_that_moves_is_followed(cluster: Cluster) -> None:
    counters = Counters()
    async with broker_at(cluster.url, counters=counters) as broker, broker_at(cluster.url) as other:
        stream, ears = name(), Ears()
        await broker.subscribe(stream, ears)
        first = await other.append(stream, draft("m1"))
        revision = await other.put(stream, b"value")
        before = connections(broker)
        await cluster.move(*await journey(cluster, stream))
        second = await other.append(stream, draft("m2"))
        assert second.prev == first.point
        assert second.gen != first.gen
        assert await other.append(stream, draft("m1")) == first.again
        assert await broker.get(stream) == (b"value", revision)
        assert await broker.put(stream, b"other", expected=revision)
        await ears.until(2)
        assert ears.mids == ["m1", "m2"]
        await broker.publish(stream, b"now")
        await ears.until(3)
        page = await broker.read(stream, position(first.gen, first.point), confirmed=True)
        assert isinstance(page, Page)
        assert [entry.mid for entry in page.entries] == ["m2"]
        assert connections(broker) == before
        assert not counters.get("broker_connections_lost_total")


async def test_what_was_missed_while_a_slot_moved_shows_in_the_newest_entry(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with broker_at(cluster.url) as broker:
        stream, quiet, ears, still, late = name(), name(), Ears(), Ears(), Ears()
        await broker.append(quiet, draft("old"))
        await broker.subscribe(stream, ears)
        await broker.subscribe(quiet, still)
        await broker.append(stream, draft("m1"))
        await ears.until(1)
        monkeypatch.setattr(broker_module, "_PAUSE", 2.0)
        await cluster.move(*await journey(cluster, stream))
        await cluster.move(*await journey(cluster, quiet))
        async with broker_at(cluster.url) as other:
            lost = await other.append(stream, draft("lost"))
            await other.append(stream, draft("m2"))
        assert ears.mids == ["m1"]
        await broker.subscribe(quiet, late)
        await broker.append(quiet, draft("new"))
        await late.until(1)
        await ears.until(2)
        assert ears.mids == ["m1", "m2"]
        assert ears.entries[1][2].prev == lost.point
        assert still.mids == late.mids == ["new"]


async def test_who_leaves_and_comes_back_while_a_slot_is_followed_is_told(cluster: Cluster) -> None:
    async with broker_at(cluster.url) as broker:
        stream, leaver, ears = name(), Ears(), Ears()
        await broker.subscribe(stream, leaver)
        place = place_of("bellwire", stream)
        master, live = broker._masters.of(place.slot), broker._lives[place.channel]
        following = asyncio.create_task(broker._follow_again(master, live))
        await broker.unsubscribe(stream, leaver)
        await broker.subscribe(stream, ears)
        await following
        await broker.append(stream, draft("m"))
        await ears.until(1)
        assert not leaver.entries


async def test_while_a_slot_moves_what_is_there_is_asked_for_there_and_appends_wait(cluster: Cluster) -> None:
    async with broker_at(cluster.url) as broker:
        stream, ears = name(), Ears()
        slot, source, target = await journey(cluster, stream)
        await broker.subscribe(stream, ears)
        first = await broker.append(stream, draft("m1"))
        revision = await broker.put(stream, b"value")
        await cluster.begin_move(slot, source, target)
        assert (await broker.top(stream)).point == first.point
        early = asyncio.create_task(broker.append(stream, draft("m2")))
        await cluster.move_keys(slot, source, target)
        assert await broker.get(stream) == (b"value", revision)
        assert (await broker.top(stream)).point == first.point
        assert await entries_of(broker, stream) == ["m1"]
        late = asyncio.create_task(broker.append(stream, draft("m3")))
        done, _ = await asyncio.wait({early, late}, timeout=0.1)
        assert not done
        await cluster.end_move(slot, source, target)
        assert first.point in {(await early).prev, (await late).prev}
        await until_told(ears, (await entries_of(broker, stream))[-1])


async def test_a_slot_that_does_not_arrive_is_unavailable_after_a_while(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_masters, "PATIENCE", 0.2)
    async with broker_at(cluster.url) as broker:
        stream = name()
        slot, source, target = await journey(cluster, stream)
        await broker.append(stream, draft("m1"))
        await cluster.begin_move(slot, source, target)
        with pytest.raises(BrokerUnavailable, match="TRYAGAIN"):
            await broker.append(stream, draft("m2"))
        await cluster.move_keys(slot, source, target)
        await cluster.end_move(slot, source, target)
        assert not (await again(lambda: broker.append(stream, draft("m2")))).duplicate


async def test_many_streams_keep_their_order_while_their_slots_move(cluster: Cluster) -> None:
    streams = [name() for _ in range(12)]
    ears = {stream: Ears() for stream in streams}
    async with broker_at(cluster.url) as broker, broker_at(cluster.url) as other:
        for stream in streams:
            await broker.subscribe(stream, ears[stream])

        async def write(stream: str) -> None:
            for n in range(60):
                await again(lambda m=f"m{n}": other.append(stream, draft(m)))  # type: ignore[misc]

        writing = [asyncio.create_task(write(stream)) for stream in streams]
        for stream in streams[:6]:
            await cluster.move(*await journey(cluster, stream))
        await asyncio.gather(*writing)
        for stream in streams:
            await other.append(stream, draft("last"))
            await until_told(ears[stream], "last")
            right = [*(f"m{n}" for n in range(60)), "last"]
            assert await entries_of(other, stream) == right
            seqs = [entry.seq for _, _, entry in ears[stream].entries]
            assert seqs == sorted(set(seqs))


async def test_appends_that_do_not_wait_for_each_other_keep_their_order_while_their_slot_moves(
    cluster: Cluster,
) -> None:
    async with broker_at(cluster.url) as broker:
        stream = name()
        await broker.append(stream, draft("m"))
        moving = asyncio.create_task(cluster.move(*await journey(cluster, stream)))
        appending: list[asyncio.Task[Appended]] = []
        while not moving.done() or len(appending) < 200:
            appending.append(asyncio.create_task(broker.append(stream, draft(f"m{len(appending)}"))))
            await broker.top(stream)  # so that they do not all leave at once
        assert [appended.duplicate for appended in await asyncio.gather(*appending)] == [False] * len(appending)
        assert await entries_of(broker, stream) == ["m", *(f"m{n}" for n in range(len(appending)))]
        assert broker._masters._lines == {}


async def test_a_slot_moves_to_a_master_that_had_none_and_back(cluster: Cluster) -> None:
    new = await asyncio.to_thread(cluster.add_master)
    async with broker_at(cluster.url) as broker, broker_at(cluster.url) as other:
        stream, ears = name(), Ears()
        slot, old, _ = await journey(cluster, stream)
        before = connections(broker)
        await broker.subscribe(stream, ears)
        await other.append(stream, draft("m1"))
        revision = await broker.put(stream, b"value")
        await cluster.begin_move(slot, old, new)
        await cluster.move_keys(slot, old, new)
        early = asyncio.create_task(broker.get(stream))
        done, _ = await asyncio.wait({early}, timeout=0.1)
        assert not done
        await cluster.end_move(slot, old, new)
        assert await early == (b"value", revision)
        await other.append(stream, draft("m2"))
        await ears.until(2)
        assert len(connections(broker)) == len(before) + 1
        await cluster.move(slot, new, old)
        await other.append(stream, draft("m3"))
        await ears.until(3)
        assert ears.mids == ["m1", "m2", "m3"] == await entries_of(broker, stream)
        assert connections(broker) == before


# --- masters


async def test_one_master_away_leaves_the_others(cluster: Cluster) -> None:
    async with broker_at(cluster.url) as broker, broker_at(cluster.url) as other:
        stream, ears, far = name(), Ears(), Ears()
        gone = await cluster.holder(slot_of_stream(stream))
        elsewhere = name()
        while await cluster.holder(slot_of_stream(elsewhere)) is gone:
            elsewhere = name()
        await broker.subscribe(stream, ears)
        await broker.subscribe(elsewhere, far)
        await broker.append(stream, draft("m1"))
        await ears.until(1)
        await asyncio.to_thread(gone.kill)
        with pytest.raises(AWAY):
            await broker.append(stream, draft("m2"))
        generation = broker.generation()
        await other.append(elsewhere, draft("m1"))
        await far.until(1)
        with pytest.raises(BrokerUnavailable):
            await broker.append(stream, draft("m2"))
        assert broker.generation() == generation
        await asyncio.to_thread(gone.start)
        await again(lambda: other.append(stream, draft("m2")), AWAY, seconds=30)
        await until_told(ears, "m2")
        assert ears.mids == ["m1", "m2"]
        assert await again(lambda: entries_of(broker, stream), seconds=30) == ["m1", "m2"]


async def test_a_master_that_stays_away_keeps_nobody_from_following_a_slot_between_the_others(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "_BASE_BACKOFF", 60.0)
    monkeypatch.setattr(broker_module, "MAX_BACKOFF", 60.0)
    async with broker_at(cluster.url) as broker:
        gone, *others = cluster.nodes[:MASTERS]
        stream, ears = name(), Ears()
        while await cluster.holder(slot_of_stream(stream)) is not others[0]:
            stream = name()
        await broker.subscribe(stream, ears)
        await asyncio.to_thread(gone.kill)
        try:
            async with asyncio.timeout(20):
                while len(connections(broker)) > MASTERS - 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await cluster.move(slot_of_stream(stream), *others)
            await broker.append(stream, draft("m"))
            await ears.until(1)
        finally:
            await asyncio.to_thread(gone.start)
            await asyncio.to_thread(cluster.wait_until_whole)


async def test_any_master_that_was_wiped_makes_another_generation(cluster: Cluster) -> None:
    async with broker_at(cluster.url) as broker, broker_at(cluster.url) as other:
        assert broker.generation() == other.generation()
        seen = {broker.generation()}
        for node in cluster.nodes[:MASTERS]:
            await node.ask("FLUSHALL")
            await broker._masters.look()
            assert broker.generation() not in seen
            seen.add(broker.generation())
            await other._masters.look()
            assert other.generation() == broker.generation()


# --- what is refused


async def test_several_servers_that_are_no_cluster_are_refused(redis: RedisServer) -> None:
    with pytest.raises(ConfigError, match=r"several servers.* no cluster.*\?sentinel=name"):
        await RedisBroker(f"{redis.url},127.0.0.1:1").start()


async def test_a_user_who_may_not_ask_where_the_slots_are_is_told(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    await node.ask("ACL", "SETUSER", "limited", "on", ">limited", "~*", "&*", "+@all", "-cluster")
    url = node.url.replace(":for-tests-only@", "limited:limited@")
    with pytest.raises(ConfigError, match="allow the user to ask it for CLUSTER SLOTS"):
        await RedisBroker(url).start()
