"""Where a server is: a URL, taken apart into what a connection needs."""

from typing import Final, NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

from bellwire.protocol.wire import PATH

_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_RAW: Final = ("ws", "wss")
_SECURE: Final = ("https", "wss")
_SOCKET_IO_PATH: Final = "/socket.io/"
_ENGINE_IO: Final = "EIO=4&transport=websocket"

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
    """Path and query of the request, with Engine.IO's parameters if it is one of Engine.IO."""
    raw: bool = False
    """Whether bellwire.v1 is spoken there, not Socket.IO."""


def parse_url(url: str) -> Address:
    """Take ``scheme://host[:port][/path][?query]`` apart.

    With ``http`` and ``https`` Socket.IO is spoken, and the path is ``/socket.io/`` if there is none; with ``ws`` and
    ``wss`` it is bellwire.v1 and ``/bellwire``. Raises ValueError that says what would be right.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ValueError(
            f"{url!r} is no address of a server: write http://host:port, https://host:port, or "
            f"ws://host:port{PATH} for bellwire.v1"
        )
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL with a user or a password: give what authenticates the client as auth={...}")
    if parts.fragment:
        raise ValueError(f"{url!r} has a fragment, which no server is sent: leave the part behind '#' out")
    host = _ascii_host(url, parts)
    default = _PORTS[parts.scheme]
    port = parts.port if parts.port is not None else default
    name = f"[{host}]" if ":" in host else host
    authority = name if port == default else f"{name}:{port}"
    return Address(host, port, parts.scheme in _SECURE, authority, _target(parts), parts.scheme in _RAW)


def _ascii_host(url: str, parts: SplitResult) -> str:
    host = parts.hostname
    if not host:
        raise ValueError(f"{url!r} names no host: write http://host:port")
    try:
        return host if ":" in host else host.encode("idna").decode()
    except UnicodeError:
        raise ValueError(f"{host!r} is no name of a host") from None


def _target(parts: SplitResult) -> str:
    raw = parts.scheme in _RAW
    path = parts.path if parts.path not in ("", "/") else PATH if raw else _SOCKET_IO_PATH
    query = "&".join(part for part in (parts.query, "" if raw else _ENGINE_IO) if part)
    return quote(path, safe=_SAFE) + (f"?{quote(query, safe=_SAFE)}" if query else "")
