"""What carriers have in common whose messages wait in this process, and not in a transport's own buffer."""

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from typing_extensions import override

from bellwire.protocol.outgoing import Message
from bellwire.transports.base import Carrier, Link

if TYPE_CHECKING:
    from bellwire.transports.engine import Engine


L = TypeVar("L", bound=Link)


class QueuedCarrier(Carrier, Generic[L]):
    """Keeps messages in a queue, counts their bytes, and lets whoever reads from the client be made to wait.

    It is congested from ``Config.volatile_buffer_bytes`` on, until a quarter of that is left (as asyncio's transports
    are with their limits, "Flow control").
    """

    __slots__ = ("_buffered", "_congested", "_engine", "_gate", "_pressed", "_queue", "session")

    session: L

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._queue: list[Message] = []
        self._buffered = 0
        self._congested = False
        self._pressed = 0  # bytes that were added since it is congested
        self._gate: asyncio.Future[None] | None = None

    @property
    @override
    def buffered(self) -> int:
        return self._buffered

    @property
    @override
    def writable(self) -> bool:
        return self._buffered <= self._engine.config.volatile_buffer_bytes

    @property
    @override
    def congested(self) -> bool:
        return self._congested

    @property
    @override
    def progress(self) -> int:
        return self._pressed - self._buffered

    def _press(self, message: Message) -> None:
        """``message`` was taken, and more is waiting than for a client that keeps up."""
        if self._congested:
            self._pressed += message.size
        else:
            self._congested = True
            self._pressed = 0
            self._engine.loop.call_soon(self._tell_congested)

    def _relieve(self) -> None:
        """Something was written."""
        if self._congested and self._buffered <= self._engine.config.volatile_buffer_bytes // 4:
            self._congested = False
            self._engine.loop.call_soon(self._tell_drained)

    def _tell_congested(self) -> None:
        self.session.congested(self)

    def _tell_drained(self) -> None:
        self.session.drained(self)

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
