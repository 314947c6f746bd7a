"""An emitter beside a running server, on a real Valkey and a real nats-server."""

import asyncio
import contextlib
from typing import Any, cast

import pytest

from bellwire import (
    BellwireError,
    BrokerUnavailable,
    Config,
    ConfigError,
    Emitter,
    Event,
    MessageTooLarge,
    OutcomeUnknown,
    Server,
)
from bellwire.delivery.answer import Page
from bellwire.delivery.log import Limits
from bellwire.delivery.naming import stream_of
from bellwire.testing import connect
from tests.brokers.redis_server import RedisServer, again, proxied
from tests.emitter.house import SAY, TIMEOUT, WAVE, opened

REAL = pytest.mark.bellwire(clock="real")


@REAL
async def test_rooms_users_and_everyone_are_reached_and_exceptions_are_not(url: str) -> None:
    async with opened(url) as house, house.client("a", user="ann") as ann, house.client("a", "b") as bob:
        async with Emitter(url) as emitter:
            root = emitter.namespace("/")
            await root.emit(SAY, "all")
            await root.to("a").emit(SAY, "a")
            await root.to("a", "b").emit(SAY, "once")
            await root.to("a").except_("b").emit(SAY, "not b")
            await root.user("ann").emit(SAY, "ann")
            await root.to("nobody").emit(SAY, "nobody")
            await root.except_("nobody").emit(SAY, "end")
        await ann.until("all", "a", "once", "not b", "ann", "end")
        await bob.until("all", "a", "once", "end")


@REAL
async def test_applications_with_another_prefix_hear_nothing_of_each_other(url: str) -> None:
    async with (
        opened(url, "shop") as shop,
        opened(url, "blog") as blog,
        shop.client("a") as one,
        blog.client("a") as two,
    ):
        for prefix in ("shop", "blog"):
            async with Emitter(url, prefix=prefix) as emitter:
                await emitter.namespace("/").to("a").emit(SAY, prefix)
            blocking = Emitter(url, prefix=prefix).blocking()
            await asyncio.to_thread(blocking.namespace("/").to("a").emit, SAY, f"{prefix} again")
            await asyncio.to_thread(blocking.close)
        await one.until("shop", "shop again")
        await two.until("blog", "blog again")
        assert shop.server.nodes.others == frozenset()


def test_a_prefix_that_is_none_says_so() -> None:
    with pytest.raises(ConfigError, match="prefix"):
        Emitter("redis://host", prefix="a.b")


@REAL
async def test_a_volatile_event_has_left_when_emit_returns(url: str) -> None:
    async with opened(url) as house, house.client("a") as ear:
        async with Emitter(url) as emitter:
            await emitter.namespace("/").to("a", "nobody").emit(WAVE, 5)
        await ear.until(5)


@REAL
async def test_clients_of_other_kinds_are_reached_too(url: str) -> None:
    async with opened(url) as house, Emitter(url) as emitter, connect(house.server, auth={"rooms": ["a"]}) as plain:
        await emitter.namespace("/").to("a").emit(SAY, "hello")
        assert await plain.receive(SAY, timeout=TIMEOUT) == "hello"


@REAL
async def test_a_socket_is_reached_by_its_id_whether_it_recovers_or_not(url: str) -> None:
    async with (
        opened(url) as house,
        Emitter(url) as emitter,
        house.client("a") as recovering,
        connect(house.server, auth={"rooms": ["a"]}) as plain,
    ):
        root = emitter.namespace("/")
        await root.to(recovering.id).emit(SAY, "to you")
        await root.to(recovering.id).emit(WAVE, 1)
        await root.to(plain.id).emit(SAY, "to you")
        await root.to(plain.id).emit(SAY, "to you", mid="direct")
        await root.to(plain.id).emit(SAY, "to you", mid="direct")
        await root.to(plain.id, recovering.id).emit(SAY, "to both")
        await root.except_(recovering.id).emit(SAY, "not recovering")
        await root.to("a").except_(plain.id).emit(SAY, "not plain")
        await root.emit(SAY, "end")
        await recovering.until("to you", 1, "to both", "not plain", "end")
        heard = [await plain.receive(SAY, timeout=TIMEOUT) for _ in range(5)]
        assert heard == ["to you", "to you", "to both", "not recovering", "end"]


