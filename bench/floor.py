"""What nothing on this machine can be faster than, with uvloop and this kernel: ``python -m bench.floor``.

An empty protocol, without WebSocket, Socket.IO or handlers, writes back each message that it gets, or writes it to
everyone; the same sizes and numbers as in ``make bench``.
"""

import argparse
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import NamedTuple, TypeAlias

from bellwire.core.open_files import raise_limit
from bellwire.load import machine
from bellwire.load.amounts import amount, count
from bellwire.load.processes import HOST, ProcessError, on_core, running
from bench.peers import SERVERS

SIZE = 142
"""Bytes of a message of 128, as an event of Socket.IO in a frame."""
TIMEOUT = 10.0
TICKS = os.sysconf("SC_CLK_TCK")

Clients: TypeAlias = dict[int, socket.socket]


class Floor(NamedTuple):
    """What each message took of the server."""

    rate: float
    """Messages that were got in a second."""
    kernel: float
    """Microseconds,"""
    rest: float
    """and those of uvloop and Python."""


def measure(kind: str, connections: int, seconds: float) -> Floor:
    """Measure round trips of so many clients (``echo``), or what one of them sends to all (``broadcast``)."""
    ours, theirs = machine.cores()[::-1]
    command = [sys.executable, str(SERVERS / "floor_server.py"), kind]
    with running(kind, command, theirs) as (port, process), on_core(ours), _connected(port, connections) as clients:
        work = _echoes if kind == "echo" else _broadcasts
        began, before, deadline = time.perf_counter(), _computed(process), time.perf_counter() + seconds
        done = work(clients, lambda: time.perf_counter() < deadline)
        took, after = time.perf_counter() - began, _computed(process)
    rest, kernel = ((end - start) / TICKS / done * 1e6 for start, end in zip(before, after, strict=True))
    return Floor(done / took, kernel, rest)


@contextmanager
def _connected(port: int, number: int) -> Iterator[Clients]:
    with ExitStack() as stack:
        made = [stack.enter_context(socket.create_connection((HOST, port), TIMEOUT)) for _ in range(number)]
        for each in made:
            each.recv(1)  # the server has taken it
        yield {each.fileno(): each for each in made}


def _echoes(clients: Clients, going_on: Callable[[], bool]) -> int:
    """Each sends again when it has what it sent."""
    message, done = bytes(SIZE), 0
    with _watched(clients) as poll:
        for client in clients.values():
            client.send(message)
        while going_on():
            for descriptor, _ in poll.poll():
                if len(clients[descriptor].recv(SIZE, socket.MSG_WAITALL)) == SIZE:
                    clients[descriptor].send(message)
                    done += 1
    return done


def _broadcasts(clients: Clients, going_on: Callable[[], bool]) -> int:
    """One sends the next when everyone has the last."""
    message, done, due = bytes(SIZE), 0, 0
    first, *_ = clients.values()
    with _watched(clients) as poll:
        while due or going_on():
            if not due:
                first.send(message)
                due = len(clients)
            for descriptor, _ in poll.poll():
                if len(clients[descriptor].recv(SIZE, socket.MSG_WAITALL)) == SIZE:
                    due -= 1
                    done += 1
    return done


@contextmanager
def _watched(clients: Clients) -> Iterator[select.epoll]:
    with select.epoll() as poll:
        for descriptor in clients:
            poll.register(descriptor, select.EPOLLIN)
        yield poll


def _computed(process: int) -> tuple[int, int]:
    """Ticks of a process outside of the kernel, and in it."""
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]), int(fields[12])


def main(words: Sequence[str] | None = None) -> None:
    """Parse the arguments, measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.floor", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=count, default=5, help="default: 5")
    parser.add_argument("--seconds", type=amount, default=2.0, help="of each measurement (default: 2)")
    options = parser.parse_args(words)
    raise_limit()
    try:
        for kind, connections in (("echo", 1), ("echo", 100), ("broadcast", 1_000)):
            found = [measure(kind, connections, options.seconds) for _ in range(options.rounds)]
            rate, kernel, rest = (median(each) for each in zip(*found, strict=True))
            print(f"{kind:9} {connections:5,}: {rate:9,.0f}/s, {kernel:.1f} us of the kernel, {rest:.1f} of the rest")
    except (ProcessError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
