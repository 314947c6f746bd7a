"""The proxy in a process of its own, so that it does not share a processor's time with what it troubles."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class ProxyProcess:
    """A running proxy; the commands are those of ``tests.chaos.__main__``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = int(self._answer())

    def command(self, command: str) -> dict[str, Any]:
        """Do something, and return the counts: ``accepted``, ``open`` and ``faults``."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = self._answer()
        return answer

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the proxy has ended"
        return json.loads(line)


@contextmanager
def proxy_process(to: int, *arguments: str) -> Iterator[ProxyProcess]:
    """Run ``python -m tests.chaos --to`` this port, with more ``arguments``; it has to end well at the end."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.chaos", "--to", str(to), *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield ProxyProcess(process)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(20) == 0
        finally:
            process.kill()
