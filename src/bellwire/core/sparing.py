"""One line in the log where an outage, or whoever likes to, could make thousands."""

import logging
import math
from collections.abc import Callable
from typing import Any, Final

SECONDS: Final = 10.0
"""Between two lines."""


class Sparing:
    """Logs a warning and keeps those of the next ten seconds back: the next line says how many they were."""

    __slots__ = ("_clock", "_kept_back", "_logger", "_since")

    def __init__(self, logger: logging.Logger, clock: Callable[[], float]) -> None:
        self._logger = logger
        self._clock = clock
        self._since = -math.inf
        self._kept_back = 0

    def warning(self, message: str, *arguments: Any) -> None:
        """Log it, or count it; ``message`` is as for the logging library."""
        now = self._clock()
        if now - self._since < SECONDS:
            self._kept_back += 1
            return
        more = f" ({self._kept_back} more since the last line)" if self._kept_back else ""
        self._since, self._kept_back = now, 0
        self._logger.warning(f"{message}%s", *arguments, more)
