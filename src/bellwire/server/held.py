"""Where messages go while a socket is not connected: they wait for its CONNECT, or are counted when it is gone."""

from typing import ClassVar

from typing_extensions import override

from bellwire.core.counters import Counters
from bellwire.protocol.outgoing import Message
from bellwire.transports.base import Carrier
from bellwire.transports.engine import Engine
from bellwire.transports.session import Session


class Held(Carrier):
    """Keeps what is sent to a socket during ``on_connect``: it leaves right after the CONNECT reply."""

    __slots__ = ("_buffered", "_engine", "_messages", "_session")

    name: ClassVar[str] = "held"

    def __init__(self, engine: Engine, session: Session) -> None:
        self._engine = engine
        self._session = session
        self._messages: list[Message] = []
        self._buffered = 0

    def release(self, carrier: Carrier) -> None:
        """Send on what was kept."""
        for message in self._messages:
            carrier.send(message)
        self._messages.clear()

    def drop(self, reason: str) -> None:
        """The client is not connected after all: what was kept is dropped, and counted."""
        if self._messages:
            self._engine.counters.dropped("event", reason=reason, policy="at_most_once", n=len(self._messages))
            self._messages.clear()

    @override
    def send(self, message: Message) -> None:
        self._messages.append(message)
        self._buffered += message.size
        if self._buffered > self._engine.config.send_buffer_bytes:
            self.drop("slow_consumer")
            self._engine.overflow(self._session)

    @override
    def flush(self) -> None:
        """Nothing is written from here."""

    @override
    def close(self, code: int = 1000) -> None:
        """The session's own carrier is closed, not this."""

    @override
    def abort(self) -> None:
        """The session's own carrier is cut, not this."""

    @override
    def set_reading(self, reading: bool) -> None:
        """Nothing is read from here."""

    @property
    @override
    def buffered(self) -> int:
        return self._buffered

    @property
    @override
    def writable(self) -> bool:
        return self._buffered <= self._engine.config.volatile_buffer_bytes


class Nowhere(Carrier):
    """The carrier of a socket that is gone: what is sent to it is dropped, and counted."""

    __slots__ = ("_counters",)

    name: ClassVar[str] = "none"

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    @override
    def send(self, message: Message) -> None:
        self._counters.dropped("event", reason="disconnected", policy="at_most_once")

    @override
    def flush(self) -> None:
        """There is nothing to write."""

    @override
    def close(self, code: int = 1000) -> None:
        """It is."""

    @override
    def abort(self) -> None:
        """There is nothing to cut."""

    @override
    def set_reading(self, reading: bool) -> None:
        """There is nothing to read."""

    @property
    @override
    def buffered(self) -> int:
        return 0

    @property
    @override
    def writable(self) -> bool:
        return True
