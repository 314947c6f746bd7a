import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bellwire.brokers.memory import MemoryBroker
from bellwire.brokers.publisher import Publisher
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from bellwire.delivery.answer import Page
from bellwire.delivery.effects import APPEND_SECONDS
from bellwire.delivery.entry import Copy, Draft, Entry, marker
from bellwire.delivery.handling import Append
from bellwire.delivery.log import Appended
from bellwire.delivery.naming import name_stream
from bellwire.delivery.position import Position
from bellwire.delivery.published import Published, decode_published
from bellwire.protocol.socket_id import new_socket_id
from bellwire.testing.clock import advance


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
        self.published.append((stream, decode_published(body)))
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
async def opened(
    *logged: str, broker: MemoryBroker | None = None
) -> AsyncIterator[tuple[Publisher, MemoryBroker, Ear]]:
    """A publisher; somebody listens to r, s and t, and has positions in those that are ``logged``."""
    broker = broker or MemoryBroker()
    await broker.start()
    for stream in logged:
        await MemoryBroker.append(broker, stream, marker(1))
    ear = Ear()
    for stream in "rst":
        await broker.subscribe(stream, ear)
    yield Publisher(broker), broker, ear
    await broker.close()


def body() -> bytes:
    return b"what is emitted"


async def log_of(broker: MemoryBroker, stream: str) -> list[Entry]:
    top = await broker.top(stream)
    answer = await broker.read(stream, Position(top.gen, 0, 0))
    assert isinstance(answer, Page)
    return [entry for entry in answer.entries if not entry.is_marker]


async def test_what_nobody_can_have_a_position_in_is_only_published() -> None:
    async with opened() as (publisher, broker, ear):
        sent = body()
        await publisher.emit(("r",), sent, excluded=("a",))
        assert ear.published == [("r", Published(sent, False, ("a",)))]
        assert not broker.has_log("r")


async def test_what_somebody_stands_in_is_appended() -> None:
    async with opened("r") as (publisher, broker, ear):
        sent = body()
        await publisher.emit(("r",), sent, excluded=("a",))
        await publisher.emit(("r",), sent)
        first, second = await log_of(broker, "r")
        assert (first.body, first.excluded, first.copies) == (sent, ("a",), ())
        assert ear.entries == [("r", first), ("r", second)]
        assert ear.published == []
        assert first.mid != second.mid
        assert len(first.mid) == len(second.mid) == 11


async def test_no_two_processes_give_messages_the_same_name() -> None:
    async with opened("r") as (publisher, broker, _), opened() as (other, _, _):
        other.broker = broker
        for _ in range(3):
            await publisher.emit(("r",), body())
            await other.emit(("r",), body())
        assert len({entry.mid for entry in await log_of(broker, "r")}) == 6


async def test_each_copy_names_those_before_it_whether_they_are_in_a_log_or_not() -> None:
    async with opened("s", "t") as (publisher, broker, ear):
        await publisher.emit(("r", "s", "t"), body())
        ((stream, published),) = ear.published
        assert (stream, published.earlier) == ("r", ())
        (in_s,), (in_t,) = await log_of(broker, "s"), await log_of(broker, "t")
        gen = (await broker.top("s")).gen
        assert in_s.copies == (Copy("r", "", 0),)
        assert in_t.copies == (Copy("r", "", 0), Copy("s", gen, in_s.seq))
        assert in_s.mid == in_t.mid


async def test_what_is_published_names_the_copies_before_it_too() -> None:
    async with opened("r") as (publisher, _, ear):
        await publisher.emit(("r", "s", "t"), body())
        assert [(stream, published.earlier) for stream, published in ear.published] == [
            ("s", ("r",)),
            ("t", ("r", "s")),
        ]


async def test_a_volatile_event_is_in_no_log() -> None:
    async with opened("r") as (publisher, broker, ear):
        sent = body()
        await publisher.emit(("r", "s"), sent, volatile=True, excluded=("a",))
        assert await log_of(broker, "r") == []
        assert ear.published == [
            ("r", Published(sent, True, ("a",))),
            ("s", Published(sent, True, ("a",), ("r",))),
        ]


async def test_what_the_caller_names_is_not_doubled_though_nobody_had_a_position_there() -> None:
    async with opened("r") as (publisher, broker, ear):
        for _ in range(3):
            await publisher.emit(("r", "s"), body(), mid="order-5")
        assert [entry.mid for entry in await log_of(broker, "r")] == ["order-5"]
        assert [entry.mid for entry in await log_of(broker, "s")] == ["order-5"]
        assert [stream for stream, _ in ear.entries] == ["r", "s"]


