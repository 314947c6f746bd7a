"""Somebody comes back to a room, or is slow."""

import logging
from typing import Any

import pytest

from bellwire.delivery.log import Limits
from bellwire.delivery.naming import stream_of
from bellwire.delivery.position import Position
from bellwire.server.room import BATCH
from bellwire.testing.clock import advance
from tests.server.nodes import (
    Gate,
    Member,
    Node,
    Tale,
    away,
    come_back,
    go_away,
    make_node,
    places,
    position_of,
    start,
    tale,
    write,
)

R = stream_of("/", "r")


async def test_who_comes_back_gets_what_it_missed_and_then_what_is_new_each_once() -> None:
    async with make_node() as node:
        stays, back = await node.reading("a", "r"), await node.reading("b", "r")
        position = go_away(node, back)
        await write(node, 3)
        come_back(node, back, position)
        await write(node, 2, first=3)
        assert back.got == [("proved", *position), 0, 1, 2, 3, 4]
        assert stays.got == [0, 1, 2, 3, 4]


async def test_more_than_the_node_keeps_comes_from_the_log() -> None:
    async with make_node() as node:
        await node.reading("a", "r")
        back = await node.reading("b", "r")
        position = go_away(node, back)
        await write(node, 900)
        come_back(node, back, position)
        assert back.got[1:] == list(range(900))


async def test_the_history_is_handed_over_page_by_page_as_the_socket_has_room() -> None:
    async with make_node() as node:
        await node.reading("a", "r")
        back = await node.reading("b", "r")
        position = go_away(node, back)
        await write(node, 900)
        reader = Bounded(back, 1)
        back.reader = reader
        come_back(node, back, position)
        got, rounds = back.got, 0
        assert 100 <= len(got) <= 501  # a page
        while page := await drained(node, back):
            got += page
            rounds += 1
        assert got[1:] == list(range(900))
        assert rounds == 1
        await write(node, 1, first=900)
        assert back.got == [900]


def waiting(member: Member) -> int:
    return sum(len(message.parts) for message in member.sink.messages)


class Bounded(Tale):
    """A reader that has room for the next page when so few events wait."""

    def __init__(self, member: Member, room: int) -> None:
        self._room = room
        super().__init__(member)

    @property
    def ready(self) -> bool:
        return waiting(self.socket) <= self._room

    @ready.setter
    def ready(self, ready: bool) -> None: ...


async def drained(node: Node, member: Member) -> list[Any]:
    node.room("r").drive()
    await advance()
    return member.got


async def test_pages_have_a_megabyte_at_most() -> None:
    async with make_node(await start(Limits(size=64 * 1024 * 1024))) as node:
        await node.reading("a", "r")
        back = await node.reading("b", "r")
        position = go_away(node, back)
        await write(node, 8, size=400_000)
        back.reader = Bounded(back, 1)
        come_back(node, back, position)
        sizes = [len(back.got) - 1]
        while page := await drained(node, back):
            sizes.append(len(page))
        assert sizes == [2, 2, 2, 2]


async def test_a_stream_whose_room_was_given_up_is_called_otherwise_in_all_that_follows() -> None:
    async with make_node() as node:
        aliases = []
        away = await node.reading("a", "r", "s")
        position = go_away(node, away)
        keeper = await node.reading("b", "r")
        await write(node, 1)
        for _ in range(2):
            come_back(node, away, position)
            (proved, event) = [str(message.parts[0]) for message in away.sink.messages]
            alias = node.room("r").alias
            assert f'["proved","{R}",{alias},' in proved
            assert f'{{"bellwire":["s",{alias},' in event
            aliases.append(alias)
            away.sink.messages.clear()
            go_away(node, away)
            node.leave(keeper)
            assert R not in node.hub.streams
            keeper = await node.reading("c", "r")
        assert len({*aliases, node.room("r").alias, node.room("s").alias}) == 4


async def test_those_who_come_back_to_the_same_place_share_what_is_made_for_them() -> None:
    async with make_node() as node:
        one, two, other = [await node.reading(name, "r") for name in "abc"]
        first = go_away(node, one)
        go_away(node, two)
        await write(node, 2)
        second = go_away(node, other)
        await write(node, 2, first=2)
        for member, position in ((one, first), (two, first), (other, second)):
            come_back(node, member, position)
        pages = [member.sink.messages[-1].parts for member in (one, two, other)]
        assert [len(page) for page in pages] == [4, 4, 2]
        assert all(mine is yours for mine, yours in zip(pages[0], pages[1], strict=True))
        assert all(mine is yours for mine, yours in zip(pages[0][2:], pages[2], strict=True))


