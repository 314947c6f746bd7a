"""Where a server is: a URL, taken apart into what a connection needs."""

from typing import Final, NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

_PORTS: Final = {"http": 80, "https": 443}
_DEFAULT_PATH: Final = "/socket.io/"

# RFC 3986, sections 3.3 and 3.4: what may stand in a path and in a query, and "%" of what is escaped already.
_SAFE: Final = "/?:@!$&'()*+,;=-._~%"


class Address(NamedTuple):
    """A server's endpoint."""

    host: str
    """For the resolver and the certificate: ASCII, an IPv6 address without its brackets."""
    port: int
    secure: bool
    """Whether it is reached over TLS."""
    authority: str
    """The value of the ``Host`` field (RFC 9110, section 7.2)."""
    target: str
    """Path and query of the request, with Engine.IO's parameters."""


def parse_url(url: str) -> Address:
    """Take ``http[s]://host[:port][/path][?query]`` apart; the path is ``/socket.io/`` if there is none.

    Raises ValueError that says what would be right.
    """
    parts = urlsplit(url)
    if parts.scheme in ("ws", "wss"):
        raise ValueError(f"{url!r}: the client speaks Socket.IO: write http{parts.scheme[2:]}://host:port")
    if parts.scheme not in _PORTS:
        raise ValueError(f"{url!r} is no address of a server: write http://host:port or https://host:port")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL with a user or a password: give what authenticates the client as auth={...}")
    if parts.fragment:
        raise ValueError(f"{url!r} has a fragment, which no server is sent: leave the part behind '#' out")
    host = _ascii_host(url, parts)
    default = _PORTS[parts.scheme]
    port = parts.port if parts.port is not None else default
    name = f"[{host}]" if ":" in host else host
    return Address(host, port, parts.scheme == "https", name if port == default else f"{name}:{port}", _target(parts))


def _ascii_host(url: str, parts: SplitResult) -> str:
    host = parts.hostname
    if not host:
        raise ValueError(f"{url!r} names no host: write http://host:port")
    try:
        return host if ":" in host else host.encode("idna").decode()
    except UnicodeError:
        raise ValueError(f"{host!r} is no name of a host") from None


def _target(parts: SplitResult) -> str:
    path = parts.path if parts.path not in ("", "/") else _DEFAULT_PATH
    query = "&".join(part for part in (parts.query, "EIO=4&transport=websocket") if part)
    return f"{quote(path, safe=_SAFE)}?{quote(query, safe=_SAFE)}"
