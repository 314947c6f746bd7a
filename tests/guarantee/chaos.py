"""Clients, rooms and servers at random, everything that can break between them, and what must be true in the end.

What each client is entitled to is worked out from the calls of the application alone. A call goes on for a while, so
there are three answers: a client that was in a room from before an emit began until after it had returned must get
the event; one that was in it at no time meanwhile must not; of any other, both are right.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from bellwire.core.errors import BrokerUnavailable, Disconnected, OutcomeUnknown
from bellwire.delivery.naming import EVERYONE, Key, stream_of
from bellwire.testing.clock import advance
from tests.guarantee.client import NAMESPACE, Client, Handed, Opened, Told
from tests.guarantee.world import SAY, Node, World

ROOMS = ("a", "b", "c", "d")
ALL = "*"
"""Stands for everyone in the namespace."""

NEVER = 10**9

_IN_ORDER = ("truncated", "too_far", "forbidden")
"""Reasons for a reset after which a log still has what the client has had of it."""

_AWAY = (BrokerUnavailable, OutcomeUnknown)


class Stay(NamedTuple):
    """A client's time in a room, by the count of everything that happened."""

    begun: int
    joined: int
    """From here on it is there for certain; `NEVER` if that is not known."""
    leaving: int = NEVER
    """From here on it may have left."""
    left: int = NEVER

    def may_meet(self, first: int, last: int) -> bool:
        """Whether it may have been there at any time between the two."""
        return self.begun <= last and self.left >= first

    def covers(self, first: int, last: int) -> bool:
        """Whether it was there all the time between the two."""
        return self.joined <= first and self.leaving >= last


class Said:
    """An event that the application emitted."""

    def __init__(self, label: str, rooms: tuple[str, ...], excluded: tuple[str, ...], begun: int) -> None:
        self.label = label
        self.rooms = rooms
        self.excluded = excluded
        self.begun = begun
        self.ended = NEVER
        self.accepted: bool | None = None
        """Whether the broker has it; None if nobody knows."""

    def __repr__(self) -> str:
        return f"{self.label} to {'+'.join(self.rooms)} at {self.begun}-{self.ended}: {self.accepted}"


