"""A client's address as text: what it is, and what is counted as one. Each is asked several times while one connects.

So the answers for the latest are kept. Only texts as short as addresses are: a trusted proxy may bring anything.
"""

from collections.abc import Callable
from functools import lru_cache, wraps
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias, TypeVar

__all__ = ["Address", "address_key", "is_loopback", "read_address"]

Address: TypeAlias = IPv4Address | IPv6Address

KEPT: Final = 4_096
"""For how many addresses the answers are kept."""
LONGEST: Final = 64
"""Characters of a text that is kept; an address of IPv6 with IPv4 in it has 45, and a zone some more."""

T = TypeVar("T")


def _kept(answer: Callable[[str], T]) -> Callable[[str], T]:
    cached = lru_cache(maxsize=KEPT)(answer)

    @wraps(answer)
    def short(text: str) -> T:
        return cached(text) if len(text) <= LONGEST else answer(text)

    return short


@_kept
def read_address(text: str) -> Address | None:
    """The address that ``text`` is; an IPv4 one also where a socket of IPv6 shows it. None if it is none."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@_kept
def is_loopback(text: str) -> bool:
    """Whether it is this machine's own."""
    address = read_address(text)
    return address is not None and address.is_loopback


@_kept
def address_key(text: str) -> str:
    """What is counted as one address: of IPv6 what one customer has, a network of 64 bits."""
    text = text.partition("%")[0]  # the zone says which link it is on (RFC 4007 §11), and is anybody's word
    address = read_address(text)
    return address.exploded[:19] if isinstance(address, IPv6Address) else text
