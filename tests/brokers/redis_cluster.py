"""A Redis Cluster of the tests' own on the loopback interface: a test may kill its masters and move their slots."""

import asyncio
import time
from pathlib import Path
from typing import Any

from bellwire.brokers.redis_slots import SLOTS
from tests.brokers.redis_server import PASSWORD, RedisServer
from tests.ports import free_port

MASTERS = 3


class Cluster:
    """Three masters share the slots evenly; each has a replica if there are ``replicas``. It starts at once.

    ``timeout`` is the time in milliseconds after which a node that is silent is taken for dead.
    """

    def __init__(
        self, folder: Path, *, replicas: bool = False, timeout: int = 15_000, binary: str | None = None
    ) -> None:
        count = MASTERS * (2 if replicas else 1)
        self._folder, self._options = folder, (timeout, binary)
        self.nodes = [_node(folder / f"node{n}", timeout, binary) for n in range(count)]
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
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Return when all nodes say that all slots have a master."""
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

    def add_master(self) -> RedisServer:
        """Add a master that has no slots yet."""
        node = _node(self._folder / f"node{len(self.nodes)}", *self._options)
        self._ids[node] = node.said("CLUSTER MYID")
        node.say(f"CLUSTER MEET 127.0.0.1 {self.nodes[0].port} {self.nodes[0].bus}")
        self.nodes.append(node)
        self._until_all_say(f"cluster_known_nodes:{len(self.nodes)}\r\n")
        self.wait_until_whole()
        return node

    async def holder(self, slot: int) -> RedisServer:
        """Return the master that has this slot, as it says itself."""
        async with asyncio.timeout(30):
            while True:
                for node in self.nodes:
                    if node.process.poll() is None and await _holder(node, slot) == node.port:
                        return node

    async def another(self, master: RedisServer) -> RedisServer:
        """Return a master that is not this one."""
        for node in self.nodes:
            if node is not master and (await node.ask("ROLE"))[0] == b"master":
                return node
        raise AssertionError("there is no other")

    # --- masters that change

    async def fail_over(self, master: RedisServer) -> None:
        """Let its replica take over by agreement: nothing is lost."""
        replica = await self._replica_of(master)
        await replica.ask("CLUSTER", "FAILOVER")
        await _until_role(replica, b"master")
        await _until_role(master, b"slave")

    async def crash(self, master: RedisServer) -> None:
        """Kill it; when its replica has taken over, let it come back as one. What had not been replicated is lost."""
        replica = await self._replica_of(master)
        await asyncio.to_thread(master.kill)
        await _until_role(replica, b"master")
        await asyncio.to_thread(master.start)
        await _until_role(master, b"slave")

    async def _replica_of(self, master: RedisServer) -> RedisServer:
        for node in self.nodes:
            role, *told = await node.ask("ROLE")
            if role == b"slave" and told[1] == master.port:
                return node
        raise AssertionError("it has no replica")

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


def _node(folder: Path, timeout: int, binary: str | None) -> RedisServer:
    folder.mkdir()
    return RedisServer(
        folder,
        binary=binary,
        cluster_enabled="yes",
        cluster_port=str(free_port()),
        cluster_node_timeout=str(timeout),
        cluster_allow_replica_migration="no",  # a master without slots stays one
    )


async def _until_role(node: RedisServer, role: bytes) -> None:
    """Return when it has this role, and as a replica all that its master has."""
    async with asyncio.timeout(30):
        while not _has_role(await node.ask("ROLE"), role):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _has_role(answer: list[Any], role: bytes) -> bool:
    return answer[0] == role and (role == b"master" or answer[3] == b"connected")


async def _holder(node: RedisServer, slot: int) -> int:
    """Return the port of the master of a slot, as ``node`` says, 0 if there is none."""
    for first, last, (_, port, *_), *_ in await node.ask("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return int(port)
    return 0
