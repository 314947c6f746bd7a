"""What the server itself needs for one operation, by the number of something: processor time without sockets.

All is done in one thread, and its clock runs only while it computes: so it makes little difference what else the
machine does. Each figure is the best of some rounds, since whatever disturbs them only adds.
"""

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from typing_extensions import override

from bellwire import Config, Namespace, Server, Socket
from bellwire.load.clients.base import LoadError
from bellwire.server.fanout import BETWEEN
from bellwire.transports.engine import Engine
from bench.carriers import SILENT, Member, connect, enter
from bench.curve import FLAT, LINEAR, Curve, Found
from bench.room import HUGE, MSG, SIZE, SMALL, TEXT

CROWD = (1, 10, 100, 1_000, 10_000, 100_000)
"""Members of a room, or connections that are not in it."""
ROOMS = (1, 10, 100, 1_000, 10_000, 100_000)
"""Rooms on the server."""
OWN = (1, 8, 32, 126)
"""Rooms that a socket is in."""
MISSED = (0, 10, 100, 500, 1_000)
"""Messages that a client missed."""
ROUNDS = 5
ENOUGH = 200
"""Operations of a round, unless each of them costs more than most."""
PER_SOCKET = 100
"""Rooms that each of the others is in."""
BACK = 10
"""Clients that come back together."""
TURNS = 60
"""Turns of the loop that they have for it."""
MICROS = "us"
BATCH = Config().fanout_batch
EVENT = b'42["msg",'


class Listener(Member):
    """A member that keeps what it is written."""

    __slots__ = ("heard",)

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.heard: list[bytes] = []

    @override
    def flush(self) -> None:
        self.heard.append(self.read())


@asynccontextmanager
async def serving(**settings: object) -> AsyncIterator[tuple[Server, Namespace]]:
    """A server that pings nobody, with one namespace."""
    server = Server(config=Config(**{**SILENT, "rooms_per_socket": 1_000, **settings}))
    root = server.namespace("/", emits=(MSG,))
    async with server.lifespan():
        yield server, root


async def best(do: Callable[[], Awaitable[object]], operations: int, rounds: int = ROUNDS) -> float:
    """Microseconds of this thread for one of the operations that ``do`` does."""
    found = []
    for _ in range(rounds):
        gc.collect()
        began = time.thread_time()
        await do()
        found.append(time.thread_time() - began)
    return min(found) * 1e6 / operations


async def go_round(members: int = 0) -> None:
    """Let the loop turn until a broadcast to so many is with all of them."""
    batches = members // BATCH
    await turn(2 + (batches + 1) * (BETWEEN + 1) * bool(batches))


async def turn(times: int) -> None:
    """Let the loop turn."""
    for _ in range(times):
        await asyncio.sleep(0)


