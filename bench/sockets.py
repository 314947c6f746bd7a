"""What connections cost, with sockets: a server in a process of its own, by the number of its clients.

Processor time is that of the server's process, and so with what the kernel does for it.
"""

import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from bellwire.load import machine, wire
from bellwire.load.processes import HOST, ProcessError, measure, running
from bellwire.load.result import Idle, Result, own_memory, processor_time
from bench.contestants import BELLWIRE, RECOVERING
from bench.curve import FLAT, LINEAR, Curve, Found

CROWD = (10, 100, 1_000, 8_000)
"""Clients that a message goes to."""
IDLE = (1_000, 2_000, 4_000, 8_000)
"""Clients that do nothing."""
OFTEN = "--ping-interval 1 --pong-timeout 0.9 --max-missed-pongs 100 --client-ping-interval 1 --client-ping-timeout 60"
"""Pings that come 25 times as often as they do in life, and may be answered late."""
FIRST = 500
"""Clients of the load generator that are there before the idle ones are counted."""
SECONDS = 3.0
BY = "connections"
TURNED_AWAY = 1_000
"""Clients that are turned away, one after the other."""
BARE = 4_000
"""Connections without a server, to see what the kernel takes."""


def sockets(crowd: Sequence[int] = CROWD, idle: Sequence[int] = IDLE, seconds: float = SECONDS) -> Found:
    """All of it."""
    alone, together = _fanout(crowd)
    memory, pings = zip(*(_idle(_command(BELLWIRE, OFTEN), "stock", size, seconds) for size in idle), strict=True)
    recovering, _ = _idle(_command(RECOVERING, ""), "recovering", idle[-1], seconds)
    base, connect, ack = _others()
    by_alone = Curve.of("a message to everyone, with sockets", BY, "us", LINEAR, crowd, alone)
    by_together = Curve.of("the same, one of 32 in flight", BY, "us", LINEAR, crowd, together)
    by_pings = Curve.of("a ping and its pong, of all", BY, "us", LINEAR, idle, pings)
    return Found(
        [by_alone, by_together, Curve.of("memory of a connection", BY, "B", FLAT, idle, memory), by_pings],
        {
            "delivery_us": alone[-1] / crowd[-1],
            "delivery_together_us": together[-1] / crowd[-1],
            "connect_us": connect,
            "refuse_us": _refused(),
            "ack_us": ack,
            "ping_us": by_pings.each,
            "process_bytes": base,
            "connection_bytes": memory[-1],
            "recovering_bytes": recovering,
            "kernel_bytes": kernel_memory(),
        },
    )


def _fanout(crowd: Sequence[int]) -> tuple[list[float], list[float]]:
    """Microseconds for a message to everyone, of a crowd of each size: alone, and with 31 others."""
    core, load = machine.cores()
    with running("the server", _command(BELLWIRE, ""), core) as (port, process):
        results = [
            measure(["fanout", "--connections", str(size), "--windows", "1,32", "--seconds", "1"], port, process, load)
            for size in crowd
        ]
    costs = [[_result(found).cpu * size for found in each] for each, size in zip(results, crowd, strict=True)]
    return [alone for alone, _ in costs], [together for _, together in costs]


def _idle(command: list[str], client: str, size: int, seconds: float) -> tuple[float, float]:
    """Bytes of each of so many idle clients, and microseconds for the heartbeats of all in a second."""
    core, load = machine.cores()
    with running("the server", command, core) as (port, process):
        words = ["idle", "--client", client, "--connections", str(size), "--seconds", str(seconds)]
        (found,) = measure(words, port, process, load)
    if not isinstance(found, Idle):
        raise ProcessError("idle connections were not measured")
    return found.memory, found.cpu / 100 * 1e6 * size / (size + FIRST)  # those who were there before are pinged too


def _others() -> tuple[float, float, float]:
    """Bytes of a server without clients, and microseconds for a connection and for an acknowledged event."""
    core, load = machine.cores()
    with running("the server", _command(BELLWIRE, ""), core) as (port, process):
        base = own_memory(process)
        (connecting,) = measure(["connecting", "--connections", "500", "--seconds", "1"], port, process, load)
        (asking,) = measure(["roundtrips", "--connections", "100", "--seconds", "1"], port, process, load)
    return base, _result(connecting).cpu, _result(asking).cpu


def _refused() -> float:
    """Microseconds for a client that is turned away because too many are connecting."""
    core, _ = machine.cores()
    with running("the server", _command(BELLWIRE, "--half-open 1"), core) as (port, process), closing(_ask(port)):
        before = processor_time(process)
        for _ in range(TURNED_AWAY):
            with closing(_ask(port)) as link:
                if b" 503 " not in link.recv(1_000):
                    raise ProcessError("a client was let in that should have been turned away")
        return (processor_time(process) - before) * 1e6 / TURNED_AWAY


def _ask(port: int) -> socket.socket:
    link = socket.create_connection((HOST, port))
    link.sendall(wire.request(HOST, port, "/socket.io/?EIO=4&transport=websocket"))
    return link


def _command(server: str, options: str) -> list[str]:
    return f"{server} {options}".replace("{python}", sys.executable).split()


def _result(found: Result | Idle) -> Result:
    if not isinstance(found, Result):
        raise ProcessError("something else was measured than asked for")
    return found


def kernel_memory(number: int = BARE) -> float:
    """Bytes that the kernel takes for a connection on loopback, which has both of its ends."""
    with socket.create_server((HOST, 0), backlog=number) as listening, ExitStack() as stack:
        before = _slab()
        for _ in range(number):
            stack.enter_context(socket.create_connection(listening.getsockname()))
            stack.enter_context(listening.accept()[0])
        return (_slab() - before) / number


def _slab() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Slab:"):
            return int(line.split()[1]) * 1024
    raise ProcessError("this kernel does not tell what it has for itself")
