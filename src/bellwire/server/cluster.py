"""A node among the others: who is there, questions to them and their answers, and what they ask of it.

Nodes speak over the broker, each on a stream of its own and all on a common one; nothing of it is in a log. A question
goes to all, or to some, and is answered in as many parts as it takes. A question ends when each node that was asked
has given its last part, has failed, or has died, or when its time is over; who has not answered in full is named. Where
nobody waits any longer, because the question was given up or its node has died, those who still answer are told.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from bellwire.brokers.base import Broker
from bellwire.brokers.envelope import (
    ALL,
    UNREADABLE,
    Alive,
    Answer,
    Direct,
    Envelope,
    Gone,
    Question,
    Unreadable,
    Withdrawn,
    seal,
    stream_of_node,
    unseal,
)
from bellwire.core.clock import Timer, Wheel
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, MessageTooLarge, OutcomeUnknown
from bellwire.delivery.entry import Entry
from bellwire.server.dispatch import Dispatcher, Outcome
from bellwire.server.peers import BEAT_SECONDS, LEASE_SECONDS, Peers
from bellwire.server.register import Register

MAX_ASKED: Final = 1_024
"""How many questions of others may be under way here; a node answers the next ones that it cannot."""

T = TypeVar("T")

logger = logging.getLogger("bellwire.server")


class Malformed(Exception):  # noqa: N818 - what it is; another version of Bellwire asks
    """A question cannot be read."""


class Asked:
    """A question of another node, as whoever answers it sees it."""

    __slots__ = ("_cluster", "_place", "body", "node", "number", "timeout", "withdrawn")

    def __init__(self, cluster: "Cluster", question: Question) -> None:
        self.node = question.node
        """Who asks."""
        self.number = question.number
        """Its number there, 0 if no answer is wanted."""
        self.body = question.body
        """What is asked."""
        self.timeout = question.timeout
        """Seconds for which it waits, from now."""
        self.withdrawn: Callable[[], None] = _nothing
        """Is called if nobody waits for the answer any longer; it neither waits nor raises."""
        self._cluster = cluster
        self._place = 0

    def read(self, decode: Callable[[bytes], T]) -> T:
        """Return what is asked, decoded; raise `Malformed`, for the answerer to end with, where msgspec raises."""
        try:
            return decode(self.body)
        except UNREADABLE as error:
            raise Malformed from error

    async def answer(self, body: bytes) -> None:
        """Give a part of the answer.

        Raises:
            BrokerUnavailable, OutcomeUnknown: it may be missing there.
            MessageTooLarge: nothing was given, and another part can take its place.

        """
        await self._say(body)

    async def end(self, *, failed: bool = False) -> None:
        """Say that this was all; the same errors."""
        await self._say(b"", last=True, failed=failed)

    async def _say(self, body: bytes, *, last: bool = False, failed: bool = False) -> None:
        if not self.number:
            return
        answer = Answer(self._cluster.node, self.number, self._place, body, last, failed)
        self._place += 1
        try:
            await self._cluster.say(answer, self.node)
        except MessageTooLarge:
            self._place = answer.place
            raise


Answerer: TypeAlias = Callable[[Asked], Coroutine[Any, Any, None]]
"""What answers the questions of one kind: it gives its parts with `Asked.answer`, and returns when that was all."""


class Watcher(Protocol):
    """Who is told of nodes; it neither waits nor raises."""

    def node_joined(self, node: str) -> None:
        """``node`` is there, or is there again: it knows nothing of what was before."""

    def node_left(self, node: str) -> None:
        """``node`` has ended, or has been silent for its lease."""


class _Inquiry:
    """A question of this node, until all have answered."""

    __slots__ = ("_done", "_parts", "_take", "open", "unreachable")

    def __init__(self, nodes: Collection[str], take: Callable[[str, bytes], None]) -> None:
        self.open = set(nodes)
        self.unreachable: set[str] = set()
        self._take = take
        self._parts: dict[str, int] = {}
        self._done = asyncio.get_running_loop().create_future()

    def answered(self, answer: Answer) -> None:
        node, place = answer.node, self._parts.get(answer.node, 0)
        if node in self.unreachable or (node in self._parts and node not in self.open):
            return
        self._parts[node] = place + 1
        if answer.place != place or answer.failed:  # a part was lost: what is left of the answer says nothing
            self.lose(node)
            return
        if answer.body:
            try:
                self._take(node, answer.body)
            except UNREADABLE:
                self.lose(node)
                raise
        if answer.last:
            self.open.discard(node)
            self._check()

    def lose(self, node: str) -> None:
        if node in self.open or node in self._parts:
            self.open.discard(node)
            self.unreachable.add(node)
            self._check()

    def _check(self) -> None:
        if not self.open and not self._done.done():
            self._done.set_result(None)

    async def wait(self, seconds: float) -> None:
        self._check()
        await asyncio.wait((self._done,), timeout=seconds)
        self.unreachable |= self.open
        self.open = set()


class Cluster:
    """The node's place in it; made, and used, in the running loop. ``node`` is its id."""

    def __init__(self, broker: Broker, wheel: Wheel, dispatcher: Dispatcher, counters: Counters) -> None:
        self.node = secrets.token_hex(4)
        self.peers = Peers()
        self.direct: Callable[[str, bytes], None] = lambda stream, published: None
        """What takes events for single sockets of this node."""
        self._broker = broker
        self._wheel = wheel
        self._dispatcher = dispatcher
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._register = Register(broker)
        self._answerers: dict[str, Answerer] = {}
        self._ears: dict[str, Callable[[str, bytes], None]] = {}
        self._watchers: list[Watcher] = []
        self._reminded: list[Callable[[], None]] = []
        self._inquiries: dict[int, _Inquiry] = {}
        self._number = 0
        self._asked = 0
        self._answering: dict[tuple[str, int], Asked] = {}
        self._timer: Timer | None = None
        self._beaten = 0.0
        self._generation = ""

    @property
    def is_first(self) -> bool:
        """Whether it is this node that does what one of them has to do."""
        return self.node < min(self.peers.ids, default="~")

    def serve(self, kind: str, answerer: Answerer) -> None:
        """Let ``answerer`` answer the questions of this ``kind``."""
        self._answerers[kind] = answerer

    def hear(self, kind: str, ear: Callable[[str, bytes], None]) -> None:
        """Let ``ear`` take what is told under this ``kind``, with the node; it neither waits nor raises."""
        self._ears[kind] = ear

    def watch(self, watcher: Watcher) -> None:
        """Tell ``watcher`` of nodes from now on."""
        self._watchers.append(watcher)

    def remind(self, speaker: Callable[[], None]) -> None:
        """Call ``speaker`` whenever what this node has said or kept is to be said again.

        That is so when others may have taken it for dead, and when the broker has lost what was kept.
        """
        self._reminded.append(speaker)

    # --- life

    async def start(self) -> None:
        """Be one of the nodes from now on. Raises `BrokerUnavailable`."""
        for stream in (ALL, stream_of_node(self.node)):
            await self._broker.subscribe(stream, self)
        for node in await self._register.add(self.node):
            self._heard(node)
        await self.say(Alive(self.node, ask=True))
        self._beaten, self._generation = self._loop.time(), self._broker.generation()
        self._timer = self._wheel.after(BEAT_SECONDS, self._begin_beat)

    async def close(self, grace: float) -> None:
        """Leave, and wait at most ``grace`` seconds for the broker to take that; what is asked is given up."""
        if self._timer is not None:
            self._timer.cancel()
        for inquiry in tuple(self._inquiries.values()):
            for node in tuple(inquiry.open):
                inquiry.lose(node)
        with contextlib.suppress(BrokerUnavailable, OutcomeUnknown, TimeoutError):  # its lease is over soon
            async with asyncio.timeout(min(grace, LEASE_SECONDS / 2)):
                await self._take_leave()

    async def _take_leave(self) -> None:
        await self.say(Gone(self.node))
        await self._register.remove({self.node})
        for stream in (ALL, stream_of_node(self.node)):
            await self._broker.unsubscribe(stream, self)

    def _begin_beat(self) -> None:
        self._timer = None
        self._dispatcher.run(self._beat(), self._beat_ended)

    async def _beat(self) -> None:
        now = self._loop.time()
        stood_still = now - self._beaten > 2 * BEAT_SECONDS
        try:
            await self.say(Alive(self.node, ask=stood_still))
            await self._register.add(self.node)  # it may have been lost, or others have missed this node
            self._beaten = now
            generation, self._generation = self._generation, self._broker.generation()
            if stood_still or generation != self._generation:
                self._remind()
        except (BrokerUnavailable, OutcomeUnknown):
            stood_still = True
        if stood_still:
            self.peers.renew(self._loop.time())
        over = self.peers.expired(self._loop.time())
        for node in over:
            self._lost(node)
        if over and self.is_first:
            await self._register.remove(set(over))

    def _remind(self) -> None:
        for speaker in self._reminded:
            speaker()

    def _beat_ended(self, outcome: Outcome) -> None:
        error = outcome.error
        if isinstance(error, asyncio.CancelledError):
            return
        if error is not None and not isinstance(error, BrokerUnavailable | OutcomeUnknown):
            logger.error("a node's beat failed", exc_info=error)
        if not self._dispatcher.closed:
            self._timer = self._wheel.after(BEAT_SECONDS, self._begin_beat)

    # --- asking

    async def say(self, envelope: Envelope, node: str | None = None) -> None:
        """Say something to ``node``, or to all others. Raises as `Broker.publish` does, and `MessageTooLarge`."""
        await self._broker.publish(ALL if node is None else stream_of_node(node), seal(envelope))

    async def tell(self, kind: str, body: bytes, node: str | None = None) -> None:
        """Ask for something without an answer: of ``node``, or of all others. The same errors."""
        await self.say(Question(self.node, 0, kind, body), node)

    async def ask(
        self,
        kind: str,
        body: bytes,
        take: Callable[[str, bytes], None],
        *,
        timeout: float,  # noqa: ASYNC109 - the nodes are told it
        lag: float = 0.0,
        nodes: frozenset[str],
    ) -> tuple[str, ...]:
        """Ask ``nodes`` and return those that did not answer in full within ``timeout`` seconds.

        A node that uses all of that time has ``lag`` seconds more until its answer must be here.

        ``take`` is called with a node and a part of its answer, for each part, in the node's order; what msgspec raises
        there means that the node has not answered. A node that joins meanwhile is not waited for.

        Raises:
            BrokerUnavailable: nobody was asked.
            MessageTooLarge: the question is larger than the broker takes.

        """
        if not nodes:
            return ()
        self._number += 1
        number, inquiry = self._number, _Inquiry(nodes, take)
        alive = self.peers.ids
        for dead in nodes - alive:
            inquiry.lose(dead)
        self._inquiries[number] = inquiry
        try:
            question = Question(self.node, number, kind, body, float(timeout))
            for node in (None,) if nodes == alive else nodes & alive:
                await self.say(question, node)
            await inquiry.wait(timeout + lag)
        finally:
            del self._inquiries[number]
            for node in inquiry.open:  # it is given up
                self._start(self.say(Withdrawn(self.node, number), node))
        return tuple(sorted(inquiry.unreachable))

    # --- from the broker

    def entry(self, stream: str, gen: str, entry: Entry) -> None:
        """Nobody appends here (`bellwire.brokers.base.Listener`)."""
        self._ignore("malformed")

    def volatile(self, stream: str, body: bytes) -> None:
        """An envelope arrived, or what should be one."""
        match unseal(body):
            case Unreadable(reason):
                self._ignore(reason)
            case Direct(target, published):
                self.direct(target, published)
            case Answer() as answer:
                self._answered(answer)
            case Alive(node, ask) if node != self.node:
                self._heard(node)
                if ask:
                    self._start(self.say(Alive(self.node), node))
            case Gone(node) if node != self.node:
                if self.peers.left(node):
                    self._lost(node)
            case Question() as question if question.node != self.node:
                self._answer(question)
            case Withdrawn(node, number):
                self._withdraw(node, number)

    def _ignore(self, reason: str) -> None:
        self._counters.dropped("envelope", reason=reason, policy="ignored")

    def _heard(self, node: str) -> None:
        if node != self.node and self.peers.heard(node, self._loop.time()):
            for watcher in self._watchers:
                watcher.node_joined(node)

    def _lost(self, node: str) -> None:
        for inquiry in tuple(self._inquiries.values()):
            inquiry.lose(node)
        for asker, number in tuple(self._answering):
            if asker == node:
                self._withdraw(node, number)
        for watcher in self._watchers:
            watcher.node_left(node)

    def _answered(self, answer: Answer) -> None:
        inquiry = self._inquiries.get(answer.number)
        if inquiry is not None:
            try:
                inquiry.answered(answer)
            except UNREADABLE:
                self._counters.dropped("answer", reason="malformed", policy="node_unreachable")

    def _answer(self, question: Question) -> None:
        ear = self._ears.get(question.kind)
        if ear is not None:
            ear(question.node, question.body)
            return
        answerer = self._answerers.get(question.kind)
        asked = Asked(self, question)
        if answerer is None or self._asked >= MAX_ASKED:
            reason = "unknown_kind" if answerer is None else "too_many"
            self._counters.dropped("question", reason=reason, policy="failed")
            self._start(asked.end(failed=True))
        else:
            self._asked += 1
            if asked.number:
                self._answering[asked.node, asked.number] = asked
            self._start(self._run(answerer, asked))

    def _withdraw(self, node: str, number: int) -> None:
        asked = self._answering.pop((node, number), None)
        if asked is not None:
            asked.number = 0
            asked.withdrawn()

    async def _run(self, answerer: Answerer, asked: Asked) -> None:
        failed = True
        try:
            await answerer(asked)
            failed = False
        except (BrokerUnavailable, OutcomeUnknown):
            raise
        except Malformed:
            self._counters.dropped("question", reason="malformed", policy="failed")
        except Exception as error:
            logger.error("a question of node %s was not answered", asked.node, exc_info=error)
        finally:
            self._asked -= 1
            self._answering.pop((asked.node, asked.number), None)
        await asked.end(failed=failed)

    def _start(self, job: Coroutine[Any, Any, None]) -> None:
        self._dispatcher.run(job, _told)


def _nothing() -> None:
    """Whoever answers is soon done anyway."""


def _told(outcome: Outcome) -> None:
    """Whoever asked finds out by himself if he was not told."""
