"""What messages of bellwire.v1 mean, by how far the socket of their namespace has come."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from bellwire import Server, Socket
from bellwire.delivery.naming import EVERYONE, stream_of
from bellwire.protocol.wire import JSON, PATH
from bellwire.testing.clock import advance
from bellwire.transports.base import Request
from tests.transports.pipe import Pipe

ALL = stream_of("/", EVERYONE)


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
        assert client.heard[-1][:3] == ["reset", ALL, "generation"]
