"""One publishes, everyone receives.

A verifying pass parses every byte of everyone. From then on one connection, the reference, is parsed, message for
message in its order, and says how long each message is; of all others the bytes are counted.
"""

import socket
import time
from collections.abc import Callable

from bellwire.load import swarm as crowds
from bellwire.load import wire
from bellwire.load.clients.base import Content, LoadError, Said
from bellwire.load.result import Meter, Result, Shape
from bellwire.load.swarm import Address, Connection, Make, Swarm

SAMPLED = 10
"""Connections on which the latency of every message is taken."""
VERIFIED = 20
"""Messages of the verifying pass."""
WARM_UP = 0.3
"""Seconds of load before the measurement."""
FILLING = "The quick brown fox jumps over the lazy dog. "

DISCARD = socket.MSG_TRUNC
"""The kernel need not copy bytes that are only counted: it throws them away and says how many they were (tcp(7))."""

Receive = Callable[[memoryview, int, int], int]


def text(size: int, number: int = 0) -> str:
    """A payload of ``size`` characters that begins with a number."""
    return f"{number:08d}{FILLING * (size // len(FILLING))}"[:size]


def content(crowd: Swarm, size: int, number: int = 0) -> Content:
    """The same, as what the clients of a crowd publish."""
    said = text(size, number)
    return said.encode() if next(iter(crowd.members.values())).client.manner.binary else said


def verify(crowd: Swarm, size: int, messages: int) -> None:
    """Publish some messages and parse all that everyone receives."""
    publisher = next(iter(crowd.members.values()))
    for connection in crowd.members.values():
        connection.client.join(publisher.client)
    contents = [content(crowd, size, number) for number in range(1, messages + 1)]
    expected: list[Said] = [(publisher.client.msg, said) for said in contents]
    received: dict[int, list[Said]] = {fd: [] for fd in crowd.members}
    for said in contents:
        publisher.socket.send(publisher.client.publish(said))
    while any(len(seen) < messages for seen in received.values()):
        for connection in crowd.readable():
            received[connection.fd] += connection.said(connection.receive())
    if any(seen != expected for seen in received.values()):
        raise LoadError("what the connections received is not what was published, in that order")


