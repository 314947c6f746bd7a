import asyncio

import msgspec
import pytest

from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.entry import Draft, marker
from bellwire.delivery.feed import REMIND_EVERY
from bellwire.delivery.naming import EVERYONE, stream_of
from bellwire.delivery.position import Position
from bellwire.delivery.ring import RING_MESSAGES
from bellwire.server.latest import OF_EACH
from bellwire.testing.clock import advance
from tests.server.house import SAY
from tests.server.nodes import (
    Gate,
    Member,
    Tale,
    away,
    come_back,
    go_away,
    make_node,
    places,
    position_of,
    tale,
    write,
)
from tests.server.servers import heard, houses

R, S = stream_of("/", "r"), stream_of("/", "s")


# --- live


async def test_those_who_recover_get_the_place_and_the_others_do_not() -> None:
    async with make_node() as node:
        plain, reader = await node.plain("p", "r"), await node.reading("a", "r")
        gen, start_seq, _ = await node.top("r")
        await write(node, 2)
        assert plain.sink.messages[0].parts == ('42["say",0]',)
        assert plain.got == [0, 1]
        assert places(reader) == [(0, start_seq, start_seq + 1, gen), (1, start_seq + 1, start_seq + 2)]


async def test_all_who_stand_alike_get_the_same_bytes() -> None:
    async with make_node() as node:
        plain = [await node.plain(name, "r") for name in "pq"]
        readers = [await node.reading(name, "r") for name in "abc"]
        await write(node, 1)
        for group in (plain, readers):
            assert len({id(member.sink.messages[0]) for member in group}) == 1
            assert all(len(member.sink.messages) == 1 for member in group)


async def test_what_is_sent_in_one_tick_is_joined_for_plain_and_recoverable_members_together() -> None:
    async with make_node() as node:
        plain, reader = await node.plain("p", "r"), await node.reading("a", "r")
        posts = [node.streams.read("/", b"\x93\xa3say\xc2\x91%c" % n) for n in (1, 2, 3)]
        for post in posts:
            assert post is not None
            await node.streams.emit((R,), post)
        assert (plain.sink.messages, reader.sink.messages) == ([], [])
        await advance()
        assert (len(plain.sink.messages), len(reader.sink.messages)) == (1, 1)
        assert (plain.got, reader.got) == ([1, 2, 3], [1, 2, 3])


@pytest.mark.parametrize("others", ["none", "away", "behind"])
async def test_what_is_sent_in_one_tick_is_joined_for_plain_members_whatever_others_do(others: str) -> None:
    async with make_node() as node:
        plain = await node.plain("p", "r")
        if others != "none":
            reader = await node.reading("a", "r")
        if others == "away":
            come_back(node, reader, go_away(node, reader))
            tale(reader).ready = False
            come_back(node, reader, go_away(node, reader))
        if others == "behind":
            await node.emit(0, "r", excluded=("p",))
            reader.sink.messages.clear()
            await node.emit(0, "r", excluded=("a", "p"))
        await advance()
        plain.sink.messages.clear()
        for n in (1, 2, 3):
            post = node.streams.read("/", b"\x93\xa3say\xc2\x91%c" % n)
            assert post is not None
            await node.streams.emit((R,), post)
        await advance()
        # The first brings who is behind to the others, and so is handed out for itself.
        assert len(plain.sink.messages) == (2 if others == "behind" else 1)
        assert plain.got == [1, 2, 3]


async def test_nobody_gets_what_was_sent_before_it_came_or_after_it_left() -> None:
    async with make_node() as node:
        stays = await node.plain("p", "r")
        reader = await node.reading("a", "r")
        await write(node, 1)
        late, late_reader = await node.plain("q", "r"), await node.reading("b", "r")
        await write(node, 1, first=1)
        node.leave(late)
        node.leave(reader)
        await write(node, 1, first=2)
        assert stays.got == [0, 1, 2]
        assert (late.got, reader.got, late_reader.got) == ([1], [0, 1], [1, 2])


async def test_a_room_that_everybody_left_takes_what_still_comes() -> None:
    async with make_node() as node:
        member = await node.plain("p", "r")
        room = node.room("r")
        node.leave(member)
        await node.broker.append(R, Draft("m", 1, b"\x93\xa3say\xc2\x90"))
        await node.broker.subscribe(R, room)
        await write(node, 2)
        await node.streams.broker.publish(R, b"\x92\xc4\x07\x93\xa3say\xc2\x90\xc2")
        assert member.got == []


