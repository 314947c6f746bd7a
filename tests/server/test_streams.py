import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from bellwire.brokers.memory import MemoryBroker
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from bellwire.delivery.answer import Page
from bellwire.delivery.effects import APPEND_SECONDS
from bellwire.delivery.entry import Copy, Draft, Entry, marker
from bellwire.delivery.handling import Append
from bellwire.delivery.log import Appended
from bellwire.delivery.position import Position
from bellwire.protocol.post import Post
from bellwire.server.fanout import Fanout
from bellwire.server.streams import (
    EVERYONE,
    KEPT_BYTES,
    KEPT_POSTS,
    Key,
    Published,
    Streams,
    User,
    key_of,
    kind_of,
    stream_of,
)
from bellwire.testing.clock import advance
from bellwire.transports.tick import Tick

KEYS: list[Key] = ["room", "", "n", "uann", User("room"), User(""), EVERYONE]


class Ear:
    """A listener that keeps what it is told, in order."""

    def __init__(self, broker: MemoryBroker | None = None) -> None:
        self.entries: list[tuple[str, Entry]] = []
        self.published: list[tuple[str, Published]] = []
        self._broker = broker

    def entry(self, stream: str, gen: str, entry: Entry) -> None:
        self.entries.append((stream, entry))
        self._next()

    def volatile(self, stream: str, body: bytes) -> None:
        self.published.append((stream, msgspec.msgpack.decode(body, type=Published)))
        self._next()

    def _next(self) -> None:
        if self._broker is not None:
            self._broker.faults.go_away()


class Dropping(MemoryBroker):
    """A broker that does what it is asked to, and never answers an append."""

    async def append(self, stream: str, draft: Draft, *, deadline: float | None = None) -> Appended:
        await super().append(stream, draft, deadline=deadline)
        raise OutcomeUnknown(draft.mid)


@asynccontextmanager
async def opened(*logged: str, broker: MemoryBroker | None = None) -> AsyncIterator[tuple[Streams, MemoryBroker, Ear]]:
    """Streams on a broker; somebody listens to r, s and t, and has positions in those that are ``logged``."""
    broker = broker or MemoryBroker()
    await broker.start()
    counters = Counters()
    streams = Streams(broker, Fanout(Tick(asyncio.get_running_loop()), counters), counters)
    for stream in logged:
        await MemoryBroker.append(broker, stream, marker(1))
    ear = Ear()
    for stream in "rst":
        await broker.subscribe(stream, ear)
    yield streams, broker, ear
    await broker.close()


def post(text: str = "x", namespace: str = "/") -> Post:
    return Post(namespace, "say", (text,), binary=False)


async def log_of(broker: MemoryBroker, stream: str) -> list[Entry]:
    top = await broker.top(stream)
    answer = await broker.read(stream, Position(top.gen, 0, 0))
    assert isinstance(answer, Page)
    return [entry for entry in answer.entries if not entry.is_marker]


# --- names


def test_a_stream_is_named_by_what_says_nothing_of_the_room() -> None:
    name = stream_of("/chat", "room")
    assert len(name) == 32
    assert set(name) <= set("0123456789abcdef")
    assert stream_of("/chat", "room") == name


def test_no_two_rooms_users_or_namespaces_share_a_stream() -> None:
    names = [stream_of(namespace, key) for namespace in ("/", "/r", "/ro") for key in (*KEYS, "om", "oom")]
    assert len(set(names)) == len(names)


def test_a_name_that_is_no_unicode_has_a_stream_too() -> None:
    assert stream_of("/", "\ud800") != stream_of("/", "\ud801")


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_stored_as_a_letter_and_a_name(key: Key) -> None:
    kind, name = kind_of(key)
    assert len(kind) == 1
    assert key_of(kind, name) == key
    assert type(key_of(kind, name)) is type(key)


# --- out


async def test_what_nobody_can_have_a_position_in_is_only_published() -> None:
    async with opened() as (streams, broker, ear):
        sent = post()
        await streams.emit(("r",), sent, excluded=("a",))
        assert ear.published == [("r", Published(sent.body, False, ("a",)))]
        assert not broker.has_log("r")


async def test_what_somebody_stands_in_is_appended() -> None:
    async with opened("r") as (streams, broker, ear):
        sent = post()
        await streams.emit(("r",), sent, excluded=("a",))
        await streams.emit(("r",), sent)
        first, second = await log_of(broker, "r")
        assert (first.body, first.excluded, first.copies) == (sent.body, ("a",), ())
        assert ear.entries == [("r", first), ("r", second)]
        assert ear.published == []
        assert first.mid != second.mid
        assert len(first.mid) >= 16


