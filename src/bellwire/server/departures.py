"""What one socket's relays emit, on its way to the broker: an event behind the other, without a wait for each answer.

A handler that emits is held up by the broker's acknowledgement, and the events behind it are as well. A relay has
returned when its emits leave, and nothing can be seen of it any more. So where it emitted once, the next event is
handled while that is on its way: the broker takes what is asked of it about one stream in order. The client's
acknowledgement comes with the broker's, as ever.

The order is kept when an answer is missing, too: what is tried again waits until all before it has its outcome, and
nothing new leaves until all have.
"""

import asyncio
from typing import Any, Final, NamedTuple

from bellwire.brokers.publisher import Publisher
from bellwire.delivery.effects import Emission
from bellwire.server.dispatch import Job

MOST: Final = 64
"""How many may be on their way for one socket, each with a task; the next event waits."""


class Departing(NamedTuple):
    """The outcome of a relay's handler: what it returned, and the one thing that it emitted."""

    result: Any
    emission: Emission


class Departures:
    """What is on its way; made, and used, in the running loop."""

    __slots__ = ("_doubtful", "_moved", "_next", "_open")

    def __init__(self) -> None:
        self._open: dict[int, None] = {}  # the oldest first
        self._next = 0
        self._doubtful = False
        self._moved: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    @property
    def full(self) -> bool:
        """Whether the next is to wait until all have arrived."""
        return self._doubtful or len(self._open) >= MOST

    def bring(self, publisher: Publisher, departing: Departing) -> Job:
        """Return what brings an emission to the broker, and returns what the handler did; as `Publisher.emit` raises.

        It is on its way from now on: start it.
        """
        number = self._next
        self._next += 1
        self._open[number] = None
        return self._bring(publisher, departing, number)

    async def _bring(self, publisher: Publisher, departing: Departing, number: int) -> Any:
        emission = departing.emission
        try:
            await publisher.emit(
                emission.streams, emission.body, emission.excluded, before_again=lambda: self._turn(number)
            )
        finally:
            del self._open[number]
            self._doubtful = self._doubtful and bool(self._open)
            self._move()
        return departing.result

    async def arrived(self) -> None:
        """Return when nothing is on its way."""
        while self._open:
            await self._wait()

    async def _turn(self, number: int) -> None:
        self._doubtful = True
        while next(iter(self._open)) != number:
            await self._wait()

    async def _wait(self) -> None:
        if self._moved is None:
            self._moved = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._moved)

    def _move(self) -> None:
        moved, self._moved = self._moved, None
        if moved is not None:
            moved.set_result(None)
