"""What a client sends, in order, while its connection comes and goes: written at once, or kept until it can be.

What has been written counts as sent and is not kept: a connection that breaks loses what was on its way (at most once).
"""

import asyncio
from collections import deque
from typing import Final, NamedTuple, Protocol

from bellwire.core.errors import Disconnected
from bellwire.protocol.outgoing import Outgoing

MAX_WAITING: Final = 1_024
"""Messages that wait for a connection, or for one that is slow; then `Outlet.put` waits for room."""
MAX_WAITING_BYTES: Final = 1024 * 1024
"""Bytes of them; a message that is longer waits alone."""


class Writer(Protocol):
    """A connection as far as the outlet knows it."""

    @property
    def writable(self) -> bool:
        """Whether the server keeps up."""
        ...

    def send(self, message: Outgoing) -> None:
        """Write, whether it keeps up or not."""


class _Waiter(NamedTuple):
    message: Outgoing
    placed: "asyncio.Future[None]"


class Outlet:
    """The order of what is sent; without a `Writer` everything is kept."""

    __slots__ = ("_bytes", "_closed", "_queue", "_waiters", "_writer")

    def __init__(self) -> None:
        self._queue: deque[Outgoing] = deque()
        self._bytes = 0
        self._waiters: deque[_Waiter] = deque()
        self._writer: Writer | None = None
        self._closed: str | None = None

    @property
    def writable(self) -> bool:
        """Whether a message would be written at once."""
        return self._writer is not None and self._writer.writable and not self._queue

    def attach(self, writer: Writer) -> None:
        """There is a connection: what was kept leaves, in order, as far as the server keeps up."""
        self._writer = writer
        self.flush()

    def detach(self) -> None:
        """The connection is gone."""
        self._writer = None

    async def put(self, message: Outgoing) -> None:
        """Send or keep ``message``, behind all that was put before; wait while there is no room.

        Raises Disconnected if the client has ended, or ends meanwhile.
        """
        if self._closed is not None:
            raise Disconnected(self._closed)
        if self._waiters or not self._place(message):
            waiter = _Waiter(message, asyncio.get_running_loop().create_future())
            self._waiters.append(waiter)
            try:
                await waiter.placed
            except asyncio.CancelledError:
                if not waiter.placed.done() or waiter.placed.cancelled():
                    self._waiters.remove(waiter)
                    self._admit()
                raise

    def _place(self, message: Outgoing) -> bool:
        if not self._queue and self._writer is not None and self._writer.writable:
            self._writer.send(message)
            return True
        queue = self._queue
        if queue and (len(queue) >= MAX_WAITING or self._bytes + message.size > MAX_WAITING_BYTES):
            return False
        queue.append(message)
        self._bytes += message.size
        return True

    def _admit(self) -> None:
        waiters = self._waiters
        while waiters and self._place(waiters[0].message):
            placed = waiters.popleft().placed
            if not placed.done():
                placed.set_result(None)

    def flush(self) -> None:
        """Write what waits, as far as the server keeps up."""
        writer, queue = self._writer, self._queue
        while queue and writer is not None and writer.writable:
            self._take(queue.popleft(), writer)
        self._admit()

    def drain(self) -> None:
        """Write all that waits, whether the server keeps up or not: nothing comes behind it."""
        writer = self._writer
        while self._queue and writer is not None:
            self._take(self._queue.popleft(), writer)

    def _take(self, message: Outgoing, writer: Writer) -> None:
        self._bytes -= message.size
        writer.send(message)

    def holds(self, message: Outgoing) -> bool:
        """Whether ``message`` was put and has not been written."""
        return message in self._queue or any(waiter.message is message for waiter in self._waiters)

    def withdraw(self, message: Outgoing) -> None:
        """Do not send ``message``, if it has not been written yet."""
        if message in self._queue:
            self._queue.remove(message)
            self._bytes -= message.size
            self._admit()

    def close(self, reason: str) -> int:
        """End: return how many messages were kept and will not be sent. Who waits for room gets Disconnected."""
        self._closed = reason
        self._writer = None
        dropped = len(self._queue)
        self._queue.clear()
        self._bytes = 0
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if not waiter.placed.done():
                waiter.placed.set_exception(Disconnected(reason))
        return dropped
