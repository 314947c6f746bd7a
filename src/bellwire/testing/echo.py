"""A WebSocket echo for outside conformance suites: ``python -m bellwire.testing.echo --port N``.

The native transport, as ``bellwire run`` has it, under something simpler than Engine.IO: any path, permessage-deflate
with the full window, messages up to 64 MiB in any number of fragments. It prints its address when it listens; port 0
takes a free one. It is a tool for tests: it keeps what its client does not read.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import click
import uvicorn

from bellwire.core.clock import Wheel
from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.protocol.outgoing import Outgoing
from bellwire.transports.base import Application, Carrier, Receiver, Request
from bellwire.transports.engine import Engine
from bellwire.transports.native_upgrade import Admission, Endpoint, NativeUpgrade
from bellwire.transports.session import Session

MAX_MESSAGE: Final = 64 * 1024 * 1024  # bytes
FULL_WINDOW: Final = 15  # bits; RFC 7692 section 7.1.2


class Echo:
    """One connection: every message back to where it came from."""

    __slots__ = ("_carrier", "alive", "overflowed")

    def __init__(self, carrier: Carrier) -> None:
        self.alive = True
        self.overflowed = False
        self._carrier = carrier

    def received(self, carrier: Carrier, packet: str | bytes) -> None:
        """Send it back."""
        carrier.send(Outgoing(packet))

    def congested(self, carrier: Carrier) -> None:
        """What the client does not read is kept."""

    def drained(self, carrier: Carrier) -> None:
        """The client read it."""

    def lost(self, carrier: Carrier, reason: str) -> None:
        """Nothing is kept of a connection."""

    def close(self, reason: str, *, code: int = 1000, abort: bool = False) -> None:
        """The server stops."""
        self._carrier.close(code)


class _NoEngine(Application):
    """There is no Engine.IO here, so no session opens."""

    def opened(self, session: Session) -> Receiver:
        raise NotImplementedError


def echo_endpoint() -> Endpoint:
    """What answers on every path. It belongs to the running event loop."""
    loop = asyncio.get_running_loop()
    config = Config(send_buffer_bytes=sys.maxsize, process_buffer_bytes=sys.maxsize)
    engine = Engine(_NoEngine(), config, Counters(), loop, Wheel(loop))

    def admit(request: Request) -> Admission:
        return Admission(Echo)

    return Endpoint(engine, MAX_MESSAGE, sys.maxsize, FULL_WINDOW, admit)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Answer a request that asks for no WebSocket."""
    await send({"type": "http.response.start", "status": 426, "headers": [(b"upgrade", b"websocket")]})
    await send({"type": "http.response.body"})


@asynccontextmanager
async def listen(host: str, port: int) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """The echo, listening; gives the server and its port."""
    endpoint = echo_endpoint()
    config = uvicorn.Config(
        nothing,
        host=host,
        port=port,
        ws=partial(NativeUpgrade, lambda request: endpoint),  # type: ignore[arg-type]
        lifespan="off",
        log_level=logging.WARNING,
        access_log=False,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server, server.servers[0].sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


async def serve(host: str, port: int) -> None:
    """Listen, print the address, and serve until interrupted."""
    async with listen(host, port) as (server, found):
        click.echo(f"echo on ws://{host}:{found}")
        with server.capture_signals():
            await server.main_loop()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # there is none on Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen on")
@click.option("--port", type=click.IntRange(0, 65535), required=True, help="port to listen on, 0 for a free one")
def main(host: str, port: int) -> None:
    """Echo WebSocket messages on any path, until interrupted."""
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(serve(host, port))


if __name__ == "__main__":
    main()
