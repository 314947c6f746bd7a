"""Whose pages may connect: the check of the ``Origin`` header (RFC 6454; RFC 6455 §10.2).

A browser lets any page open a WebSocket to any server and sends the server's cookies with it, so the server has to look
where the page comes from. Programs send no Origin, and are not judged by it: they could write anything.
"""

import re
from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple

__all__ = ["Origin", "Origins", "Verdict", "parse_origin"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_ORIGIN: Final = re.compile(
    r"([a-z][a-z0-9+.-]*)://"  # the scheme
    r"(\*(?:\.[a-z0-9._-]+)?|[a-z0-9._-]+|\[[0-9a-f:.]+\])"  # the host, which a pattern begins with *
    r"(?::([0-9]{1,5}|\*))?",  # the port
    re.IGNORECASE,
)


class Origin(NamedTuple):
    """A page's origin, in lower case; ``port`` is the scheme's own where none was written, None if it has none."""

    scheme: str
    host: str
    port: int | None


class Verdict(Enum):
    """What becomes of a page that wants to connect."""

    REFUSED = "refused"
    ADMITTED = "admitted"
    """It is the server's own, or is named: it may use the server's cookies."""
    ANYBODY = "anybody"
    """Only ``*`` admits it."""


class Origins:
    """The pages that may connect: the server's own, and those of ``allowed``, as `Config.allowed_origins` has them."""

    __slots__ = ("_anybody", "_named", "_patterns")

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._anybody = False
        self._named: set[Origin] = set()
        self._patterns: list[_Pattern] = []
        for text in allowed:
            if text == "*":
                self._anybody = True
            elif "*" in text:
                self._patterns.append(_pattern(text))
            elif (origin := parse_origin(text)) is not None:
                self._named.add(origin)

    def judge(self, text: str, own: Origin | None) -> Verdict:
        """Judge an ``Origin`` header; ``own`` is where the client believes the server to be, None if it does not say.

        ``null``, which sandboxed frames and local files send, and what is no origin, are refused in any case: they name
        nobody.
        """
        origin = parse_origin(text)
        if origin is None:
            return Verdict.REFUSED
        if origin == own or origin in self._named or any(pattern.matches(origin) for pattern in self._patterns):
            return Verdict.ADMITTED
        return Verdict.ANYBODY if self._anybody else Verdict.REFUSED


class _Pattern(NamedTuple):
    """Origins of one scheme; ``suffix`` begins with the dot, and ``any_port`` leaves ``origin.port`` aside."""

    origin: Origin
    suffix: str
    any_port: bool

    def matches(self, origin: Origin) -> bool:
        if origin.scheme != self.origin.scheme or not (self.any_port or origin.port == self.origin.port):
            return False
        if self.suffix:
            return origin.host.endswith(self.suffix) and len(origin.host) > len(self.suffix)
        return origin.host == self.origin.host


def _pattern(text: str) -> _Pattern:
    any_port = text.endswith(":*")
    origin = _parse(text.removesuffix(":*"))
    assert origin is not None  # noqa: S101 - Config has checked it
    return _Pattern(origin, origin.host[1:] if origin.host.startswith("*.") else "", any_port)


def parse_origin(text: str) -> Origin | None:
    """Read ``https://chat.example:8443``; None for ``null``, and for what is no origin."""
    return None if "*" in text else _parse(text)


def _parse(text: str) -> Origin | None:
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme, host, port = found[1].lower(), found[2].lower(), found[3]
    return Origin(scheme, host, _DEFAULT_PORTS.get(scheme) if port is None else int(port))
