"""The least that a server on uvloop does: it writes back what it gets, or writes it to everyone."""

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

import uvloop

everyone: dict["Floor", Any] = {}


class Floor(asyncio.Protocol):
    """A connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It has come, and is told so."""
        self.transport: Any = transport
        everyone[self] = transport.get_extra_info("socket").fileno()
        self.transport.write(b"!")

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        del everyone[self]


class Echo(Floor):
    """It gets back what it sends."""

    def data_received(self, data: bytes) -> None:
        """Write it back."""
        self.transport.write(data)


class Broadcast(Floor):
    """Everyone gets what it sends."""

    def data_received(self, data: bytes) -> None:
        """Write it to all."""
        for descriptor in everyone.values():
            os.write(descriptor, data)


async def main(kind: Callable[[], Floor]) -> None:
    """Serve."""
    server = await asyncio.get_running_loop().create_server(kind, "127.0.0.1", int(os.environ["PORT"]), backlog=1024)
    await server.serve_forever()


uvloop.run(main({"echo": Echo, "broadcast": Broadcast}[sys.argv[1]]))
