"""How a handler is run: its first step at once, a task only if it waits for something.

Most handlers never wait: they look something up, emit, and return. A task for each would cost more than they do. So the
coroutine's first step is run right where the message was read, in the name of a *parked* task: ``current_task()``,
``asyncio.timeout`` and context variables work as in any task. A coroutine that then waits is handed over to that task,
which carries it on; one that is finished leaves the task parked for the next.

:func:`asyncio.tasks._enter_task` and ``_leave_task`` are the functions that the asyncio documentation gives to those
who implement tasks of their own ("Extending", "Task lifetime support").
"""

import asyncio
import contextvars
import types
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, TypeAlias, cast

import msgspec

Job: TypeAlias = Coroutine[Any, Any, Any]


class Outcome(msgspec.Struct, frozen=True):
    """How a coroutine ended."""

    result: Any = None
    error: BaseException | None = None


_NONE: Final = Outcome()

Finished: TypeAlias = Callable[[Outcome], None]

MAX_DEPTH = 32
"""Handlers whose first steps run inside of each other, as when each that leaves disconnects the next; others wait."""

MAX_IDLE = 256
"""Parked tasks that are kept for the handlers to come; a peak may need more, and they end behind it."""


class Dispatcher:
    """Runs coroutines for one event loop."""

    __slots__ = ("_closed", "_context", "_depth", "_idle", "_loop", "_tasks")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._context = contextvars.copy_context()
        self._idle: list[_Parked] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._depth = 0

    @property
    def closed(self) -> bool:
        """Whether it ends."""
        return self._closed

    def ended(self, error: BaseException) -> bool:
        """Whether ``error`` is the end of this dispatcher, and no fault of the handler that it was raised in."""
        return self._closed and isinstance(error, asyncio.CancelledError)

    def run(self, job: Job, finished: Finished) -> None:
        """Run ``job``; ``finished`` is told the outcome, at once if the first step was all."""
        outcome = self.start(job, finished)
        if outcome is not None:
            finished(outcome)

    def start(self, job: Job, finished: Finished) -> Outcome | None:
        """Run the first step of ``job``. The outcome if that was all, else None: ``finished`` is told later."""
        if self._depth >= MAX_DEPTH:
            self._loop.call_soon(self.run, job, finished)
            return None
        loop, idle = self._loop, self._idle
        parked = idle.pop() if idle else None
        if parked is None or parked.handover.done() or not parked.begun:
            parked = self._take(parked)
        outside = asyncio.current_task(loop)
        if outside is not None:
            _leave_task(loop, outside)
        _enter_task(loop, parked.task)
        self._depth += 1
        try:
            waits_for = parked.context.run(parked.step, job)
        finally:
            self._depth -= 1
            _leave_task(loop, parked.task)
            if outside is not None:
                _enter_task(loop, outside)
        if waits_for is not _DONE:
            parked.take_over(waits_for, finished)
            return None
        if self._closed or ((parked.context or self._context) and not parked.is_clean(self._context)):
            parked.task.cancel()
        else:
            idle.append(parked)  # no more than there were, or `MAX_DEPTH`
        outcome, parked.outcome = parked.outcome, _NONE
        return outcome

    def _take(self, parked: "_Parked | None") -> "_Parked":
        """``parked``, or another if it is of no use."""
        while parked is not None and parked.is_over():
            parked = self._idle.pop() if self._idle else None
        return parked or _Parked(self, self._loop, self._context.copy())

    def release(self, parked: "_Parked") -> None:
        """A task finished what it had taken over."""
        wanted = not self._closed and len(self._idle) < MAX_IDLE
        if wanted and not parked.task.cancelling() and parked.is_clean(self._context):
            parked.park()
            self._idle.append(parked)

    def forget(self, parked: "_Parked") -> None:
        """A task is over; a handler may have cancelled it, and have taken that back."""
        if parked in self._idle:
            self._idle.remove(parked)

    def create_task(self, job: Job, context: contextvars.Context) -> asyncio.Task[None]:
        """Make a task that ends with the dispatcher."""
        task = self._loop.create_task(job, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self, grace: float = 0.0) -> None:
        """End the parked tasks; handlers that still wait have ``grace`` seconds, then they are cancelled.

        A handler may call it: it does not wait for itself.
        """
        self._closed = True
        idle, self._idle = self._idle, []
        for parked in idle:
            parked.task.cancel()
        deadline = self._loop.time() + grace
        while tasks := self._others():
            left = deadline - self._loop.time()
            if left <= 0:
                break
            await asyncio.wait(tasks, timeout=left)
        while tasks := self._others():  # a handler that ends may let the next one of its socket begin
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _others(self) -> set[asyncio.Task[None]]:
        return {task for task in self._tasks if task is not asyncio.current_task()}


_DONE: Final = object()
"""What `_Parked.step` returns when a coroutine is over; else what it waits for."""


