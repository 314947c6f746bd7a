"""A carrier without a client: it keeps what it is sent, and is as slow as it is told."""

from typing import ClassVar

from typing_extensions import override

from bellwire.protocol.outgoing import Message
from bellwire.transports.base import Carrier


class Pipe(Carrier):
    """Its test says when it is congested."""

    name: ClassVar[str] = "websocket"

    def __init__(self) -> None:
        self.sent: list[str | bytes] = []
        self.reading = True
        self.closed: int | str | None = None
        self.clogged = False

    @override
    def send(self, message: Message) -> None:
        self.sent += message.parts

    @override
    def flush(self) -> None:
        raise AssertionError("it touches no tick")

    @override
    def close(self, code: int = 1000) -> None:
        self.closed = code

    @override
    def abort(self) -> None:
        self.closed = "aborted"

    @override
    def set_reading(self, reading: bool) -> None:
        self.reading = reading

    @property
    @override
    def buffered(self) -> int:
        return 0

    @property
    @override
    def writable(self) -> bool:
        return not self.clogged

    @property
    @override
    def congested(self) -> bool:
        return self.clogged
