"""NATS away, in all the ways it can be: what is said of each append is true, and all is followed again.

And nodes that the server cuts off because they do not read.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bellwire.brokers import nats_link
from bellwire.brokers.nats import NatsBroker
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from bellwire.delivery.log import Limits
from tests.brokers.attempts import Attempts
from tests.brokers.contract import draft, name
from tests.brokers.nats_server import NatsServer, Proxy, again, behind_proxy, broker_at, entries_of
from tests.brokers.redis_node import Node

pytestmark = pytest.mark.bellwire(clock="real")

AWAY = (BrokerUnavailable, OutcomeUnknown)
EVERYTHING = Limits(messages=100_000, size=2**30)
MAX_PENDING = 8 * 1024 * 1024


async def _crash(server: NatsServer, proxy: Proxy) -> None:
    await server.crash()


async def _freeze(server: NatsServer, proxy: Proxy) -> None:
    await server.freeze()
    await asyncio.sleep(0.5)
    server.thaw()


async def _cut(server: NatsServer, proxy: Proxy) -> None:
    proxy.cut()


async def _lose_answers(server: NatsServer, proxy: Proxy) -> None:
    proxy.mute()
    await asyncio.sleep(0.01)
    proxy.cut()


async def _lose_questions(server: NatsServer, proxy: Proxy) -> None:
    proxy.swallow()
    await asyncio.sleep(0.01)
    proxy.cut()


FAULTS: list[Callable[[NatsServer, Proxy], Awaitable[None]]] = [_crash, _freeze, _cut, _lose_answers, _lose_questions]


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_is_said_of_an_append_is_true_and_all_is_followed_again_without_a_reset(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch, fault: Callable[[NatsServer, Proxy], Awaitable[None]]
) -> None:
    monkeypatch.setattr(nats_link, "ANSWER_TIMEOUT", 0.2)
    stream = name()
    async with behind_proxy(server, EVERYTHING, "away") as (broker, _, proxy):
        await broker.append(stream, draft("m0"))
        node = Node(broker, stream)
        await node.open()
        attempts = Attempts(broker, stream)
        for _ in range(3):
            await attempts.make(40)
            making = asyncio.create_task(attempts.make(400))
            await fault(server, proxy)
            await making
            await again(lambda: broker.top(stream))
        assert len(attempts.acknowledged) >= 120
        await again(lambda: broker.append(stream, draft("last")), AWAY)
        log = await again(lambda: all_of(broker, stream))
        assert len(set(log)) == len(log)
        assert set(attempts.acknowledged) <= set(log)
        assert not attempts.unavailable & set(log)
        assert set(log) - {"m0", "last"} <= {*attempts.acknowledged, *attempts.unknown}
        assert await node.until("last", 20) == log[1:]


async def all_of(broker: NatsBroker, stream: str) -> list[str]:
    """Return what is in a log of any length."""
    link = await broker._next_link()
    return [entry.mid for entry in await broker._reader.all(link, stream)]


async def test_a_server_that_stands_still_for_ten_seconds_is_followed_again(server: NatsServer) -> None:
    stream = name()
    async with (
        broker_at(server.url, EVERYTHING, "still") as broker,
        broker_at(server.url, EVERYTHING, "still") as other,
    ):
        await broker.append(stream, draft("m0"))
        node = Node(broker, stream)
        await node.open()
        await server.freeze()
        try:
            async with asyncio.timeout(30):
                with pytest.raises(OutcomeUnknown):
                    await broker.append(stream, draft("m1"))
                with pytest.raises(AWAY):
                    await broker.append(stream, draft("m2"))
        finally:
            server.thaw()
        for mid in ("m1", "m2", "m3"):
            await again(lambda mid=mid: broker.append(stream, draft(mid)), AWAY)  # type: ignore[misc]
        await again(lambda: other.append(stream, draft("last")), AWAY)
        assert await node.until("last", 20) == ["m1", "m2", "m3", "last"]
        assert await entries_of(broker, stream) == ["m0", "m1", "m2", "m3", "last"]


async def test_who_is_cut_off_because_it_does_not_read_misses_nothing(tmp_path: Path) -> None:
    server = await asyncio.to_thread(lambda: NatsServer(tmp_path, max_pending=MAX_PENDING))
    counters, stream = Counters(), name()
    async with (
        Proxy.to(server) as proxy,
        broker_at(proxy.url, EVERYTHING, counters=counters) as broker,
        broker_at(server.url, EVERYTHING) as other,
    ):
        await other.append(stream, draft("m0"))
        node = Node(broker, stream)
        await node.open()
        proxy.stall()
        body, count = b"x" * 100_000, 0
        while b"Slow Consumer" not in await asyncio.to_thread((tmp_path / "log").read_bytes):
            count += 1
            await other.append(stream, draft(f"m{count}", body))
        proxy.flow()
        await other.append(stream, draft("last"))
        assert await node.until("last", 20) == [*(f"m{n}" for n in range(1, count + 1)), "last"]
        assert counters.get("broker_connections_lost_total") == 1
    await asyncio.to_thread(server.kill)
