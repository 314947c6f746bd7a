"""Unmodified socket.io-client against connection state recovery: cut off, brought back, given what was missed, and told
that it was recovered. Every hole that the recovery of Socket.IO's own server is known for has its test.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bellwire import Client
from tests.chaos.application import ASK, MEMBERS, REASONS, ROOM, SAY, SAY_TO_OTHERS, SHOW, TICK
from tests.chaos.program import PATIENCE, SCALE, Program, ServerProgram, program, python, serving
from tests.chaos.proxy import ChaosProxy
from tests.chaos.schedule import Schedule
from tests.chaos.verdict import COUNT, FINE, HISTORY, WHOLE, verdict
from tests.interop.processes import program_path
from tests.interop.test_python_socketio import new_client

needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a private nats-server needs Linux")
long = pytest.mark.timeout(60 * SCALE)
pytestmark = [pytest.mark.node, pytest.mark.bellwire(clock="real")]

NODE = program_path("node") or "node"
LISTENER = str(Path(__file__).parent / "js" / "listener.js")


ENTRY = 38
"""Characters of an offset for each stream that it lists."""

HEAD = 12
"""Characters that it has beside."""


class Stock:
    """A stock client in a process of its own."""

    def __init__(self, running: Program) -> None:
        self.program = running

    async def connects(self, count: int) -> list[Any]:
        """Wait for its connection number ``count``; its id, and whether it says that it was recovered."""
        return (await self.program.hear("connect", count))[count - 1]

    async def hears(self, event: str, *payloads: Any) -> None:
        """Wait until it has heard as many of an event; these must be all, each with an offset behind it."""
        heard = await self.program.hear(event, len(payloads))
        assert [args[0] if len(args) == 2 else args[:-1] for args in heard] == [*payloads]
        assert all(isinstance(args[-1], str) and len(args[-1]) >= ENTRY + HEAD for args in heard)

    async def settles(self, transport: str, times: int) -> None:
        """Wait until it has come to this transport so many times."""
        said = self.program.said
        await self.program.until(lambda: said.count(["transport", transport]) == times, transport)

    async def texts(self, count: int) -> list[str]:
        """Wait until so many texts were said in all; return them."""
        return [text for text, _ in await self.program.hear("said", count)]

    @property
    def offset(self) -> str:
        """The last argument of the last event."""
        offset: str = self.program.said[-1][-1]
        return offset


class House:
    """A server, a proxy between it and stock clients, and ``client``, which sees no trouble."""

    def __init__(self, server: ServerProgram, proxy: ChaosProxy, client: Client, stack: AsyncExitStack) -> None:
        self.server = server
        self.proxy = proxy
        self.client = client
        self.modules = ""
        self._stack = stack

    async def stock(self, *rooms: str, proxy: ChaosProxy | None = None, **options: Any) -> Stock:
        """Let a stock client connect, and enter rooms beside the one of everybody."""
        proxy = self.proxy if proxy is None else proxy
        options = {"auth": {"rooms": rooms}, "transports": ["websocket"], **options}
        command = NODE, LISTENER, f"http://127.0.0.1:{proxy.port}", json.dumps(options)
        running = await self._stack.enter_async_context(program(*command, environ={"NODE_PATH": self.modules}))
        stock = Stock(running)
        await stock.connects(1)
        return stock

    def take_away(self) -> None:
        """Cut all stock clients off; they do not come through."""
        self.proxy.admission = "reset"
        for connection in [*self.proxy.connections.values()]:
            connection.reset()

    def let_back(self) -> None:
        self.proxy.admission = "pass"

    async def say(self, text: str, *rooms: str) -> None:
        """Say something in rooms, by default the one of everybody."""
        assert await self.client.call(SAY, [*(rooms or [ROOM])], text, timeout=PATIENCE)

    async def shout(self, text: str) -> None:
        """Say something in the namespace."""
        assert await self.client.call(SAY, [], text, timeout=PATIENCE)


@asynccontextmanager
async def house(modules: Path, *flags: str, data: Path | None = None) -> AsyncIterator[House]:
    async with (
        serving("--connection-state-recovery", *flags, data=data) as server,
        ChaosProxy(server.port) as proxy,
        AsyncExitStack() as stack,
        Client(server.url) as client,
    ):
        made = House(server, proxy, client, stack)
        made.modules = str(modules)
        yield made


@pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]], ids="-".join)
async def test_missed_messages_are_replayed_however_often(node_modules: Path, transports: list[str]) -> None:
    async with house(node_modules) as h:
        stock = await h.stock(transports=transports)
        first = await stock.connects(1)
        assert first[1] is False
        await h.say("0")
        await stock.hears("said", "0")
        for time in (1, 2, 3):
            # If the new transport breaks after its probe, engine.io-client pauses the old one for ever, and finds out
            # when no ping comes: an upgrade is not disturbed here.
            await stock.settles(transports[-1], time)
            h.take_away()
            await stock.program.hear("disconnect", time)
            await h.say(f"{time} missed")
            await h.say(f"{time} as well")
            h.let_back()
            assert await stock.connects(time + 1) == [first[0], True]
            await h.say(f"{time} live")
        texts = [f"{time} {word}" for time in (1, 2, 3) for word in ("missed", "as well", "live")]
        await stock.hears("said", "0", *texts)


async def test_one_that_has_received_nothing_yet_is_recovered_from_connect_on(node_modules: Path) -> None:
    async with house(node_modules) as h:
        stock = await h.stock()
        first = await stock.connects(1)
        h.take_away()
        await h.say("missed")
        h.let_back()
        assert await stock.connects(2) == [first[0], True]
        await h.say("live")
        await stock.hears("said", "missed", "live")


async def test_a_volatile_event_that_ends_with_a_string_poisons_nothing(node_modules: Path) -> None:
    async with house(node_modules) as h:
        stock = await h.stock()
        for text in ("volatile before the first", "and once more"):
            await h.client.call(TICK, text, timeout=PATIENCE)
        await stock.hears("ticked", "volatile before the first", "and once more")
        h.take_away()
        await h.say("one")
        h.let_back()
        assert (await stock.connects(2))[1] is True
        await stock.hears("said", "one")
        await h.client.call(TICK, "volatile behind it", timeout=PATIENCE)
        await stock.program.hear("ticked", 3)
        h.take_away()
        await h.client.call(TICK, "volatile and missed", timeout=PATIENCE)
        await h.say("two")
        h.let_back()
        assert (await stock.connects(3))[1] is True
        await stock.hears("said", "one", "two")
        assert len(stock.program.of("ticked")) == 3


async def test_an_idle_one_is_recovered_from_an_old_offset(node_modules: Path) -> None:
    """What came since brought it no offset: questions have none, and others' messages in its rooms do not reach it."""
    async with house(node_modules, "--history-messages", "10", "--history-seconds", "0.3") as h:
        stock = await h.stock("quiet")
        first = await stock.connects(1)
        await h.say("once", "quiet")
        await stock.hears("said", "once")
        answers: list[str] = await h.client.call(ASK, "quiet", timeout=PATIENCE)
        assert answers == [first[0]]
        loop = asyncio.get_running_loop()
        old = loop.time() + 0.5
        while loop.time() < old:
            await h.say("x", "another room")
        for number in range(8):
            await h.client.call(SAY_TO_OTHERS, "quiet", first[0], str(number), timeout=PATIENCE)
        h.take_away()
        await h.say("twice", "quiet")
        h.let_back()
        assert await stock.connects(2) == [first[0], True]
        await stock.hears("said", "once", "twice")
        assert len(stock.program.of("asked")) == 1


