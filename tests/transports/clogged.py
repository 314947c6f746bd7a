"""A transport without a socket, for what flow control does step by step."""

import asyncio
from typing import Any


class Clogged(asyncio.Transport):
    """A transport whose peer reads nothing until it is told; its flow control is asyncio's ("Flow Control").

    ``overhead`` is what each write has in addition, as with TLS.
    """

    def __init__(self, waiting: int = 0, *, paused: bool = False, overhead: int = 0) -> None:
        super().__init__()
        self.overhead = overhead
        self.waiting = waiting
        self.paused = paused
        self.limits = (16_384, 65_536)
        self.protocol: asyncio.BaseProtocol = asyncio.Protocol()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self.limits = (high // 4, high)
        self._pause()

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        self.waiting += len(data) + self.overhead
        self._pause()

    def _pause(self) -> None:
        if self.waiting > self.limits[1] and not self.paused:
            self.paused = True
            self.protocol.pause_writing()

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None: ...

    def take(self, count: int) -> None:
        self.waiting -= count
        if self.paused and self.waiting <= self.limits[0]:
            self.paused = False
            self.protocol.resume_writing()
