"""How long the rest of something may take that a client has begun to send: a message, its attachments, a body.

Whoever sends one byte a second, or nothing more, would otherwise hold memory and a connection for as long as he likes.
"""

from collections.abc import Callable
from typing import Final

from bellwire.core.clock import Timer, Wheel

BYTES_PER_SECOND: Final = 16_384
"""What has come buys a second for each so many bytes of it: a slow line is no attack."""

SHORTEST: Final = 1.0
"""Seconds; who has sent too little to buy that is late. Else one byte would buy the next tick, for ever."""


class Arrival:
    """Waits for the rest; calls ``late`` unless it is cancelled in time.

    ``came`` says how many bytes are here, or None while it is the server that does not read: that is nobody's fault,
    and the time begins again.
    """

    __slots__ = ("_came", "_granted", "_late", "_timeout", "_timer", "_wheel")

    def __init__(
        self, wheel: Wheel, timeout: float, came: Callable[[], int | None], late: Callable[[], object]
    ) -> None:
        self._wheel = wheel
        self._timeout = timeout
        self._came = came
        self._late = late
        self._granted = timeout
        self._timer: Timer = wheel.after(timeout, self._due)

    def cancel(self) -> None:
        """Stop waiting: all is here, or nothing more will be."""
        self._timer.cancel()

    def _due(self) -> None:
        came = self._came()
        if came is None:
            more = self._timeout
        else:
            more = self._timeout + came / BYTES_PER_SECOND - self._granted
            if more < SHORTEST:
                self._late()
                return
            self._granted += more
        self._timer = self._wheel.after(more, self._due)