async def test_one_that_has_missed_more_than_there_is_begins_anew_and_says_so(node_modules: Path) -> None:
    async with house(node_modules, "--history-messages", "10") as h:
        stock = await h.stock()
        first = await stock.connects(1)
        await h.say("once")
        await stock.hears("said", "once")
        h.take_away()
        for number in range(300):  # a node remembers some more by itself
            await h.say(str(number))
        h.let_back()
        again = await stock.connects(2)
        assert again == [again[0], False]
        assert again[0] != first[0]
        await h.say("live")
        await stock.hears("said", "once", "live")


async def test_without_a_directory_a_killed_server_recovers_nobody_and_says_so(node_modules: Path) -> None:
    async with house(node_modules) as h:
        stock = await h.stock()
        first = await stock.connects(1)
        await h.say("once")
        await stock.hears("said", "once")
        await h.server.restart()
        again = await stock.connects(2)
        assert again == [again[0], False]
        assert again[0] != first[0]
        await h.say("live")
        await stock.hears("said", "once", "live")


async def test_the_old_connection_that_the_server_takes_for_alive_ends(node_modules: Path) -> None:
    async with house(node_modules) as h:
        stock = await h.stock("room")
        first = await stock.connects(1)
        await h.say("one", "room")
        await stock.hears("said", "one")
        for time in (1, 2):
            h.proxy.connections[time - 1].half_open("server")
            assert await stock.connects(time + 1) == [first[0], True]
            assert await h.client.call(MEMBERS, "room", timeout=PATIENCE) == [first[0]]
            await h.say(f"back {time}", "room")
        await stock.hears("said", "one", "back 1", "back 2")
        reasons = await h.client.call(REASONS, timeout=PATIENCE)
        assert reasons == ["session replaced"] * 2