class _Watched(Tale):
    """A reader that counts how often it is looked at."""

    looks = 0
    has_room = False

    @property
    def ready(self) -> bool:
        self.looks += 1
        return self.has_room

    @ready.setter
    def ready(self, ready: bool) -> None:
        self.has_room = ready


async def test_those_that_have_no_room_are_not_looked_at_for_each_that_has() -> None:
    async with make_node() as node:
        members = [await node.reading(f"m{n}", "r") for n in range(50)]
        positions = [go_away(node, member) for member in members]
        watched = [_Watched(member) for member in members]
        for member, position, reader in zip(members, positions, watched, strict=True):
            reader.has_room = False
            member.reader = reader
            node.room("r").admit(member.itself, position)
        await write(node, 1)
        for member, reader in zip(members, watched, strict=True):
            reader.has_room = True
            node.room("r").drive(member.itself)
            await advance()
            assert member.got[-1] == 0
        assert max(reader.looks for reader in watched) < 10


async def test_nothing_is_handed_to_a_socket_that_is_not_ready_and_everything_once_it_is() -> None:
    async with make_node() as node:
        back = await node.reading("b", "r")
        position = go_away(node, back)
        tale(back).ready = False
        come_back(node, back, position)
        await write(node, 300)  # more than the ring holds
        assert back.got == []
        tale(back).ready = True
        assert await drained(node, back) == [("proved", *position), *range(300)]


async def test_a_slow_member_goes_on_from_the_history_and_is_among_the_others_again() -> None:
    async with make_node() as node:
        slow, quick = await node.reading("a", "r"), await node.reading("b", "r")
        await write(node, 1)
        tale(slow).ready = False
        node.room("r").lag(slow.itself)
        node.room("r").lag(slow.itself)  # it does already
        await write(node, 5, first=1)
        assert (slow.got, quick.got) == ([0], [0, 1, 2, 3, 4, 5])
        tale(slow).ready = True
        assert await drained(node, slow) == [1, 2, 3, 4, 5]
        await write(node, 1, first=6)
        assert slow.sink.messages[0] is quick.sink.messages[0]


async def test_a_slow_member_that_the_history_went_past_is_told_so() -> None:
    async with make_node() as node:
        slow = await node.reading("a", "r")
        tale(slow).ready = False
        node.room("r").lag(slow.itself)
        await write(node, 600)
        node.broker.faults.truncate(R, 2)
        tale(slow).ready = True
        (tag, reason, *_), *rest = await drained(node, slow)
        assert (tag, reason, rest) == ("reset", "too_far", [598, 599])


async def test_who_recovers_nothing_cannot_lag() -> None:
    async with make_node() as node:
        plain = await node.plain("p", "r")
        node.room("r").lag(plain.itself)
        await write(node, 1)
        assert plain.got == [0]


async def test_a_follower_that_knows_less_gives_no_verdict() -> None:
    async with make_node() as node:
        back = await node.reading("b", "r")
        await write(node, 400)  # its position is older than the ring
        position = (await node.top("r"))._replace(seq=0)
        go_away(node, back)
        position = await position_of(node, 390)
        await write(node, 300, first=400)
        node.broker.faults.lag(R, 320)
        come_back(node, back, position)
        await advance()
        assert back.got == [("proved", *position), *range(389, 700)]


async def test_a_position_of_another_history_is_reset() -> None:
    async with make_node() as node:
        back = await node.reading("b", "r")
        await write(node, 2)
        go_away(node, back)
        top = await node.top("r")
        come_back(node, back, top._replace(tag=top.tag ^ 1))
        assert [said[:2] for said in back.got if isinstance(said, tuple)] == [("reset", "diverged")]
        go_away(node, back)
        come_back(node, back, Position("another", 1, 1))
        assert [said[:2] for said in back.got if isinstance(said, tuple)] == [("reset", "generation")]


async def test_while_the_broker_is_away_who_comes_back_waits() -> None:
    async with make_node() as node:
        back = await node.reading("b", "r")
        await write(node, 300)
        go_away(node, back)
        position = await position_of(node, 10)
        with away(node.broker):
            come_back(node, back, position)
            await advance(30)
            assert back.got == []
        await advance(1)
        assert back.got == [("proved", *position), *range(9, 300)]


async def test_the_way_back_ends_where_the_membership_did() -> None:
    async with make_node() as node:
        await node.reading("a", "r")
        back = await node.reading("b", "r")
        position = go_away(node, back)
        await write(node, 5)
        until = await position_of(node, position.seq + 3)
        come_back(node, back, position, until=until)
        assert back.got == [("proved", *position), 0, 1, 2]
        assert tale(back).ends == [node.room("r")]
        await write(node, 1, first=5)
        assert back.got == []
        assert back.itself not in node.room("r")


