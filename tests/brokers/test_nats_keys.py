"""Keys on NATS: comparisons without message ids, answers that never come, what ran out and is still stored."""

import asyncio

import msgspec
import pytest

from bellwire.brokers.nats_keys import keys_name
from bellwire.brokers.nats_link import Link
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from tests.brokers.contract import name
from tests.brokers.nats_server import NatsServer, behind_proxy, broker_at

pytestmark = pytest.mark.bellwire(clock="real")


async def test_a_comparison_that_was_not_answered_is_read_back(server: NatsServer) -> None:
    async with behind_proxy(server) as (broker, other, proxy):
        key = name()
        proxy.mute()
        attempt = asyncio.create_task(broker.put(key, b"x", expected=0))
        kept = None
        async with asyncio.timeout(5):
            while kept is None:
                kept = await other.get(key)
        proxy.cut()
        assert await attempt == kept.revision
        assert await broker.get(key) == (b"x", kept.revision)


async def test_a_comparison_that_never_arrived_is_made_again(server: NatsServer) -> None:
    async with behind_proxy(server) as (broker, other, proxy):
        key = name()
        first = await broker.put(key, b"x")
        proxy.swallow()
        attempt = asyncio.create_task(broker.put(key, b"y", expected=first))
        await proxy.swallowed.wait()
        proxy.cut()
        revision = await attempt
        assert await other.get(key) == (b"y", revision)


async def test_a_put_that_was_not_answered_and_may_have_been_replaced_is_unknown(server: NatsServer) -> None:
    async with behind_proxy(server) as (broker, other, proxy):
        key = name()
        proxy.swallow()
        attempt = asyncio.create_task(broker.put(key, b"x", expected=0))
        await proxy.swallowed.wait()
        await other.put(key, b"y")
        proxy.cut()
        with pytest.raises(OutcomeUnknown):
            await attempt
        kept = await other.get(key)
        assert kept is not None
        assert kept.value == b"y"


async def test_an_end_is_set_for_the_server_too_and_none_for_what_stays(server: NatsServer) -> None:
    async with broker_at(server.url, prefix="ends") as broker:
        link = Link()
        await link.open(server.url)
        for ttl, header in ((None, None), (0.5, "6"), (30.0, "35")):
            revision = await broker.put(name(), b"x", ttl=ttl)
            request = msgspec.json.encode({"seq": revision})
            stored = await link.ask(f"$JS.API.DIRECT.GET.{keys_name('ends')}", request)
            assert stored.headers.get("Nats-TTL") == header
        await link.close()


async def test_where_one_ran_out_or_was_deleted_several_expect_nothing_and_one_succeeds(server: NatsServer) -> None:
    shift = 0.0
    async with broker_at(server.url, monotonic=lambda: asyncio.get_running_loop().time() + shift) as broker:
        over, gone = name(), name()
        await broker.put(over, b"x", ttl=10)
        await broker.put(gone, b"x")
        assert await broker.delete(gone)
        shift = 11.0
        for key in (over, gone):
            made = await asyncio.gather(*(broker.put(key, bytes([n]), expected=0) for n in range(5)))
            assert sum(revision is not None for revision in made) == 1


async def test_a_lease_that_another_node_made_is_compared_with_its_end(server: NatsServer) -> None:
    shift = 0.0
    async with (
        broker_at(server.url) as maker,
        broker_at(server.url, monotonic=lambda: asyncio.get_running_loop().time() + shift) as broker,
    ):
        key = name()
        revision = await maker.put(key, b"x", ttl=10)
        shift = 11.0
        assert await broker.put(key, b"y", expected=revision) is None
        assert await maker.get(key) == (b"x", revision)


async def test_what_bellwire_did_not_write_is_no_value(server: NatsServer) -> None:
    async with broker_at(server.url, prefix="foreign") as broker:
        key = name()
        link = Link()
        await link.open(server.url)
        await broker.put(key, b"x")
        await link.ask(broker._keys._subject(key), b"short")
        with pytest.raises(BrokerUnavailable):
            await broker.get(key)
        await link.close()
