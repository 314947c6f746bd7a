"""Clients in the server's own process, without sockets: what is measured with them is what the server itself does.

What is left out is the kernel's part, some microseconds for each write.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from typing_extensions import override

from bellwire import Server
from bellwire.protocol.outgoing import Message
from bellwire.transports.base import Carrier, Request
from bellwire.transports.engine import Engine
from bellwire.transports.session import Session

SILENT: Mapping[str, Any] = {"ping_interval": 3600.0, "client_ping_interval": 3600.0}
"""Settings with which nobody is pinged: nobody would answer."""
AT_ONCE = 128
"""Clients that connect in one turn of the loop."""
_REQUEST = Request(path="/socket.io/", query_string=b"EIO=4&transport=websocket")


class Member(Carrier):
    """A client that reads at once, and counts the bytes that it is written."""

    __slots__ = ("_engine", "_out", "bytes", "session", "written")

    name: ClassVar[str] = "websocket"
    buffered = 0
    writable = True

    def __init__(self, engine: Engine) -> None:
        self.session: Session
        self._engine = engine
        self._out: list[bytes] = []
        self.written: Callable[[int], object] = _nothing
        self.bytes = 0

    @override
    def send(self, message: Message) -> None:
        if not self._out:
            self._engine.tick.touch(self)
        self._out.append(message.frames)

    @override
    def flush(self) -> None:
        size = len(self.read())
        self.bytes += size
        self.written(size)

    def read(self) -> bytes:
        """Take what is to be written."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    @override
    def close(self, code: int = 1000) -> None:
        self._out.clear()

    @override
    def abort(self) -> None:
        self._out.clear()

    @override
    def set_reading(self, reading: bool) -> None: ...


def _nothing(_: int) -> None: ...


M = TypeVar("M", bound=Member)


def enter(server: Server, member: M, packet: str = "40") -> M:
    """Open a session for ``member``, and send its CONNECT; the answer comes within some turns of the loop."""
    member.session = server.engine.open(member, _REQUEST)
    member.session.received(member, packet)
    return member


async def connect(server: Server, number: int) -> list[Member]:
    """Connect so many guests to the namespace ``/``."""
    members = []
    for place in range(number):
        members.append(enter(server, Member(server.engine)))
        if place % AT_ONCE == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    return members
