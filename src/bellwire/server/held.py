"""Where messages go while a socket is not connected: they wait for its CONNECT, or are counted when it is gone."""

from typing_extensions import override

from bellwire.core.counters import Counters
from bellwire.protocol.outgoing import Message
from bellwire.transports.base import Sink
from bellwire.transports.base_session import BaseSession
from bellwire.transports.engine import Engine


class Held(Sink):
    """Keeps what is sent to a socket during ``on_connect``: it leaves right after the CONNECT reply."""

    __slots__ = ("_buffered", "_engine", "_messages", "_session")

    def __init__(self, engine: Engine, session: BaseSession) -> None:
        self._engine = engine
        self._session = session
        self._messages: list[Message] = []
        self._buffered = 0

    def release(self, sink: Sink) -> None:
        """Send on what was kept."""
        for message in self._messages:
            sink.send(message)
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

    @property
    @override
    def buffered(self) -> int:
        return self._buffered

    @property
    @override
    def writable(self) -> bool:
        return self._buffered <= self._engine.config.volatile_buffer_bytes


class Nowhere(Sink):
    """The sink of a socket that is gone: what is sent to it is dropped, and counted."""

    __slots__ = ("_counters",)

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    @override
    def send(self, message: Message) -> None:
        self._counters.dropped("event", reason="disconnected", policy="at_most_once")

    @property
    @override
    def buffered(self) -> int:
        return 0

    @property
    @override
    def writable(self) -> bool:
        return True
