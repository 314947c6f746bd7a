"""Three nodes as one server: whoever emits, moves or excludes on any of them, each socket has what is for it, once."""

from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from bellwire import Config, Event, Socket, Target
from bellwire.testing import TestClient
from bellwire.testing.clock import advance
from tests.long import runs
from tests.server.servers import House, heard, houses

KEPT, SHAKY = Event("kept", int), Event("shaky", int, volatile=True)

NODE = st.integers(0, 2)
GUESTS = st.lists(st.tuples(NODE, st.sampled_from(["ann", None]), st.booleans()), min_size=2, max_size=5)
"""Where each client is, whose it is, and whether it recovers."""
CLIENT = st.integers(0, 4)
ROOM = st.sampled_from(["r", "s"])
WHOM = st.lists(st.one_of(ROOM, CLIENT, st.just(("user", "ann"))), max_size=3)
STEP = st.one_of(
    st.tuples(st.sampled_from(["join", "leave"]), NODE, CLIENT, ROOM),
    st.tuples(st.just("lag"), CLIENT),
    st.tuples(st.sampled_from(["emit", "emit", "emit volatile", "emit with mid"]), NODE, WHOM, WHOM),
)


class Guest(NamedTuple):
    """A client, and what it is to have heard."""

    client: TestClient
    socket: Socket
    house: House
    user: str | None
    expected: list[int]


class World:
    def __init__(self, found: list[House]) -> None:
        self.houses = found
        self.guests: list[Guest] = []
        self.said = 0

    async def come(self, node: int, user: str | None, recovers: bool) -> None:
        house = self.houses[node]
        client = await house.come(user=user, recovers=recovers)
        self.guests.append(Guest(client, house.socket(client), house, user, []))

    def guest(self, number: int) -> Guest:
        return self.guests[number % len(self.guests)]

    async def step(self, what: str, *args: Any) -> None:
        if what in ("join", "leave"):
            node, number, room = args
            target = self.houses[node].root.to(self.guest(number).client.id)
            await (target.join(room) if what == "join" else target.leave(room))
        elif what == "lag":
            reader = self.guest(args[0]).socket.reader
            if reader is not None:
                reader.lag()
                await advance()
                reader.go_on()
        else:
            await self.emit(what, *args)

    async def emit(self, what: str, node: int, whom: list[Any], excluded: list[Any]) -> None:
        self.said += 1
        target: Target = self.houses[node].root
        for key in whom:
            target = target.user(key[1]) if isinstance(key, tuple) else target.to(self.name(key))
        names = [self.name(key) for key in excluded if not isinstance(key, tuple)]
        target = target.except_(*names)
        for guest in self.guests:
            if (not whom or any(self.means(key, guest) for key in whom)) and not any(
                self.means(key, guest) for key in names
            ):
                guest.expected.append(self.said)
        if what == "emit volatile":
            await target.emit(SHAKY, self.said)
        else:
            await target.emit(KEPT, self.said, mid=f"mid {self.said}" if what == "emit with mid" else None)

    def name(self, key: Any) -> str:
        return self.guest(key).client.id if isinstance(key, int) else str(key)

    def means(self, key: Any, guest: Guest) -> bool:
        if isinstance(key, tuple):
            return guest.user == str(key[1])
        name = self.name(key)
        return name == guest.client.id or name in guest.socket.rooms


@settings(max_examples=runs(60, 30), deadline=None)
@given(GUESTS, st.lists(STEP, max_size=40))
async def test_each_socket_has_what_is_for_it_once_and_in_order(
    guests: list[tuple[int, str | None, bool]], steps: list[tuple[Any, ...]]
) -> None:
    async with houses(3, Config(connections_per_user=100, fanout_batch=2)) as found:
        world = World(found)
        for guest in guests:
            await world.come(*guest)
        for step in steps:
            await world.step(*step)
            await advance()
        for one in world.guests:
            assert await heard(one.client) == one.expected
