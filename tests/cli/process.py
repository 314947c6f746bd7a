"""The command in a process of its own, as people run it."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

TIMEOUT = 20.0
"""Seconds for anything to happen; a machine that runs many tests at once is slow."""

APPLICATION = """
from bellwire import Event, Server, Socket

ECHO = Event("echo", str, reply=str)
server = Server()
root = server.namespace("/")

@root.on(ECHO)
async def echo(socket: Socket, text: str) -> str:
    return text
"""


class Process:
    """A running command."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put("")

    def line(self) -> str:
        """The next line of standard output, "" at its end."""
        return self._lines.get(timeout=TIMEOUT)

    def error_line(self) -> str:
        """The next line of standard error, "" at its end; `end` returns those behind it."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().rstrip("\n")

    def port(self) -> int:
        """The port in the next line."""
        line = self.line()
        found = re.search(r"http://[^ ]+:(\d+)", line)
        assert found is not None, f"no address in {line!r}"
        return int(found[1])

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Wait for the end; the exit code and standard error."""
        assert self.process.stderr is not None
        code = self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        return code, self.process.stderr.read()


@contextmanager
def bellwire(*arguments: str, cwd: Path, environ: Mapping[str, str] | None = None) -> Iterator[Process]:
    """Run ``python -m bellwire`` with ``arguments`` in ``cwd``; it is killed at the end if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "bellwire", *arguments],
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        process = Process(child)
        try:
            yield process
        finally:
            if child.poll() is None:
                child.kill()
            process.end()


def write_application(folder: Path, source: str = APPLICATION, name: str = "app") -> None:
    (folder / f"{name}.py").write_text(source)
