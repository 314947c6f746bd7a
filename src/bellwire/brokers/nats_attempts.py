"""What a node remembers of its appends to JetStream: those that were not answered, and the last answers.

JetStream's own memory of message ids is that of the messages it holds: after a crash, or on a replica that was started
again meanwhile, an entry that was evicted is as if it had never been there. So an attempt without an answer is noted
with a number from which on its message must be sought before it is made again. An answer to a duplicate has no tag; of
what was appended from here it is remembered.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from bellwire.core.counters import Counters
from bellwire.delivery.log import Appended

_MAX_DOUBTS: Final = 10_000
_MAX_ANSWERS: Final = 4_096


class Doubt(NamedTuple):
    """An append without an answer: the highest number seen before its first attempt, its connection, and when."""

    since: int
    connection: int
    at: float


class Attempts:
    """Both memories; ``window`` is how many seconds brokers remember ids at all."""

    def __init__(self, window: float, monotonic: Callable[[], float], counters: Counters) -> None:
        self._window = window
        self._monotonic = monotonic
        self._counters = counters
        self._doubts: OrderedDict[str, Doubt] = OrderedDict()
        self._answers: OrderedDict[str, Appended] = OrderedDict()

    def doubt(self, ident: str) -> Doubt | None:
        """Return the memory of an attempt that was not answered."""
        doubt = self._doubts.get(ident)
        if doubt is not None and doubt.at < self._monotonic() - self._window:
            del self._doubts[ident]
            return None
        return doubt

    def unanswered(self, ident: str, since: int, connection: int) -> None:
        """Note an attempt that was made on this connection."""
        self._doubts[ident] = Doubt(since, connection, self._monotonic())
        if len(self._doubts) > _MAX_DOUBTS:
            self._doubts.popitem(last=False)
            self._counters.dropped("doubt", reason="too_many", policy="oldest_dropped")

    def settled(self, ident: str) -> None:
        """There is an answer, of whichever attempt."""
        self._doubts.pop(ident, None)

    def answered(self, ident: str, appended: Appended) -> None:
        """Remember what was appended."""
        self.settled(ident)
        self._answers[ident] = appended.again
        if len(self._answers) > _MAX_ANSWERS:
            self._answers.popitem(last=False)

    def answer(self, ident: str, seq: int) -> Appended | None:
        """Return the answer that was given for the message with this id if it has number ``seq``."""
        known = self._answers.get(ident)
        return known if known is not None and known.point.seq == seq else None