class Chaos:
    """One random history; ``choose`` decides on everything."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.choose = random.Random(seed)
        self.said: dict[str, Said] = {}
        self.stays: dict[tuple[Client, str], list[Stay]] = {}
        self.relayed: list[tuple[Client, int, Said]] = []
        self.taken_back: set[str] = set()
        self.failed_over: set[str] = set()
        """Rooms whose log has lost its end at least once."""
        self.unnoticed: set[str] = set()
        """Those of them whose generation went on all the same."""
        self.log: list[str] = []
        """What was done, for whoever has to find out why it went wrong."""
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[tuple[Client, str]] = set()
        self._away: set[Client] = set()
        self._labels = 0

    # --- the notes

    def now(self) -> int:
        """Count one more thing that happened."""
        self._count += 1
        return self._count

    def note(self, what: str) -> None:
        """Keep it for whoever asks."""
        self.log.append(f"{self._count} {self.world.loop.time():.3f} {what}")

    def _say(self, rooms: tuple[str, ...], excluded: tuple[str, ...] = ()) -> Said:
        self._labels += 1
        said = Said(f"m{self._labels}", rooms, excluded, self.now())
        self.said[said.label] = said
        return said

    def _spawn(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            await work

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def nodes(self) -> list[Node]:
        """The servers that are alive."""
        return [node for node in self.world.nodes if not node.dead]

    # --- what the application does

    async def emit(self) -> None:
        """Emit to one room, to several or to everyone, with or without somebody left out."""
        node = self.choose.choice(self.nodes)
        rooms = self._some_rooms()
        excluded = self._some_to_leave_out()
        said = self._say(rooms, excluded)
        target = node.namespace if rooms == (ALL,) else node.namespace.to(*rooms)
        self.note(f"emit {said.label} to {rooms} but {excluded} on {node.name}")
        try:
            await target.except_(*excluded).emit(SAY, said.label)
        except BrokerUnavailable:
            said.accepted = False
        except OutcomeUnknown:
            pass
        else:
            said.accepted = True
        said.ended = self.now()
        self.note(f"emitted {said}")

    def _some_rooms(self) -> tuple[str, ...]:
        if self.choose.random() < 0.1:
            return (ALL,)
        return tuple(self.choose.sample(ROOMS, self.choose.choice((1, 1, 1, 2, 3))))

    def _some_to_leave_out(self) -> tuple[str, ...]:
        if self.choose.random() < 0.7:
            return ()
        if self.choose.random() < 0.5:
            return (self.choose.choice(ROOMS),)
        return (self.choose.choice(self.world.clients).id,)

    async def relay(self) -> None:
        """Let a client emit, through a handler that relays."""
        client = self.choose.choice(self.world.clients)
        rooms = tuple(self.choose.sample(ROOMS, self.choose.choice((1, 2))))
        said = self._say(rooms)
        number = client.emit("relay", said.label, "+".join(rooms))
        self.note(f"{client} relays {said.label} to {rooms} as {number}")
        self.relayed.append((client, number, said))

    async def join(self) -> None:
        """Make a client a member of a room."""
        await self._move(lambda node, client, room: node.socket(client).join(room), joins=True)

    async def leave(self) -> None:
        """Take a client out of a room."""
        await self._move(lambda node, client, room: node.socket(client).leave(room), joins=False)

    async def _move(self, call: Callable[[Node, Client, str], Awaitable[None]], *, joins: bool) -> None:
        client, room = self.choose.choice(self.world.clients), self.choose.choice(ROOMS)
        if not client.connected or (client, room) in self._busy or client.connection is None:
            return
        node = client.connection.node
        socket = node.socket(client)
        stays = self.stays.setdefault((client, room), [])
        within = bool(stays) and stays[-1].left == NEVER
        if within is joins and not (within and stays[-1].joined == NEVER):
            return
        self._busy.add((client, room))
        begun = self.now()
        verb = "joins" if joins else "leaves"
        self.note(f"{client} {verb} {room} on {node.name}")
        stay = Stay(begun, NEVER) if joins and not within else stays.pop()
        if not joins:
            stay = stay._replace(leaving=min(stay.leaving, begun))
        stays.append(stay)
        try:
            await call(node, client, room)
            certain = not socket.gone
        except (*_AWAY, Disconnected):
            certain = False
        finally:
            self._busy.discard((client, room))
        ended = self.now()
        self.note(f"{client} {verb} {room}: {certain}")
        if certain:
            stays[-1] = stay._replace(joined=ended) if joins else stay._replace(left=ended)

    # --- what breaks

    async def cut(self) -> None:
        """Cut a client off, in one way or another; it comes back after a while."""
        client = self.choose.choice(self.world.clients)
        if client in self._away or not client.connected:
            return
        way = self.choose.choice(("cut", "half-open", "deaf", "crash"))
        self.note(f"{client} {way}")
        if way == "half-open":
            client.leave_half_open()
        elif way == "crash":
            client.crash()
        else:
            if way == "deaf" and client.connection is not None:
                client.connection.deaf = True
                await asyncio.sleep(self.choose.uniform(0, 0.5))
            client.cut()
        await asyncio.sleep(self.choose.uniform(0, 2))

    async def bring_back(self, client: Client) -> None:
        """Connect a client, and again whenever it is cut off."""
        while True:
            if client.connection is None:
                await asyncio.sleep(self.choose.uniform(0, 1))
                await self._connect(client)
            await asyncio.sleep(0.05)

    async def _connect(self, client: Client) -> None:
        if not self.nodes or client.connection is not None:
            return
        node = self.choose.choice(self.nodes)
        known = client.stored.session is not None
        begun = self.now()
        try:
            await client.connect(node, within=3.0)
        except (Disconnected, TimeoutError) as error:
            self.note(f"{client} cannot connect to {node.name}: {error!r}")
            client.cut()
            return
        self.note(f"{client} connected to {node.name}, resumed {client.resumed}")
        assert client.resumed or not known, f"the session of {client} was lost"
        if not known:
            self.stays[client, ALL] = [Stay(begun, self.now())]

    async def crash(self) -> None:
        """Kill a server, and start another one after a moment."""
        if len(self.nodes) < 2:
            return
        node = self.choose.choice(self.nodes)
        self.note(f"{node.name} dies")
        node.crash()
        await asyncio.sleep(self.choose.uniform(0, 1))
        await self.start_node()

    async def start_node(self) -> None:
        """Start a server, once the broker is there."""
        node = Node(self.world, f"node{len(self.world.nodes)}")
        node.broker.latency = lambda: self.choose.choice((0, 0, 0.001, 0.005))
        await self.world.patiently(node.start, within=60)
        self.world.nodes.append(node)
        self.note(f"{node.name} starts")

    async def fault(self) -> None:
        """Let the broker do something that brokers do."""
        faults, room = self.world.memory.faults, self.choose.choice((*ROOMS, ALL))
        stream = _stream(room)
        kind = self.choose.choice(("away", "live", "answer", "put", "lag", "order", "generation", "tail"))
        self.note(f"the broker's fault: {kind} of {room}")
        match kind:
            case "away":
                faults.go_away()
                await asyncio.sleep(self.choose.uniform(0, 2))
                faults.come_back()
            case "live":
                faults.lose_live(stream, self.choose.randint(1, 3))
            case "answer":
                faults.lose_answer(done=self.choose.random() < 0.5)
            case "put":
                faults.lose_put_answer(done=self.choose.random() < 0.5)
            case "lag":
                faults.lag(stream, self.choose.randint(0, 3))
            case "order":
                faults.hold_live(stream)
                await asyncio.sleep(self.choose.uniform(0, 0.5))
                faults.let_go(stream)
                held, faults.held = faults.held, []
                self.choose.shuffle(held)
                for listener, name, gen, entry in held:
                    listener.entry(name, gen, entry)
            case "generation":
                faults.renew(stream)
            case "tail" if self.choose.random() < 0.3:
                same = self.choose.random() < 0.5
                self.failed_over.add(room)
                if same:
                    self.unnoticed.add(room)
                for entry in faults.lose_tail(stream, self.choose.randint(1, 3), same_generation=same):
                    label = self.world.label_of(entry)
                    self.taken_back.add(label)
                    self.note(f"{label} is taken back")

    # --- the course of it

    async def run(self, clients: int, steps: int) -> None:
        """Do so many things at random, then let everything heal, and judge."""
        for _ in range(2):
            await self.start_node()
        for n in range(clients):
            client = Client(self.world, f"client{n}")
            self.world.clients.append(client)
            self._spawn(self.bring_back(client))
        keepers = set(self._tasks)
        await self.world.until(lambda: all(client.connected for client in self.world.clients), within=60)
        actions = [self.emit] * 12 + [self.relay] * 6 + [self.join] * 8 + [self.leave] * 3
        actions += [self.cut] * 4 + [self.crash] + [self.fault] * 4
        for _ in range(steps):
            self._spawn(self.choose.choice(actions)())
            await asyncio.sleep(self.choose.choice((0, 0, 0, 0.001, 0.01, 0.3)))
        others = self._tasks - keepers
        if others:
            await asyncio.wait(others, timeout=30)
        for task in self._tasks - keepers:  # what a dead server was asked for
            task.cancel()
        await self._heal()
        for task in keepers:
            task.cancel()
        self.judge()

    async def _heal(self) -> None:
        faults = self.world.memory.faults
        faults.come_back()
        for room in (*ROOMS, ALL):
            faults.let_go(_stream(room))
            faults.lag(_stream(room), 0)
        faults._answers.clear()
        faults._puts.clear()
        faults._losing.clear()
        await advance(70)  # two rounds of the probe, and every lease that was left
        await self.world.until(lambda: all(client.connected for client in self.world.clients), within=60)
        self.note("the last words")
        lasts = []
        for room in (*ROOMS, ALL):
            said = self._say((room,))
            node = self.nodes[0]
            target = node.namespace if room == ALL else node.namespace.to(room)
            await target.emit(SAY, said.label)
            said.accepted, said.ended = True, self.now()
            lasts.append(said)
        await advance(35)
        for client, number, said in self.relayed:
            outcome = await self.world.outcome(client, number)
            said.accepted = True if outcome.startswith("[") else None
            said.ended = self.now()
        await advance(5)

    def told(self) -> str:
        """Return what happened, and what each client was handed."""
        lines = [*self.log]
        for client in self.world.clients:
            lines += [f"{client} {client.id}", *(f"  {event}" for event in client.history)]
        return "\n".join(lines)

    # --- what must be true

    def judge(self) -> None:
        """Check all that was promised."""
        for client in self.world.clients:
            self._judge_order(client)
            self._judge_contents(client)
        self._judge_relays()
        for node in self.nodes:
            counters = node.server.counters.snapshot()
            assert not {name for name in counters if name.startswith(("stream_faults", "handler_errors"))}, counters

    def _judge_order(self, client: Client) -> None:
        """Within a stream numbers rise, and no event comes twice, unless a reset came between."""
        last: dict[str, int] = {}
        for event in client.history:
            if isinstance(event, Opened):
                last[event.stream] = event.at.seq
            elif isinstance(event, Told):
                last[event.stream] = -1 if event.restart is None else event.restart.seq
            else:
                assert event.seq > last.get(event.stream, -1), f"{client}: {event} came out of order"
                last[event.stream] = event.seq
        twice = [label for label, n in Counter(_labels(client)).items() if n > 1]
        assert not [label for label in twice if not self._may_repeat(client, label)], f"{client} had {twice} twice"

    def _may_repeat(self, client: Client, label: str) -> bool:
        """Whether a log of it lost its end, and the client had forgotten what it knew of that log.

        It forgets everything in a crash, and what it knew of a room when it leaves that. Then it cannot tell what it
        had when a reset leads it back behind that, or when an event that was taken back is appended anew.
        """
        rooms = self.said[label].rooms
        has_left = any(stay.leaving < NEVER for room in rooms for stay in self._stays(client, room))
        return not self.failed_over.isdisjoint(rooms) and (client.crashes > 0 or has_left)

    def _judge_contents(self, client: Client) -> None:
        had = set(_labels(client))
        for said in self.said.values():
            if said.label in had:
                assert self._may_have(client, said), f"{client} got {said}, which is not for it"
            elif self._must_have(client, said):
                assert self._is_excused(client, said), f"{client} never got {said}, and was not told"

    def _must_have(self, client: Client, said: Said) -> bool:
        if not said.accepted or said.label in self.taken_back:
            return False
        if any(self._may_be_in(client, room, said.begun, NEVER) for room in said.excluded):
            return False
        return any(stay.covers(said.begun, said.ended) for room in said.rooms for stay in self._stays(client, room))

    def _may_have(self, client: Client, said: Said) -> bool:
        if said.accepted is False or client.id in said.excluded:
            return False
        if any(stay.covers(said.begun, NEVER) for room in said.excluded for stay in self._stays(client, room)):
            return False
        if any(room in self.failed_over and self._stays(client, room) for room in said.rooms):
            return True  # where it was is a place in another history
        return any(self._may_be_in(client, room, said.begun, said.ended) for room in said.rooms)

    def _may_be_in(self, client: Client, room: str, first: int, last: int) -> bool:
        return room == client.id or any(stay.may_meet(first, last) for stay in self._stays(client, room))

    def _stays(self, client: Client, room: str) -> list[Stay]:
        return self.stays.get((client, room), [])

    def _is_excused(self, client: Client, said: Said) -> bool:
        """Whether a reset told it that this event may be missing, before anything newer of the stream.

        Which copy of an event to several rooms is taken is judged by generations and numbers. A log that lost its end
        under the same generation gives numbers out again: then a copy may seem to lie in a stay that is over.
        """
        if len(said.rooms) > 1 and any(room in self.unnoticed and self._stays(client, room) for room in said.rooms):
            return True
        return any(self._is_reset_over(client, _stream(room), said.label) for room in said.rooms)

    def _is_reset_over(self, client: Client, stream: str, label: str) -> bool:
        places = [entry.seq for entry in self.world.memory.appended(stream) if self.world.label_of(entry) == label]
        newest = -1
        for event in client.history:
            if event.stream != stream:
                continue
            if isinstance(event, Handed):
                newest = event.seq
            elif isinstance(event, Told):
                upto = NEVER if event.restart is None else event.restart.seq
                if event.reason not in _IN_ORDER:
                    newest = -1  # what it has had was in another history: of this one it has nothing
                if any(newest < place <= upto for place in places):
                    return True
                newest = upto
        return False

    def _judge_relays(self) -> None:
        for client, number, said in self.relayed:
            assert client.outcome(number) is not None, f"{client} never heard of {said}"
            for room in said.rooms:
                times = [
                    entry
                    for entry in self.world.memory.appended(_stream(room))
                    if said.label == self.world.label_of(entry)
                ]
                assert len(times) <= 1 or said.label in self.taken_back, f"{said} was appended {len(times)} times"


def _stream(room: str) -> str:
    key: Key = EVERYONE if room == ALL else room
    return stream_of(NAMESPACE, key)


def _labels(client: Client) -> list[str]:
    return [event.label for event in client.history if isinstance(event, Handed)]