async def test_binary_events_are_replayed_whole(node_modules: Path) -> None:
    async with house(node_modules) as h:
        stock = await h.stock()
        shown = [{"hex": "00ff"}, "between", [{"hex": "00ff"}, {"hex": "00ff"}]]
        await h.client.call(SHOW, ROOM, b"\x00\xff", timeout=PATIENCE)
        await stock.hears("shown", shown)
        h.take_away()
        for _ in range(3):
            await h.client.call(SHOW, ROOM, b"\x00\xff", timeout=PATIENCE)
            await h.say("text")
        h.let_back()
        assert (await stock.connects(2))[1] is True
        await stock.hears("shown", *[shown] * 4)
        await stock.hears("said", *["text"] * 3)


def in_streams(texts: Sequence[str]) -> list[list[str]]:
    """What was said in each stream: order is promised within one, and a text to two is in the first."""
    streams = ("a:", "b:", "everyone:")
    return [[text for text in texts if text.startswith(stream)] for stream in streams]


async def test_rooms_and_the_namespace_at_once(node_modules: Path) -> None:
    async with house(node_modules) as h:
        stock = await h.stock("a", "b")
        said: list[str] = []

        async def say_all(word: str) -> None:
            for text, rooms in (("a: 1", "a"), ("b: 1", "b"), ("a: 2", "ab"), ("b: 2", "ba"), ("a: 3", "a")):
                await h.say(f"{text} {word}", *rooms)
                await h.shout(f"everyone: {text} {word}")
                said.extend((f"{text} {word}", f"everyone: {text} {word}"))

        await say_all("live")
        assert await stock.texts(len(said)) == said
        for time in (1, 2):
            h.take_away()
            await say_all(f"missed {time}")
            h.let_back()
            assert (await stock.connects(time + 1))[1] is True
            assert in_streams(await stock.texts(len(said))) == in_streams(said)
            await say_all(f"live {time}")
            assert in_streams(await stock.texts(len(said))) == in_streams(said)


async def checkpoint(h: House, stock: Stock) -> None:
    """Wait until its offsets have become short again; a volatile event brings one and leaves nothing."""
    ticks = len(stock.program.of("ticked"))
    async with asyncio.timeout(PATIENCE):
        while len(stock.offset) > 2 * ENTRY + HEAD:
            await h.client.call(TICK, "x", timeout=PATIENCE)
            ticks += 1
            await stock.program.hear("ticked", ticks)


async def test_many_rooms_come_to_a_checkpoint(node_modules: Path) -> None:
    rooms = [f"room {number}" for number in range(12)]
    async with house(node_modules) as h:
        stock = await h.stock(*rooms)
        said = []
        for time in (1, 2):
            for room in rooms:
                await h.say(f"{room} live {time}", room)
                said.append(f"{room} live {time}")
            assert await stock.texts(len(said)) == said
            assert len(stock.offset) == len(rooms) * ENTRY + HEAD
            await checkpoint(h, stock)
            await h.say(f"moved {time}", rooms[0], rooms[1])
            said.append(f"moved {time}")
            assert await stock.texts(len(said)) == said
            h.take_away()
            for room in rooms:
                await h.say(f"{room} missed {time}", room)
                said.append(f"{room} missed {time}")
            h.let_back()
            assert (await stock.connects(time + 1))[1] is True
            assert sorted(await stock.texts(len(said))) == sorted(said)
            said = await stock.texts(len(said))


