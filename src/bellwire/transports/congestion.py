"""A client that does not keep up: how long it may take nothing of what waits for it."""

import logging
from typing import TYPE_CHECKING, Final

from bellwire.core.clock import Wheel

if TYPE_CHECKING:
    from bellwire.transports.base_session import BaseSession

logger = logging.getLogger("bellwire.transports")

STALL_SECONDS: Final = 30.0
"""Seconds in which a client with a full buffer must take something, or it is cut off."""

CHECKS: Final = 3
"""How often it is looked at in that time: it may last longer by one part of so many."""


class Congestion:
    """Watches one session while its client does not keep up, with one timer.

    The session ends as a slow consumer when its client takes nothing for `STALL_SECONDS`, however much it says itself
    (a heartbeat would be content with that). What it takes is known by what leaves this process; the kernel and other
    people's servers take more in steps of some tens of kilobytes, so a client that is slow but reads has to read about
    2 kB a second.
    """

    __slots__ = ("_idle", "_progress", "_session", "_timer", "_wheel")

    def __init__(self, session: "BaseSession", wheel: Wheel) -> None:
        self._session = session
        self._wheel = wheel
        self._idle = 0
        self._progress = session.carrier.progress
        self._timer = wheel.after(STALL_SECONDS / CHECKS, self._check)

    def end(self) -> None:
        """The client keeps up again, or is gone."""
        self._timer.cancel()

    def _check(self) -> None:
        progress = self._session.carrier.progress
        self._idle = self._idle + 1 if progress == self._progress else 0
        self._progress = progress
        if self._idle < CHECKS:
            self._timer = self._wheel.after(STALL_SECONDS / CHECKS, self._check)
            return
        logger.warning("a slow consumer is cut off: it took nothing for %g seconds", STALL_SECONDS)
        self._session.close("slow consumer", abort=True)
