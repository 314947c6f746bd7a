"""Any sequence of joins, leaves, emits and disconnects, against a model that fits on one page."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from bellwire import Server, Socket, Target
from bellwire.protocol.socketio import decode_json
from bellwire.testing import TestClient, connect
from bellwire.testing.clock import advance
from tests.long import runs
from tests.server.house import SAY

ROOMS = ("r", "s", "t")
USERS = ("ann", None)

CLIENT = st.integers(0, 4)
SOME_ROOMS = st.sets(st.sampled_from(ROOMS), max_size=2)
STEP = st.one_of(
    st.tuples(st.just("come"), st.sampled_from(USERS)),
    st.tuples(st.just("join"), CLIENT, st.sampled_from(ROOMS)),
    st.tuples(st.just("leave"), CLIENT, st.sampled_from(ROOMS)),
    st.tuples(st.just("drop"), CLIENT),
    st.tuples(st.just("disconnect"), CLIENT),
    st.tuples(st.just("expel"), CLIENT),
    st.tuples(st.just("tell"), CLIENT),
    st.tuples(st.just("tell user")),
    st.tuples(st.just("emit"), SOME_ROOMS, SOME_ROOMS, st.booleans()),
    st.tuples(st.just("turn")),
)


@dataclass
class Guest:
    """What the model knows of a client."""

    client: TestClient
    socket: Socket
    user: str | None
    rooms: set[str] = field(default_factory=set)
    here: bool = True
    lost: bool = False
    expected: list[str] = field(default_factory=list)


class World:
    def __init__(self, stack: AsyncExitStack) -> None:
        self.server = Server()
        self.root = self.server.namespace("/")
        self.guests: list[Guest] = []
        self.said = 0
        self._stack = stack

    async def come(self, user: str | None) -> None:
        if len(self.guests) < 5:
            client = await self._stack.enter_async_context(connect(self.server, user=user))
            self.guests.append(Guest(client, self.root._hubs["/"].sockets[client.id], user))

    async def act(self, kind: str, number: int, *rest: str) -> None:
        if number >= len(self.guests):
            return
        guest = self.guests[number]
        if kind == "join":
            await guest.socket.join(rest[0])
            if guest.here:
                guest.rooms.add(rest[0])
        elif kind == "leave":
            await guest.socket.leave(rest[0])
            guest.rooms -= set(rest)
        elif kind == "tell":
            await guest.socket.emit(SAY, self.text())
            self.expect([guest])
        elif guest.here:
            if kind == "drop":  # what is on its way then is lost: first let it arrive
                await advance()
                guest.client.drop()
            elif kind == "disconnect":
                await guest.client.disconnect()
            else:
                await guest.socket.disconnect()
            guest.here = False

    def text(self) -> str:
        self.said += 1
        return str(self.said)

    def expect(self, guests: list[Guest]) -> None:
        for guest in guests:
            if guest.here:
                guest.expected.append(str(self.said))

    async def emit(self, rooms: set[str], excluded: set[str], without_first: bool) -> None:
        target: Target = self.root.to(*rooms) if rooms else self.root
        target = target.except_(*excluded)
        meant = [g for g in self.guests if (not rooms or rooms & g.rooms) and not excluded & g.rooms]
        if without_first and self.guests:
            target = target.except_(self.guests[0].socket.id)
            meant = [guest for guest in meant if guest is not self.guests[0]]
        await target.emit(SAY, self.text())
        self.expect(meant)

    async def check(self) -> None:
        await advance()
        for guest in self.guests:
            heard = [decode_json(packet.payload)[1] for packet, _ in guest.client._events]
            assert heard == guest.expected
        here = [guest for guest in self.guests if guest.here]
        hub = self.root._hubs.get("/")
        assert (hub is not None) == bool(here)
        if hub is not None:
            assert set(hub.sockets.values()) == {guest.socket for guest in here}
            for room in ROOMS:
                assert set(hub.members(room)) == {guest.socket for guest in here if room in guest.rooms}


@settings(max_examples=runs(200, 20), deadline=None)
@given(st.lists(STEP, max_size=40))
async def test_each_client_hears_exactly_what_the_model_says_in_order(steps: list[tuple[object, ...]]) -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        await stack.enter_async_context(world.server.lifespan())
        for user in USERS:
            await world.come(user)
        for kind, *arguments in steps:
            match kind:
                case "turn":
                    await world.check()
                case "come":
                    await world.come(*arguments)  # type: ignore[arg-type]
                case "emit":
                    await world.emit(*arguments)  # type: ignore[arg-type]
                case "tell user":
                    await world.root.user("ann").emit(SAY, world.text())
                    world.expect([guest for guest in world.guests if guest.user == "ann"])
                case _:
                    await world.act(str(kind), *arguments)  # type: ignore[arg-type]
        await world.check()
