"""Nodes of one cluster behind a balancer, each with a proxy between it and the broker, and clients of theirs.

What a client connects to is the balancer, which deals connections out in turn. It is told when a node is out, as one
that looks after its servers' health would find out.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Literal, TypeAlias

from bellwire import Client, Emitter, OutcomeUnknown
from tests.chaos.brokers import BrokerProcess
from tests.chaos.program import ServerProgram, serving_with
from tests.chaos.proxy import ChaosProxy
from tests.chaos.sources import LANES, RATE, Lane, Listener, Writer
from tests.chaos.verdict import FINE, HISTORY, verdict

Way: TypeAlias = Literal["reset", "half_open"]

LISTENERS: Final = 4


class Node:
    """A server, and the proxy through which it reaches the broker."""

    def __init__(self, server: ServerProgram, link: ChaosProxy, balancer: ChaosProxy) -> None:
        self.server = server
        self.link = link
        self._balancer = balancer

    def take_out(self, way: Way) -> None:
        """Let its clients go to others; ``half_open`` means that it is not told that they went."""
        self._balancer.take_out(self.server.port)
        for connection in self._balancer.connections_to(self.server.port):
            if way == "reset":
                connection.reset()
            else:
                connection.half_open("server")

    def put_back(self) -> None:
        """Let clients come to it again."""
        self._balancer.put_back(self.server.port)

    @property
    def clients(self) -> int:
        """How many connections it has."""
        return len(self._balancer.connections_to(self.server.port))


class Cluster:
    """All of it. Four clients listen, on each wire two, and on each node two; a writer and an emitter are there."""

    def __init__(
        self,
        broker: BrokerProcess,
        nodes: Sequence[Node],
        balancer: ChaosProxy,
        link: ChaosProxy,
        stack: AsyncExitStack,
    ) -> None:
        self.broker = broker
        self.nodes = nodes
        self.balancer = balancer
        self.link = link
        """The emitter's way to the broker."""
        self.listeners: list[Listener] = []
        self.writer: Writer
        self.emitter: Emitter
        self.lanes: list[Lane]
        self._stack = stack

    async def enter(self) -> None:
        """Let all clients connect."""
        port = self.balancer.port
        for url in (f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}/bellwire"):
            for _ in range(LISTENERS // 2):
                client = Client(url)
                self.listeners.append(Listener(client))
                await self._stack.enter_async_context(client)
        writer = Client(f"http://127.0.0.1:{port}")
        self.writer = Writer(writer)
        await self._stack.enter_async_context(writer)
        self.emitter = await self._stack.enter_async_context(Emitter(self.broker.url(self.link.port)))
        self.lanes = [Lane(self.emitter, f"e{number}") for number in range(LANES)]

    @asynccontextmanager
    async def noting(self, seconds: float) -> AsyncIterator[None]:
        """Write, and emit, for so long, beside what is done within; then wait for all outcomes."""
        count = int(seconds * RATE)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.writer.write(count))
            for lane in self.lanes:
                group.create_task(lane.emit(count // LANES))
            yield

    async def settle(self) -> None:
        """Wait until all is heard; cut everybody off once more, and wait for one more note of each source."""
        await self.all_hear()
        for connection in [*self.balancer.connections.values()]:
            connection.reset()
        await asyncio.gather(self.writer.write(), *(lane.emit() for lane in self.lanes))
        await self.all_hear()

    async def all_hear(self) -> None:
        """Wait until everybody has heard the last note of each source."""
        for listener in self.listeners:
            if self.writer.written:
                await listener.hears(Writer.name, self.writer.written[-1])
            for lane in self.lanes:
                await listener.hears(lane.name, lane.emitted[-1])

    def check(self, *, in_doubt: bool = False) -> None:
        """Everybody has heard every note once and in order, and was told of no reset.

        With ``in_doubt`` the writer may have been told that the outcome of some is unknown: those need not be heard.
        """
        unknown = [error for error in self.writer.failed if in_doubt and isinstance(error, OutcomeUnknown)]
        assert unknown == self.writer.failed, self.writer.failed
        for listener in self.listeners:
            told = listener.of("reset"), listener.of("dead letter")
            assert told == ([], []), told
            found = {Writer.name: verdict(listener.numbers(Writer.name), self.writer.written)}
            if len(found[Writer.name]["lost"]) <= len(unknown):
                found[Writer.name]["lost"] = []
            for lane in self.lanes:
                found[lane.name] = verdict(listener.numbers(lane.name), lane.possible, lane.unknown)
            assert all(one == FINE for one in found.values()), found


@asynccontextmanager
async def nodes_on(broker: BrokerProcess, *flags: str, count: int = 2) -> AsyncIterator[tuple[ChaosProxy, list[Node]]]:
    """Run so many nodes behind a balancer; each must end well."""
    async with AsyncExitStack() as stack:
        links = [await stack.enter_async_context(ChaosProxy(broker.server.port)) for _ in range(count)]
        servers = [ServerProgram(("--broker", broker.url(link.port), *HISTORY, *flags), None) for link in links]
        balancer = await stack.enter_async_context(ChaosProxy(*(server.port for server in servers)))
        await stack.enter_async_context(serving_with(*servers))
        yield balancer, [Node(server, link, balancer) for server, link in zip(servers, links, strict=True)]


@asynccontextmanager
async def cluster(broker: BrokerProcess) -> AsyncIterator[Cluster]:
    """Run two nodes, and clients of theirs."""
    async with (
        nodes_on(broker) as (balancer, nodes),
        ChaosProxy(broker.server.port) as link,
        AsyncExitStack() as clients,
    ):
        made = Cluster(broker, nodes, balancer, link, clients)
        await made.enter()
        yield made
