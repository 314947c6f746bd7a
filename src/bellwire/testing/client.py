"""A client in the same process: it speaks Socket.IO packets to the server with no network between.

Everything that a client's bytes go through is the real thing, from the Engine.IO session up; only the socket is not.
"""

# ruff: noqa: ASYNC109 - whoever writes a test says how long it waits

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, TypeVar, TypeVarTuple, cast, overload

import msgspec
from typing_extensions import override

from bellwire.core.errors import CallTimeout, ConnectRefused, Disconnected
from bellwire.core.events import Event, require_event
from bellwire.guard.auth import Identity
from bellwire.guard.packets import pack
from bellwire.guard.recipients import check_name
from bellwire.guard.schema import PayloadReader, ReplyReader
from bellwire.protocol.outgoing import Message, Outgoing
from bellwire.protocol.socketio import (
    ACK,
    BINARY_ACK,
    BINARY_EVENT,
    CONNECT,
    CONNECT_ERROR,
    DISCONNECT,
    EVENT,
    Assembly,
    Packet,
    decode_json,
    encode_ack,
    encode_connect,
    encode_disconnect,
    event_name,
    parse_packet,
)
from bellwire.server.acks import check_timeout
from bellwire.server.connection import Connection
from bellwire.server.server import Server
from bellwire.transports.base import Request
from bellwire.transports.engine import Engine
from bellwire.transports.queued import QueuedCarrier
from bellwire.transports.session import Session

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")

MAX_BYTES = 64 * 1024 * 1024

_FAULTS = ("events_refused_total", "handler_errors_total", "dropped_total")
"""Counters that say why a client may wait in vain."""


class MemoryCarrier(QueuedCarrier[Session]):
    """A WebSocket without a socket: what the server writes, the client reads in the same turn of the loop."""

    __slots__ = ("_client", "_inbox", "_reading", "open", "stalled")

    name: ClassVar[str] = "websocket"

    def __init__(self, engine: Engine, client: "TestClient") -> None:
        super().__init__(engine)
        self._client = client
        self._inbox: deque[str | bytes] = deque()
        self._reading = True
        self.open = True
        self.stalled = False
        """Set it to play a client that does not read: what is sent then stays in the server's buffer."""

    @override
    def send(self, message: Message) -> None:
        if not self.open:
            return
        self._enqueue(message)
        if len(self._queue) == 1:
            self._engine.tick.touch(self)
        if self.stalled and self._buffered > self._engine.config.send_buffer_bytes:
            self._engine.overflow(self.session)

    @override
    def flush(self) -> None:
        if self.stalled:
            return
        queue, self._queue = self._queue, []
        self._dequeue(self._buffered)
        for message in queue:
            for part in message.parts:
                self._client.take(part)

    def resume(self) -> None:
        """Read what had piled up while the client was stalled."""
        self.stalled = False
        self.flush()

    @override
    def close(self, code: int = 1000) -> None:
        if self.open:
            self.flush()
            self.abort()

    @override
    def abort(self) -> None:
        self.open = False
        self._clear()
        self._inbox.clear()
        self._client.cut("transport close")

    @override
    def set_reading(self, reading: bool) -> None:
        self._reading = reading
        if reading and self._inbox:
            self._engine.loop.call_soon(self._read)

    def arrive(self, part: str | bytes) -> None:
        """A packet from the client; it waits while the server does not read."""
        self._inbox.append(part)
        self._read()

    def _read(self) -> None:
        while self._reading and self._inbox:
            self.session.received(self, self._inbox.popleft())


