"""Whether a server is to be sent clients: what balancers ask again and again."""

import asyncio
import logging
from typing import Final, NamedTuple

from bellwire.brokers.base import Broker
from bellwire.core.errors import BrokerUnavailable

PROBE: Final = "ready"
"""A key that is never there: to look for it takes the broker's word that it answers."""

ANSWERED_WITHIN: Final = 2.0
"""Seconds that the broker has to answer."""

BELIEVED: Final = 1.0
"""Seconds for which an answer holds: several may ask, and none of them is known."""


class Verdict(NamedTuple):
    """``reason`` says in a few words why it is not ``ready``."""

    ready: bool
    reason: str = "ready"


ENDED: Final = Verdict(False, "the server has ended")

logger = logging.getLogger("bellwire.ops")


class Readiness:
    """Asks the broker on behalf of all who want to know."""

    __slots__ = ("_asking", "_at", "_broker", "_verdict")

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._at = -BELIEVED
        self._verdict = Verdict(True)
        self._asking: asyncio.Task[Verdict] | None = None

    async def look(self) -> Verdict:
        """Return whether clients are to be sent here; it never raises."""
        if asyncio.get_running_loop().time() - self._at < BELIEVED:
            return self._verdict
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name="bellwire: readiness")
        asking = self._asking
        await asyncio.wait((asking,))
        return ENDED if asking.cancelled() else asking.result()

    async def _ask(self) -> Verdict:
        verdict = Verdict(True)
        try:
            async with asyncio.timeout(ANSWERED_WITHIN):
                await self._broker.get(PROBE)
        except (BrokerUnavailable, TimeoutError):
            verdict = Verdict(False, "the broker does not answer")
        except Exception as error:
            logger.error("asking the broker whether it is there failed", exc_info=error)
            verdict = Verdict(False, "the broker cannot be asked")
        self._at, self._verdict, self._asking = asyncio.get_running_loop().time(), verdict, None
        return verdict

    async def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))
