"""A server on a broker that others can reach, with clients who keep what they are told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bellwire import Client, Config, Event, Identity, Request, Server, Socket
from bellwire.brokers.urls import PREFIX
from tests.serving import serve

SAY = Event("say", str)
WAVE = Event("wave", int, volatile=True)
TIMEOUT = 20.0
"""Seconds for anything to arrive; a machine that runs many tests at once is slow."""


async def identify(request: Request, payload: object) -> Identity | None:
    return Identity(payload["user"]) if isinstance(payload, dict) and "user" in payload else None


class Ear:
    """A client that keeps what it hears, in order."""

    def __init__(self, client: Client) -> None:
        self.heard: list[object] = []
        self._client = client
        self._changed = asyncio.Event()
        client.on(SAY)(self.hear)
        client.on(WAVE)(self.hear)

    @property
    def id(self) -> str:
        """The socket's."""
        assert self._client.id is not None
        return self._client.id

    async def hear(self, what: object) -> None:
        self.heard.append(what)
        self._changed.set()

    async def until(self, *heard: object) -> None:
        """Wait until just this was heard, and forget it."""
        async with asyncio.timeout(TIMEOUT):
            while len(self.heard) < len(heard):
                self._changed.clear()
                await self._changed.wait()
        assert self.heard == list(heard)
        self.heard.clear()


class House:
    """A served server; clients join the rooms that they name."""

    def __init__(self, server: Server, url: str) -> None:
        self.server = server
        self.url = url

    @asynccontextmanager
    async def client(self, *rooms: str, user: str | None = None) -> AsyncIterator[Ear]:
        auth = {"rooms": list(rooms)} | ({} if user is None else {"user": user})
        client = Client(self.url, auth=auth)
        ear = Ear(client)
        async with client:
            yield ear


@asynccontextmanager
async def opened(broker: str, prefix: str = PREFIX) -> AsyncIterator[House]:
    server = Server(config=Config(broker=broker, prefix=prefix), auth=identify)
    root = server.namespace("/")
    server.namespace("/org/{org}")

    @root.on_connect
    async def joined(socket: Socket) -> None:
        for room in socket.auth["rooms"]:
            await socket.join(room)

    async with serve(server) as url:
        yield House(server, url)