class TestClient:
    """A connected client. Every wait has a timeout, in seconds; with the virtual clock it costs no time."""

    __test__ = False  # not a test, whatever its name says

    def __init__(self, server: Server, namespace: str) -> None:
        self.namespace = namespace
        self.id = ""
        """The socket's id, once it is connected."""
        self.reason: str | None = None
        """Why the connection ended; None while it lasts."""
        self.refused: ConnectRefused | None = None
        self.carrier = MemoryCarrier(server.engine, self)
        self._counters = server.counters
        self._before = server.counters.snapshot()
        self._events: deque[tuple[Packet, list[Any] | None]] = deque()
        self._replies: dict[int, asyncio.Future[str | list[Any]]] = {}
        self._arrived = asyncio.Event()
        self._assembly: Assembly | None = None
        self._next = 0
        self._has_offsets = False

    # --- what tests call

    async def emit(self, event: Event[Any, *Ts], /, *payload: *Ts) -> None:
        """Send ``event`` to the server, without asking for an acknowledgement."""
        self.send(pack(self.namespace, event, payload))

    async def call(self, event: Event[R, *Ts], /, *payload: *Ts, timeout: float = 1) -> R:
        """Send ``event`` and return the handler's reply.

        Raises:
            EventRefused: the server refused the event.
            CallTimeout: no acknowledgement came in time.
            Disconnected: the connection ended first.
            TypeError: ``timeout`` is no number.

        """
        check_timeout(timeout)
        number, self._next = self._next, self._next + 1
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        self.send(pack(self.namespace, event, payload, number))
        try:
            async with asyncio.timeout(timeout):
                answer = await reply
        except TimeoutError:
            raise CallTimeout(f"no acknowledgement of {event.name!r} within {timeout:g} s") from None
        finally:
            del self._replies[number]
        reader: ReplyReader[R] = ReplyReader(event)
        return reader.read(answer) if isinstance(answer, str) else reader.read_objects(answer)

    @overload
    async def receive(self, event: Event[Any], /, *, timeout: float = 1) -> None: ...
    @overload
    async def receive(self, event: Event[Any, T1], /, *, timeout: float = 1) -> T1: ...
    @overload
    async def receive(self, event: Event[Any, T1, T2], /, *, timeout: float = 1) -> tuple[T1, T2]: ...
    @overload
    async def receive(self, event: Event[Any, T1, T2, T3], /, *, timeout: float = 1) -> tuple[T1, T2, T3]: ...
    @overload
    async def receive(self, event: Event[Any, T1, T2, T3, T4], /, *, timeout: float = 1) -> tuple[T1, T2, T3, T4]: ...
    @overload
    async def receive(
        self, event: Event[Any, T1, T2, T3, T4, T5], /, *, timeout: float = 1
    ) -> tuple[T1, T2, T3, T4, T5]: ...
    async def receive(self, event: Event[Any, *tuple[Any, ...]], /, *, timeout: float = 1) -> Any:
        """The payload of the next event, which has to be this one: a value, a tuple of several, None without any.

        Raises:
            AssertionError: another event came, or none in time.
            Disconnected: the connection ended first.

        """
        require_event(event, "receive")
        packet, objects = await self._next_event(event.name, timeout)
        name = event_name(packet.payload)
        if name != event.name:
            raise AssertionError(f"{event.name!r} was expected, {name!r} came: {packet.payload[:200]}")
        reader = PayloadReader(event)
        args = reader.read(packet.payload) if objects is None else reader.read_objects(objects[1:])
        return args[0] if len(args) == 1 else args or None

    @overload
    async def answer(self, event: Event[R], reply: R, /, *, timeout: float = 1) -> None: ...
    @overload
    async def answer(self, event: Event[R, T1], reply: R, /, *, timeout: float = 1) -> T1: ...
    @overload
    async def answer(self, event: Event[R, T1, T2], reply: R, /, *, timeout: float = 1) -> tuple[T1, T2]: ...
    @overload
    async def answer(self, event: Event[R, T1, T2, T3], reply: R, /, *, timeout: float = 1) -> tuple[T1, T2, T3]: ...
    @overload
    async def answer(
        self, event: Event[R, T1, T2, T3, T4], reply: R, /, *, timeout: float = 1
    ) -> tuple[T1, T2, T3, T4]: ...
    @overload
    async def answer(
        self, event: Event[R, T1, T2, T3, T4, T5], reply: R, /, *, timeout: float = 1
    ) -> tuple[T1, T2, T3, T4, T5]: ...
    async def answer(self, event: Event[Any, *tuple[Any, ...]], reply: Any, /, *, timeout: float = 1) -> Any:
        """Receive ``event`` and acknowledge it with ``reply``; return its payload."""
        require_event(event, "answer")
        packet, _ = self._events[0] if self._events else await self._peek(event.name, timeout)
        payload = await self.receive(event, timeout=timeout)
        if packet.id is None:
            raise AssertionError(f"{event.name!r} asked for no acknowledgement")
        self.send(encode_ack(self.namespace, packet.id, () if event.reply is None else (reply,)))
        return payload

    async def receive_nothing(self, *, within: float = 1) -> None:
        """Make sure that no event comes for so many seconds."""
        try:
            packet, _ = await self._next_event("", within)
        except (AssertionError, Disconnected):
            return
        raise AssertionError(f"nothing was expected, this came: {packet.payload[:200]}")

    async def disconnect(self) -> None:
        """Leave the namespace, as a client that calls ``disconnect()``."""
        self.send(encode_disconnect(self.namespace))

    def drop(self) -> None:
        """Lose the connection without a word."""
        if not self.carrier.open:
            return
        self.carrier.open = False
        self.cut("transport close")
        self.carrier.session.lost(self.carrier, "transport close")

    async def closed(self, *, timeout: float = 1) -> str:
        """Wait for the end of the connection and return its reason. Raises :class:`TimeoutError` if it goes on."""
        try:
            async with asyncio.timeout(timeout):
                while self.reason is None:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise TimeoutError(f"the connection was to end within {timeout:g} s, and it goes on") from None
        return self.reason

    async def welcomed(self) -> None:
        """Wait for the server's answer to CONNECT. Raises :class:`ConnectRefused` and :class:`Disconnected`."""
        while not self.id:
            if self.refused is not None:
                raise self.refused
            if self.reason is not None:
                raise Disconnected(self.reason)
            self._arrived.clear()
            await self._arrived.wait()

    # --- the wire

    def send(self, message: Outgoing) -> None:
        """Hand the server a packet, whatever it is."""
        if self.reason is not None:
            raise Disconnected(self.reason)
        for part in message.parts:
            self.carrier.arrive(part)

    def take(self, part: str | bytes) -> None:
        """A packet from the server."""
        if isinstance(part, str):
            self._control(part)
        elif self._assembly is not None and self._assembly.add(part):
            packet, objects = self._assembly.packet, self._assembly.resolve()
            self._assembly = None
            self._packet(packet, objects)

    def _control(self, text: str) -> None:
        if text.startswith("4"):
            packet = parse_packet(text[1:])
            if packet.attachments:
                self._assembly = Assembly(packet, max_bytes=MAX_BYTES)
            elif packet.namespace == self.namespace:
                self._packet(packet, None)
        elif text.startswith("2"):
            self.carrier.arrive("3")

    def _packet(self, packet: Packet, objects: list[Any] | None) -> None:
        if packet.type in (EVENT, BINARY_EVENT):
            self._events.append(_without_offset(packet, objects) if self._has_offsets else (packet, objects))
        elif packet.type in (ACK, BINARY_ACK):
            reply = self._replies.get(-1 if packet.id is None else packet.id)
            if reply is not None and not reply.done():
                reply.set_result(packet.payload if objects is None else objects)
        elif packet.type == CONNECT:
            welcome = decode_json(packet.payload)
            self.id = welcome["sid"]
            self._has_offsets = "pid" in welcome
        elif packet.type == CONNECT_ERROR:
            error = decode_json(packet.payload)
            self.refused = ConnectRefused(error["message"], error.get("data"))
        elif packet.type == DISCONNECT:
            self.cut("io server disconnect")
        self._arrived.set()

    def cut(self, reason: str) -> None:
        """The connection ended."""
        if self.reason is None:
            self.reason = reason
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(Disconnected(self.reason))
                reply.exception()  # whoever waited for it may be gone; asyncio is not to complain of that
        self._arrived.set()

    async def _peek(self, name: str, timeout: float) -> tuple[Packet, list[Any] | None]:
        try:
            async with asyncio.timeout(timeout):
                while not self._events:
                    if self.reason is not None:
                        raise Disconnected(self.reason)
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            said = f"{name!r} was expected, nothing came within {timeout:g} s{self._meanwhile()}"
            raise AssertionError(said) from None
        return self._events[0]

    def _meanwhile(self) -> str:
        """What the server refused, dropped or failed at since this client was made: perhaps for that reason."""
        now = self._counters.snapshot()
        new = {name: count - self._before.get(name, 0) for name, count in now.items() if name.startswith(_FAULTS)}
        told = [f"{name} {count}" for name, count in new.items() if count]
        hint = "its log has the reasons, see pytest --log-level=DEBUG"
        return f"; meanwhile the server counted {', '.join(told)} ({hint})" if told else ""

    async def _next_event(self, name: str, timeout: float) -> tuple[Packet, list[Any] | None]:
        await self._peek(name, timeout)
        return self._events.popleft()


