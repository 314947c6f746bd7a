"""One question for all who ask the same while the one before it is under way."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


class Asked(Generic[K, T]):
    """Asks ``question`` of each key once at a time.

    Each answer is to a question that began after the call, so it has all that was so then; whoever calls while one is
    under way shares the next.
    """

    __slots__ = ("_next", "_question", "_under_way")

    def __init__(self, question: Callable[[K], Coroutine[Any, Any, T]]) -> None:
        self._question = question
        self._under_way: dict[K, asyncio.Task[T]] = {}
        self._next: dict[K, asyncio.Task[T]] = {}

    async def __call__(self, key: K) -> T:
        """Ask. Raises what the question raises."""
        task = self._next.get(key)
        if task is None or task.done():  # done before it began: cancelled with all tasks of its loop
            task = self._next[key] = asyncio.create_task(self._ask(key, self._under_way.get(key)))
        return await asyncio.shield(task)

    async def _ask(self, key: K, before: "asyncio.Task[T] | None") -> T:
        if before is not None:
            await asyncio.wait([before])
        self._under_way[key] = self._next.pop(key)
        try:
            return await self._question(key)
        finally:
            del self._under_way[key]
