"""Who a client is."""

import math
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
    issued: float | None = None
    """Since when it holds, in seconds since the epoch: when the user logged in, or the token was made. What was issued
    before a revocation is refused, and so is what does not say."""

    def __post_init__(self) -> None:
        require_user(self.user, "Identity")
        for name in ("expires", "issued"):
            _require_time(getattr(self, name), name)


def _require_time(when: object, name: str) -> None:
    if when is None:
        return
    if isinstance(when, bool) or not isinstance(when, int | float) or not math.isfinite(when):
        raise TypeError(f"Identity({name}=...) takes seconds since the epoch, not {when!r}: write when.timestamp()")


def require_user(user: object, where: str) -> None:
    """Raise the error that names the fix if ``user`` is no user's id; ``where`` is what was called.

    Raises:
        TypeError: it is no str.
        ValueError: it is empty.

    """
    if not isinstance(user, str):
        fix = "a guest has none" if user is None else f"write {where}(str({user if type(user) is int else 'user'}))"
        raise TypeError(f"{where} takes a user's id as a str, not {type(user).__name__}: {fix}")
    if not user:
        raise ValueError(f"{where}('') names nobody: a user's id has at least one character")
