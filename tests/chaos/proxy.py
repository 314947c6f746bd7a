"""A TCP proxy that does to connections what bad networks do, on command.

To one direction of a connection, ``up`` from the client to the server or ``down``::

    stall       nothing passes until it is resumed; nothing is lost, and the sender feels it as backpressure
    latency     what comes is held back for so many seconds, in order
    pieces      what comes leaves in pieces of so many bytes, each a segment of its own (TCP_NODELAY)
    swallow     what comes is taken and goes nowhere; as no network loses bytes in between, all behind them go too
    cut         after so many bytes more the receiver finds the end of the stream, and the sender a reset

To a connection as a whole::

    reset       both sides find it reset: RST, by a close with SO_LINGER of 0 seconds (socket(7))
    half_open   one side is reset, and the other is told nothing: what it sends is taken and goes nowhere

To those that come::

    pass        they are connected
    hold        they are accepted, and that is all
    reset       they are accepted and reset at once

Before several servers it is a balancer: those who come go to one after the other, but to none that was taken out, or
cannot be connected to.
"""

import asyncio
import contextlib
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Self, TypeAlias

Direction: TypeAlias = Literal["up", "down"]
Side: TypeAlias = Literal["client", "server"]
Admission: TypeAlias = Literal["pass", "hold", "reset"]
Fate: TypeAlias = Literal["close", "reset", "keep"]

CHUNK = 65_536


