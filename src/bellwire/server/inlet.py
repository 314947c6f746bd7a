"""One connection's end of a producer: it takes the producer's events through the machines of `delivery.handling`.

What a step does when the broker does not answer::

    before the handler has run      nothing of this event can be stored     the event is turned away, to come again
                                    something may be                        tried until the broker answers
    after it has run                                                        tried until the broker answers
    what waits for somebody else                                            given up when the connection ends

A handler that runs is not stopped when its connection ends: its outcome is recorded, for the client to ask for.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from bellwire.core.errors import BrokerUnavailable, MessageTooLarge, OutcomeUnknown
from bellwire.delivery import inbox
from bellwire.delivery.effects import RULES, Emission
from bellwire.delivery.handling import (
    Append,
    Course,
    End,
    Handling,
    Invoke,
    Last,
    Pause,
    Recovering,
    Skipping,
    Step,
    Update,
)
from bellwire.delivery.inbox import Arrival, Nack
from bellwire.server.attempt import Attempt

if TYPE_CHECKING:
    from bellwire.server.producers import Producers

Invocation: TypeAlias = Callable[[], Awaitable[tuple[bytes, tuple[Emission, ...]]]]
"""Runs a handler and returns its reply as it is kept, and what a relay wants emitted. What the handler raises is for
it to turn into a reply: an exception that comes out of it leaves the event without an outcome."""

RETRY_AFTER: Final = 1.0
"""Seconds after which a client is asked to send again what was turned away because the broker is away."""

FIRST_REST: Final = 0.25
"""Seconds until the broker is asked again; each rest is twice as long as the one before, up to"""
LAST_REST: Final = 4.0


class Inlet:
    """A producer on one connection, greeted by `Producers.greet`; its events come in one after the other."""

    __slots__ = (
        "_arrival",
        "_closed",
        "_doubt",
        "_generation",
        "_invoked",
        "_lease",
        "_producers",
        "_waiter",
        "generation",
        "key",
        "last",
        "renewed",
    )

    def __init__(self, producers: "Producers", key: str, generation: str, last: int) -> None:
        self.key = key
        """The producer's name on record (`delivery.effects.producer_key`)."""
        self.generation = generation
        """What the client is told to mark its events with."""
        self.last = last
        """The last number taken when it connected; 0 for none."""
        self.renewed = 0.0
        """When the lease of the handler that runs was made or renewed, in the broker's time."""
        self._producers = producers
        self._arrival: Arrival | None = None
        self._closed = False
        self._doubt = False
        self._generation = ""  # of the broker, when the last verdict was made
        self._invoked = False
        self._lease = ""
        self._waiter: asyncio.Future[None] | None = None

    def close(self) -> None:
        """Say that the connection has ended: nobody waits for an answer any more."""
        self._closed = True
        self._producers.records.forget(self.key)
        self.wake()

    def wake(self) -> None:
        """Let what waits look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def handle(self, arrival: Arrival, invoke: Invocation, refusal: bytes | None = None) -> Last | None:
        """Take an event to its answer; None if the connection ended and there is nobody to answer.

        ``invoke`` is called at most once, unless the handler's effect allows more; not at all if ``refusal`` is given:
        the reply to an event whose payload is wrong, for instance. Without a broker that is far away, and a handler
        that waits, nothing here waits either.

        Raises:
            MessageTooLarge: the broker takes less than a record with the outcomes of former events.
            BellwireError: what is on record was written by a later version of Bellwire.

        """
        course = Handling(self.key, arrival, refusal)
        self._arrival = arrival
        return await self._drive(course, arrival.number, invoke)

    async def skip(self, first: int, upto: int) -> Last | None:
        """Take the numbers from ``first`` to ``upto``, which the client gave up; the rest is as in `handle`."""
        self._arrival = None
        return await self._drive(Skipping(self.key, first, upto), first, _none_to_run)

    async def recover(self) -> bool:
        """Complete the relay that another node left in the middle, if there is one; False if it is too late for that.

        It is tried until the broker answers.
        """
        self._closed = self._invoked = True
        self._lease = os.urandom(8).hex()
        return await self._answered(Recovering(self.key), 0, _none_to_run) is not None

    # --- the steps

    async def _drive(self, course: Course, number: int, invoke: Invocation) -> Last | None:
        if self._lease:
            raise RuntimeError("an event of this producer is being handled on this connection")
        self._lease = os.urandom(8).hex()
        self._doubt = self._invoked = False
        try:
            verdict = await self._answered(course, number, invoke)
        finally:
            self._lease = ""
        if type(verdict) is Nack:
            self.generation = verdict.generation
        self._producers.wake(self)
        return verdict

    async def _answered(self, course: Course, number: int, invoke: Invocation) -> Last | None:
        producers, step = self._producers, course.begin()
        rest, patience = FIRST_REST, FIRST_REST
        while not isinstance(step, End):
            if isinstance(step, Invoke):
                step = await self._invoke(course, step, invoke)
            elif isinstance(step, Pause):
                if not (self._closed or producers.closed):
                    # Another node does not tell us when it is done, so we look from time to time.
                    await self._rest(min(patience, max(0.0, step.until - producers.broker.clock())))
                    patience = min(2 * patience, LAST_REST)
                if self._closed or producers.closed:
                    return None
                step = course.resumed()
            else:
                try:
                    step = await self._ask(course, step)
                    rest = FIRST_REST
                except (BrokerUnavailable, OutcomeUnknown):
                    if not (self._invoked or self._doubt):
                        return Nack(number, self.generation, RETRY_AFTER)
                    if producers.closed:
                        return None
                    await self._rest(rest)
                    rest = min(2 * rest, LAST_REST)
        return step.verdict

    def _ask(self, course: Course, step: Update | Append) -> Coroutine[Any, Any, Step]:
        return self._update(course, step) if isinstance(step, Update) else self._append(course, step)

    async def _update(self, course: Course, step: Update) -> Step:
        try:
            ruling = await self._producers.records.update(
                self.key, step.decide, self._lease, pending=step.pending == "add"
            )
        except OutcomeUnknown:
            self._doubt = True
            raise
        except MessageTooLarge:
            if self._invoked and isinstance(course, Handling):
                return course.too_large(self._producers.too_large)
            raise
        self._doubt = False
        self._generation = ruling.generation
        self.renewed = ruling.at
        return course.decided(ruling.verdict)

    async def _append(self, course: Course, step: Append) -> Step:
        broker = self._producers.broker
        if broker.clock() >= step.deadline:
            return course.too_late()
        if broker.generation() != self._generation:
            return course.moved()
        try:
            return course.appended(await self._producers.append(step))
        except (BrokerUnavailable, OutcomeUnknown):
            if broker.clock() >= step.deadline:
                return course.too_late()
            raise
        except MessageTooLarge:  # it will be so every time
            return course.too_late()

    async def _invoke(self, course: Course, step: Invoke, invoke: Invocation) -> Step:
        if self._arrival is None or not isinstance(course, Handling):
            raise RuntimeError("there is no handler to run")
        self._invoked = True
        leased = RULES[self._arrival.effect].started
        if leased:
            self._producers.hold(self)
        try:
            with Attempt(step.key, redelivered=step.redelivered):
                reply, emissions = await invoke()
        finally:
            if leased:
                self._producers.let_go(self)
        return course.returned(reply, emissions)

    async def _rest(self, seconds: float) -> None:
        """Wait so long, or until the record was changed on this node, or the connection has ended."""
        producers = self._producers
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        timer = producers.wheel.after(seconds, self.wake)
        producers.waits(self)
        try:
            await waiter
        finally:
            self._waiter = None
            timer.cancel()
            producers.waits_no_more(self)

    # --- the lease

    async def renew(self) -> bool:
        """Prolong the lease of the handler that runs; False if it is lost.

        Raises:
            BrokerUnavailable, OutcomeUnknown: the broker is away.

        """
        lease, arrival = self._lease, self._arrival
        if not lease or arrival is None:
            return True
        number = arrival.number
        ruling = await self._producers.records.update(
            self.key, lambda record, view: inbox.renew(record, number, view), lease
        )
        if self._lease != lease:
            return True  # the handler has returned meanwhile, and another one may run
        self.renewed = ruling.at
        return ruling.verdict


async def _none_to_run() -> tuple[bytes, tuple[Emission, ...]]:
    raise RuntimeError("there is no handler to run")
