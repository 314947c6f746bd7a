"""Nodes and clients around one memory broker, without a loop: every step is taken by the test.

A live entry goes from the broker to the node at once, or waits in ``broker.faults.held``; what a node sends waits on
the client's link until the client takes it; a client's handler returns at once, or when the test says so.
"""

from collections import deque
from collections.abc import Collection, Coroutine, Iterable
from typing import Any, TypeVar

from bellwire.brokers.memory import MemoryBroker
from bellwire.delivery.answer import Page, Reason
from bellwire.delivery.entry import Copy, Draft, Entry, marker
from bellwire.delivery.feed import Advance, Cast, Feed, Output, Own, Told
from bellwire.delivery.log import DEFAULT_LIMITS, Appended, Limits, dense
from bellwire.delivery.membership import Membership, taken_elsewhere
from bellwire.delivery.position import Point, Position
from bellwire.delivery.receiver import Action, AskFor, DeadLetter, Deliver, Receiver, Reset
from bellwire.delivery.resume import Ended, Hand, Live, Proved, Read, Wait
from bellwire.delivery.resume import Reset as ResetStep
from bellwire.delivery.ring import Ring

T = TypeVar("T")
Sent = tuple[Any, ...]


def done(call: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        call.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError(f"{call} waits")


class World:
    """A broker with a clock of its own, and tags that are never the same."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS, *, sparse: bool = False, tagged: bool = True) -> None:
        self.time = 0.0
        self.tagged = tagged
        self.broker = MemoryBroker(limits, step=_sparse if sparse else dense, clock=lambda: self.time)
        self.faults = self.broker.faults
        self._tags = 0
        done(self.broker.start())

    def tag(self) -> int:
        self._tags += 1
        return self._tags if self.tagged else 0

    def append(
        self, stream: str, mid: str, excluded: Iterable[str] = (), copies: Iterable[Copy] = (), body: bytes = b""
    ) -> Appended:
        draft = Draft(mid, self.tag(), body or mid.encode(), tuple(excluded), tuple(copies))
        return done(self.broker.append(stream, draft))

    def publish(self, stream: str, *mids: str) -> list[Point]:
        return [self.append(stream, mid).point for mid in mids]

    def top(self, stream: str) -> Position:
        return done(self.broker.top(stream))

    def position(self, stream: str, point: Point) -> Position:
        return Position(self.top(stream).gen, *point)

    def entries(self, stream: str, after: Position) -> list[Entry]:
        page = done(self.broker.read(stream, after, messages=10**9, size=10**12, confirmed=True))
        assert isinstance(page, Page)
        return page.entries


def _sparse(last: int) -> int:
    return last + 1 + last % 3


class Client:
    """One client; ``handed`` is what its handlers saw, per stream, in order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.receiver = Receiver()
        self.link: deque[Sent] = deque()
        self.node: Node | None = None
        self.memberships: dict[str, list[Membership]] = {}
        self.handed: dict[str, list[Entry | Reset]] = {}
        self.dead: list[Entry] = []
        self.outstanding: deque[Deliver | Reset] = deque()
        self.at_once = True
        self.asked = 0

    def __repr__(self) -> str:
        return self.name

    def join(self, node: "Node", stream: str) -> Position:
        """Become a member, as a server does it when a client joins."""
        self.node = node
        feed = node.feed(stream)
        if not node.world.top(stream).seq:
            done(node.world.broker.append(stream, marker(node.world.tag())))
        node.drive()
        at = feed.join(self)
        self.memberships[stream] = [Membership(at)]
        self.link.append(("open", stream, at))
        return at

    def cut(self) -> None:
        """Lose the connection, and what is on its way."""
        self.link.clear()
        self.receiver.disconnected()
        if self.node is not None:
            self.node.forget(self)
            self.node = None

    def connect(self, node: "Node", cursors: dict[str, Position] | None = None) -> None:
        """Resume all streams on a node."""
        self.cut()
        self.node = node
        for stream, cursor in (self.receiver.received() if cursors is None else cursors).items():
            node.feed(stream).resume(self, cursor)

    def reload(self) -> None:
        """Lose the receiver, as a page does that is loaded again with the cursors it has stored."""
        cursors = self.receiver.cursors()
        self.cut()
        self.receiver = Receiver()
        self.outstanding.clear()
        for stream, cursor in cursors.items():
            self.receiver.open(stream, cursor)

    def take(self, count: int = 10**9) -> None:
        """Receive up to ``count`` of what was sent."""
        while self.link and count:
            count -= 1
            self._act(self._received(*self.link.popleft()))

    def _received(self, kind: str, stream: str, *rest: Any) -> tuple[Action, ...]:
        receiver = self.receiver
        match kind:
            case "open":
                receiver.open(stream, *rest)
                return ()
            case "proved":
                return receiver.proved(stream, *rest)
            case "entry":
                return receiver.receive(stream, *rest)
            case "advance":
                return receiver.advance(stream, *rest)
            case "reset":
                return receiver.reset(stream, *rest)
        raise AssertionError(kind)

    def _act(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case AskFor(stream, after):
                    self.asked += 1
                    if self.node is not None:
                        self.node.pull(self, stream, after)
                case DeadLetter(_, entry):
                    self.dead.append(entry)
                case Deliver() | Reset():
                    self.outstanding.append(action)
                    if self.at_once:
                        self.handle()

    def handle(self) -> None:
        """Let the handler of the oldest outstanding message return."""
        action = self.outstanding.popleft()
        self._see(action.stream, action.entry if isinstance(action, Deliver) else action)
        self._act(self.receiver.handed(action.stream))

    def _see(self, stream: str, seen: Entry | Reset) -> None:
        self.handed.setdefault(stream, []).append(seen)
        self.check(stream, seen)

    def fail(self) -> None:
        """Let the handler of the oldest outstanding message raise; one of a reset has seen it all the same."""
        action = self.outstanding.popleft()
        if isinstance(action, Reset):
            self._see(action.stream, action)
        self._act(self.receiver.failed(action.stream))

    def check(self, stream: str, seen: Entry | Reset) -> None:
        """For a test to look at each thing that is handed over."""

    def mids(self, stream: str) -> list[str]:
        """What was handed over: message ids, and the reasons of resets in brackets."""
        return [seen.mid if isinstance(seen, Entry) else f"[{seen.reason}]" for seen in self.handed.get(stream, ())]


class Node:
    """A node, as it drives its feeds."""

    def __init__(self, world: World, page: int = 500, ring: int = 256) -> None:
        self.world = world
        self.feeds: dict[str, Feed[Client]] = {}
        self.reads = 0
        self.casts = 0
        self.lazy = False
        self._asked: dict[tuple[str, Client], Position] = {}
        self._page = page
        self._ring = ring

    def feed(self, stream: str) -> Feed[Client]:
        """The feed of a stream, followed from the first call on."""
        feed = self.feeds.get(stream)
        if feed is None:
            feed = self.feeds[stream] = Feed(lambda entry: self._skipped(stream, entry), _nothing, Ring(self._ring))
            done(self.world.broker.subscribe(stream, self))
            self._send(stream, feed.opened(self.world.top(stream)))
        return feed

    def _skipped(self, stream: str, entry: Entry) -> Collection[Client]:
        feed = self.feeds[stream]
        everyone = [*feed.audience.members, *feed.resuming]
        return [c for c in everyone if c.name in entry.excluded or taken_elsewhere(entry, c.memberships)]

    def entry(self, stream: str, gen: str, entry: Entry) -> None:
        feed = self.feeds.get(stream)
        if feed is not None:
            self._send(stream, feed.live(gen, entry))
            if not self.lazy:
                self.drive()

    def volatile(self, stream: str, body: bytes) -> None:
        raise AssertionError("nothing volatile is published here")

    def forget(self, client: Client) -> None:
        for feed in self.feeds.values():
            if client in feed.audience or client in feed.resuming:
                feed.leave(client)

    def pull(self, client: Client, stream: str, after: Position) -> None:
        """``client`` asked for what follows on ``after``."""
        feed = self.feed(stream)
        if client in feed.audience or client in feed.resuming:
            feed.leave(client)
        feed.resume(client, after)
        if not self.lazy:
            self.drive()

    def crash(self) -> None:
        """End without a word."""
        for stream in self.feeds:
            done(self.world.broker.unsubscribe(stream, self))
        for feed in self.feeds.values():
            for client in [*feed.audience.members, *feed.resuming]:
                client.node = None
                client.cut()
        self.feeds.clear()

    def probe(self, stream: str) -> None:
        self._send(stream, self.feed(stream).probe(self.world.top(stream)))
        if not self.lazy:
            self.drive()

    def repair(self, stream: str) -> bool:
        """Read once for the ring; False if it asks nothing."""
        feed = self.feeds[stream]
        question = feed.question
        if question is None:
            return False
        self.reads += 1
        self._send(stream, feed.answered(self._read(stream, question, self._page, confirmed=True)))
        return True

    def _read(self, stream: str, after: Position, messages: int, *, confirmed: bool) -> Any:
        return done(self.world.broker.read(stream, after, messages=messages, confirmed=confirmed))

    def step(self, stream: str, client: Client) -> bool:
        """Take one step of a client that resumes; False if it waits."""
        feed = self.feeds[stream]
        match feed.next(client):
            case Read(after, messages, _, confirmed):
                self.reads += 1
                self._asked[stream, client] = after
                feed.read(client, self._read(stream, after, min(messages, self._page), confirmed=confirmed))
            case Proved(at):
                client.link.append(("proved", stream, at))
            case ResetStep(reason, restart):
                after = self._asked[stream, client]
                assert not isinstance(self._read(stream, after, 1, confirmed=True), Page), "reset without a cause"
                client.link.append(("reset", stream, reason, restart))
            case Hand(gen, prev, entries):
                for entry in entries:
                    client.link.append(("entry", stream, gen, prev, entry))
                    prev = entry.point
            case Wait():
                return False
            case Live() | Ended():
                pass
        return True

    def drive(self) -> None:
        """Do all there is to be done."""
        moved, turns = True, 0
        while moved:
            moved, turns = False, turns + 1
            assert turns < 1_000, "the node reads in a circle"
            for stream, feed in list(self.feeds.items()):
                moved |= self.repair(stream)
                for client in list(feed.resuming):
                    moved |= self.step(stream, client)

    def _send(self, stream: str, outputs: Iterable[Output[Client]]) -> None:
        for output in outputs:
            match output:
                case Cast(gen, entry, members):
                    self.casts += 1
                    for client in members:
                        client.link.append(("entry", stream, gen, entry.prev, entry))
                case Own(gen, entry, client, prev):
                    client.link.append(("entry", stream, gen, prev, entry))
                case Told(client, reason, restart):
                    assert isinstance(reason, Reason)
                    client.link.append(("reset", stream, reason, restart))
                case Advance(client, prev, to):
                    client.link.append(("advance", stream, prev, to))


def _nothing(_: object) -> None:
    pass
