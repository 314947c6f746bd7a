"""What a message from node to node costs, on the nodes and on Valkey, by who is interested in it; and who comes.

The nodes are whole servers in one process and one thread, whose clock counts; Valkey is a process, and clients have no
sockets. So what is added for each node is what a node does for a message that comes from the broker.
"""

import asyncio
import gc
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import astuple, dataclass
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Self

import uvloop

from bellwire import Config, Identity, Request, Server
from bellwire.brokers.base import Broker
from bellwire.load.processes import HOST, ProcessError, running
from bellwire.load.result import processor_time
from bellwire.server.prober import AT_ONCE
from bench import brokers
from bench.carriers import SILENT, Member, connect, enter
from bench.curve import FLAT, LINEAR, Curve, Found
from bench.room import MSG, SIZE, TEXT

INTERESTED = (0, 1, 2, 4, 8, 16)
NODES = (2, 4, 8, 16)
"""Nodes of which two are interested."""
ROOM = "room"
EMITS = 200
ROUNDS = 3
TOGETHER = 32
VISITS = 200
HISTORY = 1_000
"""Messages of a long history."""
GUEST, USER, RECOVERING = KINDS = ("guest", "user", "recovering")
WELCOME = 140
"""Bytes of the handshake of Engine.IO, or more: who has more has the answer to CONNECT."""
SETTLING = 0.5
"""Seconds for what was asked of the broker to be done."""


class Valkey:
    """The broker, and what it has done."""

    def __init__(self, port: int, process: int) -> None:
        self.url = brokers.ADDRESSES[brokers.VALKEY].format(host=HOST, port=port)
        self._port = port
        self._process = process

    def done(self) -> "Done":
        """All that it has done so far."""
        with socket.create_connection((HOST, self._port), timeout=10) as link:
            link.sendall(b"INFO\r\n")
            text = b""
            while not text.endswith(b"\r\n\r\n"):
                text += link.recv(65_536)
        said = dict(line.split(":") for line in text.decode().splitlines() if line.count(":") == 1)
        return Done(
            processor_time(self._process) * 1e6,
            float(said["total_commands_processed"]),
            float(said["total_net_input_bytes"]),
            float(said["total_net_output_bytes"]),
            float(said["used_memory"]),
        )


