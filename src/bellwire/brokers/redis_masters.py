"""All servers that take writes: one for each part of the slots of a Redis Cluster, or one for all of them.

What a server refuses because a slot is not there, or moves, it did not do; so it is done elsewhere or again::

    MOVED       the slot is another's: after a failover, or when it has been migrated; a new map is asked for first
    ASK         what is asked for has been migrated, and the rest of the slot is still about to be: once, over there
    TRYAGAIN    some keys of one stream are here and some there: again in a moment

A master that is lost has no slots until a new map names another one, or it is back; the others go on.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias, TypeVar

from bellwire.brokers.redis_address import RedisAddress
from bellwire.brokers.redis_link import ANSWER_TIMEOUT, Link, Part, Refused, Unanswered
from bellwire.brokers.redis_master import Master
from bellwire.brokers.redis_slots import SLOTS, Shard, ask_shards
from bellwire.brokers.redis_streams import Script, Scripts, leave_replica, run
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable

PATIENCE: Final = 5.0
"""Seconds for which a slot is followed on its way to another server."""

DEAF_AFTER: Final = ANSWER_TIMEOUT + 1.0
"""Seconds without what a server is asked to publish to us at each look."""

_PAUSE: Final = 0.02
_MOVING: Final = frozenset(("MOVED", "ASK", "TRYAGAIN"))

logger = logging.getLogger("bellwire.brokers")

T = TypeVar("T")
Follow: TypeAlias = Callable[[Master, Shard], Awaitable[None]]


class _Line:
    """Those who wait to try again while a slot moves, the first of them first."""

    __slots__ = ("length", "turn")

    def __init__(self) -> None:
        self.length = 0
        self.turn = asyncio.Lock()


class Masters:
    """Who holds which slot. ``scripts`` are those to be run, ``make`` returns a master that is not open yet.

    ``disturbed`` is to be set when the map may be wrong; then, and at the start, `renew` is to be called.
    """

    def __init__(
        self,
        disturbed: asyncio.Event,
        make: Callable[[], Master],
        scripts: Callable[[], Scripts],
        counters: Counters,
    ) -> None:
        self.disturbed = disturbed
        self.generation = ""
        """One for the memory of all masters together, as `Broker.generation` says."""
        self.offset: float | None = None
        """What to add to this process's clock to have that of the server that is latest; None before the start."""
        self._make = make
        self._scripts = scripts
        self._counters = counters
        self._shards: dict[RedisAddress, Shard] = {}
        self._masters: dict[RedisAddress, Master] = {}
        self._by_slot: list[Master | None] = [None] * SLOTS
        self._memories: dict[int, bytes] = {}
        self._lines: dict[int, _Line] = {}
        self._renewed = asyncio.Event()

    def of(self, slot: int) -> Master:
        """Return the master that holds a slot.

        Raises:
            BrokerUnavailable: nobody does, as far as we know.

        """
        master = self._by_slot[slot]
        if master is None:
            raise BrokerUnavailable("the broker is not started, closed, or Redis is away")
        if master.is_lost:
            raise BrokerUnavailable(master.link.why)
        return master

    def close(self) -> None:
        """End all connections."""
        masters, self._masters = self._masters, {}
        self._by_slot = [None] * SLOTS
        for master in masters.values():
            master.close()

    # --- what is asked

    async def run(
        self, slot: int, script: Script, keys: Sequence[bytes], arguments: Callable[[bytes], Sequence[Part]]
    ) -> tuple[Master, Any]:
        """Run a script where the slot is, and return who did and its answer; ``arguments`` is given its replication id.

        Raises:
            BrokerUnavailable, Refused, Unanswered: as `Link.ask` does.

        """
        return await self.patiently(slot, lambda master: self.run_at(master, script, keys, arguments))

    async def run_in_order(
        self, slot: int, script: Script, keys: Sequence[bytes], arguments: Callable[[bytes], Sequence[Part]]
    ) -> Any:
        """Run a script as `run` does; what is asked for first this way is done first, also while the slot moves."""

        async def action(master: Master) -> Any:
            _, answer = await self.run_at(master, script, keys, arguments)
            return answer

        if slot not in self._lines:
            try:
                return await action(self.of(slot))
            except Refused as error:
                if error.code not in _MOVING:
                    raise
        until = asyncio.get_running_loop().time() + PATIENCE
        async with self._turn(slot):
            return await self.patiently(slot, action, until)

    @asynccontextmanager
    async def _turn(self, slot: int) -> AsyncIterator[None]:
        """Wait in line for a slot, which is there as long as somebody is in it."""
        line = self._lines.setdefault(slot, _Line())
        line.length += 1
        try:
            async with line.turn:
                yield
        finally:
            line.length -= 1
            if not line.length:
                del self._lines[slot]

    async def run_at(
        self, master: Master, script: Script, keys: Sequence[bytes], arguments: Callable[[bytes], Sequence[Part]]
    ) -> tuple[Master, Any]:
        """Run a script on a master, or on the one that it says its keys have gone to."""
        try:
            return master, await run(master.link, script, keys, arguments(master.replication))
        except Refused as error:
            leave_replica(master.link, error)
            target = self._named(error) if error.code == "ASK" else None
            if target is None:
                raise
        target.link.tell("ASKING")
        command = "EVAL", script.source, len(keys), *keys, *arguments(target.replication)
        return target, await target.link.ask(*command)

    def _named(self, redirection: Refused) -> Master | None:
        """Return the master in ``ASK slot host:port``; None if it has no slot yet, and we no connection to it."""
        host, _, port = str(redirection).rpartition(" ")[2].rpartition(":")
        for address, master in self._masters.items():
            if (address.host, str(address.port)) == (host, port):
                return master
        return None

    async def patiently(self, slot: int, action: Callable[[Master], Awaitable[T]], until: float | None = None) -> T:
        """Do something on the master of a slot, again while the slot is on its way to another one.

        That is `PATIENCE` from the first refusal on, unless it is said ``until`` when.
        """
        while True:
            try:
                return await action(self.of(slot))
            except Refused as error:
                now = asyncio.get_running_loop().time()
                until = now + PATIENCE if until is None else until
                if error.code not in _MOVING or now > until:
                    raise
                if error.code == "MOVED":
                    await self._until_renewed(until)
                else:
                    await asyncio.sleep(_PAUSE)

    async def _until_renewed(self, until: float) -> None:
        self.disturbed.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._renewed.wait()

    # --- who they are

    async def renew(self, address: RedisAddress, follow: Follow) -> None:
        """Find out who holds which slot, starting at ``address``, and connect to those we are not connected to.

        ``follow`` is awaited for each master before its slots are first used, and for those that hold others now.

        Raises:
            BrokerUnavailable: some slots, or all, have nobody.
            ConfigError: a server is not to be used as it is.

        """
        self.disturbed.clear()
        self._leave_lost()
        shards = {shard.address: shard for shard in await self._ask_shards(address)}
        for gone in self._masters.keys() - shards.keys():
            self._masters.pop(gone).close()
        self._shards, self._by_slot = shards, [None] * SLOTS
        for place, master in self._masters.items():
            self._give(master, shards[place])
        serving = (self._serve(shard, follow) for shard in shards.values())
        served = await asyncio.gather(*serving, return_exceptions=True)
        self._learn()
        renewed, self._renewed = self._renewed, asyncio.Event()
        renewed.set()
        faults = [fault for fault in served if fault is not None]
        if faults:
            raise next((fault for fault in faults if not isinstance(fault, BrokerUnavailable)), faults[0])

    def _leave_lost(self) -> None:
        for address, master in [*self._masters.items()]:
            if master.is_lost:
                master.close()
                del self._masters[address]
                self._counters.add("broker_connections_lost_total")

    async def _ask_shards(self, address: RedisAddress) -> list[Shard]:
        """Ask one of those we are connected to, any, as some may be late; else those that are named, in their order."""
        connected = [*self._masters.items()]
        random.shuffle(connected)
        for place, master in connected:
            with contextlib.suppress(BrokerUnavailable, Refused, Unanswered):
                return await ask_shards(master.link, place._replace(others=address.others))
        faults = []
        for host, port in ((address.host, address.port), *address.others):
            link, place = Link(), address._replace(host=host, port=port)
            try:
                await link.open(place)
                return await ask_shards(link, place)
            except (BrokerUnavailable, Refused, Unanswered) as error:
                faults.append(str(error))
            finally:
                link.close()
        raise BrokerUnavailable("; ".join(faults))

    async def _serve(self, shard: Shard, follow: Follow) -> None:
        master = self._masters.get(shard.address)
        try:
            if master is None:
                await self._connect(shard, follow)
            else:
                await master.stand_on(shard.first)
                await follow(master, shard)
        except (Refused, Unanswered) as error:
            raise BrokerUnavailable(f"Redis: {error}") from error

    async def _connect(self, shard: Shard, follow: Follow) -> None:
        master = self._make()
        await master.open(shard, self._scripts())
        try:
            await follow(master, shard)
        except BaseException:
            master.close()
            raise
        self._masters[shard.address] = master
        self._give(master, shard)

    def _give(self, master: Master, shard: Shard) -> None:
        for first, last in shard.ranges:
            self._by_slot[first : last + 1] = [master] * (last + 1 - first)

    # --- what they are

    async def look(self) -> None:
        """Look at all of them; who does not answer, or publishes nothing any more, is left."""
        await asyncio.gather(*map(self._look, [*self._masters.values()]))
        self._learn()

    async def _look(self, master: Master) -> None:
        try:
            await master.look(self._scripts())
        except Refused as error:
            if error.code == "CLUSTERDOWN":
                self.disturbed.set()  # where it stands apart from the others, they know who follows it
            elif error.code not in _MOVING:
                master.close()
        except (BrokerUnavailable, Unanswered):
            master.close()
        else:
            if asyncio.get_running_loop().time() - master.subscriptions.heard > DEAF_AFTER:
                logger.warning("Redis publishes nothing to us any more: connecting again")
                master.close()

    def saw(self, master: Master, replication: bytes) -> None:
        """Take the replication id that came with an answer."""
        if replication != master.replication:
            master.replication = replication
            self._learn()

    def _learn(self) -> None:
        """Put together what is known of each; of one that is away, what was."""
        self.offset = min((master.offset for master in self._masters.values()), default=self.offset)
        self._memories = {shard.first: self._memory(shard) for shard in self._shards.values()}
        together = b"\n".join(memory for _, memory in sorted(self._memories.items()))
        self.generation = hashlib.blake2b(together, digest_size=8).hexdigest()

    def _memory(self, shard: Shard) -> bytes:
        master = self._masters.get(shard.address)
        if master is None:
            return self._memories.get(shard.first, b"")
        return master.identity + b" " + master.replication
