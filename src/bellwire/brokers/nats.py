"""The broker on NATS: JetStream without consumers (nats-server 2.12 or newer).

An append is one publication, which JetStream stores, numbers, acknowledges and republishes to the nodes that serve
the stream. History is read with direct gets. How streams and keys are laid out stands in `nats_streams` and
`nats_keys`, how live messages become a chain in `nats_live`.

Traps of JetStream that a literal reading of its manual walks into, and what is done about them:

- It remembers message ids for two minutes, but after a crash only those whose messages it still holds. An append
  that was not answered is therefore looked for, after a reconnection, from a number on that was seen before the
  first attempt. Where that range is no longer complete the outcome stays unknown.
- An answer to a duplicate holds the number and nothing else: the tag is read, or remembered if the entry is gone.
- The limits of JetStream count per subject or per partition. Age and bytes are judged when reading; a sweep takes out
  what they leave over.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from typing_extensions import override

from bellwire.brokers.asked import Asked
from bellwire.brokers.base import Broker, Kept, Listener
from bellwire.brokers.nats_address import NatsAddress
from bellwire.brokers.nats_attempts import Attempts, Doubt
from bellwire.brokers.nats_fence import Fence, caught_up
from bellwire.brokers.nats_keys import Keys, keys_config, keys_name
from bellwire.brokers.nats_link import Link, Message, Unanswered
from bellwire.brokers.nats_live import Live
from bellwire.brokers.nats_requirements import check_replicas, denied
from bellwire.brokers.nats_streams import (
    ADVISORY,
    MESSAGE_ID,
    Reader,
    ask_api,
    check_jetstream,
    ensure,
    envelope,
    generation,
    identities,
    identity,
    message_id,
    opened,
    partition_config,
    partition_name,
    stamp,
    stored_as,
    trimmed,
)
from bellwire.brokers.nats_sweep import Sweep
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, ConfigError, OutcomeUnknown
from bellwire.delivery.answer import PAGE_BYTES, PAGE_MESSAGES, Answer, Page, Reason, Unproved
from bellwire.delivery.chain import Chain, Place
from bellwire.delivery.entry import Draft, Entry
from bellwire.delivery.log import DEFAULT_LIMITS, Appended, Limits
from bellwire.delivery.position import START, Point, Position, position

PARTITIONS: Final = 8
"""Into how many JetStream streams the streams are spread. It is a part of where each lies: never change it for a
prefix that is in use."""

MAX_BACKOFF: Final = 5.0
_BASE_BACKOFF: Final = 0.05
_WAIT_FOR_LINK: Final = 5.0
_CLOCK_SAMPLES: Final = 3
_CHECK_EVERY: Final = 10.0
_LOCKS: Final = 64
_FOLLOWED_AT_ONCE: Final = 256
_JUDGED_AT_ONCE: Final = 4
"""How many whole logs are held in memory: whoever names a position that is not there makes us read one."""

logger = logging.getLogger("bellwire.brokers")

T = TypeVar("T")


class _Partition:
    """What is known of a partition: its generation, and the highest number seen."""

    __slots__ = ("gen", "seen")

    def __init__(self) -> None:
        self.gen = ""
        self.seen = 0


class NatsBroker(Broker):
    """Streams and keys on the NATS server at ``url``, or at what ``url`` returns before each connection.

    ``limits`` are set for all who use the server; without them the history stays as long as others have set it.
    ``prefix`` keeps several applications apart on one server. ``monotonic`` is this process's clock in seconds.

    Raises:
        ConfigError: the prefix holds other characters than letters, digits, ``-`` and ``_``.

    """

    def __init__(
        self,
        url: str | Callable[[], str],
        limits: Limits | None = DEFAULT_LIMITS,
        *,
        prefix: str = "bellwire",
        counters: Counters | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (prefix.isascii() and prefix.replace("-", "").replace("_", "").isalnum()):
            raise ConfigError(f"prefix is {prefix!r}: it becomes a part of NATS subjects, use letters, digits, - and _")
        self._url = url
        self._sets_limits = limits is not None
        self._limits = limits = limits or DEFAULT_LIMITS
        self._prefix = prefix
        self._counters = Counters() if counters is None else counters
        self._monotonic = monotonic
        self._offset: float | None = None
        self._clock_floor = 0.0
        self._link: Link | None = None
        self._connections = 0
        self._ready = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._partitions = [_Partition() for _ in range(PARTITIONS)]
        self._generation = ""
        self._names = [partition_name(prefix, p) for p in range(PARTITIONS)] + [keys_name(prefix)]
        self._identities: list[str] = []
        self._fence = Fence()
        self._reader = Reader(prefix, PARTITIONS, self._fence)
        self._keys = Keys(prefix, self._next_link, self.clock, self._fence)
        self._lives: dict[str, Live] = {}
        self._locks = [asyncio.Lock() for _ in range(_LOCKS)]
        self._judging = asyncio.Semaphore(_JUDGED_AT_ONCE)
        self._tops = Asked(self._top_now)
        self._attempts = Attempts(limits.dedupe, monotonic, self._counters)
        self._checking: asyncio.Task[None] | None = None
        self._sweep = Sweep(prefix, self._reader, limits, self.clock, monotonic, self._counters)

    # --- life

    @override
    async def start(self) -> None:
        if self._keeper is not None:
            return
        await self._connect()
        self._keeper = asyncio.create_task(self._keep(), name="bellwire: NATS")
        self._spawn(self._sweep.run(self._next_link, self._followed), "sweep")

    @override
    async def close(self) -> None:
        tasks = [*self._tasks]
        if self._keeper is not None:
            tasks.append(self._keeper)
            self._keeper = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._lives.clear()
        self._ready.clear()
        link, self._link = self._link, None
        if link is not None:
            await link.close()
        await self._fence.close()

    @override
    def clock(self) -> float:
        if self._offset is None:
            return 0.0
        self._clock_floor = max(self._clock_floor, self._monotonic() + self._offset)
        return self._clock_floor

    async def _connect(self) -> None:
        """Connect, set everything up and follow all streams again; the other methods work from then on."""
        link = Link(self._look_for_streams)
        url = self._url() if callable(self._url) else self._url
        await link.open(url, name=self._prefix)
        try:
            await self._set_up(link, NatsAddress.parse(url).replicas)
            lives = [*self._lives.values()]
            for start in range(0, len(lives), _FOLLOWED_AT_ONCE):
                some = lives[start : start + _FOLLOWED_AT_ONCE]
                await asyncio.gather(*(self._follow(link, live, again=True) for live in some))
        except (Unanswered, BrokerUnavailable) as error:
            await link.close()
            if link.denied:
                raise denied(link.denied) from error
            raise BrokerUnavailable(f"no answer from NATS: {error}") from error
        except BaseException:
            await link.close()
            raise
        self._connections += 1
        self._link = link
        self._ready.set()

    async def _set_up(self, link: Link, replicas: int | None) -> None:
        await check_jetstream(link)
        for event in ("CREATED", "RESTORE_COMPLETE"):
            await link.subscribe(f"{ADVISORY}.{event}.*", self._advised)
        first = int(time.time() * 1e6)
        configs = [partition_config(self._prefix, p, self._limits, replicas) for p in range(PARTITIONS)]
        configs.append(keys_config(self._prefix, replicas))
        infos = await asyncio.gather(*(ensure(link, c, first, change=self._sets_limits) for c in configs))
        self._reader.replicated = self._keys.replicated = check_replicas(infos, replicas)
        for partition, info in zip(self._partitions, infos, strict=False):
            partition.gen = generation(info)
            partition.seen = max(partition.seen, int(info["state"]["last_seq"]))
        self._identities = [identity(info) for info in infos]
        self._generation = hashlib.blake2b("".join(self._identities).encode(), digest_size=8).hexdigest()
        await self._set_clock(link)

    @override
    def limit(self, limits: Limits) -> None:
        self._limits = self._sweep.limits = limits

    async def _set_clock(self, link: Link) -> None:
        """Learn the server's time. Not a moment early: what is appended later is never older than this clock said."""
        best: tuple[float, float] | None = None
        for _ in range(_CLOCK_SAMPLES):
            asked = self._monotonic()
            info = await ask_api(link, f"STREAM.INFO.{partition_name(self._prefix, 0)}")
            answered = self._monotonic()
            sample = answered - asked, stamp(info["ts"]) - answered
            best = sample if best is None else min(best, sample)
        if best is not None:
            self._offset = best[1]

    async def _keep(self) -> None:
        """Hold a connection: when one is lost, make another, later each time and never all nodes at once."""
        while True:
            await self._until_lost()
            self._counters.add("broker_connections_lost_total")
            attempt = 0
            while self._link is None:
                pause = min(MAX_BACKOFF, _BASE_BACKOFF * 2**attempt)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - nothing secret
                attempt += 1
                try:
                    await self._connect()
                except BrokerUnavailable:
                    continue
                except ConfigError as error:
                    logger.error("NATS is not what it was: %s", error)
                except Exception:  # whatever answers there is no JetStream as we know it
                    logger.exception("NATS cannot be set up")

    async def _until_lost(self) -> None:
        link = self._link
        while link is not None and not link.lost.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_EVERY):
                    await link.lost.wait()
            link.check()
        self._link = None
        self._ready.clear()
        if link is not None:
            await link.close()

    def _look_for_streams(self) -> None:
        """Find out what a question that nobody took is about: a stream is gone, or just has no leader."""
        if self._checking is None or self._checking.done():
            self._checking = self._spawn(self._check_streams(), "check")

    async def _check_streams(self) -> None:
        """End a connection on which a stream is gone, or is another: the next one sets all up and follows anew."""
        link = self._link
        if link is None:
            return
        with contextlib.suppress(Unanswered):
            if await identities(link, self._names) != self._identities:
                await link.close()

    def _advised(self, subject: str, _message: Message) -> None:
        """JetStream made or restored a stream."""
        if self._link is not None and subject.rpartition(".")[2] in self._names:
            self._look_for_streams()

    def _require(self) -> Link:
        if self._link is None or self._link.lost.is_set():
            raise BrokerUnavailable("NATS is away, or the broker not started, or closed: nothing was done, try again")
        return self._link

    async def _next_link(self) -> Link:
        """Return the connection, or the next one if it comes soon."""
        try:
            async with asyncio.timeout(_WAIT_FOR_LINK):
                while self._link is None or self._link.lost.is_set():
                    await asyncio.sleep(0) if self._ready.is_set() else await self._ready.wait()
        except TimeoutError:
            raise BrokerUnavailable("NATS is away") from None
        return self._link

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine, name=f"bellwire: NATS {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- append

    @override
    async def append(self, stream: str, draft: Draft, *, deadline: float | None = None) -> Appended:
        link = self._require()
        self._check_deadline(deadline)
        ident = message_id(stream, draft.mid)
        doubt = self._attempts.doubt(ident)
        if doubt is not None and (doubt.connection != self._connections or self._reader.replicated):
            found = await self._seek(link, stream, draft.mid, doubt.since)
            if found is not None:
                return found
            self._check_deadline(deadline)
        return await self._append(link, stream, draft, ident, doubt)

    def _check_deadline(self, deadline: float | None) -> None:
        if deadline is not None and (late := self.clock() - deadline) > 0:
            raise BrokerUnavailable(f"the attempt came {late:.3f} s after its deadline")

    async def _append(self, link: Link, stream: str, draft: Draft, ident: str, doubt: Doubt | None) -> Appended:
        partition = self._partition(stream)
        since = partition.seen if doubt is None else doubt.since
        payload = envelope(draft)
        live = self._lives.get(stream)
        if live is not None:
            live.own += 1
        try:
            message = await link.ask(self._reader.subject(stream), payload, {MESSAGE_ID: ident})
            seq, duplicate = stored_as(message)
            partition.seen = max(partition.seen, seq)
            try:
                if duplicate:
                    return await self._first_answer(link, stream, draft.mid, ident, seq)
                prev = None if live is None else live.prev_of(seq)
                if prev is None:
                    prev = await self._reader.before(link, stream, seq)
            except BrokerUnavailable as error:  # true of the question after it, not of the append
                raise Unanswered("where it stands") from error
        except (Unanswered, asyncio.CancelledError) as error:
            self._attempts.unanswered(ident, since, self._connections)
            if isinstance(error, Unanswered):
                raise OutcomeUnknown(draft.mid) from error
            raise
        finally:
            if live is not None:
                live.settle()
        appended = Appended(partition.gen, Point(seq, draft.tag), prev, duplicate=False)
        self._attempts.answered(ident, appended)
        self._sweep.count(stream, len(payload))
        return appended

    async def _first_answer(self, link: Link, stream: str, mid: str, ident: str, seq: int) -> Appended:
        """Return the first attempt's answer."""
        known = self._attempts.answer(ident, seq)
        if known is not None:
            return known
        message = await self._reader.numbered(link, stream, seq)
        if message is None:
            raise OutcomeUnknown(mid)  # it was appended, and went out of the history since: where is not known
        prev = await self._reader.before(link, stream, seq)
        entry = opened(message, prev)
        self._attempts.settled(ident)
        return Appended(self._partition(stream).gen, entry.point, prev, duplicate=True)

    async def _seek(self, link: Link, stream: str, mid: str, since: int) -> Appended | None:
        """Look for a message that may have been appended beyond number ``since`` before the connection was lost.

        Raises:
            OutcomeUnknown: it is not there, and may have been.
            BrokerUnavailable: the stream could not be read.

        """
        stored = await self._answer_of(self._reader.all(link, stream))
        for entry in stored:
            if entry.mid == mid and entry.seq > since:
                return Appended(self._partition(stream).gen, entry.point, entry.prev, duplicate=True)
        complete = not stored or stored[0].seq <= since or trimmed(stored, self._limits, self.clock()).base == START
        if not complete:
            raise OutcomeUnknown(mid)
        return None

    def _partition(self, stream: str) -> _Partition:
        return self._partitions[self._reader.place(stream).partition]

    # --- read

    @override
    async def read(
        self,
        stream: str,
        after: Position,
        *,
        messages: int = PAGE_MESSAGES,
        size: int = PAGE_BYTES,
        confirmed: bool = False,
    ) -> Answer:
        link = self._require()
        return await self._answer_of(self._read(link, stream, after, messages, size, confirmed))

    async def _answer_of(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await a question that changes nothing: without an answer, nothing happened."""
        try:
            return await coroutine
        except Unanswered as error:
            raise BrokerUnavailable(f"no answer from NATS: {error}") from error

    async def _read(
        self, link: Link, stream: str, after: Position, messages: int, size: int, confirmed: bool
    ) -> Answer:
        if not confirmed:
            return await self._look(link, stream, after, messages, size, confirmed)
        least = await self._reader.least(link, stream)
        await self._check_generation(link, stream)

        async def look() -> Answer | None:
            answer = await self._look(link, stream, after, messages, size, confirmed)
            return answer if answer.top.seq >= least else None

        return await caught_up(look)

    async def _look(
        self, link: Link, stream: str, after: Position, messages: int, size: int, confirmed: bool
    ) -> Answer:
        if after.seq and after.gen == self._partition(stream).gen:
            page = await self._page(link, stream, after.point, messages, size, confirmed)
            if page is not None:
                return page
        return await self._judge(link, stream, after, messages, size, confirmed)

    async def _check_generation(self, link: Link, stream: str) -> None:
        """Find out whether the partition was made again while we were connected."""
        name = partition_name(self._prefix, self._reader.place(stream).partition)
        info = await ask_api(link, f"STREAM.INFO.{name}")
        if "error" in info:
            await link.close()  # the next connection makes what is missing
            raise BrokerUnavailable(f"JetStream has no stream {name} any more")
        self._partition(stream).gen = generation(info)

    async def _page(
        self, link: Link, stream: str, after: Point, messages: int, size: int, confirmed: bool
    ) -> Page | None:
        """Return what follows on ``after`` if that takes no look at the whole log: nearly always."""
        entries, pending = await self._reader.page(link, stream, after.seq, messages + 1, size)
        if not entries or entries[0].point != after:
            return None
        if len(entries) == 1 and pending:
            onward = await self._reader.onward(link, stream, entries[0], messages, size)
            if onward is None:
                return None
            following, pending = onward
        else:
            following = entries[1:]
        if self._is_trimmed(following, pending):
            return None
        gen = self._partition(stream).gen
        top = following[-1].point if following else after
        if pending:
            newest = await self._reader.newest(link, stream)
            top = top if newest is None else opened(newest, START).point
        chain = Chain(after)
        for entry in following:
            chain.append(entry)
        fitting, more = chain.after(after, messages, size)
        return Page(fitting, position(gen, top), more or pending > 0, confirmed)

    def _is_trimmed(self, following: list[Entry], pending: int) -> bool:
        """Whether the entry behind the position, and so the position, may be beyond the limits of history."""
        if not following or (len(following) == 1 and not pending):
            return False  # the position is the newest entry's, or the one before it
        behind = following if pending else following[:-1]
        return following[0].at < self.clock() - self._limits.age or sum(e.size for e in behind) > self._limits.size

    async def _judge(
        self, link: Link, stream: str, after: Position, messages: int, size: int, confirmed: bool
    ) -> Answer:
        """Read all there is, and answer as the model of a log does (`delivery.log`)."""
        async with self._judging:
            chain = trimmed(await self._reader.whole(link, stream), self._limits, self.clock())
        gen = self._partition(stream).gen
        top = position(gen, chain.top)
        reason, since = Reason.GENERATION, None
        if after.gen == gen:
            place = chain.locate(after.point)
            if place is Place.PROVED:
                entries, more = chain.after(after.point, messages, size)
                return Page(entries, top, more, confirmed)
            reason = Reason.TRUNCATED if place is Place.BEHIND else Reason.DIVERGED
            since = None if place is Place.BEHIND else position(gen, chain.at_most(after.seq))
        return Unproved(reason, position(gen, chain.base), top, confirmed, since)

    @override
    async def top(self, stream: str) -> Position:
        return await self._tops(stream)

    async def _top_now(self, stream: str) -> Position:
        link = self._require()
        newest = await self._answer_of(self._reader.acknowledged(link, stream))
        return position(self._partition(stream).gen, START if newest is None else opened(newest, START).point)

    @override
    async def forget(self, stream: str) -> None:
        await self._answer_of(self._sweep.drop(self._require(), stream))

    # --- live

    @override
    async def subscribe(self, stream: str, listener: Listener, *, new: bool = False) -> None:
        self._require()
        async with self._lock(stream):
            link = self._require()
            live = self._lives.get(stream)
            if live is None:
                live = Live(stream, lambda: self._partition(stream).gen, self._bridge, self._counters)
                await self._answer_of(self._follow(link, live, again=False, new=new))
                if link is not self._link:
                    raise BrokerUnavailable("the connection to NATS is lost")
                self._lives[stream] = live
            live.listeners[listener] = None

    @override
    async def unsubscribe(self, stream: str, listener: Listener) -> None:
        if self._keeper is None:
            raise BrokerUnavailable("the broker is not started, or closed")
        async with self._lock(stream):
            live = self._lives.get(stream)
            if live is None:
                return
            live.listeners.pop(listener, None)
            if not live.listeners:
                del self._lives[stream]
                if live.subscription is not None and self._link is not None:
                    await self._link.unsubscribe(live.subscription)

    @override
    async def publish(self, stream: str, body: bytes) -> None:
        await self._require().publish(self._reader.live_subject(stream), body)

    @override
    def has_log(self, stream: str) -> bool:
        return True  # whether another node appended to it is known to the server alone

    def _lock(self, stream: str) -> asyncio.Lock:
        """One subscription is made or ended at a time, of those that share a lock."""
        return self._locks[hash(stream) % len(self._locks)]

    async def _follow(self, link: Link, live: Live, *, again: bool, new: bool = False) -> None:
        """Subscribe, and read the top on the same connection: the server takes the two in this order."""
        live.subscribing()
        live.subscription = await link.subscribe(self._reader.live_subject(live.stream), live.take)
        newest = None if new else await self._reader.acknowledged(link, live.stream)
        if not again:
            live.opened(None if newest is None else opened(newest, START))
        elif self._lives.get(live.stream) is not live:  # unsubscribed meanwhile
            await link.unsubscribe(live.subscription)
        else:
            live.wake(newest)

    def _bridge(self, live: Live) -> None:
        self._spawn(self._read_before(live), "bridge")

    async def _read_before(self, live: Live) -> None:
        """Read the point before the first message that waits: a live one was lost, or it is another history."""
        try:
            link = await self._next_link()
            prev = await self._reader.before(link, live.stream, live.first)
        except (BrokerUnavailable, Unanswered):
            live.give_up()
        else:
            live.bridged(prev)

    def _followed(self) -> set[str]:
        """Return the subjects of the streams that somebody here follows."""
        return {self._reader.subject(stream) for stream in self._lives}

    # --- keyed state

    @override
    def generation(self) -> str:
        return self._generation

    @override
    async def get(self, key: str) -> Kept | None:
        return await self._keys.get(self._require(), key)

    @override
    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl: float | None = None) -> int | None:
        return await self._keys.put(self._require(), key, value, expected=expected, ttl=ttl)

    @override
    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        return await self._keys.delete(self._require(), key, expected=expected)
