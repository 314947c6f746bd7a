"""Many clients in one epoll."""

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from bellwire.load import wire
from bellwire.load.clients.base import Client, LoadError, Said

PATIENCE = 10.0
"""Seconds without a byte after which a measurement is given up."""
CONNECTING = 100
"""Connections that are in their handshake at once."""

Address: TypeAlias = tuple[str, int]
Make: TypeAlias = Callable[[int], Client]
"""Makes the client of connection number n."""


class Connection:
    """One client: its socket, what it says, and what it received and did not parse yet."""

    def __init__(self, address: Address, client: Client) -> None:
        self.client = client
        self.began = time.perf_counter()
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(client.request(*address))
        self.socket.setblocking(False)
        self.fd = self.socket.fileno()
        self.inbox = bytearray()
        self.upgraded = False
        self.took = 0.0
        """Seconds until it was in the namespace."""
        self.numbered = 0
        """The last number that it gave to an event."""

    @property
    def ready(self) -> bool:
        """Whether it is in the namespace."""
        return self.client.ready

    def receive(self) -> bytes:
        """Receive what is there."""
        data = self.socket.recv(1 << 16)
        if not data:
            raise LoadError("the server closed a connection")
        return data

    def said(self, data: bytes) -> Iterator[Said]:
        """What the server says with these bytes."""
        for payload in self.parse(data):
            said = self.client.read(payload)
            if said is not None:
                yield said

    def parse(self, data: bytes) -> Iterator[bytes]:
        """Yield the messages that are complete with these bytes, pings answered."""
        self.inbox += data
        if not self.upgraded and not self._upgrade():
            return
        client = self.client
        for opcode, payload, _ in wire.split(self.inbox):
            if opcode not in client.opcodes:
                raise LoadError(f"a frame with opcode {opcode} came: {payload[:100]!r}")
            if payload == client.PING:
                self.socket.send(client.PONG)
            else:
                yield payload

    def _upgrade(self) -> bool:
        head, found, rest = self.inbox.partition(b"\r\n\r\n")
        if found and not head.startswith(b"HTTP/1.1 101 "):
            raise LoadError(f"the server refused the handshake: {bytes(head[:200])!r}")
        if found and self.client.manner.deflate and b"server_no_context_takeover" not in head:
            raise LoadError("the server does not compress, or not in the way that it was asked for")
        if found:
            self.inbox, self.upgraded = rest, True
            self._send(self.client.begin())
        return self.upgraded

    def enter(self) -> None:
        """Go on with the handshakes."""
        for payload in self.parse(self.receive()):
            if self.client.ready:
                self.client.read(payload)
            else:
                self._send(self.client.enter(payload))
        if self.client.ready and not self.took:
            self.took = time.perf_counter() - self.began

    def _send(self, data: bytes) -> None:
        if data:
            self.socket.send(data)


class Swarm:
    """All connections of a measurement, in one epoll."""

    def __init__(
        self, address: Address, number: int, make: Make, server: int | None = None, first_at: Address | None = None
    ) -> None:
        self.server = server
        """The server's process, if it is known."""
        self.epoll = select.epoll()
        self.members: dict[int, Connection] = {}
        self._make = make
        try:
            if first_at is not None:
                self._open(first_at, 1)
            while len(self.members) < number:
                self._open(address, min(CONNECTING, number - len(self.members)))
        except BaseException:
            self.close()
            raise

    def _open(self, address: Address, number: int) -> None:
        before = len(self.members)
        fresh = [Connection(address, self._make(before + at)) for at in range(number)]
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

    def attend(self, seconds: float) -> None:
        """Answer pings for so long; nothing else may come."""
        deadline = time.perf_counter() + seconds
        while (left := deadline - time.perf_counter()) > 0:
            for fd, _ in self.epoll.poll(left):
                connection = self.members[fd]
                for said in connection.said(connection.receive()):
                    raise LoadError(f"a message came to somebody idle: {said!r}")

    def close(self) -> None:
        """Close all."""
        self.epoll.close()
        for connection in self.members.values():
            connection.socket.close()


@contextmanager
def swarm(
    address: Address, number: int, make: Make, server: int | None = None, first_at: Address | None = None
) -> Iterator[Swarm]:
    """Connect, the first one to another address if it is said, and close in the end."""
    crowd = Swarm(address, number, make, server, first_at)
    try:
        yield crowd
    finally:
        crowd.close()