@REAL
async def test_one_of_a_patterns_namespaces_is_reached_by_its_name(url: str) -> None:
    async with opened(url) as house, Emitter(url) as emitter, connect(house.server, "/org/7") as client:
        await emitter.namespace("/org/8").emit(SAY, "others")
        await emitter.namespace("/org/7").emit(SAY, "hello")
        assert await client.receive(SAY, timeout=TIMEOUT) == "hello"


@REAL
async def test_what_is_emitted_again_under_its_mid_is_not_doubled_whoever_emits_it(url: str) -> None:
    async with opened(url) as house, house.client("a") as ear:
        for _ in range(2):
            async with Emitter(url) as emitter:
                await emitter.namespace("/").to("a").emit(SAY, "paid", mid="order-7")
        await house.server.namespaces["/"].to("a").emit(SAY, "paid", mid="order-7")
        await house.server.namespaces["/"].to("a").emit(SAY, "end")
        await ear.until("paid", "end")


@REAL
async def test_a_client_that_was_away_gets_what_was_emitted_meanwhile(url: str) -> None:
    async with opened(url) as house, Emitter(url) as emitter, house.client("a") as ear:
        await emitter.namespace("/").to("a").emit(SAY, "before")
        await ear.until("before")
        for session in list(house.server.engine.sessions.values()):
            session.close("transport close")
        await emitter.namespace("/").to("a").emit(SAY, "meanwhile")
        await ear.until("meanwhile")


@REAL
async def test_it_shortens_history_as_the_servers_do(redis: RedisServer) -> None:
    server = Server(config=Config(broker=redis.url, history_messages=3))
    server.namespace("/")
    async with server.lifespan(), Emitter(redis.url) as emitter:
        for n in range(9):
            await emitter.namespace("/").to("short").emit(SAY, str(n))
        broker = cast("Any", emitter)._publisher().broker
        assert broker._limits == Limits(messages=3)
        stream = stream_of("/", "short")
        top = await broker.top(stream)
        unproved = await broker.read(stream, top._replace(seq=0, tag=0))
        page = await broker.read(stream, unproved.restart)
        assert isinstance(page, Page)
        assert len(page.entries) == 4


# --- errors


@REAL
async def test_a_payload_is_checked_before_anything_is_sent(url: str) -> None:
    async with Emitter(url) as emitter:
        root = emitter.namespace("/")
        with pytest.raises(TypeError, match=r"declare SAY = Event\('say', ...\) and pass SAY"):
            await root.emit(cast("Any", "say"), "hello")
        with pytest.raises(TypeError, match="takes 1 payload argument"):
            await cast("Any", root).emit(SAY)
        with pytest.raises(TypeError, match="cannot be sent"):
            await cast("Any", root).emit(Event("any", Any), object())
        with pytest.raises(ValueError, match="volatile and in no history"):
            await root.emit(WAVE, 1, mid="mid")
        with pytest.raises(ValueError, match="mid has 0 characters"):
            await root.emit(SAY, "hello", mid="")


@REAL
async def test_what_is_too_large_is_not_sent(url: str) -> None:
    async with Emitter(url) as emitter:
        with pytest.raises(MessageTooLarge):
            await emitter.namespace("/").to("a").emit(SAY, "x" * 9_000_000)


async def until_noticed(emitter: Emitter) -> None:
    """Wait until it knows that its connection is lost."""
    async with asyncio.timeout(TIMEOUT):
        with contextlib.suppress(BrokerUnavailable):
            while True:
                await cast("Any", emitter)._publisher().broker.top("any")


