"""A Redis Cluster of the tests' own on the loopback interface: a test may kill its masters and move their slots."""

import time
from pathlib import Path

from bellwire.brokers.redis_slots import SLOTS
from tests.brokers.redis_server import PASSWORD, RedisServer, free_port

MASTERS = 3


class Cluster:
    """Three masters share the slots evenly; each has a replica if there are ``replicas``. It starts at once.

    ``timeout`` is the time in milliseconds after which a node that is silent is taken for dead.
    """

    def __init__(self, folder: Path, *, replicas: bool = False, timeout: int = 15_000) -> None:
        self.nodes = [_node(folder / f"node{n}", timeout) for n in range(MASTERS * (2 if replicas else 1))]
        self._ids = {node: node.said("CLUSTER MYID") for node in self.nodes}
        for n, node in enumerate(self.nodes):
            node.say(f"CLUSTER SET-CONFIG-EPOCH {n + 1}")
        masters, others = self.nodes[:MASTERS], self.nodes[MASTERS:]
        for n, master in enumerate(masters):
            master.say(f"CLUSTER ADDSLOTSRANGE {n * SLOTS // MASTERS} {(n + 1) * SLOTS // MASTERS - 1}")
        for node in self.nodes[1:]:
            node.say(f"CLUSTER MEET 127.0.0.1 {self.nodes[0].port} {self.nodes[0].bus}")
        self._until_all_say(f"cluster_known_nodes:{len(self.nodes)}\r\n")
        for master, replica in zip(masters, others, strict=False):
            replica.say(f"CLUSTER REPLICATE {self._ids[master]}")
        self._until_all_say("cluster_state:ok\r\n")

    def _until_all_say(self, what: str) -> None:
        until = time.monotonic() + 30
        while not all(what in node.said("CLUSTER INFO") for node in self.nodes):
            assert time.monotonic() < until, f"the cluster does not come to {what!r}"
            time.sleep(0.02)

    @property
    def url(self) -> str:
        """Two nodes, before them one where nobody is."""
        ports = 1, self.nodes[0].port, self.nodes[1].port
        return f"redis://:{PASSWORD}@" + ",".join(f"127.0.0.1:{port}" for port in ports)

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    async def holder(self, slot: int) -> RedisServer:
        """Return the master that has this slot, as the nodes that live say."""
        while True:
            for node in self.nodes:
                if node.process.poll() is None:
                    port = await _holder(node, slot)
                    return next(node for node in self.nodes if node.port == port)

    def others(self, node: RedisServer) -> list[RedisServer]:
        return [other for other in self.nodes if other is not node]

    # --- a slot on its way

    async def begin_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Let both know that the slot is to move."""
        await target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self._ids[source])
        await source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self._ids[target])

    async def move_keys(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Move all keys of the slot."""
        while keys := await source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            await source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "AUTH", PASSWORD, "KEYS", *keys)

    async def end_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Let both know that it has moved; they tell the others."""
        for node in (target, source):
            await node.ask("CLUSTER", "SETSLOT", slot, "NODE", self._ids[target])

    async def move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Move a slot, as ``redis-cli --cluster reshard`` does."""
        for step in (self.begin_move, self.move_keys, self.end_move):
            await step(slot, source, target)


def _node(folder: Path, timeout: int) -> RedisServer:
    folder.mkdir()
    return RedisServer(folder, cluster_enabled="yes", cluster_port=str(free_port()), cluster_node_timeout=str(timeout))


async def _holder(node: RedisServer, slot: int) -> int:
    """Return the port of the master of a slot, as ``node`` says."""
    for first, last, (_, port, *_), *_ in await node.ask("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return int(port)
    raise AssertionError(f"nobody has slot {slot}")
