"""The client when its connection breaks, or when it is too slow, against a real Bellwire server."""

import asyncio

import pytest

from bellwire import CallTimeout, ConnectRefused, Disconnected, Socket
from bellwire.client.client import Client
from tests.client.house import ASK, SAY, SECONDS, TICK, Heard, House
from tests.serving import serve

pytestmark = pytest.mark.bellwire(clock="real")


async def test_it_comes_back_and_what_was_emitted_meanwhile_follows() -> None:
    house, states = House(), Heard()
    async with serve(house.server) as url:
        client = Client(url)
        client.on_state(states)
        async with client:
            first = client.id
            call = asyncio.ensure_future(client.call(ASK, "hold", timeout=SECONDS))
            await house.asked.count(1)
            house.sockets[0]._connection.session.carrier.abort()
            await states.until(lambda told: told[-1] == "reconnecting")
            assert client.id is None
            await client.emit(TICK, 1)
            await client.emit(SAY, "one")
            kept = asyncio.ensure_future(client.call(ASK, "four", timeout=SECONDS))
            withdrawn = asyncio.ensure_future(client.call(ASK, "no", timeout=0))
            await client.emit(SAY, "two")
            with pytest.raises(CallTimeout):
                await withdrawn
            await states.until(lambda told: told[-1] == "connected")
            house.release.set()
            assert (await call, await kept) == (4, 4)
            assert house.asked.all == ["hold", "four"]
            assert await house.said.count(2) == ["one", "two"]
            assert states.all == ["connecting", "connected", "reconnecting", "connected"]
            assert client.id == house.sockets[1].id == first
        assert client.counters.get("dropped_total", kind="volatile", reason="disconnected", policy="oldest_kept") == 1


async def test_it_comes_back_to_a_server_that_was_started_again() -> None:
    states = Heard()
    async with serve(House().server) as url:
        port = int(url.rpartition(":")[2])
        client = Client(url)
        client.on_state(states)
        await client.__aenter__()
    await states.until(lambda told: told[-1] == "reconnecting")
    again, heard = House(), Heard()
    client.on(SAY)(heard)
    async with serve(again.server, port=port):
        await states.until(lambda told: told[-1] == "connected")
        await again.sockets[0].emit(SAY, "hello again")
        assert await heard.count(1) == ["hello again"]
        await client.disconnect()


@pytest.mark.bellwire(clock="real", uvloop=True)
async def test_it_comes_back_on_uvloop() -> None:
    house, heard = House(), Heard()
    async with serve(house.server) as url:
        client = Client(url)
        client.on(SAY)(heard)
        async with client:
            await house.sockets[0].emit(SAY, "one")
            await heard.count(1)
            house.sockets[0]._connection.session.carrier.abort()
            await house.joined.count(2)
            assert await client.call(ASK, "four", timeout=SECONDS) == 4
            await house.sockets[1].emit(SAY, "two")
            assert await heard.count(2) == ["one", "two"]


async def test_a_refusal_while_reconnecting_ends_the_client() -> None:
    house, states = House(), Heard()

    @house.root.on_connect
    async def once(socket: Socket) -> None:
        if len(house.sockets) > 1:
            raise ConnectRefused("once is enough")

    async with serve(house.server) as url:
        client = Client(url)
        client.on_state(states)
        async with client:
            house.sockets[0]._connection.session.carrier.abort()
            await states.until(lambda told: told[-1] == "reconnecting")
            await client.emit(SAY, "kept, and then dropped")
            await states.until(lambda told: told[-1] == "disconnected")
            with pytest.raises(Disconnected, match="connect_error") as gone:
                await client.emit(SAY, "x")
            assert str(gone.value.__cause__) == "once is enough"
        assert states.all == ["connecting", "connected", "reconnecting", "disconnected"]
        assert client.counters.get("dropped_total", kind="event", reason="disconnected", policy="at_most_once") == 1


async def test_an_answer_never_goes_to_another_connection() -> None:
    house, heard = House(), Heard()
    go_on = asyncio.Event()
    async with serve(house.server) as url:
        client = Client(url)

        @client.on(ASK)
        async def ask(question: str) -> int:
            heard(question)
            await go_on.wait()
            return 1

        async with client:
            asked = asyncio.ensure_future(house.sockets[0].call(ASK, "old", timeout=SECONDS))
            await heard.count(1)
            house.sockets[0]._connection.session.carrier.abort()
            with pytest.raises(Disconnected):
                await asked
            await house.joined.count(2)
            assert await client.call(ASK, "back?", timeout=SECONDS) == 5
            go_on.set()
            assert await house.sockets[1].call(ASK, "new", timeout=SECONDS) == 1
        reason = {"kind": "acknowledgement", "reason": "disconnected", "policy": "at_most_once"}
        assert client.counters.get("dropped_total", **reason) == 1


async def test_a_handler_that_is_slow_loses_nothing_and_holds_nothing_else_up() -> None:
    house, heard = House(history_messages=2_000), Heard()
    go_on = asyncio.Event()
    async with serve(house.server) as url:
        client = Client(url)

        @client.on(SAY)
        async def say(text: str) -> None:
            await go_on.wait()
            heard(int(text))

        async with client:
            for number in range(1_500):
                await house.sockets[0].emit(SAY, str(number))
            assert await client.call(ASK, "four", timeout=SECONDS) == 4
            assert heard.all == []
            go_on.set()
            assert await heard.count(1_500) == list(range(1_500))
        assert client.counters.get("resets_total") == 0
