"""What happens between a client's CONNECT and the answer: authentication, middleware, ``on_connect``.

Each may turn the client away with :class:`~bellwire.core.errors.ConnectRefused`.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from bellwire.core.errors import ConnectRefused
from bellwire.guard.auth import Identity
from bellwire.server.callables import full_name
from bellwire.server.inbound import Phase
from bellwire.server.socket import Socket
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
        identity = await authenticate(socket.request, socket.auth)
        if identity is not None and not isinstance(identity, Identity):
            raise TypeError(
                f"auth returned {type(identity).__name__}: return Identity(user), None, or raise ConnectRefused(...)"
            )
        socket.identify(identity)
    for step in (socket.take_place, socket.enter):
        if socket.gone:
            return
        await step()
    await _pass(socket, namespace, 0)


async def _pass(socket: Socket, namespace: "Namespace", position: int) -> None:
    """Middleware from ``position`` on, each around the rest; the handlers of ``on_connect`` innermost."""
    if position == len(namespace.middleware):
        if socket.phase is Phase.DISCONNECTED:
            return
        socket.phase = Phase.ENTERING
        for handler in namespace.connect_handlers:
            await _without_result(handler(socket), "on_connect", handler)
        return
    passed = False

    async def go_on() -> None:
        nonlocal passed
        passed = True
        await _pass(socket, namespace, position + 1)

    middleware = namespace.middleware[position]
    await _without_result(middleware(socket, go_on), "middleware", middleware)
    if not passed:
        raise ConnectRefused("refused")


async def _without_result(called: Awaitable[object], what: str, function: object) -> None:
    """Run it. A result would be ignored, and a False is hardly meant to be: it is an error."""
    result = await called
    if result is not None:
        told = repr(result) if isinstance(result, bool) else f"a value of the type {type(result).__name__}"
        raise TypeError(f"{what} {full_name(function)} returned {told}: raise ConnectRefused(...) to refuse")
