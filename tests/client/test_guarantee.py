"""Once and in order, or told so: the client against a real server, over a network that breaks, on both wires."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from bellwire import (
    CallTimeout,
    ConnectRefused,
    Disconnected,
    Event,
    EventRefused,
    MessageTooLarge,
    Socket,
)
from bellwire.client.backoff import Backoff
from bellwire.client.client import Client
from bellwire.client.journal import OutboxInUse
from bellwire.client.reports import DeadLetter, Failed, Reset
from tests.chaos.proxy import ChaosProxy, Connection
from tests.client.house import ASK, BLOB, SAY, SECONDS, TICK, Draft, Heard, House, until_state
from tests.serving import serve

pytestmark = [pytest.mark.bellwire(clock="real"), pytest.mark.timeout(120)]

NEWS = Event("news", int)
COUNT = Event("count", int)

WIRES = pytest.mark.parametrize("wire", ["http", "ws"])


class Quick(Backoff):
    """Clients that come back at once: the wait is tested elsewhere."""

    @override
    def next(self) -> float:
        return min(0.02, super().next())


class Club(House):
    """A house with a room that everybody is in, and events that are counted."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.counted = Heard()
        self.recovered = Heard()
        self.root.on(COUNT)(self.count)

    @override
    async def connected(self, socket: Socket) -> None:
        await super().connected(socket)
        self.recovered(socket.recovered)
        if not socket.recovered:
            await socket.join("club")

    async def count(self, socket: Socket, number: int) -> None:
        self.counted(number)

    async def tell(self, *numbers: int) -> None:
        for number in numbers:
            await self.root.to("club").emit(NEWS, number)


def at(url: str, wire: str, **options: Any) -> Client:
    """A client of the server at ``url``, on one wire or the other."""
    client = Client(url if wire == "http" else f"ws{url[4:]}/bellwire", **options)
    client._session._backoff = Quick()
    return client


@asynccontextmanager
async def behind(url: str, **options: Any) -> AsyncIterator[tuple[ChaosProxy, str]]:
    async with ChaosProxy(int(url.rpartition(":")[2]), **options) as proxy:
        yield proxy, f"http://127.0.0.1:{proxy.port}"


@WIRES
@pytest.mark.parametrize("seed", [1, 2])
async def test_over_connections_that_are_cut_anywhere(wire: str, seed: int) -> None:
    draw = random.Random(seed)
    house, news, resets, failed = Club(), Heard(), Heard(), Heard()

    def trouble(connection: Connection) -> None:
        connection.cut(draw.choice(["up", "down"]), draw.randint(600, 4_000))

    async with serve(house.server) as url, behind(url, on_connect=trouble) as (proxy, through):
        client = at(through, wire)
        client.on(NEWS)(news)
        client.on_reset(resets)
        client.on_failed(failed)
        async with client:
            replies = []
            for number in range(300):
                await client.emit(COUNT, number)
                await house.tell(number)
                if number % 30 == 0:
                    replies.append(await client.call(ASK, "x" * number, timeout=SECONDS))
            assert await house.counted.count(300) == list(range(300))
            assert await news.count(300) == list(range(300))
            assert replies == list(range(0, 300, 30))
        assert proxy.faults["cut"] >= 3
    assert (resets.all, failed.all) == ([], [])
    assert len(house.asked.all) == len(replies)
    assert client.counters.get("dead_letters_total") == 0


@WIRES
@pytest.mark.parametrize("native", [True, False])
async def test_every_kind_of_event(wire: str, native: bool) -> None:
    house, heard = Club(), Heard()
    async with serve(house.server, native=native) as url:
        client = at(url, wire)
        client.on(NEWS)(heard)
        client.on(TICK)(heard)

        @client.on(BLOB)
        def blob(draft: Draft) -> Draft:
            heard(draft)
            return draft

        @client.on(ASK)
        def ask(text: str) -> int:
            heard(text)
            return len(text)

        async with client:
            (socket,) = house.sockets
            await house.root.to("club").emit(BLOB, Draft("a room's", b"\0\xff"))
            await socket.emit(NEWS, 1)
            assert await socket.call(ASK, "after it", timeout=SECONDS) == 8
            assert await socket.call(BLOB, Draft("asked", b"\1"), timeout=SECONDS) == Draft("asked", b"\1")
            assert sorted(map(str, heard.all)) == sorted(
                map(str, [Draft("a room's", b"\0\xff"), 1, "after it", Draft("asked", b"\1")])
            )
            assert heard.all.index(1) < heard.all.index("after it")
            await house.root.to("club").emit(TICK, 7)
            await heard.until(lambda told: 7 in told)
            await client.emit(TICK, 8)
            assert await house.said.count(1) == [8]
            assert await client.call(BLOB, Draft("x", b"\2\1"), timeout=SECONDS) == Draft("X", b"\1\2")
            with pytest.raises(EventRefused, match="not this one"):
                await client.call(ASK, "no", timeout=SECONDS)


