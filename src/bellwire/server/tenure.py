"""For how long a client may stay: until its identity expires, unless that is renewed in time.

A client renews it where it is (`AUTH_RENEW`), or by connecting again: what it shows then is looked at as ever.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from bellwire.core.clock import Wheel
from bellwire.core.errors import AuthUnavailable, BrokerUnavailable, ConnectRefused, EventRefused, TokenRefused
from bellwire.core.renewal import AuthRenewed
from bellwire.guard.auth import Identity

if TYPE_CHECKING:
    from bellwire.server.admission import Authenticator
    from bellwire.server.connection import Connection
    from bellwire.server.socket import Socket

MAX_SECONDS: Final = 366 * 86_400.0
"""A connection is ended after so long in any case, if its identity expires at all: timers have an end."""

RETRY_SECONDS: Final = 5.0
"""After so long a client may try to renew again what could not be looked at."""


class Tenure:
    """The time until ``expires``, in seconds since the epoch; ``end`` is called when it is over."""

    __slots__ = ("_timer",)

    def __init__(self, wheel: Wheel, expires: float, end: Callable[[], None]) -> None:
        self._timer = wheel.after(min(max(0.0, expires - time.time()), MAX_SECONDS), end)

    def leave(self) -> None:
        """The client is gone, or has renewed its identity."""
        self._timer.cancel()


def require_identity(found: object) -> Identity | None:
    """Return what an application's ``auth`` answered.

    Raises:
        TypeError: it is no identity.
        TokenRefused: it has expired.

    """
    if found is None:
        return None
    if not isinstance(found, Identity):
        raise TypeError(
            f"auth returned {type(found).__name__}: return Identity(user), None, or raise ConnectRefused(...)"
        )
    if found.expires is not None and found.expires <= time.time():
        raise TokenRefused("token_expired")
    return found


async def renew(socket: "Socket", connection: "Connection", payload: Mapping[str, Any]) -> AuthRenewed:
    """Handle `AUTH_RENEW`. Raises EventRefused: the identity is as it was, and expires as it would have."""
    authenticate = connection.authenticator
    if authenticate is None:
        raise EventRefused("unknown_event", "this server has no authentication")
    try:
        identity = await _ask(socket, authenticate, payload)
        await socket.node.revocations.check(identity)
    except ConnectRefused as refusal:
        raise EventRefused(_code_of(refusal), refusal.message) from None
    except (AuthUnavailable, BrokerUnavailable) as error:
        raise EventRefused(error.code, "this cannot be looked at now", retry_after=RETRY_SECONDS) from None
    if identity is None or identity.user != socket.user:
        raise EventRefused("another_user", "the user of a connection does not change: connect again")
    socket.identify(identity)
    if not socket.gone:
        connection.limit(socket)
    return AuthRenewed(identity.expires)


async def _ask(socket: "Socket", authenticate: "Authenticator", payload: Mapping[str, Any]) -> Identity | None:
    limit = asyncio.timeout(socket.node.config.connect_timeout)
    try:
        async with limit:
            return require_identity(await authenticate(socket.request, payload))
    except TimeoutError:
        if not limit.expired():  # the application's own
            raise
        raise EventRefused("connect_timeout", "it took too long") from None


def _code_of(refusal: ConnectRefused) -> str:
    """Return the application's own code, if it gave one."""
    code = refusal.data.get("code") if isinstance(refusal.data, Mapping) else None
    return code if isinstance(code, str) else "refused"
