"""The broker in memory, some way off."""

import asyncio
from typing import Final

from typing_extensions import override

from bellwire.brokers.base import Kept
from bellwire.brokers.memory import MemoryBroker
from bellwire.delivery.position import Position

LAG: Final = 0.001


class FarBroker(MemoryBroker):
    """One whose answers take `LAG` seconds, so that all who ask at the same moment see the same; it counts them."""

    asked = 0
    """How often a key was asked for,"""
    looking = most = 0
    """how many ask for the top of a stream now, and how many did at most."""

    @override
    async def get(self, key: str) -> Kept | None:
        self.asked += 1
        kept = await super().get(key)
        await asyncio.sleep(LAG)
        return kept

    @override
    async def top(self, stream: str) -> Position:
        self.looking += 1
        self.most = max(self.most, self.looking)
        await asyncio.sleep(LAG)
        self.looking -= 1
        return await super().top(stream)
