"""Numbered events that come too early: turned away to come again, and what becomes of clients that do not wait."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bellwire import Config, Event, Server, Socket
from bellwire.delivery.inbox import WINDOW
from bellwire.testing.clock import advance
from tests.server.test_raw_connection import Raw

PRODUCER = "0123456789abcdef" * 2
RARE = Event("rare", int, rate="10/s")


@asynccontextmanager
async def numbering(**settings: Any) -> AsyncIterator[tuple[Raw, list[int]]]:
    """A connected client that numbers its events, and what was handled of them."""
    server, handled = Server(config=Config(**settings)), []

    @server.namespace("/").on(RARE)
    async def rare(socket: Socket, number: int) -> None:
        handled.append(number)

    async with server.lifespan():
        client = Raw(server)
        await client.say("connect", "/", None, "instance", PRODUCER)
        yield client, handled


async def send(client: Raw, *numbers: int) -> None:
    for number in numbers:
        await client.say("n", "/", number, "rare", [number])


def answers(client: Raw) -> list[list[Any]]:
    """What came on the events that were sent since this was asked last."""
    found = [message for message in client.heard if message[0] in ("n", "nack", "skipped")]
    client.pipe.sent.clear()
    return found


async def used_up(client: Raw) -> None:
    await send(client, *range(1, 11))
    assert answers(client) == [["n", "/", number, []] for number in range(1, 11)]


async def test_a_refused_event_does_not_take_its_number_and_those_behind_it_wait() -> None:
    async with numbering() as (client, handled):
        await used_up(client)
        await send(client, 11, 12, 13)
        assert answers(client) == [
            ["nack", "/", 11, 11, None, 0.1],
            ["nack", "/", 12, 11, None, 0.2],
            ["nack", "/", 13, 11, None, 0.3],
        ]
        await advance(0.3)
        await send(client, 11, 12, 13)
        assert answers(client) == [["n", "/", number, []] for number in (11, 12, 13)]
        assert handled == list(range(1, 14))


async def test_those_behind_it_wait_though_tokens_have_come_meanwhile() -> None:
    async with numbering() as (client, handled):
        await used_up(client)
        await send(client, 11)
        await advance(5)
        await send(client, 12)
        assert [answer[:4] for answer in answers(client)] == [["nack", "/", 11, 11], ["nack", "/", 12, 11]]
        assert handled == list(range(1, 11))


async def test_an_event_that_is_skipped_holds_back_nobody() -> None:
    async with numbering() as (client, handled):
        await used_up(client)
        await send(client, 11)
        await advance(1)
        await client.say("skip", "/", 11, 11)
        await send(client, 12)
        assert answers(client)[1:] == [["skipped", "/", 11], ["n", "/", 12, []]]
        assert handled == [*range(1, 11), 12]


async def test_a_client_that_waits_is_never_closed() -> None:
    async with numbering(refusal_rate="1/h") as (client, handled):
        next_ = 1
        while next_ < 500:
            await send(client, *range(next_, next_ + WINDOW))
            said = answers(client)
            next_ += sum(answer[0] == "n" for answer in said)
            await advance(max((answer[5] for answer in said if answer[0] == "nack"), default=0.0))
        assert client.pipe.closed is None
        assert handled == list(range(1, next_))


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("the same again", [11] * 20),
        ("those behind it again", [11, *[12] * 20]),
        ("more than can be under way", [11, *range(12 + WINDOW, 42 + WINDOW)]),
        ("ever lower ones", list(range(100, 60, -1))),
    ],
)
async def test_one_that_does_not_is_closed(name: str, numbers: list[int]) -> None:
    async with numbering(refusal_rate="10/h") as (client, handled):
        await used_up(client)
        for number in numbers:
            if client.pipe.closed is None:
                await send(client, number)
        assert client.pipe.closed == 4004, name
        assert handled == list(range(1, 11))


async def test_skips_are_served_and_count() -> None:
    async with numbering(message_rate="20/s", refusal_rate="10/h") as (client, _):
        for number in range(1, 100):
            if client.pipe.closed is None:
                await client.say("skip", "/", number, number)
        assert client.pipe.closed == 4004
        assert len(answers(client)) == 30
