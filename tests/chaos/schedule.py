"""Trouble for each connection of a proxy every second or so, the same for the same seed and connection number.

What comes is drawn, each with the same probability, from::

    trouble      what happens (see `proxy`)                                     and then
    reset        both sides are reset                                           it is gone
    cut          one direction ends after some bytes more, in a frame's middle  it is gone
    half_open    one side is reset, the other one told nothing, for a while     it is gone
    swallow      what one direction carries is lost, for a while                it is reset
    stall        nothing passes in one direction, or in both, for a while       it goes on, with nothing lost
    latency      everything is late by a while                                  it goes on, with nothing lost
    pieces       single bytes, for a while                                      it goes on, with nothing lost
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from tests.chaos.proxy import Connection, Direction

Kind: TypeAlias = Literal["reset", "cut", "half_open", "swallow", "stall", "latency", "pieces"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
ENDINGS: Final[tuple[Kind, ...]] = ("reset", "cut", "half_open", "swallow")
MAX_CUT: Final = 2_000
"""Bytes that may pass before a cut: some packets, and a part of one."""


class Trouble(NamedTuple):
    """One thing that is done to a connection."""

    after: float
    """Seconds since the trouble before it was over, or since the connection began."""
    kind: Kind
    direction: Direction
    both: bool
    lasts: float
    """Seconds."""
    size: int
    """Bytes, of a cut."""


def troubles(seed: int, number: int, *, every: float = 1.0, kinds: Sequence[Kind] = KINDS) -> Iterator[Trouble]:
    """Yield the troubles of connection ``number``, without end; there is one ``every`` so many seconds on average."""
    draw = random.Random(f"{seed} {number}")
    while True:
        yield Trouble(
            after=draw.uniform(0.3, 1.7) * every,
            kind=draw.choice(kinds),
            direction=draw.choice(get_args(Direction)),
            both=draw.random() < 0.5,
            lasts=draw.uniform(0.1, 1.0) * every,
            size=draw.randint(0, MAX_CUT),
        )


class Schedule:
    """Give it to a proxy as its ``on_connect``; ``calm`` ends all trouble, and none comes any more."""

    def __init__(self, seed: int, *, every: float = 1.0, kinds: Sequence[Kind] = KINDS) -> None:
        self._seed = seed
        self._every = every
        self._kinds = kinds
        self._tasks: dict[asyncio.Task[None], Connection] = {}
        self._calm = False

    def __call__(self, connection: Connection) -> None:
        """Begin to trouble a connection."""
        if self._calm:
            return
        task = asyncio.create_task(self._trouble(connection), name=f"chaos: schedule {connection.number}")
        self._tasks[task] = connection
        task.add_done_callback(self._tasks.pop)

    async def calm(self) -> None:
        """Let all connections work, or end those that cannot."""
        self._calm = True
        tasks = {**self._tasks}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _trouble(self, connection: Connection) -> None:
        for trouble in troubles(self._seed, connection.number, every=self._every, kinds=self._kinds):
            await _unless_ended(connection, trouble.after)
            if connection.ended.is_set():
                return
            try:
                _DOINGS[trouble.kind](connection, trouble)
                await _unless_ended(connection, trouble.lasts)
            finally:
                if trouble.kind in ENDINGS:
                    connection.reset()
                else:
                    connection.resume()


async def _unless_ended(connection: Connection, seconds: float) -> None:
    """Let so many seconds pass, or return when the connection has ended before."""
    try:
        async with asyncio.timeout(seconds):
            await connection.ended.wait()
    except TimeoutError:
        pass


def _directions(trouble: Trouble) -> tuple[Direction, ...]:
    return () if trouble.both else (trouble.direction,)


_DOINGS: Final[dict[Kind, Callable[[Connection, Trouble], None]]] = {
    "reset": lambda connection, _: connection.reset(),
    "cut": lambda connection, trouble: connection.cut(trouble.direction, trouble.size),
    "half_open": lambda connection, trouble: connection.half_open("client" if trouble.direction == "up" else "server"),
    "swallow": lambda connection, trouble: connection.swallow(*_directions(trouble)),
    "stall": lambda connection, trouble: connection.stall(*_directions(trouble)),
    "latency": lambda connection, trouble: connection.delay(trouble.lasts / 5, *_directions(trouble)),
    "pieces": lambda connection, trouble: connection.slice(1, *_directions(trouble)),
}
