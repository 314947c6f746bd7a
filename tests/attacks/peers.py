"""``python -m tests.attacks.peers``: the attacks on Bellwire, Node's socket.io and python-socketio, all with defaults.

Prints a table for ``docs/explanation/threat-model.md``. It takes some five minutes, and needs the npm registry once.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from bellwire.protocol.frames import CLOSE
from tests.attacks.peer import Ended, Peer, frame, upgrade
from tests.interop.processes import install, program_path
from tests.ports import free_port

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
WAIT: Final = 70.0
"""Seconds for which it is watched whether something ends."""

MIB: Final = 1024 * 1024


class Server:
    """One of the three, in a process that is started again when an attack has ended it."""

    def __init__(self, name: str, command: Callable[[int], list[str]]) -> None:
        self.name = name
        self.port = free_port()
        self._command = command
        self.start()

    def start(self) -> None:
        """Start, and wait until it listens."""
        self._process = subprocess.Popen(
            self._command(self.port), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _wait_for(self.port)

    def revive(self) -> bool:
        """Start it again if its process has ended; say whether it had."""
        try:
            self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            return False
        self.start()
        return True

    def end(self) -> None:
        """Stop it, and its child."""
        for pid in (*_children(self._process.pid), self._process.pid):
            os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def memory(self) -> int:
        """MiB of physical memory, its child's included: ``node`` of the wheel is started by a program in Python."""
        pid = self._process.pid
        return sum(map(_memory, [pid, *_children(pid)])) // 1024


