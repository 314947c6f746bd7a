"""The broker on Redis: the contract on a real Valkey, the model of a log, and what servers do to their users."""

import asyncio
import random
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from bellwire.brokers import redis as broker_module
from bellwire.brokers import redis_link, redis_masters
from bellwire.brokers.base import Broker
from bellwire.brokers.redis import RedisBroker
from bellwire.brokers.redis_streams import Scripts, place_of
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, ConfigError, MessageTooLarge, OutcomeUnknown
from bellwire.delivery.answer import Page, Reason, Unproved
from bellwire.delivery.entry import marker
from bellwire.delivery.log import DEFAULT_LIMITS, Limits, Log
from bellwire.delivery.position import Position, era, position
from tests.brokers.contract import Contract, Ears, draft, name
from tests.brokers.nats_server import Proxy
from tests.brokers.redis_server import (
    RedisServer,
    again,
    broker_at,
    entries_of,
    needs_redis_7,
    proxied,
    shifted,
    the_master,
)

pytestmark = pytest.mark.bellwire(clock="real")

AWAY = (BrokerUnavailable, OutcomeUnknown)


class Shifting:
    """Time passes for this process's clock and for the scripts."""

    @pytest.fixture(autouse=True)
    def _server(self, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(broker_module, "LOOK_EVERY", 60.0)  # else it might look between the two clocks' steps
        self.url = redis.url
        self.shift = 0.0
        self.brokers: list[RedisBroker] = []

    def make_with(self, limits: Limits, prefix: str) -> RedisBroker:
        broker = RedisBroker(self.url, limits, prefix=prefix, monotonic=lambda: time.monotonic() + self.shift)
        self.brokers.append(broker)
        return broker

    async def pass_time(self, seconds: float) -> None:
        self.shift += seconds
        for broker in self.brokers:
            broker._scripts = shifted(Scripts(), self.shift)


class TestRedis(Shifting, Contract):
    """The contract."""

    def make(self, *, messages: int = 1_000) -> Broker:
        return self.make_with(Limits(messages=messages), f"keep{messages}")


@needs_redis_7
class TestRedis7(TestRedis):
    """The contract on the Redis that comes with Debian."""

    @pytest.fixture(autouse=True)
    def _redis_7(self, redis_7: RedisServer, _server: None) -> None:
        self.url = redis_7.url


class TestTheModel(Shifting):
    """The log on the server answers as the model of one does, whatever happened to it before."""

    @pytest.mark.parametrize("seed", range(6))
    async def test_it_answers_as_the_model_of_a_log(self, seed: int) -> None:
        dice, limits = random.Random(seed), Limits(messages=8, size=2_000, age=60.0)
        broker, stream = self.make_with(limits, "model"), name()
        await broker.start()
        gen = (await broker.top(stream)).gen
        log, now, seen = Log(gen, limits), 0.0, [Position(gen, 0, 0)]
        for n in range(150):
            if dice.random() < 0.2:
                seconds = dice.choice([3.1, 31.3, 61.7, 121.9])  # no sum of them is a limit
                await self.pass_time(seconds)
                now += seconds
            message = draft(f"m{dice.randint(max(0, n - 5), n)}", b"x" * dice.choice([1, 100, 700, 2_500]))
            appended = await broker.append(stream, message)
            assert appended == log.append(message, now)
            seen.append(position(gen, appended.point))
            after = dice.choice([*seen[-12:], *seen[:2]])
            if dice.random() < 0.3:
                after = dice.choice(
                    [
                        after._replace(tag=after.tag ^ 1),
                        after._replace(seq=after.seq + 1),
                        after._replace(gen="0ther"),
                        after._replace(seq=2**63 - 1),
                    ]
                )
            messages, size = dice.choice([1, 3, 500]), dice.choice([1, 800, 10_000])
            log.expire(now)
            expected = log.read(after, messages, size)
            answer = await broker.read(stream, after, messages=messages, size=size, confirmed=True)
            assert _timeless(answer) == _timeless(expected)
        await broker.close()


@needs_redis_7
class TestTheModelOnRedis7(TestTheModel):
    @pytest.fixture(autouse=True)
    def _redis_7(self, redis_7: RedisServer, _server: None) -> None:
        self.url = redis_7.url


def _timeless(answer: object) -> object:
    if isinstance(answer, Page):
        return [(e.point, e.prev, e.mid, e.body) for e in answer.entries], answer.top, answer.more
    return answer


# --- what the package needs, what is refused


def test_the_broker_names_its_extra() -> None:
    program = (
        "import sys; sys.modules['hiredis'] = None; import bellwire\n"
        "from bellwire.core.errors import ConfigError\n"
        "try: import bellwire.brokers.redis\n"
        "except ConfigError as error: assert \"pip install 'bellwire[redis]'\" in str(error)\n"
        "else: raise SystemExit('imported')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("prefix", ["", "a:b", "a b", "{a}", "ü"])
def test_a_prefix_that_would_mean_something_in_a_key_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError):
        RedisBroker("redis://localhost", prefix=prefix)


async def test_a_server_that_throws_things_away_is_refused_with_the_remedy(redis: RedisServer) -> None:
    await redis.ask("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    try:
        with pytest.raises(ConfigError, match=r"maxmemory-policy volatile-lru.* set it to noeviction"):
            await RedisBroker(redis.url).start()
    finally:
        await redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_messages_and_values_that_subscribers_would_be_cut_off_for_are_refused(redis: RedisServer) -> None:
    async with broker_at(redis.url) as broker:
        large, stream = b"x" * (8 * 1024 * 1024 + 1), name()
        with pytest.raises(MessageTooLarge):
            await broker.append(stream, draft("m", large))
        with pytest.raises(MessageTooLarge):
            await broker.publish(stream, large)
        with pytest.raises(MessageTooLarge):
            await broker.put(stream, large)
        ears = Ears()
        await broker.subscribe(stream, ears)
        await broker.append(stream, draft("m", large[:-200]))
        await ears.until(1)


async def test_when_the_memory_is_full_nothing_is_taken_and_what_is_there_can_be_read(redis: RedisServer) -> None:
    async with broker_at(redis.url) as broker:
        stream = name()
        first = await broker.append(stream, draft("m1"))
        revision = await broker.put(stream, b"value")
        await redis.ask("CONFIG", "SET", "maxmemory", "1")
        try:
            with pytest.raises(BrokerUnavailable, match="OOM"):
                await broker.append(stream, draft("m2"))
            with pytest.raises(BrokerUnavailable, match="OOM"):
                await broker.put(stream, b"other")
            assert await entries_of(broker, stream) == ["m1"]
            assert await broker.get(stream) == (b"value", revision)
            assert await broker.delete(stream)
        finally:
            await redis.ask("CONFIG", "SET", "maxmemory", "0")
        assert (await broker.append(stream, draft("m2"))).prev == first.point


async def test_with_too_few_replicas_nothing_is_taken_and_no_answer_is_given(redis: RedisServer) -> None:
    async with broker_at(redis.url) as broker:
        stream = name()
        await redis.ask("CONFIG", "SET", "min-replicas-to-write", "1")
        try:
            with pytest.raises(BrokerUnavailable):
                await broker.append(stream, draft("m"))
            with pytest.raises(BrokerUnavailable):
                await broker.top(stream)
        finally:
            await redis.ask("CONFIG", "SET", "min-replicas-to-write", "0")
        assert not (await again(lambda: broker.append(stream, draft("m")))).duplicate


async def test_a_user_who_may_not_ask_for_the_replication_id_is_served(redis: RedisServer) -> None:
    await redis.ask("ACL", "SETUSER", "limited", "on", ">limited", "~*", "&*", "+@all", "-info")
    url = redis.url.replace(":for-tests-only@", "limited:limited@")
    async with broker_at(url, prefix="limited") as broker:
        stream, generation = name(), broker.generation()
        appended = await broker.append(stream, draft("m1"))
        assert await broker.top(stream) == position(appended.gen, appended.point)
        assert generation
        await broker.put(stream, b"x")
        assert await broker.get(stream) is not None
        assert broker.generation() == generation
        async with broker_at(redis.url, prefix="limited") as other:
            page = await other.read(stream, position(appended.gen, appended.point), confirmed=True)
            assert isinstance(page, Page)


# --- appends without an answer


async def test_an_append_without_an_answer_is_found_again(redis: RedisServer) -> None:
    async with proxied(redis) as (url, proxy), broker_at(url) as broker, broker_at(redis.url) as other:
        stream, ears = name(), Ears()
        await other.subscribe(stream, ears)
        proxy.mute()
        attempt = asyncio.create_task(broker.append(stream, draft("m")))
        await ears.until(1)
        proxy.cut()
        with pytest.raises(OutcomeUnknown) as caught:
            await attempt
        assert caught.value.mid == "m"
        appended = await again(lambda: broker.append(stream, draft("m")))
        assert appended.duplicate
        assert appended.point == ears.entries[0][2].point
        assert await entries_of(other, stream) == ["m"]


async def test_an_append_that_never_arrived_is_made_by_the_retry(redis: RedisServer) -> None:
    async with proxied(redis) as (url, proxy), broker_at(url) as broker:
        stream = name()
        proxy.swallow()
        attempt = asyncio.create_task(broker.append(stream, draft("m")))
        await proxy.swallowed.wait()
        proxy.cut()
        with pytest.raises(OutcomeUnknown):
            await attempt
        assert not (await again(lambda: broker.append(stream, draft("m")))).duplicate


async def test_a_server_that_stands_still_leaves_the_outcome_unknown(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "ANSWER_TIMEOUT", 0.2)
    async with broker_at(redis.url) as broker:
        stream = name()
        await broker.append(stream, draft("before"))
        await redis.freeze()
        try:
            with pytest.raises(OutcomeUnknown):
                await broker.append(stream, draft("m"))
            with pytest.raises(BrokerUnavailable):
                await broker.top(stream)
        finally:
            redis.thaw()
        assert (await again(lambda: broker.append(stream, draft("m")), AWAY)).duplicate
        assert await entries_of(broker, stream) == ["before", "m"]


async def test_scripts_that_were_flushed_are_sent_again(redis: RedisServer) -> None:
    async with broker_at(redis.url) as broker:
        stream = name()
        await broker.append(stream, draft("m1"))
        await redis.ask("SCRIPT", "FLUSH")
        await broker.append(stream, draft("m2"))
        assert await entries_of(broker, stream) == ["m1", "m2"]


async def test_a_forgotten_streams_message_ids_are_forgotten(redis: RedisServer) -> None:
    async with broker_at(redis.url) as broker:
        stream = name()
        await broker.append(stream, draft("m"))
        await broker.forget(stream)
        assert not (await broker.append(stream, draft("m"))).duplicate


async def test_a_stream_with_nothing_but_a_marker_is_kept_for_as_long_as_somebody_may_stand_in_it(
    redis: RedisServer,
) -> None:
    async with broker_at(redis.url) as broker:
        stream = name()
        keys = [key.decode() for key in broker._place(stream)[:2]]
        standing = DEFAULT_LIMITS.standing * 1000

        async def ends() -> list[int]:
            return [int(await redis.ask("PTTL", key)) for key in keys]

        await broker.append(stream, marker(1))
        assert all(standing - 60_000 < left <= standing for left in await ends())
        for key in keys:
            await redis.ask("PEXPIRE", key, "5000")
        await broker.top(stream)
        assert all(standing - 60_000 < left <= standing for left in await ends())
        await broker.append(stream, draft("m"))
        await broker.top(stream)
        assert all(left > 2 * standing for left in await ends())


# --- connections


async def test_what_was_acknowledged_outlives_the_server_and_listeners_go_on(redis: RedisServer) -> None:
    async with broker_at(redis.url) as broker, broker_at(redis.url) as other:
        stream, ears = name(), Ears()
        await broker.subscribe(stream, ears)
        first = await broker.append(stream, draft("m1"))
        key = await broker.put(stream, b"value")
        await ears.until(1)
        await redis.crash()
        again_first = await again(lambda: broker.append(stream, draft("m1")), AWAY)
        assert again_first == first.again
        assert await broker.get(stream) == (b"value", key)
        second = await again(lambda: other.append(stream, draft("m2")), AWAY)
        await ears.until(2)
        assert [entry.point for _, _, entry in ears.entries] == [first.point, second.point]
        page = await broker.read(stream, position(first.gen, first.point), confirmed=True)
        assert isinstance(page, Page)
        assert [entry.mid for entry in page.entries] == ["m2"]


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
async def test_after_its_connections_were_killed_the_newest_entry_shows_what_was_missed(
    redis: RedisServer, kind: str
) -> None:
    counters = Counters()
    async with broker_at(redis.url, counters=counters) as broker:
        stream, quiet, ears, still = name(), name(), Ears(), Ears()
        await broker.append(quiet, draft("old"))
        await broker.subscribe(stream, ears)
        await broker.subscribe(quiet, still)
        await broker.append(stream, draft("m1"))
        await ears.until(1)
        async with broker_at(redis.url) as other:
            the_master(broker).subscriptions._published = lambda source, channel, body: None
            await other.append(stream, draft("lost"))
            await other.append(stream, draft("m2"))
            await redis.ask("CLIENT", "KILL", "TYPE", kind)
            await ears.until(2)
            await again(lambda: other.append(stream, draft("m3")), AWAY)
            await ears.until(3)
        assert ears.mids == ["m1", "m2", "m3"]
        assert not still.entries
        assert counters.get("broker_connections_lost_total") == 1


async def test_a_subscription_that_is_dead_and_looks_alive_is_found(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(redis_masters, "DEAF_AFTER", 0.2)
    async with broker_at(redis.url) as broker:
        stream, ears = name(), Ears()
        await broker.subscribe(stream, ears)
        master = the_master(broker)
        master.subscriptions.unsubscribe(place_of("bellwire", stream).channel)
        master.subscriptions.unsubscribe(master._probe)
        await broker.append(stream, draft("m"))
        await ears.until(1)
        assert ears.mids == ["m"]


async def test_a_listener_that_leaves_while_the_broker_is_away_is_not_followed_again(redis: RedisServer) -> None:
    async with proxied(redis) as (url, proxy), broker_at(url) as broker, broker_at(redis.url) as other:
        gone, stays, ears, leaver = name(), name(), Ears(), Ears()
        await broker.subscribe(gone, leaver)
        await broker.subscribe(stays, ears)
        proxy.close_door()
        proxy.cut()
        with pytest.raises(AWAY):
            await broker.append(gone, draft("m"))
        await broker.unsubscribe(gone, leaver)
        proxy.open_door()
        await again(lambda: broker.top(stays))
        await other.append(gone, draft("m1"))
        await other.append(stays, draft("m2"))
        await ears.until(1)
        assert not leaver.entries
        channels = await redis.ask("PUBSUB", "SHARDCHANNELS")
        assert place_of("bellwire", stays).channel in channels
        assert place_of("bellwire", gone).channel not in channels


async def test_a_broker_that_is_away_can_be_closed(redis: RedisServer) -> None:
    async with proxied(redis) as (url, proxy), broker_at(url) as broker:
        proxy.close_door()
        proxy.cut()
        with pytest.raises(AWAY):
            await broker.append(name(), draft("m"))


async def test_streams_that_are_followed_are_kept(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "TOUCH_EVERY", 0.0)
    monkeypatch.setattr(broker_module, "LOOK_EVERY", 0.02)
    async with broker_at(redis.url) as broker:
        stream = name()
        meta = place_of("bellwire", stream).meta.decode()
        await broker.append(stream, draft("m"))
        await broker.subscribe(stream, Ears())
        await redis.ask("PEXPIRE", meta, 5_000)
        async with asyncio.timeout(5):
            while await redis.ask("PTTL", meta) < 1_000_000:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_many_streams_that_are_followed_are_kept_some_at_a_time(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "TOUCH_EVERY", 0.0)
    monkeypatch.setattr(broker_module, "LOOK_EVERY", 0.02)
    async with broker_at(redis.url) as broker:
        streams = [name() for _ in range(3 * broker_module._AT_ONCE)]
        metas = [place_of("bellwire", stream).meta.decode() for stream in streams]
        for stream, meta in zip(streams, metas, strict=True):
            await broker.append(stream, draft("m"))
            await broker.subscribe(stream, Ears())
            await redis.ask("PEXPIRE", meta, 5_000)
        async with asyncio.timeout(20):
            for meta in metas:
                while await redis.ask("PTTL", meta) < 1_000_000:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)


async def test_others_get_through_while_very_many_streams_are_kept(redis: RedisServer) -> None:
    async with broker_at(redis.url) as broker:
        row = broker._masters.of(place_of("bellwire", "any").slot).link._row
        for number in range(3 * broker_module._AT_ONCE):
            await broker.subscribe(f"{name()}.{number}", Ears())
        broker._untouched = [live.stream for live in broker._lives.values()]
        waiting = len(row)
        broker._touch()
        assert len(row) - waiting == 2 * broker_module._AT_ONCE
        assert len(broker._untouched) == 2 * broker_module._AT_ONCE


async def test_what_others_publish_on_our_channels_is_counted(redis: RedisServer) -> None:
    counters = Counters()
    async with broker_at(redis.url, counters=counters) as broker:
        stream, ears = name(), Ears()
        await broker.subscribe(stream, ears)
        await redis.ask("SPUBLISH", place_of("bellwire", stream).channel.decode(), "garbage")
        await broker.append(stream, draft("m"))
        await ears.until(1)
        assert counters.get("dropped_total", kind="live", reason="malformed", policy="repaired_from_history") == 1


@pytest.mark.bellwire(clock="real", uvloop=True)
async def test_it_runs_on_the_loop_of_production(redis: RedisServer) -> None:
    async with proxied(redis) as (url, proxy), broker_at(url) as broker, broker_at(redis.url) as other:
        stream, ears = name(), Ears()
        await broker.subscribe(stream, ears)
        first = await other.append(stream, draft("m1"))
        await ears.until(1)
        proxy.cut()
        second = await other.append(stream, draft("m2"))
        await ears.until(2)
        assert [entry.point for _, _, entry in ears.entries] == [first.point, second.point]


async def test_through_cuts_mutes_and_crashes_each_message_is_appended_once_and_in_order(redis: RedisServer) -> None:
    async with proxied(redis) as (url, proxy), broker_at(url) as broker, broker_at(redis.url) as other:
        stream, count = name(), 200
        faults = [proxy.cut, proxy.mute, proxy.swallow]
        for n in range(count):
            message = draft(f"m{n}")
            if n % 9 == 4:
                faults[n % 3]()
                asyncio.get_running_loop().call_later(0.02, proxy.cut)
            if n % 80 == 40:
                await redis.crash()
            await again(lambda m=message: broker.append(stream, m), AWAY)  # type: ignore[misc]
        assert await again(lambda: entries_of(other, stream)) == [f"m{n}" for n in range(count)]


# --- what was wiped


async def test_a_server_that_was_flushed_is_another_generation(redis: RedisServer) -> None:
    async with broker_at(redis.url, prefix="flushed") as broker:
        stream, before = name(), broker.generation()
        old = await broker.append(stream, draft("m"))
        await broker.put(stream, b"x")
        await redis.ask("FLUSHALL")
        answer = await broker.read(stream, position(old.gen, old.point), confirmed=True)
        assert isinstance(answer, Unproved)
        assert answer.reason is Reason.GENERATION
        new = await broker.append(stream, draft("m"))
        assert not new.duplicate
        assert new.gen == answer.top.gen
        assert era(new.gen) > era(old.gen)
        assert await broker.get(stream) is None
        await broker._masters.look()
        assert broker.generation() not in ("", before)


# --- encryption


@pytest.fixture
def vouched_for(tmp_path: Path) -> ssl.SSLContext:
    """A certificate of the authority whose own is ``authority.pem``."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_a_server_that_encrypts_has_to_be_vouched_for(
    redis: RedisServer, vouched_for: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with encrypting(redis, vouched_for) as url:
        with pytest.raises(BrokerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await RedisBroker(url).start()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        async with broker_at(url) as broker:
            stream, ears = name(), Ears()
            await broker.subscribe(stream, ears)
            await broker.append(stream, draft("m"))
            await ears.until(1)
    monkeypatch.setattr(redis_link, "CONNECT_TIMEOUT", 0.3)
    with pytest.raises(BrokerUnavailable, match="no connection"):
        await RedisBroker(redis.url.replace("redis://", "rediss://")).start()


@asynccontextmanager
async def encrypting(server: RedisServer, context: ssl.SSLContext) -> AsyncIterator[str]:
    """The address of a door before the server that speaks TLS."""
    proxy = Proxy(server.port)
    door = await asyncio.start_server(proxy._accept, "127.0.0.1", 0, ssl=context)
    port = door.sockets[0].getsockname()[1]
    try:
        yield server.url.replace(f":{server.port}", f":{port}").replace("redis://", "rediss://")
    finally:
        door.close()
        proxy.cut()
        await asyncio.gather(*proxy._pumps, return_exceptions=True)
