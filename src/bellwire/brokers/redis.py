"""The broker on Redis (7.0 or newer) or Valkey: one server, or the master that Sentinels name.

An append is one script, which numbers, stores and publishes a message in one step that nothing comes between. There
are two connections: one for commands, one for what is published. What they do to each other, and to the guarantee::

    either connection lost         both are made again, with jitter; all streams are followed again, and the newest
                                   entry of each is told, so that a gap shows
    the server is a replica now    its scripts refuse, and so does the next look: both connections are made again
    another replication id         a failover: a stream goes on under another generation when it is touched, and
                                   readers beyond what came through are `diverged`
    the connection outlived both   (A to B, and back to A, between two looks) streams may go on under the same
    changes of the master's role   generation: the numbers and tags of the chain tell the difference
    the identity is missing        all was wiped: streams and keys begin anew, under other generations

How much a failover may take back is set on the server: ``min-replicas-to-write`` and ``min-replicas-max-lag`` bound it.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
import secrets
import time
from collections.abc import Callable
from typing import Final

from typing_extensions import override

from bellwire.brokers.base import Broker, Kept, Listener
from bellwire.brokers.redis_address import RedisAddress
from bellwire.brokers.redis_keys import Keys
from bellwire.brokers.redis_link import ANSWER_TIMEOUT, Link, Part, Refused, Subscriptions, Unanswered
from bellwire.brokers.redis_live import Live
from bellwire.brokers.redis_sentinel import locate
from bellwire.brokers.redis_server import check_server
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
    leave_replica,
    place_of,
    run,
)
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, ConfigError, OutcomeUnknown
from bellwire.delivery.answer import PAGE_BYTES, PAGE_MESSAGES, Answer
from bellwire.delivery.entry import Draft
from bellwire.delivery.log import DEFAULT_LIMITS, Appended, Limits
from bellwire.delivery.position import Point, Position

MAX_BACKOFF: Final = 5.0
LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the server: its role, its replication id, its time, and whether publications arrive."""

TOUCH_EVERY: Final = KEEP / 8
"""Seconds after which the streams that somebody follows are kept for another while."""

