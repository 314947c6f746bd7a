"""Whatever names and numbers a client thinks up, nothing of it stays, and no counter is named after it."""

import gc
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bellwire import Config, Event, Namespace, RoomLimit, Server, Socket
from bellwire.testing.clock import advance
from bellwire.transports.base import Request
from bellwire.transports.session import Session
from tests.server.house import POKE
from tests.transports.pipe import Pipe

MANY = 100_000
ROOM = Event("room", str)


class Client:
    """A client that says what it likes, and forgets what it is told."""

    def __init__(self, server: Server) -> None:
        self.pipe = Pipe()
        self._session: Session = server.engine.open(self.pipe, Request(path="/socket.io/"))
        self.say("40")

    def say(self, packet: str) -> None:
        self._session.received(self.pipe, packet)
        self.pipe.sent.clear()


@asynccontextmanager
async def house(**settings: Any) -> AsyncIterator[tuple[Server, Namespace, Client]]:
    server = Server(config=Config(message_rate="off", **settings))
    root = server.namespace("/")
    server.namespace("/team/{name}")

    @root.on(POKE)
    async def poke(socket: Socket) -> None:
        pass

    async with server.lifespan():
        client = Client(server)
        await advance()
        yield server, root, client


def blocks() -> int:
    """How many pieces of memory Python has given out."""
    gc.collect()
    return sys.getallocatedblocks()


def left_by(names: Callable[[int], str], client: Client, count: int = MANY) -> int:
    """How many pieces of memory are left behind by so many messages, beyond what a thousand of them leave."""
    for number in range(1_000):
        client.say(names(number))
    before = blocks()
    for number in range(1_000, 1_000 + count):
        client.say(names(number))
    return blocks() - before


@pytest.mark.parametrize(
    ("names", "refused"),
    [
        (lambda number: f'42["__class__{number}",1]', "events_refused_total"),
        (lambda number: f"40/unknown{number},", "connects_refused_total"),
    ],
    ids=["events", "namespaces"],
)
async def test_a_hundred_thousand_unknown_names_leave_nothing(names: Callable[[int], str], refused: str) -> None:
    async with house() as (server, root, client):
        client.say(names(0))
        series = len(server.counters.snapshot())
        assert left_by(names, client) < 500
        assert len(server.counters.snapshot()) == series
        assert sum(n for name, n in server.counters.snapshot().items() if name.startswith(refused)) > MANY
        assert list(root._hubs) == ["/"]
        assert client.pipe.closed is None


async def test_acknowledgements_of_all_kinds_leave_nothing() -> None:
    async with house() as (server, _, client):
        assert left_by(lambda number: f"43{number}[{number}]", client) < 500
        for wrong in ("43-1[]", "43[]", f"43{10**15}[]", f"43{'9' * 100}[]"):
            other = Client(server)
            await advance()
            other.say(wrong)
            assert other.pipe.closed is not None or wrong == "43[]", wrong
        assert client.pipe.closed is None


async def test_namespaces_of_a_pattern_are_bounded_and_leave_nothing() -> None:
    async with house() as (server, _, client):
        for number in range(300):
            client.say(f"40/team/{number},")
        await advance()
        team = server.namespaces["/team/{name}"]
        assert len(team._hubs) == 127  # and the root makes 128
        for number in range(127):
            client.say(f"41/team/{number},")
        await advance(1)
        assert team._hubs == {}


async def test_rooms_that_clients_name_are_bounded_and_leave_nothing() -> None:
    async with house(rooms_per_socket=5) as (_, root, client):
        limited = 0

        @root.on(ROOM)
        async def room(socket: Socket, name: str) -> None:
            nonlocal limited
            try:
                await socket.join(name)
            except RoomLimit:
                limited += 1
                await socket.leave(next(iter(socket.rooms)))

        def join(number: int) -> str:
            return f'42["room","room {number}"]'

        assert left_by(join, client, 5_000) < 500
        client.say(f'42["room","{"x" * 256}"]')
        assert limited >= 2_500
        assert len(root.hub("/").rooms) <= 5


@pytest.mark.parametrize("size", [129, 1_000_000 - 10])
async def test_an_event_with_a_long_name_reaches_no_handler(size: int) -> None:
    async with house() as (server, root, client):
        seen: list[str] = []

        @root.on_any
        async def any_event(socket: Socket, name: str, *args: object) -> None:
            seen.append(name)

        client.say(f'42["{"x" * size}"]')
        client.say(f'42["{"x" * 128}"]')
        await advance()
        assert [len(name) for name in seen] == [128]
        assert server.counters.get("events_refused_total") == 1
        assert client.pipe.closed is None
