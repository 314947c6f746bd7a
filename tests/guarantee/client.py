"""A client that keeps the guarantee from its side, and everything that can become of it.

A `Client` is a program with what it has `Stored`; a `Connection` is one of its connections, streams and numbered
events inside Socket.IO. Each of the three can be lost by itself: a connection is cut, falls silent or only looks
alive; a program crashes and begins again with what it stored; what it stored is copied, as a browser does with a tab.

What the program's handlers are given is kept in `Client.history`, in order.
"""

import asyncio
import copy
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import msgspec
from typing_extensions import override

from bellwire.core.errors import PacketError
from bellwire.delivery import producer as up
from bellwire.delivery import receiver as down
from bellwire.delivery.entry import Draft, enter
from bellwire.delivery.outbox import MemoryOutbox, Pruned
from bellwire.delivery.position import Point, Position
from bellwire.delivery.producer import Producer
from bellwire.delivery.receiver import Receiver
from bellwire.guard.auth import Identity
from bellwire.protocol import wire
from bellwire.protocol.embedding import (
    Hello,
    Numbered,
    Placed,
    Request,
    Welcome,
    embed,
    encode_hello,
    encode_message,
    is_message,
    read_control,
    read_welcome,
    take_place,
)
from bellwire.protocol.outgoing import Message
from bellwire.protocol.socketio import (
    BINARY_EVENT,
    CONNECT,
    EVENT,
    Packet,
    decode_json,
    encode_ack,
    encode_event,
)
from bellwire.testing import TestClient
from bellwire.testing.client import MemoryCarrier
from bellwire.transports.base import Request as HTTPRequest

if TYPE_CHECKING:
    from bellwire.server.connection import Connection as ServerConnection
    from tests.guarantee.world import Node, World

NAMESPACE = "/"

_REFUSALS = ("producer_unknown", "idempotency_mismatch", "outcome_unknown")


class Handed(NamedTuple):
    """An event of a stream was given to its handler."""

    stream: str
    gen: str
    seq: int
    tag: int
    mid: str
    label: str
    """The event's first argument: tests give each event one of its own."""


class Told(NamedTuple):
    """The handler of resets was called; without a ``restart`` the stream was closed."""

    stream: str
    reason: str
    restart: Position | None


class Opened(NamedTuple):
    """The client is a member of a stream from this position on."""

    stream: str
    at: Position


Event: TypeAlias = Handed | Told | Opened


class Stored:
    """What a program finds again when it begins anew: a duplicated tab has a copy of it."""

    def __init__(self) -> None:
        self.outbox = MemoryOutbox(secrets.token_hex(16))
        self.session: str | None = None
        self.cursors: dict[str, Position] = {}

    def copied(self) -> "Stored":
        return copy.deepcopy(self)


class _Wire(MemoryCarrier):
    """The server's end of a connection, which tells with which code it was closed."""

    connection: "Connection"

    @override
    def close(self, code: int = 1000) -> None:
        if self.open:
            self.connection.code = code
        super().close(code)

    @override
    def arrive(self, part: str | bytes) -> None:
        if not self.connection.mute:
            super().arrive(part)


class Connection(TestClient):
    """One connection; what is sent in either direction is on its way until the loop has gone round."""

    __test__ = False

    def __init__(self, node: "Node", client: "Client") -> None:
        super().__init__(node.server, NAMESPACE)
        self.carrier = _Wire(node.server.engine, self)
        self.carrier.connection = self
        self.node = node
        self.code: int | None = None
        """The close code, once the server has closed it."""
        self.deaf = False
        """Set it, and what the server sends is lost on the way."""
        self.mute = False
        """Set it, and what the client sends is lost on the way."""
        self.wire: list[str] = []
        """The text that came from the server, in order."""
        self.unheard: list[str] = []
        """The text that was lost on the way while the connection was `deaf`."""
        self.places: dict[str, Position] = {}
        """Where its client said that it stands."""
        self.aliases: dict[int, str] = {}
        """What the server calls the streams in events."""
        self._client = client
        self._coming: deque[str | bytes] = deque()
        self._going: deque[Message] = deque()
        self._loop = asyncio.get_running_loop()

    # --- what is on its way

    @override
    def take(self, part: str | bytes) -> None:
        if not self._coming:
            self._loop.call_soon(self._arrive)
        self._coming.append(part)

    def _arrive(self) -> None:
        coming = list(self._coming)
        self._coming.clear()
        for part in coming:
            if self.carrier.open:
                if isinstance(part, str):
                    (self.unheard if self.deaf else self.wire).append(part)
                if not self.deaf:
                    super().take(part)

    @override
    def send(self, message: Message) -> None:
        if not self._going:
            self._loop.call_soon(self._leave)
        self._going.append(message)

    def _leave(self) -> None:
        going = list(self._going)
        self._going.clear()
        for message in going:
            for part in message.parts:
                if self.carrier.open:
                    self.carrier.arrive(part)

    @override
    def drop(self) -> None:
        """Lose the connection; what was on its way up arrives, what was on its way down does not."""
        self._leave()
        self.deaf = True
        super().drop()

    def vanish(self) -> None:
        """The server died: what was on its way is lost in both directions, and it hears of nothing."""
        self._coming.clear()
        self._going.clear()
        self.carrier.open = False
        self.cut("the server died")

    @override
    def cut(self, reason: str) -> None:
        super().cut(reason)
        self._client.lost(self)

    # --- what arrives

    @override
    def _packet(self, packet: Packet, objects: list[Any] | None) -> None:
        if packet.type == CONNECT:
            sid, welcome = read_welcome(packet.payload)
            assert welcome is not None
            self._client.welcomed(self, sid, welcome)
            super()._packet(packet, objects)
        elif packet.type in (EVENT, BINARY_EVENT):
            self._client.event(self, packet, objects)
        else:
            super()._packet(packet, objects)


