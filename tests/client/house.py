"""Events and waits that the tests of the client share."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from bellwire import Config, Event, EventRefused, Server, Socket
from bellwire.client.client import Client
from bellwire.client.session import State


class Draft(msgspec.Struct):
    text: str
    data: bytes = b""


SAY = Event("say", str)
PAIR = Event("pair", int, str)
POKE = Event("poke")
ASK = Event("ask", str, reply=int)
BLOB = Event("blob", Draft, reply=Draft)
TICK = Event("tick", int, volatile=True)

SECONDS = 10
"""For what has to happen on real sockets; far more than it takes."""


class Heard:
    """Collects what handlers are told, and waits for it."""

    def __init__(self) -> None:
        self.all: list[Any] = []
        self._more = asyncio.Event()

    def __call__(self, value: Any) -> None:
        self.all.append(value)
        self._more.set()

    async def until(self, enough: Callable[[list[Any]], bool]) -> list[Any]:
        async with asyncio.timeout(SECONDS):
            while not enough(self.all):
                self._more.clear()
                await self._more.wait()
        return self.all

    async def count(self, n: int) -> list[Any]:
        return await self.until(lambda values: len(values) >= n)


async def until_state(client: Client, state: State) -> None:
    """Wait for a state that comes from now on, or is there."""
    reached = asyncio.Event()

    def told(now: State) -> None:
        if now == state:
            reached.set()

    client.on_state(told)
    if client.state != state:
        async with asyncio.timeout(SECONDS):
            await reached.wait()


@asynccontextmanager
async def served_by(
    react: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any], *, context: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """A server of the test's own making, with one coroutine for each connection; gives its URL."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await react(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.ensure_future(serve(reader, writer)))

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class House:
    """A server with a handler for everything, and what it heard."""

    def __init__(self, **config: Any) -> None:
        self.server = Server(config=Config(shutdown_grace=0, **config))
        self.root = self.server.namespace("/")
        self.sockets: list[Socket] = []
        self.joined = Heard()
        self.said = Heard()
        self.left = Heard()
        self.asked = Heard()
        self.release = asyncio.Event()
        self.root.on_connect(self.connected)
        self.root.on_disconnect(self.disconnected)
        self.root.on(SAY)(self.say)
        self.root.on(PAIR)(self.pair)
        self.root.on(TICK)(self.tick)
        self.root.on(ASK)(self.ask)
        self.root.on(BLOB)(self.blob)

    async def connected(self, socket: Socket) -> None:
        self.sockets.append(socket)
        self.joined(socket.id)

    async def disconnected(self, socket: Socket, reason: str) -> None:
        self.left(reason)

    async def say(self, socket: Socket, text: str) -> None:
        self.said(text)

    async def pair(self, socket: Socket, number: int, text: str) -> None:
        self.said((number, text))

    async def tick(self, socket: Socket, number: int) -> None:
        self.said(number)

    async def ask(self, socket: Socket, question: str) -> int:
        self.asked(question)
        if question == "never":
            await asyncio.Event().wait()
        if question == "hold":
            await self.release.wait()
        if question == "no":
            raise EventRefused("no", "not this one", path="$", retry_after=2.0)
        return len(question)

    async def blob(self, socket: Socket, draft: Draft) -> Draft:
        return Draft(draft.text.upper(), draft.data[::-1])
