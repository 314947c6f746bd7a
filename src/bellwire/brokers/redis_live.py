"""One stream's live messages from Redis, told to the listeners.

Each live entry names its own predecessor, so nothing is asked for before it is told. Only after a reconnection the
newest entry is read and told as if it had been live, so that those who missed something find out::

    known      the last point that was told; an entry is told once
    floor      the generation and number of an entry that was read: what was appended before it while it was read
               may still arrive, and is not told behind it
"""

from bellwire.brokers.base import Listener
from bellwire.brokers.envelope import kind_published
from bellwire.brokers.redis_link import Subscriptions
from bellwire.brokers.redis_streams import ENTRY, VOLATILE, opened, opened_live
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.entry import Entry
from bellwire.delivery.position import START, Point


class Live:
    """The subscription to one stream; ``source`` is the connection that it is told on, none while there is none."""

    __slots__ = ("_counters", "_floor", "_published", "channel", "known", "listeners", "source", "stream")

    def __init__(self, stream: str, channel: bytes, counters: Counters) -> None:
        self.stream = stream
        self.channel = channel
        self.listeners: tuple[Listener, ...] = ()
        self.source: Subscriptions | None = None
        self.known: Point = START
        self._floor: tuple[str, int] | None = None
        self._counters = counters
        self._published = kind_published(stream)

    @property
    def is_followed(self) -> bool:
        """Whether it is told now what is published."""
        return self.source is not None and not self.source.lost.is_set()

    def add(self, listener: Listener) -> None:
        """Tell ``listener`` from now on, once."""
        if listener not in self.listeners:
            self.listeners = (*self.listeners, listener)

    def remove(self, listener: Listener) -> None:
        """Do not tell it any more."""
        self.listeners = tuple([other for other in self.listeners if other is not listener])

    def take(self, payload: bytes) -> None:
        """Take what was published; it never raises, whatever it is."""
        kind = payload[:1]
        if kind == ENTRY:
            self._counters.add("broker_messages_total", kind="entry")
            try:
                gen, entry = opened_live(payload)
            except BrokerUnavailable:
                self._drop("malformed")
            else:
                self._arrived(gen, entry)
        elif kind == VOLATILE:
            self._counters.add("broker_messages_total", kind=self._published)
            body = payload[1:]
            for listener in self.listeners:
                listener.volatile(self.stream, body)
        else:
            self._drop("malformed")

    def wake(self, gen: str, record: bytes, known: Point) -> None:
        """Take the newest entry, read after a reconnection, unless something newer than ``known`` was told since."""
        if self.known != known:
            return
        try:
            entry = opened(record)
        except BrokerUnavailable:
            self._drop("malformed")
            return
        if entry.point != known:
            self._tell(gen, entry)
            self._floor = gen, entry.seq

    # --- within

    def _arrived(self, gen: str, entry: Entry) -> None:
        floor = self._floor
        if floor is not None:
            if floor[0] == gen and entry.seq <= floor[1]:
                return
            self._floor = None
        self._tell(gen, entry)

    def _tell(self, gen: str, entry: Entry) -> None:
        self.known = entry.point
        for listener in self.listeners:
            listener.entry(self.stream, gen, entry)

    def _drop(self, reason: str) -> None:
        self._counters.dropped("live", reason=reason, policy="repaired_from_history")
