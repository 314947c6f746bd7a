"""Heads that need no parser: whole, in ASCII, each field once, and nothing behind them (RFC 9112 §3, RFC 9110 §5).

Clients open their WebSockets with such heads. All that is odd in one, or could be read in two ways, is left to a
parser; what is plain is the same to both.
"""

import re
from typing import Final, NamedTuple

__all__ = ["PlainHead", "read_plain_head"]

LONGEST: Final = 8_192
"""Bytes of a head; that of a browser has some 500, and its cookies."""

# A value has no tab, and no more white space around it than the one blank that everybody writes. What was matched is
# not tried again in another way ("possessive"), so the time is that of one pass.
_PLAIN: Final = re.compile(
    rb"GET (/[!\"$-~]*+) HTTP/1\.1\r\n"
    rb"(?:[!#-'*+\-.0-9A-Z^-z|~]++: [!-~][ -~]*+\r\n){1,64}+"
    rb"\r\n"
)
_VERSION: Final = len(b" HTTP/1.1\r\n")
_END: Final = len(b"\r\n\r\n")

_FRAMING: Final = frozenset(("content-length", "transfer-encoding", "expect", "proxy-connection"))
"""Fields that tell a parser more than what they say."""


class PlainHead(NamedTuple):
    """The head of a GET."""

    target: bytes
    """The path and the query."""
    fields: bytes
    """The lines of the fields, as they came."""
    headers: dict[str, str]
    """The values by names in lower case."""


def read_plain_head(data: bytes) -> PlainHead | None:
    """Read ``data`` if it is a plain head and nothing else."""
    found = _PLAIN.fullmatch(data) if len(data) <= LONGEST else None
    if found is None or b" \r\n" in data:
        return None
    fields = data[found.end(1) + _VERSION : -_END]
    lines = [line.partition(": ") for line in fields.decode("ascii").split("\r\n")]
    headers = {name.lower(): value for name, _, value in lines}
    if len(headers) < len(lines) or not _FRAMING.isdisjoint(headers):
        return None
    return PlainHead(found[1], fields, headers)
