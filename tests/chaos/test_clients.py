"""Bellwire's own client under trouble: every note reaches everybody once and in order, and nobody is told of a reset.

Server, proxy, writer and listeners are processes of their own. Every connection is reset, stalled, cut in the middle of
a frame or half-opened every second or so (`schedule`), and on top of that servers and programs are killed.
``BELLWIRE_CHAOS=long`` makes ten times as many notes of it.
"""

import itertools
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.chaos.program import SCALE, Program, ProxyProgram, ServerProgram, program, python, serving, troubling
from tests.chaos.verdict import COUNT, FINE, HISTORY, WHOLE, verdict

pytestmark = [pytest.mark.bellwire(clock="real"), pytest.mark.timeout(60 * SCALE)]


class Stage:
    """A server, a proxy in front of it, and listeners and writers behind that."""

    def __init__(self, server: ServerProgram, proxy: ProxyProgram, stack: AsyncExitStack) -> None:
        self.server = server
        self.proxy = proxy
        self.listeners: list[Program] = []
        self._stack = stack

    async def listen(self, *urls: str) -> None:
        """Let listeners connect."""
        for url in urls:
            self.listeners.append(await self.run("listener", url))
        for listener in self.listeners:
            await connection(listener)

    async def write(self, url: str, first: int = 1, last: int = COUNT, *, outbox: Path | None = None) -> Program:
        """Let a writer connect."""
        kept = [] if outbox is None else ["--outbox", str(outbox)]
        return await self.run("writer", url, "--first", str(first), "--last", str(last), *kept)

    async def run(self, module: str, *arguments: str) -> Program:
        return await self._stack.enter_async_context(program(*python(module, *arguments)))

    async def settle(self, writer: Program) -> None:
        """Wait until all is done and heard, cut everybody once more, and wait for one more note."""
        await writer.hear("done", 1, WHOLE)
        await self._all_hear(COUNT)
        await self.proxy.command("calm")
        await self.proxy.command("reset")
        last = await self.write(self.proxy.http, COUNT + 1, COUNT + 1)
        await last.hear("done", 1)
        await self._all_hear(COUNT + 1)
        assert writer.of("failed") == last.of("failed") == []

    async def _all_hear(self, last: int) -> None:
        for listener in self.listeners:
            await heard(listener, last)

    def check(self, doubtful: Collection[int] = ()) -> None:
        for listener in self.listeners:
            assert verdict(numbers(listener), range(1, COUNT + 2), doubtful) == FINE
            assert listener.of("reset") == listener.of("dead letter") == []


def numbers(listener: Program) -> list[int]:
    return [number for _, number in listener.of("noted")]


async def connection(client: Program) -> None:
    """Wait until it is connected for the first time."""
    await client.until(lambda: ["state", "connected"] in client.said, "a connection")


async def heard(listener: Program, note: int) -> None:
    """Wait until it has heard this note last."""
    await listener.until(lambda: numbers(listener)[-1:] == [note], f"note {note}", WHOLE)


def losses(client: Program) -> int:
    """How often it lost its connection."""
    return client.said.count(["state", "reconnecting"])


@asynccontextmanager
async def stage(seed: int, *, every: float = 0.6, data: Path | None = None) -> AsyncIterator[Stage]:
    async with (
        serving(*HISTORY, data=data) as server,
        troubling(server.port, "--seed", str(seed), "--every", str(every)) as proxy,
        AsyncExitStack() as programs,
    ):
        yield Stage(server, proxy, programs)


async def meanwhile(listener: Program, step: int) -> AsyncIterator[int]:
    """Go on whenever it has heard so many notes more, but for the last."""
    for note in range(step, COUNT, step):
        await listener.hear("noted", note, WHOLE)
        yield note


@pytest.mark.parametrize("wire", ["http", "ws"])
async def test_every_note_arrives_over_connections_that_break(wire: str) -> None:
    async with stage(1) as s:
        await s.listen(s.proxy.http, s.proxy.http, s.proxy.ws, s.proxy.ws)
        writer = await s.write(getattr(s.proxy, wire))
        await s.settle(writer)
        s.check()
        assert min(losses(client) for client in (writer, *s.listeners)) >= 3


async def test_every_note_arrives_over_a_server_that_is_killed_again_and_again(tmp_path: Path) -> None:
    async with stage(2, every=2.0, data=tmp_path) as s:
        await s.listen(s.proxy.http, s.proxy.ws)
        writer = await s.write(s.proxy.http)
        async for _ in meanwhile(s.listeners[0], 500):
            await s.server.restart()
        await s.settle(writer)
        s.check()


async def test_every_note_arrives_over_a_nats_server_that_is_killed_again_and_again(tmp_path: Path) -> None:
    async with stage(3, every=2.0, data=tmp_path) as s:
        await s.listen(s.proxy.http, s.proxy.ws)
        writer = await s.write(s.proxy.ws)
        async for _ in meanwhile(s.listeners[0], 500):
            await s.server.kill_nats()  # each time it is started again a little later
        await s.settle(writer)
        s.check()


async def test_every_note_arrives_over_programs_that_are_killed_again_and_again(tmp_path: Path) -> None:
    """Those with a file for an outbox go on where they were, the writer behind what it has emitted.

    Of the one note whose emit has not returned nobody knows whether it was stored, so the next one follows. What a
    listener has heard and not yet noted as handled, its next life hears once more.
    """
    async with stage(4, every=2.0, data=tmp_path / "data") as s:
        await s.listen(s.proxy.http, s.proxy.ws)
        listening = partial(s.run, "listener", s.proxy.http, "--outbox", str(tmp_path / "listener"))
        writing = partial(s.write, s.proxy.ws, outbox=tmp_path / "writer")
        listeners, first, doubtful = [await listening()], 1, set[int]()
        await connection(listeners[0])
        writer = await writing()
        async for _ in meanwhile(s.listeners[0], 500):
            await listeners[-1].kill()
            await writer.kill()
            for (about,) in writer.of("about")[-1:]:  # none if it has just begun, and sends what the one before left
                doubtful |= {about} - {*itertools.chain(*writer.of("emitted")[-1:])}
                first = about + 1
            listeners.append(await listening())
            writer = await writing(first)
        s.listeners.append(listeners[-1])
        await s.settle(writer)
        s.listeners.pop()
        s.check(doubtful)
        whole = numbers(s.listeners[0])
        end = 0
        for life in listeners:
            assert life.of("reset") == life.of("dead letter") == []
            if again := numbers(life):
                begin = whole.index(again[0])
                assert begin <= end
                assert again == whole[begin : begin + len(again)]
                end = begin + len(again)
        assert end == len(whole)
