"""Fences: those who wait share the next one, and an answer from before one is asked for again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bellwire.brokers import nats_fence
from bellwire.brokers.nats_fence import Fence, caught_up, newest_behind
from bellwire.brokers.nats_link import Link, Unanswered
from bellwire.brokers.nats_streams import ask_api, ensure, fence_subject, partition_config, partition_name
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.log import Limits
from tests.brokers.nats_server import NatsServer, Proxy

SUBJECT = fence_subject("fences", 0)
NAME = partition_name("fences", 0)


@asynccontextmanager
async def link_to(url: str) -> AsyncIterator[Link]:
    link = Link()
    await link.open(url)
    await ensure(link, partition_config("fences", 0, Limits()), 1)
    try:
        yield link
    finally:
        await link.close()


@pytest.mark.bellwire(clock="real")
async def test_those_who_wait_share_the_next_and_only_the_newest_is_kept(server: NatsServer) -> None:
    async with link_to(server.url) as link:
        fence = Fence()
        first = asyncio.create_task(fence.put(link, SUBJECT))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the first is under way: for those who come now it is too early
        others = await asyncio.gather(*(fence.put(link, SUBJECT) for _ in range(20)))
        assert {await first} < {*others, await first}
        assert len(set(others)) == 1
        assert await first < others[0] < await fence.put(link, SUBJECT)
        info = await ask_api(link, f"STREAM.INFO.{NAME}", {"subjects_filter": SUBJECT})
        assert info["state"]["subjects"] == {SUBJECT: 1}
        await fence.close()


@pytest.mark.bellwire(clock="real")
async def test_the_newest_is_told_by_whoever_has_the_fence(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_fence, "CAUGHT_UP_WITHIN", 0.2)
    async with link_to(server.url) as link:
        fence, subject = Fence(), "fences.in.0.hash"
        assert await newest_behind(link, NAME, subject, SUBJECT, await fence.put(link, SUBJECT)) is None
        await link.ask(subject, b"value")
        number = await fence.put(link, SUBJECT)
        newest = await newest_behind(link, NAME, subject, SUBJECT, number)
        assert newest is not None
        assert newest.data == b"value"
        with pytest.raises(BrokerUnavailable, match="lag too far behind"):
            await newest_behind(link, NAME, subject, SUBJECT, number + 1)


@pytest.mark.bellwire(clock="real")
async def test_a_fence_that_is_not_answered_fails_for_all_who_wait_and_may_be_left(server: NatsServer) -> None:
    async with Proxy.to(server) as proxy, link_to(proxy.url) as link:
        fence = Fence()
        proxy.swallow()
        waiting = [asyncio.create_task(fence.put(link, SUBJECT)) for _ in range(3)]
        await proxy.swallowed.wait()
        waiting[0].cancel()
        proxy.cut()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError, Unanswered, Unanswered]
        with pytest.raises(BrokerUnavailable):
            await fence.put(link, SUBJECT)
        await fence.close()


async def test_it_is_asked_again_until_somebody_knows() -> None:
    answers = iter([None, None, 0])

    async def look() -> int | None:
        return next(answers)

    assert await caught_up(look) == 0