@REAL
async def test_a_broker_that_is_away_got_nothing_and_is_found_again(redis: RedisServer) -> None:
    async with proxied(redis) as (address, proxy), Emitter(address) as emitter:
        root = emitter.namespace("/").to("away")
        proxy.close_door()
        proxy.cut()
        await until_noticed(emitter)
        with pytest.raises(BrokerUnavailable):
            await root.emit(SAY, "hello")
        proxy.open_door()
        await again(lambda: root.emit(SAY, "again"))


@REAL
async def test_what_was_not_answered_is_tried_again_and_not_doubled(redis: RedisServer) -> None:
    stream = stream_of("/", "unanswered")
    async with proxied(redis) as (address, proxy), Emitter(address) as emitter, Emitter(redis.url) as other:
        broker = cast("Any", other)._publisher().broker
        before = await broker.top(stream)
        proxy.mute()
        emitting = asyncio.create_task(emitter.namespace("/").to("unanswered").emit(SAY, "hello"))
        async with asyncio.timeout(TIMEOUT):
            while (await broker.top(stream)).seq == before.seq:
                pass
        assert not emitting.done()
        proxy.cut()
        await emitting
        assert len((await broker.read(stream, before)).entries) == 1


@REAL
async def test_what_reached_some_of_the_rooms_names_those_that_have_it(redis: RedisServer) -> None:
    async with Emitter(redis.url) as emitter:
        broker = cast("Any", emitter)._publisher().broker
        append = broker.append

        async def once(stream: str, draft: Any, *, deadline: float | None = None) -> Any:
            if stream != stream_of("/", "a"):
                raise BrokerUnavailable("gone between two rooms")
            return await append(stream, draft, deadline=deadline)

        broker.append = once
        with pytest.raises(OutcomeUnknown) as raised:
            await emitter.namespace("/").to("a", "b").emit(SAY, "hello", mid="m")
        assert (raised.value.mid, raised.value.done) == ("m", ("a",))


@REAL
async def test_a_broker_that_does_not_answer_is_said_at_the_start() -> None:
    emitter = Emitter("redis://:secret@127.0.0.1:1")
    with pytest.raises(BrokerUnavailable) as raised:
        async with emitter:
            pass
    assert "secret" not in str(raised.value) + repr(emitter)


async def test_it_emits_within_its_block_only(redis: RedisServer) -> None:
    emitter = Emitter(redis.url)
    with pytest.raises(BellwireError, match=r"is not connected: emit within async with .* or take .*blocking\(\)"):
        await emitter.namespace("/").emit(SAY, "hello")


@REAL
async def test_it_may_be_entered_again_but_not_twice(redis: RedisServer) -> None:
    emitter = Emitter(redis.url)
    for _ in range(2):
        async with emitter:
            await emitter.namespace("/").emit(SAY, "hello")
            with pytest.raises(BellwireError, match="is entered already"):
                await emitter.__aenter__()


@REAL
async def test_it_belongs_to_one_event_loop(redis: RedisServer) -> None:
    async with Emitter(redis.url) as emitter:
        elsewhere = asyncio.to_thread(lambda: asyncio.run(emitter.namespace("/").emit(SAY, "hello")))
        with pytest.raises(BellwireError, match=r"entered on another event loop.*which threads can share"):
            await elsewhere


def test_there_is_no_emitter_on_the_memory_of_another_process() -> None:
    with pytest.raises(ConfigError, match=r"broker = 'memory://' is the memory of one process.*such as redis://"):
        Emitter("memory://")
    with pytest.raises(ConfigError, match="there are memory://"):
        Emitter("localhost:6379")
    with pytest.raises(TypeError, match="as a str, not NoneType"):
        Emitter(cast("Any", None))


def test_a_namespace_is_named_in_full() -> None:
    emitter = Emitter("redis://host")
    with pytest.raises(ValueError, match="is a pattern"):
        emitter.namespace("/org/{org}")
    with pytest.raises(ValueError, match="is no namespace"):
        emitter.namespace("chat")
