"""Broadcasts at random, beside a model of who is to get what."""

import asyncio
from collections.abc import Collection
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.protocol.post import Post
from bellwire.server.backlog import Audience
from bellwire.server.fanout import BETWEEN, Fanout
from bellwire.server.socket import Socket
from bellwire.transports.tick import Tick
from tests.server.test_fanout import Recorder, post


class World:
    """Rooms and sockets at random; beside them what each socket is to get, in which order."""

    def __init__(self, data: st.DataObject) -> None:
        self.draw = data.draw
        self.tick = Tick(cast("asyncio.AbstractEventLoop", _Still()))
        self.fanout = Fanout(
            self.tick, Counters(), Config(fanout_batch=2, fanout_concurrency=self.draw(st.integers(1, 2)))
        )
        self.sockets = [Recorder() for _ in range(7)]
        self.rooms: list[set[Recorder]] = [set() for _ in range(3)]
        self.lasting = [cast("Audience", (room,)) for room in self.rooms]
        self.owed: dict[Recorder, list[tuple[int, str]]] = {socket: [] for socket in self.sockets}
        self.said = 0

    def step(self) -> None:
        getattr(
            self, self.draw(st.sampled_from(("move", "move", "cast", "cast", "apart", "tell", "turn", "shuffle")))
        )()

    def _socket(self) -> Recorder:
        return self.draw(st.sampled_from(self.sockets))

    def _post(self) -> Post:
        self.said += 1
        return post(str(self.said))

    def move(self) -> None:
        room, socket = self.draw(st.sampled_from(self.rooms)), self._socket()
        self.fanout.settle(cast("Socket", socket))
        room.symmetric_difference_update({socket})

    def shuffle(self) -> None:
        """Several at once, as where some are excluded from what goes to those who recover."""
        self.fanout.settle()
        self.draw(st.sampled_from(self.rooms)).symmetric_difference_update({self._socket(), self._socket()})

    def cast(self) -> None:
        self.cast_to(self.draw(st.integers(0, 2)))

    def cast_to(self, number: int) -> None:
        self._cast(number, self.lasting[number], self.rooms[number])

    def apart(self) -> None:
        number = self.draw(st.integers(0, 2))
        meant = self.rooms[number] - {self._socket()}
        audience = self.draw(st.sampled_from((meant, tuple(meant))))
        self._cast(number, cast("Audience", (audience,)), meant)

    def _cast(self, number: int, audience: Audience, meant: Collection[Recorder]) -> None:
        item = self._post()
        self.fanout.cast(audience, item, room=str(number))
        for socket in meant:
            self.owed[socket].append((number, str(item.stock.parts[0])))

    def tell(self) -> None:
        socket, item = self._socket(), self._post()
        self.fanout.settle(cast("Socket", socket))
        assert sorted(socket.parts) == sorted(text for _, text in self.owed[socket]), "all that came before"
        socket.send(item.stock)
        self.owed[socket].append((-1, str(item.stock.parts[0])))

    def turn(self) -> None:
        assert self.tick.turn is not None
        self.tick.turn()

    def check(self) -> None:
        for socket in self.sockets:
            assert len(socket.parts) == len(self.owed[socket])
            for number in range(-1, 3):
                wanted = [text for room, text in self.owed[socket] if room == number]
                assert [part for part in socket.parts if part in wanted] == wanted


class _Still:
    def call_soon(self, *_: object) -> None: ...


@given(st.data())
def test_everyone_gets_what_its_memberships_say_each_room_in_order(data: st.DataObject) -> None:
    world = World(data)
    for _ in range(data.draw(st.integers(1, 40))):
        world.step()
    for _ in range(200 * (BETWEEN + 1)):
        world.turn()
    world.check()
