"""The broker in memory, some way off."""

import asyncio
from typing import Final

from typing_extensions import override

from bellwire.brokers.base import Kept
from bellwire.brokers.memory import MemoryBroker

LAG: Final = 0.001


class FarBroker(MemoryBroker):
    """One whose answers take `LAG` seconds, so that all who ask at the same moment see the same; it counts them."""

    asked = 0

    @override
    async def get(self, key: str) -> Kept | None:
        self.asked += 1
        kept = await super().get(key)
        await asyncio.sleep(LAG)
        return kept
