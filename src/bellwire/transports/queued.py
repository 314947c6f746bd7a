"""What carriers have in common whose messages wait in this process, and not in a transport's own buffer."""

import asyncio
from typing import TYPE_CHECKING

from typing_extensions import override

from bellwire.protocol.outgoing import Message
from bellwire.transports.base import Carrier

if TYPE_CHECKING:
    from bellwire.transports.engine import Engine


class QueuedCarrier(Carrier):
    """Keeps messages in a queue, counts their bytes, and lets whoever reads from the client be made to wait."""

    __slots__ = ("_buffered", "_engine", "_gate", "_queue")

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._queue: list[Message] = []
        self._buffered = 0
        self._gate: asyncio.Future[None] | None = None

    @property
    @override
    def buffered(self) -> int:
        return self._buffered

    @property
    @override
    def writable(self) -> bool:
        return self._buffered <= self._engine.config.volatile_buffer_bytes

    @override
    def set_reading(self, reading: bool) -> None:
        if not reading and self._gate is None:
            self._gate = self._engine.loop.create_future()
        elif reading and self._gate is not None:
            self._gate.set_result(None)
            self._gate = None

    async def _may_read(self) -> None:
        """Wait until reading is allowed."""
        if self._gate is not None:
            await self._gate
