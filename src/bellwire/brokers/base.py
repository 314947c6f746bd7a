"""The contract between Bellwire and a broker: what each method promises, and what it does not.

Accepted means acknowledged: once `Broker.append` has returned, the entry is in the log until the limits of history, or
a failover of the broker, take it out. Nothing here waits for a reader.

A stream's name is opaque to a broker, at most 255 characters of any kind. No name has a meaning: neither ``a.*`` nor
``a`` has anything to do with ``a.b``.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, Protocol

from bellwire.delivery.answer import PAGE_BYTES, PAGE_MESSAGES, Answer
from bellwire.delivery.entry import Draft, Entry
from bellwire.delivery.log import Appended, Limits
from bellwire.delivery.position import Position


class Listener(Protocol):
    """Who is told what a broker publishes live. It is called in the broker's loop, and neither waits nor raises."""

    def entry(self, stream: str, gen: str, entry: Entry) -> None:
        """An entry was appended to ``stream`` under the generation ``gen``."""

    def volatile(self, stream: str, body: bytes) -> None:
        """``body`` was published to ``stream`` beside the log."""


class Kept(NamedTuple):
    """What is kept under a key: the value, and the revision to compare with when it is to be replaced."""

    value: bytes
    revision: int


class Broker(ABC):
    """Logs, live publication and keyed state. All asynchronous methods may raise `BrokerUnavailable`.

    `BrokerUnavailable` says that nothing happened, and that a later attempt may succeed. A method that changes
    something may raise `OutcomeUnknown`: it was asked for, and the answer was lost.
    """

    immediate: ClassVar[bool] = False
    """Whether it has what it is given before anything else happens, so that nothing is gained by not waiting for it."""

    @abstractmethod
    async def start(self) -> None:
        """Connect. Before it has returned, and after `close`, every other method raises `BrokerUnavailable`."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect: no listener is called any more. What was acknowledged stays with the broker."""

    @abstractmethod
    def clock(self) -> float:
        """Return the broker's time in seconds, as far as this process knows it; it never goes back."""

    @abstractmethod
    def limit(self, limits: Limits) -> None:
        """Shorten streams by ``limits`` from now on, and no longer by those that the broker was made with.

        For a program beside the servers, which learns theirs from them (`bellwire.brokers.guest`). What the broker
        itself was set up with for all, as the number of messages in JetStream, is theirs to change.
        """

    # --- streams

    @abstractmethod
    async def append(self, stream: str, draft: Draft, *, deadline: float | None = None) -> Appended:
        """Append a message and publish it live, in one step that nothing comes between.

        - The entry's number is greater than all before it in this generation, its ``prev`` is the point of the entry
          before it, and all readers see the same entries in the same order.
        - Appends that one process asks for one after the other keep their order, whether or not each waits for the one
          before, unless an attempt fails; those of several processes get some order, the same for all.
        - A ``mid`` that was appended to this stream within the last two minutes is not appended again: the answer is
          the first one with ``duplicate`` set, and nothing is published. The window is one of time only, and of this
          stream only: the same ``mid`` may be appended to others.
        - The entry's tag is the draft's, and its time is the broker's.
        - An attempt that reaches the broker after ``deadline``, in the broker's time, is refused as
          `BrokerUnavailable`. So nobody appends a message for which the memory of its ``mid`` has run out.

        Raises:
            BrokerUnavailable: this attempt did nothing.
            OutcomeUnknown: the entry may have been appended. Try again with the same ``mid`` (and a new tag).

        """

    @abstractmethod
    async def read(
        self,
        stream: str,
        after: Position,
        *,
        messages: int = PAGE_MESSAGES,
        size: int = PAGE_BYTES,
        confirmed: bool = False,
    ) -> Answer:
        """Prove the position ``after`` in the log and return what follows on it.

        - A page is in order and without a hole, and its first entry follows on ``after``. It has at most ``messages``
          entries and ``size`` bytes, but an entry if there is one; ``more`` says that others follow.
        - A position is proved by its number and tag: they stand in the log, or are those of the last entry that the
          limits of history took out. A former generation's position is proved up to the last number that was valid in
          it. What is not proved is ``generation``, ``diverged`` or ``truncated``, with the place to restart from.
        - The limits never take out the newest entry.
        - With ``confirmed``, everything that was acknowledged before the call is in the answer's view of the log, and
          so is every failover: the answer is ``confirmed``. Without it a follower may answer that knows less; such an
          answer is right about what it contains, and no verdict about what it does not.
        """

    @abstractmethod
    async def top(self, stream: str) -> Position:
        """Return the position behind the newest entry, number 0 if there was none yet.

        It outlives the entries, and includes all that was acknowledged before the call.
        """

    @abstractmethod
    async def forget(self, stream: str) -> None:
        """Take out all that is in ``stream``, which nobody will read any more: a session's own, once that is over.

        No position in it is proved afterwards; what is appended later begins it anew. Whether what others append at
        the same time stays is not certain.
        """

    @abstractmethod
    async def subscribe(self, stream: str, listener: Listener, *, new: bool = False) -> None:
        """Call ``listener`` for all that is appended and published from the return of this call on.

        If the stream is ``new``, so that nobody else has ever heard of it, it is not asked where it ends.

        - Each is told at most once; it may be lost, and the broker may not know.
        - What is not lost is told in the order of the stream. An entry may be told before its `append` has returned.
        - Several listeners of a stream are all told; the same one twice is told once.
        """

    @abstractmethod
    async def unsubscribe(self, stream: str, listener: Listener) -> None:
        """Do not call ``listener`` for ``stream`` any more; nothing happens if it was not subscribed."""

    @abstractmethod
    async def publish(self, stream: str, body: bytes) -> None:
        """Tell the listeners of ``stream`` now, at most once. It is in no log, and has no order among the entries."""

    @abstractmethod
    def has_log(self, stream: str) -> bool:
        """Return False only where it is certain that nobody has a position in ``stream``, so that `publish` is enough.

        Nothing was ever appended to it (whoever wants to stand on an empty stream appends a marker and stands on that),
        or so long ago that it was forgotten, and who comes with a position in it is answered ``generation``. It is
        asked before each emit, so it waits for nothing; True is always right.
        """

    # --- keyed state: memberships, sessions, producers, leases

    @abstractmethod
    def generation(self) -> str:
        """Return the generation of the keyed state, "" as long as it was never connected to.

        - It changes when writes that were acknowledged may have been lost: a failover, or a state that was made anew.
          It may change as well when that is true of a stream.
        - What `get` returns belongs to it if it is the same before the call and after it. A state that was made anew
          without our knowledge may answer under the former one, but holds nothing that was kept under that.
        """

    @abstractmethod
    async def get(self, key: str) -> Kept | None:
        """Return what is kept under ``key``, None if there is nothing: all that was acknowledged before is seen."""

    @abstractmethod
    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl: float | None = None) -> int | None:
        """Keep ``value`` and return its revision; return None, and change nothing, if the comparison fails.

        - ``expected`` is the revision that must be there now, 0 for none at all, None to compare nothing. Of several
          that expect the same revision one succeeds.
        - A key's revisions grow, and none comes again, even after it was deleted or ran out.
        - ``ttl`` is the time in seconds after which the key is no longer there, counted from this call; None for ever.

        Raises:
            BrokerUnavailable: nothing was kept.
            OutcomeUnknown: it may have been kept; read it back.

        """

    @abstractmethod
    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        """Remove ``key``; return False, and change nothing, if it is not there or has another revision."""
