"""Events as an asynchronous iterator."""

import asyncio
from collections import deque
from typing import Any, Final, Generic, TypeVar

from bellwire.core.errors import BellwireError

T = TypeVar("T")

MAX_BUFFERED: Final = 1_024
"""Events that wait to be taken."""
MAX_BUFFERED_BYTES: Final = 16 * 1024 * 1024
"""Bytes of their payloads, as JSON."""


class MessagesLost(BellwireError):  # noqa: N818
    """``Client.messages`` was read too slowly: ``count`` events came between what was read and what comes next.

    The iterator can be read on.
    """

    code = "messages_lost"

    def __init__(self, name: str, count: int) -> None:
        super().__init__(name, count)
        self.name = name
        self.count = count

    def __str__(self) -> str:
        return f"{self.count} events {self.name!r} were dropped because the iterator was not read: read it faster"


class _Gap:
    """Stands in the buffer where events were dropped."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Messages(Generic[T]):
    """The payloads of one event, in order, from the moment on at which this was made.

    The buffer is bounded. What finds no room is dropped, and the iterator raises
    :class:`MessagesLost` in its place: after what came before it, and before anything newer. It
    can be iterated on after that. It ends when the client has disconnected and the buffer is empty.
    """

    __slots__ = ("__weakref__", "_arrived", "_buffer", "_bytes", "_ended", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._buffer: deque[tuple[T | _Gap, int]] = deque()
        self._bytes = 0
        self._ended = False
        self._arrived = asyncio.Event()

    def __aiter__(self) -> "Messages[T]":
        return self

    async def __anext__(self) -> T:
        """The next payload. Raises MessagesLost where some were dropped."""
        while not self._buffer:
            if self._ended:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        value, size = self._buffer.popleft()
        self._bytes -= size
        if isinstance(value, _Gap):
            raise MessagesLost(self._name, value.count)
        return value

    def feed(self, payload: tuple[Any, ...], size: int) -> bool:
        """Keep a payload of ``size`` bytes, or say that there is no room for it."""
        last = self._buffer[-1][0] if self._buffer else None
        room = len(self._buffer) < MAX_BUFFERED and self._bytes + size <= MAX_BUFFERED_BYTES
        if self._buffer and not room:
            if not isinstance(last, _Gap):
                last = _Gap()
                self._buffer.append((last, 0))
            last.count += 1
            return False
        value: Any = payload[0] if len(payload) == 1 else payload or None
        self._buffer.append((value, size))
        self._bytes += size
        self._arrived.set()
        return True

    def end(self) -> None:
        """Nothing will come any more."""
        self._ended = True
        self._arrived.set()