async def test_no_two_processes_give_messages_the_same_name() -> None:
    async with opened("r") as (streams, broker, _), opened() as (other, _, _):
        other.broker = broker
        for _ in range(3):
            await streams.emit(("r",), post())
            await other.emit(("r",), post())
        assert len({entry.mid for entry in await log_of(broker, "r")}) == 6


async def test_each_copy_names_those_before_it_whether_they_are_in_a_log_or_not() -> None:
    async with opened("s", "t") as (streams, broker, ear):
        await streams.emit(("r", "s", "t"), post())
        ((stream, published),) = ear.published
        assert (stream, published.earlier) == ("r", ())
        (in_s,), (in_t,) = await log_of(broker, "s"), await log_of(broker, "t")
        gen = (await broker.top("s")).gen
        assert in_s.copies == (Copy("r", "", 0),)
        assert in_t.copies == (Copy("r", "", 0), Copy("s", gen, in_s.seq))
        assert in_s.mid == in_t.mid


async def test_what_is_published_names_the_copies_before_it_too() -> None:
    async with opened("r") as (streams, _, ear):
        await streams.emit(("r", "s", "t"), post())
        assert [(stream, published.earlier) for stream, published in ear.published] == [
            ("s", ("r",)),
            ("t", ("r", "s")),
        ]


async def test_a_volatile_event_is_in_no_log() -> None:
    async with opened("r") as (streams, broker, ear):
        sent = post()
        await streams.emit(("r", "s"), sent, volatile=True, excluded=("a",))
        assert await log_of(broker, "r") == []
        assert ear.published == [
            ("r", Published(sent.body, True, ("a",))),
            ("s", Published(sent.body, True, ("a",), ("r",))),
        ]


async def test_what_the_caller_names_is_not_doubled_though_nobody_had_a_position_there() -> None:
    async with opened("r") as (streams, broker, ear):
        for _ in range(3):
            await streams.emit(("r", "s"), post(), mid="order-5")
        assert [entry.mid for entry in await log_of(broker, "r")] == ["order-5"]
        assert [entry.mid for entry in await log_of(broker, "s")] == ["order-5"]
        assert [stream for stream, _ in ear.entries] == ["r", "s"]


async def test_a_post_that_is_encoded_already_goes_the_same_way() -> None:
    async with opened("r") as (streams, broker, _):
        sent = post()
        await streams.emit_body(("r", "s"), sent.body, excluded=("a",))
        (entry,) = await log_of(broker, "r")
        assert (entry.body, entry.excluded) == (sent.body, ("a",))


async def test_a_relays_emission_is_tried_once() -> None:
    async with opened("r") as (streams, broker, ear):
        body = post().body
        step = Append("r", "mid", body, ("a",), (), 60.0, ())
        copy = await streams.attempt(step)
        (entry,) = await log_of(broker, "r")
        assert copy == Copy("r", (await broker.top("r")).gen, entry.seq)
        assert (entry.mid, entry.excluded) == ("mid", ("a",))
        assert await streams.attempt(Append("s", "mid", body, ("a",), (copy,), 60.0, ("r",))) == Copy("s", "", 0)
        assert ear.published == [("s", Published(body, False, ("a",), ("r",)))]
        broker.faults.lose_answer(done=False)
        with pytest.raises(OutcomeUnknown):
            await streams.attempt(step)
        await advance(61)
        with pytest.raises(BrokerUnavailable):
            await streams.attempt(step)


# --- when the broker does not answer


@pytest.mark.parametrize("done", [True, False])
async def test_an_append_without_an_answer_is_tried_again_under_the_same_name(done: bool) -> None:
    async with opened("r") as (streams, broker, _):
        tried: list[Draft] = []
        append = broker.append

        async def watch(stream: str, draft: Draft, *, deadline: float | None = None) -> Appended:
            tried.append(draft)
            return await append(stream, draft, deadline=deadline)

        broker.append = watch  # type: ignore[method-assign]
        broker.faults.lose_answer(done=done)
        await streams.emit(("r",), post())
        assert len(await log_of(broker, "r")) == 1
        first, second = tried
        assert first.mid == second.mid
        assert first.tag != second.tag


async def test_after_an_append_without_an_answer_the_broker_may_be_away_for_a_while() -> None:
    async with opened("r") as (streams, broker, _):
        broker.faults.lose_answer(done=True)
        emitting = asyncio.create_task(streams.emit(("r",), post()))
        await advance()
        broker.faults.go_away()
        await advance(APPEND_SECONDS / 2)
        assert not emitting.done()
        broker.faults.come_back()
        await emitting
        assert len(await log_of(broker, "r")) == 1


