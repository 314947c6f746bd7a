"""Broadcasts to 100,000 sockets on several nodes: ``python -m bench.crowd``.

Each node is a process with as many clients as it may have open files, each client process holds those of one node, and
a broker is between the nodes. One client publishes to everybody, one message after the other. Beside them one client
publishes to itself, in a room of the first node: what that waits is what a huge room costs the others. All
processes share the machine, so with two cores it measures how they get along more than how fast any of them is.
"""

import argparse
import json
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bellwire.core.open_files import raise_limit
from bellwire.load.amounts import count
from bellwire.load.clients.base import LoadError, Manner
from bellwire.load.clients.socketio import Stock
from bellwire.load.fanout import text
from bellwire.load.processes import HOST, ProcessError, running
from bellwire.load.program import NAMESPACE
from bellwire.load.result import own_memory, quantiles
from bellwire.load.swarm import Connection, Swarm
from bench import ROOT, brokers

NODE = "-m bellwire run bellwire.load.program:server --host {host} --port {port} --broker"
SIZE = 128
INTERVAL = 0.1
"""Seconds between two messages in the other room."""
PATIENCE = 300.0
"""Seconds for a part to connect, or for a message to be with everyone."""


class Crowd(NamedTuple):
    """What was found. Latencies are milliseconds: the 50th percentile, the 99th, and the largest."""

    members: int
    nodes: int
    messages: int
    rate: float
    """Deliveries in a second,"""
    slowest: float
    """and the seconds until the slowest message was with everyone."""
    alone: tuple[float, float, float]
    """Of messages to another room while nothing else happens,"""
    during: tuple[float, float, float]
    """and while a broadcast is under way."""
    member_bytes: float
    """Of a node's own memory for each client."""


# --- the processes that are clients; they end when their standard input does


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def tell(what: object) -> None:
    """Tell whoever started this process."""
    print(json.dumps(what), flush=True)


def attend(port: int, connections: int) -> None:
    """Be ``connections`` clients; tell when all are there, and when each message is with all of them."""
    crowd = Swarm((HOST, port), connections, lambda _: Stock(Manner()))
    stdin = sys.stdin.fileno()
    crowd.epoll.register(stdin, select.EPOLLIN)
    counts = dict.fromkeys(crowd.members, 0)
    having: list[int] = []  # how many connections have each message
    tell("ready")
    while True:
        for fd, _ in crowd.epoll.poll():
            if fd == stdin:
                return
            connection = crowd.members[fd]
            for _, said in connection.said(connection.receive()):
                number = counts[fd]
                if said != text(SIZE, number):
                    raise LoadError(f"{said!r} came as message {number}")
                counts[fd] = number + 1
                having += [0] * (number == len(having))
                having[number] += 1
                if having[number] == connections:
                    tell(time.perf_counter())


def observe(port: int) -> None:
    """Publish to oneself every `INTERVAL`, answered or not; tell in the end when that was due, and how long it took."""
    crowd = Swarm((HOST, port), 1, lambda _: Stock(Manner(namespace=NAMESPACE), "aside"))
    (connection,) = crowd.members.values()
    stdin = sys.stdin.fileno()
    crowd.epoll.register(stdin, select.EPOLLIN)
    tell("ready")
    due, waiting, seen = time.perf_counter(), deque[float](), list[tuple[float, float]]()
    while True:
        for fd, _ in crowd.epoll.poll(max(0.0, due - time.perf_counter())):
            if fd == stdin:
                tell(seen)
                return
            for _ in connection.said(connection.receive()):
                began = waiting.popleft()
                seen.append((began, time.perf_counter() - began))
        while due <= time.perf_counter():
            connection.socket.send(connection.client.publish("x"))
            waiting.append(due)
            due += INTERVAL


# --- the process that has started them


