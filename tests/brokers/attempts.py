"""Appends while a broker is away, and what is said of each."""

import asyncio

from bellwire.brokers.base import Broker
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from tests.brokers.contract import draft


class Attempts:
    """Appends m1, m2, ... to one stream, each once, several at a time; what is said of them is kept."""

    def __init__(self, broker: Broker, stream: str) -> None:
        self.acknowledged: list[str] = []
        self.unavailable: set[str] = set()
        self.unknown: set[str] = set()
        self._broker = broker
        self._stream = stream
        self._made = 0

    async def make(self, count: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                self._made += 1
                group.create_task(self._try(f"m{self._made}"))
                if not self._made % 8:
                    await asyncio.sleep(0.001)

    async def _try(self, mid: str) -> None:
        try:
            await self._broker.append(self._stream, draft(mid))
        except BrokerUnavailable:
            self.unavailable.add(mid)
        except OutcomeUnknown:
            self.unknown.add(mid)
        else:
            self.acknowledged.append(mid)
