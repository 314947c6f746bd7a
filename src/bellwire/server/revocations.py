"""Revocations: what a user was given before is good for nothing any more, on whatever node it is shown.

They stand at the broker, one key for each user, and are looked at whenever a client with a user connects or renews its
identity; while the broker is away, nobody does. A client that connects is looked at when it can be found by those who
disconnect its user: so either the revocation is found, or the client is by whoever revokes.
"""

import time
from typing import Final

from bellwire.brokers.base import Broker
from bellwire.core.config import Config
from bellwire.core.errors import BellwireError, OutcomeUnknown, TokenRefused
from bellwire.delivery.revocation import NEVER, Revocation, decode_revocation, encode_revocation, revocation_key
from bellwire.guard.auth import Identity

ATTEMPTS: Final = 8
"""How often it is written when nobody knows whether it was."""


class Revocations:
    """All revocations, as the broker has them."""

    __slots__ = ("_broker", "_seconds")

    def __init__(self, broker: Broker, config: Config) -> None:
        self._broker = broker
        self._seconds = config.revocation_seconds and max(config.revocation_seconds, config.session_lifetime)

    async def revoke(self, user: str) -> None:
        """Refuse from now on what the user was given up to now.

        Raises:
            BrokerUnavailable: nothing was revoked.
            OutcomeUnknown: nobody knows.
            BellwireError: there are none, by the settings.

        """
        if not self._seconds:
            raise BellwireError("revoke() needs Config(revocation_seconds=...): it is 0, so that nothing is looked up")
        key, value = revocation_key(user), encode_revocation(Revocation(time.time(), self._broker.clock()))
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._broker.put(key, value, ttl=self._seconds)
            except OutcomeUnknown:
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    async def check(self, identity: Identity | None) -> Revocation:
        """Return the user's revocation, `NEVER` if there is none, after which what ``identity`` rests on was issued.

        Raises:
            TokenRefused: it was issued before.
            BrokerUnavailable: nobody knows.

        """
        if identity is None or not self._seconds:
            return NEVER
        kept = await self._broker.get(revocation_key(identity.user))
        if kept is None:
            return NEVER
        revocation = decode_revocation(kept.value)
        if revocation.covers(identity.issued):
            raise TokenRefused("token_revoked")
        return revocation
