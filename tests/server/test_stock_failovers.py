"""Stock clients at random over a broker that takes back what it had, and handlers that emit whenever somebody leaves.

Each is in both rooms from the beginning. From the first event of a session on it is handed what the log has, in its
order, or it is cut off and is somebody new.
"""

import random
from pathlib import Path

import pytest
from typing_extensions import override

from bellwire import Socket
from bellwire.delivery.log import Limits
from bellwire.testing.clock import advance
from tests.guarantee.world import SAY, Node, World, stream, world_on
from tests.long import runs
from tests.server.stock import Stock

ROOMS = "ab"
STEPS = 60


class Client(Stock):
    """A client that knows what belongs to its present session."""

    def __init__(self, user: str) -> None:
        super().__init__(user)
        self.got: list[str] = []

    @property
    def is_there(self) -> bool:
        return self.connection.reason is None

    @override
    def welcomed(self, socket_id: str, pid: str) -> None:
        super().welcomed(socket_id, pid)
        if not self.recovered:
            self.got = []

    @override
    def take(self, event: list[str]) -> None:
        super().take(event)
        self.got.append(event[1])

    def go_on(self) -> None:
        if self.is_there and self.connection.carrier.stalled:
            self.connection.carrier.resume()


class Model:
    """What can happen."""

    def __init__(self, world: World, choose: random.Random) -> None:
        self.world = world
        self.choose = choose
        self.nodes: list[Node] = []
        self.clients = [Client(f"u{number}") for number in range(choose.randint(2, 4))]
        self.lost = dict[str, set[tuple[int, int]]]((room, set()) for room in ROOMS)
        self.withheld: dict[str, Client] = {}
        self.said = 0

    async def begin(self) -> None:
        for _ in range(self.choose.choice((1, 1, 2))):
            self.nodes.append(await self.world.node())
        for node in self.nodes:
            node.namespace.on_connect(self.came)
            node.namespace.on_disconnect(self.left)
        await self.come_back()

    async def came(self, socket: Socket) -> None:
        if not socket.recovered:
            for room in ROOMS:
                await socket.join(room)
        await self.say()

    async def left(self, socket: Socket, reason: str) -> None:
        await self.say()

    async def say(self) -> None:
        await self.say_in(self.choose.choice(ROOMS))

    async def say_in(self, room: str, but: Client | None = None) -> None:
        self.said += 1
        label = f"{room}{self.said}"
        target = self.choose.choice(self.nodes).namespace.to(room)
        if but is not None:
            self.withheld[label] = but
            target = target.except_(but.id)
        await target.emit(SAY, label)

    async def say_to_others(self) -> None:
        client = self.choose.choice(self.clients)
        if client.is_there:
            await self.say_in(self.choose.choice(ROOMS), client)

    async def say_much(self) -> None:
        for _ in range(30):
            await self.say()

    async def fail_over(self) -> None:
        room = self.choose.choice(ROOMS)
        gone = self.world.memory.faults.lose_tail(
            stream(room), self.choose.randint(0, 3), same_generation=self.choose.random() < 0.5
        )
        self.lost[room].update(entry.point for entry in gone)

    async def be_lost(self) -> None:
        self.world.memory.faults.lose_live(stream(self.choose.choice(ROOMS)), self.choose.randint(1, 3))

    async def cut(self) -> None:
        client = self.choose.choice(self.clients)
        if client.is_there:
            client.cut()

    async def be_slow(self) -> None:
        self.choose.choice(self.clients).connection.carrier.stalled = True

    async def go_on(self) -> None:
        for client in self.clients:
            client.go_on()

    async def come_back(self) -> None:
        for client in self.clients:
            if client._connection is None or not client.is_there:
                await client.connect(self.choose.choice(self.nodes))

    async def run(self) -> None:
        await self.begin()
        actions = [self.say] * 6 + [self.say_to_others] * 2 + [self.say_much, self.be_lost, self.cut, self.be_slow]
        actions += [self.fail_over] * 3 + [self.go_on, self.come_back] * 2
        for _ in range(STEPS):
            await self.choose.choice(actions)()
            if self.choose.random() < 0.4:
                await advance(self.choose.choice((0.001, 0.01, 1, 40)))
        for _ in range(4):
            await self.go_on()
            await advance(40)  # beyond the probe
            await self.come_back()
        for room in ROOMS:
            await self.say_in(room)
        await advance(40)

    def log(self, room: str) -> list[str]:
        """All that was ever appended, and is not lost."""
        entries = self.world.memory.appended(stream(room))
        return [self.world.label_of(entry) for entry in entries if entry.point not in self.lost[room] and entry.body]

    def check(self, client: Client) -> None:
        for room in ROOMS:
            got = [label for label in client.got if label[0] == room]
            log = self.log(room)
            assert got[0] in log, f"{got[0]} was taken back"
            assert got == [label for label in log[log.index(got[0]) :] if self.withheld.get(label) is not client]


@pytest.mark.parametrize("seed", range(runs(60, STEPS)))
async def test_a_session_has_what_the_log_has_in_its_order(tmp_path: Path, seed: int) -> None:
    choose = random.Random(seed)
    limits = Limits(messages=choose.choice((5, 1_000)), age=choose.choice((30.0, 600.0)))
    settings = {"history_messages": limits.messages, "send_buffer_bytes": 65_536, "volatile_buffer_bytes": 4_096}
    async with world_on("memory", tmp_path, limits, connection_state_recovery=True, **settings) as world:
        model = Model(world, choose)
        await model.run()
        there = [client for client in model.clients if client.is_there]
        assert there
        for client in there:
            model.check(client)
        for client in there:
            client.cut()
