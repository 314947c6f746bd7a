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
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine, Generator
from typing import Any, NamedTuple, TypeAlias

Job: TypeAlias = Coroutine[Any, Any, Any]


class Outcome(NamedTuple):
    """How a coroutine ended."""

    result: Any = None
    error: BaseException | None = None


Finished: TypeAlias = Callable[[Outcome], None]


class Dispatcher:
    """Runs coroutines for one event loop."""

    __slots__ = ("_context", "_idle", "_loop", "_parked")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._context = contextvars.copy_context()
        self._idle: list[_Parked] = []
        self._parked: set[_Parked] = set()

    def start(self, job: Job, finished: Finished) -> Outcome | None:
        """Run the first step of ``job``. The outcome if that was all, else None: ``finished`` is told later."""
        parked = self._idle.pop() if self._idle else _Parked(self, self._loop, self._context.copy())
        outcome, waits_for = self._first_step(job, parked)
        if outcome is None:
            parked.take_over(job, waits_for, finished)
        elif parked.clean(self._context):
            self._idle.append(parked)
        else:
            parked.task.cancel()
        return outcome

    def _first_step(self, job: Job, parked: "_Parked") -> tuple[Outcome | None, Any]:
        loop = self._loop
        current = asyncio.current_task(loop)
        if current is not None:
            _leave_task(loop, current)
        _enter_task(loop, parked.task)
        try:
            return None, parked.context.run(job.send, None)
        except StopIteration as stop:
            return Outcome(stop.value), None
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            return Outcome(error=error), None
        finally:
            _leave_task(loop, parked.task)
            if current is not None:
                _enter_task(loop, current)

    def release(self, parked: "_Parked") -> None:
        """A task finished what it had taken over."""
        if parked.clean(self._context):
            parked.park()
            self._idle.append(parked)

    async def close(self) -> None:
        """End the parked tasks, and cancel the handlers that still wait."""
        tasks = [parked.task for parked in self._parked]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._idle.clear()


class _Parked:
    """A task that waits for a coroutine to carry on."""

    __slots__ = ("_dispatcher", "_handover", "_loop", "context", "task")

    def __init__(self, dispatcher: Dispatcher, loop: asyncio.AbstractEventLoop, context: contextvars.Context) -> None:
        self._dispatcher = dispatcher
        self._loop = loop
        self.context = context
        self.park()
        self.task = loop.create_task(self._carry_on(), context=context)
        dispatcher._parked.add(self)
        self.task.add_done_callback(lambda _: dispatcher._parked.discard(self))

    def park(self) -> None:
        self._handover: asyncio.Future[tuple[Job, Any, Finished]] = self._loop.create_future()

    def take_over(self, job: Job, waits_for: Any, finished: Finished) -> None:
        self._handover.set_result((job, waits_for, finished))

    def clean(self, original: contextvars.Context) -> bool:
        """Whether the next handler can use this task: it is not cancelled, and no context variable was left set."""
        if self.task.done() or self.task.cancelling():
            return False
        context = self.context
        return len(context) == len(original) and all(context.get(key) is value for key, value in original.items())

    async def _carry_on(self) -> None:
        while True:
            handover = self._handover
            cancelled: BaseException | None = None
            try:
                await handover
            except asyncio.CancelledError as error:
                if handover.cancelled() or not handover.done():
                    return
                cancelled = error  # the handler was cancelled between its first step and now
            job, waits_for, finished = handover.result()
            finished(await self._outcome(_Rest(job, waits_for, cancelled)))
            self._dispatcher.release(self)
            if self._handover is handover:
                return

    async def _outcome(self, rest: "_Rest") -> Outcome:
        try:
            return Outcome(await rest)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            return Outcome(error=error)


class _Rest:
    """The steps of a coroutine after its first, which had returned the future ``waits_for``."""

    __slots__ = ("_cancelled", "_job", "_waits_for")

    def __init__(self, job: Job, waits_for: Any, cancelled: BaseException | None) -> None:
        self._job = job
        self._waits_for = waits_for
        self._cancelled = cancelled

    def __await__(self) -> Generator[Any, Any, Any]:
        job, waits_for, error = self._job, self._waits_for, self._cancelled
        try:
            while True:
                if error is None:
                    if waits_for is not None:
                        waits_for._asyncio_future_blocking = True  # what a task asks of whom it waits for
                    try:
                        yield waits_for
                    except BaseException as thrown:
                        error = thrown
                if error is None:
                    waits_for = job.send(None)
                else:
                    pending, error = error, None
                    waits_for = job.throw(pending)
        except StopIteration as stop:
            return stop.value
