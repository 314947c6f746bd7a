"""Servers that share a broker, clients that outlive them, and the application that all servers run."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec

from bellwire import Event, Server, Socket
from bellwire.core.config import Config
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.effects import Key
from bellwire.delivery.entry import Entry
from bellwire.delivery.log import DEFAULT_LIMITS, Limits
from bellwire.delivery.naming import EVERYONE, User, stream_of
from bellwire.server.room import Room
from tests.guarantee.brokers import Backend, Data, Memory, NodeBroker
from tests.guarantee.client import NAMESPACE, Client, Connection, Handed
from tests.guarantee.redis import OneRedis

T = TypeVar("T")
_decode = msgspec.msgpack.Decoder(list[Any]).decode
Kind: TypeAlias = Literal["memory", "data", "redis"]

SAY = Event("say", str)
BLINK = Event("blink", str, volatile=True)
CONFIRM = Event("confirm", str, reply=str)

RELAY = Event("relay", str, str, reply=str)
"""A label, and the room to say it in."""
WRITE = Event("write", str, reply=str)
ONCE = Event("once", str, reply=str)
AGAIN = Event("again", str, reply=str)


class Run(NamedTuple):
    """A handler was called."""

    node: str
    label: str
    redelivered: bool
    reply: str


class Gate:
    """Where handlers wait after their effect and before their reply, while it is `closed`."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self.waiting = 0

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def pass_through(self) -> None:
        self.waiting += 1
        try:
            await self._open.wait()
        finally:
            self.waiting -= 1


class Node:
    """One server of the cluster."""

    def __init__(self, world: "World", name: str) -> None:
        self.name = name
        self.world = world
        self.broker: NodeBroker = world.backend.connect()
        self.connections: set[Connection] = set()
        self.dead = False
        self.burial: asyncio.Task[None] | None = None
        self.server = Server(config=Config(**{"shutdown_grace": 0.0} | world.settings))
        self.server.configure(broker=self.broker)
        self.namespace = self.server.namespace(NAMESPACE)
        self._register()

    def _register(self) -> None:
        namespace, world = self.namespace, self.world

        @namespace.authorize
        async def authorize(socket: Socket, room: str) -> bool:
            return (socket.user, room) not in world.forbidden

        @namespace.on(RELAY, effect="relay")
        async def relay(socket: Socket, label: str, room: str) -> str:
            reply = await self._work(socket, label)
            await namespace.to(*room.split("+")).emit(SAY, label)
            await world.gate.pass_through()
            return reply

        @namespace.on(WRITE, effect="transactional")
        async def write(socket: Socket, label: str) -> str:
            assert socket.key is not None
            if socket.key not in world.database:
                world.database[socket.key] = await self._work(socket, label)
                world.effects.append(label)
            await world.gate.pass_through()
            return world.database[socket.key]

        @namespace.on(ONCE)
        async def once(socket: Socket, label: str) -> str:
            return await self._effect(socket, label)

        @namespace.on(AGAIN, effect="at_least_once")
        async def again(socket: Socket, label: str) -> str:
            return await self._effect(socket, label)

    async def _effect(self, socket: Socket, label: str) -> str:
        reply = await self._work(socket, label)
        self.world.effects.append(label)
        await self.world.gate.pass_through()
        return reply

    async def _work(self, socket: Socket, label: str) -> str:
        """Note that a handler was called; its reply is another one each time."""
        world = self.world
        run = Run(self.name, label, socket.redelivered, f"{label}/{len(world.runs)}")
        world.runs.append(run)
        world.stir()
        return run.reply

    # --- what happens to it

    async def start(self) -> None:
        await self.server.start()

    def crash(self) -> None:
        """It dies, as by SIGKILL: it does nothing more, and nobody is told."""
        self.dead = True
        self.broker.dead = True
        self.burial = asyncio.create_task(self.broker.kill())
        for connection in list(self.connections):
            connection.vanish()

    # --- what tests do with it

    def room(self, name: str) -> Room:
        """Return a room as this server has it."""
        return self.namespace.hub(NAMESPACE).streams[stream_of(NAMESPACE, name)]

    def socket(self, client: Client) -> Socket:
        """Return the server's end of a client."""
        return self.namespace.hub(NAMESPACE).sockets[client.id]

    async def join(self, client: Client, *rooms: str) -> None:
        for room in rooms:
            await self.socket(client).join(room)

    async def leave(self, client: Client, *rooms: str) -> None:
        for room in rooms:
            await self.socket(client).leave(room)

    async def say(self, room: str, *labels: str, mid: str | None = None) -> None:
        """Emit so many events to a room (several are joined by ``+``), one after the other, as the broker has time."""
        target = self.namespace.to(*room.split("+"))
        for label in labels:
            await self.world.patiently(partial(target.emit, SAY, label, mid=mid))


