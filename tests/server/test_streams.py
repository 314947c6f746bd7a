import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from bellwire.brokers.memory import MemoryBroker
from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.delivery.published import Published, encode_published
from bellwire.protocol.post import Post
from bellwire.server.fanout import Fanout
from bellwire.server.streams import KEPT_BYTES, KEPT_POSTS, Streams
from bellwire.transports.tick import Tick
from tests.server.test_fanout import Recorder, to


@asynccontextmanager
async def opened(**settings: int) -> AsyncIterator[Streams]:
    broker = MemoryBroker()
    await broker.start()
    counters, config = Counters(), Config(**settings)  # type: ignore[arg-type]
    yield Streams(broker, Fanout(Tick(asyncio.get_running_loop()), counters, config), counters)
    await broker.close()


def post(text: str = "x", namespace: str = "/") -> Post:
    return Post(namespace, "say", (text,), binary=False)


async def test_what_this_node_emits_it_does_not_read_again() -> None:
    async with opened() as streams:
        sent = post()
        await streams.emit(("r",), sent)
        assert streams.read("/", sent.body) is sent
        assert streams.read("/", bytes(bytearray(sent.body))) is sent


async def test_what_comes_from_elsewhere_is_read_once() -> None:
    async with opened() as streams:
        body = post("from elsewhere").body
        read = streams.read("/", body)
        assert read is not None
        assert read.stock.parts == ('42["say","from elsewhere"]',)
        assert streams.read("/", body) is read


async def test_the_same_bytes_in_another_namespace_are_another_event() -> None:
    async with opened() as streams:
        sent = post()
        await streams.emit(("r",), sent)
        other = streams.read("/chat", sent.body)
        assert other is not None
        assert other.stock.parts == ('42/chat,["say","x"]',)


def kept(streams: Streams, posts: list[Post]) -> list[int]:
    return [place for place, sent in enumerate(posts) if streams._posts.get(sent.body) is sent]


async def test_only_the_newest_posts_are_kept() -> None:
    async with opened() as streams:
        posts = [post(str(n)) for n in range(KEPT_POSTS + 2)]
        for sent in posts:
            await streams.emit(("r",), sent)
            await streams.emit(("s",), sent)  # the same bytes count once
        assert kept(streams, posts) == list(range(2, KEPT_POSTS + 2))
        assert streams._posts.size == sum(len(sent.body) for sent in posts[2:])


async def test_only_so_many_bytes_of_posts_are_kept_and_always_the_newest() -> None:
    async with opened() as streams:
        posts = [post(letter * (KEPT_BYTES // 2 - 100)) for letter in "abc"]
        for sent in posts:
            await streams.emit(("r",), sent)
        assert kept(streams, posts) == [1, 2]
        huge = post("d" * (KEPT_BYTES + 1))
        await streams.emit(("r",), huge)
        assert kept(streams, [*posts, huge]) == [3]


DEEP = b"\x93\xa1x\xc2" + b"\x91" * 100_000 + b"\xc0"


@pytest.mark.parametrize("body", [b"", b"\xc1", b'["say"]', msgspec.msgpack.encode(("say", False, "text")), DEEP])
async def test_what_is_no_event_is_counted_and_left_out(body: bytes) -> None:
    async with opened() as streams:
        assert streams.read("/", body) is None
        counter: dict[str, str] = {"kind": "event", "reason": "unreadable", "policy": "no_event"}
        assert streams.counters.get("dropped_total", **counter) == 1


async def test_what_is_published_by_somebody_else_is_counted_and_left_out() -> None:
    async with opened() as streams:
        await streams.emit(("r",), post())  # what is newest is not taken for the others
        published = Published(b"body", True, ("a",), ("b",))
        assert streams.published(encode_published(published)) == published
        bodies: list[Any] = [b"", b"\xc1", msgspec.msgpack.encode("text"), msgspec.msgpack.encode([1])]
        for body in bodies:
            assert streams.published(body) is None
        assert streams.counters.snapshot() == {
            'dropped_total{kind="event",policy="no_event",reason="unreadable"}': len(bodies)
        }


async def test_a_fault_of_a_room_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as streams:
        with caplog.at_level(logging.ERROR, "bellwire.server"):
            streams.fault("the room", ZeroDivisionError("why"))
        assert streams.counters.get("stream_faults_total") == 1
        assert "the room" in caplog.text
        assert "ZeroDivisionError" in caplog.text


async def test_an_emit_waits_until_its_room_is_not_full_but_a_volatile_one_does_not() -> None:
    async with opened(fanout_batch=2) as streams:
        fanout, members = streams.fanout, [Recorder() for _ in range(3)]
        fanout.cast(to(*members), post("x" * Config().send_buffer_bytes), room="r")
        fanout.settle()
        waiting = asyncio.ensure_future(streams.emit(("r",), post()))
        await streams.emit(("other",), post())
        await streams.emit(("r",), post(), volatile=True)
        await asyncio.sleep(0)
        assert not waiting.done()
        assert streams.counters.get("emits_delayed_total") == 1
        await asyncio.wait_for(waiting, 1)