_BASE_BACKOFF: Final = 0.05
_CLOCK_SAMPLES: Final = 3
_CLOCK_SLACK: Final = 0.1
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
        self._offset: float | None = None
        self._clock_floor = 0.0
        self._scripts = Scripts()
        self._fixed = fixed_arguments(limits)
        self._link: Link | None = None
        self._subscriptions: Subscriptions | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._replication = b""
        self._identity = b""
        self._generation = ""
        self._salt = secrets.token_hex(6)
        self._generations_made = 0
        self._keys = Keys(prefix, lambda: self._scripts, self._saw_replication)
        self._lives: dict[bytes, Live] = {}
        self._locks = [asyncio.Lock() for _ in range(_LOCKS)]
        self._probe = f"{prefix}:{{probe}}:{self._salt}".encode()
        self._heard = 0.0
        self._touched = 0.0

    # --- life

    @override
    async def start(self) -> None:
        if self._keeper is not None:
            return
        await self._connect()
        self._keeper = asyncio.create_task(self._keep(), name="bellwire: Redis")

    @override
    async def close(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        self._lives.clear()
        self._drop()

    @override
    def clock(self) -> float:
        if self._offset is None:
            return 0.0
        self._clock_floor = max(self._clock_floor, self._monotonic() + self._offset)
        return self._clock_floor

    def _drop(self) -> None:
        links, self._link, self._subscriptions = (self._link, self._subscriptions), None, None
        for link in links:
            if link is not None:
                link.close()

    async def _connect(self) -> None:
        """Connect, look at the server and follow all streams again; the other methods work from then on."""
        address = await locate(RedisAddress.parse(self._url() if callable(self._url) else self._url))
        link, subscriptions = Link(self._counters), Subscriptions(self._published, self._counters)
        try:
            await link.open(address)
            await subscriptions.open(address)
            await check_server(link)
            for script in self._scripts:
                await link.ask("SCRIPT", "LOAD", script.source)
            for _ in range(_CLOCK_SAMPLES):
                await self._look(link)
            await subscriptions.subscribe(self._probe)
            lives = [*self._lives.values()]
            for start in range(0, len(lives), _AT_ONCE):
                some = lives[start : start + _AT_ONCE]
                await asyncio.gather(*(self._follow_again(link, subscriptions, live) for live in some))
        except (Unanswered, Refused) as error:
            link.close()
            subscriptions.close()
            raise BrokerUnavailable(f"Redis cannot be used: {error}") from error
        except BaseException:
            link.close()
            subscriptions.close()
            raise
        self._link, self._subscriptions = link, subscriptions
        self._heard = self._touched = asyncio.get_running_loop().time()

    async def _keep(self) -> None:
        """Hold the connections: when one is lost, make others, later each time and never all nodes at once."""
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
                except Exception:  # whatever answers there is no Redis that can be used
                    logger.exception("Redis cannot be used")

    async def _until_lost(self) -> None:
        """Look at the server again and again, until that fails."""
        link, subscriptions = self._link, self._subscriptions
        while link is not None and subscriptions is not None and not subscriptions.lost.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await _first_lost(link, subscriptions)
                    break
            try:
                link.tell("SPUBLISH", self._probe, b"")
                await self._look(link)
                self._touch(link)
            except (BrokerUnavailable, Unanswered, Refused):
                break
            if asyncio.get_running_loop().time() - self._heard > ANSWER_TIMEOUT + LOOK_EVERY:
                logger.warning("Redis publishes nothing to us any more: connecting again")
                break
        self._drop()

    async def _look(self, link: Link) -> None:
        """Learn the server's time, replication id and identity.

        The time not a moment early: what is appended later is never older than this clock said.
        """
        key = f"{self._prefix}:identity".encode()
        now, replication, identity = await run(link, self._scripts.status, [key], [secrets.token_hex(16)])
        sample = int(now) / 1e6 - self._monotonic()
        if self._offset is None or sample > self._offset or sample < self._offset - _CLOCK_SLACK:
            self._offset = sample
        if identity != self._identity:
            self._identity = identity
            self._generation = ""
        self._saw_replication(replication)

    def _saw_replication(self, replication: bytes) -> None:
        if replication != self._replication or not self._generation:
            self._replication = replication
            self._generation = hashlib.blake2b(self._identity + b" " + replication, digest_size=8).hexdigest()

    def _touch(self, link: Link) -> None:
        """Keep the streams that somebody here follows, be there new entries or not."""
        now = asyncio.get_running_loop().time()
        if now - self._touched > TOUCH_EVERY:
            self._touched = now
            for live in self._lives.values():
                place = self._place(live.stream)
                for key in (place.meta, place.log):
                    link.tell("PEXPIRE", key, int(KEEP * 1000), "GT")

    def _require(self) -> Link:
        link, subscriptions = self._link, self._subscriptions
        if link is None or subscriptions is None:
            raise BrokerUnavailable("the broker is not started, closed, or Redis is away")
        if link.lost.is_set():
            raise BrokerUnavailable(link.why)
        return link

    @override
    def limit(self, limits: Limits) -> None:
        self._limits = limits
        self._fixed = fixed_arguments(limits)

    # --- scripts

    def _place(self, stream: str) -> Place:
        return place_of(self._prefix, stream)

    def _arguments(self, *more: Part) -> tuple[Part, ...]:
        self._generations_made += 1
        return (self._replication, f"{self._salt}.{self._generations_made}", *self._fixed, *more)

    async def _ask(self, script: Script, place: Place, *more: Part) -> list[bytes]:
        """Run a script that changes nothing that anybody would miss: without an answer, nothing happened."""
        link = self._require()
        try:
            answer: list[bytes] = await run(link, script, (place.log, place.meta), self._arguments(*more))
        except (Unanswered, Refused) as error:
            leave_replica(link, error)
            raise BrokerUnavailable(f"Redis: {error}") from error
        return answer

    # --- streams

    @override
    async def append(self, stream: str, draft: Draft, *, deadline: float | None = None) -> Appended:
        link = self._require()
        place = self._place(stream)
        keys = (place.log, place.meta, place.mids + draft.mid.encode("utf-8", "surrogatepass"), place.channel)
        arguments = self._arguments(*append_arguments(draft, deadline, self._limits))
        try:
            return appended(await run(link, self._scripts.append, keys, arguments), draft.tag)
        except (Unanswered, Refused) as error:
            leave_replica(link, error)
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
        gen, seq, tag = await self._ask(self._scripts.top, self._place(stream), b"")
        return Position(gen.decode(), int(seq), int(tag))

    @override
    async def forget(self, stream: str) -> None:
        link, place = self._require(), self._place(stream)
        try:
            await link.ask("UNLINK", place.log, place.meta)
        except Refused as error:
            leave_replica(link, error)
            raise BrokerUnavailable(f"Redis: {error}") from error
        except Unanswered as error:
            raise OutcomeUnknown(stream) from error

    # --- live

    @override
    async def subscribe(self, stream: str, listener: Listener) -> None:
        self._require()
        place = self._place(stream)
        async with self._lock(place):
            link, subscriptions = self._require(), self._subscriptions
            live = self._lives.get(place.channel)
            if live is None:
                if subscriptions is None:
                    raise BrokerUnavailable("the connection to Redis is lost")
                live = Live(stream, place.channel, self._counters)
                await self._follow(link, subscriptions, live)
                self._lives[place.channel] = live
            live.add(listener)

    async def _follow(self, link: Link, subscriptions: Subscriptions, live: Live) -> None:
        """Subscribe, and learn where the stream stands: what is there already is never told."""
        place = self._place(live.stream)
        try:
            await subscriptions.subscribe(live.channel)
            _, seq, tag = await run(link, self._scripts.top, (place.log, place.meta), self._arguments(b""))
            if subscriptions is not self._subscriptions:
                raise BrokerUnavailable("the connection to Redis is lost")
        except (Unanswered, Refused) as error:
            subscriptions.unsubscribe(live.channel)
            raise BrokerUnavailable(f"Redis: {error}") from error
        except BaseException:
            subscriptions.unsubscribe(live.channel)
            raise
        live.known = Point(int(seq), int(tag))

    async def _follow_again(self, link: Link, subscriptions: Subscriptions, live: Live) -> None:
        """Subscribe on a new connection, and tell the newest entry: those who missed some find out."""
        known, place = live.known, self._place(live.stream)
        await subscriptions.subscribe(live.channel)
        gen, _, _, *newest = await run(link, self._scripts.top, (place.log, place.meta), self._arguments(b"1"))
        if self._lives.get(live.channel) is not live:  # unsubscribed meanwhile
            subscriptions.unsubscribe(live.channel)
        elif newest and newest[0]:
            live.wake(gen.decode(), newest[0], known)

    @override
    async def unsubscribe(self, stream: str, listener: Listener) -> None:
        if self._keeper is None:
            raise BrokerUnavailable("the broker is not started, or closed")
        place = self._place(stream)
        async with self._lock(place):
            live = self._lives.get(place.channel)
            if live is None:
                return
            live.remove(listener)
            if not live.listeners:
                del self._lives[place.channel]
                if self._subscriptions is not None:
                    self._subscriptions.unsubscribe(place.channel)

    @override
    async def publish(self, stream: str, body: bytes) -> None:
        link = self._require()
        check_size(len(body))
        link.tell("SPUBLISH", self._place(stream).channel, VOLATILE + body)

    @override
    def has_log(self, stream: str) -> bool:
        return True  # whether another node appended to it is known to the server alone

    def _lock(self, place: Place) -> asyncio.Lock:
        """One subscription is made or ended at a time, of those that share a lock."""
        return self._locks[hash(place.channel) % _LOCKS]

    def _published(self, channel: bytes, payload: bytes) -> None:
        live = self._lives.get(channel)
        if live is not None:
            live.take(payload)
        elif channel == self._probe:
            self._heard = asyncio.get_running_loop().time()

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


async def _first_lost(*links: Link) -> None:
    """Return when one of them is lost."""
    waiting = [asyncio.ensure_future(link.lost.wait()) for link in links]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
