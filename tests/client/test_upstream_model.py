"""What a client sends, whatever the network and the program do, in any order."""

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from bellwire import CallTimeout, Disconnected
from bellwire.core.errors import OutcomeUnknown
from bellwire.testing.clock import advance
from tests.client.desk import Line
from tests.client.stage import SAY, Stage
from tests.long import runs


class World:
    """A program with its journal, a desk, and a network that does what it likes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.stage = Stage()
        self.line: Line | None = None
        self.next = 0
        self.calls: dict[str, asyncio.Future[int]] = {}
        self.emitted: list[str] = []
        self.lives = 0

    async def emit(self) -> None:
        text = f"e{self.next}"
        self.next += 1
        self.emitted.append(text)
        await self.stage.up.emit(SAY, (text,))

    async def call(self) -> None:
        text = f"c{self.next}"
        self.next += 1
        self.calls[text] = self.stage.ask(text, self.random.choice([0.0, 1.0, 1_000.0]))
        await advance()

    async def join(self) -> None:
        if self.line is None:
            self.line = self.stage.join()

    async def read(self) -> None:
        if self.line is not None:
            self.line.read(self.random.randint(1, 4))

    async def answer(self) -> None:
        if self.line is not None:
            self.line.answer(self.random.randint(1, 4))
            await advance()

    async def cut(self) -> None:
        if self.line is not None:
            self.line.cut()
            self.line = None
            await advance()

    async def busy(self) -> None:
        self.stage.desk.busy = 1

    async def wait(self) -> None:
        await advance(2.0)

    async def restart(self) -> None:
        """The program ends as in a crash, and begins again."""
        await self.cut()
        for call in self.calls.values():
            call.cancel()
        self.stage.up.end("io client disconnect")
        await advance()
        self.stage.begin()
        self.lives += 1

    async def finish(self) -> None:
        await self.join()
        for _ in range(20):
            assert self.line is not None
            self.line.work()
            await advance(2_000.0)


@given(
    st.lists(
        st.sampled_from(["emit", "call", "join", "read", "answer", "cut", "busy", "wait", "restart"]), max_size=80
    ),
    st.integers(0, 1_000),
)
@settings(max_examples=runs(60, 40))
async def test_whatever_the_network_does_each_event_takes_effect_once_and_in_order(steps: list[str], seed: int) -> None:
    world = World(seed)
    for step in steps:
        await getattr(world, step)()
    await world.finish()
    heard = world.stage.heard
    assert [text for text in heard if text[0] == "e"] == world.emitted  # once, in order, none left out
    assert len(heard) == len(set(heard))
    assert heard == sorted(heard, key=lambda text: int(text[1:]))
    assert world.stage.failed == []
    for text, call in world.calls.items():
        if call.cancelled():
            continue
        error = call.exception()
        if error is None:
            assert text in heard
        elif isinstance(error, CallTimeout):
            assert text not in heard  # withdrawn: it had no effect
        else:
            assert isinstance(error, OutcomeUnknown | Disconnected)
