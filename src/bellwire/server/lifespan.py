"""The ASGI lifespan: the server's own, the application's around it, and that of the application beside it."""

from typing import TYPE_CHECKING

from bellwire.transports.base import ASGIMessage, Receive, Scope, Send

if TYPE_CHECKING:
    from bellwire.server.server import ASGIApplication, Server


async def serve_lifespan(server: "Server", scope: Scope, receive: Receive, send: Send) -> None:
    """Start at ``lifespan.startup``, close at ``lifespan.shutdown``; ``Server(http=...)`` goes through it inside."""
    startup = await receive()
    try:
        await server.start()
    except BaseException as error:
        await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
        raise
    try:
        if server.http is None:
            await _wait(receive, send)
        else:
            await _Inner(server.http, scope, startup, receive, send).run()
    finally:
        await server.close()


async def _wait(receive: Receive, send: Send) -> None:
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


class _Inner:
    """The lifespan of the HTTP application; one that has none is served all the same."""

    def __init__(
        self, app: "ASGIApplication", scope: Scope, startup: ASGIMessage, receive: Receive, send: Send
    ) -> None:
        self._app = app
        self._scope = scope
        self._receive_outer = receive
        self._send_outer = send
        self._replay: list[ASGIMessage] = [startup]
        self._answered = False

    async def run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception:
            if self._answered:
                raise
        if not self._answered:  # the specification lets an application refuse the scope
            await _wait(self._receive_outer, self._send_outer)

    async def _receive(self) -> ASGIMessage:
        return self._replay.pop() if self._replay else await self._receive_outer()

    async def _send(self, message: ASGIMessage) -> None:
        self._answered = True
        await self._send_outer(message)
