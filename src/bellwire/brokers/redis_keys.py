"""Keyed state in Redis: one key each, compared and replaced by a script.

A script's answer is that of a server which was a master when it ran; `get` brings that master's replication id along.
So a failover is known before what was read after it is returned.
"""

from collections.abc import Callable
from typing import Any, Final, NoReturn

from bellwire.brokers.base import Kept
from bellwire.brokers.redis_link import Part, Refused, Unanswered
from bellwire.brokers.redis_master import Master
from bellwire.brokers.redis_masters import Masters
from bellwire.brokers.redis_streams import Script, Scripts, check_size, did_nothing, micros, place_of
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown

_ANY: Final = b""


class Keys:
    """The keys of one prefix."""

    def __init__(self, prefix: str, masters: Masters, scripts: Callable[[], Scripts]) -> None:
        self._prefix = prefix
        self._masters = masters
        self._scripts = scripts

    async def get(self, key: str) -> Kept | None:
        """Return what is kept under ``key``, as `Broker.get` says."""
        try:
            master, (replication, *kept) = await self._run(self._scripts().get, key)
        except (Refused, Unanswered) as error:
            raise BrokerUnavailable(f"Redis: {error}") from error
        self._masters.saw(master, replication)
        return Kept(kept[1], int(kept[0])) if kept else None

    async def put(self, key: str, value: bytes, *, expected: int | None, ttl: float | None) -> int | None:
        """Keep ``value``, as `Broker.put` says."""
        check_size(len(value))
        compare: Part = _ANY if expected is None else expected
        lasting: Part = _ANY if ttl is None else micros(ttl)
        try:
            _, revision = await self._run(self._scripts().put, key, value, compare, lasting)
        except (Refused, Unanswered) as error:
            _tell(key, error)
        return None if revision is None else int(revision)

    async def delete(self, key: str, *, expected: int | None) -> bool:
        """Remove ``key``, as `Broker.delete` says."""
        compare: Part = _ANY if expected is None else expected
        try:
            return bool((await self._run(self._scripts().delete, key, compare))[1])
        except (Refused, Unanswered) as error:
            _tell(key, error)

    async def _run(self, script: Script, key: str, *arguments: Part) -> tuple[Master, Any]:
        place = place_of(self._prefix, key)
        return await self._masters.run(place.slot, script, [place.key], lambda _: arguments)


def _tell(key: str, error: Refused | Unanswered) -> NoReturn:
    if isinstance(error, Refused) and did_nothing(error):
        raise BrokerUnavailable(f"Redis: {error}") from error
    raise OutcomeUnknown(key) from error
