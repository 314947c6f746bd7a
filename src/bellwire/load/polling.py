"""Socket.IO clients over long-polling that do nothing but wait: each has a request that hangs."""

import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bellwire.load.clients.base import LoadError, Manner, RefusedError
from bellwire.load.clients.socketio import CONNECT, prefix, refusal
from bellwire.load.swarm import CONNECTING, PATIENCE, Address

OPENING, POSTING, ENTERING, WAITING, PONGING = "opening", "posting", "entering", "waiting", "ponging"

SEPARATOR = b"\x1e"
"""Between the packets of a response (Engine.IO 4, payload encoding)."""


class Poller:
    """One client: a connection that is kept, on which one request follows on the other.

    ::

        opening   GET, answered with the session        -> posting
        posting   POST of CONNECT                       -> entering
        entering  GET, answered with CONNECT's answer   -> waiting
        waiting   GET, which hangs; answered by a ping  -> ponging
        ponging   POST of the pong                      -> waiting
    """

    def __init__(self, address: Address, manner: Manner) -> None:
        self._host, self._manner = f"{address[0]}:{address[1]}", manner
        self._namespace = prefix(manner.namespace)
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = self.socket.fileno()
        self.state = OPENING
        self._sid = ""
        self._inbox = b""
        self._request()

    def receive(self) -> None:
        """Take what is there, and go on."""
        data = self.socket.recv(1 << 16)
        if not data:
            raise LoadError("the server closed a connection")
        self._inbox += data
        while (body := self._response()) is not None:
            self._answered(body)

    def _answered(self, body: bytes) -> None:
        packets = body.split(SEPARATOR)
        if self.state == OPENING:
            self._sid = f"&sid={json.loads(body[1:])['sid']}"
            self._post(self._connect(), POSTING)
        elif self.state == ENTERING:
            if not packets[0].startswith(CONNECT):
                raise RefusedError(refusal(packets[0], self._namespace))
            self._get(WAITING)
        elif self.state == WAITING and b"2" in packets:
            self._post(b"3", PONGING)
        else:
            self._get(ENTERING if self.state == POSTING else WAITING)

    def _connect(self) -> bytes:
        auth = "" if self._manner.auth is None else json.dumps(self._manner.auth)
        return CONNECT + self._namespace + auth.encode()

    def _get(self, state: str) -> None:
        self.state = state
        self._request()

    def _post(self, body: bytes, state: str) -> None:
        self.state = state
        self._request("POST", body)

    def _request(self, method: str = "GET", body: bytes = b"") -> None:
        lines = [f"{method} /socket.io/?EIO=4&transport=polling{self._sid} HTTP/1.1", f"Host: {self._host}"]
        if body:
            lines += ["Content-Type: text/plain;charset=UTF-8", f"Content-Length: {len(body)}"]
        self.socket.send("\r\n".join([*lines, "", ""]).encode() + body)

    def _response(self) -> bytes | None:
        """The body of a response that is complete, taken out of the inbox."""
        head, found, rest = self._inbox.partition(b"\r\n\r\n")
        if not found:
            return None
        if not head.startswith(b"HTTP/1.1 200 "):
            raise LoadError(f"the server refused a request: {head[:200]!r}")
        lines = head.lower().split(b"\r\n")
        length = next((int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")), None)
        if length is None:
            return self._chunks(rest)
        if len(rest) < length:
            return None
        self._inbox = rest[length:]
        return rest[:length]

    def _chunks(self, rest: bytes) -> bytes | None:
        """A body in chunks (RFC 9112, 7.1)."""
        body = b""
        while True:
            line, found, rest = rest.partition(b"\r\n")
            if not found:
                return None
            size = int(line, 16)
            if len(rest) < size + 2:
                return None
            body, rest = body + rest[:size], rest[size + 2 :]
            if size == 0:
                self._inbox = rest
                return body


class Pollers:
    """All of them, in one epoll."""

    def __init__(self, address: Address, number: int, manner: Manner) -> None:
        self.epoll = select.epoll()
        self.members: dict[int, Poller] = {}
        try:
            while len(self.members) < number:
                self._open(address, min(CONNECTING, number - len(self.members)), manner)
        except BaseException:
            self.close()
            raise

    def _open(self, address: Address, number: int, manner: Manner) -> None:
        fresh = [Poller(address, manner) for _ in range(number)]
        self.members |= {poller.fd: poller for poller in fresh}
        for poller in fresh:
            self.epoll.register(poller.fd, select.EPOLLIN)
        while any(poller.state in (OPENING, POSTING, ENTERING) for poller in fresh):
            if not self._receive(PATIENCE):
                raise LoadError(f"nothing came for {PATIENCE:g} s")

    def _receive(self, seconds: float) -> int:
        events = self.epoll.poll(seconds)
        for fd, _ in events:
            self.members[fd].receive()
        return len(events)

    def attend(self, seconds: float) -> None:
        """Answer pings for so long."""
        deadline = time.perf_counter() + seconds
        while (left := deadline - time.perf_counter()) > 0:
            self._receive(left)

    def close(self) -> None:
        """Close all."""
        self.epoll.close()
        for poller in self.members.values():
            poller.socket.close()


@contextmanager
def pollers(address: Address, number: int, manner: Manner) -> Iterator[Pollers]:
    """Connect, and close in the end."""
    crowd = Pollers(address, number, manner)
    try:
        yield crowd
    finally:
        crowd.close()
