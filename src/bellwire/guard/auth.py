"""Who a client is."""

from collections.abc import Mapping
from typing import Any

import msgspec


class Identity(msgspec.Struct, frozen=True):
    """What an authentication callable answers for a client that it knows; None stands for a guest.

    To turn a client away it raises :class:`~bellwire.core.errors.ConnectRefused`.
    """

    user: str
    """The user's id: ``server.user(id)`` reaches all sockets that have it."""
    claims: Mapping[str, Any] = {}
    """What else is known of the user, for handlers to read."""
    expires: float | None = None
    """When this ceases to hold, in seconds since the epoch."""