async def test_a_relays_emission_is_tried_once() -> None:
    async with opened("r") as (publisher, broker, ear):
        sent = body()
        step = Append("r", "mid", sent, ("a",), (), 60.0, ())
        copy = await publisher.attempt(step)
        (entry,) = await log_of(broker, "r")
        assert copy == Copy("r", (await broker.top("r")).gen, entry.seq)
        assert (entry.mid, entry.excluded) == ("mid", ("a",))
        assert await publisher.attempt(Append("s", "mid", sent, ("a",), (copy,), 60.0, ("r",))) == Copy("s", "", 0)
        assert ear.published == [("s", Published(sent, False, ("a",), ("r",)))]
        broker.faults.lose_answer(done=False)
        with pytest.raises(OutcomeUnknown):
            await publisher.attempt(step)
        await advance(61)
        with pytest.raises(BrokerUnavailable):
            await publisher.attempt(step)


# --- when the broker does not answer


@pytest.mark.parametrize("done", [True, False])
async def test_an_append_without_an_answer_is_tried_again_under_the_same_name(done: bool) -> None:
    async with opened("r") as (publisher, broker, _):
        tried: list[Draft] = []
        append = broker.append

        async def watch(stream: str, draft: Draft, *, deadline: float | None = None) -> Appended:
            tried.append(draft)
            return await append(stream, draft, deadline=deadline)

        broker.append = watch  # type: ignore[method-assign]
        broker.faults.lose_answer(done=done)
        await publisher.emit(("r",), body())
        assert len(await log_of(broker, "r")) == 1
        first, second = tried
        assert first.mid == second.mid
        assert first.tag != second.tag


async def test_after_an_append_without_an_answer_the_broker_may_be_away_for_a_while() -> None:
    async with opened("r") as (publisher, broker, _):
        broker.faults.lose_answer(done=True)
        emitting = asyncio.create_task(publisher.emit(("r",), body()))
        await advance()
        broker.faults.go_away()
        await advance(APPEND_SECONDS / 2)
        assert not emitting.done()
        broker.faults.come_back()
        await emitting
        assert len(await log_of(broker, "r")) == 1


async def test_what_is_never_answered_is_unknown_while_the_broker_still_tells_doubles() -> None:
    async with opened("s", broker=Dropping()) as (publisher, broker, _):
        with pytest.raises(OutcomeUnknown) as raised:
            await publisher.emit(("r", "s"), body())
        assert raised.value.done == ("r",)
        (entry,) = await log_of(broker, "s")
        assert raised.value.mid == entry.mid
        assert APPEND_SECONDS - 1 <= asyncio.get_running_loop().time() <= APPEND_SECONDS


async def test_a_broker_that_is_away_got_nothing() -> None:
    for logged in ((), ("r",)):
        async with opened(*logged) as (publisher, broker, ear):
            broker.faults.go_away()
            with pytest.raises(BrokerUnavailable):
                await publisher.emit(("r", "s"), body())
            broker.faults.come_back()
            assert (await log_of(broker, "r"), ear.published) == ([], [])


@pytest.mark.parametrize("logged", [("r", "s"), ("r",), ("s",), ()])
async def test_a_broker_that_goes_away_between_two_rooms_has_the_first(logged: tuple[str, ...]) -> None:
    async with opened(*logged) as (publisher, broker, _):
        await broker.subscribe("r", Ear(broker))
        with pytest.raises(OutcomeUnknown) as raised:
            await publisher.emit(("r", "s"), body())
        assert raised.value.done == ("r",)


async def test_whoever_ends_right_after_it_waits_for_the_broker() -> None:
    async with opened() as (publisher, broker, _):
        socket = name_stream("/", new_socket_id("0a1b2c3d"))
        asked: list[str] = []

        async def top(stream: str) -> Position:
            asked.append(stream)
            return Position("", 0, 0)

        broker.top = top  # type: ignore[method-assign]
        await publisher.confirm(["r", socket])
        assert asked == ["r", "node.0a1b2c3d"]


async def test_whether_it_has_it_cannot_be_known_if_it_is_away() -> None:
    async with opened() as (publisher, broker, _):
        broker.faults.go_away()
        with pytest.raises(OutcomeUnknown, match="whether the broker has it cannot be known: "):
            await publisher.confirm(["r"])
