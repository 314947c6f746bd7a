"""Programs as processes of their own, which say what happens to them in lines of JSON, and the server that they use."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.ports import free_port

ROOT: Final = Path(__file__).parents[2]

PATIENCE: Final = 25.0
"""Seconds for anything to happen, however busy the machine is."""

LONG: Final = os.environ.get("BELLWIRE_CHAOS") == "long"
"""Whether there is time: ten times as much of everything."""

SCALE: Final = 10 if LONG else 1


class Program:
    """A running program. ``said`` is what it has written, line by line: decoded if it is JSON, else text."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[Any] = []
        self.errors = ""
        self._progress = asyncio.Event()
        self._readers = [asyncio.create_task(self._read()), asyncio.create_task(self._read_errors())]

    @classmethod
    async def start(cls, *command: str, environ: Mapping[str, str] | None = None) -> "Program":
        return cls(
            await asyncio.create_subprocess_exec(
                *command,
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environ or {})},
                start_new_session=True,  # the wheel's node is a program that starts the real one
            )
        )

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            text = line.decode().rstrip("\n")
            self.said.append(json.loads(text) if text.startswith(("[", "{")) else text)
            self._changed()
        self._changed()

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.errors += line.decode(errors="replace")
            self._changed()

    def _changed(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    def of(self, kind: str) -> list[list[Any]]:
        """What it said in lists that begin with this word, without the word."""
        return [line[1:] for line in self.said if isinstance(line, list) and line[0] == kind]

    async def until(self, reached: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Wait until this is so. Raises AssertionError if it is not in time, or the program ends before."""
        try:
            async with asyncio.timeout(seconds):
                while not reached():
                    assert not self._readers[0].done(), f"the program ended: {self.errors[-3000:]}"
                    await self._progress.wait()
        except TimeoutError:
            raise AssertionError(f"not within {seconds:g} s: {what}; {self.said[-5:]}; {self.errors[-3000:]}") from None

    async def hear(self, kind: str, count: int, seconds: float = PATIENCE) -> list[list[Any]]:
        """Wait until it has said so many of a kind, in all; return them."""
        heard: list[list[Any]] = []

        def enough() -> bool:
            heard[:] = self.of(kind)
            return len(heard) >= count

        await self.until(enough, f"{count} times {kind!r}", seconds)
        return heard

    def tell(self, line: str) -> None:
        """Give it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    async def kill(self) -> None:
        """End it with SIGKILL, and all that it started."""
        await self.signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it stand still, with all that it started: its connections stay open, and it does nothing."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.killpg(self.process.pid, signal.SIGCONT)

    async def signal(self, number: signal.Signals) -> int:
        """End it with a signal; return its exit code."""
        if self.process.returncode is None:
            os.killpg(self.process.pid, number)
        return await self._ended()

    async def end(self) -> int:
        """End it by the end of its input; return its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await self._ended()

    async def _ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await asyncio.gather(*self._readers)
        return code


@asynccontextmanager
async def program(*command: str, environ: Mapping[str, str] | None = None) -> AsyncIterator[Program]:
    """Run a program, and kill it at the end if it still runs."""
    started = await Program.start(*command, environ=environ)
    try:
        yield started
    finally:
        await started.kill()


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of these tests."""
    return [sys.executable, "-m", f"tests.chaos.{module}", *arguments]


class ServerProgram:
    """``bellwire run tests.chaos.application:server``, to be killed and started again on the same port."""

    def __init__(self, flags: Sequence[str], data: Path | None) -> None:
        self.port = free_port()
        self._killed: set[int] = set()
        self._data = data
        self._flags = [*flags, *([] if data is None else ["--data", str(data)])]
        self._program: Program

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        command = ["-m", "bellwire", "run", "tests.chaos.application:server", "--port", str(self.port), *self._flags]
        self._program = await Program.start(sys.executable, *command)
        await self._program.until(lambda: bool(self._program.said), "the server's address")

    async def kill(self) -> None:
        """End it with SIGKILL; its nats-server dies with it."""
        await self._program.kill()
        self._check()

    async def restart(self) -> None:
        """Kill it, and start it again."""
        await self.kill()
        await self.start()

    def freeze(self) -> None:
        """Let it stand still."""
        self._program.freeze()

    def thaw(self) -> None:
        """Let it go on."""
        self._program.thaw()

    async def kill_nats(self) -> None:
        """End its nats-server with SIGKILL, as soon as there is one again."""
        async with asyncio.timeout(PATIENCE):
            while not (pids := await asyncio.to_thread(self._nats_servers)):  # noqa: ASYNC110 - nobody tells of files
                await asyncio.sleep(0.02)
        os.kill(pids[0], signal.SIGKILL)
        self._killed.update(pids)

    def _nats_servers(self) -> list[int]:
        """The process of its nats-server: its ports stand in a file that is called after it."""
        assert self._data is not None
        pids = [int(ports.stem.rpartition("_")[2]) for ports in self._data.glob("*.ports")]
        return [pid for pid in pids if pid not in self._killed]

    async def stop(self) -> None:
        """End it in order."""
        assert await self._program.signal(signal.SIGTERM) == 0, self._program.errors
        self._check()

    def _check(self) -> None:
        assert "Traceback" not in self._program.errors, self._program.errors


@asynccontextmanager
async def serving(*flags: str, data: Path | None = None) -> AsyncIterator[ServerProgram]:
    """Run the server; it must end well."""
    server = ServerProgram(flags, data)
    async with serving_with(server):
        yield server


@asynccontextmanager
async def serving_with(*servers: ServerProgram) -> AsyncIterator[None]:
    """Run servers; each must end well."""
    try:
        await asyncio.gather(*(server.start() for server in servers))
        yield
        await asyncio.gather(*(server.stop() for server in servers))
    finally:
        for server in servers:
            await server._program.kill()


class ProxyProgram:
    """``python -m tests.chaos``: what it is told, and answers, stands there."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.port = 0

    @property
    def http(self) -> str:
        """What Socket.IO clients connect to."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        """What those of bellwire.v1 connect to."""
        return f"ws://127.0.0.1:{self.port}/bellwire"

    async def command(self, command: str) -> dict[str, Any]:
        """Do something, and return the counts: ``accepted``, ``open`` and ``faults``."""
        said = self._program.said
        before = len(said)
        self._program.tell(command)
        await self._program.until(lambda: len(said) > before, "the proxy's answer")
        answer: dict[str, Any] = said[before]
        return answer


@asynccontextmanager
async def troubling(to: int, *arguments: str) -> AsyncIterator[ProxyProgram]:
    """Run the proxy to a port, with more arguments; with ``--seed N`` trouble comes by itself."""
    async with program(sys.executable, "-m", "tests.chaos", "--to", str(to), *arguments) as running:
        proxy = ProxyProgram(running)
        await running.until(lambda: bool(running.said), "the proxy's port")
        proxy.port = int(running.said[0])
        yield proxy
        assert await running.end() == 0, running.errors
