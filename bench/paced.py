"""One publishes at fixed times, whatever comes back, and everyone receives: ``python -m bench.paced``.

A message's latency counts from when it was due, so that a server that stops for a second is seen a second late by all
that were due in it. Every ``--every`` seconds a line of JSON says what was found.
"""

import argparse
import gc
import sys
import time
from collections.abc import Iterator

import msgspec

from bellwire.core.open_files import raise_limit
from bellwire.load import swarm as crowds
from bellwire.load.amounts import amount, count
from bellwire.load.clients import CLIENTS
from bellwire.load.clients.base import LoadError, Manner
from bellwire.load.fanout import DISCARD, VERIFIED, Fanout, verify
from bellwire.load.result import Meter, Result, Shape
from bellwire.load.swarm import Swarm

ROOM = "paced"
"""Where it happens: others may come and go in the namespace."""
SLICE = 4.0
"""Seconds after which pings are answered; a client has five."""


class Paced(Fanout):
    """Connection 0 publishes so many messages a second."""

    def __init__(self, crowd: Swarm, size: int, rate: float) -> None:
        super().__init__(crowd, size, 0)
        self.interval = 1 / rate

    def _publish_and_receive(self, deadline: float) -> None:
        got, receivers, poll, sent_at, ends = self.got, self.receivers, self.crowd.epoll.poll, self.sent_at, self.ends
        everyone, message, publish = len(self.crowd.members), self.message, self.reference.socket.send
        clock = time.perf_counter
        buffer = memoryview(bytearray(1 << 18))
        total = done = 0  # bytes, and messages that everyone has
        due = clock()
        while True:
            while done < len(ends) and total >= everyone * ends[done]:
                done += 1
            now = clock()
            while due <= now and due < deadline:
                sent_at.append(due)
                publish(message)
                due += self.interval
            if due >= deadline and done >= len(sent_at):
                return
            before = total
            for fd, _ in poll(due - now if due < deadline else crowds.PATIENCE, everyone):
                size = receivers[fd](buffer, 0, DISCARD)
                got[fd] += size
                total += size
            if total == before and due >= deadline:
                raise LoadError(f"stalled: {len(sent_at) - done} of {len(sent_at)} messages are not with everyone")


def paced(crowd: Swarm, size: int, rate: float, seconds: float, every: float) -> Iterator[Result]:
    """Publish for so long, and yield what was found in each part of it."""
    verify(crowd, size, VERIFIED)
    for _ in range(parts(seconds, every)):
        latencies: list[float] = []
        messages, end = 0, time.perf_counter() + every
        with Meter(crowd.server) as meter:
            while not messages or (left := end - time.perf_counter()) > 1 / rate:
                load = Paced(crowd, size, rate)
                load.run(min(SLICE, left) if messages else min(SLICE, every))
                messages += len(load.sent_at)
                latencies += load.latencies
        everyone = len(crowd.members)
        yield meter.result(Shape("paced", everyone, size, 0), messages, messages * everyone, latencies)


def parts(seconds: float, every: float) -> int:
    """How many results there are."""
    return max(1, round(seconds / every))


def main() -> None:
    """Parse the arguments, publish, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.paced", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--server", type=int, metavar="PID")
    parser.add_argument("--client", choices=list(CLIENTS), default="recovering")
    parser.add_argument("--connections", type=count, default=1000)
    parser.add_argument("--size", type=count, default=128)
    parser.add_argument("--rate", type=amount, required=True, help="messages a second")
    parser.add_argument("--seconds", type=amount, required=True)
    parser.add_argument("--every", type=amount, default=60.0)
    options = parser.parse_args()
    raise_limit()
    gc.disable()
    client = CLIENTS[options.client]
    try:
        with crowds.swarm(
            ("127.0.0.1", options.port), options.connections, lambda _: client(Manner(), ROOM), options.server
        ) as crowd:
            for result in paced(crowd, options.size, options.rate, options.seconds, options.every):
                print(msgspec.json.encode(result).decode(), flush=True)
            sys.stdin.read()  # whoever counts the server's connections may do so first
    except (LoadError, OSError) as error:
        sys.exit(f"a paced load of {options.rate:g} messages a second: {error}")


if __name__ == "__main__":
    main()
