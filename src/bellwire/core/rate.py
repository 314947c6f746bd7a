"""Rates as they are written: ``"100/s"``, ``"30/min"``, ``"100/h"``, or ``"off"`` for none."""

import re
from typing import Final, NamedTuple

__all__ = ["PATTERN", "Rate", "parse_rate"]

PATTERN: Final = r"\A(off|[1-9][0-9]{0,8}/(s|min|h))\Z"

_SECONDS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0}


class Rate(NamedTuple):
    """So many in so many seconds."""

    tokens: int
    seconds: float


def parse_rate(text: str) -> Rate | None:
    """Return the rate that ``text`` writes, None for ``"off"``.

    Raises:
        ValueError: it has another form.

    """
    if re.search(PATTERN, text) is None:
        raise ValueError(f"{text!r} is no rate: write it as '10/s', '30/min', '100/h' or 'off'")
    if text == "off":
        return None
    count, unit = text.split("/")
    return Rate(int(count), _SECONDS[unit])
