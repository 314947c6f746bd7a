"""How long tests at random run: ``BELLWIRE_LONG=100000`` lets each of them take that many steps, or a few more."""

import os
from typing import Final

_STEPS: Final = int(os.environ.get("BELLWIRE_LONG", "0"))


def runs(usually: int, steps: int) -> int:
    """Return how many runs there are, each of about so many ``steps``."""
    return max(usually, -(-_STEPS // steps))
