"""Events for one socket, wherever it is: ``to(socket.id)``."""

import pytest

from bellwire import RoomLimit, Socket
from bellwire.protocol.socket_id import SocketId, new_socket_id, read_socket_id
from tests.server.house import SAY, WAVE
from tests.server.servers import House, heard, houses


@pytest.mark.parametrize("recovers", [False, True])
async def test_an_id_reaches_its_socket_from_every_node(recovers: bool) -> None:
    async with houses(3) as (here, there, elsewhere):
        client, other = await there.come(recovers=recovers), await there.come(recovers=recovers)
        for house in (here, there, elsewhere):
            await house.root.to(client.id).emit(SAY, "for you")
        assert await heard(client) == ["for you"] * 3
        assert await heard(other) == []


async def test_an_id_tells_the_node_only_of_a_socket_that_stays_there() -> None:
    async with houses(1) as (house,):
        assert read_socket_id((await house.come()).id) == SocketId(house.node)
        assert read_socket_id((await house.come(recovers=True)).id) == SocketId(None)


async def test_only_the_node_of_a_socket_gets_what_is_for_it() -> None:
    async with houses(3) as (here, there, elsewhere):
        client = await there.come()
        published: list[str] = []
        elsewhere.runtime.cluster.direct = lambda stream, body: published.append(stream)
        await here.root.to(client.id).emit(SAY, "for you")
        assert await heard(client) == ["for you"]
        assert published == []


async def test_a_socket_in_a_room_and_named_by_its_id_has_one_copy_in_either_order() -> None:
    async with houses(2) as (here, there):
        client, neighbour = await there.come("r"), await there.come("r")
        for order in (("r", client.id), (client.id, "r")):
            await here.root.to(*order).emit(SAY, "once")
            assert await heard(client) == ["once"]
            assert await heard(neighbour) == ["once"]


async def test_a_socket_named_by_its_id_has_one_copy_of_what_recovering_members_of_a_room_get_too() -> None:
    async with houses(2) as (here, there):
        client, neighbour = await there.come("r"), await there.come("r", recovers=True)
        await heard(neighbour)
        for order in (("r", client.id), (client.id, "r")):
            await here.root.to(*order).emit(SAY, "once")
            assert await heard(client) == ["once"]
            assert await heard(neighbour) == ["once"]


async def test_who_is_excluded_hears_nothing_though_it_is_named() -> None:
    async with houses(2) as (here, there):
        client = await there.come("r")
        await here.root.to(client.id).except_(client.id).emit(SAY, "not you")
        await here.root.to(client.id).except_("r").emit(SAY, "nor you")
        assert await heard(client) == []


async def test_a_volatile_event_reaches_one_socket_too() -> None:
    async with houses(2) as (here, there):
        client = await there.come()
        await here.root.to(client.id).emit(WAVE, 1)
        assert await heard(client) == [1]


async def test_an_id_with_a_mid_is_told_once() -> None:
    async with houses(2) as (here, there):
        client = await there.come()
        for house in (here, there, here):
            await house.root.to(client.id).emit(SAY, "once", mid="m1")
        assert await heard(client) == ["once"]


async def test_an_id_of_a_socket_that_is_gone_or_never_was_reaches_nobody() -> None:
    async with houses(2) as (here, there):
        gone = await there.come()
        await gone.disconnect()
        for id_ in (gone.id, new_socket_id(there.node), new_socket_id("00000000")):
            await here.root.to(id_).emit(SAY, "hello?")
        assert here.server.counters.get("handler_errors_total") == 0


async def _refused(house: House, socket: Socket, id_: str) -> None:
    with pytest.raises(RoomLimit, match="id of a socket"):
        await socket.join(id_)


@pytest.mark.parametrize("recovers", [False, True])
async def test_nobody_joins_what_is_meant_for_another_socket(recovers: bool) -> None:
    async with houses(2) as (here, there):
        victim, thief = await there.come(recovers=recovers), await here.come()
        await _refused(here, here.socket(thief), victim.id)
        own = here.socket(thief)
        await own.join(own.id)  # it is in it already
        assert own.rooms == frozenset()
        await here.root.to(victim.id).emit(SAY, "secret")
        assert await heard(victim) == ["secret"]
        assert await heard(thief) == []
