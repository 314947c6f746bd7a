"""Connections to Redis: every answer finds its question, whatever becomes of those who asked."""

import asyncio
import itertools
import random

import pytest

from bellwire.brokers import redis_link
from bellwire.brokers.redis_address import RedisAddress
from bellwire.brokers.redis_link import Refused, Subscriptions, Unanswered
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable
from tests.brokers.making import answering
from tests.brokers.redis_server import PASSWORD, Delaying, RedisServer, linked, proxied

pytestmark = pytest.mark.bellwire(clock="real")


async def test_s27_after_ten_thousand_cancellations_nobody_has_anothers_answer(redis: RedisServer) -> None:
    dice = random.Random(27)
    async with proxied(redis, Delaying) as (url, _):
        link = await linked(url)
        right = cancelled = 0
        for round_ in itertools.count():
            if cancelled >= 10_000:
                break
            asked = {f"{round_}.{n}": asyncio.ensure_future(link.ask("ECHO", f"{round_}.{n}")) for n in range(400)}
            for task in dice.sample([*asked.values()], 100):
                task.cancel()
            await asyncio.wait(asked.values(), return_when=asyncio.FIRST_COMPLETED)
            for task in dice.sample([*asked.values()], 100):
                task.cancel()
            for text, answer in zip(asked, await asyncio.gather(*asked.values(), return_exceptions=True), strict=True):
                if isinstance(answer, asyncio.CancelledError):
                    cancelled += 1
                else:
                    assert answer == text.encode()
                    right += 1
        assert right > 10_000
        assert not link._row
        link.close()


async def test_an_error_is_its_own_questions_answer(redis: RedisServer) -> None:
    link = await linked(redis.url)
    before, wrong, after = link.ask("ECHO", "a"), link.ask("NONSENSE"), link.ask("ECHO", "b")
    with pytest.raises(Refused, match="unknown command") as caught:
        await wrong
    assert caught.value.code == "ERR"
    assert (await before, await after) == (b"a", b"b")
    link.close()


async def test_what_nobody_waits_for_is_counted_if_it_is_refused(redis: RedisServer) -> None:
    counters = Counters()
    link = await linked(redis.url, counters)
    link.tell("NONSENSE")
    link.tell("PING")
    assert await link.ask("ECHO", "a") == b"a"
    assert counters.get("broker_refused_total") == 1
    link.close()


async def test_what_waits_ends_at_once_when_the_connection_is_cut(redis: RedisServer) -> None:
    async with proxied(redis) as (url, proxy):
        link = await linked(url)
        proxy.swallow()
        questions = [link.ask("PING") for _ in range(10)]
        await proxy.swallowed.wait()
        proxy.cut()
        for question in questions:
            with pytest.raises(Unanswered):
                await question
        with pytest.raises(BrokerUnavailable):
            await link.ask("PING")


async def test_a_server_that_stands_still_loses_its_connection(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "ANSWER_TIMEOUT", 0.2)
    async with proxied(redis) as (url, proxy):
        link = await linked(url)
        proxy.mute()
        with pytest.raises(Unanswered, match="did not answer"):
            await link.ask("PING")
        assert link.lost.is_set()


