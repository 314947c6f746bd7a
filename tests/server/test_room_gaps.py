"""A room that was not told something: it finds that out, and reads it for those who recover."""

import asyncio
from typing import Any

import pytest

from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.naming import stream_of
from bellwire.delivery.position import Position
from bellwire.server.dispatch import Outcome
from bellwire.testing.clock import advance
from tests.server.nodes import (
    Gate,
    Tale,
    away,
    make_node,
    places,
    write,
)

R = stream_of("/", "r")


async def test_a_gap_is_read_from_the_log_for_those_who_recover() -> None:
    async with make_node() as node:
        plain, one, two = await node.plain("p", "r"), await node.reading("a", "r"), await node.reading("b", "r")
        node.broker.faults.lose_live(R, 2)
        await write(node, 3)
        assert one.sink.messages[0] is two.sink.messages[0]
        assert [place[:3] for place in places(one)] == [(0, 1, 2), (1, 2, 3), (2, 3, 4)]
        assert plain.got == [2]


async def test_what_is_lost_of_a_room_that_is_left_and_entered_while_it_tells_something_is_read_too() -> None:
    async with make_node() as node:
        await node.plain("p", "r")  # so the room stays
        newcomer = await node.reading("b")

        class Leaving(Tale):
            def advance(self, room: Any, prev: Any, to: Any) -> None:
                node.leave(self.socket)
                node.dispatcher.run(enter(), ends.append)

        async def enter() -> None:
            await node.join(newcomer, "r")
            newcomer.sink.messages.clear()
            node.broker.faults.lose_live(R)
            await write(node, 2)

        ends: list[Outcome] = []
        last = await node.reading("a")
        last.reader = Leaving(last)
        await node.join(last, "r")
        await node.emit("not for it", "r", excluded=("a",))
        node.room("r").catch_up(last.itself)
        assert ends == [Outcome()]
        await advance()
        assert newcomer.got == [0, 1]


async def test_what_was_lost_before_silence_is_found_by_the_probe() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        room = node.room("r")
        node.broker.faults.lose_live(R, 2)
        await write(node, 2)
        assert reader.got == []
        await room.probe()
        await advance()
        assert reader.got == []  # it was not idle for a whole round: somebody joined
        await room.probe()
        await advance()
        assert reader.got == [0, 1]


async def test_a_subscription_that_died_is_found_by_the_probe() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        room = node.room("r")
        node.broker.faults.deafen(room)
        await room.probe()
        await write(node, 2)
        await room.probe()
        await advance()
        assert reader.got == [0, 1]
        node.broker.faults.heal(room)
        await write(node, 1, first=2)
        assert reader.got == [2]


async def test_a_subscription_that_told_all_is_left_and_one_that_did_not_is_made_anew() -> None:
    gate = Gate()
    await gate.start()
    async with make_node(gate) as node:
        reader = await node.reading("a", "r")
        room, made = node.room("r"), []
        subscribe = gate.subscribe

        async def watch(stream: str, listener: Any, *, new: bool = False) -> None:
            made.append(stream)
            await subscribe(stream, listener, new=new)

        gate.subscribe = watch  # type: ignore[method-assign]
        await room.probe()
        await room.probe()
        assert made == []
        node.broker.faults.lose_live(R)
        await write(node, 1)
        await room.probe()
        assert made == [R]
        assert gate.subscriptions == [R]
        await write(node, 1, first=1)
        assert reader.got == [0, 1]


async def test_a_subscription_that_could_not_be_made_anew_is_made_when_the_broker_is_back() -> None:
    gate = Gate()
    await gate.start()
    async with make_node(gate) as node:
        reader = await node.reading("a", "r")
        room = node.room("r")
        await room.probe()
        gate.faults.lose_live(R)
        await write(node, 1)
        gate.hold("subscribe")
        probing = asyncio.create_task(room.probe())
        await advance()
        gate.let_go("subscribe", fail=True)
        with pytest.raises(BrokerUnavailable):
            await probing
        await write(node, 1, first=1)  # nobody hears it
        await room.probe()
        await write(node, 1, first=2)
        assert reader.got == [0, 1, 2]