@needs_linux
async def test_a_server_that_was_killed_recovers_everybody(node_modules: Path, tmp_path: Path) -> None:
    """All of the above at once, over SIGKILL and a new start on the same directory."""
    many = [f"room {number}" for number in range(12)]
    async with house(node_modules, data=tmp_path) as h:
        fresh, stock, full = await h.stock(), await h.stock("a", "b", transports=["polling"]), await h.stock(*many)
        first = [await each.connects(1) for each in (fresh, stock, full)]
        await h.client.call(SHOW, "a", b"\x01", timeout=PATIENCE)
        await stock.program.hear("shown", 1)
        for room in many:
            await h.say(f"{room}: 1", room)
        await full.texts(len(many))
        await checkpoint(h, full)
        await stock.program.hear("ticked", 1)  # its last argument was a string
        for time in (1, 2):
            h.take_away()
            await h.say("everybody")
            await h.client.call(SHOW, "b", b"\x01", timeout=PATIENCE)
            for room in many:
                await h.say(f"{room}: 2", room)
            await h.server.restart()
            await h.say("everybody")
            h.let_back()
            for each, (sid, _) in zip((fresh, stock, full), first, strict=True):
                assert await each.connects(time + 1) == [sid, True]
        await h.say("the end")
        for each in (fresh, stock):
            await each.hears("said", *["everybody"] * 4, "the end")
        await stock.program.hear("shown", 3)
        heard = await full.texts(len(many) * 3 + 5)
        assert [text for text in heard if ":" not in text] == [*["everybody"] * 4, "the end"]
        for room in many:
            assert [text for text in heard if text.startswith(f"{room}:")] == [f"{room}: 1", *[f"{room}: 2"] * 2]


async def test_a_client_that_knows_no_recovery_goes_on_as_ever_and_sees_one_argument_more(node_modules: Path) -> None:
    async with house(node_modules) as h, new_client(reconnection_delay=0.1, randomization_factor=0) as other:
        heard: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        ids: asyncio.Queue[str] = asyncio.Queue()

        async def keep(*args: Any) -> None:
            await heard.put(args)

        async def connected() -> None:
            await ids.put(other.get_sid())

        async def asked() -> str:  # a question has no argument more
            return "answer"

        for event, handler in (("said", keep), ("shown", keep), ("connect", connected), ("asked", asked)):
            other.on(event, handler)
        stock = await h.stock()
        await other.connect(f"http://127.0.0.1:{h.proxy.port}", transports=["websocket"], wait_timeout=PATIENCE)
        async with asyncio.timeout(PATIENCE):
            first = await ids.get()
            answers: list[str] = await h.client.call(ASK, ROOM, timeout=PATIENCE)
            assert "answer" in answers
            await h.say("one")
            assert await heard.get() == ("one", (await stock.program.hear("said", 1))[0][1])
            await h.client.call(SHOW, ROOM, b"\x01", timeout=PATIENCE)
            assert (await heard.get())[:-1] == (b"\x01", "between", [b"\x01", b"\x01"])
            h.take_away()
            await h.say("missed")
            h.let_back()
            assert await ids.get() != first
            await h.say("two")
            text, offset = await heard.get()
            assert (text, type(offset)) == ("two", str)
        await stock.texts(3)


@asynccontextmanager
async def trouble(proxy: ChaosProxy, seed: int, every: float) -> AsyncIterator[None]:
    """Trouble all connections that there are, and those to come."""
    proxy.on_connect = schedule = Schedule(seed, every=every)
    for connection in proxy.connections.values():
        schedule(connection)
    try:
        yield
    finally:
        await schedule.calm()


async def every_note(h: House, seed: int, *, kill_every: int = COUNT) -> None:
    """Let three stock clients hear notes, with trouble for their connections, and kill the server now and then."""
    polls = ChaosProxy(h.server.port)  # each is a connection of its own, and a short one
    writing = python("writer", h.server.url, "--last", str(COUNT))
    async with polls:
        stocks = [await h.stock(), await h.stock(), await h.stock(proxy=polls, transports=["polling"])]
        async with trouble(h.proxy, seed, 0.6), trouble(polls, seed, 0.03), program(*writing) as writer:
            for note in range(kill_every, COUNT, kill_every):
                await stocks[0].program.hear("noted", note, WHOLE)
                await h.server.restart()
            await writer.hear("done", 1, WHOLE)
            for stock in stocks:
                await stock.program.hear("noted", COUNT, WHOLE)
        await h.say("the end")
        for stock in stocks:
            await stock.program.hear("said", 1)
    recovered = 0
    for stock in stocks:
        assert verdict([number for _, number, _ in stock.program.of("noted")], range(1, COUNT + 1)) == FINE
        (first, _), *others = stock.program.of("connect")
        assert others == [[first, True]] * len(others)
        recovered += len(others)
    assert recovered >= 6


@long
async def test_every_note_reaches_stock_clients_over_connections_that_break(node_modules: Path) -> None:
    async with house(node_modules, *HISTORY) as h:
        await every_note(h, 5)


@long
@needs_linux
async def test_every_note_reaches_stock_clients_over_servers_that_are_killed(
    node_modules: Path, tmp_path: Path
) -> None:
    async with house(node_modules, *HISTORY, data=tmp_path) as h:
        await every_note(h, 6, kill_every=500)
