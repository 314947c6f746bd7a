"""What happens between a client's CONNECT and the answer: authentication, middleware, ``on_connect``.

Each may turn the client away with :class:`~bellwire.core.errors.ConnectRefused`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from bellwire.core.clock import Timer, Wheel
from bellwire.core.errors import ConnectRefused
from bellwire.delivery.revocation import Revocation
from bellwire.guard.auth import Identity
from bellwire.protocol.embedding import Hello
from bellwire.server.callables import full_name
from bellwire.server.inbound import Phase
from bellwire.server.recovery import Plea
from bellwire.server.socket import Socket
from bellwire.server.tenure import require_identity
from bellwire.transports.base import Request

if TYPE_CHECKING:
    from bellwire.server.namespace import Namespace

T = TypeVar("T")

Authenticator: TypeAlias = Callable[[Request, Mapping[str, Any]], Awaitable[Identity | None]]
"""``async (request, payload) -> Identity | None``: the payload is what came with CONNECT, empty if nothing did."""

Next: TypeAlias = Callable[[], Awaitable[None]]
Middleware: TypeAlias = Callable[[Socket, Next], Awaitable[None]]


class Admission:
    """One client's way into a namespace.

    What the application does there ends with the client: it is cancelled when the client leaves, and when
    ``Config.connect_timeout`` is over. What the server itself does with the broker in between is not: it has deadlines
    of its own, and is not to be cut in the middle of a write.
    """

    __slots__ = ("_authenticate", "_cancelled", "_identity", "_namespace", "_over", "_socket", "_task", "_timer")

    def __init__(
        self,
        socket: Socket,
        namespace: "Namespace",
        authenticate: Authenticator | None,
        identity: Identity | None = None,
    ) -> None:
        self._socket = socket
        self._namespace = namespace
        self._authenticate = authenticate
        self._identity = identity
        self._task: asyncio.Task[Any] | None = None  # while the application's code runs
        self._timer: Timer | None = None
        self._over = False
        self._cancelled = False

    async def run(self) -> None:
        """Let the socket in, or raise."""
        socket = self._socket
        steps = (self._identify, self._before, socket.take_place, socket.enter, self._check, self._admit)
        try:
            for step in steps:
                if socket.gone:
                    return
                await step()
        finally:
            self._over = True
            self._stop()

    def watch(self, wheel: Wheel, seconds: float, overdue: Callable[[], None]) -> None:
        """Call ``overdue`` if that has not ended within so many seconds."""
        if not self._over:
            self._timer = wheel.after(seconds, overdue)

    def leave(self) -> None:
        """The client is gone, or was refused: nobody waits for this any more."""
        self._stop()
        task = self._task
        if task is not None and task is not asyncio.current_task():  # which may have sent the client away itself
            self._cancelled = True
            task.cancel()

    def cut_off(self, error: BaseException) -> bool:
        """Whether ``error`` is that of an application that was cut off."""
        return self._cancelled and isinstance(error, asyncio.CancelledError)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _application(self, code: Awaitable[T]) -> T:
        self._task = asyncio.current_task()
        try:
            return await code
        finally:
            self._task = None

    async def _identify(self) -> None:
        if self._authenticate is not None:
            found = await self._application(self._authenticate(self._socket.request, self._socket.auth))
            self._identity = require_identity(found)
        self._socket.identify(self._identity)

    async def _before(self) -> None:
        """See that no session is taken up that was revoked."""
        if _names_session(self._socket.hello):
            self._socket.revoked = (await self._check()).since

    async def _check(self) -> Revocation:
        return await self._socket.node.revocations.check(self._identity)

    async def _admit(self) -> None:
        await self._application(_pass(self._socket, self._namespace, 0))


def _names_session(hello: Hello | Plea | None) -> bool:
    """Whether the client comes back."""
    return (hello.session if isinstance(hello, Hello) else hello and hello.pid) is not None


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