class World:
    """Everything that a test has to do with."""

    def __init__(self, backend: Backend, settings: dict[str, Any]) -> None:
        self.backend = backend
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.nodes: list[Node] = []
        self.clients: list[Client] = []
        # the application
        self.forbidden: set[tuple[str | None, str]] = set()
        self.runs: list[Run] = []
        self.effects: list[str] = []
        self.database: dict[Key, str] = {}
        self.gate = Gate()
        # the notes
        self.places: dict[tuple[str, int, int], tuple[str, str]] = {}
        self._stirred = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def in_memory(self) -> bool:
        """Whether the broker is the one in memory."""
        return isinstance(self.backend, Memory)

    @property
    def memory(self) -> Memory:
        assert isinstance(self.backend, Memory)
        return self.backend

    @property
    def data(self) -> Data:
        assert isinstance(self.backend, Data)
        return self.backend

    @property
    def process(self) -> Data | OneRedis:
        """The broker that is a process of its own."""
        assert isinstance(self.backend, Data | OneRedis)
        return self.backend

    async def node(self, name: str = "") -> Node:
        """Start one more server."""
        node = Node(self, name or f"node{len(self.nodes)}")
        self.nodes.append(node)
        await node.start()
        return node

    async def client(self, node: Node, *rooms: str, name: str = "", user: str | None = None) -> Client:
        """Connect one more client, and make it a member of rooms."""
        client = Client(self, name or f"client{len(self.clients)}", user=user)
        self.clients.append(client)
        await client.connect(node)
        await node.join(client, *rooms)
        streams = [stream_of(NAMESPACE, room) for room in rooms]
        await self.until(lambda: all(client.receiver.cursor(stream) is not None for stream in streams))
        return client

    def note(self, handed: Handed) -> None:
        """Two clients that are handed the same place of a stream are handed the same event."""
        place = handed.stream, handed.seq, handed.tag
        found = self.places.setdefault(place, (handed.mid, handed.label))
        assert found == (handed.mid, handed.label), f"at {place} one client has {found}, another {handed}"

    @staticmethod
    def label_of(entry: Entry) -> str:
        """Return the first argument of an event that was appended; "" for a marker."""
        return "" if entry.is_marker else str(_decode(entry.body)[2][0])

    # --- time

    def stir(self) -> None:
        """Something happened that somebody may wait for."""
        self._stirred.set()

    async def until(self, done: Callable[[], bool], *, within: float = 10.0) -> None:
        """Wait until something is so."""
        try:
            async with asyncio.timeout(within):
                while not done():
                    await self._look_again()
        except TimeoutError:
            told = "\n".join(f"{client}: {client.labels} {client.outcomes}" for client in self.clients[:10])
            raise AssertionError(f"not within {within:g} s; {told}") from None

    async def outcome(self, client: Client, number: int) -> str:
        """Wait until a client is told the outcome of an event."""
        await self.until(lambda: client.outcome(number) is not None)
        return str(client.outcome(number))

    async def _look_again(self) -> None:
        self._stirred.clear()
        try:
            async with asyncio.timeout(0.02):
                await self._stirred.wait()
        except TimeoutError:
            pass

    async def pass_time(self, seconds: float) -> None:
        """Let time pass for the broker, and with it for every lease and limit that is kept there."""
        await self.backend.pass_time(seconds)

    async def patiently(self, call: Callable[[], Awaitable[T]], *, within: float = 10.0) -> T:
        """Do what needs the broker, as soon as it is there."""
        async with asyncio.timeout(within):
            while True:
                try:
                    return await call()
                except BrokerUnavailable:
                    await asyncio.sleep(0.02)

    def spawn(self, work: Awaitable[Any]) -> asyncio.Task[None]:
        """Do something beside; it has ended when the test does."""

        async def run() -> None:
            await work

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End everything."""
        for client in self.clients:
            client.cut()
        for node in self.nodes:
            await node.server.close()
            if node.burial is not None:
                await node.burial
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _backend(kind: Kind, folder: Path, limits: Limits) -> Backend:
    if kind == "memory":
        return Memory(limits)
    return Data(limits, folder / "data") if kind == "data" else OneRedis(limits, folder / "redis")


@asynccontextmanager
async def world_on(kind: Kind, folder: Path, limits: Limits = DEFAULT_LIMITS, **settings: Any) -> AsyncIterator[World]:
    """Make a world on a broker of this kind; ``settings`` are those of each server."""
    world = World(_backend(kind, folder, limits), settings)
    backend = world.backend
    try:
        await backend.start()
        try:
            yield world
        finally:
            await world.close()
    finally:
        await backend.close()


def stream(room: str) -> str:
    """Return the stream of a room."""
    return stream_of(NAMESPACE, room)


def stream_of_all() -> str:
    """Return the stream of everyone."""
    return stream_of(NAMESPACE, EVERYONE)


def stream_of_user(user: str) -> str:
    """Return the stream of a user."""
    return stream_of(NAMESPACE, User(user))


Make: TypeAlias = Callable[..., AbstractAsyncContextManager[World]]
"""Makes a world on the broker that a test is tried on; takes what `world_on` takes behind the folder."""
