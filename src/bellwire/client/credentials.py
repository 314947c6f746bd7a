"""What a client shows to the server's authentication, on each connection anew."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from bellwire.core.events import OWN_NAME

Payload: TypeAlias = Mapping[str, Any] | None
Auth: TypeAlias = Payload | Callable[[], Payload | Awaitable[Payload]]

SECONDS: Final = 20.0
"""For a function to find it, as for the connection itself."""

logger = logging.getLogger("bellwire.client")


class Credentials:
    """A mapping, or a function, plain or async, that returns one. Raises as `check_payload` if it is neither."""

    __slots__ = ("_auth",)

    def __init__(self, auth: Auth) -> None:
        if not callable(auth):
            check_payload(auth)
        self._auth = auth

    async def present(self) -> Payload:
        """Return what is to be shown now.

        Raises:
            ConnectionError: the function failed; it is asked again for the next connection.

        """
        if not callable(self._auth):
            return self._auth
        try:
            async with asyncio.timeout(SECONDS):
                found = self._auth()
                payload = await found if inspect.isawaitable(found) else found
            check_payload(payload)
        except Exception as error:
            logger.error("auth failed, and is called again for the next connection", exc_info=error)
            raise ConnectionError(f"auth failed: {type(error).__name__}") from None
        return payload


def check_payload(auth: object) -> None:
    """Raise TypeError unless ``auth`` is a mapping that can be sent, or None; ValueError if it has Bellwire's key."""
    if auth is None:
        return
    if not isinstance(auth, Mapping):
        raise TypeError(
            f"auth takes a mapping, not {type(auth).__name__}: write auth={{'token': ...}}, or a function that returns "
            "one"
        )
    if OWN_NAME in auth:
        raise ValueError(f"auth cannot have the key {OWN_NAME!r}: it is Bellwire's own")
    try:
        msgspec.json.encode(auth)
    except TypeError as error:
        raise TypeError(f"auth cannot be sent as JSON: {error}") from None
