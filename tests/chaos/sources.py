"""Clients that hear notes, and where these are from: a writer, for whom nodes relay, and an emitter beside the nodes.

They live in the process of the test. What is troubled are nodes, brokers, and all that lies between.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from bellwire import BrokerUnavailable, Client, Emitter, OutcomeUnknown
from tests.chaos.application import NOTE, NOTED, ROOM
from tests.chaos.verdict import WHOLE

RATE: Final = 120
"""Notes a second, of the writer and of the emitter: time is counted in notes."""

LANES: Final = 4
"""How many the emitter emits at a time: when the broker goes, some are under way, and some are not."""


class Listener:
    """A client that keeps what it hears in ``said``, in order.

    ``("noted", SOURCE, NUMBER)``, ``("reset", ROOM, REASON)``, ``("state", STATE)``, ``("dead letter", EVENT)``.
    """

    def __init__(self, client: Client) -> None:
        self.said: list[tuple[Any, ...]] = []
        self._progress = asyncio.Event()
        client.on(NOTED)(lambda source, number: self._say("noted", source, number))
        client.on_reset(lambda reset: self._say("reset", reset.room, reset.reason))
        client.on_state(lambda state: self._say("state", state))
        client.on_dead_letter(lambda letter: self._say("dead letter", letter.event))

    def _say(self, *words: Any) -> None:
        self.said.append(words)
        self._progress.set()
        self._progress = asyncio.Event()

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [words[1:] for words in self.said if words[0] == kind]

    def numbers(self, source: str) -> list[int]:
        """What it has heard of one source."""
        return [number for by, number in self.of("noted") if by == source]

    @property
    def losses(self) -> int:
        """How often it lost its connection."""
        return self.said.count(("state", "reconnecting"))

    async def hears(self, source: str, number: int) -> None:
        """Wait until it has heard this note."""
        note = ("noted", source, number)
        await self.until(lambda: note in self.said, f"note {number} of {source}")

    async def until(self, reached: Callable[[], bool], what: str) -> None:
        """Wait until this is so."""
        try:
            async with asyncio.timeout(WHOLE):
                while not reached():
                    await self._progress.wait()
        except TimeoutError:
            raise AssertionError(f"not within {WHOLE:g} s: {what}; {self.said[-5:]}") from None

    def silent_gaps(self, source: str, expected: set[int]) -> list[int]:
        """Which of the ``expected`` notes are left out between others, without a reset there."""
        last, told, silent = 0, False, list[int]()
        for kind, *rest in self.said:
            if kind == "reset":
                told = True
            elif kind == "noted" and rest[0] == source:
                if not told:
                    silent += expected.intersection(range(last + 1, rest[1]))
                last, told = rest[1], False
        return sorted(silent)


class Writer:
    """A client with numbered events, each of which takes effect once, whatever happens."""

    name: Final = "w"

    def __init__(self, client: Client) -> None:
        self.written: list[int] = []
        self.failed: list[object] = []
        self._client = client
        client.on_failed(lambda failed: self.failed.append(failed.error))

    async def write(self, count: int = 1) -> None:
        """Write so many notes more, and return when the last has its outcome."""
        async for _ in in_time(count - 1):
            await self._client.emit(NOTE, self.name, self._next())
        assert await self._client.call(NOTE, self.name, self._next(), timeout=WHOLE) == self.written[-1]

    def _next(self) -> int:
        self.written.append(len(self.written) + 1)
        return self.written[-1]


class Lane:
    """What an emitter emits, one after the other, and the history of what became of it."""

    def __init__(self, emitter: Emitter, name: str) -> None:
        self.name = name
        self.emitted: list[int] = []
        self.unavailable: list[int] = []
        self.unknown: list[int] = []
        self._emitter = emitter
        self._tried = asyncio.Event()

    async def emit(self, count: int = 1) -> None:
        """Emit so many notes more, and others until one has been emitted for certain."""
        async for _ in in_time(count, RATE / LANES):
            await self._emit()
        while self.emitted[-1:] != [self._count]:
            await self._emit()
            await asyncio.sleep(LANES / RATE)

    async def _emit(self) -> None:
        number = self._count + 1
        room = self._emitter.namespace("/").to(ROOM)
        try:
            await room.emit(NOTED, self.name, number)
        except BrokerUnavailable:
            self.unavailable.append(number)
        except OutcomeUnknown:
            self.unknown.append(number)
        else:
            self.emitted.append(number)
        self._tried.set()
        self._tried = asyncio.Event()

    async def reaches(self, number: int) -> None:
        """Wait until it has tried so many."""
        async with asyncio.timeout(WHOLE):
            while self._count < number:
                await self._tried.wait()

    @property
    def _count(self) -> int:
        return len(self.emitted) + len(self.unavailable) + len(self.unknown)

    @property
    def possible(self) -> list[int]:
        """What may be heard: never what was said not to have been sent."""
        return sorted([*self.emitted, *self.unknown])


async def in_time(count: int, rate: float = RATE) -> AsyncIterator[int]:
    """Go on so many times a second; who is late may hurry by a fifth of a second."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    for number in range(count):
        yield number
        due = max(due + 1 / rate, loop.time() - 0.2)
        await asyncio.sleep(max(0.0, due - loop.time()))
