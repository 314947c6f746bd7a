"""What one socket's relays emit, on its way to the broker: an event behind the other, without a wait for each answer.

A handler that emits is held up by the broker's acknowledgement, and the events behind it are as well. A relay has
returned when its emits leave, and nothing can be seen of it any more. So where it emitted once, the next event is
handled while that is on its way: the broker takes what is asked of it about one stream in order. The client's
acknowledgement comes with the broker's, as ever. With one that is `immediate` nothing is ever on its way.

The order is kept when an answer is missing, too: nothing new leaves until all have their outcomes, and what is tried
again waits until all before it has, and all behind it has been answered or waits as well. If the broker has something
behind it by then it is not tried again, since it could arrive there only now: its outcome is unknown.

One order is lost, as nobody can see it: where of two without an answer the broker has the second alone. For that it has
to lose one and take the next, as while its leader changes, and its connection has to end before it answers.
"""

import asyncio
from typing import Any, Final, NamedTuple

from bellwire.delivery.effects import Emission
from bellwire.server.dispatch import Job
from bellwire.server.streams import Streams

MOST: Final = 64
"""How many may be on their way for one socket, each with a task; the next event waits."""

MOST_OF_ALL: Final = 2_048
"""How many may be for all sockets of a node: with as many each has no more than one. What a broker answers within some
tenths of a second is enough to keep it busy; what it cannot answer in time would only be asked again."""


class Departing(NamedTuple):
    """The outcome of a relay's handler: what it returned, and the one thing that it emitted."""

    result: Any
    emission: Emission


class Departures:
    """What is on its way; made, and used, in the running loop."""

    __slots__ = ("_doubtful", "_moved", "_next", "_open", "_streams", "_waiting")

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._open: dict[int, str] = {}  # the oldest first; where each goes, "" once it was overtaken there
        self._next = 0
        self._doubtful = False  # from the first answer that is missing until all have their outcomes
        self._waiting = 0  # those of the open ones that wait for their turn
        self._moved: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    @property
    def full(self) -> bool:
        """Whether the next is to wait until all have arrived."""
        return self._doubtful or len(self._open) >= MOST or self._streams.departing >= MOST_OF_ALL

    def bring(self, departing: Departing) -> Job:
        """Return what brings an emission to the broker, and returns what the handler did; as `Publisher.emit` raises.

        It is on its way from now on: start it.
        """
        number = self._next
        self._next += 1
        (self._open[number],) = departing.emission.streams
        self._streams.departing += 1
        return self._bring(departing, number)

    async def _bring(self, departing: Departing, number: int) -> Any:
        emission = departing.emission

        async def may_again() -> bool:
            await self._turn(number)
            return bool(self._open[number])

        try:
            if self._doubtful:  # since this one's handler began
                await self._turn(number)
            emit = self._streams.publisher.emit
            await emit(emission.streams, emission.body, emission.excluded, may_again=may_again)
            self._overtake(number)
        finally:
            del self._open[number]
            self._streams.departing -= 1
            self._doubtful = self._doubtful and bool(self._open)
            self._move()
        return departing.result

    def _overtake(self, number: int) -> None:
        for older, stream in self._open.items():
            if older == number:
                return  # as a rule it is the oldest
            if stream == self._open[number]:
                self._open[older] = ""

    async def arrived(self) -> None:
        """Return when nothing is on its way."""
        while self._open:
            await self._wait()

    async def _turn(self, number: int) -> None:
        """Return when all before ``number`` have their outcomes, and all behind it wait for their turn."""
        self._doubtful = True
        self._waiting += 1
        self._move()
        try:
            while next(iter(self._open)) != number or self._waiting < len(self._open):
                await self._wait()
        finally:
            self._waiting -= 1

    async def _wait(self) -> None:
        if self._moved is None:
            self._moved = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._moved)

    def _move(self) -> None:
        moved, self._moved = self._moved, None
        if moved is not None:
            moved.set_result(None)