def _without_offset(packet: Packet, objects: list[Any] | None) -> tuple[Packet, list[Any] | None]:
    """Take off what connection state recovery adds to each event that asks for no acknowledgement: the last argument.

    It is text of letters, digits, ``-`` and ``_``.
    """
    if packet.id is not None:
        return packet, objects
    payload = f"{packet.payload[: packet.payload.rindex(',')]}]"
    return msgspec.structs.replace(packet, payload=payload), None if objects is None else objects[:-1]


@asynccontextmanager
async def connect(
    server: Server,
    namespace: str = "/",
    *,
    user: str | None = None,
    claims: Mapping[str, Any] | None = None,
    auth: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 1,
) -> AsyncIterator[TestClient]:
    """Connect to ``namespace``, and disconnect at the end of the block.

    ``user`` stands in for the authentication, with ``claims`` if there are any: the socket is that user's, and the
    server's ``auth`` is not asked.
    ``auth`` is what the client sends with CONNECT. The server is started if it is not running, and closed again then.

    Raises:
        ConnectRefused: the server refused the client.
        TimeoutError: it did not answer within ``timeout`` seconds.
        TypeError: an argument has the wrong type.
        ValueError: ``namespace`` can be no namespace's name, or ``user`` nobody's id.

    """
    if not isinstance(server, Server):
        raise TypeError(f"connect takes a bellwire.Server, not {type(server).__name__}")
    check_name(namespace)
    if auth is not None and not isinstance(auth, Mapping):
        raise TypeError(f"auth is what the client sends, a mapping such as {{'token': 't'}}, not {type(auth).__name__}")
    identity = None if user is None else Identity(user, claims or {}, issued=time.time())
    started = not server.running
    await server.start()
    try:
        client = TestClient(server, namespace)
        await _open(server, client, identity, auth, headers or {}, timeout)
        try:
            yield client
        finally:
            client.drop()
    finally:
        if started:
            await server.close()


async def _open(
    server: Server,
    client: TestClient,
    identity: Identity | None,
    auth: Mapping[str, Any] | None,
    headers: Mapping[str, str],
    timeout: float,
) -> None:
    head = "\r\n".join(f"{name}: {value}" for name, value in headers.items()).encode("latin-1")
    request = Request(path=server.config.path, query_string=b"EIO=4&transport=websocket", head=head)
    client.carrier.session = session = server.engine.open(client.carrier, request)
    cast("Connection", session.receiver).vouched = identity
    client.send(encode_connect(client.namespace, auth))
    try:
        async with asyncio.timeout(timeout):
            await client.welcomed()
    except TimeoutError:
        client.drop()
        raise TimeoutError(
            f"no answer to CONNECT within {timeout:g} s: auth, middleware or on_connect has not returned"
        ) from None
    except BaseException:
        client.drop()
        raise
