"""Where a client keeps what it must not forget: in memory, or in a file that outlives the program.

A file is written by a thread of its own, so that a slow disk does not hold up the event loop. What comes while a write
is under way is written together by the next one: the more there is to do, the more each write takes along. Records
that something waits for are on the disk (``fdatasync``) when that goes on, so that neither a crash of the program nor
a power failure takes them back. Others (`Journal.later`) are written along with those, or as soon as the thread is
free, and are not waited for.

A file that could not be written keeps what it had: what a failed write left behind is cut off before the next one.
"""

import asyncio
import logging
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeAlias

from typing_extensions import override

from bellwire.core.errors import BellwireError
from bellwire.delivery.outbox import (
    Left,
    OutboxRecord,
    Pruned,
    Reached,
    Resumable,
    State,
    begin,
    compact,
    encode_record,
    replay,
    worth_compacting,
)

logger = logging.getLogger("bellwire.client")

Done: TypeAlias = Callable[[OSError | None], None]
Lazy: TypeAlias = Pruned | Resumable | Reached | Left
"""Records that may be lost: then something is told, or handed over, once more."""

_READ_BYTES: Final = 1024 * 1024
_sync: Final = getattr(os, "fdatasync", os.fsync)


class OutboxInUse(BellwireError):  # noqa: N818
    """The file of an outbox is another client's, of this program or of another one; wait until that one has ended."""

    code = "outbox_in_use"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"another client uses the outbox {self.path}: give each client a file of its own"


class Journal(ABC):
    """Stores records, in their order; ``state`` is what those stored so far amount to.

    ``outlives`` says whether the next program finds them. ``max_events`` and ``max_bytes`` are what it should hold.
    """

    __slots__ = ("state",)

    outlives: bool
    max_events: int
    max_bytes: int

    def __init__(self, state: State) -> None:
        self.state = state

    @abstractmethod
    def write(self, records: Sequence[OutboxRecord], done: Done) -> None:
        """Store ``records``, then call ``done``: with an error if that was not possible, and none of them is stored.

        One call at a time: the next one when the one before is done.
        """

    @abstractmethod
    def later(self, record: Lazy) -> None:
        """Store ``record`` when there is time for it; it takes the place of an earlier one of its kind."""

    @abstractmethod
    async def close(self) -> None:
        """Write what there is to be written, and let go of everything."""


class MemoryJournal(Journal):
    """Outlives connections, but not the program."""

    __slots__ = ()

    outlives = False
    max_events = 1_024
    max_bytes = 1024 * 1024

    def __init__(self) -> None:
        super().__init__(State(new_producer()))

    @override
    def write(self, records: Sequence[OutboxRecord], done: Done) -> None:
        for record in records:
            self.state.apply(record)
        done(None)

    @override
    def later(self, record: Lazy) -> None:
        self.state.apply(record)

    @override
    async def close(self) -> None:
        pass


class FileJournal(Journal):
    """A file that `open_journal` opened."""

    __slots__ = ("_closed", "_executor", "_failing", "_file", "_lazy", "_loop", "_task", "_waiting")

    outlives = True
    max_events = 16 * 1_024
    max_bytes = 16 * 1024 * 1024

    def __init__(self, file: "_File", executor: ThreadPoolExecutor) -> None:
        super().__init__(file.state)
        self._file = file
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._lazy: dict[tuple[str, str], Lazy] = {}
        self._waiting: tuple[Sequence[OutboxRecord], Done] | None = None
        self._task: asyncio.Future[None] | None = None
        self._failing = False
        self._closed = False

    @override
    def write(self, records: Sequence[OutboxRecord], done: Done) -> None:
        self._waiting = records, done
        self._start()

    @override
    def later(self, record: Lazy) -> None:
        key = (type(record).__name__, "") if isinstance(record, Pruned | Resumable) else ("stream", record.stream)
        self._lazy.pop(key, None)
        self._lazy[key] = record
        if not self._failing:
            self._start()

    @override
    async def close(self) -> None:
        while self._task is not None:
            await asyncio.wait([self._task])
        if self._closed:
            return
        self._closed = True
        rest = b"".join(map(encode_record, self._lazy.values()))
        try:
            await self._loop.run_in_executor(self._executor, self._file.close, rest)
        except OSError as error:
            self._tell(error)
        finally:
            self._executor.shutdown(wait=False)

    def _start(self) -> None:
        """Write all that is here, if no write is under way; records that nobody waits for need not reach the disk."""
        if self._task is not None or self._closed or not (self._lazy or self._waiting):
            return
        lazy, self._lazy = self._lazy, {}
        records, done = self._waiting or ((), None)
        self._waiting = None
        every = [*lazy.values(), *records]
        data = b"".join(map(encode_record, every))
        task = self._task = self._loop.run_in_executor(self._executor, self._file.append, data, done is not None)

        def finished(task: asyncio.Future[None]) -> None:
            self._task = None
            if task.cancelled():  # the loop is being closed
                return
            error = _failure(task)
            if error is None:
                self._stored(every)
            else:
                self._tell(error)
                self._lazy = {**lazy, **self._lazy}
            if done is not None:
                done(error)
            if not self._failing or self._waiting:
                self._start()

        task.add_done_callback(finished)

    def _stored(self, records: Sequence[OutboxRecord]) -> None:
        self._failing = False
        for record in records:
            self.state.apply(record)
        if worth_compacting(self._file.size, self.state) and self._file.size >= self._file.compact_from:
            task = self._task = self._loop.run_in_executor(self._executor, self._file.rewrite, compact(self.state))
            task.add_done_callback(self._compacted)

    def _compacted(self, task: asyncio.Future[None]) -> None:
        self._task = None
        if task.cancelled():
            return
        error = _failure(task)
        if error is not None:
            self._tell(error)
        self._start()

    def _tell(self, error: OSError) -> None:
        if not self._failing:
            logger.error("the outbox %s cannot be written: %s", self._file.path, error)
        self._failing = True


