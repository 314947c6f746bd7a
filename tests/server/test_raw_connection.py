"""What messages of bellwire.v1 mean, by how far the socket of their namespace has come."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from bellwire import Event, Server, Socket
from bellwire.delivery.naming import EVERYONE, stream_of
from bellwire.protocol.wire import JSON, PATH, CloseCode
from bellwire.testing.clock import advance
from bellwire.transports.base import Request
from tests.transports.pipe import Pipe

ALL = stream_of("/", EVERYONE)
SAY = Event("say", str)


class Raw:
    """A client of a server in this process."""

    def __init__(self, server: Server) -> None:
        self.pipe = Pipe()
        self._session = server.engine.open_raw(self.pipe, Request(path=PATH), JSON)

    async def say(self, *message: Any) -> None:
        self._session.received(self.pipe, msgspec.json.encode(message).decode())
        await advance()

    @property
    def heard(self) -> list[list[Any]]:
        return [msgspec.json.decode(part) for part in self.pipe.sent]

    def tags(self) -> list[str]:
        return [message[0] for message in self.heard]

    def opened(self) -> list[list[Any]]:
        return [message for message in self.heard if message[0] == "open"]


@asynccontextmanager
async def slow_to_admit() -> AsyncIterator[tuple[Raw, asyncio.Event]]:
    """A client that asked for a session in a namespace whose ``on_connect`` waits for the event."""
    server, admitted = Server(), asyncio.Event()

    @server.namespace("/").on_connect
    async def wait(socket: Socket) -> None:
        await admitted.wait()

    await server.start()
    client = Raw(server)
    await client.say("connect", "/", None, "instance")
    try:
        yield client, admitted
    finally:
        await server.close()


async def test_who_cannot_be_known_in_time_is_too_late() -> None:
    log: list[str] = []

    async def auth(request: Request, payload: Mapping[str, Any]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cut off")

    server = Server(auth=auth)
    server.namespace("/")
    async with server.lifespan():
        client = Raw(server)
        await client.say("connect", "/", {"token": "x"})
        await advance(14)
        assert (client.pipe.closed, log) == (None, [])
        await advance(2)
        assert (client.pipe.closed, log) == (CloseCode.LATE, ["cut off"])


@pytest.mark.parametrize("stream", [ALL, "unknown"])
async def test_an_ask_before_connected_is_answered_as_one_for_a_stream_that_is_not_there(stream: str) -> None:
    """The reader is there by then, and would begin from wherever the client says that it stands."""
    async with slow_to_admit() as (client, admitted):
        await client.say("ask", stream, "another", 7, 7)
        assert client.heard == [["close", stream, "truncated"]]
        admitted.set()
        await advance(1)
        assert client.tags().count("connected") == 1
        assert "reset" not in client.tags()


async def test_an_ask_of_one_that_is_connected_is_looked_at() -> None:
    async with slow_to_admit() as (client, admitted):
        admitted.set()
        await advance(1)
        await client.say("ask", ALL, "another", 7, 7)
        await advance(1)
        tag, stream, _, reason, *_ = client.heard[-1]
        assert (tag, stream, reason) == ("reset", ALL, "generation")


async def test_events_call_a_stream_what_it_was_opened_as_the_same_for_everybody() -> None:
    server = Server()
    root = server.namespace("/", emits=(SAY,))
    await server.start()
    clients = [Raw(server), Raw(server)]
    for number, client in enumerate(clients):
        await client.say("connect", "/", None, f"instance {number}")
    await root.emit(SAY, "hi")
    await advance()
    aliases = {stream: alias for client in clients for _, _, stream, alias, *_ in client.opened()}
    assert len(set(aliases.values())) == len(aliases) == 3  # everyone's, and one each
    for client in clients:
        assert client.heard[-1][:2] == ["s", aliases[ALL]]
    assert clients[0].pipe.sent[-1] is clients[1].pipe.sent[-1]
    await server.close()


def nested(levels: int) -> Any:
    payload: Any = 1
    for _ in range(levels):
        payload = [payload]
    return payload


@pytest.mark.parametrize("emitted", [2**70, nested(32)], ids=["too large a number", "too deep"])
async def test_a_volatile_event_that_its_wire_cannot_hold_is_the_handlers_error_and_nobody_elses(emitted: Any) -> None:
    server = Server()
    root = server.namespace("/")
    echo, mirrored = Event("echo"), Event("mirrored", Any, volatile=True)

    @root.on(echo)
    async def mirror(socket: Socket) -> None:
        await root.to("others").emit(SAY, "to the others")
        await socket.emit(mirrored, emitted)

    async with server.lifespan():
        client, other = Raw(server), Raw(server)
        for one in (client, other):
            await one.say("connect", "/")
        (*_, listener) = root._hubs["/"].sockets.values()
        await listener.join("others")
        await client.say("e", "/", "echo", [], 1)
        assert other.heard[-1] == ["e", "/", "say", ["to the others"]]
        assert client.heard[-1][3][0]["error"]["code"] == "internal"
        assert server.counters.get("handler_errors_total") == 1