class Client:
    """One program. ``user`` is who it is authenticated as; ``skew`` by how much its clock is wrong, in seconds."""

    def __init__(self, world: "World", name: str, *, user: str | None = None, stored: Stored | None = None) -> None:
        self.name = name
        self.user = user
        self.skew = 0.0
        self.stored = Stored() if stored is None else stored
        self.history: list[Event] = []
        self.undone: list[Handed] = []
        """What was handed over, and forgotten in a crash."""
        self.crashes = 0
        self.passed: list[str] = []
        """The labels of events that are in no stream."""
        self.dead_letters: list[str] = []
        self.outcomes: dict[int, list[str]] = {}
        """By number, what the program was told of each event: its reply, or why it has none."""
        self.answers: list[wire.Outcome | wire.Nack | wire.Skipped] = []
        """What the server answered to numbered events, as it came."""
        self.generation = ""
        """What the server said at CONNECT that new events are to be marked with."""
        self.on_message: Callable[[Handed], None] = _nothing
        """A handler; what it raises is a failure."""
        self.saving = True
        """Whether a cursor is stored as soon as its event was handled."""
        self.counting = True
        """Whether it says which of its connections it is."""
        self.busy = False
        """Set it, and handlers do not return before `work`."""
        self.id = ""
        self.resumed = False
        self.connection: Connection | None = None
        self.numbers: dict[int, str] = {}
        """The numbers of this program's events, and their labels."""
        self._world = world
        self._outstanding: list[down.Deliver] = []
        self._saved = 0
        self._begin()

    def __repr__(self) -> str:
        return f"Client({self.name!r})"

    def _begin(self) -> None:
        """The program starts, and finds what it stored."""
        self.instance = secrets.token_hex(8)
        self._attempts = 0
        self.receiver = Receiver()
        for stream, at in self.stored.cursors.items():
            self.receiver.open(stream, at)
        self.producer = Producer(self.stored.outbox.state)
        self._up(self.producer.start())

    @property
    def connected(self) -> bool:
        """Whether the server has answered to CONNECT on the present connection."""
        return self.connection is not None and bool(self.connection.id)

    @property
    def labels(self) -> list[str]:
        """What was handed over, in order, and in brackets what was told."""
        return [said for event in self.history for said in _spoken(event)]

    def of(self, stream: str) -> list[str]:
        """The same, of one stream."""
        return [said for event in self.history if event.stream == stream for said in _spoken(event)]

    @property
    def resets(self) -> list[Told]:
        """What its handler of resets was told."""
        return [event for event in self.history if isinstance(event, Told)]

    # --- the connection

    async def connect(self, node: "Node", *, within: float = 5.0) -> None:
        """Connect to ``node``, and wait for its answer.

        Raises ConnectRefused, Disconnected, TimeoutError.
        """
        assert self.connection is None, f"{self} is connected"
        connection = self.dial(node)
        async with asyncio.timeout(within):
            await connection.welcomed()

    def dial(self, node: "Node") -> Connection:
        """Connect to ``node``, and do not wait."""
        connection = self.connection = Connection(node, self)
        node.connections.add(connection)
        request = HTTPRequest(path="/socket.io/", query_string=b"EIO=4&transport=websocket")
        connection.carrier.session = session = node.server.engine.open(connection.carrier, request)
        if self.user is not None:
            cast("ServerConnection", session.receiver).vouched = Identity(self.user, {})
        connection.places = self.receiver.received()
        hello = Hello(
            1,
            self.instance,
            producer=self.stored.outbox.state.producer,
            session=self.stored.session,
            cursors=tuple(wire.Cursor(stream, *at) for stream, at in connection.places.items()),
            attempt=self._next_attempt(),
        )
        connection.send(encode_hello(NAMESPACE, None, hello))
        return connection

    def _next_attempt(self) -> int:
        self._attempts += 1
        return self._attempts if self.counting else 0

    def cut(self) -> None:
        """Lose the connection; the server notices."""
        if self.connection is not None:
            self.connection.drop()

    def leave_half_open(self) -> Connection:
        """Lose the connection without the server's noticing: what that sends lies in its buffer."""
        connection = self.connection
        assert connection is not None
        connection.deaf = connection.mute = True
        connection.carrier.stalled = True
        self.lost(connection)
        return connection

    def crash(self) -> None:
        """The program ends, and begins again with what it stored; it is not connected."""
        self.cut()
        self.crashes += 1
        saved, undone = self.history[: self._saved], self.history[self._saved :]
        self.undone += [event for event in undone if isinstance(event, Handed)]
        self.history = saved
        self._outstanding.clear()
        self._begin()

    def duplicated(self, name: str) -> "Client":
        """Return the program of a duplicated tab: it finds a copy of everything that was stored."""
        tab = Client(self._world, name, user=self.user, stored=self.stored.copied())
        self._world.clients.append(tab)
        return tab

    def lost(self, connection: Connection) -> None:
        """A connection has ended."""
        connection.node.connections.discard(connection)
        if connection is self.connection:
            self.connection = None
            self.receiver.disconnected()
            self._up(self.producer.disconnected())
        self._world.stir()

    # --- from the server

    def welcomed(self, connection: Connection, sid: str, welcome: Welcome) -> None:
        """The server answered to CONNECT."""
        if connection is not self.connection:
            return
        self.id = sid
        self.resumed = welcome.resumed
        self.stored.session = welcome.session
        self.receiver.told(connection.places)
        greeting = welcome.producer
        assert greeting is not None
        self.generation = greeting.generation
        if greeting.producer != self.stored.outbox.state.producer:
            self.stored.outbox = MemoryOutbox(greeting.producer)
            self.producer = Producer(self.stored.outbox.state)
        self._world.loop.call_soon(self._go_on, connection, greeting)

    def _go_on(self, connection: Connection, greeting: wire.Greeting) -> None:
        if connection is self.connection:
            self._up(self.producer.connected(greeting.generation, greeting.last))

    def event(self, connection: Connection, packet: Packet, objects: list[Any] | None) -> None:
        """An event arrived."""
        if connection is not self.connection:
            return
        if is_message(packet):
            self._control(connection, read_control(packet))
            return
        payload, place = take_place(packet)
        name, *args = decode_json(payload) if objects is None else objects[: None if place is None else -1]
        if packet.id is not None:
            connection.send(encode_ack(NAMESPACE, packet.id, args))
        if place is None:
            self._down((down.Pass("", args),))
        elif isinstance(place, Placed):
            stream = connection.aliases.get(place.alias, "")
            draft = Draft(place.mid, place.tag, msgspec.json.encode([name, *args]))
            entry = enter(draft, place.seq, Point(place.seq - place.back, place.prev_tag), 0.0)
            self._down(self.receiver.receive(stream, place.gen, entry.prev, entry))
        else:
            self._down(self.receiver.after(place.stream, Point(place.seq, place.tag), args))

    def _control(self, connection: Connection, message: Any) -> None:
        if isinstance(message, wire.Open | wire.Proved | wire.Reset):
            connection.aliases[message.alias] = message.stream
        if isinstance(message, wire.Outcome | wire.Nack | wire.Skipped):
            self.answers.append(message)
        match message:
            case wire.Outcome(number=number, args=args):
                self._outcome(number, bytes(args))
            case wire.Nack(number=number, expect=expect, generation=generation, retry_after=retry_after):
                self._up(
                    self.producer.nack(
                        number, expect, self._now(), retry_after=retry_after or 0.0, generation=generation
                    )
                )
            case wire.Skipped(first=first):
                self._up(self.producer.skipped(first))
            case wire.Open(stream=stream, gen=gen, seq=seq, tag=tag):
                self.history.append(Opened(stream, Position(gen, seq, tag)))
                self._down(self.receiver.open(stream, Position(gen, seq, tag)))
            case wire.Close(stream=stream, reason=reason):
                self._down(self.receiver.close(stream, reason), closed=True)
            case wire.Advance():
                to = Position(message.gen, message.seq, message.tag)
                self._down(self.receiver.advance(message.stream, Point(message.prev_seq, message.prev_tag), to))
            case wire.Proved(stream=stream, gen=gen, seq=seq, tag=tag):
                self._down(self.receiver.proved(stream, Position(gen, seq, tag)))
            case wire.Reset(stream=stream, reason=reason, gen=gen, seq=seq, tag=tag):
                self._down(self.receiver.reset(stream, reason, Position(gen, seq, tag)))
            case _:
                raise PacketError(f"unexpected: {message}")

    def _outcome(self, number: int, args: bytes) -> None:
        reply = msgspec.json.decode(args)
        code = reply[0]["error"]["code"] if reply and isinstance(reply[0], dict) and "error" in reply[0] else None
        if code in _REFUSALS:
            self._up(self.producer.refused(number, code))
        else:
            self._up(self.producer.replied(number, args))

    def _down(self, actions: down.Actions, *, closed: bool = False) -> None:
        queue: deque[tuple[down.Action, bool]] = deque((action, closed) for action in actions)
        while queue:
            action, closed = queue.popleft()
            match action:
                case down.Deliver():
                    queue.extend((more, closed) for more in self._deliver(action))
                case down.Reset(stream, reason, restart):
                    self.history.append(Told(stream, reason, None if closed else restart))
                    queue.extend((more, closed) for more in self.receiver.handed(stream))
                case down.DeadLetter(_, entry):
                    self.dead_letters.append(msgspec.json.decode(entry.body)[1])
                case down.AskFor(stream, after):
                    self._say(wire.Ask(stream, *after))
                case down.Pass(_, args):
                    self.passed.append(args[0])
        self._save()
        self._world.stir()

    def _deliver(self, deliver: down.Deliver) -> down.Actions:
        if self.busy:
            self._outstanding.append(deliver)
            return ()
        stream, gen, entry = deliver
        label = msgspec.json.decode(entry.body)[1]
        handed = Handed(stream, gen, entry.seq, entry.tag, entry.mid, label)
        try:
            self.on_message(handed)
        except RuntimeError:
            return self.receiver.failed(stream)
        self.history.append(handed)
        self._world.note(handed)
        return self.receiver.handed(stream)

    def work(self) -> None:
        """Let the handlers return that were held up, and those to come."""
        self.busy = False
        outstanding, self._outstanding = self._outstanding, []
        for deliver in outstanding:
            self._down(self._deliver(deliver))

    def _save(self) -> None:
        if self.saving:
            self.stored.cursors = self.receiver.cursors()
            self._saved = len(self.history)

    # --- to the server

    def emit(self, name: str, label: str, *more: str, call: bool = False) -> int:
        """Put a numbered event into the outbox, and return its number."""
        payload = msgspec.json.encode([name, label, *more])
        number, actions = self.producer.emit(payload, call=call)
        self.numbers[number] = label
        self._up(actions)
        return number

    def _up(self, actions: Iterable[up.Action]) -> None:
        for action in actions:
            match action:
                case up.Store(record):
                    self.stored.outbox.store(record)
                case up.Prune(upto):
                    self.stored.outbox.store(Pruned(upto))
                case up.Send(number, payload, generation, resent):
                    mark = None if generation == self.generation else generation
                    self._send(payload, Numbered(number, mark, resent))
                case up.Skip(first, upto):
                    self._say(wire.Skip(NAMESPACE, first, upto))
                case up.Resolve(number, reply):
                    self.outcomes.setdefault(number, []).append(reply.decode())
                case up.Fail(number, code):
                    self.outcomes.setdefault(number, []).append(code)
                case up.RetryAt(time):
                    self._world.loop.call_later(max(0.0, time - self._now()), self._tick, time)
        self._world.stir()

    def _tick(self, time: float) -> None:
        self._up(self.producer.tick(max(time, self._now())))  # a timer may be early by the clock's resolution

    def _now(self) -> float:
        return self._world.loop.time() + self.skew

    def send(self, number: int, name: str, label: str, generation: str, *, resent: bool = False) -> None:
        """Send an event past the outbox."""
        self._send(msgspec.json.encode([name, label]), Numbered(number, generation, resent))

    def _send(self, payload: bytes, trailer: Numbered) -> None:
        assert self.connection is not None
        event = encode_event(NAMESPACE, msgspec.json.decode(payload), binary=False)
        self.connection.send(embed(event, trailer))

    def _say(self, message: Request) -> None:
        if self.connection is not None:
            self.connection.send(encode_message(NAMESPACE, message))

    def outcome(self, number: int) -> str | None:
        """What the program was told of an event, None if nothing yet."""
        found = self.outcomes.get(number)
        if found is None:
            return None
        assert len(set(found)) == 1, f"{self} was told of event {number}: {found}"
        assert len(found) == 1 or self.crashes, f"{self} was told twice of event {number}: {found}"
        return found[0]


def _nothing(handed: Handed) -> None:
    pass


def _spoken(event: Event) -> tuple[str, ...]:
    if isinstance(event, Handed):
        return (event.label,)
    return (f"[{event.reason}]",) if isinstance(event, Told) else ()
