"""Sessions that are taken up on another node: the node that held one is told, so that it lets go of it at once.

A client that is back on another node may have left a connection behind that looks alive. Its holder there cannot write
any more, but would find out only when it wants to, or when the heartbeat does; until then its socket would be found,
called and waited for beside the real one. What it is told is no more than a reason to look at the record.
"""

import contextlib
from typing import TYPE_CHECKING, Final

from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from bellwire.server.cluster import Asked, Cluster

if TYPE_CHECKING:
    from bellwire.server.sessions import Sessions

KIND: Final = "taken"
"""Of the messages that carry the key of a session."""


class Takeover:
    """Tells other nodes, and is told by them (`bellwire.server.sessions.Others`)."""

    __slots__ = ("_cluster",)

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def node(self) -> str:
        """The id of this node."""
        return self._cluster.node

    def serve(self, sessions: "Sessions") -> None:
        """Let ``sessions`` look when they are told."""

        async def told(asked: Asked) -> None:
            sessions.check(asked.body.decode("utf-8", "replace"))

        self._cluster.serve(KIND, told)

    async def tell(self, node: str, key: str) -> None:
        """Tell ``node``, if it is there."""
        if node in self._cluster.peers:
            with contextlib.suppress(BrokerUnavailable, OutcomeUnknown):
                await self._cluster.tell(KIND, key.encode(), node)
