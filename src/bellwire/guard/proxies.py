"""Whom a request comes from when proxies stand between, and which of them are believed.

Anybody can write ``X-Forwarded-For: 127.0.0.1``. So these headers count only if the connection comes from a proxy that
`Config.behind_proxy` names, and of a list only the part that such proxies have added, which stands on the right.
``Forwarded`` (RFC 7239) is read where there is none of the others.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, NamedTuple, TypeAlias

from bellwire.guard.address import Address, is_loopback, read_address

__all__ = ["Proxies", "Seen", "is_local"]

MAX_HOPS: Final = 16
"""Entries of a list that are looked at, from the right; nobody has so many proxies of their own."""

_Network: TypeAlias = IPv4Network | IPv6Network

_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_HEADERS: Final = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")


class Seen(NamedTuple):
    """A request as its client made it."""

    client: tuple[str, int] | None
    """The client's address and port; 0 for a port that no proxy has told, None on a Unix socket."""
    scheme: str
    """``http`` or ``https``."""
    host: str
    """What the client took the server for: name and port, "" if it did not say."""
    proxied: bool
    """Whether a trusted proxy has brought it."""


class Proxies:
    """The proxies that are believed; ``networks`` are addresses and networks, as `Config.behind_proxy` has them."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks: tuple[_Network, ...] = tuple(ip_network(network) for network in networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def see(self, client: tuple[str, int] | None, scheme: str, headers: Mapping[str, str]) -> Seen:
        """Look through the proxies; ``client`` and ``scheme`` are the connection's, names in ``headers`` lower-case."""
        host = headers.get("host", "")
        if client is None or not self.trusts(client[0]):
            return Seen(client, scheme, host, False)
        if any(name in headers for name in _HEADERS):
            hops, proto, asked = (_last(headers.get(name, "")) for name in _HEADERS)
        else:
            hops, proto, asked = _forwarded(headers.get("forwarded", ""))
        return Seen(
            self._client(client, hops),
            _SCHEMES.get((proto or [""])[-1].lower(), scheme),
            (asked or [host])[-1],
            True,
        )

    def trusts(self, address: str) -> bool:
        """Whether ``address`` is a proxy that is believed."""
        return bool(self._networks) and self._trusts(read_address(address))

    def _client(self, peer: tuple[str, int], hops: list[str]) -> tuple[str, int]:
        """The nearest address that is no proxy's; the farthest that is known if all are, or if one cannot be read."""
        client = peer
        for hop in reversed(hops):
            found = _endpoint(hop)
            if found is None:
                break
            client = found
            if not self._trusts(read_address(found[0])):
                break
        return client

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


def is_local(client: tuple[str, int] | None) -> bool:
    """Whether a connection does not leave this machine."""
    return client is None or is_loopback(client[0])


def _endpoint(hop: str) -> tuple[str, int] | None:
    """Read ``192.0.2.1``, ``192.0.2.1:80``, ``2001:db8::1``, ``[2001:db8::1]:80``; None for all else."""
    host, port = hop, ""
    if hop.startswith("["):
        host, _, rest = hop[1:].partition("]")
        port = rest.removeprefix(":")
    elif hop.count(":") == 1:
        host, _, port = hop.partition(":")
    address = read_address(host)
    return None if address is None else (str(address), int(port) if port.isdecimal() and len(port) <= 5 else 0)


def _last(value: str) -> list[str]:
    """The last entries of a list, in their order."""
    return [entry.strip() for entry in value.rsplit(",", MAX_HOPS)[-MAX_HOPS:]] if value else []


def _forwarded(value: str) -> tuple[list[str], list[str], list[str]]:
    """The values of ``for``, ``proto`` and ``host`` in a ``Forwarded`` header; the latter two of its last entry."""
    entries = [_pairs(entry) for entry in _last(value)]
    last = entries[-1] if entries else {}
    hops = [entry.get("for", "") for entry in entries]
    return hops, [last["proto"]] if "proto" in last else [], [last["host"]] if "host" in last else []


def _pairs(entry: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in entry.split(";"))
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}
