"""A node's rooms for tests, over the broker in memory: sockets that keep what they are sent, readers that tell all."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ClassVar, Final, cast

import msgspec

from bellwire.brokers.memory import MemoryBroker
from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.answer import Page, Reason
from bellwire.delivery.entry import Entry
from bellwire.delivery.log import DEFAULT_LIMITS, Limits
from bellwire.delivery.membership import Membership
from bellwire.delivery.naming import Key, stream_of
from bellwire.delivery.position import Point, Position
from bellwire.protocol.embedding import Control
from bellwire.protocol.outgoing import Message
from bellwire.protocol.post import Post
from bellwire.protocol.wire import Advance, Close, Open, Proved, Reset
from bellwire.server.dialects import STOCK, Dialect, Item, embedded
from bellwire.server.dispatch import Dispatcher
from bellwire.server.fanout import Fanout
from bellwire.server.hub import Hub
from bellwire.server.latest import Fresh, Latest
from bellwire.server.room import Room
from bellwire.server.socket import Socket
from bellwire.server.streams import Streams
from bellwire.transports.base import Sink
from bellwire.transports.tick import Tick


class Inbox(Sink):
    """A connection that keeps the messages."""

    buffered: ClassVar[int] = 0

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.full = False

    @property
    def writable(self) -> bool:
        return not self.full

    def send(self, message: Message) -> None:
        self.messages.append(message)


class Member:
    """As much of a socket as rooms need."""

    def __init__(self, name: str, user: str | None = None, dialect: Dialect = STOCK) -> None:
        self.id = name
        self.user = user
        self.dialect = dialect
        self.sink = Inbox()
        self.reader: Tale | None = None
        self.gone = False
        self.rooms: set[str] = set()
        self.fanout: Fanout | None = None
        self.latest: Latest | None = None

    @property
    def itself(self) -> Socket:
        return cast("Socket", self)

    def send(self, message: Message) -> None:
        assert self.fanout is not None
        self.fanout.settle(self.itself)
        self.sink.send(message)

    def deliver(self, *items: Item) -> None:
        assert self.fanout is not None
        self.fanout.settle(self.itself)
        message, self.dialect = self.dialect.deliver(items)
        self.sink.send(message)

    def keep(self, news: Sequence[Fresh]) -> None:
        self.latest = self.latest or Latest()
        self.latest.put(news)

    def send_latest(self) -> None:
        latest, self.latest = self.latest, None
        if latest is not None:
            self.deliver(*latest.items)

    @property
    def got(self) -> list[Any]:
        """The arguments of the events, and what it was told of streams, in order; what was got is forgotten."""
        texts = [str(part) for message in self.sink.messages for part in message.parts]
        self.sink.messages.clear()
        return [_short(msgspec.json.decode(text[text.index("[") :])) for text in texts]


_ALIASED: Final = {"open": 2, "proved": 1, "reset": 1}


def _short(found: list[Any]) -> Any:
    """What an event says: its argument; or the tag of what a client is told of a stream, and its place."""
    if found[0] == "bellwire":
        tag, *rest = found[1]
        if tag in _ALIASED:
            del rest[_ALIASED[tag]]
        return tag, *rest[1:]
    return found[1]


class Tale:
    """A reader that keeps its memberships and tells its client what it is told, as those of the server do."""

    def __init__(self, member: Member) -> None:
        self.socket = member
        self.ready = True
        self.spans: dict[str, list[Membership]] = {}
        self.ends: list[Room] = []

    async def join(self, room: Room) -> bool:
        position = await room.stand()
        self.spans[room.stream] = [Membership(position)]
        self.say(Open("/", room.stream, room.alias, *position))
        room.admit(self.socket.itself, position)
        room.drive()
        return True

    async def leave(self, room: Room) -> None:
        room.dismiss(self.socket.itself)
        self.say(Close(room.stream))

    def come_back(self, room: Room, cursor: Position | None) -> None:
        assert cursor is not None
        room.admit(self.socket.itself, cursor)
        room.drive()

    def proved(self, room: Room, at: Position) -> None:
        self.say(Proved(room.stream, room.alias, *at))

    def reset(self, room: Room, reason: Reason, restart: Position) -> None:
        self.say(Reset(room.stream, room.alias, reason, *restart))

    def advance(self, room: Room, prev: Point, to: Position) -> None:
        self.say(Advance(room.stream, prev.seq, prev.tag, *to))

    def ended(self, room: Room, known: Point) -> None:
        self.ends.append(room)

    def belongs(self, stream: str) -> bool:
        return self.spans[stream][-1].left is None

    def floor(self, room: Room) -> Position:
        return self.spans[room.stream][-1].joined

    def undecided(self, entry: Entry) -> bool:
        return False

    def say(self, message: Control) -> None:
        said = self.socket.dialect.control(message)
        assert said is not None
        self.socket.send(said)


class Node:
    """A namespace's hub on a broker."""

    def __init__(self, broker: MemoryBroker, name: str = "/") -> None:
        loop = asyncio.get_running_loop()
        self.broker = broker
        self.counters = Counters()
        self.fanout = Fanout(Tick(loop), self.counters, Config())
        self.streams = Streams(broker, self.fanout, self.counters)
        self.dispatcher = Dispatcher(loop)
        self.hub = Hub(name, self.streams, self.dispatcher)

    async def enter(self, *members: Member, rooms: tuple[Key, ...] = ()) -> None:
        """Let ``members`` come, and join ``rooms``."""
        for member in members:
            member.fanout = self.fanout
            self.hub.add(member.itself)
            for room in rooms:
                await self.join(member, room)

    async def plain(self, name: str, *rooms: Key, user: str | None = None) -> Member:
        """Return a new member that recovers nothing."""
        member = Member(name, user)
        await self.enter(member, rooms=rooms)
        return member

    async def reading(self, name: str, *rooms: Key) -> Member:
        """Return a new member that recovers, its messages about joining forgotten."""
        member = Member(name, dialect=embedded("/"))
        member.reader = Tale(member)
        await self.enter(member, rooms=rooms)
        member.sink.messages.clear()
        return member

    async def join(self, member: Member, key: Key) -> bool:
        if isinstance(key, str):
            member.rooms.add(key)
        return await self.hub.join(member.itself, key)

    def leave(self, member: Member) -> None:
        """It is gone."""
        member.gone = True
        self.hub.remove(member.itself, member.rooms)

    def room(self, key: Key) -> Room:
        return self.hub.streams[stream_of(self.hub.name, key)]

    async def emit(self, text: object, *keys: Key, excluded: tuple[str, ...] = (), **options: Any) -> None:
        """Emit an event whose argument is ``text``, to rooms in this order."""
        post = Post(self.hub.name, "say", (text,), binary=False)
        await self.streams.emit([stream_of(self.hub.name, key) for key in keys], post, excluded=excluded, **options)
        self.fanout.settle()

    async def top(self, key: Key) -> Position:
        return await self.broker.top(stream_of(self.hub.name, key))


