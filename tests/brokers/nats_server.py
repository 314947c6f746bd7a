"""A nats-server of the tests' own: a real process on the loopback, which a test may kill and start again."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from bellwire.brokers.private_nats import find_program

TOKEN = "for-tests-only"


class NatsServer:
    """Starts at once; the data stays in ``folder`` and the port stays the same over restarts."""

    def __init__(self, folder: Path, *, max_payload: int = 1024 * 1024) -> None:
        self._folder = folder
        self._max_payload = max_payload
        self.port = -1
        self.start()

    @property
    def url(self) -> str:
        return f"nats://{TOKEN}@127.0.0.1:{self.port}"

    def start(self) -> None:
        config = self._folder / "test.conf"
        config.write_text(
            json.dumps(
                {
                    "host": "127.0.0.1",
                    "port": self.port,
                    "ports_file_dir": str(self._folder),
                    "authorization": {"token": TOKEN},
                    "max_payload": self._max_payload,
                    "jetstream": {"store_dir": str(self._folder / "js")},
                    "log_file": str(self._folder / "log"),
                }
            )
        )
        self.process = subprocess.Popen([find_program(), "-c", config])
        until = time.monotonic() + 20
        while (port := self._read_port()) is None:
            assert self.process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < until, "nats-server does not start"
            time.sleep(0.01)
        self.port = port

    def _read_port(self) -> int | None:
        try:
            ports = json.loads((self._folder / f"nats-server_{self.process.pid}.ports").read_bytes())
        except (OSError, ValueError):
            return None
        return int(ports["nats"][0].rpartition(":")[2])

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Let it stand still: connections stay open and nothing is answered."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)
