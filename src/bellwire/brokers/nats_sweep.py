"""What limits leave over in JetStream's partitions, and who takes it out.

JetStream itself limits a stream's entries by number alone. What is too old or too much in bytes is passed over when
it is read; it is taken out here, by the node that wrote it, up to the entry that proves where the history starts.
Streams of which nobody heard for a day go as a whole: each left an entry or two.

What is to be kept is spared by number, never by a count: that would race with what is appended meanwhile.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from bellwire.brokers.nats_link import Link, Message, Unanswered
from bellwire.brokers.nats_streams import (
    Reader,
    ask_api,
    partition_name,
    sequence,
    stamp,
    trimmed,
)
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.log import Limits
from bellwire.delivery.position import START

FORGET_AFTER: Final = 24 * 3600.0
"""Seconds after its newest entry when a stream that nobody follows is forgotten."""

_FORGET_EVERY: Final = 3600.0
_BATCH: Final = 500
_AT_ONCE: Final = 64

logger = logging.getLogger("bellwire.brokers")


class _Written:
    """What this node wrote to a stream since it was swept."""

    __slots__ = ("size", "swept")

    def __init__(self, swept: float) -> None:
        self.size = 0
        self.swept = swept


class Sweep:
    """Takes out what is left over; ``clock`` is the broker's, ``monotonic`` this process's."""

    def __init__(
        self,
        prefix: str,
        reader: Reader,
        limits: Limits,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        counters: Counters,
    ) -> None:
        self._prefix = prefix
        self._reader = reader
        self.limits = limits
        self._clock = clock
        self._monotonic = monotonic
        self._counters = counters
        self._written: dict[str, _Written] = {}
        self._due = asyncio.Event()
        self._forgot: float | None = None

    def count(self, stream: str, size: int) -> None:
        """Remember that this node appended ``size`` bytes to ``stream``."""
        written = self._written.get(stream)
        if written is None:
            written = self._written[stream] = _Written(self._monotonic())
        written.size += size
        if written.size > self.limits.size:
            self._due.set()

    async def run(self, link: Callable[[], Awaitable[Link]], followed: Callable[[], set[str]]) -> None:
        """Sweep now and then, for ever; ``followed`` tells which subjects have listeners here."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.limits.age / 10):
                    await self._due.wait()
            self._due.clear()
            try:
                await self._turn(await link(), followed)
            except (BrokerUnavailable, Unanswered):
                continue  # away: the next turn has it
            except Exception:
                logger.exception("the sweep failed")

    async def _turn(self, link: Link, followed: Callable[[], set[str]]) -> None:
        horizon = self._monotonic() - self.limits.age
        for stream in [s for s, w in self._written.items() if w.size > self.limits.size or w.swept < horizon]:
            del self._written[stream]
            if await self.sweep(link, stream):
                self._written.setdefault(stream, _Written(self._monotonic()))
        if self._forgot is None or self._monotonic() - self._forgot > _FORGET_EVERY:
            self._forgot = self._monotonic()
            await self.forget(link, followed)

    async def sweep(self, link: Link, stream: str) -> bool:
        """Take out of a stream what its limits do not keep, and return whether more than the newest is left.

        The entry before the oldest that counts stays: it proves where the history starts.
        """
        stored = await self._reader.whole(link, stream)
        chain = trimmed(stored, self.limits, self._clock())
        if chain.base != START and stored[0].seq < chain.base.seq:
            await self._purge(link, self._reader.place(stream).partition, self._reader.subject(stream), chain.base.seq)
            self._counters.add("broker_swept_streams_total")
        return len(chain) > 1

    async def drop(self, link: Link, stream: str) -> None:
        """Take out all that is in a stream."""
        await self._purge(link, self._reader.place(stream).partition, self._reader.subject(stream))
        self._written.pop(stream, None)

    async def forget(self, link: Link, followed: Callable[[], set[str]]) -> None:
        """Take out the streams whose newest entry is older than a day and that nobody follows, here or elsewhere.

        A reader that comes back to one finds an empty log and is reset, as its position is not in it.
        """
        for partition in range(self._reader.partitions):
            seq, more = 1, True
            while more:
                old, more = await self._old(link, partition, seq)
                subjects = {message.headers["Nats-Subject"] for message in old}
                unheard = sorted(subjects - followed())
                for start in range(0, len(unheard), _AT_ONCE):
                    some = unheard[start : start + _AT_ONCE]
                    await asyncio.gather(*(self._forget(link, partition, subject) for subject in some))
                seq = sequence(old[-1]) + 1 if old else seq

    async def _old(self, link: Link, partition: int, seq: int) -> tuple[list[Message], bool]:
        """Return a partition's messages from number ``seq`` on that are older than a day, and whether to ask on."""
        request = {"seq": seq, "next_by_subj": f"{self._prefix}.in.{partition}.*", "batch": _BATCH}
        subject = f"$JS.API.DIRECT.GET.{partition_name(self._prefix, partition)}"
        messages = await link.ask_many(subject, msgspec.json.encode(request))
        horizon = self._clock() - FORGET_AFTER
        old = [message for message in messages if stamp(message.headers["Nats-Time-Stamp"]) < horizon]
        return old, bool(messages) and len(old) == len(messages)

    async def _forget(self, link: Link, partition: int, subject: str) -> None:
        request = {"last_by_subj": subject}
        direct = f"$JS.API.DIRECT.GET.{partition_name(self._prefix, partition)}"
        newest = await link.ask(direct, msgspec.json.encode(request))
        if newest.status or stamp(newest.headers["Nats-Time-Stamp"]) >= self._clock() - FORGET_AFTER:
            return
        if await link.is_heard(subject.replace(f"{self._prefix}.in.", f"{self._prefix}.out.", 1)):
            return  # members on another node stand there
        await self._purge(link, partition, subject, sequence(newest) + 1)
        self._counters.add("broker_forgotten_streams_total")

    async def _purge(self, link: Link, partition: int, subject: str, below: int | None = None) -> None:
        name = partition_name(self._prefix, partition)
        request = {"filter": subject} if below is None else {"filter": subject, "seq": below}
        answer = await ask_api(link, f"STREAM.PURGE.{name}", request)
        if "error" in answer:
            raise BrokerUnavailable(f"JetStream refused a purge: {answer['error'].get('description')}")
