"""What a producer wants done, one step after the other, and nothing before what it says is stored is stored.

A step that stores is the journal's to do, and all behind it wait until it is done; steps that store and follow each
other are stored together. A step belongs to the connection on which it was asked for: who does it sees whether that is
still there. When something cannot be stored, that is tried again every `RETRY_SECONDS`, and all else waits.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from bellwire.client.journal import Journal
from bellwire.delivery.outbox import OutboxRecord
from bellwire.delivery.producer import Action, Store

RETRY_SECONDS: Final = 1.0
"""After a write to the outbox that failed, until the next attempt."""


class Steps:
    """The queue; ``failure`` is why nothing can be stored at present, None if all is well.

    ``act`` does a step that stores nothing; ``stored`` is told of each record, ``failed`` when storing begins to fail.
    """

    __slots__ = (
        "_act",
        "_failed",
        "_journal",
        "_loop",
        "_pumping",
        "_queue",
        "_retry",
        "_settled",
        "_stored",
        "_storing",
        "failure",
    )

    def __init__(
        self,
        journal: Journal,
        act: Callable[[int, Action], None],
        stored: Callable[[OutboxRecord], None],
        failed: Callable[[OSError], None],
    ) -> None:
        self.failure: OSError | None = None
        self._journal = journal
        self._act = act
        self._stored = stored
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[int, Action]] = deque()
        self._pumping = False
        self._storing: list[OutboxRecord] = []  # the head of the queue
        self._retry: asyncio.TimerHandle | None = None
        self._settled: asyncio.Future[None] | None = None

    def add(self, connection: int, actions: Sequence[Action]) -> None:
        """Do ``actions`` behind all that was added before."""
        self._queue.extend([(connection, action) for action in actions])
        if not self._pumping:
            self._pump()

    async def close(self) -> None:
        """Wait until all that is to be stored is, or cannot be."""
        while self._storing:
            self._settled = self._loop.create_future()
            await self._settled
        if self._retry is not None:
            self._retry.cancel()

    def _pump(self) -> None:
        self._pumping = True
        try:
            while self._queue and not self._storing and self._retry is None:
                connection, action = self._queue[0]
                if isinstance(action, Store):
                    self._store()
                else:
                    self._queue.popleft()
                    self._act(connection, action)
        finally:
            self._pumping = False

    def _store(self) -> None:
        for _, action in self._queue:
            if not isinstance(action, Store):
                break
            self._storing.append(action.record)
        self._journal.write(self._storing, self._done)

    def _done(self, error: OSError | None) -> None:
        records, self._storing = self._storing, []
        if error is None:
            self.failure = None
            for record in records:
                self._queue.popleft()
                self._stored(record)
        else:
            self._fail(error)
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)
        if not self._pumping:
            self._pump()

    def _fail(self, error: OSError) -> None:
        self.failure = error
        self._retry = self._loop.call_later(RETRY_SECONDS, self._try_again)
        self._failed(error)

    def _try_again(self) -> None:
        self._retry = None
        self._pump()
