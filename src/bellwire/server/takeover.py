"""Sessions that are taken up on another node: the node that holds one is asked, and told.

It is asked only where another run of the client's program comes, as when a tab was duplicated: is the first one there?
It is told so that it lets go at once.

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

TAKEN: Final = "taken"
HELD: Final = "held"
"""The kinds of messages, and of questions; each carries the key of a session."""

PROBE_SECONDS: Final = 3.0
"""For the answer: a client has two to give a sign of life."""

_YES: Final = b"\x01"


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

        async def probe(asked: Asked) -> None:
            if await sessions.probe(asked.body.decode("utf-8", "replace")):
                await asked.answer(_YES)

        self._cluster.serve(TAKEN, told)
        self._cluster.serve(HELD, probe)

    async def tell(self, node: str, key: str) -> None:
        """Tell ``node``, if it is there."""
        if node in self._cluster.peers:
            with contextlib.suppress(BrokerUnavailable, OutcomeUnknown):
                await self._cluster.tell(TAKEN, key.encode(), node)

    async def probe(self, node: str, key: str) -> bool:
        """Ask ``node``, if it is there; no answer is none. Raises `BrokerUnavailable`."""
        if node not in self._cluster.peers:
            return False
        answers: list[bytes] = []
        nodes = frozenset({node})
        await self._cluster.ask(
            HELD, key.encode(), lambda _, part: answers.append(part), timeout=PROBE_SECONDS, nodes=nodes
        )
        return _YES in answers
