"""One server that takes writes: a connection for commands, one for what is published, and what was learned from it."""

import secrets
from collections.abc import Callable
from typing import Final

from bellwire.brokers.redis_link import Link, Refused, Subscriptions, Unanswered
from bellwire.brokers.redis_server import check_server
from bellwire.brokers.redis_slots import Shard, tag_of
from bellwire.brokers.redis_streams import Scripts, run
from bellwire.core.errors import BrokerUnavailable

_CLOCK_SAMPLES: Final = 3
_CLOCK_SLACK: Final = 0.1


class Master:
    """A server, from `open` until one of its connections is lost or it is closed; then both are.

    ``stem`` is what all keys begin with, ``salt`` tells this process from others, ``monotonic`` is its clock.
    """

    def __init__(
        self, link: Link, subscriptions: Subscriptions, stem: bytes, salt: bytes, monotonic: Callable[[], float]
    ) -> None:
        self.link = link
        self.subscriptions = subscriptions
        self.replication = b""
        """The id of the history that it replicates, empty if we may not ask."""
        self.identity = b""
        """What its memory is told by since it was empty; it lies in the first of its slots."""
        self.offset = 0.0
        """What to add to this process's clock to have the server's, never too much."""
        self._stem = stem
        self._salt = salt
        self._monotonic = monotonic
        self._identity_key = self._probe = b""

    @property
    def is_lost(self) -> bool:
        """Whether one of the connections is lost."""
        return self.link.lost.is_set() or self.subscriptions.lost.is_set()

    def close(self) -> None:
        """End both connections."""
        self.link.close()
        self.subscriptions.close()

    async def open(self, shard: Shard, scripts: Scripts) -> None:
        """Connect, and see whether the server can be used.

        Raises:
            BrokerUnavailable: not now.
            ConfigError: not as it is.

        """
        try:
            await self.link.open(shard.address)
            await self.subscriptions.open(shard.address)
            await check_server(self.link, in_cluster=shard.in_cluster)
            for script in scripts:
                await self.link.ask("SCRIPT", "LOAD", script.source)
            await self.stand_on(shard.first)
            samples = [await self._ask_status(scripts) for _ in range(_CLOCK_SAMPLES)]
        except (Unanswered, Refused) as error:
            self.close()
            raise BrokerUnavailable(f"Redis cannot be used: {error}") from error
        except BaseException:
            self.close()
            raise
        self.offset = max(samples)

    async def stand_on(self, slot: int) -> None:
        """Keep the identity, and listen to ourselves, in this slot, the first one; raises as `Link.ask` does."""
        stem = self._stem + b"{" + tag_of(slot) + b"}:"
        if self._identity_key != stem + b"identity":
            probe = stem + b"probe:" + self._salt
            await self.subscriptions.subscribe(probe)
            self._identity_key, self._probe = stem + b"identity", probe
            self.subscriptions.hear()

    async def look(self, scripts: Scripts) -> None:
        """Learn the server's time, replication id and identity, and publish to ourselves; raises as `Link.ask` does.

        The time not a moment early: what is appended later is never older than this clock said.
        """
        self.link.tell("SPUBLISH", self._probe, b"")
        sample = await self._ask_status(scripts)
        if sample > self.offset or sample < self.offset - _CLOCK_SLACK:
            self.offset = sample

    async def _ask_status(self, scripts: Scripts) -> float:
        answer = await run(self.link, scripts.status, [self._identity_key], [secrets.token_hex(16)])
        now, self.replication, self.identity = answer
        return int(now) / 1e6 - self._monotonic()
