"""Whether anybody in the cluster may stand in a stream: what is emitted then has to be in a log.

Where only the broker's server knows who appended to a stream, a node cannot tell whether somebody has a position there.
It would have to bring every event to a log and wait for the acknowledgement. But as long as no client of any node can
recover, nobody stands anywhere: so all nodes are asked to append before the first such client is given a position. The
states of a node::

    state     what happens                                                      next      what is emitted
    unsure    it stands in the register, and nothing is kept under `KEY`        nobody    is appended
    nobody    it did not look again for half a lease                            unsure    is published
    nobody    the broker is another, or has lost what was kept                  unsure    is appended
    any       something is kept under `KEY`, or another node asks               somebody
    any       a client here is about to have a position                         somebody
    somebody  the broker has lost what was kept: it says so again                 somebody  is appended, to the end

Who asks keeps the key before it reads who is there, and who comes enters itself before it looks for the key: so one
of the two sees the other. A node that does not answer is waited for until its lease is over; by its own clock it was
unsure long before that. Where the broker has begun anew, all agree before a client that was connected before is given
a position in what it has now.
"""

import asyncio
from typing import Final

from bellwire.brokers.base import Broker
from bellwire.brokers.publisher import FIRST_PAUSE
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from bellwire.server.cluster import Asked, Cluster
from bellwire.server.peers import BEAT_SECONDS, LEASE_SECONDS

KEY: Final = "agreement"
KIND: Final = "agreement"
"""Of the question that asks to append."""

ASKING: Final = b"asking"
AGREED: Final = b"agreed"
"""What is kept: the second when all have agreed. Those that come later see either before they would publish."""

_TRUSTED: Final = LEASE_SECONDS / 2


class Agreement:
    """What this node knows of it."""

    __slots__ = ("_broker", "_cluster", "_lock", "_looked", "_loop", "_nobody_until", "_reached", "_somebody")

    def __init__(self, broker: Broker, cluster: Cluster) -> None:
        self._broker = broker
        self._cluster = cluster
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._nobody_until = 0.0  # by the loop's clock, and as long as the generation is the one that was
        self._looked = ""
        self._somebody = False
        self._reached: str | None = None  # the generation in which it was seen
        cluster.serve(KIND, self._asked)
        cluster.enter(self._look)

    @property
    def appends(self) -> bool:
        """Whether this node has to append what is emitted, because somebody may stand in a stream."""
        return self._loop.time() >= self._nobody_until or self._looked != self._broker.generation()

    @property
    def reached(self) -> bool:
        """Whether all nodes append, so that a client can be given a position."""
        return not self._broker.is_whole or self._reached == self._broker.generation()

    async def reach(self) -> None:
        """Return when they do. Raises `BrokerUnavailable`."""
        self._learn()
        async with self._lock:
            while not self.reached:
                generation = self._broker.generation()
                if await self._agree():
                    self._reached = generation

    async def _agree(self) -> bool:
        """Whether all agree; else another node was faster, or the broker has lost what was kept."""
        kept = await self._broker.get(KEY)
        if kept is not None and kept.value == AGREED:
            return True
        asking = await self._keep(ASKING, 0) if kept is None else kept.revision
        if asking is None:
            return False
        await self._ask()
        return await self._keep(AGREED, asking) is not None

    def _learn(self) -> None:
        self._somebody = True
        self._nobody_until = 0.0

    async def _keep(self, value: bytes, expected: int) -> int | None:
        try:
            return await self._broker.put(KEY, value, expected=expected)
        except OutcomeUnknown as error:  # the next client looks
            raise BrokerUnavailable("the broker did not say that it kept that somebody recovers") from error

    async def _ask(self) -> None:
        nodes = await self._cluster.roll()
        while nodes:
            silent = await self._cluster.ask(KIND, b"", _nothing, timeout=BEAT_SECONDS, nodes=nodes)
            nodes = self._cluster.peers.ids.intersection(silent)
            if nodes:
                await asyncio.sleep(FIRST_PAUSE)  # it may have refused at once

    async def _asked(self, asked: Asked) -> None:
        self._learn()

    async def _look(self, began: float) -> None:
        """Look whether somebody said so. This node was in the register at ``began`` or later."""
        if not self._broker.is_whole:
            return
        if self._somebody:
            self._cluster.run_aside(self._confirm())
            return
        generation = self._broker.generation()
        if await self._broker.get(KEY) is not None:
            self._learn()
        elif not self._somebody:  # another node may have asked meanwhile
            self._nobody_until, self._looked = began + _TRUSTED, generation

    async def _confirm(self) -> None:
        """See that it is kept still, also where a backup was put back: that is the same generation.

        If not, keep it, and tell the others; the next client waits until all have agreed.
        """
        if await self._broker.get(KEY) is None:
            self._reached = None
            await self._keep(ASKING, 0)
            await self._cluster.tell(KIND, b"")


def _nothing(node: str, part: bytes) -> None:
    """An answer has no parts."""
