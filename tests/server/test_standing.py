"""A stream in which nothing comes is a position and a member; all that may happen to it is the same as to any other."""

import asyncio

import pytest
from typing_extensions import override

from bellwire.delivery.entry import enter, marker
from bellwire.delivery.naming import stream_of
from bellwire.delivery.position import START
from bellwire.protocol.outgoing import Message
from bellwire.protocol.post import Post
from bellwire.server.dialects import Item, Stock
from bellwire.server.room import Room
from bellwire.testing.clock import advance
from tests.server.nodes import Gate, come_back, make_node, tale, write

R = stream_of("/", "r")


class Unable(Stock):
    """The dialect of a client to whom nothing can be said."""

    @override
    def render(self, item: Item) -> Message:
        raise TypeError("no wire form")


def is_quiet(room: Room) -> bool:
    """Whether nothing is kept for members that recover but a position."""
    return room.serves and room._feed is None


async def test_one_member_to_whom_nothing_came_has_no_feed() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        room = node.room("r")
        assert is_quiet(room)
        assert (room.members, room.count, reader.itself in room, room.has(reader.itself)) == (
            {reader.itself},
            1,
            True,
            True,
        )
        assert room.point(reader.itself) == (await node.top("r")).point
        await write(node, 2)
        assert not is_quiet(room)
        assert reader.got == [0, 1]
        assert (room.members, room.count) == ({reader.itself}, 1)


async def test_it_loses_nobody_to_what_cannot_be_handed_to_another() -> None:
    async with make_node() as node:
        reader, other = await node.reading("a", "r"), await node.plain("b")
        other.dialect = Unable()
        post = Post("/", "say", ("?",), binary=False)
        node.fanout.cast(((other.itself,),), post)
        with pytest.raises(TypeError):
            await write(node, 1)
        await write(node, 1, first=1)
        assert [said for said in reader.got if isinstance(said, int)] == [0, 1]


async def test_of_two_members_both_get_what_comes() -> None:
    async with make_node() as node:
        one, other = await node.reading("a", "r"), await node.reading("b", "r")
        assert not is_quiet(node.room("r"))
        await write(node, 1)
        assert (one.got, other.got) == ([0], [0])


async def test_one_whose_socket_is_full_takes_from_the_history_what_came() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        room, its = node.room("r"), tale(reader)
        its.ready = False
        room.lag(reader.itself)
        assert is_quiet(room)
        assert room.count == 0
        await write(node, 2)
        assert reader.got == []
        its.ready = True
        room.drive(reader.itself)
        assert reader.got == [0, 1]  # and it is not told once more that it stands here


async def test_one_that_has_room_again_before_something_comes_is_live() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        room = node.room("r")
        room.lag(reader.itself)
        room.drive(reader.itself)
        assert reader.got == []
        await write(node, 1)
        assert reader.got == [0]


async def test_one_that_is_not_connected_yet_gets_what_came_meanwhile() -> None:
    async with make_node() as node:
        reader = await node.reading("a")
        tale(reader).ready = False
        await node.join(reader, "r")
        room = node.room("r")
        assert is_quiet(room)
        await write(node, 1)
        assert [tag for tag, *_ in reader.got] == ["open"]
        tale(reader).ready = True
        room.drive(reader.itself)
        assert [said if isinstance(said, int) else said[0] for said in reader.got] == ["proved", 0]


async def test_a_volatile_event_reaches_one_to_whom_nothing_came() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        await node.emit("now", "r", volatile=True)
        assert reader.got == ["now"]
        assert is_quiet(node.room("r"))


async def test_one_that_leaves_is_told_where_it_stood_and_nothing_is_left() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        room, top = node.room("r"), await node.top("r")
        assert room.dismiss(reader.itself) == top
        assert room.dismiss(reader.itself) is None
        node.hub.vacate(room)
        assert not room.serves
        assert node.streams.rooms == []


async def test_one_that_comes_back_to_where_the_stream_stands_makes_no_feed() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        await write(node, 1)
        await node.reading("b", "s")
        room = node.room("r")
        room.dismiss(reader.itself)
        node.hub.vacate(room)
        await node.hub.resume(reader.itself, "r", await node.top("r"))
        assert is_quiet(node.room("r"))
        reader.sink.messages.clear()
        await write(node, 2, first=1)
        assert reader.got == [1, 2]


async def test_one_that_comes_back_from_before_is_alone_again_and_gets_all() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        before = await node.top("r")
        await write(node, 2)
        room = node.room("r")
        room.dismiss(reader.itself)
        node.hub.vacate(room)
        reader.sink.messages.clear()
        await node.hub.resume(reader.itself, "r", before)
        assert [said for said in reader.got if isinstance(said, int)] == [0, 1]
        assert is_quiet(node.room("r"))
        await write(node, 1, first=2)
        assert reader.got == [2]


async def test_what_was_lost_on_the_way_to_it_is_found() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        room = node.room("r")
        node.broker.faults.lose_live(R)
        await write(node, 1)
        assert is_quiet(room)
        room.idle = True
        await room.probe()
        await advance()
        assert reader.got == [0]