def _memory(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


Attack: TypeAlias = Callable[[Server], str]


# --- what is answered at once


def origin(server: Server) -> str:
    client = Peer(server.port).offer(upgrade(fields="Origin: http://evil.example\r\n"))
    status = client.read_until(b"\r\n").split(b" ")[1].decode()
    return "accepted" if status == "101" else f"refused, {status}"


def compression(server: Server) -> str:
    client = Peer(server.port).offer(upgrade(fields="Sec-WebSocket-Extensions: permessage-deflate\r\n"))
    return "agreed to" if b"permessage-deflate" in client.read_until(b"\r\n\r\n").lower() else "off"


def _after(server: Server, *data: bytes) -> str:
    """What becomes of a client in the root namespace that sends this."""
    client = Peer(server.port).joined()
    for part in data:
        client.offer(part)
    client.offer(frame(1, b'4299["anything","x"]'))
    handled = "passed over"
    try:
        while client.listen(5):
            text = client.text()
            if text.startswith(("4398", "461-98")):
                handled = "event refused" if '"error"' in text else "handled"
            elif text.startswith("4399"):
                return handled
        return "no answer to anything any more"
    except Ended:
        return "connection ended"


def _text(packet: str) -> bytes:
    return frame(1, packet.encode())


X: Final = '"x"'
PLACE: Final = '{"_placeholder":true,"num":%s}'

AT_ONCE: Final[dict[str, Attack]] = {
    "a page of another origin opens a WebSocket": origin,
    "a client offers compression": compression,
    "20,000 empty fragments": lambda s: _after(s, frame(1, b"", fin=False) + frame(0, b"", fin=False) * 20_000),
    "a packet announces 9,999,999,999 attachments": lambda s: _after(s, _text('459999999999-98["anything"]')),
    "a packet with 11 attachments": lambda s: _after(
        s, _text(f'4511-98["anything",[{",".join([PLACE % n for n in range(11)])}]]'), frame(2, b"x") * 11
    ),
    'a placeholder for attachment "x"': lambda s: _after(s, _text(f'451-98["anything",{PLACE % X}]'), frame(2, b"x")),
    "a placeholder for attachment -1": lambda s: _after(s, _text(f'451-98["anything",{PLACE % -1}]'), frame(2, b"x")),
    "JSON of 200,000 levels": lambda s: _after(s, _text('4298["anything",' + "[" * 200_000 + "]" * 200_001)),
    "JSON of 500 levels": lambda s: _after(s, _text('4298["anything",' + "[" * 500 + "]" * 501)),
    "an integer of 900,000 digits": lambda s: _after(s, _text('4298["anything",' + "9" * 900_000 + "]")),
    "1,500 namespaces that are not there": lambda s: _after(s, b"".join([_text(f"40/n{n},") for n in range(1_500)])),
}


def burst(server: Server) -> str:
    """5,000 events at once: how many are handled."""
    client = Peer(server.port).joined()
    client.offer(b"".join([_text(f'42{number}["echo","x"]') for number in range(5_000)]))
    handled = 0
    try:
        while handled < 5_000 and client.listen(3):
            handled += client.text().endswith('["x"]')
    except Ended:
        return f"{handled:,} handled, connection ended"
    return f"{handled:,} handled"


def body(server: Server) -> str:
    """A body in chunks, of 60 MB and more."""
    client = Peer(server.port)
    sid = client.polling()
    before = server.memory()
    path = f"/socket.io/?EIO=4&transport=polling&sid={sid}"
    client.offer(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    most = before
    for _ in range(60):
        client.offer(b"100000\r\n" + b"4" * MIB + b"\r\n")
        most = max(most, server.memory())
    client.offer(b"0\r\n\r\n")
    client.listen(3)
    most = max(most, server.memory())
    return f"{most - before} MiB of memory"


def slow_reader(server: Server) -> str:
    """60 MB to a client that does not read."""
    client = Peer(server.port).joined()
    before = server.memory()
    client.offer(_text('42["flood",60000]'))
    most, deadline = before, time.monotonic() + 12
    while time.monotonic() < deadline:
        most = max(most, server.memory())
        time.sleep(0.05)
    return f"{most - before} MiB of memory"


WITH_MEMORY: Final[dict[str, Attack]] = {
    "5,000 events in a burst": burst,
    "a body of 60 MiB in chunks, without a length": body,
    "60 MB for a client that does not read": slow_reader,
}


# --- what should end by itself


class Slow(NamedTuple):
    """An attacker that is never done; ``again`` is what it sends every second."""

    begin: Callable[[Server], Peer]
    again: bytes = b""
    websocket: bool = True


def _posting(server: Server) -> Peer:
    client = Peer(server.port)
    path = f"/socket.io/?EIO=4&transport=polling&sid={client.polling()}"
    return client.offer(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n".encode())


SLOW: Final[dict[str, Slow]] = {
    "a connection that says nothing": Slow(lambda s: Peer(s.port), websocket=False),
    "a head, a byte a second": Slow(lambda s: Peer(s.port).offer(b"GET / HTTP/1.1\r\nX: "), b"x", websocket=False),
    "a body, a byte a second": Slow(_posting, b"4", websocket=False),
    "a WebSocket that joins no namespace": Slow(lambda s: Peer(s.port).opened()),
    "a message, an empty fragment a second": Slow(
        lambda s: Peer(s.port).joined().offer(frame(1, b"4", fin=False)), frame(0, b"", fin=False)
    ),
    "attachments that do not come": Slow(lambda s: Peer(s.port).joined().offer(_text(f'451-["echo",{PLACE % 0}]'))),
}


def watch(server: Server) -> dict[str, str]:
    """Run them side by side, and say when each was ended."""
    running = {name: slow.begin(server) for name, slow in SLOW.items()}
    found = {}
    began = time.monotonic()
    while running and time.monotonic() - began < WAIT:
        for name, client in tuple(running.items()):
            client.offer(SLOW[name].again)
            if _has_ended(client, SLOW[name].websocket):
                found[name] = f"ended after {time.monotonic() - began:.0f} s"
                running.pop(name).close()
        time.sleep(1)
    return found | dict.fromkeys(running, f"not ended within {WAIT:.0f} s")


def _has_ended(client: Peer, websocket: bool) -> bool:
    """Whether the server said that it is over: by an answer, a close frame or the end of the connection."""
    try:
        while client.listen(0):
            if not websocket or client.next_frame()[0] == CLOSE:
                return True
    except Ended:
        return True
    return False


# --- the servers


def bellwire() -> Server:
    command = [sys.executable, "-m", "bellwire", "run", "tests.attacks.application:server", "--port"]
    return Server("Bellwire", lambda port: [*command, str(port)])


def python_socketio() -> Server:
    command = [sys.executable, "-m", "uvicorn", "tests.attacks.peer_socketio:app", "--port"]
    name = f"python-socketio {version('python-socketio')} on uvicorn {version('uvicorn')}"
    return Server(name, lambda port: [*command, str(port)])


def node() -> Server:
    folder = Path(tempfile.gettempdir()) / "bellwire-attacks-node"
    problem = install(folder, ROOT / "bench" / "servers")
    if problem:
        raise SystemExit(problem)
    shutil.copy(HERE / "peer_socketio.cjs", folder)
    about = json.loads((folder / "node_modules" / "socket.io" / "package.json").read_text())
    program = program_path("node") or "node"
    release = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    name = f"socket.io {about['version']} on Node {release}"
    return Server(name, lambda port: [program, str(folder / "peer_socketio.cjs"), str(port)])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            Peer(port).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def attacked(server: Server) -> dict[str, str]:
    """Put one server through all of it."""
    found = {}
    for name, attack in (AT_ONCE | WITH_MEMORY).items():
        try:
            found[name] = attack(server)
        except (Ended, OSError):
            found[name] = "connection ended"
        if server.revive():
            found[name] = "**the process ended**"
        print(f"{server.name}: {name}: {found[name]}", file=sys.stderr)
    found |= watch(server)
    try:
        Peer(server.port).joined().call("echo", "still here")
    except (Ended, OSError, AssertionError):
        found["others are served afterwards"] = "no"
    else:
        found["others are served afterwards"] = "yes"
    return found


def main() -> None:
    """Print the table."""
    columns: dict[str, dict[str, str]] = {}
    for start in (bellwire, node, python_socketio):
        server = start()
        try:
            columns[server.name] = attacked(server)
        finally:
            server.end()
    print(f"| Attack | {' | '.join(columns)} |")
    print(f"|---|{'---|' * len(columns)}")
    for name in next(iter(columns.values())):
        print(f"| {name} | {' | '.join([column[name] for column in columns.values()])} |")


if __name__ == "__main__":
    main()
