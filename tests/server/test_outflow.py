"""What clients make the server send: rooms that take so much, and clients that pay for their recipients."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from bellwire import Config, Event, EventRefused, Namespace, RateLimited, Server, Socket
from bellwire.testing import TestClient, connect
from bellwire.testing.clock import advance
from tests.server.house import SAY, WAVE

SPEAK = Event("speak", str, str)
WAVE_AT = Event("wave-at", str)
LATER = Event("later", str)
ALL = Event("all", str)


def make(effect: str = "at_most_once", **settings: Any) -> tuple[Server, Namespace]:
    server = Server(config=Config(**settings))
    root = server.namespace("/")

    @root.on_connect
    async def connected(socket: Socket) -> None:
        await socket.join("hall")

    @root.on(SPEAK, effect=effect)  # type: ignore[arg-type]
    async def speak(socket: Socket, room: str, text: str) -> None:
        await root.to(room).emit(SAY, text)

    @root.on(WAVE_AT)
    async def wave(socket: Socket, room: str) -> None:
        await root.to(room).emit(WAVE, 1)

    @root.on(ALL)
    async def tell_all(socket: Socket, text: str) -> None:
        await root.emit(SAY, text)

    return server, root


async def refused(client: TestClient, event: Event[Any, *tuple[Any, ...]], *payload: Any) -> EventRefused:
    with pytest.raises(EventRefused) as caught:
        await client.call(event, *payload)
    return caught.value


@pytest.mark.parametrize("effect", ["at_most_once", "relay"])
async def test_a_room_takes_so_much_whoever_sends_it(effect: str) -> None:
    server, _ = make(effect, room_rate="3/s")
    async with connect(server) as one, connect(server) as other:
        for client in (one, other, one):
            await client.call(SPEAK, "hall", "x")
        error = await refused(other, SPEAK, "hall", "y")
        assert error.code == "rate_limited"
        assert error.retry_after == pytest.approx(1 / 3, abs=0.001)
        await other.call(SPEAK, "elsewhere", "z")
        await advance(error.retry_after or 0)
        await other.call(SPEAK, "hall", "y")
        assert [await one.receive(SAY) for _ in range(4)] == ["x", "x", "x", "y"]
        await one.receive_nothing()
    assert server.counters.get("rate_limited_total", limit="room_rate") == 1


async def test_the_namespace_is_a_room_and_a_socket_is_none() -> None:
    server, _ = make(room_rate="1/h")
    async with connect(server) as client:
        for _ in range(5):
            await client.call(SPEAK, client.id, "x")
        await client.call(ALL, "x")
        await refused(client, ALL, "x")


async def test_volatile_events_are_dropped() -> None:
    server, _ = make(room_rate="1/h")
    async with connect(server) as client:
        for _ in range(3):
            await client.call(WAVE_AT, "hall")
        assert await client.receive(WAVE) == 1
        await client.receive_nothing()
    assert server.counters.get("dropped_total", kind="volatile", reason="rate_limited", policy="room_rate") == 2


async def test_a_handler_may_catch_it() -> None:
    server, root = make(room_rate="1/h")
    ask = Event("ask", reply=float)

    @root.on(ask)
    async def handle(socket: Socket) -> float:
        await root.to("hall").emit(SAY, "x")
        try:
            await root.to("hall", "other").emit(SAY, "x")
        except RateLimited as error:
            await root.to("other").emit(SAY, "the other room has lost no token")
            return error.retry_after or 0
        return 0

    async with connect(server) as client:
        assert await client.call(ask) == 3600


async def test_what_a_handlers_task_emits_counts_and_what_the_application_does_not() -> None:
    server, root = make(room_rate="1/h")
    errors: list[BaseException] = []

    @root.on(LATER)
    async def later(socket: Socket, room: str) -> None:
        async def emit() -> None:
            await asyncio.sleep(1)
            try:
                await root.to(room).emit(SAY, "later")
            except RateLimited as error:
                errors.append(error)

        task = asyncio.create_task(emit())
        task.add_done_callback(lambda _: None)

    async with connect(server) as client:
        await client.call(LATER, "hall")
        await client.call(LATER, "hall")
        await advance(2)
        for _ in range(5):
            await root.to("hall").emit(SAY, "ours")
    assert len(errors) == 1


async def test_a_client_pays_for_its_recipients() -> None:
    server, _ = make(message_rate="10/s", recipients_per_token=2)
    async with connect(server) as client, connect(server), connect(server), connect(server):
        await client.call(SPEAK, "hall", "x")  # 1, and 4 recipients: 2
        await client.call(SPEAK, "hall", "x")
        await client.call(SPEAK, "hall", "x")
        await client.call(SPEAK, "hall", "x")  # the last one, on credit
        assert (await refused(client, SPEAK, "empty", "x")).retry_after == 0.3
        await advance(0.3)
        await client.call(SPEAK, "empty", "x")
        await advance(1)
        await client.call(ALL, "x")
    assert server.counters.get("rate_limited_total", limit="message_rate") == 1


async def test_one_client_in_a_large_room_makes_no_more_of_it() -> None:
    server, _ = make(message_rate="10/s", refusal_rate="off", recipients_per_token=5)
    async with connect(server) as client, AsyncExitStack() as stack:
        for _ in range(19):
            listener = await stack.enter_async_context(connect(server))
        for _ in range(1_000):
            await client.emit(SPEAK, "hall", "x")
            await advance(0.01)
        deliveries = 20 * len(listener._events)
    tokens = 10 + 10 * 10
    assert 0.9 * tokens * 4 < deliveries <= (tokens + 5) * 4  # each event takes 1 token, and 4 for 20 recipients


async def test_without_limits_nothing_looks() -> None:
    server, root = make()
    async with connect(server):
        assert root.runtime.outflow is None
