"""The broker on a NATS cluster of three with three replicas: the contract, followers that lag, leaders that are killed.

It takes minutes, and runs where ``BELLWIRE_NATS_CLUSTER=1`` asks for it::

    BELLWIRE_NATS_CLUSTER=1 .venv/bin/python -m pytest -q tests/brokers/test_nats_cluster.py
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import pytest

from bellwire.brokers import nats_link
from bellwire.brokers.nats import PARTITIONS, NatsBroker
from bellwire.brokers.nats_streams import envelope, partition_name, place_of, sequence
from bellwire.core.errors import BrokerUnavailable, ConfigError, OutcomeUnknown
from bellwire.delivery.answer import Page
from bellwire.delivery.log import Limits
from bellwire.delivery.position import position
from tests.brokers.contract import Ears, draft, name
from tests.brokers.nats_cluster import NatsCluster
from tests.brokers.nats_contract import NatsContract
from tests.brokers.nats_server import Proxy, again, entries_of, tail_of

pytestmark = [
    pytest.mark.bellwire(clock="real"),
    pytest.mark.skipif("BELLWIRE_NATS_CLUSTER" not in os.environ, reason="a long run: set BELLWIRE_NATS_CLUSTER=1"),
]

AWAY = (BrokerUnavailable, OutcomeUnknown)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    cluster = NatsCluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.kill()


class _Patient(NatsBroker):
    """Waits for the cluster's leaders, which may just be elected."""

    async def start(self) -> None:
        await again(super().start, within=60)


@asynccontextmanager
async def broker_of(
    cluster: NatsCluster, prefix: str, limits: Limits | None = None, *, on: Sequence[str] = ()
) -> AsyncIterator[NatsBroker]:
    """A broker that is connected to one of these servers, by default to any."""
    async with started(
        _Patient(cluster.url_of(*on) if on else cluster.url, limits or Limits(), prefix=prefix)
    ) as broker:
        yield broker


@asynccontextmanager
async def started(broker: NatsBroker) -> AsyncIterator[NatsBroker]:
    await again(broker.start, within=60)  # a server that another test has killed may be away still
    try:
        yield broker
    finally:
        await broker.close()


class TestNatsCluster(NatsContract):
    broker_class = _Patient

    @pytest.fixture(autouse=True)
    def _cluster(self, cluster: NatsCluster) -> None:
        self.url = cluster.url


# --- what is asked for, and what is there


async def test_other_replicas_than_there_are_end_the_start_with_what_to_do(cluster: NatsCluster) -> None:
    async with broker_of(cluster, "counted") as broker:
        await broker.append(name(), draft("m"))
    for url in (cluster.url.replace("replicas=3", "replicas=1"), cluster.url.replace("replicas=3", "replicas=2")):
        with pytest.raises(ConfigError, match=r"counted_0 has 3: .*nats stream edit --replicas=[12] counted_0"):
            await again(NatsBroker(url, prefix="counted").start, within=30)
    async with broker_of(cluster, "counted", on=[*cluster.servers]) as broker:
        assert broker._reader.replicated
    unsaid = NatsBroker(cluster.url.partition("?")[0], prefix="counted")
    await again(unsaid.start)
    assert unsaid._reader.replicated
    await unsaid.close()


async def test_more_replicas_than_servers_are_told(cluster: NatsCluster) -> None:
    with pytest.raises(ConfigError, match="needs a cluster of at least 5 servers"):
        await again(NatsBroker(cluster.url.replace("replicas=3", "replicas=5"), prefix="five").start, within=30)


# --- followers lag


async def test_no_answer_is_older_than_what_was_acknowledged_though_direct_gets_are(cluster: NatsCluster) -> None:
    """A question is answered by any of them; it goes on until one that lagged has answered."""
    stream, key, n, stale = name(), name(), 0, 0
    follower = cluster.others(await _leader_of(cluster, "fresh", stream))[0]
    async with broker_of(cluster, "fresh", on=[follower]) as broker:
        link, reader = await broker._next_link(), broker._reader
        at = await broker.top(stream)
        while n < 500 or not stale:  # about one answer of a hundred lags
            n += 1
            acknowledgement = await link.ask(reader.subject(stream), envelope(draft(f"m{n}")))
            naive = await reader.newest(link, stream)
            seq = json.loads(acknowledgement.data)["seq"]
            stale += naive is None or sequence(naive) < seq
            page = await broker.read(stream, at, confirmed=True)
            assert isinstance(page, Page)
            assert [entry.seq for entry in page.entries] == [seq]
            at = position(at.gen, page.entries[0].point)
            assert page.top == at
            revision = await broker.put(key, b"%d" % n)
            assert await broker.get(key) == (b"%d" % n, revision)
            acknowledgement = await link.ask(reader.subject(stream), envelope(draft(f"n{n}")))
            at = await broker.top(stream)
            assert at.seq == json.loads(acknowledgement.data)["seq"]


