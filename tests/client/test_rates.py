"""The client at a server that limits how often it may send: later, and in order, on both wires."""

import asyncio
import random

import pytest

from bellwire import Event, Server, Socket
from bellwire.core.config import Config
from tests.chaos.proxy import Connection
from tests.client.house import SECONDS, Heard
from tests.client.test_guarantee import at, behind
from tests.serving import serve

pytestmark = pytest.mark.bellwire(clock="real")

COUNT = Event("count", int, reply=int)
RARE = Event("rare", int, reply=int, rate="10/s")

WIRES = pytest.mark.parametrize("scheme", ["http", "ws"])


def make(**settings: object) -> tuple[Server, Heard]:
    server, heard = Server(config=Config(shutdown_grace=0, **settings)), Heard()  # type: ignore[arg-type]
    root = server.namespace("/")

    @root.on(COUNT)
    async def count(socket: Socket, number: int) -> int:
        heard(number)
        return number

    @root.on(RARE)
    async def rare(socket: Socket, number: int) -> int:
        heard(number)
        return number

    return server, heard


@WIRES
async def test_what_is_emitted_faster_than_allowed_arrives_later_and_in_order(scheme: str) -> None:
    server, heard = make(message_rate="100/s", refusal_rate="1/h")
    async with serve(server) as url, at(url, scheme) as client:
        began = asyncio.get_running_loop().time()
        for number in range(150):
            await client.emit(COUNT, number)
        assert await heard.count(150) == list(range(150))
        assert asyncio.get_running_loop().time() - began > 0.45
        assert client.counters.get("emits_failed_total") == 0
    assert server.counters.get("rate_limited_total", limit="message_rate") > 0
    assert server.counters.get("sessions_closed_total", reason="rate_limited") == 0
    assert server.counters.get("events_refused_total") == 0


@WIRES
async def test_those_behind_an_event_with_a_rate_wait_for_it(scheme: str) -> None:
    server, heard = make(refusal_rate="1/h")
    async with serve(server) as url, at(url, scheme) as client:
        calls = [client.call(RARE if number % 2 else COUNT, number, timeout=SECONDS) for number in range(30)]
        assert await asyncio.gather(*calls) == list(range(30))
        assert heard.all == list(range(30))
    assert server.counters.get("rate_limited_total", limit="event") > 0
    assert server.counters.get("sessions_closed_total", reason="rate_limited") == 0


@WIRES
async def test_a_call_that_is_given_up_while_it_waits_had_no_effect(scheme: str) -> None:
    server, heard = make(message_rate="2/h")
    async with serve(server) as url, at(url, scheme) as client:
        for number in range(2):
            await client.call(COUNT, number, timeout=SECONDS)
        with pytest.raises(TimeoutError, match="could not be sent"):
            await client.call(COUNT, 2, timeout=0.2)
        assert heard.all == [0, 1]


@WIRES
async def test_one_that_was_given_up_holds_back_nobody(scheme: str) -> None:
    server, heard = make()
    async with serve(server) as url, at(url, scheme) as client:
        for number in range(10):
            await client.call(RARE, number, timeout=SECONDS)
        with pytest.raises(TimeoutError):
            await client.call(RARE, 10, timeout=0.02)
        assert await client.call(COUNT, 11, timeout=SECONDS) == 11
        assert heard.all == [*range(10), 11]


@WIRES
async def test_over_connections_that_are_cut_while_events_wait(scheme: str) -> None:
    draw = random.Random(7)
    server, heard = make(message_rate="40/s", refusal_rate="1/h")

    def trouble(connection: Connection) -> None:
        connection.cut(draw.choice(["up", "down"]), draw.randint(1_500, 4_000))

    async with serve(server) as url, behind(url, on_connect=trouble) as (proxy, through), at(through, scheme) as client:
        for number in range(200):
            await client.emit(COUNT, number)
        assert await heard.count(200) == list(range(200))
        assert client.counters.get("emits_failed_total") == 0
        assert proxy.faults["cut"] > 1
    assert server.counters.get("rate_limited_total", limit="message_rate") > 0
