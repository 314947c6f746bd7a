"""What an emitter brings to a broker, on the broker in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bellwire import Event, OutcomeUnknown
from bellwire.brokers.memory import MemoryBroker
from bellwire.brokers.publisher import Publisher
from bellwire.delivery.answer import Page
from bellwire.delivery.entry import Draft, Entry, marker
from bellwire.delivery.log import Appended
from bellwire.delivery.naming import EVERYONE, Key, User, stream_of
from bellwire.delivery.position import Position
from bellwire.emitter.target import EmitterTarget
from bellwire.guard.packets import post

SAY = Event("say", str)
WAVE = Event("wave", int, volatile=True)


class Watched(MemoryBroker):
    """A broker that keeps what it is asked for; it answers no append to the streams that are ``silent``."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str]] = []
        self.silent: set[str] = set()

    async def append(self, stream: str, draft: Draft, *, deadline: float | None = None) -> Appended:
        self.asked.append(("append", stream))
        if stream in self.silent:
            raise OutcomeUnknown(draft.mid)
        return await super().append(stream, draft, deadline=deadline)

    async def publish(self, stream: str, body: bytes) -> None:
        self.asked.append(("publish", stream))
        await super().publish(stream, body)

    async def top(self, stream: str) -> Position:
        self.asked.append(("top", stream))
        return await super().top(stream)


@asynccontextmanager
async def opened(*keys: Key) -> AsyncIterator[tuple[EmitterTarget, Watched]]:
    """A namespace; somebody has positions in the streams of ``keys``."""
    broker = Watched()
    await broker.start()
    for key in keys:
        await MemoryBroker.append(broker, name(key), marker(1))
    publisher = Publisher(broker)
    yield EmitterTarget(lambda: publisher, "/chat"), broker
    await broker.close()


def name(key: Key) -> str:
    return stream_of("/chat", key)


async def log_of(broker: MemoryBroker, key: Key) -> list[Entry]:
    top = await MemoryBroker.top(broker, name(key))
    page = await broker.read(name(key), top._replace(seq=0, tag=0))
    assert isinstance(page, Page)
    return [entry for entry in page.entries if not entry.is_marker]


async def test_it_is_what_a_server_would_have_brought_there() -> None:
    async with opened("a", User("ann"), EVERYONE) as (chat, broker):
        for target, key in ((chat.to("a"), "a"), (chat.user("ann"), User("ann")), (chat, EVERYONE)):
            await target.except_("b").emit(SAY, "hello")
            (entry,) = await log_of(broker, key)
            assert entry.body == post("/chat", SAY, ("hello",)).body
            assert entry.excluded == ("b",)


async def test_each_copy_names_those_before_it() -> None:
    async with opened("a", "b") as (chat, broker):
        await chat.to("a", "b").emit(SAY, "hello", mid="order-7")
        (first,), (second,) = await log_of(broker, "a"), await log_of(broker, "b")
        assert first.mid == second.mid == "order-7"
        assert [(copy.stream, copy.seq) for copy in second.copies] == [(name("a"), first.seq)]


async def test_what_is_only_published_is_with_the_broker_when_emit_returns() -> None:
    async with opened("a") as (chat, broker):
        await chat.to("a", "b").emit(WAVE, 5)
        a, b = name("a"), name("b")
        assert broker.asked == [("publish", a), ("publish", b), ("top", a), ("top", b)]


async def test_an_outcome_that_is_not_known_names_the_rooms() -> None:
    async with opened("a", "b") as (chat, broker):
        broker.silent = {name("b")}
        with pytest.raises(OutcomeUnknown) as raised:
            await chat.to("a", "b").emit(SAY, "hello", mid="m")
        assert (raised.value.mid, raised.value.done) == ("m", ("a",))
