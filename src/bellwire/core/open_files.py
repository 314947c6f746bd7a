"""How many files this process may have open at a time; each connection is one."""

import errno
import math
import sys
from contextlib import suppress
from typing import Final

MORE: Final = "LimitNOFILE=65536 in the unit of systemd, or ulimit -n"
"""Where more are allowed."""


def limits() -> tuple[float, float]:
    """How many, and how many it may allow itself; `math.inf` for any number."""
    if sys.platform == "win32":  # it has no such limit
        return math.inf, math.inf
    import resource

    found = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (math.inf if limit == resource.RLIM_INFINITY else limit for limit in found)
    return soft, hard


def raise_limit() -> None:
    """Allow this process and those that it starts as many as it may: the lower limit is for users of select(2)."""
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS knows no infinity here
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def explained(error: OSError) -> str:
    """What is wrong, and what to do about it if it is that no more files may be open."""
    return f"{error}: allow more with {MORE}" if error.errno == errno.EMFILE else str(error)
