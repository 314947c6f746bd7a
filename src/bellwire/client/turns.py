"""Handlers, one after the other, in the order of what they are told.

A plain handler runs where its event was read, if nothing waits before it. One that is awaited gets a task, the only one
there is, and what comes meanwhile waits behind it; when too much does, reading stops until it has become less.
"""

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, TypeAlias

MAX_WAITING: Final = 1_024
"""Turns that wait before reading stops; a server keeps as many events of one client."""
MAX_WAITING_BYTES: Final = 1024 * 1024
"""Bytes of their payloads, as JSON."""

Handler: TypeAlias = Callable[..., Any]


class Outcome(NamedTuple):
    """How a handler ended."""

    result: Any = None
    error: BaseException | None = None


class Turn(NamedTuple):
    """A call of a handler; ``finished`` is told how it ended."""

    handler: Handler
    arguments: tuple[Any, ...]
    finished: Callable[[Outcome], None]
    size: int = 0
    lasting: bool = False
    """Whether it has its turn even if the others are forgotten."""


class Turns:
    """The queue; ``pressure`` is told True when too much waits and False when that is over."""

    __slots__ = ("_bytes", "_current", "_idle", "_pressed", "_pressure", "_queue", "_running", "_task")

    def __init__(self, pressure: Callable[[bool], None]) -> None:
        self._pressure = pressure
        self._queue: deque[Turn] = deque()
        self._bytes = 0
        self._pressed = False
        self._running = False
        self._task: asyncio.Task[None] | None = None
        self._current: tuple[Turn, Awaitable[Any]] | None = None  # what is awaited
        self._idle: list[asyncio.Future[None]] = []

    def put(self, turn: Turn) -> None:
        """Let ``turn`` have its turn: now, or when those before it are done."""
        self._queue.append(turn)
        self._bytes += turn.size
        if not self._running:
            self._run()
        elif len(self._queue) >= MAX_WAITING or self._bytes >= MAX_WAITING_BYTES:
            self._press(True)

    def clear(self) -> int:
        """Forget what waits and cancel the handler that runs; return how many turns were forgotten.

        A handler that calls it is not cancelled.
        """
        kept = [turn for turn in self._queue if turn.lasting]
        dropped = len(self._queue) - len(kept)
        self._queue = deque(kept)
        self._bytes = 0
        self._press(False)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        return dropped

    async def settled(self) -> None:
        """Wait until every handler is done; a handler that calls it does not wait for itself."""
        if self._running and self._task is not asyncio.current_task():
            idle = asyncio.get_running_loop().create_future()
            self._idle.append(idle)
            await idle

    def _press(self, pressed: bool) -> None:
        if self._pressed is not pressed:
            self._pressed = pressed
            self._pressure(pressed)

    def _run(self) -> None:
        self._running = True
        self._current = self._next()
        if self._current is not None:
            self._task = asyncio.get_running_loop().create_task(self._work())
            self._task.add_done_callback(self._worked)

    def _next(self) -> tuple[Turn, Awaitable[Any]] | None:
        """Run plain handlers until one has to be awaited, or none is left."""
        queue = self._queue
        while queue:
            turn = queue.popleft()
            self._bytes = max(0, self._bytes - turn.size)
            if self._pressed and len(queue) <= MAX_WAITING // 2 and self._bytes <= MAX_WAITING_BYTES // 2:
                self._press(False)
            try:
                result = turn.handler(*turn.arguments)
            except Exception as error:
                turn.finished(Outcome(error=error))
                continue
            if inspect.isawaitable(result):
                return turn, result
            turn.finished(Outcome(result))
        self._running = False
        self._task = None
        idle, self._idle = self._idle, []
        for waiter in idle:
            if not waiter.done():
                waiter.set_result(None)
        return None

    async def _work(self) -> None:
        while self._current is not None:
            turn, awaitable = self._current
            try:
                outcome = Outcome(await awaitable)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                outcome = Outcome(error=error)  # what the handler waited for was cancelled, not the handler
            except Exception as error:
                outcome = Outcome(error=error)
            turn.finished(outcome)
            self._current = self._next()

    def _worked(self, task: asyncio.Task[None]) -> None:
        """A task is done; one that was cancelled leaves its handler to be finished here, and the rest of the queue."""
        if not task.cancelled() or self._current is None:
            return
        turn, awaitable = self._current
        self._current = None
        if inspect.iscoroutine(awaitable):
            awaitable.close()  # a task that is cancelled before it has begun never awaits it
        turn.finished(Outcome(error=asyncio.CancelledError()))
        self._run()
