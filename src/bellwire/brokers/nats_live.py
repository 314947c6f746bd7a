"""One stream's live messages from JetStream, put into a chain and told to the listeners.

A republished message names the *number* of the one before it on its subject (``Nats-Last-Sequence``), never that
one's tag. So a subscription remembers the point of the last it told::

    the number before is the one remembered     told at once
    it is another                               messages wait until the point before the first of them was read
    it lies at or below where it began          not told: it was there before the subscription

By the numbers alone a log that was restored from an older state looks the same: it gives numbers out again. So a
message counts as known, or as there before, only if its tag or its time says so as well; and where the newest one after
a reconnection lies below what was told, the chain goes on from there.

What cannot be linked is dropped and counted; the next one shows the gap to whoever listens.
"""

from collections.abc import Callable
from typing import Final

from bellwire.brokers.base import Listener
from bellwire.brokers.envelope import kind_published
from bellwire.brokers.nats_link import LISTENING, Message, Subscription
from bellwire.brokers.nats_streams import LAST_SEQUENCE, SEQUENCE, TIME, opened, sequence, stamp
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.entry import Entry
from bellwire.delivery.position import START, Point

MAX_WAITING: Final = 1_000
"""How many messages wait while the point before them is read; that takes one round trip."""

MAX_OWN: Final = 4_096
"""How many points are kept for appends of this node that wait for their answers."""


class Live:
    """The subscription to one stream; ``bridge`` is called when the point before `first` must be read.

    Whoever is called answers with `bridged` or `give_up`.
    """

    __slots__ = ("_began", "_bridge", "_counters", "_gen", "_heard", "_prevs", "_published", "_waiting", "floor",
                 "known", "listeners", "own", "stream", "subscription")  # fmt: skip

    def __init__(
        self, stream: str, gen: Callable[[], str], bridge: Callable[["Live"], None], counters: Counters
    ) -> None:
        self.stream = stream
        self.listeners: dict[Listener, None] = {}
        self.subscription: Subscription | None = None
        self.known = START
        self.floor = 0
        self.own = 0
        """How many appends of this node wait for their answers: the points before theirs are kept meanwhile."""
        self._began = 0.0
        self._heard = False
        self._gen = gen
        self._bridge = bridge
        self._counters = counters
        self._published = kind_published(stream)
        self._prevs: dict[int, Point] = {}
        self._waiting: list[Message] | None = []

    def take(self, _subject: str, message: Message) -> None:
        """Take what came for the stream; it never raises, whatever it is."""
        is_entry = SEQUENCE in message.headers
        if not is_entry and LISTENING in message.headers:
            return
        self._counters.add("broker_messages_total", kind="entry" if is_entry else self._published)
        if not is_entry:
            for listener in tuple(self.listeners):
                listener.volatile(self.stream, message.data)
            return
        self._heard = True
        if self._waiting is None:
            self._link(message)
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append(message)
        else:
            self._drop("buffer_full")

    def subscribing(self) -> None:
        """A subscription is about to be made: nothing was heard on it yet."""
        self._heard = False

    def opened(self, top: Entry | None) -> None:
        """``top`` was read after the subscription: what is not above it was there before."""
        if top is not None:
            self.known = top.point
            self.floor, self._began = top.seq, top.at
        self._resume(self._waiting or [])

    @property
    def first(self) -> int:
        """The number of the first message that waits."""
        return sequence((self._waiting or [])[0])

    def bridged(self, prev: Point) -> None:
        """``prev`` is the point before the `first`: go on from there."""
        waiting = self._waiting or []
        self._tell(waiting[0], prev)
        self._resume(waiting[1:])

    def give_up(self) -> None:
        """The point before the `first` cannot be read."""
        self._drop("unlinked", len(self._waiting or ()))
        self._waiting = None

    def wake(self, newest: Message | None) -> None:
        """Take the stream's newest message, read after a reconnection, as if it had been live: a gap will show.

        One below what was told, before anything was heard on the new connection: the log lost what is above it.
        """
        if self._waiting is not None:
            return
        try:
            point = START if newest is None else opened(newest, START).point
        except BrokerUnavailable:
            self._drop("malformed")
            return
        if newest is not None and point.seq >= self.known.seq:
            if point != self.known:
                self._waiting = [newest]
                self._bridge(self)
        elif not self._heard:
            self.known = point
            self.floor = min(self.floor, point.seq)

    def prev_of(self, seq: int) -> Point | None:
        """Return the point before number ``seq`` if that was told while an append of this node waited."""
        return self._prevs.get(seq)

    def settle(self) -> None:
        """An append of this node has its answer."""
        self.own -= 1
        if not self.own:
            self._prevs.clear()

    # --- within

    def _resume(self, queue: list[Message]) -> None:
        self._waiting = None
        for index, message in enumerate(queue):
            self._link(message)
            if self._waiting is not None:  # a gap: the rest waits behind it
                self._waiting += queue[index + 1 :]
                return

    def _link(self, message: Message) -> None:
        try:
            seq, last = sequence(message), int(message.headers[LAST_SEQUENCE])
            told = seq > last == self.known.seq
            passed_over = not told and (self._is_known(message) or self._was_before(message))
        except (BrokerUnavailable, KeyError, ValueError):
            self._drop("malformed")
            return
        if told:
            self._tell(message, self.known)
        elif not passed_over:
            self._waiting = [message]
            self._bridge(self)

    def _is_known(self, message: Message) -> bool:
        """Whether this is the last that was told, and not another one under its number."""
        return sequence(message) == self.known.seq and opened(message, START).point == self.known

    def _was_before(self, message: Message) -> bool:
        """Whether it was there before the subscription, by its number and its time."""
        return sequence(message) <= self.floor and stamp(message.headers[TIME]) <= self._began

    def _tell(self, message: Message, prev: Point) -> None:
        try:
            entry = opened(message, prev)
        except BrokerUnavailable:
            self._drop("malformed")
            return
        self.known = entry.point
        if self.own and len(self._prevs) < MAX_OWN:
            self._prevs[entry.seq] = prev
        self._pass_on(entry)

    def _pass_on(self, entry: Entry) -> None:
        gen = self._gen()
        for listener in tuple(self.listeners):
            listener.entry(self.stream, gen, entry)

    def _drop(self, reason: str, n: int = 1) -> None:
        self._counters.dropped("live", reason=reason, policy="repaired_from_history", n=n)