class Flow:
    """One direction of a connection."""

    __slots__ = ("_left", "_open", "_progress", "_swallowing", "latency", "passed", "pieces", "swallowed")

    def __init__(self) -> None:
        self.latency = 0.0
        """Seconds; what arrives meanwhile waits as well, so that a byte may wait twice as long."""
        self.pieces = CHUNK
        """Bytes that leave at a time."""
        self.passed = 0
        self.swallowed = 0
        self._left: int | None = None
        self._swallowing = False
        self._open = asyncio.Event()
        self._open.set()
        self._progress = asyncio.Event()

    def stall(self) -> None:
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    @property
    def stalled(self) -> bool:
        return not self._open.is_set()

    def swallow(self) -> None:
        self._swallowing = True

    async def until_passed(self, count: int) -> None:
        """Wait until so many bytes in all have left for the receiver."""
        await self._until(lambda: self.passed >= count)

    async def until_swallowed(self, count: int) -> None:
        """Wait until so many bytes in all were taken and went nowhere."""
        await self._until(lambda: self.swallowed >= count)

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            await self._progress.wait()

    def _progressed(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    async def pump(self, source: socket.socket, sink: socket.socket) -> bool:
        """Pass on what comes until its end, or until what was left is through: False then."""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(source, CHUNK):
            if self.latency:
                await asyncio.sleep(self.latency)
            await self._open.wait()
            if self._swallowing:
                self.swallowed += len(data)
                self._progressed()
                continue
            await self._send(sink, data if self._left is None else data[: self._left])
            if self._left == 0:
                return False
        await self._open.wait()
        return True

    async def _send(self, sink: socket.socket, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        while data:
            piece, data = data[: self.pieces], data[self.pieces :]
            await loop.sock_sendall(sink, piece)
            self.passed += len(piece)
            if self._left is not None:
                self._left -= len(piece)
            self._progressed()
            if data:
                await asyncio.sleep(0)  # let a receiver in this process see the piece

    def leave(self, count: int) -> None:
        """Let so many bytes more through."""
        self._left = count


class End(NamedTuple):
    """What each side of a connection finds at its end."""

    client: Fate
    server: Fate


class Connection:
    """A connection through the proxy; the first is number 0. All commands take effect at the next turn of the loop."""

    def __init__(self, number: int, client: socket.socket, faults: Counter[str]) -> None:
        self.number = number
        self.up = Flow()
        self.down = Flow()
        self.ended = asyncio.Event()
        """Set when nothing is open any more, on either side."""
        self.to: int | None = None
        """The server's port; None as long as it is not connected."""
        self._client = client
        self._server: socket.socket | None = None
        self._faults = faults
        self._end: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._release = asyncio.Event()

    def flow(self, direction: Direction) -> Flow:
        return self.up if direction == "up" else self.down

    # --- commands

    def stall(self, *directions: Direction) -> None:
        """Let nothing pass, in both directions if none is named."""
        self._count("stall")
        for direction in directions or ("up", "down"):
            self.flow(direction).stall()

    def resume(self) -> None:
        """Let everything pass again, at once and in one piece; what was swallowed stays so."""
        for flow in (self.up, self.down):
            flow.resume()
            flow.latency, flow.pieces = 0.0, CHUNK

    def delay(self, seconds: float, *directions: Direction) -> None:
        self._count("latency")
        for direction in directions or ("up", "down"):
            self.flow(direction).latency = seconds

    def slice(self, size: int = 1, *directions: Direction) -> None:
        self._count("pieces")
        for direction in directions or ("up", "down"):
            self.flow(direction).pieces = size

    def swallow(self, *directions: Direction) -> None:
        self._count("swallow")
        for direction in directions or ("up", "down"):
            self.flow(direction).swallow()

    def cut(self, direction: Direction, count: int) -> None:
        """End the connection after ``count`` bytes more in this direction."""
        self._count("cut")
        if count:
            self.flow(direction).leave(count)
        else:
            self._finish(_cut(direction))

    def reset(self) -> None:
        """Reset both sides, or the one that is still open."""
        self._count("reset")
        self._finish(End("reset", "reset"))

    def half_open(self, kept: Side) -> None:
        """Reset one side and keep the other, until `reset`."""
        self._count("half_open")
        self._finish(End("keep", "reset") if kept == "client" else End("reset", "keep"))

    def _count(self, fault: str) -> None:
        if not self.ended.is_set():
            self._faults[fault] += 1

    # --- its life

    async def run(self, host: str, ports: Sequence[int]) -> None:
        """Connect to the first of the servers that can be connected to, and pass bytes until the end."""
        try:
            for port in ports:
                if await self._connect(host, port):
                    await self._pass()
                    break
        finally:
            self.end()

    async def hold(self, *, still: bool = True) -> None:
        """Do nothing with it until it is reset, which it is at once if it is not to be held ``still``."""
        try:
            if still:
                await self._end
        finally:
            self.end()

    def end(self) -> None:
        """Close what is still open; to be called when nobody waits for the sockets."""
        for side in (self._client, self._server):
            if side is not None and side.fileno() >= 0:
                _reset(side)
        self.ended.set()

    async def _connect(self, host: str, port: int) -> bool:
        server = _socket()
        try:
            await asyncio.get_running_loop().sock_connect(server, (host, port))
        except BaseException as error:
            server.close()
            if isinstance(error, OSError):
                return False
            raise
        self._server, self.to = server, port
        return True

    async def _pass(self) -> None:
        server = self._server
        assert server is not None
        pumps = [
            asyncio.create_task(self._pump("up", self._client, server)),
            asyncio.create_task(self._pump("down", server, self._client)),
        ]
        passed = asyncio.gather(*pumps)
        try:
            await asyncio.wait((passed, self._end), return_when=asyncio.FIRST_COMPLETED)
        finally:
            passed.cancel()  # a socket may only be closed once nobody waits for it
            await asyncio.gather(*pumps, passed, return_exceptions=True)
        if not self._end.done():
            passed.result()
            self._finish(End("close", "close"))
        await self._part(self._end.result())

    async def _pump(self, direction: Direction, source: socket.socket, sink: socket.socket) -> None:
        try:
            if not await self.flow(direction).pump(source, sink):
                self._finish(_cut(direction))
            else:
                sink.shutdown(socket.SHUT_WR)
        except OSError:  # what one side does to its connection is done to the other
            self._finish(End("reset", "reset"))

    async def _part(self, end: End) -> None:
        for side, fate in ((self._client, end.client), (self._server, end.server)):
            if side is not None:
                _apply(side, fate)
        for side, fate in ((self._client, end.client), (self._server, end.server)):
            if side is not None and fate == "keep":
                await self._keep(side)

    async def _keep(self, side: socket.socket) -> None:
        """Take what a side sends that was told nothing, until it ends or is released."""
        taking = asyncio.create_task(_take_all(side))
        released = asyncio.create_task(self._release.wait())
        try:
            await asyncio.wait((taking, released), return_when=asyncio.FIRST_COMPLETED)
        finally:
            taking.cancel()
            released.cancel()
            await asyncio.gather(taking, released, return_exceptions=True)

    def _finish(self, end: End) -> None:
        if self._end.done():
            self._release.set()
        else:
            self._end.set_result(end)


class ChaosProxy:
    """Listens on a port of its own and connects whoever comes to one of ``ports``, or to the next one where that does
    not work; ``async with`` starts and ends it.

    ``on_connect`` is called with each connection before its first byte passes.
    """

    def __init__(
        self, *ports: int, host: str = "127.0.0.1", on_connect: Callable[[Connection], object] | None = None
    ) -> None:
        self.admission: Admission = "pass"
        self.on_connect = on_connect
        self.connections: dict[int, Connection] = {}
        """Those of which a side is still open, by number."""
        self.faults: Counter[str] = Counter()
        """How often each was done."""
        self.port = 0
        self._host = host
        self._ports = deque(ports)
        self._taken_out: set[int] = set()
        self._accepted = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []
        self._came = asyncio.Event()
        self._door: socket.socket | None = None

    async def start(self, port: int = 0) -> None:
        self._door = socket.create_server(("127.0.0.1", port))
        self._door.setblocking(False)
        self.port = int(self._door.getsockname()[1])
        # Not loop.sock_accept: cancelled at the moment when somebody comes, it fails (3.11) and loses the connection.
        asyncio.get_running_loop().add_reader(self._door, self._accept, self._door)

    async def close(self) -> None:
        """End everything. Raises what went wrong in the proxy itself, if anything did."""
        if self._door is not None:
            asyncio.get_running_loop().remove_reader(self._door)
            self._door.close()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in [*self.connections.values()]:
            connection.end()  # those whose task was cancelled before its first step
        self.connections.clear()
        if self._failures:
            raise ExceptionGroup("the proxy is broken", self._failures)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def connection(self, number: int) -> Connection:
        """Return a connection by its number, as soon as it is there. Raises KeyError if it ended already."""
        while self._accepted <= number:
            await self._came.wait()
        return self.connections[number]

    def take_out(self, port: int) -> None:
        """Connect nobody to this server any more; who is connected stays so."""
        self._taken_out.add(port)

    def put_back(self, port: int) -> None:
        """Connect to this server again."""
        self._taken_out.discard(port)

    def connections_to(self, port: int) -> list[Connection]:
        """Those that are open now."""
        return [connection for connection in self.connections.values() if connection.to == port]

    def _turn(self) -> list[int]:
        """Whom to connect to, best first."""
        ports = [port for port in self._ports if port not in self._taken_out]
        self._ports.rotate(-1)
        return ports

    @property
    def accepted(self) -> int:
        """How many connections there were."""
        return self._accepted

    def _accept(self, door: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):  # whoever came is gone already
            client, _ = door.accept()
            self._admit(client)

    def _admit(self, client: socket.socket) -> None:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(self._accepted, client, self.faults)
        self._accepted += 1
        self.connections[connection.number] = connection
        if self.admission != "pass":
            self.faults[self.admission] += 1
        task = asyncio.create_task(
            self._serve(connection, self.admission), name=f"chaos: connection {connection.number}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        if self.on_connect is not None:
            try:
                self.on_connect(connection)
            except Exception as error:
                self._failures.append(error)
                task.cancel()  # before its first step
                asyncio.get_running_loop().call_soon(self.connections.pop(connection.number).end)
        self._came.set()
        self._came = asyncio.Event()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._failures.append(error)

    async def _serve(self, connection: Connection, admission: Admission) -> None:
        try:
            if admission == "pass":
                await connection.run(self._host, self._turn())
            else:
                await connection.hold(still=admission == "hold")
        finally:
            del self.connections[connection.number]


def _cut(direction: Direction) -> End:
    return End("reset", "close") if direction == "up" else End("close", "reset")


def _apply(side: socket.socket, fate: Fate) -> None:
    if fate == "reset":
        _reset(side)
    elif fate == "close":
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_WR)
        side.close()


def _reset(side: socket.socket) -> None:
    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.close()


def _socket() -> socket.socket:
    made = socket.socket()
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


async def _take_all(side: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while await loop.sock_recv(side, CHUNK):
            pass