async def test_now_is_behind_all_that_was_emitted_though_it_has_not_come_yet() -> None:
    async with make_node() as node:
        await node.reading("a", "r")
        room = node.hub.guest("r")
        await write(node, 1)
        assert await room.now() == await room.stand() == await node.top("r")
        node.broker.faults.lose_live(R, 2)
        await write(node, 2)
        here = await room.stand()
        assert await room.now() == await node.top("r")
        assert here.seq == (await node.top("r")).seq - 2
        node.hub.part(room)


async def test_a_room_that_was_told_something_meanwhile_is_not_compared() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        room = node.room("r")
        await room.probe()
        top = node.broker.top

        async def late(stream: str) -> Position:
            found = await top(stream)
            await write(node, 1)
            return found

        async def never(*args: Any, **options: Any) -> Any:
            raise AssertionError("there is nothing to be read")

        node.broker.top = late  # type: ignore[method-assign]
        node.broker.read = never  # type: ignore[method-assign]
        await room.probe()
        assert reader.got == [0]
        assert node.counters.get("stream_faults_total") == 0


async def test_a_room_without_readers_is_not_compared() -> None:
    async with make_node() as node:
        await node.plain("p", "r")
        await node.room("r").probe()
        with away(node.broker):
            await node.room("r").probe()


async def test_the_probe_tells_who_was_passed_over_where_it_stands() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        base = await node.top("r")
        await node.emit(0, "r", excluded=("a",))
        await node.room("r").probe()
        await node.room("r").probe()
        assert reader.got == [("advance", base.seq, base.tag, *await node.top("r"))]


async def test_a_gap_that_the_history_has_lost_resets_everyone_before_anything_newer() -> None:
    async with make_node() as node:
        live, plain = await node.reading("a", "r"), await node.plain("p", "r")
        node.broker.faults.lose_live(R, 5)
        await write(node, 5)
        node.broker.faults.truncate(R, 2)
        await write(node, 1, first=5)
        (tag, reason, *restart), *rest = live.got
        assert (tag, reason, restart[1]) == ("reset", "truncated", 4)
        assert rest == [3, 4, 5]
        assert plain.got == [5]


async def test_what_a_failover_took_back_resets_those_who_have_it_and_names_the_new_generation() -> None:
    async with make_node() as node:
        live, behind = await node.reading("a", "r"), await node.reading("b", "r")
        await write(node, 2)
        await node.emit(2, "r", excluded=("b",))
        for member in (live, behind):
            member.sink.messages.clear()
        common = (await node.top("r")).seq - 1
        node.broker.faults.lose_tail(R, 1)
        gen = (await node.top("r")).gen
        await write(node, 2, first=10)
        (tag, reason, *restart), *rest = live.got
        assert (tag, reason, restart[:2]) == ("reset", "diverged", [gen, common])
        assert rest == [10, 11]
        assert places(behind) == [(10, common, common + 1, gen), (11, common + 1, common + 2)]


async def test_a_generation_that_comes_and_goes_is_named_each_time() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        gens = []
        for n in range(3):
            await write(node, 2, first=2 * n)
            gens.append((await node.top("r")).gen)
            node.broker.faults.renew(R)
        named = [place[3:] for place in places(reader)]
        assert named == [(gens[0],), (), (gens[1],), (), (gens[2],), ()]


async def test_a_repair_waits_for_a_broker_that_is_away_and_holds_what_comes() -> None:
    async with make_node() as node:
        reader, plain = await node.reading("a", "r"), await node.plain("p", "r")
        node.broker.faults.hold_live(R)
        await write(node, 3)
        _, second, third = node.broker.faults.held
        with away(node.broker):
            for listener, stream, gen, entry in (second, third):
                listener.entry(stream, gen, entry)
            await advance(10)
            assert reader.got == []
            assert plain.got == [1, 2]
        await advance(1)
        assert reader.got == [0, 1, 2]


async def test_nobody_reads_on_for_members_who_are_gone() -> None:
    async with make_node() as node:
        reader = await node.reading("a", "r")
        node.broker.faults.lose_live(R)
        await write(node, 1)
        node.broker.faults.hold_live(R)
        await write(node, 1)
        with away(node.broker):
            for listener, stream, gen, entry in node.broker.faults.held:
                listener.entry(stream, gen, entry)
            await advance(5)
            node.leave(reader)
            before = asyncio.get_running_loop().time()
            await node.dispatcher.close(100)
            assert asyncio.get_running_loop().time() - before <= 1