@pytest.mark.parametrize(("wire", "limit"), [("http", 1_000_000), ("ws", 65_536)])
async def test_a_message_that_is_too_large_is_the_emitters_error(wire: str, limit: int) -> None:
    house = Club()
    async with serve(house.server) as url, at(url, wire) as client:
        with pytest.raises(MessageTooLarge, match=f"the server takes {limit}"):
            await client.emit(SAY, "x" * limit)
        await client.emit(SAY, "x" * (limit - 700))
        assert [len(text) for text in await house.said.count(1)] == [limit - 700]
        assert client.state == "connected"


@WIRES
async def test_who_is_turned_away_is_told(wire: str) -> None:
    house = Club()
    private = house.server.namespace("/private")

    @private.on_connect
    async def refuse(socket: Socket) -> None:
        raise ConnectRefused("members only", {"token": socket.auth.get("token")})

    async with serve(house.server) as url:
        with pytest.raises(ConnectRefused, match="members only") as refused:
            async with at(url, wire, namespace="/private", auth={"token": "x"}):
                raise AssertionError
        assert refused.value.data == {"token": "x"}
        with pytest.raises(ConnectRefused, match="Invalid namespace"):
            async with at(url, wire, namespace="/nowhere"):
                raise AssertionError


@WIRES
async def test_who_is_sent_away_does_not_come_back(wire: str) -> None:
    house = Club()
    async with serve(house.server) as url, at(url, wire) as client:
        await house.sockets[0].disconnect()
        await until_state(client, "disconnected")
        with pytest.raises(Disconnected, match="io server disconnect"):
            await client.emit(SAY, "x")
    assert len(house.sockets) == 1


@WIRES
async def test_a_connection_that_only_the_server_believes_in_is_replaced(wire: str) -> None:
    house, news = Club(), Heard()
    async with serve(house.server) as url, behind(url) as (proxy, through):
        client = at(through, wire)
        client.on(NEWS)(news)
        async with client:
            await house.tell(0)
            await news.count(1)
            connection = await proxy.connection(0)
            connection.half_open("server")
            await house.tell(1, 2)
            await until_state(client, "connected")
            call = client.call(ASK, "four", timeout=SECONDS)
            assert await call == 4
            await house.tell(3)
            assert await news.count(4) == [0, 1, 2, 3]


@WIRES
async def test_what_the_history_does_not_hold_is_a_reset_before_anything_newer(wire: str) -> None:
    house, news = Club(history_messages=5), Heard()
    async with serve(house.server) as url, behind(url) as (proxy, through):
        client = at(through, wire)
        client.on(NEWS)(news)

        @client.on_reset
        async def missed(reset: Reset) -> None:
            await asyncio.sleep(0.05)
            news(reset.reason)

        async with client:
            await house.tell(0)
            await news.count(1)
            proxy.admission = "reset"
            (await proxy.connection(0)).reset()
            await until_state(client, "reconnecting")
            await house.tell(*range(1, 21))
            proxy.admission = "pass"
            told = await news.until(lambda told: 20 in told)
            await house.tell(21)
            told = await news.until(lambda told: 21 in told)
            assert told[:2] == [0, "truncated"]
            assert told[2:] == list(range(told[2], 22))
            assert told[2] > 1


@WIRES
async def test_a_server_that_was_started_again_without_its_memory_says_so(wire: str) -> None:
    news, resets, failed = Heard(), Heard(), Heard()
    async with serve(Club().server) as url:
        port = int(url.rpartition(":")[2])
        client = at(url, wire)
        client.on(NEWS)(news)
        client.on_reset(resets)
        client.on_failed(failed)
        await client.__aenter__()
        await client.call(ASK, "x", timeout=SECONDS)
    await until_state(client, "reconnecting")
    await client.emit(COUNT, 1)
    with pytest.raises(CallTimeout):
        await client.call(ASK, "while it is away", timeout=0.05)
    house = Club()
    async with serve(house.server, port=port):
        await until_state(client, "connected")
        await client.emit(COUNT, 2)
        assert await house.counted.count(2) == [1, 2]
        await resets.count(1)
        await house.tell(1)
        assert await news.count(1) == [1]
        assert await client.call(ASK, "four", timeout=SECONDS) == 4
        await client.disconnect()
    assert house.recovered.all == [False]
    assert failed.all == []


@WIRES
async def test_a_refused_emit_is_told(wire: str) -> None:
    house, failed = Club(), Heard()
    async with serve(house.server) as url:
        client = at(url, wire)
        client.on_failed(failed)
        async with client:
            await client.emit(ASK, "no")
            await client.emit(Event("unknown"))
            first, second = await failed.count(2)
            assert isinstance(first, Failed)
            assert (first.event, str(first.error)) == ("ask", "no: not this one - at `$`")
            assert isinstance(second.error, EventRefused)
            assert second.error.code == "unknown_event"


