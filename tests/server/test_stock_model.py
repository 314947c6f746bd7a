"""Stock clients at random: what they are told by ``pid`` and offset alone, against what the application did.

All calls are made one after the other, so what each client is entitled to is known exactly. A client that comes back
and is not recovered is somebody new: what it had not got by then it is not entitled to any more.
"""

import random
from functools import partial
from pathlib import Path

import pytest

from bellwire.delivery.log import Limits
from bellwire.server.socket import Socket
from bellwire.testing.clock import advance
from tests.guarantee.client import NAMESPACE
from tests.guarantee.world import BLINK, SAY, Make, Node, World, stream, world_on
from tests.long import runs
from tests.server.stock import Stock

ROOMS = "abcdefghijklm"  # more than an offset lists
USERS = (None, "u", "v")
STEPS = 200


class Client(Stock):
    """A client, and what it is entitled to."""

    def __init__(self, user: str | None, node: Node) -> None:
        super().__init__(user)
        self.node = node
        self.rooms: set[str] = set()
        self.entitled: list[str] = []
        self.told: list[str] = []
        """What happened to it, for whoever has to find out why it went wrong."""
        self.times_recovered = 0
        self.times_new = 0

    @property
    def socket(self) -> Socket:
        return self.node.namespace.hub(NAMESPACE).sockets[self.id]

    def is_meant(self, rooms: list[str], user: str | None) -> bool:
        """Whether it is in one of the rooms, or is this user's; a user that is None is nobody's."""
        return rooms == ["everyone"] or bool(self.rooms.intersection(rooms)) or (user is not None and self.user == user)

    def look(self) -> None:
        """It may have been cut off."""
        if self.connected and self.connection.reason is not None:
            self.connected = False

    def go_on(self) -> None:
        """Read what was sent."""
        self.look()
        if self.connected and self.connection.carrier.stalled:
            self.connection.carrier.resume()

    async def come_back(self, node: Node) -> None:
        self.node = node
        await self.connect(node)
        self.told.append(f"recovered {self.recovered}")
        if self.recovered:
            self.times_recovered += 1
        else:
            self.times_new += 1
            self.rooms.clear()
            self.entitled = [label for label in self.entitled if label in self.labels]

    def check(self) -> None:
        got = [label for label in self.labels if label.startswith("m")]
        history = "; ".join(self.told)
        assert len(set(got)) == len(got), f"{[label for label in got if got.count(label) > 1]} came twice: {history}"
        missing = [label for label in self.entitled if label not in got]
        assert not missing, f"{missing} never came: {history}"
        if not self.times_new:
            assert sorted(got) == sorted(self.entitled), history


class Model:
    """The clients, and what can happen."""

    def __init__(self, world: World, nodes: list[Node], choose: random.Random) -> None:
        self.world = world
        self.nodes = nodes
        self.choose = choose
        self.clients: list[Client] = []
        self.count = 0

    def note(self, what: str) -> None:
        for client in self.clients:
            client.told.append(what)

    async def emit(self, _: Client) -> None:
        choose, node = self.choose, self.choose.choice(self.nodes)
        self.count += 1
        label = f"m{self.count}"
        rooms = choose.sample(ROOMS, choose.choice((1, 1, 1, 2, 3)))
        target, user, other = node.namespace.to(*rooms), choose.choice((None, None, None, "u", "v")), None
        if user is not None:
            target = target.user(user)
        if choose.random() < 0.2:
            other = choose.choice(self.clients)
            target = target.except_(other.id)
        if choose.random() < 0.1:
            rooms, user, other, target = ["everyone"], None, None, node.namespace
        await target.emit(SAY, label)
        meant = [client for client in self.clients if client is not other and client.is_meant(rooms, user)]
        for client in meant:
            client.entitled.append(label)
        self.note(f"{label} to {rooms} {user} but {other and other.id}")

    async def blink(self, _: Client) -> None:
        await self.choose.choice(self.nodes).namespace.emit(BLINK, "blink")

    async def join(self, client: Client) -> None:
        if client.connected:
            room = self.choose.choice(ROOMS)
            await client.socket.join(room)
            client.rooms.add(room)
            client.told.append(f"joins {room}")

    async def leave(self, client: Client) -> None:
        if client.connected and client.rooms:
            room = self.choose.choice(sorted(client.rooms))
            await client.socket.leave(room)
            client.rooms.discard(room)
            client.told.append(f"leaves {room}")

    async def be_deaf(self, client: Client) -> None:
        client.deaf = client.connected
        client.told.append("deaf")

    async def be_slow(self, client: Client) -> None:
        if client.connected:
            client.connection.carrier.stalled = True
            await client.node.namespace.to(client.id).emit(SAY, "." * 90_000)
            client.told.append("slow")

    async def go_on(self, client: Client) -> None:
        client.go_on()

    async def cut(self, client: Client) -> None:
        if client.connected:
            client.cut()
            client.told.append("cut")

    async def come_back(self, client: Client) -> None:
        if not client.connected:
            await client.come_back(self.choose.choice(self.nodes))

    async def lose(self, _: Client) -> None:
        room = self.choose.choice(ROOMS)
        self.world.memory.faults.lose_live(stream(room))
        self.note(f"one of {room} is lost on the way")

    async def renew(self, _: Client) -> None:
        room = self.choose.choice(ROOMS)
        self.world.memory.faults.renew(stream(room))
        self.note(f"{room} has another generation")

    async def run(self) -> None:
        for user in (*USERS, "u", None):
            client = Client(user, self.choose.choice(self.nodes))
            await client.connect(client.node)
            self.clients.append(client)
        actions = [self.emit] * 22 + [self.join] * 8 + [self.leave] * 5 + [self.cut] * 4 + [self.come_back] * 5
        actions += [self.be_deaf] * 3 + [self.blink] * 2 + [self.be_slow, self.go_on, self.lose, self.renew]
        for _ in range(STEPS):
            for client in self.clients:
                client.look()
            await self.choose.choice(actions)(self.choose.choice(self.clients))
            if self.choose.random() < 0.6:
                await advance(self.choose.choice((0, 0.001, 0.01, 1.2)))
        await self.heal()

    async def heal(self) -> None:
        for client in self.clients:
            client.go_on()
        await advance(70)  # two rounds of the probe
        for client in self.clients:
            client.look()
            await self.cut(client)
            await advance(1)
            await self.come_back(client)
        await advance(5)


@pytest.mark.parametrize("seed", range(runs(20, STEPS)))
async def test_a_stock_client_gets_all_of_it_once_or_is_somebody_new(tmp_path: Path, seed: int) -> None:
    choose = random.Random(seed)
    make: Make = partial(world_on, "memory", tmp_path)
    async with make(Limits(messages=choose.choice((1_000, 6))), connection_state_recovery=True) as world:
        nodes = [await world.node(), await world.node()]
        if seed % 2:
            for node in nodes:
                node.broker.latency = lambda: choose.choice((0, 0, 0.001, 0.004))
        model = Model(world, nodes, choose)
        await model.run()
        assert any(client.times_recovered for client in model.clients)
        for client in model.clients:
            client.check()
            client.cut()
        await advance(10)
        assert not any(node.namespace.hub(NAMESPACE).streams for node in nodes)
