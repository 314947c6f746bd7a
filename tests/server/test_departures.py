"""What relays emit is on its way to the broker while the next event is handled, in order whatever becomes of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
from typing_extensions import override

from bellwire import Event, Socket
from bellwire.core.errors import BrokerUnavailable, EventRefused, OutcomeUnknown
from bellwire.delivery.entry import Draft
from bellwire.delivery.log import Appended
from bellwire.server import departures
from bellwire.server.departures import MOST
from bellwire.testing import TestClient
from bellwire.testing.clock import advance
from tests.server.house import SAY
from tests.server.servers import House, SharedBroker, heard, houses

PUB = Event("pub", str, reply=str, rate="off")
TWICE = Event("twice", str, reply=str, rate="off")
PLAIN = Event("plain", str, reply=str, rate="off")
APART = Event("apart", str, reply=str, rate="off")
LATE = Event("late", str, reply=str, rate="off")


class Slow(SharedBroker):
    """A broker that appends at once and answers when it is told to; or loses what it is asked, and says so then."""

    immediate = False

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[asyncio.Future[Exception | None]] = []
        self.slow = False
        self.loses = False

    @override
    async def append(self, stream: str, draft: Draft, *, deadline: float | None = None) -> Appended:
        if not self.slow:
            return await super().append(stream, draft, deadline=deadline)
        answer: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.waiting.append(answer)
        appended = None if self.loses else await super().append(stream, draft, deadline=deadline)
        error = await answer
        if error is not None or appended is None:
            raise error or OutcomeUnknown(draft.mid)
        return appended

    async def answer(self, *errors: Exception | None) -> None:
        """Answer those that wait, the oldest first: each is done, or failed."""
        for error in errors:
            waiting = self.waiting.pop(0)
            if not waiting.done():  # else its server has ended
                waiting.set_result(error)
        await advance()


class Scene(NamedTuple):
    """A server on a slow broker, a client that emits through its handlers, and one that recovers and reads."""

    house: House
    broker: Slow
    writer: TestClient
    reader: TestClient
    handled: list[str]
    gate: asyncio.Event
    """What the handler of `LATE` waits for."""

    def ask(self, event: Event[str, str], text: str) -> "asyncio.Task[str]":
        """Have the writer call the server."""
        return asyncio.ensure_future(self.writer.call(event, text, timeout=100))

    async def asked(self, event: Event[str, str], *texts: str) -> "list[asyncio.Task[str]]":
        """The same, and let all be handled that can."""
        asking = [self.ask(event, text) for text in texts]
        await advance()
        return asking


def furnish(house: House, handled: list[str], gate: asyncio.Event) -> None:
    root = house.root

    @root.on(PUB, effect="relay")
    async def pub(socket: Socket, text: str) -> str:
        handled.append(text)
        await root.to("r").emit(SAY, text)
        return text

    @root.on(TWICE, effect="relay")
    async def twice(socket: Socket, text: str) -> str:
        handled.append(text)
        await root.to("r").emit(SAY, f"{text} 1")
        await root.to("r").emit(SAY, f"{text} 2")
        return text

    @root.on(APART, effect="relay")
    async def apart(socket: Socket, text: str) -> str:
        await root.to("apart").emit(SAY, text)
        return text

    @root.on(LATE, effect="relay")
    async def late(socket: Socket, text: str) -> str:
        handled.append(text)
        await gate.wait()
        await root.to("r").emit(SAY, text)
        return text

    @root.on(PLAIN)
    async def plain(socket: Socket, text: str) -> str:
        handled.append(text)
        await root.to("r").emit(SAY, text)
        return text

    @root.on_disconnect
    async def parted(socket: Socket, reason: str) -> None:
        handled.append(reason)


@asynccontextmanager
async def opened() -> AsyncIterator[Scene]:
    broker, handled, gate = Slow(), list[str](), asyncio.Event()
    async with houses(1, broker=broker, furnish=lambda house: furnish(house, handled, gate)) as (house,):
        writer, reader = await house.come(), await house.come("r", recovers=True)
        await heard(reader)
        broker.slow = True
        try:
            yield Scene(house, broker, writer, reader, handled, gate)
        finally:
            broker.slow = False
            await broker.answer(*[None] * len(broker.waiting))


def done(asking: "list[asyncio.Task[str]]") -> list[bool]:
    return [task.done() for task in asking]


async def test_the_next_event_is_handled_while_what_a_relay_emitted_is_on_its_way() -> None:
    async with opened() as scene:
        asking = await scene.asked(PUB, "1", "2", "3")
        assert scene.handled == ["1", "2", "3"]
        assert await heard(scene.reader) == ["1", "2", "3"]
        assert done(asking) == [False, False, False]
        await scene.broker.answer(None)
        assert done(asking) == [True, False, False]
        await scene.broker.answer(None, None)
        assert await asyncio.gather(*asking) == ["1", "2", "3"]


async def test_another_handler_waits_until_all_has_arrived() -> None:
    async with opened() as scene:
        first = await scene.asked(PUB, "1", "2")
        (second,) = await scene.asked(PLAIN, "3")
        third = await scene.asked(PUB, "4")
        assert scene.handled == ["1", "2"]
        await scene.broker.answer(None)
        assert scene.handled == ["1", "2"]
        await scene.broker.answer(None)
        assert scene.handled == ["1", "2", "3"]
        await scene.broker.answer(None)
        assert scene.handled == ["1", "2", "3", "4"]
        await scene.broker.answer(None)
        assert await asyncio.gather(*first, second, *third) == ["1", "2", "3", "4"]
        assert await heard(scene.reader) == ["1", "2", "3", "4"]


async def test_what_emits_twice_has_left_before_the_next_event_is_handled() -> None:
    async with opened() as scene:
        asking = [*await scene.asked(PUB, "0"), *await scene.asked(TWICE, "1", "2")]
        assert await heard(scene.reader) == ["0"]
        for _ in range(5):
            await scene.broker.answer(None)
        assert await heard(scene.reader) == ["1 1", "1 2", "2 1", "2 2"]
        assert await asyncio.gather(*asking) == ["0", "1", "2"]


async def test_what_is_tried_again_keeps_its_place() -> None:
    async with opened() as scene:
        scene.broker.loses = True
        asking = await scene.asked(PUB, "1", "2", "3")
        scene.broker.loses = False
        assert await heard(scene.reader) == []
        await scene.broker.answer(OutcomeUnknown("m"), OutcomeUnknown("m"), OutcomeUnknown("m"))
        asking += await scene.asked(PUB, "4")  # in doubt nothing new leaves
        assert scene.handled == ["1", "2", "3"]
        for text in ("1", "2", "3", "4"):
            await advance(1)
            assert await heard(scene.reader) == [text]
            assert len(scene.broker.waiting) == 1
            await scene.broker.answer(None)
        assert await asyncio.gather(*asking) == ["1", "2", "3", "4"]


async def test_what_a_handler_emits_that_began_before_the_doubt_keeps_its_place_as_well() -> None:
    async with opened() as scene:
        scene.broker.loses = True
        first = await scene.asked(PUB, "1")
        scene.broker.loses = False
        second = await scene.asked(LATE, "2")
        await scene.broker.answer(OutcomeUnknown("m"))
        scene.gate.set()
        for text in ("1", "2"):
            await advance(1)
            assert await heard(scene.reader) == [text]
            await scene.broker.answer(None)
        assert await asyncio.gather(*first, *second) == ["1", "2"]


async def test_what_was_overtaken_is_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as scene:
        scene.broker.loses = True
        first = await scene.asked(PUB, "1")
        scene.broker.loses = False
        others = await scene.asked(PUB, "2", "3")
        await scene.broker.answer(OutcomeUnknown("m"), None)
        await advance(1)
        assert len(scene.broker.waiting) == 1  # "3", which may be there as well
        await scene.broker.answer(None)
        await advance(1)
        with pytest.raises(EventRefused, match="failed to handle"):
            await asyncio.gather(*first)
        assert "OutcomeUnknown" in caplog.text
        assert await asyncio.gather(*others) == ["2", "3"]
        assert await heard(scene.reader) == ["2", "3"]


async def test_what_another_room_has_overtakes_nothing() -> None:
    async with opened() as scene:
        scene.broker.loses = True
        first = await scene.asked(PUB, "1")
        scene.broker.loses = False
        second = await scene.asked(APART, "2")
        assert done(second) == [True]
        await scene.broker.answer(OutcomeUnknown("m"))
        await advance(1)
        await scene.broker.answer(None)
        assert await asyncio.gather(*first, *second) == ["1", "2"]
        assert await heard(scene.reader) == ["1"]


async def test_one_that_fails_is_refused_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as scene:
        first, second = await scene.asked(PUB, "1", "2")
        await scene.broker.answer(BrokerUnavailable("away"), None)
        with pytest.raises(EventRefused, match="failed to handle"):
            await first
        assert await second == "2"
        assert "handling 'pub'" in caplog.text


async def test_there_is_an_end_to_how_many_are_on_their_way() -> None:
    async with opened() as scene:
        asking = await scene.asked(PUB, *map(str, range(MOST + 2)))
        assert len(scene.handled) == len(scene.broker.waiting) == MOST
        await scene.broker.answer(*[None] * MOST)
        assert len(scene.handled) == MOST + 2
        await scene.broker.answer(None, None)
        assert await asyncio.gather(*asking) == list(map(str, range(MOST + 2)))


async def test_when_many_are_on_their_way_each_socket_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departures, "MOST_OF_ALL", 2)
    async with opened() as scene:
        other = await scene.house.come()
        asking = await scene.asked(PUB, "1", "2", "3")
        asking += [asyncio.ensure_future(other.call(PUB, text, timeout=100)) for text in ("4", "5")]
        await advance()
        assert scene.handled == ["1", "2", "4"]
        await scene.broker.answer(None, None, None)
        assert scene.handled == ["1", "2", "4", "3", "5"]
        await scene.broker.answer(None, None)
        assert await asyncio.gather(*asking) == ["1", "2", "3", "4", "5"]
        assert scene.house.runtime.streams.departing == 0


async def test_large_ones_on_their_way_count_for_more_and_nothing_is_read_behind_too_many_of_them() -> None:
    async with opened() as scene:
        session = scene.house.socket(scene.writer)._connection.session
        asking = await scene.asked(PUB, "a" * 500_000, "b" * 500_000)
        assert not session.paused
        asking += await scene.asked(PUB, "c" * 500_000)
        assert session.paused
        await scene.broker.answer(None, None, None)
        assert not session.paused
        await asyncio.gather(*asking)


async def test_a_client_that_leaves_is_parted_with_when_all_has_arrived() -> None:
    async with opened() as scene:
        for text in ("1", "2"):
            await scene.writer.emit(PUB, text)
        await scene.writer.disconnect()
        await advance()
        assert scene.handled == ["1", "2"]
        await scene.broker.answer(None)
        assert scene.handled == ["1", "2"]
        await scene.broker.answer(None)
        assert scene.handled == ["1", "2", "client namespace disconnect"]


async def test_what_waits_behind_them_ends_with_the_server() -> None:
    async with opened() as scene:
        await scene.writer.emit(PUB, "1")
        await scene.writer.emit(PLAIN, "2")
        await advance()
        await scene.house.server.close()
        assert scene.handled[0] == "1"
        assert "2" not in scene.handled
