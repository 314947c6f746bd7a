"""Serving an application on a real socket, inside the test's own loop: natively or as a plain ASGI application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

import uvicorn

from bellwire.transports.base import Receive, Scope, Send
from bellwire.transports.engine import Engine
from bellwire.transports.first_read import native_http
from bellwire.transports.native_upgrade import native_websockets

CLOSING = 5  # seconds for the clients to go when the server does


class Served(Protocol):
    """What can be served: ASGI, with the engine that the native transport needs."""

    @property
    def engine(self) -> Engine: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


@asynccontextmanager
async def serve(server: Served, *, native: bool = True, port: int = 0) -> AsyncIterator[str]:
    """Serve, and give ``http://127.0.0.1:port``; what ``bellwire run`` or plain uvicorn would do. Port 0 is a free one.

    uvicorn's loop around it, its signals and the tenths of a second that it sleeps are left out.
    """
    runner = _runner(server, native=native, port=port)
    await runner.startup()
    port = runner.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await _stop(runner)


def _runner(server: Served, *, native: bool, port: int) -> uvicorn.Server:
    protocols: dict[str, Any] = {}
    if native:
        protocols = {"ws": native_websockets(lambda: server.engine), "http": native_http(lambda: server.engine)}
    config = uvicorn.Config(
        cast("Any", server),
        port=port,
        loop="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        **protocols,
    )
    config.load()
    runner = uvicorn.Server(config)
    runner.lifespan = config.lifespan_class(config)
    return runner


async def _stop(runner: uvicorn.Server) -> None:
    for listener in runner.servers:
        listener.close()
    for connection in list(runner.server_state.connections):
        connection.shutdown()
    async with asyncio.timeout(CLOSING):
        await runner._wait_tasks_to_complete()
    await runner.lifespan.shutdown()