async def test_what_is_never_answered_is_unknown_while_the_broker_still_tells_doubles() -> None:
    async with opened("s", broker=Dropping()) as (streams, broker, _):
        with pytest.raises(OutcomeUnknown) as raised:
            await streams.emit(("r", "s"), post())
        assert raised.value.done == ("r",)
        (entry,) = await log_of(broker, "s")
        assert raised.value.mid == entry.mid
        assert APPEND_SECONDS - 1 <= asyncio.get_running_loop().time() <= APPEND_SECONDS


async def test_a_broker_that_is_away_got_nothing() -> None:
    for logged in ((), ("r",)):
        async with opened(*logged) as (streams, broker, ear):
            broker.faults.go_away()
            with pytest.raises(BrokerUnavailable):
                await streams.emit(("r", "s"), post())
            broker.faults.come_back()
            assert (await log_of(broker, "r"), ear.published) == ([], [])


@pytest.mark.parametrize("logged", [("r", "s"), ("r",), ("s",), ()])
async def test_a_broker_that_goes_away_between_two_rooms_has_the_first(logged: tuple[str, ...]) -> None:
    async with opened(*logged) as (streams, broker, _):
        await broker.subscribe("r", Ear(broker))
        with pytest.raises(OutcomeUnknown) as raised:
            await streams.emit(("r", "s"), post())
        assert raised.value.done == ("r",)


# --- in


async def test_what_this_node_emits_it_does_not_read_again() -> None:
    async with opened() as (streams, _, _):
        sent = post()
        await streams.emit(("r",), sent)
        assert streams.read("/", sent.body) is sent
        assert streams.read("/", bytes(bytearray(sent.body))) is sent


async def test_what_comes_from_elsewhere_is_read_once() -> None:
    async with opened() as (streams, _, _):
        body = post("from elsewhere").body
        read = streams.read("/", body)
        assert read is not None
        assert read.stock.parts == ('42["say","from elsewhere"]',)
        assert streams.read("/", body) is read


async def test_the_same_bytes_in_another_namespace_are_another_event() -> None:
    async with opened() as (streams, _, _):
        sent = post()
        await streams.emit(("r",), sent)
        other = streams.read("/chat", sent.body)
        assert other is not None
        assert other.stock.parts == ('42/chat,["say","x"]',)


def kept(streams: Streams, posts: list[Post]) -> list[int]:
    return [place for place, sent in enumerate(posts) if streams._posts.get(sent.body) is sent]


async def test_only_the_newest_posts_are_kept() -> None:
    async with opened() as (streams, _, _):
        posts = [post(str(n)) for n in range(KEPT_POSTS + 2)]
        for sent in posts:
            await streams.emit(("r",), sent)
            await streams.emit(("s",), sent)  # the same bytes count once
        assert kept(streams, posts) == list(range(2, KEPT_POSTS + 2))
        assert streams._posts.size == sum(len(sent.body) for sent in posts[2:])


async def test_only_so_many_bytes_of_posts_are_kept_and_always_the_newest() -> None:
    async with opened() as (streams, _, _):
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
    async with opened() as (streams, _, _):
        assert streams.read("/", body) is None
        counter: dict[str, str] = {"kind": "event", "reason": "unreadable", "policy": "no_event"}
        assert streams.counters.get("dropped_total", **counter) == 1


async def test_what_is_published_by_somebody_else_is_counted_and_left_out() -> None:
    async with opened() as (streams, _, _):
        await streams.emit(("r",), post())  # what is newest is not taken for the others
        published = Published(b"body", True, ("a",), ("b",))
        assert streams.published(msgspec.msgpack.encode(published)) == published
        bodies: list[Any] = [b"", b"\xc1", msgspec.msgpack.encode("text"), msgspec.msgpack.encode([1])]
        for body in bodies:
            assert streams.published(body) is None
        assert streams.counters.snapshot() == {
            'dropped_total{kind="event",policy="no_event",reason="unreadable"}': len(bodies)
        }


async def test_a_fault_of_a_room_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as (streams, _, _):
        with caplog.at_level(logging.ERROR, "bellwire.server"):
            streams.fault("the room", ZeroDivisionError("why"))
        assert streams.counters.get("stream_faults_total") == 1
        assert "the room" in caplog.text
        assert "ZeroDivisionError" in caplog.text
