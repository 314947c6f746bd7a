"""The slots of Redis Cluster, and which master holds them; a server that is in no cluster holds them all.

The cluster's specification, sections "Key distribution model" and "Hash tags".
"""

import binascii
from functools import lru_cache
from itertools import count
from typing import Any, Final, NamedTuple

from bellwire.brokers.redis_address import RedisAddress
from bellwire.brokers.redis_link import Link, Refused
from bellwire.core.errors import BrokerUnavailable, ConfigError

SLOTS: Final = 16_384

_NO_CLUSTER: Final = frozenset(("ERR", "NOPERM"))
"""What a server that is in no cluster answers, and one whose user may not ask; `check_server` tells the two apart."""


class Shard(NamedTuple):
    """A master, and the ranges of slots that it holds, each with its first and last one."""

    address: RedisAddress
    ranges: tuple[tuple[int, int], ...]
    in_cluster: bool

    def holds(self, slot: int) -> bool:
        """Whether this slot is its."""
        return any(first <= slot <= last for first, last in self.ranges)

    @property
    def first(self) -> int:
        """The lowest of its slots."""
        return min(start for start, _ in self.ranges)


def slot_of(tag: bytes) -> int:
    """Return the slot of all keys and channels with ``tag`` in braces: CRC-16/XMODEM, modulo the number of slots."""
    return binascii.crc_hqx(tag, 0) % SLOTS


@lru_cache(maxsize=1_024)
def tag_of(slot: int) -> bytes:
    """Return a tag whose slot this is."""
    return next(tag for number in count() if slot_of(tag := b"%d" % number) == slot)


async def ask_shards(link: Link, address: RedisAddress) -> list[Shard]:
    """Ask the server at ``address`` which masters there are, in the order of their first slots.

    Raises:
        ConfigError: several servers are named, and they are no cluster.
        BrokerUnavailable: it is in a cluster, and knows of no master yet.
        Refused, Unanswered: as `Link.ask` does.

    """
    try:
        answer = await link.ask("CLUSTER", "SLOTS")
    except Refused as error:
        if error.code not in _NO_CLUSTER:
            raise
        if address.others:
            raise ConfigError(
                "broker names several servers of Redis, and they are no cluster, or the user may not ask for CLUSTER "
                "SLOTS: name one server, or Sentinels with ?sentinel=name"
            ) from error
        return [Shard(address, ((0, SLOTS - 1),), in_cluster=False)]
    shards = _shards(answer, address)
    if not shards:
        raise BrokerUnavailable("the Redis Cluster has no slots yet: give its masters some")
    return shards


def _shards(answer: list[Any], asked: RedisAddress) -> list[Shard]:
    """Read the answer to CLUSTER SLOTS; a server that does not know its own name has the one it was asked under."""
    ranges: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for first, last, (host, port, *_), *_ in answer:
        place = (host.decode() if host else asked.host), int(port)
        ranges.setdefault(place, []).append((int(first), int(last)))
    shards = [
        Shard(asked._replace(host=host, port=port, others=()), tuple(sorted(held)), in_cluster=True)
        for (host, port), held in ranges.items()
    ]
    return sorted(shards, key=lambda shard: shard.first)
