"""The other nodes of a cluster, as one node knows them.

Each says again and again that it is there. The states of another node::

    state    what happens                              next     means
    unknown  it is heard, or stands in the register    alive    it joined
    alive    it is heard                               alive    its lease begins anew
    alive    it says that it has ended                 unknown  it left
    alive    its lease is over                         unknown  it left

Who cannot hear does not judge: while the broker is away, and after this process itself stood still, all leases begin
anew.
"""

from typing import Final

BEAT_SECONDS: Final = 2.5
"""How often a node says that it is there."""

LEASE_SECONDS: Final = 10.0
"""How long it is believed: three beats may be lost. After that its clients' places are free."""


class Peers:
    """Their ids, and when each was heard last, by this process's clock."""

    __slots__ = ("_heard",)

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}

    def __contains__(self, node: str) -> bool:
        return node in self._heard

    @property
    def ids(self) -> frozenset[str]:
        """Those that are alive."""
        return frozenset(self._heard)

    def heard(self, node: str, now: float) -> bool:
        """``node`` is there; True if it was unknown."""
        known = node in self._heard
        self._heard[node] = now
        return not known

    def left(self, node: str) -> bool:
        """``node`` has ended; False if it was unknown."""
        return self._heard.pop(node, None) is not None

    def expired(self, now: float) -> list[str]:
        """Return, and forget, those whose lease is over."""
        over = [node for node, heard in self._heard.items() if now - heard > LEASE_SECONDS]
        for node in over:
            del self._heard[node]
        return over

    def renew(self, now: float) -> None:
        """Let all leases begin anew."""
        self._heard = dict.fromkeys(self._heard, now)
