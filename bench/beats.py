"""What nodes say to each other while nothing happens, by their number: counted, on one broker in memory.

The clock is virtual, so a minute of it takes as long as what is done in it. The nodes are whole servers in one process;
who keeps the broker counts.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from typing_extensions import override

from bellwire import Config, Server
from bellwire.brokers.base import Kept, Listener
from bellwire.brokers.envelope import ALL
from bellwire.brokers.memory import MemoryBroker
from bellwire.testing.clock import VirtualClockLoop, advance
from bench.carriers import SILENT, connect
from bench.curve import FLAT, LINEAR, SQUARE, Curve, Found

NODES = (2, 4, 8, 16, 32, 64, 100)
SERVING = (2, 4, 8, 16, 32)
"""Nodes that serve the presence of a room."""
SECONDS = 60.0
"""Of virtual time in which messages are counted."""
LAG = 0.001
"""Seconds until the broker answers: all who ask in the same moment see the same."""
ROOM = "lobby"
NODES_ = "nodes"

T = TypeVar("T")


class Counting(MemoryBroker):
    """The broker of all nodes, which counts what it is asked and what it tells; no node closes it for the others."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.told: Counter[str] = Counter()
        """Messages that reached a node, by the kind of their stream,"""
        self.bytes: Counter[str] = Counter()
        """and their bytes."""
        self._ears: Counter[str] = Counter()

    def count_anew(self) -> None:
        """Begin to count."""
        self.asked = 0
        self.told.clear()
        self.bytes.clear()

    @override
    async def get(self, key: str) -> Kept | None:
        self.asked += 1
        kept = await super().get(key)
        await asyncio.sleep(LAG)
        return kept

    @override
    async def subscribe(self, stream: str, listener: Listener, *, new: bool = False) -> None:
        self._ears[stream] += 1
        await super().subscribe(stream, listener, new=new)

    @override
    async def unsubscribe(self, stream: str, listener: Listener) -> None:
        self._ears[stream] -= 1
        await super().unsubscribe(stream, listener)

    @override
    async def publish(self, stream: str, body: bytes) -> None:
        kind, ears = stream.partition(".")[0], self._ears[stream]
        self.told[kind] += ears
        self.bytes[kind] += ears * len(body)
        await super().publish(stream, body)

    @override
    async def close(self) -> None: ...


async def _started(stack: AsyncExitStack, broker: Counting, nodes: int) -> list[Server]:
    """Start so many servers at the same moment."""
    servers = [Server(config=Config(**SILENT)) for _ in range(nodes)]
    for server in servers:
        server.namespace("/")
        server.configure(broker=broker)
        stack.push_async_callback(server.close)
    await broker.start()
    await asyncio.gather(*(server.start() for server in servers))
    await advance(1.0)
    return servers


@dataclass(frozen=True)
class Quiet:
    """What a node has to do while nothing happens."""

    asked: float
    """Times that it asks the broker for something while all start at the same moment."""
    told: float
    """Messages that it is told in a second."""
    bytes: float
    """Bytes of them."""
    micros: float
    """Microseconds that it takes for a second, without the way to the broker."""


async def _quiet(nodes: int) -> Quiet:
    async with AsyncExitStack() as stack:
        broker = Counting()
        await _started(stack, broker, nodes)
        asked = broker.asked / nodes
        broker.count_anew()
        began = time.thread_time()
        await advance(SECONDS)
        took = (time.thread_time() - began) * 1e6
        each = nodes * SECONDS
        return Quiet(asked, broker.told[ALL] / each, broker.bytes[ALL] / each, took / each)


async def _present(nodes: int) -> float:
    """Messages that each of so many nodes is told in a second about one room in which every one shows somebody."""
    async with AsyncExitStack() as stack:
        broker = Counting()
        for server in await _started(stack, broker, nodes):
            await connect(server, 1)
            await advance()
            (socket,) = server.namespaces["/"].hub("/").sockets.values()
            await socket.join(ROOM)
            await socket.track(ROOM)
        await advance(1.0)
        broker.count_anew()
        await advance(SECONDS)
        return broker.told["presence"] / nodes / SECONDS


def _virtual(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(work)


def beats(sizes: Sequence[int] = NODES) -> Found:
    """What nodes say to each other to be known, and when they start at once."""
    quiet = [_virtual(_quiet(nodes)) for nodes in sizes]
    told = Curve.of("beats that reach each node", NODES_, "a second", LINEAR, sizes, [each.told for each in quiet])
    size = Curve.of("bytes of them", NODES_, "B a second", LINEAR, sizes, [each.bytes for each in quiet])
    total = [each.told * nodes for each, nodes in zip(quiet, sizes, strict=True)]
    work = Curve.of("a node's own work for it", NODES_, "us a second", LINEAR, sizes, [each.micros for each in quiet])
    asked = [each.asked for each in quiet]
    return Found(
        [
            told,
            size,
            Curve.of("beats that the broker tells in all", NODES_, "a second", SQUARE, sizes, total),
            work,
            Curve.of("questions of a node while all start at once", NODES_, "questions", FLAT, sizes, asked),
        ],
        {"beats_each": told.each, "beats_bytes": size.each, "beats_us": work.each},
    )


def presence(sizes: Sequence[int] = SERVING) -> Found:
    """What nodes say to each other about who is in a room."""
    told = [_virtual(_present(nodes)) for nodes in sizes]
    by = "nodes that serve the room"
    curve = Curve.of("presence of a quiet room, to each node", by, "a second", LINEAR, sizes, told)
    return Found([curve], {"presence_each": curve.each})