async def start(limits: Limits = DEFAULT_LIMITS) -> MemoryBroker:
    broker = MemoryBroker(limits)
    await broker.start()
    return broker


@asynccontextmanager
async def make_node(broker: MemoryBroker | None = None) -> AsyncIterator[Node]:
    node = Node(await start() if broker is None else broker)
    try:
        yield node
    finally:
        await node.dispatcher.close()


@contextmanager
def away(broker: MemoryBroker) -> Iterator[None]:
    broker.faults.go_away()
    try:
        yield
    finally:
        broker.faults.come_back()


class Gate(MemoryBroker):
    """A broker that answers to what it is told to hold only when it is let go."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(limits)
        self.held: dict[str, asyncio.Future[bool]] = {}
        self.subscriptions: list[str] = []

    def hold(self, method: str) -> None:
        self.held[method] = asyncio.get_running_loop().create_future()

    def let_go(self, method: str, *, fail: bool = False) -> None:
        self.held.pop(method).set_result(fail)

    async def _pass(self, method: str) -> None:
        held = self.held.get(method)
        if held is not None and await asyncio.shield(held):
            raise BrokerUnavailable("let go to fail")

    async def subscribe(self, stream: str, listener: Any, *, new: bool = False) -> None:
        await self._pass("subscribe")
        self.subscriptions.append(stream)
        await super().subscribe(stream, listener, new=new)

    async def unsubscribe(self, stream: str, listener: Any) -> None:
        if stream in self.subscriptions:
            self.subscriptions.remove(stream)
        await super().unsubscribe(stream, listener)

    async def read(self, stream: str, after: Position, **options: Any) -> Any:
        await self._pass("read")
        return await super().read(stream, after, **options)

    async def top(self, stream: str) -> Position:
        await self._pass("top")
        return await super().top(stream)


def tale(member: Member) -> Tale:
    """The reader of a member that recovers."""
    assert member.reader is not None
    return member.reader


def places(member: Member) -> list[tuple[Any, ...]]:
    """What was got as (argument, previous number, number, generation if it is named); what was got is forgotten."""
    found = []
    for message in member.sink.messages:
        for part in message.parts:
            _, text, trailer = msgspec.json.decode(str(part)[2:])
            _, _, seq, _, back, _, _, *gen = trailer["bellwire"]
            found.append((text, seq - back, seq, *gen))
    member.sink.messages.clear()
    return found


async def write(node: Node, count: int, key: Key = "r", first: int = 0, size: int = 0) -> None:
    """Emit ``count`` numbers, each with ``size`` points behind it."""
    for n in range(first, first + count):
        await node.emit(f"{n}{'.' * size}" if size else n, key)


def go_away(node: Node, member: Member, key: Key = "r") -> Position:
    """Let ``member`` be away from now on; return where it stands."""
    position = node.room(key).dismiss(member.itself)
    assert position is not None
    member.sink.messages.clear()
    return position


def come_back(node: Node, member: Member, position: Position, key: Key = "r", until: Position | None = None) -> None:
    """Let ``member`` have what follows on ``position``, up to where it was a member."""
    node.room(key).admit(member.itself, position, until)
    node.room(key).drive()


async def position_of(node: Node, seq: int, key: Key = "r") -> Position:
    """The position behind the entry with this number."""
    top = await node.top(key)
    answer = await node.broker.read(stream_of("/", key), Position(top.gen, 0, 0), messages=10_000)
    assert isinstance(answer, Page)
    (tag,) = [entry.tag for entry in answer.entries if entry.seq == seq]
    return Position(top.gen, seq, tag)
