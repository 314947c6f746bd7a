"""The broker on Redis (7.0 or newer) or Valkey: one server, the master that Sentinels name, or a cluster.

An append is one script, which numbers, stores and publishes a message in one step that nothing comes between. There
are two connections to each master: one for commands, one for what is published. What becomes of them, and what that
does to the guarantee::

    either connection lost         both are made again, with jitter; all streams of that master are followed again, and
                                   the newest entry of each is told, so that a gap shows
    the server is a replica now    its scripts refuse, and so does the next look: both connections are made again
    a slot has moved               the server ends what follows its streams, or refuses what is asked for: they are
                                   followed where the slot is now, and the newest entry of each is told
    another replication id         a failover, or a move: a stream goes on under another generation when it is touched,
                                   and readers beyond what came through are `diverged`
    the connection outlived both   (A to B, and back to A, between two looks) streams may go on under the same
    changes of the master's role   generation: the numbers and tags of the chain tell the difference
    the identity is missing        all was wiped: streams and keys begin anew, under other generations

How much a failover may take back is set on the server: ``min-replicas-to-write`` and ``min-replicas-max-lag`` bound it.
"""

import asyncio
import contextlib
import itertools
import logging
import random
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Final, cast

from typing_extensions import override

from bellwire.brokers.asked import Asked
from bellwire.brokers.base import Broker, Kept, Listener
from bellwire.brokers.redis_address import RedisAddress
from bellwire.brokers.redis_keys import Keys
from bellwire.brokers.redis_link import Link, Part, Refused, Subscriptions, Unanswered
from bellwire.brokers.redis_live import Live
from bellwire.brokers.redis_master import Master
from bellwire.brokers.redis_masters import Masters
from bellwire.brokers.redis_sentinel import locate
from bellwire.brokers.redis_slots import Shard
from bellwire.brokers.redis_streams import (
    KEEP,
    VOLATILE,
    Place,
    Script,
    Scripts,
    answered,
    append_arguments,
    appended,
    check_size,
    did_nothing,
    fixed_arguments,
    place_of,
)
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, ConfigError, OutcomeUnknown
from bellwire.delivery.answer import PAGE_BYTES, PAGE_MESSAGES, Answer
from bellwire.delivery.entry import Draft
from bellwire.delivery.log import DEFAULT_LIMITS, Appended, Limits
from bellwire.delivery.position import Point, Position

MAX_BACKOFF: Final = 5.0
LOOK_EVERY: Final = 1.0
"""Seconds between two looks at each server: its role, its replication id, its time, and whether publications arrive."""

TOUCH_EVERY: Final = KEEP / 8
"""Seconds after which the streams that somebody follows are kept for another while, some at each look."""

_PAUSE: Final = 0.05
_BASE_BACKOFF: Final = 0.05
_LOCKS: Final = 64
_AT_ONCE: Final = 256

logger = logging.getLogger("bellwire.brokers")