class Fanout:
    """Connection 0 publishes, everyone receives; at most ``window`` messages are on their way."""

    def __init__(self, crowd: Swarm, size: int, window: int) -> None:
        self.crowd, self.size, self.window = crowd, size, window
        self.reference = next(iter(crowd.members.values()))
        self.message = self.reference.client.publish(content(crowd, size))
        self.ping_size = len(wire.unmasked(self.reference.client.PING))
        self.sent_at: list[float] = []
        self.latencies: list[float] = []
        self.ends: list[int] = []  # how many bytes a connection has after each message
        self.got = [0] * (max(crowd.members) + 1)  # by file descriptor, as are the receivers
        self.receivers: list[Receive] = [_never] * len(self.got)
        every = max(1, len(crowd.members) // SAMPLED)
        for number, (fd, connection) in enumerate(crowd.members.items()):
            receive = connection.socket.recv_into
            self.receivers[fd] = self._sampled(receive) if number % every == 0 else receive
        self.receivers[self.reference.fd] = self._parsed(self.receivers[self.reference.fd], self.reference)

    def _sampled(self, receive: Receive) -> Receive:
        """Also take the time of every message: the nth of a connection is the nth that was published."""
        counter = self.reference.client.counter()
        seen = 0

        def sampling(buffer: memoryview, *_flags: int) -> int:
            nonlocal seen
            size = receive(buffer, 0, 0)
            arrived = time.perf_counter()
            for _ in range(min(counter.feed(bytes(buffer[:size])), len(self.sent_at) - seen)):
                self.latencies.append(arrived - self.sent_at[seen])
                seen += 1
            return size

        return sampling

    def _parsed(self, receive: Receive, connection: Connection) -> Receive:
        """Also read every message, and note where it ends."""
        client, inbox = connection.client, connection.inbox
        expected = client.msg, content(self.crowd, self.size)
        end = 0

        def parsing(buffer: memoryview, *_flags: int) -> int:
            nonlocal end
            size = receive(buffer, 0, 0)
            inbox.extend(buffer[:size])
            for opcode, payload, length in wire.split(inbox):
                if payload == client.PING:
                    continue
                said = client.read(payload) if opcode in client.opcodes else (opcode, None)
                end += length
                if said is None and client.manner.binary:
                    continue  # the bytes come next
                if said != expected:
                    raise LoadError(f"not what was published: {payload[:100]!r}")
                self.ends.append(end)
            return size

        return parsing

    def run(self, seconds: float) -> Result:
        """Publish for ``seconds``, and receive until everyone has everything."""
        with Meter(self.crowd.server) as meter:
            self._publish_and_receive(time.perf_counter() + seconds)
        self._account()
        everyone = len(self.crowd.members)
        shape = Shape("fanout", everyone, self.size, self.window, variant(self.crowd))
        return meter.result(shape, len(self.sent_at), len(self.sent_at) * everyone, self.latencies)

    def _publish_and_receive(self, deadline: float) -> None:
        # The hot loop: about a microsecond for a delivery, most of it the kernel's.
        got, receivers, poll, sent_at, ends = self.got, self.receivers, self.crowd.epoll.poll, self.sent_at, self.ends
        publish = self.reference.socket.send
        everyone, message, window = len(self.crowd.members), self.message, self.window
        clock = time.perf_counter
        buffer = memoryview(bytearray(1 << 18))
        total = done = 0  # bytes, and messages that everyone has
        while True:
            while done < len(ends) and total >= everyone * ends[done]:
                done += 1
            if clock() < deadline:
                while len(sent_at) - done < window:
                    sent_at.append(clock())
                    publish(message)
            elif done >= len(sent_at):
                return
            before = total
            for fd, _ in poll(crowds.PATIENCE, everyone):
                size = receivers[fd](buffer, 0, DISCARD)
                got[fd] += size
                total += size
            if total == before:
                raise LoadError(f"stalled: {len(sent_at) - done} of {len(sent_at)} messages are not with everyone")

    def _account(self) -> None:
        """Everyone has the bytes of all messages, and beyond them nothing but pings, which are answered."""
        if len(self.ends) > len(self.sent_at):
            raise LoadError(f"{len(self.ends)} messages came, {len(self.sent_at)} were published")
        expected = self.ends[-1]
        buffer = memoryview(bytearray(1 << 18))
        while any(self._incomplete(self.got[fd] - expected) for fd in self.crowd.members):
            for connection in self.crowd.readable():
                size = connection.socket.recv_into(buffer)
                self.got[connection.fd] += size
                if size == 0:
                    raise LoadError("a connection was closed before it had received everything")
        for fd, connection in self.crowd.members.items():
            for _ in range((self.got[fd] - expected) // self.ping_size):
                connection.socket.send(connection.client.PONG)

    def _incomplete(self, surplus: int) -> bool:
        """Bytes are on their way still: the total, with pings in it, was reached too early."""
        if surplus >= self.ends[0]:
            raise LoadError(f"a connection received {surplus} bytes too many")
        return surplus < 0 or surplus % self.ping_size != 0


def _never(*_: object) -> int:
    raise LoadError("a file descriptor that is no connection's")


def variant(crowd: Swarm) -> str:
    """What is special about the messages."""
    manner = next(iter(crowd.members.values())).client.manner
    return ", ".join(["binary"] * manner.binary + ["compressed"] * manner.deflate)


def fanout(
    address: Address,
    connections: int,
    make: Make,
    *,
    size: int,
    windows: list[int],
    seconds: float,
    server: int | None = None,
    publish_at: Address | None = None,
) -> list[Result]:
    """Verify, measure each window on the same connections, and verify again.

    Who publishes may be connected to another address.
    """
    results = []
    with crowds.swarm(address, connections, make, server, publish_at) as crowd:
        verify(crowd, size, VERIFIED)
        for window in windows:
            Fanout(crowd, size, window).run(min(seconds, WARM_UP))
            results.append(Fanout(crowd, size, window).run(seconds))
        verify(crowd, size, 1)  # nothing came twice, or late
    return results