@dataclass(frozen=True, order=True)
class Done:
    """Of a broker: microseconds, commands, bytes in and out, and bytes that it holds."""

    micros: float
    commands: float
    bytes_in: float
    bytes_out: float
    held: float

    def __sub__(self, other: Self) -> "Done":
        return Done(*(mine - its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def __truediv__(self, number: float) -> "Done":
        return Done(*(mine / number for mine in astuple(self)))


@contextmanager
def broker() -> Iterator[Valkey]:
    """Start Valkey."""
    with TemporaryDirectory() as folder:
        command = brokers.command(brokers.VALKEY, folder)
        with running("the broker", command, None) as (port, process):
            yield Valkey(port, process)


@asynccontextmanager
async def nodes(valkey: Valkey, number: int, **settings: Any) -> AsyncIterator[list[Server]]:
    """So many servers with Valkey between them; of a client's token they take that it is the user's id."""

    async def who(request: Request, payload: Any) -> Identity | None:
        return Identity(payload["token"]) if payload and "token" in payload else None

    async with AsyncExitStack() as stack:
        servers = []
        for _ in range(number):
            server = Server(config=Config(broker=valkey.url, **{**SILENT, **settings}), auth=who)
            server.namespace("/", emits=(MSG,))
            await stack.enter_async_context(server.lifespan())
            servers.append(server)
        yield servers


class Spent(NamedTuple):
    """What one of some operations took: microseconds of all nodes together, and what the broker did."""

    micros: float
    broker: Done


class Watch:
    """Looks at the clock of this thread, and at the broker."""

    def __init__(self, valkey: Valkey) -> None:
        self._valkey = valkey
        gc.collect()
        self._done, self._began = valkey.done(), time.thread_time()

    def spent(self, operations: int) -> Spent:
        """What one of so many operations has taken since."""
        micros = (time.thread_time() - self._began) * 1e6 / operations
        return Spent(micros, (self._valkey.done() - self._done) / operations)


class Audience:
    """One client on each of some nodes, in the same room; the first node emits."""

    def __init__(self, servers: Sequence[Server], members: Sequence[Member]) -> None:
        self._target = servers[0].namespaces["/"].to(ROOM)
        self._missing = 0
        self._members = len(members)
        self._all = asyncio.Event()
        for member in members:
            member.written = self._count

    def _count(self, size: int) -> None:
        self._missing -= size
        if self._missing <= 0:
            self._all.set()

    async def emit(self, times: int) -> None:
        """Emit so many together, and wait until they are with everyone."""
        self._missing = times * self._members * SIZE
        self._all.clear()
        await asyncio.gather(*(self._target.emit(MSG, TEXT) for _ in range(times)))
        if self._members:
            await self._all.wait()


async def _audience(servers: Sequence[Server], number: int) -> Audience:
    members = []
    for server in servers[len(servers) - number :]:
        members += await connect(server, 1)
        await asyncio.sleep(0)
        await server.namespaces["/"].join(ROOM)
    return Audience(servers, members)


class Experiment:
    """What is measured at one broker: so many emits, and visits of so many clients."""

    def __init__(self, valkey: Valkey, emits: int, visits: int) -> None:
        self._valkey = valkey
        self._emits = emits
        self._visits = visits

    async def run(self, interested: Sequence[int], among: Sequence[int]) -> Found:
        """Do it all."""
        found = await self._messages(interested)
        return Found(
            found.curves + await self._elsewhere(among),
            found.constants | await self._streams() | await self._clients(),
        )

    async def _messages(self, interested: Sequence[int]) -> Found:
        spent = [await self._emitting(number, interested[-1] + 1) for number in interested]
        together = await self._emitting(1, 2, TOGETHER)
        by = "nodes that serve the room"
        micros, said = [each.micros for each in spent], [each.broker for each in spent]
        nodes_us = Curve.of("an emit over Valkey, all nodes", by, "us", LINEAR, interested, micros)
        broker_us = Curve.of("the same, Valkey", by, "us", LINEAR, interested, [each.micros for each in said])
        out = Curve.of("the same, bytes from Valkey", by, "B", LINEAR, interested, [each.bytes_out for each in said])
        return Found(
            [nodes_us, broker_us, out],
            {
                "bus_emit_us": nodes_us.fixed,
                "bus_receive_us": nodes_us.each,
                "broker_emit_us": broker_us.fixed,
                "broker_receive_us": broker_us.each,
                "broker_together": together.broker.micros / (broker_us.fixed + broker_us.each),
                "bus_emit_bytes": said[-1].bytes_in,
                "bus_receive_bytes": out.each,
            },
        )

    async def _elsewhere(self, among: Sequence[int]) -> list[Curve]:
        spent = [await self._emitting(2, number) for number in among]
        said = [each.broker.bytes_out for each in spent]
        return [
            Curve.of("an emit to a room on two nodes", "nodes", "us", FLAT, among, [each.micros for each in spent]),
            Curve.of("the same, bytes from Valkey", "nodes", "B", FLAT, among, said),
        ]

    async def _emitting(self, interested: int, among: int, together: int = 1) -> Spent:
        """What an emit takes to a room with a member on so many nodes, among all; so many are emitted at a time."""
        async with nodes(self._valkey, among, prefix=f"bench{interested}-{among}-{together}") as servers:
            audience = await _audience(servers, interested)
            times, found = max(1, self._emits // together), []
            for _ in range(ROUNDS):
                watch = Watch(self._valkey)
                for _ in range(times):
                    await audience.emit(together)
                found.append(watch.spent(times * together))
            return min(found)

    async def _streams(self) -> dict[str, float]:
        """What it takes to look where a stream stands, as a node does for each that is still; and what they hold."""
        async with nodes(self._valkey, 1, prefix="looks") as (server,):
            look = min([await self._look(server.runtime.broker) for _ in range(ROUNDS)])
            return {
                "probe_us": look.micros,
                "probe_broker_us": look.broker.micros,
                "broker_room_bytes": await self._held(server, self._emits, 1),
                "broker_message_bytes": await self._held(server, 2, HISTORY),
            }

    async def _look(self, streams: Broker) -> Spent:
        watch = Watch(self._valkey)
        names = [f"room:{number}" for number in range(self._emits)]
        for start in range(0, len(names), AT_ONCE):
            await asyncio.gather(*map(streams.top, names[start : start + AT_ONCE]))
        return watch.spent(self._emits)

    async def _held(self, server: Server, streams: int, messages: int) -> float:
        """Bytes that Valkey holds for each of some messages, in so many streams."""
        root, watch = server.namespaces["/"], Watch(self._valkey)
        for number in range(streams):
            target = root.to(f"kept:{messages}:{number}")
            await asyncio.gather(*(target.emit(MSG, TEXT) for _ in range(messages)))
        return watch.spent(streams * messages).broker.held

    async def _clients(self) -> dict[str, float]:
        constants: dict[str, float] = {}
        for kind in KINDS:
            visits = [await self._visit(kind, number) for number in range(ROUNDS)]
            for what, each in zip(("come", "go"), zip(*visits, strict=True), strict=True):
                spent = min(each)
                constants |= {
                    f"{kind}_{what}_us": spent.micros,
                    f"{kind}_{what}_broker_us": spent.broker.micros,
                    f"{kind}_{what}_commands": spent.broker.commands,
                }
        return constants

    async def _visit(self, kind: str, place: int) -> tuple[Spent, Spent]:
        """What a client that comes takes, and one that goes."""
        recovers = kind == RECOVERING
        async with nodes(self._valkey, 1, prefix=f"{kind}{place}", connection_state_recovery=recovers) as (server,):
            watch = Watch(self._valkey)
            packets = [f'40{{"token":"{number}"}}' if kind == USER else "40" for number in range(self._visits)]
            members = [enter(server, Member(server.engine), packet) for packet in packets]
            await asyncio.sleep(SETTLING)
            if not all(member.bytes > WELCOME for member in members):
                raise ProcessError(f"not all clients are connected after {SETTLING:g} s")
            came = watch.spent(self._visits)
            watch = Watch(self._valkey)
            for member in members:
                member.session.lost(member, "transport close")
            await asyncio.sleep(SETTLING)
            return came, watch.spent(self._visits)


def bus(
    interested: Sequence[int] = INTERESTED, among: Sequence[int] = NODES, emits: int = EMITS, visits: int = VISITS
) -> Found:
    """All of it."""
    with broker() as valkey, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Experiment(valkey, emits, visits).run(interested, among))
