"""Nodes that handle numbered events over one broker, and die, or lose it, in the call that a test names."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from typing_extensions import override

from bellwire.brokers.base import Broker, Kept, Listener
from bellwire.brokers.memory import MemoryBroker
from bellwire.core.clock import Wheel
from bellwire.core.errors import BrokerUnavailable, MessageTooLarge
from bellwire.delivery.answer import Answer as ReadAnswer
from bellwire.delivery.answer import Page, Unproved
from bellwire.delivery.effects import RULES, Effect, Emission, Key, payload_digest
from bellwire.delivery.entry import Copy, Draft
from bellwire.delivery.handling import Append, Last
from bellwire.delivery.inbox import Arrival
from bellwire.delivery.log import Appended, Limits
from bellwire.delivery.position import Position
from bellwire.server.attempt import current
from bellwire.server.inlet import Inlet
from bellwire.server.producers import Producers

PRODUCER = "0123456789abcdef" * 2
TOO_LARGE = b"too large"

EFFECTS: Final[list[Effect]] = sorted(RULES)

T = TypeVar("T")


class Died(BaseException):
    """The node is dead, and does nothing any more."""


class Line(Broker):
    """A node's way to the broker that all share: counts what changes or reads, and may end in one of these calls."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.calls: list[str] = []
        self.dies_before: int | None = None
        self.dies_after: int | None = None
        self.hook: Callable[[str], None] = lambda call: None
        self.pause: Callable[[], Awaitable[None]] | None = None  # between the next call and its answer
        self.max_value = 10**9
        self.only_fits: str | None = None

    async def _call(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        number = len(self.calls)
        if (self.dies_before is not None and number >= self.dies_before) or (
            self.dies_after is not None and number > self.dies_after
        ):
            raise Died
        self.calls.append(name)
        self.hook(name)
        result = await call()
        if self.pause is not None:
            pause, self.pause = self.pause, None
            await pause()
        if number == self.dies_after:
            raise Died
        return result

    @override
    async def start(self) -> None:
        await self._broker.start()

    @override
    async def close(self) -> None:
        await self._broker.close()

    @override
    def clock(self) -> float:
        return self._broker.clock()

    @override
    def limit(self, limits: Limits) -> None:
        self._broker.limit(limits)

    @override
    async def append(self, stream: str, draft: Draft, *, deadline: float | None = None) -> Appended:
        if self.only_fits not in (None, stream):
            raise MessageTooLarge(len(draft.body), 0)
        appended: Appended = await self._call("append", lambda: self._broker.append(stream, draft, deadline=deadline))
        return appended

    @override
    async def read(
        self, stream: str, after: Position, *, messages: int = 500, size: int = 2**20, confirmed: bool = False
    ) -> ReadAnswer:
        return await self._broker.read(stream, after, messages=messages, size=size, confirmed=confirmed)

    @override
    async def top(self, stream: str) -> Position:
        return await self._broker.top(stream)

    @override
    async def forget(self, stream: str) -> None:
        await self._broker.forget(stream)

    @override
    async def subscribe(self, stream: str, listener: Listener, *, new: bool = False) -> None:
        await self._broker.subscribe(stream, listener, new=new)

    @override
    async def unsubscribe(self, stream: str, listener: Listener) -> None:
        await self._broker.unsubscribe(stream, listener)

    @override
    async def publish(self, stream: str, body: bytes) -> None:
        await self._call("publish", lambda: self._broker.publish(stream, body))

    @override
    def has_log(self, stream: str) -> bool:
        return self._broker.has_log(stream)

    @override
    def generation(self) -> str:
        return self._broker.generation()

    @override
    async def get(self, key: str) -> Kept | None:
        kept: Kept | None = await self._call("get", lambda: self._broker.get(key))
        return kept

    @override
    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl: float | None = None) -> int | None:
        if len(value) > self.max_value:
            raise MessageTooLarge(len(value), self.max_value)
        revision: int | None = await self._call("put", lambda: self._broker.put(key, value, expected=expected, ttl=ttl))
        return revision

    @override
    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        return await self._broker.delete(key, expected=expected)


class Node:
    """A server, as far as numbered events are concerned."""

    def __init__(self, broker: Broker) -> None:
        self.line = Line(broker)
        self.producers = Producers(self.line, self._append, Wheel(asyncio.get_running_loop()), too_large=TOO_LARGE)

    async def _append(self, step: Append) -> Copy | None:
        draft = Draft(step.mid, secrets.randbits(32), step.body, step.excluded, step.copies)
        appended = await self.line.append(step.stream, draft, deadline=step.deadline)
        return Copy(step.stream, appended.gen, appended.point.seq)

    async def connect(self, user: str | None = "user") -> Inlet:
        return await self.producers.greet(user, PRODUCER)


class World:
    """What handlers did: how often they ran, what they wrote into a database, and what they emit."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, bytes, bool]] = []  # number, payload, redelivered
        self.database: dict[Key, bytes] = {}
        self.replies = 0
        self.during: Callable[[], Awaitable[None]] | None = None

    async def send(
        self,
        inlet: Inlet,
        number: int,
        effect: Effect = "at_most_once",
        payload: bytes = b"p",
        *,
        generation: str | None = None,
        resent: bool = False,
    ) -> Last | None:
        """Let an event arrive, under the mark that the client was told on this connection unless another is given."""
        mark = inlet.generation if generation is None else generation
        arrival = Arrival(number, payload_digest(payload), effect, mark, resent)
        return await inlet.handle(arrival, lambda: self._handle(arrival, payload))

    async def _handle(self, arrival: Arrival, payload: bytes) -> tuple[bytes, tuple[Emission, ...]]:
        self.replies += 1
        reply = b"reply %d to %d" % (self.replies, arrival.number)
        attempt = current()
        self.runs.append((arrival.number, payload, attempt.redelivered))
        assert (attempt.key is not None) == (arrival.effect == "transactional")
        if attempt.key is not None:
            reply = self.database.setdefault(attempt.key, reply)
        if self.during is not None:
            await self.during()
        if arrival.effect != "relay":
            return reply, ()
        body = b"%d" % arrival.number
        return reply, (Emission(("room", "hall"), body + b"/1"), Emission(("room",), body + b"/2"))


async def bodies(broker: Broker, stream: str) -> list[bytes]:
    """All messages of a stream, in order."""
    answer = await broker.read(stream, (await broker.top(stream))._replace(seq=0, tag=0), confirmed=True)
    if isinstance(answer, Unproved):
        answer = await broker.read(stream, answer.restart, confirmed=True)
    assert isinstance(answer, Page)
    return [entry.body for entry in answer.entries]


async def started() -> MemoryBroker:
    broker = MemoryBroker()
    await broker.start()
    return broker


def now() -> float:
    return asyncio.get_running_loop().time()


async def until_death(work: Coroutine[object, object, T], node: Node, call: int, *, answered: bool) -> T | None:
    """Let the node die in its ``call``-th call from now on: before it is made, or before its answer comes."""
    last = len(node.line.calls) + call
    if answered:
        node.line.dies_after = last
    else:
        node.line.dies_before = last
    try:
        return await work
    except Died:
        return None


def arrival_of(inlet: Inlet, effect: Effect) -> Arrival:
    return Arrival(1, b"digest", effect, inlet.generation, resent=False)


def away(call: str) -> None:
    raise BrokerUnavailable("this node is cut off")


async def dies() -> None:
    raise Died


async def nothing() -> tuple[bytes, tuple[()]]:
    return b"quiet", ()


async def fails() -> tuple[bytes, tuple[()]]:
    raise ValueError("a bug")
