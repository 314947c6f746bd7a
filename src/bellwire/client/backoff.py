"""How long to wait before the next attempt to connect."""

import random
from collections.abc import Callable
from typing import Final

BASE: Final = 0.5
"""Seconds before the second attempt, without its random part."""
LIMIT: Final = 30.0
"""The longest wait, in seconds."""


class Backoff:
    """``min(30 s, 0.5 s * 2^attempt + random(0, 1 s))``: waits double, and clients of one server spread out.

    ``random`` gives numbers from 0 up to 1.
    """

    __slots__ = ("_attempt", "_random")

    def __init__(self, random: Callable[[], float] = random.random) -> None:
        self._random = random
        self._attempt = 0

    def next(self) -> float:
        """Seconds to wait, for one attempt that failed more."""
        attempt, self._attempt = self._attempt, self._attempt + 1
        # An exponent that only grows would overflow a float in the end; the limit is reached long before.
        return min(LIMIT, BASE * 2.0 ** min(attempt, 10) + self._random())

    def reset(self) -> None:
        """A connection was accepted: the next wait is short again."""
        self._attempt = 0