class _Parked:
    """A task that waits for a coroutine to carry on."""

    __slots__ = ("_dispatcher", "_loop", "_steps", "begun", "context", "handover", "outcome", "step", "task")

    def __init__(self, dispatcher: Dispatcher, loop: asyncio.AbstractEventLoop, context: contextvars.Context) -> None:
        self._dispatcher = dispatcher
        self._loop = loop
        self.context = context
        self.outcome = _NONE
        """How the last coroutine ended, until somebody has taken that: a parked task holds on to nothing."""
        self._steps = cast("Generator[Any, Job | None, None]", self._run())
        self._steps.send(None)
        self.step = self._steps.send
        """Takes a coroutine, and runs its first step."""
        self.park()
        self.begun = False
        self.task = dispatcher.create_task(self._carry_on(), context)
        self.task.add_done_callback(self._ended)

    @types.coroutine
    def _run(self) -> Generator[Any, Job, None]:
        """Run coroutines, one after the other: ``yield from`` tells of their end at half the price of `send`."""
        while True:
            job = yield _DONE
            try:
                self.outcome = Outcome((yield from job))
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                if isinstance(error, GeneratorExit) and error.__traceback__ and error.__traceback__.tb_next is None:
                    raise  # it comes from outside, and this ends as well
                self.outcome = Outcome(None, error)
            del job

    def park(self) -> None:
        self.handover: asyncio.Future[tuple[Any, Finished]] = self._loop.create_future()

    def is_over(self) -> bool:
        """Whether a handler cancelled it, or somebody all tasks of the loop: it ends, also if that was taken back."""
        return self.handover.done() or self.task.done() or getattr(self.task, "_must_cancel", False)

    def take_over(self, waits_for: Any, finished: Finished) -> None:
        """Carry the coroutine on from its first step, which returned the future ``waits_for``."""
        if hasattr(waits_for, "_asyncio_future_blocking"):
            waits_for._asyncio_future_blocking = False  # others may await the same before the task does
        if self.handover.done() or self.task.cancelling():  # the first step cancelled its own task
            self._carry_on_elsewhere(waits_for, finished)
        else:
            self.handover.set_result((waits_for, finished))

    def _carry_on_elsewhere(self, waits_for: Any, finished: Finished) -> None:
        """Carry it on in another task, cancelled unless that was taken back: this one is no use any more."""
        cancelled = asyncio.CancelledError() if self.task.cancelling() else None
        self._dispatcher.create_task(self._finish(waits_for, cancelled, finished), self.context)

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._dispatcher.forget(self)
        if not self.begun and self.handover.done() and not self.handover.cancelled():
            # A task that is cancelled before it has begun never does; its coroutine is to know of it all the same.
            self._carry_on_elsewhere(*self.handover.result())

    def is_clean(self, original: contextvars.Context) -> bool:
        """Whether no context variable was left set."""
        context = self.context
        return len(context) == len(original) and (
            not original or all(context.get(key) is value for key, value in original.items())
        )

    async def _carry_on(self) -> None:
        self.begun = True
        while True:
            handover = self.handover
            cancelled: BaseException | None = None
            try:
                await handover
            except asyncio.CancelledError as error:
                if handover.cancelled() or not handover.done():
                    return
                cancelled = error  # the handler was cancelled between its first step and now
            waits_for, finished = handover.result()
            await self._finish(waits_for, cancelled, finished)
            del waits_for, finished  # which may hold on to a socket
            self._dispatcher.release(self)
            if self.handover is handover:
                return

    async def _finish(self, waits_for: Any, cancelled: BaseException | None, finished: Finished) -> None:
        await _Rest(self._steps, waits_for, cancelled)
        outcome, self.outcome = self.outcome, _NONE
        finished(outcome)


class _Rest:
    """The steps of a coroutine after its first, which had returned the future ``waits_for``."""

    __slots__ = ("_cancelled", "_steps", "_waits_for")

    def __init__(
        self, steps: Generator[Any, Job | None, None], waits_for: Any, cancelled: BaseException | None
    ) -> None:
        self._steps = steps
        self._waits_for = waits_for
        self._cancelled = cancelled

    def __await__(self) -> Generator[Any, Any, None]:
        steps, waits_for, error = self._steps, self._waits_for, self._cancelled
        if error is not None and hasattr(waits_for, "cancel") and waits_for.cancel():
            error = None  # as Task.cancel does: whoever is waited for is cancelled, and tells the coroutine
        while waits_for is not _DONE:
            if error is None:
                if hasattr(waits_for, "_asyncio_future_blocking"):  # else the task says what is wrong with it
                    waits_for._asyncio_future_blocking = True  # what a task asks of whom it waits for
                try:
                    yield waits_for
                except GeneratorExit:
                    steps.close()
                    raise
                except BaseException as thrown:
                    error = thrown
            if error is None:
                waits_for = steps.send(None)
            else:
                pending, error = error, None
                waits_for = steps.throw(pending)