async def test_what_is_known_of_a_room_is_who_is_in_it() -> None:
    async with make_node() as node:
        plain, live, back = await node.plain("p", "r"), await node.reading("a", "r"), await node.reading("b", "r")
        room = node.room("r")
        tale(back).ready = False
        come_back(node, back, go_away(node, back))
        assert set(room.members) == {plain.itself, live.itself, back.itself}
        assert all(member.itself in room for member in (plain, live, back))
        assert Member("a").itself not in room
        assert repr(room) == "Room('/', 'r')"
        assert not room.empty
        top = (await node.top("r")).point
        assert (room.point(live.itself), room.point(back.itself), room.point(plain.itself)) == (top, top, None)
        await node.emit(0, "r", excluded=("a",))
        assert room.point(live.itself) == top
        assert room.point(back.itself) == (await node.top("r")).point
        node.leave(live)
        node.leave(back)
        assert (room.members, room.feed, room.point(live.itself)) == ({plain.itself}, None, None)


async def test_everyone_in_the_namespace_is_a_room_as_any() -> None:
    async with make_node() as node:
        plain, reader = await node.plain("p", EVERYONE), await node.reading("a", EVERYONE)
        await write(node, 2, EVERYONE)
        assert (plain.got, reader.got) == ([0, 1], [0, 1])
        await node.emit(2, EVERYONE, excluded=("p",))
        assert (plain.got, reader.got) == ([], [2])


# --- except_


async def test_who_is_excluded_does_not_get_it_and_its_chain_goes_on_where_it_stood() -> None:
    async with make_node() as node:
        plain, excluded_plain = await node.plain("p", "r"), await node.plain("q", "r")
        reader, excluded = await node.reading("a", "r"), await node.reading("b", "r")
        gen, base, _ = await node.top("r")
        await node.emit(0, "r", excluded=("q", "b"))
        await node.emit(1, "r")
        await node.emit(2, "r")
        assert (plain.got, excluded_plain.got) == ([0, 1, 2], [1, 2])
        assert places(reader) == [(0, base, base + 1, gen), (1, base + 1, base + 2), (2, base + 2, base + 3)]
        assert places(excluded) == [(1, base, base + 2, gen), (2, base + 2, base + 3)]


async def test_who_was_behind_gets_the_common_bytes_again() -> None:
    async with make_node() as node:
        one, two = await node.reading("a", "r"), await node.reading("b", "r")
        await node.emit(0, "r", excluded=("b",))
        await write(node, 2, first=1)
        assert one.sink.messages[1] is not two.sink.messages[0]
        assert one.sink.messages[2] is two.sink.messages[1]


async def test_members_of_excluded_rooms_do_not_get_it_live_or_from_the_history() -> None:
    async with make_node() as node:
        plain, both = await node.plain("p", "r"), await node.plain("q", "r", "s")
        reader, both_reader = await node.reading("a", "r"), await node.reading("b", "r", "s")
        back, both_back = await node.reading("c", "r"), await node.reading("d", "r", "s")
        positions = [go_away(node, member) for member in (back, both_back)]
        await node.emit(0, "r", excluded=("s",))
        await node.emit(1, "r")
        assert (plain.got, both.got, reader.got, both_reader.got) == ([0, 1], [1], [0, 1], [1])
        come_back(node, back, positions[0])
        come_back(node, both_back, positions[1])
        assert back.got == [("proved", *positions[0]), 0, 1]
        assert both_back.got == [("proved", *positions[1]), 1]