async def test_a_room_is_given_up_behind_the_last_who_only_read_to_its_end() -> None:
    async with make_node() as node:
        plain, back = await node.plain("p", "r"), await node.reading("b", "r")
        position = go_away(node, back)
        await write(node, 2)
        room = node.room("r")
        come_back(node, back, position, until=await node.top("r"))
        assert room.feed is None
        node.leave(plain)
        assert node.hub.streams == {}


@pytest.mark.parametrize("then", ["leaves", "begins anew"])
async def test_who_leaves_or_begins_anew_while_its_page_is_read(then: str) -> None:
    gate = Gate()
    await gate.start()
    async with make_node(gate) as node:
        await node.reading("a", "r")
        back = await node.reading("b", "r")
        await write(node, 300)
        go_away(node, back)
        position = await position_of(node, 10)
        gate.hold("read")
        come_back(node, back, position)
        await advance()
        later = await position_of_held(gate, 20)
        if then == "leaves":
            node.leave(back)
        else:
            node.room("r").dismiss(back.itself)
            come_back(node, back, later)
        gate.let_go("read")
        await advance()
        assert back.got == ([] if then == "leaves" else [("proved", *later), *range(19, 300)])
        assert node.counters.get("stream_faults_total") == 0


async def position_of_held(gate: Gate, seq: int) -> Position:
    held = gate.held.pop("read")
    top = await gate.top(R)
    answer: Any = await gate.read(R, Position(top.gen, 0, 0), messages=10_000)
    gate.held["read"] = held
    return Position(top.gen, seq, answer.entries[seq - 1].tag)


async def test_those_who_come_back_leave_the_loop_its_turns() -> None:
    async with make_node() as node:
        members = [await node.reading(str(n), "r") for n in range(6)]
        positions = [go_away(node, member) for member in members[1:]]
        half = BATCH // 2
        await write(node, half)
        for member, position in zip(members[1:], positions, strict=True):
            node.room("r").admit(member.itself, position)
        node.room("r").drive()
        assert [waiting(member) for member in members[1:]] == [half + 1, half + 1, 0, 0, 0]
        await advance()
        assert {waiting(member) for member in members[1:]} == {half + 1}


async def test_a_position_is_proved_before_anything_is_handed_over() -> None:
    async with make_node() as node:
        back = await node.reading("b", "r")
        await write(node, 300)
        go_away(node, back)
        tale(back).ready = False
        room = node.room("r")
        room.admit(back.itself, await position_of(node, 10))
        assert await room.prove(back.itself)
        go_away(node, back)
        room.admit(back.itself, Position("another", 1, 1))
        assert not await room.prove(back.itself)
        go_away(node, back)
        assert not await room.prove(back.itself)
        assert back.got == []


# --- nodes


async def test_two_nodes_hand_out_the_same_stream() -> None:
    async with make_node() as one, make_node(one.broker) as two:
        near, far = await one.reading("a", "r"), await two.reading("b", "r")
        far_plain = await two.plain("p", "r")
        await write(one, 2)
        await write(two, 1, first=2)
        one.fanout.settle()
        two.fanout.settle()
        assert [place[:3] for place in places(near)] == [place[:3] for place in places(far)]
        assert far_plain.got == [0, 1, 2]


async def test_who_goes_to_another_node_gets_the_rest_there() -> None:
    async with make_node() as one, make_node(one.broker) as two:
        member = await one.reading("a", "r")
        await write(one, 2)
        position = go_away(one, member)
        one.leave(member)
        await write(one, 2, first=2)
        member.gone = False
        await two.enter(member)
        await two.hub.resume(member.itself, "r", position)
        await write(one, 2, first=4)
        two.fanout.settle()
        assert member.got == [("proved", *position), 2, 3, 4, 5]


# --- faults


async def test_a_fault_while_reading_is_logged_and_the_room_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async with make_node() as node:
        reader, broken = await node.reading("a", "r"), node.broker.read

        async def fail(*args: Any, **options: Any) -> Any:
            raise ZeroDivisionError("a broker's own mistake")

        node.broker.read = fail  # type: ignore[method-assign]
        node.broker.faults.lose_live(R)
        with caplog.at_level(logging.ERROR):
            await write(node, 2)
        assert node.counters.get("stream_faults_total") >= 1
        assert "ZeroDivisionError" in caplog.text
        node.broker.read = broken  # type: ignore[method-assign]
        await write(node, 1, first=2)
        node.room("r").drive()
        assert reader.got == [0, 1, 2]


async def test_an_emit_whose_answer_is_lost_reaches_everyone_once() -> None:
    async with make_node() as node:
        reader, plain = await node.reading("a", "r"), await node.plain("p", "r")
        node.broker.faults.lose_answer(done=True)
        node.broker.faults.lose_answer(done=False)
        await write(node, 1)
        assert (reader.got, plain.got) == ([0], [0])
