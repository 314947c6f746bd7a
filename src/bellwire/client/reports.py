"""What a client's program is told beside events: what may be missing, what went wrong."""

from typing import Any, NamedTuple

from bellwire.core.errors import BellwireError


class Reset(NamedTuple):
    """Of one stream, something may be missing between what came before this and what comes after it.

    ``room`` is the id of the stream, which is the same on every connection: a room has one, a namespace, a user and a
    socket have one too, and clients are not told which is which. ``reason`` is ``truncated`` (the history no longer
    holds what was missed), ``generation`` or ``diverged`` (the broker lost something, or is another one), ``too_far``
    (events came faster than they could be sent), ``forbidden`` (the room may no longer be read), ``session_lost`` (the
    server does not know the client's session any more); servers may have others.
    """

    room: str
    reason: str


class DeadLetter(NamedTuple):
    """An event whose handler failed, however often it was called. ``error`` is what it raised the last time."""

    event: str
    payload: tuple[Any, ...]
    error: BaseException


class Failed(NamedTuple):
    """An event that was emitted has not been handled, or nobody can know whether it was.

    ``event`` is its name. ``error`` says why: EventRefused if the server refused it, OutcomeUnknown if it may have been
    handled and will not be sent again, MessageTooLarge if this server takes less.
    """

    event: str
    error: BellwireError
