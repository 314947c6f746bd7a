"""The attempt at handling an event that goes on: what names the event for good, and whether there was one before.

It is kept in a context variable and not with the socket: a task that a handler started still knows to which event its
work belongs when the next one is being handled.
"""

from contextvars import ContextVar, Token
from typing import Final, Self

from bellwire.delivery.effects import Key


class Attempt:
    """A context manager, to run a handler in.

    ``key`` is what a transactional handler stores, unique, beside what it writes; None for the others.
    ``redelivered`` says that the handler may have run for this event before, in a process that died.
    """

    __slots__ = ("_token", "key", "redelivered")

    def __init__(self, key: Key | None, *, redelivered: bool) -> None:
        self.key = key
        self.redelivered = redelivered
        self._token: Token[Attempt] | None = None

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        if self._token is not None:
            _current.reset(self._token)


_FIRST: Final = Attempt(None, redelivered=False)
_current: Final[ContextVar[Attempt]] = ContextVar("bellwire_attempt", default=_FIRST)


def current() -> Attempt:
    """Return the attempt that goes on; outside of one, and for clients that do not number their events, a first."""
    return _current.get()
