"""What is to be written to the broker and nobody waits for: one task for all of it, which tries until it is done."""

import asyncio
import contextvars
from collections.abc import Sequence
from itertools import islice
from typing import Final, Protocol

from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable

FIRST_PAUSE: Final = 0.1
"""Seconds until what could not be done is tried again; each pause is twice the one before, up to"""
LAST_PAUSE: Final = 5.0

AT_ONCE: Final = 32
"""How many jobs are under way at the same time."""

MAX_OPTIONAL: Final = 1_024
"""How many jobs may wait for another to be added that need not be done."""


class Job(Protocol):
    """Something to be done; it is told apart by its identity."""

    @property
    def unsettled(self) -> bool:
        """Whether anything is left to do."""
        ...

    async def settle(self) -> None:
        """Do what is left; raise BrokerUnavailable if it is to be tried again."""


class Upkeep:
    """Jobs that wait for the broker; a job is there once, however often it is added.

    ``kind`` is what they are called in counters and errors.
    """

    __slots__ = ("_closed", "_context", "_counters", "_jobs", "_kind", "_loop", "_task")

    def __init__(self, kind: str, counters: Counters) -> None:
        self._kind = kind
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()  # and not that of whoever happens to add the first job
        self._jobs: dict[Job, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job, *, optional: bool = False) -> bool:
        """Settle ``job`` soon; False if it is given up.

        One that is ``optional`` is given up if `MAX_OPTIONAL` jobs wait already: clients that try again and again while
        the broker does not answer could add any number of those.
        """
        if self._closed:
            self._give_up(1, "shutdown")
            return False
        if optional and len(self._jobs) >= MAX_OPTIONAL:
            self._give_up(1, "too_many")
            return False
        self._jobs[job] = None
        if self._task is None:
            self._task = self._loop.create_task(self._work(), context=self._context)
        return True

    async def close(self, grace: float) -> None:
        """Wait at most ``grace`` seconds until all is settled; what is left is given up, and so is what still comes."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=grace)
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._give_up(len(self._jobs), "shutdown")
        self._jobs.clear()

    async def _work(self) -> None:
        pause = FIRST_PAUSE
        try:
            while self._jobs:
                jobs = list(islice(self._jobs, AT_ONCE))
                failed = self._sort(jobs, await asyncio.gather(*(job.settle() for job in jobs), return_exceptions=True))
                if failed:
                    await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE) if failed == len(jobs) else FIRST_PAUSE
        finally:
            self._task = None

    def _sort(self, jobs: Sequence[Job], outcomes: Sequence[BaseException | None]) -> int:
        """Take out what is done, put what failed behind the others, and return how many failed."""
        failed = 0
        for job, error in zip(jobs, outcomes, strict=True):
            if isinstance(error, BrokerUnavailable):
                failed += 1
                self._jobs[job] = self._jobs.pop(job)
            elif error is not None:
                del self._jobs[job]
                self._give_up(1, "error")
                self._loop.call_exception_handler({"message": f"a {self._kind} was not settled", "exception": error})
            elif not job.unsettled:
                del self._jobs[job]
        return failed

    def _give_up(self, n: int, reason: str) -> None:
        if n:
            self._counters.dropped(self._kind, reason=reason, policy="left_to_expire", n=n)
