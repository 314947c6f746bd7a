"""The load generator: one process, raw sockets, epoll, one shared buffer.

It has to be faster than the fastest server, in Python. So it proves once that the server is right, with a
verifying pass in which every byte is parsed, and from then on counts bytes: all messages of a measurement
have the same size, and TCP neither loses nor reorders them. At the end every connection must have received
exactly the bytes of all messages.

    python -m bench.load --port 8000 fanout --connections 1000 --size 128 --windows 1,32 --seconds 2
    python -m bench.load --port 8000 echo --connections 100 --size 128 --seconds 2
"""

import argparse
import gc
import json
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from bench import wire

PATIENCE = 10.0
"""Seconds without a byte after which a measurement is given up."""
CONNECTING = 100
"""Connections that are in their handshake at once."""
SAMPLED = 10
"""Connections on which the latency of every message is taken."""
VERIFIED = 20
"""Messages of the verifying pass, and round trips per connection."""
WARM_UP = 0.3
"""Seconds of load before the measurement."""
FILLING = "The quick brown fox jumps over the lazy dog. "
PING_SIZE = len(wire.unmasked(wire.PING))

Receive = Callable[[memoryview], int]


class LoadError(Exception):
    """The server did something else than it should, or stopped doing it."""


@dataclass(frozen=True)
class Result:
    """One measurement.

    ``rate`` is deliveries or replies per second, ``p50`` and ``p99`` are latencies in milliseconds, and
    ``busy`` is the share of a core that the generator needed: close to 1 it measured itself, not the server.
    """

    work: str
    connections: int
    size: int
    window: int
    messages: int
    seconds: float
    rate: float
    p50: float
    p99: float
    busy: float


