"""Where a client keeps what it must not forget: what a file gives back, and what it does when it cannot be written."""

import asyncio
import errno
import multiprocessing
import os
import signal
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bellwire.client.journal import FileJournal, Journal, MemoryJournal, OutboxInUse, open_journal
from bellwire.core.errors import BellwireError
from bellwire.delivery.outbox import (
    COMPACT_BYTES,
    Emitted,
    Left,
    OutboxRecord,
    Pruned,
    Reached,
    Resumable,
    Sent,
    encode_record,
    replay,
)
from bellwire.delivery.position import Position

T = TypeVar("T")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox"


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[FileJournal]:
    journal = await open_journal(path)
    try:
        yield journal
    finally:
        await journal.close()


async def write(journal: Journal, *records: OutboxRecord) -> OSError | None:
    """Write, and return how that ended."""
    done: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
    journal.write(records, done.set_result)
    return await done


def there(function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
    """Look at files in a thread, as everybody has to while a loop runs."""
    return asyncio.get_running_loop().run_in_executor(None, function, *args)


def names(path: Path) -> list[str]:
    """The files beside a file, and itself."""
    return sorted(file.name for file in path.parent.iterdir())


def held(path: Path) -> list[int]:
    """The events that a file holds."""
    state, good = replay(path.read_bytes())
    assert state is not None
    assert good == path.stat().st_size
    return list(state.events)


async def test_the_memory_keeps_what_is_stored_at_once() -> None:
    journal, ends = MemoryJournal(), list[OSError | None]()
    journal.write([Emitted(1, b"a"), Emitted(2, b"b")], ends.append)
    journal.later(Pruned(1))
    assert (ends, list(journal.state.events), journal.outlives) == ([None], [2], False)
    assert len(journal.state.producer) == 32
    assert MemoryJournal().state.producer != journal.state.producer
    await journal.close()


async def test_a_file_gives_back_what_was_stored(path: Path) -> None:
    async with opened(path) as journal:
        producer = journal.state.producer
        assert await write(journal, Emitted(1, b"a"), Sent(1, 1, "g"), Emitted(2, b"b")) is None
        assert await there(held, path) == [1, 2]  # before anything else happens
        assert list(journal.state.events) == [1, 2]
        journal.later(Pruned(1))
        await journal.close()  # and once more at the end of the block
    async with opened(path) as journal:
        assert (journal.state.producer, journal.state.last) == (producer, 2)
        assert [event.payload for event in journal.state.events.values()] == [b"b"]


async def test_it_is_for_its_owner_only(path: Path) -> None:
    async with opened(path):
        assert stat.S_IMODE((await there(path.stat)).st_mode) == 0o600


async def test_what_can_wait_is_written_soon_and_only_its_last_word(path: Path) -> None:
    async with opened(path) as journal:
        size = (await there(path.stat)).st_size
        journal.later(Resumable("secret"))  # this one is under way
        for number in range(100):
            journal.later(Reached("a", "g", number, 1))
        journal.later(Reached("b", "g", 1, 1))
        journal.later(Left("b"))
        journal.later(Pruned(3))
        journal.later(Pruned(5))
    records: list[OutboxRecord] = [Resumable("secret"), Reached("a", "g", 99, 1), Left("b"), Pruned(5)]
    assert (await there(path.read_bytes))[size:] == b"".join(map(encode_record, records))
    async with opened(path) as journal:
        assert journal.state.session == "secret"
        assert journal.state.cursors == {"a": Position("g", 99, 1)}


async def test_writes_that_are_asked_for_meanwhile_go_together(path: Path) -> None:
    async with opened(path) as journal:
        journal.later(Resumable("secret"))
        first = asyncio.ensure_future(write(journal, Emitted(1, b"a")))
        await asyncio.sleep(0)
        journal.later(Reached("a", "g", 1, 1))
        assert await first is None
        assert await there(held, path) == [1]
    async with opened(path) as journal:
        assert journal.state.cursors == {"a": Position("g", 1, 1)}


@pytest.mark.parametrize("rest", [b"\0", b"\0\0\0\x04garbage that is no frame", bytes(5000)])
async def test_a_damaged_end_is_cut_off_and_said(path: Path, rest: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(path) as journal:
        await write(journal, Emitted(1, b"a"))
    whole = await there(path.read_bytes)
    await there(path.write_bytes, whole + rest)
    async with opened(path) as journal:
        assert f"{len(rest)} bytes are cut off" in caplog.text
        await write(journal, Emitted(2, b"b"))
    assert (await there(path.read_bytes)) == whole + encode_record(Emitted(2, b"b"))


async def test_a_file_that_was_begun_and_no_more_is_begun_again(path: Path) -> None:
    await there(path.write_bytes, b"BWOUT")
    async with opened(path) as journal:
        await write(journal, Emitted(1, b"a"))
    assert await there(held, path) == [1]


async def test_another_file_is_left_alone(path: Path) -> None:
    await there(path.write_bytes, b"something else entirely")
    with pytest.raises(BellwireError, match="no outbox of version 1"):
        await open_journal(path)
    assert (await there(path.read_bytes)) == b"something else entirely"
    await there(path.unlink)
    async with opened(path):  # and its lock was let go
        pass


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await open_journal(tmp_path / "nowhere" / "outbox")
    with pytest.raises(IsADirectoryError):
        await open_journal(tmp_path)


async def test_one_client_at_a_time(path: Path) -> None:
    async with opened(path):
        with pytest.raises(OutboxInUse, match=f"another client uses the outbox {path}: give each client"):
            await open_journal(path)
    async with opened(path):
        pass


async def test_an_opening_that_nobody_waits_for_lets_go(path: Path) -> None:
    opening = asyncio.ensure_future(open_journal(path))
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    while True:
        try:
            async with opened(path):
                return
        except OutboxInUse:  # the thread has not finished yet
            await asyncio.sleep(0.01)


async def test_a_long_file_is_written_anew(path: Path) -> None:
    async with opened(path) as journal:
        payload = bytes(COMPACT_BYTES // 8)
        for number in range(1, 30):
            await write(journal, Emitted(number, payload))
            journal.later(Pruned(number - 1))
        with pytest.raises(OutboxInUse):
            await open_journal(path)
    assert (await there(path.stat)).st_size < 2 * COMPACT_BYTES
    assert await there(held, path) == [29]
    assert await there(names, path) == ["outbox", "outbox.lock"]
    async with opened(path) as journal:
        await write(journal, Emitted(30, b"x"))
    assert await there(held, path) == [29, 30]


# --- files that cannot be written


class Faulty:
    """``os.pwrite`` on a disk that is full after so many bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 10**9
        self.write = os.pwrite
        monkeypatch.setattr(os, "pwrite", self)

    def __call__(self, fd: int, data: bytes, offset: int) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self.write(fd, bytes(data)[: self.room], offset)
        self.room -= written
        return written


async def test_a_full_disk_is_told_and_costs_nothing_that_was_stored(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Faulty(monkeypatch)
    async with opened(path) as journal:
        await write(journal, Emitted(1, b"a"))
        disk.room = 10
        journal.later(Reached("a", "g", 1, 1))
        error = await write(journal, Emitted(2, b"b" * 100))
        assert error is not None
        assert error.errno == errno.ENOSPC
        assert list(journal.state.events) == [1]
        assert replay(await there(path.read_bytes)).state is not None
        journal.later(Reached("a", "g", 2, 2))
        error = await write(journal, Emitted(2, b"b" * 100))
        assert error is not None
        disk.room = 10**9
        assert await write(journal, Emitted(2, b"c")) is None
        assert await there(held, path) == [1, 2]
        assert journal.state.cursors == {"a": Position("g", 2, 2)}
    assert caplog.text.count("cannot be written") == 1


async def test_a_disk_that_is_full_at_the_end_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Faulty(monkeypatch)
    async with opened(path) as journal:
        disk.room = 0
        journal.later(Reached("a", "g", 1, 1))
    assert "cannot be written" in caplog.text
    async with opened(path):
        pass


async def test_a_file_that_cannot_be_written_anew_goes_on_as_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Faulty(monkeypatch)
    payload = bytes(COMPACT_BYTES)
    async with opened(path) as journal:
        await write(journal, Emitted(1, payload))
        disk.room = 300
        await write(journal, Pruned(1))
        await write(journal, Emitted(2, b"b"))
        disk.room = 0
        error = await write(journal, Emitted(3, b"c"))
        assert error is not None
        disk.room = 10**9
        assert await write(journal, Emitted(3, b"c")) is None
    assert await there(held, path) == [2, 3]
    assert await there(names, path) == ["outbox", "outbox.lock"]


# --- a program that is killed


def _emit_until_killed(path: str, told: Connection) -> None:
    async def emit() -> None:
        journal = await open_journal(path)
        for number in range(1, 100_000):
            await write(journal, Emitted(number, bytes(100)))
            told.send(number)

    asyncio.run(emit())


@pytest.mark.bellwire(clock="real")
async def test_a_program_that_is_killed_loses_nothing_that_was_stored(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_emit_until_killed, args=(str(path), send))

    def run() -> int:
        process.start()
        send.close()
        stored = 0
        while stored < 50:
            assert receive.poll(30)
            stored = receive.recv()
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        while receive.poll(0):
            try:
                stored = receive.recv()
            except EOFError:
                break
        return stored

    stored = await asyncio.get_running_loop().run_in_executor(None, run)
    async with opened(path) as journal:
        assert set(range(1, stored + 1)) <= set(journal.state.events)
        assert journal.state.last <= stored + 1
