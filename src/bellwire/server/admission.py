"""What happens between a client's CONNECT and the answer: authentication, middleware, ``on_connect``.

Each may turn the client away with :class:`~bellwire.core.errors.ConnectRefused`.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from bellwire.core.errors import ConnectRefused
from bellwire.guard.auth import Identity
from bellwire.server.socket import Phase, Socket
from bellwire.transports.base import Request

if TYPE_CHECKING:
    from bellwire.server.namespace import Namespace

Authenticator: TypeAlias = Callable[[Request, Mapping[str, Any]], Awaitable[Identity | None]]
"""``async (request, payload) -> Identity | None``: the payload is what came with CONNECT, empty if nothing did."""

Next: TypeAlias = Callable[[], Awaitable[None]]
Middleware: TypeAlias = Callable[[Socket, Next], Awaitable[None]]


async def admit(socket: Socket, namespace: "Namespace", authenticate: Authenticator | None) -> None:
    """Let ``socket`` in, or raise."""
    if authenticate is not None:
        socket.identify(await authenticate(socket.request, socket.auth))
    if socket.phase is Phase.DISCONNECTED:
        return
    socket.enter()
    await _pass(socket, namespace, 0)


async def _pass(socket: Socket, namespace: "Namespace", position: int) -> None:
    """Middleware from ``position`` on, each around the rest; the handlers of ``on_connect`` innermost."""
    if position == len(namespace.middleware):
        if socket.phase is Phase.DISCONNECTED:
            return
        socket.phase = Phase.ENTERING
        for handler in namespace.connect_handlers:
            await handler(socket)
        return
    passed = False

    async def go_on() -> None:
        nonlocal passed
        passed = True
        await _pass(socket, namespace, position + 1)

    await namespace.middleware[position](socket, go_on)
    if not passed:
        raise ConnectRefused("refused")
