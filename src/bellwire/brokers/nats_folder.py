"""The directory that a private nats-server writes to: one that stays, or a temporary one.

Either is locked by whoever starts the server and by the server itself, which inherits the lock: it is free only when
both are gone. What a killed process leaves of a temporary one the next one to be made takes away.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

from bellwire.core.errors import ConfigError

TEMPORARY: Final = "bellwire-nats-"
"""What the names of temporary directories begin with."""

_LOCK: Final = "lock"
_LOCK_WITHIN: Final = 5.0
_POLL: Final = 0.02


class Folder:
    """A directory from `take` to `release`; ``named`` is None for a temporary one."""

    def __init__(self, named: Path | None) -> None:
        self.temporary = named is None
        """Whether what it holds goes with it."""
        self.path = Path(tempfile.gettempdir()) if named is None else named.absolute()
        """Where it is; before it was taken, where a temporary one will be made."""
        self.lock: int | None = None
        """The descriptor that holds the lock, to be inherited by the server."""

    def __str__(self) -> str:
        return f"the directory {self.path} for temporary files" if self.temporary else f"the data directory {self.path}"

    async def take(self) -> None:
        """Make the directory if it is not there, and lock it.

        Raises:
            ConfigError: another process has it.
            OSError: it cannot be made or written to.

        """
        if self.temporary:
            self.path, self.lock = await asyncio.to_thread(_make_temporary)
        else:
            self.lock = await _take(self.path)

    async def release(self) -> None:
        """Unlock the directory, and remove it if it is a temporary one; nothing happens if it was not taken."""
        lock, self.lock = self.lock, None
        if lock is None:
            return
        if self.temporary:
            await asyncio.to_thread(shutil.rmtree, self.path, ignore_errors=True)
        os.close(lock)


async def _take(path: Path) -> int:
    """Lock a directory. If the holder is dead, its nats-server is about to be, and is waited for."""
    async with asyncio.timeout(_LOCK_WITHIN * 2):
        until = time.monotonic() + _LOCK_WITHIN
        while True:
            lock, holder, alive = await asyncio.to_thread(_try_named, path)
            if lock is not None:
                return lock
            if alive or time.monotonic() > until:
                raise ConfigError(
                    f"the data directory {path} is in use by process {holder}: "
                    "stop that one, or give this one a directory of its own"
                )
            await asyncio.sleep(_POLL)


def _try_named(path: Path) -> tuple[int | None, int, bool]:
    """Return the descriptor that holds the lock, or None; the process that has it (0: not known); if that one lives."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _locked(lock):
            holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
            os.close(lock)
            pid = int(holder) if holder.isdigit() else 0
            return None, pid, _is_alive(pid)
    except BaseException:
        os.close(lock)
        raise
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock, os.getpid(), True


def _make_temporary() -> tuple[Path, int]:
    """Make and lock a directory that nobody else can look into (mkdtemp), after removing what others left behind."""
    _remove_abandoned()
    while True:
        path = Path(tempfile.mkdtemp(prefix=TEMPORARY))
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        if _locked(lock) and _is_at(lock, path / _LOCK):
            return path, lock
        os.close(lock)  # somebody took it for abandoned in between, and removes it


def _remove_abandoned() -> None:
    """Remove our temporary directories whose lock is free: a process that was killed removes nothing."""
    for path in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.getuid() and _locked(lock):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


def _is_alive(pid: int) -> bool:
    """Whether this process runs; one that died and was not waited for yet does not (proc_pid_stat(5), state Z)."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (OSError, IndexError):
        return False