async def test_not_more_than_so_much_waits(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    link = await linked(redis.url)
    monkeypatch.setattr(redis_link, "MAX_WAITING", 2)
    waiting = [link.ask("PING"), link.ask("PING")]
    with pytest.raises(BrokerUnavailable, match="too much waits"):
        await link.ask("PING")
    assert await asyncio.gather(*waiting) == [b"PONG", b"PONG"]
    monkeypatch.setattr(redis_link, "MAX_UNSENT", 100)
    with pytest.raises(BrokerUnavailable, match="too much waits"):
        await link.ask("ECHO", "x" * 100)
    assert await link.ask("PING") == b"PONG"
    link.close()


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n+OK\r\n+OK\r\n"])
async def test_whoever_is_no_redis_is_left(said: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(said)
        await reader.read()
        writer.close()

    door = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = door.sockets[0].getsockname()[1]
    try:
        link = await linked(f"redis://:x@127.0.0.1:{port}")
    except BrokerUnavailable as error:
        assert "is not Redis" in str(error)  # noqa: PT017
    else:
        await asyncio.wait_for(link.lost.wait(), 5)
        assert link.why == "what answers there is not Redis"
    door.close()
    await door.wait_closed()


@pytest.mark.parametrize("userinfo", ["", ":wrong-secret@", "nobody:secret@"])
async def test_whoever_is_turned_away_is_told(redis: RedisServer, userinfo: str) -> None:
    with pytest.raises(BrokerUnavailable, match=r"NOAUTH|WRONGPASS") as raised:
        await linked(f"redis://{userinfo}127.0.0.1:{redis.port}/1")
    assert "secret" not in str(raised.value)


async def test_nobody_there_is_unavailable() -> None:
    with pytest.raises(BrokerUnavailable, match="no connection to Redis"):
        await linked("redis://127.0.0.1:1")


async def test_a_database_is_one_of_its_own(redis: RedisServer) -> None:
    here, there = await linked(redis.url), await linked(f"redis://default:{PASSWORD}@127.0.0.1:{redis.port}/3")
    await there.ask("SET", "only-there", "x")
    assert await here.ask("GET", "only-there") is None
    assert await there.ask("GET", "only-there") == b"x"
    here.close()
    there.close()


async def test_published_messages_and_answers_keep_apart(redis: RedisServer) -> None:
    told: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()
    ears = Subscriptions(lambda _, channel, body: told.put_nowait((channel, body)), lambda _, channel: None)
    await ears.open(RedisAddress.parse(redis.url))
    link = await linked(redis.url)
    await asyncio.gather(ears.subscribe(b"a"), ears.subscribe(b"b"))
    link.tell("SPUBLISH", "a", b"1")
    link.tell("SPUBLISH", "b", b"2")
    assert [await told.get(), await told.get()] == [(b"a", b"1"), (b"b", b"2")]
    ears.unsubscribe(b"a")
    await ears.subscribe(b"c")
    link.tell("SPUBLISH", "a", b"3")
    link.tell("SPUBLISH", "c", b"4")
    assert await told.get() == (b"c", b"4")
    ears.close()
    ears.unsubscribe(b"b")
    link.close()


async def subscribed(*said: bytes) -> tuple[Subscriptions, asyncio.Queue[bytes], asyncio.Server]:
    """A connection to a server that says so, one thing after the other, as often as it is asked something."""
    saying = iter(said)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1_000):
            writer.write(next(saying, b""))
        writer.close()

    door = await asyncio.start_server(serve, "127.0.0.1", 0)
    dropped: asyncio.Queue[bytes] = asyncio.Queue()
    ears = Subscriptions(lambda _, channel, body: None, lambda _, channel: dropped.put_nowait(channel))
    await ears.open(RedisAddress("127.0.0.1", door.sockets[0].getsockname()[1], encrypted=False))
    return ears, dropped, door


def confirmed(kind: str, channel: str) -> bytes:
    return f"*3\r\n${len(kind)}\r\n{kind}\r\n${len(channel)}\r\n{channel}\r\n:1\r\n".encode()


async def test_a_subscription_that_the_server_ends_is_told_and_is_nobodys_answer() -> None:
    ears, dropped, door = await subscribed(
        confirmed("ssubscribe", "a"),
        confirmed("sunsubscribe", "a") + confirmed("ssubscribe", "b"),
        confirmed("sunsubscribe", "b") + b"+PONG\r\n",
    )
    await ears.subscribe(b"a")
    await ears.subscribe(b"b")
    assert dropped.get_nowait() == b"a"
    ears.unsubscribe(b"b")
    assert await ears.ask("PING") == b"PONG"
    assert dropped.empty()
    ears.close()
    door.close()
    await door.wait_closed()


async def test_answers_that_fit_no_question_end_the_connection() -> None:
    ears, _, door = await subscribed(confirmed("ssubscribe", "other"))
    with pytest.raises(Unanswered, match="do not fit"):
        await ears.subscribe(b"a")
    door.close()
    await door.wait_closed()


async def test_that_a_slot_is_elsewhere_disturbs_whoever_asked() -> None:
    async with answering(b"-MOVED 3999 127.0.0.1:6381\r\n") as link:
        assert not link.disturbed.is_set()
        link.tell("SPUBLISH", "a", "b")
        await asyncio.wait_for(link.disturbed.wait(), 5)
        assert not link.lost.is_set()
