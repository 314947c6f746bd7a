"""What carriers have in common whose messages wait in this process, and not in a transport's own buffer."""

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from typing_extensions import override

from bellwire.protocol.outgoing import Message
from bellwire.transports.base import Carrier, Link
from bellwire.transports.unread import Cause

if TYPE_CHECKING:
    from bellwire.transports.engine import Engine


L = TypeVar("L", bound=Link)


class QueuedCarrier(Carrier, Generic[L]):
    """Keeps messages in a queue, counts their bytes, and lets whoever reads from the client be made to wait.

    It is congested from `Unread.limit` on, until a quarter of ``Config.volatile_buffer_bytes`` is left (as asyncio's
    transports are with their limits, "Flow control").
    """

    __slots__ = ("_buffered", "_congested", "_engine", "_gate", "_queue", "_taken", "session")

    session: L

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._queue: list[Message] = []
        self._buffered = 0
        self._taken = 0
        self._congested = False
        self._gate: asyncio.Future[None] | None = None

    @property
    @override
    def buffered(self) -> int:
        return self._buffered

    @property
    @override
    def writable(self) -> bool:
        return not self._congested

    @property
    @override
    def congested(self) -> bool:
        return self._congested

    @property
    def progress(self) -> int:
        """How many bytes the client has taken."""
        return self._taken

    def cut(self, cause: Cause) -> None:
        """End it as a slow consumer, and let go of what waits."""
        self._engine.cut(self.session, self, cause)

    def _enqueue(self, message: Message) -> None:
        """Take a message."""
        self._queue.append(message)
        self._buffered += message.size
        unread = self._engine.unread
        if self._buffered > unread.noted_from:
            unread.note(self, self._buffered)
            if not self._congested and self._buffered > unread.limit:
                self._congested = True
                self._engine.loop.call_soon(self._tell_congested)

    def _dequeue(self, size: int) -> None:
        """The client has taken so many bytes."""
        self._taken += size
        self._buffered -= size
        unread = self._engine.unread
        if self._buffered <= unread.noted_from:
            unread.forget(self)
        if self._congested and self._buffered <= self._engine.config.volatile_buffer_bytes // 4:
            self._congested = False
            self._engine.loop.call_soon(self._tell_drained)

    def _clear(self) -> None:
        """Nobody will take what waits."""
        self._queue.clear()
        self._buffered = 0
        self._engine.unread.forget(self)

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
