"""Clients that do not read, on real sockets: what becomes of them, of what they are sent, and of all others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest

from bellwire import Event, Server, Socket
from bellwire.core.config import Config
from bellwire.delivery.answer import Reason
from bellwire.protocol.frames import PING, build_frame
from bellwire.protocol.wire import PATH, Reset, ServerMessage, StreamEvent, parse_server
from bellwire.server.latest import OF_EACH
from bellwire.server.namespace import Namespace
from tests.serving import serve
from tests.transports.sluggish import Sluggish, sluggish
from tests.transports.wire import PATIENCE, connect, until

pytestmark = pytest.mark.bellwire(clock="real", uvloop=True)
on_both = pytest.mark.parametrize("native", [True, False], ids=["native", "asgi"])

SAY = Event("say", int, str)
ECHO = Event("echo", str, reply=str)
CURSOR = Event("cursor", int, volatile=True)
BLOCK = "x" * 10_000
READ = 256_000
"""What uvloop reads at once."""


class House:
    """A server with one room, and how much waited for the first of its sockets at most."""

    def __init__(self, **settings: Any) -> None:
        self.server = Server(config=Config(message_rate="off", **settings))
        self.root: Namespace = self.server.namespace("/", emits=(SAY, CURSOR))
        self.sockets: list[Socket] = []
        self.ends: list[str] = []
        self.peak = 0
        self.root.on_connect(self.join)
        self.root.on(ECHO)(self.echo)
        self.root.on_disconnect(self.leave)

    async def join(self, socket: Socket) -> None:
        self.sockets.append(socket)
        await socket.join("r")

    async def leave(self, socket: Socket, reason: str) -> None:
        self.ends.append(reason)

    async def echo(self, socket: Socket, text: str) -> str:
        self.peak = max(self.peak, socket.buffered)
        return text

    async def say(self, *numbers: int, text: str = BLOCK) -> None:
        """Say each in a turn of the loop of its own."""
        for number in numbers:
            await self.root.to("r").emit(SAY, number, text)
            self.peak = max(self.peak, self.sockets[0].buffered)
            await asyncio.sleep(0)

    def slow(self, cause: str) -> int:
        return self.server.counters.get("slow_consumers_total", cause=cause)


@asynccontextmanager
async def recovering(url: str) -> AsyncIterator[Sluggish]:
    """A client of bellwire.v1 that can come back."""
    async with sluggish(url, PATH) as client:
        await client.say('["connect","/",null,"instance"]')
        yield client


async def heard(client: Sluggish, last: int) -> list[ServerMessage]:
    """What it hears, up to where this is said."""
    messages: list[ServerMessage] = []
    while not messages or said(messages[-1:]) != [last]:
        message = await client.hear()
        assert message is not None, "the connection ended"
        messages.append(parse_server(message))
    return messages


def said(messages: list[ServerMessage]) -> list[int]:
    return [msgspec.json.decode(message.args)[0] for message in messages if isinstance(message, StreamEvent)]


def resets(messages: list[ServerMessage]) -> list[Reset]:
    return [message for message in messages if isinstance(message, Reset)]


# --- clients that recover


@on_both
async def test_who_recovers_is_written_no_more_than_fits_and_catches_up_from_the_history(native: bool) -> None:
    house = House(history_messages=1_000)
    async with serve(house.server, native=native) as url, recovering(url) as client:
        await until(lambda: house.sockets and house.sockets[0].connected)
        (socket,) = house.sockets
        await house.say(*range(350))
        assert not socket.writable
        await house.say(-1)
        assert socket.buffered <= house.peak <= 200_000, "it is not written live events any more"
        messages = await heard(client, -1)
        assert said(messages) == [*range(350), -1]
        assert not resets(messages)
        await until(lambda: socket.writable)
        await house.say(1_000)
        assert said(await heard(client, 1_000)) == [1_000]
        assert (house.ends, house.slow("buffer_full")) == ([], 0)


async def test_the_history_comes_in_pages_that_respect_the_send_buffer() -> None:
    house = House(history_messages=1_000, send_buffer_bytes=400_000)
    async with serve(house.server) as url, recovering(url) as client:
        await until(lambda: house.sockets and house.sockets[0].connected)
        await house.say(*range(350))
        peak, done = 0, False

        async def watch() -> None:
            nonlocal peak
            while not done:
                peak = max(peak, house.sockets[0].buffered)
                await asyncio.sleep(0)

        watching = asyncio.ensure_future(watch())
        messages = await heard(client, 349)
        done = True
        await watching
        assert said(messages) == list(range(350))
        assert peak <= 400_000
        assert house.ends == []


async def test_who_is_so_slow_that_the_history_has_gone_past_is_told() -> None:
    house = House(history_messages=20)
    async with serve(house.server) as url, recovering(url) as client:
        await until(lambda: house.sockets and house.sockets[0].connected)
        await house.say(*range(500))
        messages = await heard(client, 499)
        numbers = said(messages)
        assert numbers[-20:] == list(range(480, 500))
        (reset,) = resets(messages)
        assert reset.reason == Reason.TOO_FAR
        place = messages.index(reset)
        before, after = said(messages[:place]), said(messages[place:])
        assert before == list(range(len(before)))
        assert after == list(range(after[0], 500))
        assert house.ends == []


# --- all others


@on_both
async def test_who_does_not_recover_is_cut_off_and_nobody_else_notices(native: bool) -> None:
    house = House()
    async with serve(house.server, native=native) as url, sluggish(url) as slow, sluggish(url) as quick:
        for client in (slow, quick):
            await client.say("40")
        await until(lambda: len(house.sockets) == 2 and all(socket.connected for socket in house.sockets))
        got: list[int] = []

        async def read() -> None:
            while len(got) < 1_000:
                message = await quick.hear()
                assert isinstance(message, str)
                if message.startswith('42["say"'):
                    got.append(msgspec.json.decode(message[2:])[1])

        reading = asyncio.ensure_future(read())
        for number in range(1_000):
            await house.say(number)
            async with asyncio.timeout(PATIENCE):
                while len(got) < number - 20:  # noqa: ASYNC110 - it is given time to read, not more
                    await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            await reading
        assert got == list(range(1_000))
        assert house.ends == ["slow consumer"]
        assert house.slow("buffer_full") == 1
        assert house.server.engine.unread.total == 0


async def test_the_newest_volatile_events_come_when_there_is_room() -> None:
    house = House(send_buffer_bytes=100_000_000, process_buffer_bytes=100_000_000)
    async with serve(house.server) as url, sluggish(url) as client:
        await client.say("40")
        await until(lambda: house.sockets and house.sockets[0].connected)
        (socket,) = house.sockets
        number = 0
        while socket.writable:
            await house.say(number)
            number += 1
        for number in range(100):
            await house.root.to("r").emit(CURSOR, number)
            await socket.emit(CURSOR, -number)
        cursors: list[int] = []
        while -99 not in cursors:
            message = await client.hear()
            assert isinstance(message, str)
            if message.startswith('42["cursor"'):
                cursors.append(msgspec.json.decode(message[2:])[1])
        assert cursors == [value for number in range(100 - OF_EACH, 100) for value in (number, -number)]


# --- what a client causes itself, and does not read


async def test_acknowledgements_that_are_not_read_are_bounded() -> None:
    house = House()
    async with serve(house.server) as url, sluggish(url) as client:
        await client.say("40")
        await until(lambda: house.sockets and house.sockets[0].connected)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while not house.ends:
                await client.say(*['420["echo","' + "x" * 2_000 + '"]'] * 250)
        assert house.ends == ["slow consumer"]
        assert house.peak <= 1_048_576 + 2 * READ
        assert house.slow("buffer_full") == 1


async def test_pongs_that_are_not_read_are_bounded() -> None:
    house = House()
    async with serve(house.server) as url, sluggish(url) as client:
        await client.say("40")
        await until(lambda: house.sockets and house.sockets[0].connected)
        (socket,) = house.sockets
        pings, peak = build_frame(PING, bytes(125), mask=bytes(4)) * 100, 0
        with contextlib.suppress(ConnectionError, TimeoutError):
            while not house.ends:
                await client.send(pings)
                peak = max(peak, socket.buffered)
        assert house.ends == ["slow consumer"]
        assert peak <= 1_048_576 + 2 * READ


# --- all together


@on_both
async def test_what_waits_for_all_together_is_bounded(native: bool) -> None:
    house = House(process_buffer_bytes=2_000_000)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serve(house.server, native=native))
        clients = [await stack.enter_async_context(sluggish(url)) for _ in range(10)]
        for client in clients:
            await client.say("40")
        await until(lambda: len(house.sockets) == 10 and all(socket.connected for socket in house.sockets))
        unread, number = house.server.engine.unread, 0
        while len(house.ends) < 5:
            await house.say(number)
            assert unread.total <= 2_000_000 + 10 * 11_000
            number += 1
        assert house.slow("process_full") >= 5
        assert sum(socket.buffered for socket in house.sockets if socket.connected) <= 2_000_000


# --- long-polling


async def test_a_client_of_long_polling_that_does_not_come_to_fetch_is_cut_off() -> None:
    house = House(write_timeout=0.5)
    async with serve(house.server) as url, connect(url) as client:
        sid = await client.open()
        await client.post(sid, "40")
        await until(lambda: house.sockets and house.sockets[0].connected)
        await house.say(1)
        while not house.ends:
            await client.post(sid, "3")
        assert house.ends == ["slow consumer"]
        assert house.slow("no_progress") == 1
        assert house.server.engine.unread.total == 0