async def emitting(root: Namespace, room: str, members: Sequence[Member]) -> float:
    """Microseconds for an emit to these members of ``room``."""
    times = max(1, ENOUGH // max(1, len(members) // 100))

    async def do() -> None:
        for _ in range(times):
            await root.to(room).emit(MSG, TEXT)
            await go_round(len(members))

    await go_round()  # what they were told before is out
    before = [member.bytes for member in members]
    took = await best(do, times)
    if any(member.bytes - had != times * ROUNDS * SIZE for member, had in zip(members, before, strict=True)):
        raise LoadError("not everyone received what was emitted")
    return took


async def joining(root: Namespace, socket: Socket, room: str) -> float:
    """Microseconds for joining a room and leaving it again."""

    async def do() -> None:
        for _ in range(ENOUGH):
            await socket.join(room)
            await socket.leave(room)

    return await best(do, ENOUGH)


async def leaving(server: Server, root: Namespace, rooms: Sequence[str] = ()) -> float:
    """Microseconds for a disconnect of a socket that is in these rooms."""
    number, found = ENOUGH // 4, []
    for _ in range(ROUNDS):
        sockets = await newcomers(server, root, number, rooms)
        gc.collect()
        began = time.thread_time()
        for socket in sockets:
            await socket.disconnect(close=True)
        await go_round()
        found.append(time.thread_time() - began)
    return min(found) * 1e6 / number


async def newcomers(server: Server, root: Namespace, number: int, rooms: Sequence[str] = ()) -> list[Socket]:
    """Connect so many, have each join these rooms, and return their sockets."""
    hub = root.hub("/")
    before = set(hub.sockets)
    await connect(server, number)
    await go_round()
    sockets = [socket for name, socket in hub.sockets.items() if name not in before]
    for socket in sockets:
        for room in rooms:
            await socket.join(room)
    return sockets


# --- one after the other


async def crowd(sizes: Sequence[int] = CROWD) -> Found:
    """An emit to a room by its members, and what others are done to by connections that do not take part."""
    figures: dict[str, list[float]] = {"emit": [], "aside": [], "join": [], "leave": []}
    async with serving() as (server, root):
        small = await connect(server, 10)
        await go_round()
        for socket in root.hub("/").sockets.values():
            await socket.join(SMALL)
        members: list[Member] = []
        for size in sizes:
            newer = await connect(server, size - len(members))
            members += newer
            await go_round(len(newer))
            await root.except_(SMALL).join(HUGE)
            figures["emit"].append(await emitting(root, HUGE, members))
            figures["aside"].append(await emitting(root, SMALL, small))
            figures["join"].append(await joining(root, next(iter(root.hub("/").sockets.values())), HUGE))
            figures["leave"].append(await leaving(server, root))
    emit = Curve.of("an emit to a room", "its members", MICROS, LINEAR, sizes, figures["emit"])
    return Found(
        [
            emit,
            Curve.of("an emit to a room of ten", "connections outside of it", MICROS, FLAT, sizes, figures["aside"]),
            Curve.of("joining a room and leaving it", "its members", MICROS, FLAT, sizes, figures["join"]),
            Curve.of("a disconnect", "connections", MICROS, FLAT, sizes, figures["leave"]),
        ],
        {"emit_us": emit.fixed},
    )


async def rooms(sizes: Sequence[int] = ROOMS) -> Found:
    """What is done to one room by the rooms that there are beside it."""
    figures: dict[str, list[float]] = {"emit": [], "join": [], "leave": []}
    async with serving() as (server, root):
        small = await connect(server, 10)
        await go_round()
        for socket in root.hub("/").sockets.values():
            await socket.join(SMALL)
        mover = next(iter(root.hub("/").sockets.values()))
        made = 0
        for size in sizes:
            while made < size:
                names = [f"room:{number}" for number in range(made, min(size, made + PER_SOCKET))]
                await newcomers(server, root, 1, names)
                made += len(names)
            figures["emit"].append(await emitting(root, SMALL, small))
            figures["join"].append(await joining(root, mover, "another"))
            figures["leave"].append(await leaving(server, root, ["one", "two"]))
    return Found(
        [
            Curve.of("an emit to a room of ten", "other rooms", MICROS, FLAT, sizes, figures["emit"]),
            Curve.of("joining a room and leaving it", "rooms on the server", MICROS, FLAT, sizes, figures["join"]),
            Curve.of(
                "a disconnect of a socket in two rooms", "rooms on the server", MICROS, FLAT, sizes, figures["leave"]
            ),
        ],
        {},
    )


async def own(sizes: Sequence[int] = OWN) -> Found:
    """What is done to one socket by the rooms that it is in."""
    joined: list[float] = []
    left: list[float] = []
    async with serving() as (server, root):
        for size in sizes:
            names = [f"room:{number}" for number in range(size)]
            (socket,) = await newcomers(server, root, 1, names)
            joined.append(await joining(root, socket, "another"))
            left.append(await leaving(server, root, names))
            await socket.disconnect(close=True)
    return Found(
        [
            Curve.of("joining a room and leaving it", "the socket's own rooms", MICROS, FLAT, sizes, joined),
            Curve.of("a disconnect", "the socket's own rooms", MICROS, LINEAR, sizes, left),
        ],
        {},
    )


# --- those who come back


class Returning:
    """A stock client with connection state recovery: all that it keeps is in what it was written."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._pid = self._offset = ""
        self.carrier = enter(server, Listener(server.engine))
        self.sid = ""

    def listen(self) -> int:
        """Take what was written since, and return how many events were among it."""
        text = b"".join(self.carrier.heard)
        self.carrier.heard.clear()
        if b"40{" in text:
            said = json.loads(b"{" + text.partition(b"40{")[2].partition(b"}")[0] + b"}")
            self._pid, self.sid = said["pid"], said["sid"]
        before, event, last = text.rpartition(EVENT)
        if event:
            self._offset = json.loads(b"[" + last[: last.index(b"]") + 1])[-1]
        return before.count(EVENT) + bool(event)

    def lose(self) -> None:
        """Lose the connection."""
        self.carrier.session.lost(self.carrier, "transport close")

    def come_back(self) -> None:
        """Connect again, with the offset."""
        self.carrier = enter(self._server, Listener(self._server.engine), f"40{self._plea}")

    @property
    def _plea(self) -> str:
        return json.dumps({"pid": self._pid, "offset": self._offset})


async def resuming(missed: int, own: int) -> float:
    """Microseconds for a client to come back that is in so many rooms, and missed so many messages in one of them."""
    async with serving(connection_state_recovery=True) as (server, root):
        clients = [Returning(server) for _ in range(BACK)]
        await turn(TURNS)
        for place, client in enumerate(clients):
            client.listen()
            for number in range(own):
                await root.hub("/").sockets[client.sid].join(f"{place}:{number}")
            await root.to(f"{place}:0").emit(MSG, TEXT)
        await turn(TURNS)
        found = [await _come_back(root, clients, missed) for _ in range(ROUNDS)]
        return min(found) * 1e6 / BACK


async def _come_back(root: Namespace, clients: Sequence[Returning], missed: int) -> float:
    for client in clients:
        client.listen()
        client.lose()
    for place in range(len(clients)):
        for _ in range(missed):
            await root.to(f"{place}:0").emit(MSG, TEXT)
    await turn(TURNS)
    gc.collect()
    sids, began = [client.sid for client in clients], time.thread_time()
    for client in clients:
        client.come_back()
    await turn(TURNS)
    took = time.thread_time() - began
    heard = [client.listen() for client in clients]
    if heard != [missed] * len(clients) or sids != [client.sid for client in clients]:
        raise LoadError(f"clients that missed {missed} messages were given {heard}")
    return took


async def resume(missed: Sequence[int] = MISSED, own: Sequence[int] = OWN) -> Found:
    """What it takes to come back."""
    by_missed = [await resuming(number, 1) for number in missed]
    by_rooms = [await resuming(0, number) for number in own]
    messages = Curve.of("coming back", "messages missed", MICROS, LINEAR, missed, by_missed)
    rooms = Curve.of("coming back, with nothing missed", "the client's own rooms", MICROS, LINEAR, own, by_rooms)
    constants = {"resume_us": rooms.fixed, "resume_room_us": rooms.each, "resume_message_us": messages.each}
    return Found([messages, rooms], constants)