@WIRES
async def test_a_handler_that_fails_gets_it_again_and_then_it_is_a_dead_letter(wire: str) -> None:
    house, news, letters = Club(), Heard(), Heard()
    async with serve(house.server) as url:
        client = at(url, wire)
        client.on_dead_letter(letters)

        @client.on(NEWS)
        async def read(number: int) -> None:
            news(number)
            if number == 2 or (number == 1 and len(news.all) < 2):
                raise ValueError(number)

        async with client:
            await house.tell(1, 2, 3)
            assert await news.until(lambda told: 3 in told) == [1, 1, 2, 2, 2, 3]
            (letter,) = await letters.count(1)
            assert isinstance(letter, DeadLetter)
            assert (letter.event, letter.payload, repr(letter.error)) == ("news", (2,), "ValueError(2)")


# --- outboxes that outlive the program


@WIRES
async def test_the_next_program_sends_what_is_left_and_hears_what_was_missed(wire: str, tmp_path: Path) -> None:
    house, outbox = Club(), tmp_path / "outbox"
    async with serve(house.server) as url, behind(url) as (proxy, through):
        first, news = at(through, wire, outbox=outbox), Heard()
        first.on(NEWS)(news)
        async with first:
            await first.emit(COUNT, 1)
            await house.tell(1)
            await news.count(1)
            await house.counted.count(1)
            proxy.admission = "reset"
            (await proxy.connection(0)).reset()
            await until_state(first, "reconnecting")
            await first.emit(COUNT, 2)
            await first.emit(COUNT, 3)
            await house.tell(2, 3)
        assert first.counters.get("dropped_total", kind="event", reason="disconnected", policy="at_most_once") == 0
        await house.tell(4)
        proxy.admission = "pass"
        second, later, resets = at(through, wire, outbox=str(outbox)), Heard(), Heard()
        second.on(NEWS)(later)
        second.on_reset(resets)
        async with second:
            await second.emit(COUNT, 4)
            assert await house.counted.count(4) == [1, 2, 3, 4]
            assert await later.count(3) == [2, 3, 4]
            assert second.id == first.id or house.recovered.all[-1]
        await house.tell(5)
        third, rest = at(through, wire, outbox=outbox), Heard()
        third.on(NEWS)(rest)
        async with third:
            assert await rest.count(1) == [5]
            await third.disconnect()  # this one means it
        await house.tell(6)
        fourth, nothing = at(through, wire, outbox=outbox), Heard()
        fourth.on(NEWS)(nothing)
        async with fourth:
            await house.tell(7)
            assert await nothing.count(1) == [7]
    assert resets.all == []
    assert house.recovered.all == [False, True, True, False]


@WIRES
async def test_what_was_not_handled_comes_again_in_the_next_program(wire: str, tmp_path: Path) -> None:
    house, outbox = Club(), tmp_path / "outbox"
    async with serve(house.server) as url:
        first, begun = at(url, wire, outbox=outbox), Heard()

        @first.on(NEWS)
        async def stuck(number: int) -> None:
            begun(number)
            if number == 2:
                await asyncio.Event().wait()

        async with first:
            await house.tell(1, 2, 3)
            assert await begun.count(2) == [1, 2]
        second, news = at(url, wire, outbox=outbox), Heard()
        second.on(NEWS)(news)
        async with second:
            assert await news.count(2) == [2, 3]
    assert first.counters.get("dropped_total", kind="event", reason="client_closed", policy="at_most_once") == 0


@WIRES
async def test_an_outbox_has_one_client_at_a_time(wire: str, tmp_path: Path) -> None:
    house, outbox = Club(), tmp_path / "outbox"
    async with serve(house.server) as url:
        async with at(url, wire, outbox=outbox):
            with pytest.raises(OutboxInUse, match="another client uses the outbox"):
                async with at(url, wire, outbox=outbox):
                    raise AssertionError
        async with at(url, wire, outbox=outbox) as client:
            await client.emit(COUNT, 1)
            await house.counted.count(1)


PROGRAM = """
import asyncio, sys
from bellwire import Client, Event

COUNT = Event("count", int)

async def main(url, outbox):
    async with Client(url, outbox=outbox) as client:
        number = client._entered.journal.state.last
        while True:
            number += 1
            await client.emit(COUNT, number)

asyncio.run(main(*sys.argv[1:]))
"""


@WIRES
async def test_a_program_that_is_killed_over_and_over_loses_and_doubles_nothing(wire: str, tmp_path: Path) -> None:
    house = Club()
    loop = asyncio.get_running_loop()
    script = tmp_path / "program.py"
    await loop.run_in_executor(None, script.write_text, PROGRAM)
    async with serve(house.server) as url:
        address = url if wire == "http" else f"ws{url[4:]}/bellwire"
        for _ in range(4):
            before = len(house.counted.all)
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(script), address, str(tmp_path / "outbox")
            )
            await house.counted.count(before + 40)
            process.kill()
            await process.wait()
        client = at(url, wire, outbox=tmp_path / "outbox")
        async with client:
            assert client._entered is not None
            last = client._entered.journal.state.last
            assert await house.counted.count(last) == list(range(1, last + 1))
    assert last >= 160