async def test_a_follower_that_stands_still_holds_up_nobody_and_deceives_nobody(cluster: NatsCluster) -> None:
    stream = name()
    leader = await _leader_of(cluster, "still", stream)
    still, other = cluster.others(leader)
    async with broker_of(cluster, "still", on=[leader]) as broker, broker_of(cluster, "still", on=[other]) as reader:
        await broker.append(stream, draft("m0"))
        await cluster.servers[still].freeze()
        try:
            for n in range(1, 50):
                await again(lambda n=n: broker.append(stream, draft(f"m{n}")), AWAY, within=60)  # type: ignore[misc]
            top = await again(lambda: broker.top(stream), within=30)
        finally:
            cluster.servers[still].thaw()
        for _ in range(20):
            assert await again(lambda: reader.top(stream), within=30) == top
            assert await again(lambda: entries_of(reader, stream), within=30) == [f"m{n}" for n in range(50)]


async def _leader_of(cluster: NatsCluster, prefix: str, stream: str) -> str:
    """Return the server that leads the partition of a stream, which is made if it is not there."""
    async with broker_of(cluster, prefix):
        return await cluster.leader(partition_name(prefix, place_of(stream, PARTITIONS).partition))


# --- servers die


async def test_a_leader_that_is_killed_in_the_middle_of_appends_loses_and_doubles_nothing(cluster: NatsCluster) -> None:
    stream, ears, count = name(), Ears(), 200
    async with broker_of(cluster, "killed") as broker, broker_of(cluster, "killed") as other:
        await other.subscribe(stream, ears)
        for n in range(count):
            if n % 80 == 40:
                leader = await _leader_of(cluster, "killed", stream)
                killing = asyncio.create_task(asyncio.to_thread(cluster.servers[leader].kill))
            await again(lambda n=n: broker.append(stream, draft(f"m{n}")), AWAY, within=60)  # type: ignore[misc]
            if n % 80 == 60:
                await killing
                await asyncio.to_thread(cluster.servers[leader].start)
        expected = [f"m{n}" for n in range(count)]
        assert await again(lambda: entries_of(other, stream), within=60) == expected
        told = ears.mids
        assert told == [mid for mid in expected if mid in set(told)], "in order, none twice"
        await again(lambda: other.append(stream, draft("last")), AWAY, within=60)
        async with asyncio.timeout(60):
            while ears.mids[-1:] != ["last"]:
                await ears.until(len(ears.entries) + 1)


async def test_an_entry_that_was_evicted_and_forgotten_is_not_appended_twice_though_the_connection_stayed(
    cluster: NatsCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next leader was started again since: it knows the ids of what it holds, and of what is in Raft's log yet."""
    monkeypatch.setattr(nats_link, "ANSWER_TIMEOUT", 1.0)
    stream, ears, limits = name(), Ears(), Limits(messages=3)
    partition = partition_name("evicted", place_of(stream, PARTITIONS).partition)
    stays, *others = cluster.servers
    async with (
        Proxy.to(cluster.servers[stays]) as proxy,
        broker_of(cluster, "evicted", limits, on=[stays]) as other,
        started(_Patient(proxy.url, limits, prefix="evicted")) as broker,
    ):
        await other.subscribe(stream, ears)
        connection = await broker._next_link()
        proxy.mute()
        attempt = asyncio.create_task(broker.append(stream, draft("m")))
        await ears.until(1)
        with pytest.raises(OutcomeUnknown):
            await attempt
        proxy.unmute()
        for n in range(10):
            await again(lambda n=n: other.append(stream, draft(f"later{n}")), AWAY, within=30)  # type: ignore[misc]
        for server in others:
            await cluster.servers[server].crash()
            await cluster.in_sync(partition)
        await cluster.lead(partition, others)
        with pytest.raises(OutcomeUnknown):
            await again(lambda: broker.append(stream, draft("m")), within=60)
        assert "m" not in await again(lambda: tail_of(other, stream), within=60)
        assert await broker._next_link() is connection