class RedisBroker(Broker):
    """Streams and keys on the Redis server at ``url``, or at what ``url`` returns before each connection.

    ``prefix`` keeps several applications apart on one server. ``monotonic`` is this process's clock in seconds.

    Raises:
        ConfigError: the address is none, or the prefix holds other characters than letters, digits, ``-`` and ``_``.

    """

    def __init__(
        self,
        url: str | Callable[[], str],
        limits: Limits = DEFAULT_LIMITS,
        *,
        prefix: str = "bellwire",
        counters: Counters | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (prefix.isascii() and prefix.replace("-", "").replace("_", "").isalnum()):
            raise ConfigError(f"prefix is {prefix!r}: it becomes a part of Redis keys, use letters, digits, - and _")
        if isinstance(url, str):
            RedisAddress.parse(url)
        self._url = url
        self._limits = limits
        self._prefix = prefix
        self._counters = Counters() if counters is None else counters
        self._monotonic = monotonic
        self._clock_floor = 0.0
        self._scripts = Scripts()
        self._fixed = fixed_arguments(limits)
        self._salt = secrets.token_hex(6)
        self._generations_made = 0
        self._disturbed = asyncio.Event()
        self._masters = Masters(self._disturbed, self._make_master, lambda: self._scripts, self._counters)
        self._keys = Keys(prefix, self._masters, lambda: self._scripts)
        self._tasks: list[asyncio.Task[None]] = []
        self._tops = Asked(self._top_now)
        self._lives: dict[bytes, Live] = {}
        self._locks = [asyncio.Lock() for _ in range(_LOCKS)]
        self._touched = 0.0
        self._untouched: list[str] = []

    def _make_master(self) -> Master:
        link = Link(self._counters, self._disturbed)
        subscriptions = Subscriptions(self._published, self._dropped, self._counters, self._disturbed)
        return Master(link, subscriptions, f"{self._prefix}:".encode(), self._salt.encode(), self._monotonic)

    # --- life

    @override
    async def start(self) -> None:
        if self._tasks:
            return
        try:
            await self._renew()
        except BaseException:
            self._masters.close()
            raise
        self._touched = asyncio.get_running_loop().time()
        self._tasks = [
            asyncio.create_task(self._keep(), name="bellwire: Redis"),
            asyncio.create_task(self._watch(), name="bellwire: a look at Redis"),
        ]

    @override
    async def close(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._lives.clear()
        self._masters.close()

    @override
    def clock(self) -> float:
        offset = self._masters.offset
        if offset is not None:
            self._clock_floor = max(self._clock_floor, self._monotonic() + offset)
        return self._clock_floor

    async def _renew(self) -> None:
        address = await locate(RedisAddress.parse(self._url() if callable(self._url) else self._url))
        await self._masters.renew(address, self._follow_all)

    async def _keep(self) -> None:
        """Hold the connections: when one is lost, make others, later each time unless there is something new."""
        while True:
            await self._disturbed.wait()
            for attempt in itertools.count():
                await asyncio.sleep(_jittered(_PAUSE))  # never all nodes at once
                if await self._try_to_renew():
                    break
                self._disturbed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_jittered(min(MAX_BACKOFF, _BASE_BACKOFF * 2**attempt))):
                        await self._disturbed.wait()

    async def _try_to_renew(self) -> bool:
        try:
            await self._renew()
        except BrokerUnavailable:
            return False
        except Exception:  # whatever answers there is no Redis that can be used
            logger.exception("Redis cannot be used")
            return False
        return True

    async def _watch(self) -> None:
        """Look at all masters again and again, and keep the streams that somebody follows, be they still or not."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self._masters.look()
            if not self._untouched and loop.time() - self._touched > TOUCH_EVERY:
                self._touched = loop.time()
                self._untouched = [live.stream for live in self._lives.values()]
            self._touch()

    def _touch(self) -> None:
        """Keep the next few: all of them at once would hold up the loop, and be more than may wait for an answer."""
        streams = self._untouched[-_AT_ONCE:]
        del self._untouched[-_AT_ONCE:]
        for place in map(self._place, streams):
            for key in (place.meta, place.log):
                with contextlib.suppress(BrokerUnavailable):
                    self._masters.of(place.slot).link.tell("PEXPIRE", key, int(KEEP * 1000), "GT")

    @override
    def limit(self, limits: Limits) -> None:
        self._limits = limits
        self._fixed = fixed_arguments(limits)

    # --- scripts

    def _place(self, stream: str) -> Place:
        return place_of(self._prefix, stream)

    def _arguments(self, more: Sequence[Part]) -> Callable[[bytes], Sequence[Part]]:
        """Return what gives a script on a stream its arguments, each attempt those of its own."""

        def arguments(replication: bytes) -> Sequence[Part]:
            self._generations_made += 1
            return (replication, f"{self._salt}.{self._generations_made}", *self._fixed, *more)

        return arguments

    async def _ask(self, script: Script, place: Place, *more: Part) -> list[bytes]:
        """Run a script that changes nothing that anybody would miss: without an answer, nothing happened."""
        try:
            _, answer = await self._masters.run(place.slot, script, (place.log, place.meta), self._arguments(more))
        except (Unanswered, Refused) as error:
            raise BrokerUnavailable(f"Redis: {error}") from error
        return cast("list[bytes]", answer)

    # --- streams

    @override
    async def append(self, stream: str, draft: Draft, *, deadline: float | None = None) -> Appended:
        place = self._place(stream)
        keys = (place.log, place.meta, place.mids + draft.mid.encode("utf-8", "surrogatepass"), place.channel)
        arguments = self._arguments(append_arguments(draft, deadline, self._limits))
        try:
            answer = await self._masters.run_in_order(place.slot, self._scripts.append, keys, arguments)
            return appended(answer, draft.tag)
        except (Unanswered, Refused) as error:
            if isinstance(error, Refused) and did_nothing(error):
                raise BrokerUnavailable(f"Redis: {error}") from error
            raise OutcomeUnknown(draft.mid) from error

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
        # Every answer is a master's, and as much confirmed as one that follows on a write.
        more = after.gen.encode("utf-8", "surrogatepass"), after.seq, after.tag, messages, size
        return answered(await self._ask(self._scripts.read, self._place(stream), *more))

    @override
    async def top(self, stream: str) -> Position:
        return await self._tops(stream)

    async def _top_now(self, stream: str) -> Position:
        gen, seq, tag = await self._ask(self._scripts.top, self._place(stream), b"")
        return Position(gen.decode(), int(seq), int(tag))

    @override
    async def forget(self, stream: str) -> None:
        place = self._place(stream)
        try:
            await self._masters.run(place.slot, self._scripts.forget, (place.log, place.meta), lambda _: ())
        except Refused as error:
            raise BrokerUnavailable(f"Redis: {error}") from error
        except Unanswered as error:
            raise OutcomeUnknown(stream) from error

    # --- live

    @override
    async def subscribe(self, stream: str, listener: Listener, *, new: bool = False) -> None:
        place = self._place(stream)
        async with self._lock(place):
            try:
                live = self._lives.get(place.channel) or await self._begin(stream, place, new=new)
                if not live.is_followed:
                    await self._masters.patiently(place.slot, lambda master: self._follow_again(master, live))
            except (Unanswered, Refused) as error:
                raise BrokerUnavailable(f"Redis: {error}") from error
            live.add(listener)

    async def _begin(self, stream: str, place: Place, *, new: bool) -> Live:
        live = self._lives[place.channel] = Live(stream, place.channel, self._counters)
        try:
            await self._masters.patiently(place.slot, lambda master: self._follow(master, live, new=new))
        except BaseException:
            self._lives.pop(place.channel, None)
            if live.source is not None:
                live.source.unsubscribe(live.channel)
            raise
        return live

    async def _follow(self, master: Master, live: Live, *, new: bool) -> None:
        """Subscribe, and learn where the stream stands: what is there already is never told."""
        live.source = master.subscriptions
        await master.subscriptions.subscribe(live.channel)
        if not new:
            _, seq, tag = await self._top(master, live, b"")
            live.known = Point(int(seq), int(tag))

    async def _top(self, master: Master, live: Live, with_newest: bytes) -> list[bytes]:
        place = self._place(live.stream)
        arguments = self._arguments((with_newest,))
        _, answer = await self._masters.run_at(master, self._scripts.top, (place.log, place.meta), arguments)
        return cast("list[bytes]", answer)

    async def _follow_all(self, master: Master, shard: Shard) -> None:
        """Follow on this master what it holds now, unless that was followed there before."""
        lives = [
            live
            for live in self._lives.values()
            if live.source is not master.subscriptions and shard.holds(self._place(live.stream).slot)
        ]
        faults: list[BaseException | None] = []
        for start in range(0, len(lives), _AT_ONCE):
            following = (self._follow_again(master, live) for live in lives[start : start + _AT_ONCE])
            faults += await asyncio.gather(*following, return_exceptions=True)
        for fault in filter(None, faults):
            raise fault

    async def _follow_again(self, master: Master, live: Live) -> None:
        """Subscribe on another connection, and tell the newest entry: those who missed some find out."""
        known, live.source = live.known, master.subscriptions
        try:
            await master.subscriptions.subscribe(live.channel)
            gen, _, _, *newest = await self._top(master, live, b"1")
        except BaseException:
            if live.source is master.subscriptions:
                live.source = None
            raise
        present = self._lives.get(live.channel)
        if present is None:  # unsubscribed meanwhile
            master.subscriptions.unsubscribe(live.channel)
        elif present is live and newest and newest[0]:
            live.wake(gen.decode(), newest[0], known)

    @override
    async def unsubscribe(self, stream: str, listener: Listener) -> None:
        if not self._tasks:
            raise BrokerUnavailable("the broker is not started, or closed")
        place = self._place(stream)
        async with self._lock(place):
            live = self._lives.get(place.channel)
            if live is None:
                return
            live.remove(listener)
            if not live.listeners:
                del self._lives[place.channel]
                if live.source is not None:
                    live.source.unsubscribe(place.channel)

    @override
    async def publish(self, stream: str, body: bytes) -> None:
        place = self._place(stream)
        link = self._masters.of(place.slot).link
        check_size(len(body))
        link.tell("SPUBLISH", place.channel, VOLATILE + body)

    @override
    def has_log(self, stream: str) -> bool:
        return True  # whether another node appended to it is known to the server alone

    def _lock(self, place: Place) -> asyncio.Lock:
        """One subscription is made or ended at a time, of those that share a lock."""
        return self._locks[hash(place.channel) % _LOCKS]

    def _published(self, source: Subscriptions, channel: bytes, payload: bytes) -> None:
        live = self._lives.get(channel)
        if live is None:
            source.hear()  # what we publish to ourselves, or what nobody listens to any more
        elif live.source is source:
            live.take(payload)

    def _dropped(self, source: Subscriptions, channel: bytes) -> None:
        """Take it that the slot of a channel has moved."""
        live = self._lives.get(channel)
        if live is not None and live.source is source:
            live.source = None
            self._disturbed.set()

    # --- keyed state

    @override
    def generation(self) -> str:
        return self._masters.generation

    @override
    async def get(self, key: str) -> Kept | None:
        return await self._keys.get(key)

    @override
    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl: float | None = None) -> int | None:
        return await self._keys.put(key, value, expected=expected, ttl=ttl)

    @override
    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        return await self._keys.delete(key, expected=expected)


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - nothing secret