async def test_what_was_lost_is_found_though_somebody_comes_while_it_is_looked_for() -> None:
    gate = Gate()
    await gate.start()
    async with make_node(gate) as node:
        reader = await node.reading("a", "r")
        room = node.room("r")
        gate.faults.lose_live(R)
        await write(node, 1)
        room.idle = True
        gate.hold("top")
        probing = asyncio.create_task(room.probe())
        await advance()
        await node.reading("b", "r")
        gate.let_go("top")
        await probing
        await advance()
        assert reader.got == [0]


async def test_that_the_log_stands_where_it_does_changes_nothing() -> None:
    async with make_node() as node:
        await node.reading("a", "r")
        room = node.room("r")
        room.idle = True
        await room.probe()
        assert await room.now() == await node.top("r")
        assert is_quiet(room)


async def test_a_marker_that_comes_once_more_changes_nothing_and_another_one_does() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        room, at = node.room("r"), await node.top("r")
        room.entry(R, at.gen, enter(marker(at.tag), at.seq, START, 0.0))
        assert is_quiet(room)
        room.entry(R, at.gen, enter(marker(1), at.seq + 1, at.point, 0.0))
        assert not is_quiet(room)
        assert reader.got == []


async def test_who_asks_where_it_stands_when_the_log_was_taken_back_is_told_what_the_log_has() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        await write(node, 3)
        room = node.room("r")
        room.dismiss(reader.itself)
        node.hub.vacate(room)
        await node.hub.resume(reader.itself, "r", await node.top("r"))
        room = node.room("r")
        assert is_quiet(room)
        reader.sink.messages.clear()
        node.broker.faults.lose_tail(R, 2)
        assert await room.now() == await node.top("r")
        assert [said[0] for said in reader.got] == ["reset"]


async def test_a_stream_that_nobody_has_heard_of_is_not_asked_where_it_ends() -> None:
    gate = Gate()
    await gate.start()
    async with make_node(gate) as node:
        gate.hold("top")
        position = await node.hub.guest("r").stand(new=True)
        gate.let_go("top")
        assert position == await node.top("r")
        assert position.seq == 1


@pytest.mark.parametrize("done", [False, True])
async def test_whether_its_marker_is_there_is_looked_for_where_nobody_knows(done: bool) -> None:
    async with make_node() as node:
        node.broker.faults.lose_answer(done=done)
        standing = asyncio.create_task(node.hub.guest("r").stand(new=True))
        await advance(10)
        assert await standing == await node.top("r")
        assert (await node.top("r")).seq == 1


async def test_a_stream_in_which_nothing_came_for_a_while_is_quiet_again() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        room, start = node.room("r"), await node.top("r")
        await write(node, 2)
        await room.probe()  # something came since the last one
        assert not is_quiet(room)
        await room.probe()
        assert is_quiet(room)
        assert reader.got == [0, 1]
        other = await node.reading("b")
        come_back(node, other, start)
        assert [said for said in other.got if isinstance(said, int)] == [0, 1]
        await write(node, 1, first=2)
        assert (reader.got, other.got) == ([2], [2])


async def test_a_stream_with_two_members_does_not_become_quiet_and_with_one_that_was_passed_over_it_does() -> None:
    async with make_node() as node:
        for name in "ab":
            await node.reading(name, "r")
        alone = await node.reading("c", "s")
        await node.emit("not for c", "s", excluded=("c",))
        for key in "rs":
            node.room(key).idle = True
            await node.room(key).probe()
        assert not is_quiet(node.room("r"))
        assert is_quiet(node.room("s"))
        assert [said[0] for said in alone.got] == ["advance"]


async def test_who_was_sent_what_a_failover_took_back_is_reset_though_it_was_quiet() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        await write(node, 3)
        room = node.room("r")
        room.idle = True
        await room.probe()
        assert is_quiet(room)
        assert reader.got == [0, 1, 2]
        node.broker.faults.lose_tail(R, 1)
        await write(node, 1, first=7)
        await advance()
        assert [said if isinstance(said, int) else said[0] for said in reader.got] == ["reset", 7]


async def test_who_is_alone_in_a_log_that_a_failover_has_left_with_nothing_gets_what_comes() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        room = node.room("r")
        node.broker.faults.lose_tail(R, 1)
        for _ in range(2):
            room.idle = True
            await room.probe()
            await advance()
        await write(node, 1)
        other = await node.reading("b", "r")
        await write(node, 1, first=1)
        assert [said if isinstance(said, int) else said[0] for said in reader.got] == ["reset", 0, 1]
        assert other.got == [1]


async def test_a_stream_with_one_on_its_way_back_does_not_become_quiet() -> None:
    async with make_node() as node:
        reader, other = await node.reading("a", "r"), await node.reading("b")
        room, start = node.room("r"), await node.top("r")
        await write(node, 2)
        tale(other).ready = False
        come_back(node, other, start)
        room.idle = True
        await room.probe()
        assert not is_quiet(room)
        tale(other).ready = True
        room.drive()
        assert [said for said in other.got if isinstance(said, int)] == [0, 1]
        assert reader.got == [0, 1]