class Part:
    """One of them."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "bench.crowd", *options]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def hear(self) -> object:
        """Wait for what it tells next."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            raise ProcessError(f"a client process said nothing for {PATIENCE:g} s")
        line = self.process.stdout.readline()
        if not line:
            raise ProcessError("a client process has ended")
        return json.loads(line)

    def end(self) -> object:
        """Let it end, if it has not; return what it tells then, if anything."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.process.stdin.closed:
            return None
        self.process.stdin.close()
        said = self.process.stdout.read()
        self.process.stdout.close()
        self.process.wait()
        return json.loads(said) if said else None


@contextmanager
def parts(*options: tuple[str, ...]) -> Iterator[list[Part]]:
    """Start some, and end them."""
    made = [Part(*each) for each in options]
    try:
        yield made
    finally:
        for part in made:
            part.end()


def run(nodes: int, connections: int, messages: int, options: str, pause: float = 2.0) -> Crowd:
    """Start all, publish, and return what was found; the other room is alone for two times ``pause`` seconds."""
    with ExitStack() as stack:
        command = brokers.command(brokers.VALKEY, stack.enter_context(TemporaryDirectory()))
        port, _ = stack.enter_context(running("the broker", command, None))
        broker = brokers.ADDRESSES[brokers.VALKEY].format(host=HOST, port=port)
        node = [sys.executable, *NODE.split(), broker, *options.split()]
        found = [stack.enter_context(running("a node", node, None)) for _ in range(nodes)]
        began, before = time.perf_counter(), [own_memory(process) for _, process in found]
        asked = [("--attend", str(port), "--connections", str(connections)) for port, _ in found]
        crowd: list[Part] = []
        for each in asked:  # one node's after the other's: handshakes have deadlines
            crowd += stack.enter_context(parts(each))
            crowd[-1].hear()
        _progress(f"{nodes * connections:,} are connected after {time.perf_counter() - began:.0f} s")
        grown = [own_memory(process) - size for (_, process), size in zip(found, before, strict=True)]
        (observer,) = stack.enter_context(parts(("--observe", str(found[0][0]))))
        observer.hear()
        time.sleep(pause)
        with publisher(found[0][0]) as publish:
            rounds = [_broadcast(publish, number, crowd) for number in range(messages)]
        time.sleep(pause)
        seen = observer.end()
        assert isinstance(seen, list)
    first, last = rounds[0][0] - INTERVAL, rounds[-1][1]
    during = [took for began, took in seen if first <= began <= last]
    alone = [took for began, took in seen if not first <= began <= last]
    return Crowd(
        members=nodes * connections,
        nodes=nodes,
        messages=messages,
        rate=nodes * connections * messages / sum(end - start for start, end in rounds),
        slowest=max(end - start for start, end in rounds),
        alone=waits(alone),
        during=waits(during),
        member_bytes=sum(grown) / nodes / connections,
    )


@contextmanager
def publisher(port: int) -> Iterator[Connection]:
    """One more client in the namespace that everybody is in; it does not read."""
    crowd = Swarm((HOST, port), 1, lambda _: Stock(Manner()))
    try:
        yield next(iter(crowd.members.values()))
    finally:
        crowd.close()


def _broadcast(publish: Connection, number: int, crowd: list[Part]) -> tuple[float, float]:
    began = time.perf_counter()
    publish.socket.send(publish.client.publish(text(SIZE, number)))
    ends = [part.hear() for part in crowd]
    end = max(end for end in ends if isinstance(end, float))
    _progress(f"message {number + 1} is with everyone after {end - began:.2f} s")
    return began, end


def waits(latencies: list[float]) -> tuple[float, float, float]:
    """The 50th and the 99th percentile and the largest, in milliseconds."""
    if not latencies:
        raise ProcessError("not one message was measured: more --messages are needed")
    return *quantiles(latencies), max(latencies) * 1e3


def report(found: Crowd) -> str:
    """The figures, for people."""
    latency = "p50 {:.1f}, p99 {:.1f}, at most {:.1f} ms"
    return "\n".join(
        (
            f"{found.members:,} clients on {found.nodes} nodes, {found.messages} messages of {SIZE} B to all of them",
            f"  {found.rate:,.0f} deliveries a second; the slowest message took {found.slowest:.2f} s",
            f"  a message to another room, alone:  {latency.format(*found.alone)}",
            f"  the same while broadcasts go out:  {latency.format(*found.during)}",
            f"  {found.member_bytes:,.0f} B of a node's memory for each client",
        )
    )


def main() -> None:
    """Parse the arguments, and be a part or start all of them."""
    parser = argparse.ArgumentParser(prog="python -m bench.crowd", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nodes", type=count, default=6, help="servers (default: 6)")
    parser.add_argument("--connections", type=count, default=17_000, help="clients of each (default: 17000)")
    parser.add_argument("--messages", type=count, default=10, help="broadcasts, one after the other (default: 10)")
    parser.add_argument("--options", default="", help="more for the servers, such as '--fanout-batch 1000000'")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file as well")
    parser.add_argument("--attend", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--observe", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    raise_limit()
    try:
        if options.attend:
            attend(options.attend, options.connections)
        elif options.observe:
            observe(options.observe)
        else:
            found = run(options.nodes, options.connections, options.messages, options.options)
            print(report(found))
            if options.json:
                options.json.write_text(json.dumps(found._asdict(), indent=2) + "\n")
    except (ProcessError, LoadError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