def _failure(task: asyncio.Future[None]) -> OSError | None:
    error = task.exception()
    if error is not None and not isinstance(error, OSError):
        raise error
    return error


class _File:
    """The file itself; what is here blocks, and runs in one thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.compact_from = 0
        self.torn = False
        self._lock = _locked(path)
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except BaseException:
            os.close(self._lock)
            raise
        try:
            self.state = self._read()
        except BaseException:
            self.release()
            raise

    def append(self, data: bytes, sync: bool) -> None:
        if self.torn:
            os.ftruncate(self._fd, self.size)
        self.torn = True
        _write(self._fd, data, self.size)
        if sync:
            _sync(self._fd)
        self.size += len(data)
        self.torn = False

    def rewrite(self, data: bytes) -> None:
        """Put a shorter file in this one's place, and try that not too soon again if it does not work."""
        self.compact_from = 2 * self.size
        beside = self.path.with_name(self.path.name + ".new")
        fd = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write(fd, data, 0)
            os.fsync(fd)
            beside.rename(self.path)
        except BaseException:
            os.close(fd)
            beside.unlink(missing_ok=True)
            raise
        os.close(self._fd)
        self._fd, self.size, self.compact_from, self.torn = fd, len(data), 0, False
        self._sync_directory()

    def close(self, rest: bytes) -> None:
        try:
            if rest:
                self.append(rest, True)
        finally:
            self.release()

    def _read(self) -> State:
        data = b""
        while chunk := os.read(self._fd, _READ_BYTES):
            data += chunk
        state, good = replay(data)
        if good < len(data):
            logger.warning("the end of the outbox %s was damaged: %d bytes are cut off", self.path, len(data) - good)
            os.ftruncate(self._fd, good)
        self.size = good
        if state is None:
            state = State(new_producer())
            self.append(begin(state.producer), True)
            self._sync_directory()
        return state

    def _sync_directory(self) -> None:
        """Make sure that the file's name is on the disk."""
        fd = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def release(self) -> None:
        os.close(self._fd)
        os.close(self._lock)


def _write(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written


def _locked(path: Path) -> int:
    """Lock a file beside the outbox: that one is replaced when it is written anew."""
    import fcntl  # not everywhere, and only files need it

    fd = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            raise OutboxInUse(str(path)) from None
        raise
    return fd


def new_producer() -> str:
    """Draw a producer's id: 128 random bits, which nobody else may know."""
    return secrets.token_hex(16)


async def open_journal(path: str | os.PathLike[str]) -> FileJournal:
    """Open the outbox at ``path``, or begin one.

    Raises:
        OutboxInUse: another client has it.
        BellwireError: the file is no outbox.
        OSError: it cannot be read or written.

    """
    executor = ThreadPoolExecutor(1, "bellwire-outbox")
    opening = asyncio.get_running_loop().run_in_executor(executor, _File, Path(path))
    try:
        file = await asyncio.shield(opening)
    except BaseException:
        opening.add_done_callback(_let_go)
        executor.shutdown(wait=False)
        raise
    return FileJournal(file, executor)


def _let_go(opening: asyncio.Future[_File]) -> None:
    if not opening.cancelled() and opening.exception() is None:  # nobody waited until it was open
        opening.result().release()
