"""Keyed state in Redis: one key each, compared and replaced by a script.

A script's answer is that of a server which was a master when it ran; `get` brings that master's replication id along.
So a failover is known before what was read after it is returned.
"""

from collections.abc import Callable
from typing import Final, NoReturn

from bellwire.brokers.base import Kept
from bellwire.brokers.redis_link import Link, Part, Refused, Unanswered
from bellwire.brokers.redis_streams import Scripts, check_size, did_nothing, leave_replica, micros, place_of, run
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown

_ANY: Final = b""


class Keys:
    """The keys of one prefix; ``seen`` is told the replication id of the server that answered."""

    def __init__(self, prefix: str, scripts: Callable[[], Scripts], seen: Callable[[bytes], None]) -> None:
        self._prefix = prefix
        self._scripts = scripts
        self._seen = seen

    async def get(self, link: Link, key: str) -> Kept | None:
        """Return what is kept under ``key``, as `Broker.get` says."""
        try:
            replication, *kept = await run(link, self._scripts().get, [self._key(key)], ())
        except (Refused, Unanswered) as error:
            leave_replica(link, error)
            raise BrokerUnavailable(f"Redis: {error}") from error
        self._seen(replication)
        return Kept(kept[1], int(kept[0])) if kept else None

    async def put(self, link: Link, key: str, value: bytes, *, expected: int | None, ttl: float | None) -> int | None:
        """Keep ``value``, as `Broker.put` says."""
        check_size(len(value))
        compare: Part = _ANY if expected is None else expected
        lasting: Part = _ANY if ttl is None else micros(ttl)
        try:
            revision = await run(link, self._scripts().put, [self._key(key)], (value, compare, lasting))
        except (Refused, Unanswered) as error:
            _tell(link, key, error)
        return None if revision is None else int(revision)

    async def delete(self, link: Link, key: str, *, expected: int | None) -> bool:
        """Remove ``key``, as `Broker.delete` says."""
        compare: Part = _ANY if expected is None else expected
        try:
            return bool(await run(link, self._scripts().delete, [self._key(key)], (compare,)))
        except (Refused, Unanswered) as error:
            _tell(link, key, error)

    def _key(self, key: str) -> bytes:
        return place_of(self._prefix, key).key


def _tell(link: Link, key: str, error: Refused | Unanswered) -> NoReturn:
    leave_replica(link, error)
    if isinstance(error, Refused) and did_nothing(error):
        raise BrokerUnavailable(f"Redis: {error}") from error
    raise OutcomeUnknown(key) from error
