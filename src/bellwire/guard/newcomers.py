"""How many are at the door: connections that have not joined a namespace yet, nor been refused.

They cost memory and a descriptor and have shown nothing for it, so they are bounded: all together, and those of one
address, so that nobody takes all the places.
"""

from collections.abc import Callable

from bellwire.guard.address import address_key

__all__ = ["Newcomers"]


class Newcomers:
    """Counts them. ``exempt`` says of an address that it stands for many: it is counted among all only.

    Args:
        most: how many there may be.
        most_per_address: how many of one address, 0 for any number.
        exempt: whether an address has no bound of its own.

    """

    __slots__ = ("_exempt", "_most", "_most_per_address", "_of_address", "count")

    def __init__(self, most: int, most_per_address: int, exempt: Callable[[str], bool] = lambda _: False) -> None:
        self.count = 0
        """How many there are."""
        self._most = most
        self._most_per_address = most_per_address
        self._exempt = exempt
        self._of_address: dict[str, int] = {}

    def is_full(self, address: str | None) -> bool:
        """Whether one more from ``address`` is too many; None is an address that is not known."""
        if self.count >= self._most:
            return True
        key = self._key(address)
        return key is not None and self._of_address.get(key, 0) >= self._most_per_address

    def add(self, address: str | None) -> None:
        """One has come."""
        self.count += 1
        key = self._key(address)
        if key is not None:
            self._of_address[key] = self._of_address.get(key, 0) + 1

    def remove(self, address: str | None) -> None:
        """One that was added has joined, or left."""
        self.count -= 1
        key = self._key(address)
        if key is not None:
            left = self._of_address[key] - 1
            if left:
                self._of_address[key] = left
            else:
                del self._of_address[key]

    def _key(self, address: str | None) -> str | None:
        if address is None or not self._most_per_address or self._exempt(address):
            return None
        return address_key(address)
