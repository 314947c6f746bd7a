"""How long a client's identity holds: the event by which it is renewed, and the one that says that it has ended."""

from typing import Any

import msgspec

from bellwire.core.events import Event

__all__ = ["AUTH_EXPIRED", "AUTH_RENEW", "AuthExpired", "AuthRenewed"]


class AuthRenewed(msgspec.Struct, frozen=True):
    """The identity was renewed."""

    expires: float | None
    """Until when it holds now, in seconds since the epoch; None if that is not said."""


class AuthExpired(msgspec.Struct, frozen=True):
    """The identity has expired."""

    code: str = "token_expired"


AUTH_RENEW = Event("auth:renew", dict[str, Any], reply=AuthRenewed)
"""Sent by a client, with what it would send with CONNECT: the server's ``auth`` is asked again."""

AUTH_EXPIRED = Event("auth:expired", AuthExpired)
"""Sent to a client whose identity has expired, before its connection is closed."""