class Connection:
    """One client: its socket, and what it received and did not parse yet."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(wire.request(*address))
        self.socket.setblocking(False)
        self.fd = self.socket.fileno()
        self.inbox = bytearray()
        self.upgraded = False
        self.ready = False

    def receive(self) -> bytes:
        """Receive what is there."""
        data = self.socket.recv(1 << 16)
        if not data:
            raise LoadError("the server closed a connection")
        return data

    def packets(self) -> Iterator[bytes]:
        """Receive what is there, and yield the Engine.IO packets in it, pings answered."""
        return self.parse(self.receive())

    def parse(self, data: bytes) -> Iterator[bytes]:
        """Yield the Engine.IO packets that are complete with these bytes, pings answered."""
        self.inbox += data
        if not self.upgraded and not self._upgrade():
            return
        for opcode, payload in wire.split(self.inbox):
            if opcode != wire.TEXT:
                raise LoadError(f"a frame with opcode {opcode} came: {payload[:100]!r}")
            if payload == wire.PING:
                self.socket.send(wire.masked(wire.PONG))
            else:
                yield payload

    def _upgrade(self) -> bool:
        head, found, rest = self.inbox.partition(b"\r\n\r\n")
        if found and not head.startswith(b"HTTP/1.1 101 "):
            raise LoadError(f"the server refused the handshake: {bytes(head[:200])!r}")
        if found:
            self.inbox, self.upgraded = rest, True
        return self.upgraded

    def enter(self) -> None:
        """Go on with the handshakes of Engine.IO and Socket.IO."""
        for packet in self.packets():
            if packet.startswith(wire.OPEN):
                self.socket.send(wire.masked(wire.CONNECT))
            elif packet.startswith(wire.CONNECT):
                self.ready = True
            else:
                raise LoadError(f"the server refused the namespace: {packet[:200]!r}")


class Swarm:
    """All connections of a measurement, in one epoll."""

    def __init__(self, host: str, port: int, connections: int) -> None:
        self.epoll = select.epoll()
        self.members: dict[int, Connection] = {}
        try:
            while len(self.members) < connections:
                self._open((host, port), min(CONNECTING, connections - len(self.members)))
        except BaseException:
            self.close()
            raise

    def _open(self, address: tuple[str, int], number: int) -> None:
        fresh = [Connection(address) for _ in range(number)]
        self.members |= {connection.fd: connection for connection in fresh}
        for connection in fresh:
            self.epoll.register(connection.fd, select.EPOLLIN)
        while not all(connection.ready for connection in fresh):
            for connection in self.readable():
                connection.enter()

    def readable(self) -> list[Connection]:
        """Wait until some have something to read."""
        events = self.epoll.poll(PATIENCE)
        if not events:
            raise LoadError(f"nothing came for {PATIENCE:g} s")
        return [self.members[fd] for fd, _ in events]

    def close(self) -> None:
        """Close all."""
        self.epoll.close()
        for connection in self.members.values():
            connection.socket.close()


@contextmanager
def swarm(host: str, port: int, connections: int) -> Iterator[Swarm]:
    """Connect, and close in the end."""
    crowd = Swarm(host, port, connections)
    try:
        yield crowd
    finally:
        crowd.close()


def text(size: int, number: int = 0) -> str:
    """A payload of ``size`` characters that begins with a number."""
    return f"{number:08d}{FILLING * (size // len(FILLING))}"[:size]


# Fan-out


def verify_fanout(crowd: Swarm, size: int, messages: int) -> int:
    """Publish some messages and parse all that everyone receives; return the size of one frame."""
    publisher = next(iter(crowd.members.values()))
    expected = [["msg", text(size, number)] for number in range(1, messages + 1)]
    received: dict[int, list[object]] = {fd: [] for fd in crowd.members}
    sizes = set()
    for _, payload in expected:
        publisher.socket.send(wire.event("pub", payload))
    while any(len(seen) < messages for seen in received.values()):
        for connection in crowd.readable():
            for packet in connection.packets():
                received[connection.fd].append(_event(packet))
                sizes.add(len(wire.unmasked(packet)))
    if any(seen != expected for seen in received.values()):
        raise LoadError("what the connections received is not what was published, in that order")
    if len(sizes) != 1:
        raise LoadError(f"messages of one size came in frames of {sorted(sizes)} bytes")
    return sizes.pop()


def _event(packet: bytes) -> object:
    if not packet.startswith(wire.EVENT):
        raise LoadError(f"not an event: {packet[:100]!r}")
    return json.loads(packet[2:])


class Fanout:
    """Connection 0 publishes, everyone receives; at most ``window`` messages are on their way."""

    def __init__(self, crowd: Swarm, size: int, frame: int, window: int) -> None:
        self.crowd, self.size, self.frame, self.window = crowd, size, frame, window
        self.message = wire.event("pub", text(size))
        self.sent_at: list[float] = []
        self.latencies: list[float] = []
        self.got = [0] * (max(crowd.members) + 1)  # by file descriptor, as are the receivers
        self.receivers: list[Receive] = [_never] * len(self.got)
        every = max(1, len(crowd.members) // SAMPLED)
        for number, (fd, connection) in enumerate(crowd.members.items()):
            receive = connection.socket.recv_into
            self.receivers[fd] = self._sampled(receive) if number % every == 0 else receive

    def _sampled(self, receive: Receive) -> Receive:
        """Also take the time of every message: the nth frame of a connection is the nth message."""
        got = seen = 0

        def sampling(buffer: memoryview) -> int:
            nonlocal got, seen
            size = receive(buffer)
            got += size
            arrived = time.perf_counter()
            while seen < min(got // self.frame, len(self.sent_at)):
                self.latencies.append(arrived - self.sent_at[seen])
                seen += 1
            return size

        return sampling

    def run(self, seconds: float) -> Result:
        """Publish for ``seconds``, and receive until everyone has everything."""
        busy, began = time.process_time(), time.perf_counter()
        self._publish_and_receive(began + seconds)
        took, busy = time.perf_counter() - began, time.process_time() - busy
        self._account()
        rate = len(self.sent_at) * len(self.crowd.members) / took
        shape = "fanout", len(self.crowd.members), self.size, self.window, len(self.sent_at)
        return Result(*shape, took, rate, *_quantiles(self.latencies), busy / took)

    def _publish_and_receive(self, deadline: float) -> None:
        # The hot loop: about a microsecond for a delivery, most of it the kernel's.
        got, receivers, poll, sent_at = self.got, self.receivers, self.crowd.epoll.poll, self.sent_at
        publish = next(iter(self.crowd.members.values())).socket.send
        everyone = len(self.crowd.members)
        round_size, message, window = everyone * self.frame, self.message, self.window
        clock = time.perf_counter
        buffer = memoryview(bytearray(1 << 18))
        total = 0
        while True:
            if clock() < deadline:
                while len(sent_at) - total // round_size < window:
                    sent_at.append(clock())
                    publish(message)
            elif total >= len(sent_at) * round_size:
                return
            before = total
            for fd, _ in poll(PATIENCE, everyone):
                size = receivers[fd](buffer)
                got[fd] += size
                total += size
            if total == before:
                raise LoadError(f"stalled: {len(sent_at) * round_size - total} bytes are missing")

    def _account(self) -> None:
        """Everyone has the bytes of all messages, and beyond them nothing but pings, which are answered."""
        expected = len(self.sent_at) * self.frame
        buffer = memoryview(bytearray(1 << 18))
        while any(self._incomplete(self.got[fd] - expected) for fd in self.crowd.members):
            for connection in self.crowd.readable():
                size = connection.socket.recv_into(buffer)
                self.got[connection.fd] += size
                if size == 0:
                    raise LoadError("a connection was closed before it had received everything")
        for fd, connection in self.crowd.members.items():
            for _ in range((self.got[fd] - expected) // PING_SIZE):
                connection.socket.send(wire.masked(wire.PONG))

    def _incomplete(self, surplus: int) -> bool:
        """Bytes are on their way still: the total, with pings in it, was reached too early."""
        if surplus >= self.frame:
            raise LoadError(f"a connection received {surplus} bytes too many")
        return surplus < 0 or surplus % PING_SIZE != 0


def _never(_: memoryview) -> int:
    raise LoadError("a file descriptor that is no connection's")


def fanout(host: str, port: int, connections: int, size: int, windows: list[int], seconds: float) -> list[Result]:
    """Verify, measure each window on the same connections, and verify again."""
    results = []
    with swarm(host, port, connections) as crowd:
        frame = verify_fanout(crowd, size, VERIFIED)
        for window in windows:
            Fanout(crowd, size, frame, window).run(min(seconds, WARM_UP))
            results.append(Fanout(crowd, size, frame, window).run(seconds))
        verify_fanout(crowd, size, 1)  # nothing came twice, or late
    return results


# Acknowledged round trips


class Echo:
    """Every connection has one request on its way; every reply is compared with what was asked."""

    NUMBERS = range(100, 1000)  # acknowledgement ids, all of the same length

    def __init__(self, crowd: Swarm, size: int) -> None:
        self.crowd, self.size = crowd, size
        self.requests = [wire.event("echo", text(size, number), number) for number in self.NUMBERS]
        self.replies = [self._reply(number) for number in self.NUMBERS]
        self.asked = dict.fromkeys(crowd.members, 0)
        self.asked_at = dict.fromkeys(crowd.members, 0.0)
        self.latencies: list[float] = []

    def _reply(self, number: int) -> bytes:
        body = json.dumps([text(self.size, number)], separators=(",", ":"))
        return wire.unmasked(wire.ACK + f"{number}{body}".encode())

    def verify(self) -> None:
        """Some round trips on every connection, in which every reply is parsed."""
        self._converse(self._parsed, lambda connection: self.asked[connection.fd] < VERIFIED)

    def run(self, seconds: float) -> Result:
        """Ask for ``seconds``, and wait for the last replies."""
        busy, began = time.process_time(), time.perf_counter()
        deadline = began + seconds
        self._converse(self._answered, lambda _: time.perf_counter() < deadline)
        took, busy = time.perf_counter() - began, time.process_time() - busy
        done = len(self.latencies)
        shape = "echo", len(self.crowd.members), self.size, 1, done
        return Result(*shape, took, done / took, *_quantiles(self.latencies), busy / took)

    def _converse(self, answered: Callable[[Connection], bool], more: Callable[[Connection], bool]) -> None:
        for connection in self.crowd.members.values():
            self._ask(connection)
        waiting = len(self.crowd.members)
        while waiting:
            for connection in self.crowd.readable():
                if not answered(connection):
                    continue
                self.latencies.append(time.perf_counter() - self.asked_at[connection.fd])
                if more(connection):
                    self._ask(connection)
                else:
                    waiting -= 1

    def _ask(self, connection: Connection) -> None:
        turn = self.asked[connection.fd] % len(self.requests)
        self.asked[connection.fd] += 1
        self.asked_at[connection.fd] = time.perf_counter()
        connection.socket.send(self.requests[turn])

    def _answered(self, connection: Connection) -> bool:
        """Compare the bytes; only when they differ (two pieces, a ping, another JSON) parse them."""
        data = connection.receive()
        if data == self.replies[(self.asked[connection.fd] - 1) % len(self.replies)] and not connection.inbox:
            return True
        return self._right(connection, connection.parse(data))

    def _parsed(self, connection: Connection) -> bool:
        return self._right(connection, connection.packets())

    def _right(self, connection: Connection, packets: Iterator[bytes]) -> bool:
        number = self.NUMBERS[(self.asked[connection.fd] - 1) % len(self.NUMBERS)]
        head = wire.ACK + str(number).encode()
        answered = False
        for packet in packets:
            right = packet.startswith(head) and json.loads(packet[len(head) :]) == [text(self.size, number)]
            if answered or not right:
                raise LoadError(f"not the reply to request {number}: {packet[:100]!r}")
            answered = True
        return answered


def echo(host: str, port: int, connections: int, size: int, seconds: float) -> list[Result]:
    """Verify, then measure."""
    with swarm(host, port, connections) as crowd:
        Echo(crowd, size).verify()
        Echo(crowd, size).run(min(seconds, WARM_UP))
        return [Echo(crowd, size).run(seconds)]


def _quantiles(latencies: list[float]) -> tuple[float, float]:
    """The 50th and the 99th percentile, in milliseconds."""
    if not latencies:
        raise LoadError("not one message was measured")
    ordered = sorted(latencies)
    return ordered[len(ordered) // 2] * 1e3, ordered[len(ordered) * 99 // 100] * 1e3


def main() -> None:
    """Run one kind of load and print the results as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.load")
    parser.add_argument("work", choices=("fanout", "echo"))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--size", type=int, default=128, help="bytes of a payload, from 8 on")
    parser.add_argument("--windows", type=lambda value: [int(part) for part in value.split(",")], default=[1])
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement")
    options = vars(parser.parse_args())
    work, windows = options.pop("work"), options.pop("windows")
    gc.disable()  # there is nothing to collect, and looking for it would be seen in the latencies
    try:
        results = fanout(windows=windows, **options) if work == "fanout" else echo(**options)
    except (LoadError, OSError) as error:
        sys.exit(f"{work} on port {options['port']}: {error}")
    print(json.dumps([asdict(result) for result in results]))


if __name__ == "__main__":
    main()
