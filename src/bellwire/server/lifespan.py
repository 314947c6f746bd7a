"""The ASGI lifespan: the server's own, the application's around it, and that of the application beside it."""

import logging
from typing import TYPE_CHECKING

from bellwire.transports.base import ASGIMessage, Receive, Scope, Send

if TYPE_CHECKING:
    from bellwire.server.server import ASGIApplication, Server

logger = logging.getLogger("bellwire.server")


async def serve_lifespan(server: "Server", scope: Scope, receive: Receive, send: Send) -> None:
    """Start at ``lifespan.startup``, close at ``lifespan.shutdown``; ``Server(http=...)`` goes through it inside.

    The end is told once everything has ended: servers stop the event loop as soon as they hear of it.
    """
    startup = await receive()
    try:
        await server.start()
    except BaseException as error:
        await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
        raise
    try:
        if server.http is None:
            await send({"type": "lifespan.startup.complete"})
            await _end(server, receive, send)
        else:
            await _Inner(server, server.http, scope, startup, receive, send).run()
    finally:
        await server.close()


async def _end(server: "Server", receive: Receive, send: Send) -> None:
    await receive()
    try:
        await server.close()
    except BaseException as error:
        await send({"type": "lifespan.shutdown.failed", "message": f"{type(error).__name__}: {error}"})
        raise
    await send({"type": "lifespan.shutdown.complete"})


class _Inner:
    """The lifespan of the HTTP application; one that has none is served all the same."""

    def __init__(
        self,
        server: "Server",
        app: "ASGIApplication",
        scope: Scope,
        startup: ASGIMessage,
        receive: Receive,
        send: Send,
    ) -> None:
        self._server = server
        self._app = app
        self._scope = scope
        self._receive_outer = receive
        self._send_outer = send
        self._replay: list[ASGIMessage] = [startup]
        self._answer = ""

    async def run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception as error:
            if self._answer:
                raise
            logger.info("the HTTP application has no lifespan: %s: %s", type(error).__name__, error)
        if not self._answer:  # the specification lets an application refuse the scope
            await self._send_outer({"type": "lifespan.startup.complete"})
        if self._answer in ("", "lifespan.startup.complete"):
            await _end(self._server, self._receive_outer, self._send_outer)

    async def _receive(self) -> ASGIMessage:
        return self._replay.pop() if self._replay else await self._receive_outer()

    async def _send(self, message: ASGIMessage) -> None:
        self._answer = message["type"]
        if self._answer.startswith("lifespan.shutdown"):
            await self._server.close()
        await self._send_outer(message)