async def test_who_is_always_passed_over_is_told_where_it_stands() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        base = await node.top("r")
        for n in range(-(-RING_MESSAGES // REMIND_EVERY) * REMIND_EVERY + REMIND_EVERY):
            await node.emit(n, "r", excluded=("a",))
        assert reader.got == [("advance", base.seq, base.tag, *await node.top("r"))]


@pytest.mark.parametrize("how", ["left", "slow"])
async def test_who_was_excluded_stays_so_when_it_leaves_the_room_that_excluded_it(how: str) -> None:
    async with houses(2) as (here, there):
        client = await there.come("lobby", "muted", recovers=True)
        socket = there.socket(client)
        await here.root.to("lobby").except_("muted").emit(SAY, "not for you")
        assert await heard(client) == []
        if how == "slow":  # its connection is full, and empty again once it is in that room no more
            assert socket.reader is not None
            socket.reader.lag()
        await socket.leave("muted")
        if how == "slow":
            assert socket.reader is not None
            socket.reader.go_on()
        await socket.leave("lobby")
        assert await heard(client) == []
        await socket.join("lobby")
        await here.root.to("lobby").emit(SAY, "for you")
        assert await heard(client) == ["for you"]


# --- several rooms


@pytest.mark.parametrize("logged", ["", "r", "s", "rs"])
async def test_a_plain_member_of_several_rooms_gets_it_once(logged: str) -> None:
    async with make_node() as node:
        both, first, second = await node.plain("p", "r", "s"), await node.plain("q", "r"), await node.plain("o", "s")
        readers = [await node.reading(f"in {room}", room) for room in logged]
        for keys in (("r", "s"), ("s", "r")):
            await node.emit("x", *keys)
            await node.emit("volatile", *keys, volatile=True)
        for member in (both, first, second, *readers):
            assert member.got == ["x", "volatile"] * 2


async def test_a_reader_in_several_rooms_takes_the_first_copy_and_its_chains_stay_whole() -> None:
    async with make_node() as node:
        both = await node.reading("a", "r", "s")
        in_s = await node.reading("b", "s")
        r, s = (await node.top("r")).seq, await node.top("s")
        await node.emit("x", "r", "s")
        assert [place[:3] for place in places(both)] == [("x", r, r + 1)]
        assert [place[:3] for place in places(in_s)] == [("x", s.seq, s.seq + 1)]
        await node.emit("y", "s")
        assert [place[:3] for place in places(both)] == [("y", s.seq, s.seq + 2)]
        assert [place[:3] for place in places(in_s)] == [("y", s.seq + 1, s.seq + 2)]
        assert both.got == []


async def test_who_came_into_the_first_room_behind_the_first_copy_takes_the_next() -> None:
    async with make_node() as node:
        await node.reading("x", "r")  # so that it has a log
        both = await node.reading("a", "s")
        node.broker.faults.hold_live(S)
        await node.emit(1, "r", "s")
        await node.join(both, "r")
        both.sink.messages.clear()
        node.broker.faults.let_go(S)
        for listener, stream, gen, entry in node.broker.faults.held:
            listener.entry(stream, gen, entry)
        await advance()
        assert both.got == [1]


async def test_from_the_history_of_several_rooms_everything_is_taken_once() -> None:
    async with make_node() as node:
        member = await node.reading("a", "r", "s")
        for name in "xyz":
            await node.reading(name, "s")
        from_r, from_s = go_away(node, member, "r"), go_away(node, member, "s")
        for n in range(10):
            await node.emit(n, *(("r", "s"), ("s", "r"), ("s",))[n % 3])
        come_back(node, member, from_s, "s")
        got = member.got
        come_back(node, member, from_r, "r")
        got += member.got
        assert sorted(said for said in got if isinstance(said, int)) == list(range(10))


# --- markers


async def test_to_stand_in_an_empty_room_it_is_given_a_place_that_nobody_is_told_of() -> None:
    async with make_node() as node:
        plain = await node.plain("p", "r")
        assert not node.broker.has_log(R)
        reader = await node.reading("a", "r")
        assert (await node.top("r")).seq == 1
        other = await node.reading("b", "r")
        assert (await node.top("r")).seq == 1  # one is enough
        assert (plain.got, reader.got, other.got) == ([], [], [])


async def test_a_marker_that_two_nodes_give_a_room_only_moves_its_members_on() -> None:
    async with make_node() as node:
        reader, plain = await node.reading("a", "r"), await node.plain("p", "r")
        node.broker.faults.forget_mids(R)
        await node.broker.append(R, marker(77))
        await write(node, 2)
        assert [place[:3] for place in places(reader)] == [(0, 1, 3), (1, 3, 4)]
        assert plain.got == [0, 1]


@pytest.mark.parametrize("done", [True, False])
async def test_a_marker_without_an_answer_is_looked_for(done: bool) -> None:
    async with make_node() as node:
        node.broker.faults.lose_answer(done=done)
        node.broker.faults.lose_answer(done=done)
        reader = await node.reading("a", "r")
        assert (await node.top("r")).seq == 1
        await write(node, 1)
        assert reader.got == [0]


async def test_who_cannot_stand_is_not_in_it_and_nothing_is_kept() -> None:
    async with make_node() as node:
        plain = await node.plain("p", "r")
        reader = Member("a")
        reader.reader = Tale(reader)
        await node.enter(reader)
        room = node.room("r")
        with away(node.broker), pytest.raises(BrokerUnavailable):
            await node.join(reader, "r")
        assert room.feed is None
        await write(node, 1)
        assert plain.got == [0]


async def test_those_who_come_at_the_same_time_stand_in_one_feed() -> None:
    gate = Gate()
    await gate.start()
    async with make_node(gate) as node:
        await gate.append(R, Draft("m", 1, b"\x93\xa3say\xc2\x91\x01"))
        gate.hold("top")
        one, two = (asyncio.create_task(node.reading(name, "r")) for name in "ab")
        await advance()
        await write(node, 2)  # while the top is read
        gate.let_go("top")
        a, b = await one, await two
        feed = node.room("r").feed
        assert feed is not None
        assert len(feed.audience) == 2
        await write(node, 2, first=2)
        assert (a.got[-2:], b.got[-2:]) == ([2, 3], [2, 3])
        assert len(gate.subscriptions) == 1


async def test_what_came_between_the_top_and_the_opening_follows_on_it() -> None:
    gate = Gate()
    await gate.start()
    async with make_node(gate) as node:
        await gate.append(R, Draft("m", 1, b"\x93\xa3say\xc2\x91\x01"))
        room = node.hub.guest("r")
        before = await gate.top(R)
        top = gate.top

        async def late(stream: str) -> Position:
            found = await top(stream)
            await write(node, 2)
            return found

        gate.top = late  # type: ignore[method-assign]
        assert await room.stand() == await top(R)
        assert before != await top(R)
        node.hub.part(room)


# --- what nobody can read


async def test_what_is_no_event_leaves_no_gap_in_anybodys_chain() -> None:
    async with make_node() as node:
        live, behind, back = [await node.reading(name, "r") for name in "abc"]
        plain = await node.plain("p", "r")
        position = go_away(node, back)
        gen, base, tag = position
        await node.emit(0, "r", excluded=("b",))
        await node.broker.append(R, Draft("alien", 5, b"\xc1"))
        await write(node, 1, first=1)
        come_back(node, back, position)
        alien = (gen, base + 2, 5)
        first = (await position_of(node, base + 1)).tag
        assert live.got == [0, ("advance", base + 1, first, *alien), 1]
        assert behind.got == [("advance", base, tag, *alien), 1]
        assert back.got == [("proved", *position), 0, ("advance", base + 1, first, *alien), 1]
        assert plain.got == [0, 1]
        assert node.counters.get("dropped_total", kind="event", reason="unreadable", policy="no_event") > 0


async def test_the_chain_goes_on_behind_what_nobody_can_read() -> None:
    async with make_node() as node:
        live = await node.reading("a", "r")
        await node.broker.append(R, Draft("alien", 5, b"\xc1"))
        live.sink.messages.clear()
        await write(node, 1)
        assert [place[:3] for place in places(live)] == [(0, 2, 3)]


# --- beside the log


async def test_a_volatile_event_is_for_all_who_are_there_wherever_they_stand() -> None:
    async with make_node() as node:
        plain, live, behind, back = (
            await node.plain("p", "r"),
            await node.reading("a", "r"),
            await node.reading("b", "r"),
            await node.reading("c", "r"),
        )
        await node.emit(0, "r", excluded=("b", "c"))
        tale(back).ready = False
        come_back(node, back, go_away(node, back))
        for member in (plain, live):
            member.sink.messages.clear()
        await node.emit("now", "r", volatile=True)
        assert [member.got for member in (plain, live, behind, back)] == [["now"]] * 4
        await node.emit("most", "r", volatile=True, excluded=("a", "p"))
        assert [member.got for member in (plain, live, behind, back)] == [[], [], ["most"], ["most"]]


async def test_a_volatile_event_waits_where_there_is_no_room_and_is_not_in_the_way_of_others() -> None:
    async with make_node() as node:
        plain, live = await node.plain("p", "r"), await node.reading("a", "r")
        live.sink.full = True
        await node.emit("now", "r", volatile=True)
        assert (plain.got, live.got) == (["now"], [])
        live.sink.full = False
        await node.emit("then", "r", volatile=True)
        assert (plain.got, live.got) == (["then"], ["now", "then"])


async def test_events_of_the_same_name_are_kept_for_each_room() -> None:
    async with make_node() as node:
        member = await node.plain("p", "r", "s")
        member.sink.full = True
        await node.emit("kept", "r", volatile=True)
        for n in range(OF_EACH + 1):
            await node.emit(n, "s", volatile=True)
        member.sink.full = False
        await node.emit("last", "r", volatile=True)
        assert member.got == ["kept", *range(1, OF_EACH + 1), "last"]


async def test_what_is_published_by_somebody_else_is_counted_and_reaches_nobody() -> None:
    async with make_node() as node:
        plain = await node.plain("p", "r")
        await node.broker.publish(R, b"\xc1")
        await node.broker.publish(R, msgspec.msgpack.encode((b"\xc1", False)))
        node.fanout.settle()
        assert plain.got == []
        assert node.counters.get("dropped_total", kind="event", reason="unreadable", policy="no_event") == 2
