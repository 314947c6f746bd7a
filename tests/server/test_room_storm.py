"""Very many come back to one room: what they missed is read once for all."""

import asyncio
from typing import Any

from bellwire.brokers.memory import MemoryBroker
from bellwire.delivery.answer import PAGE_MESSAGES
from bellwire.delivery.naming import stream_of
from bellwire.delivery.position import Position
from bellwire.delivery.ring import RING_MESSAGES
from bellwire.server.room import PAGE_SECONDS
from bellwire.testing.clock import advance
from tests.server.nodes import (
    Gate,
    Member,
    Node,
    come_back,
    go_away,
    make_node,
    write,
)

R = stream_of("/", "r")


async def _away_too_long(node: Node, members: list[Member]) -> list[Position]:
    """Let them all be away until the ring has gone past where they stand."""
    positions = [go_away(node, member) for member in members]
    await write(node, RING_MESSAGES + 5)
    return positions


def _watch_reads(broker: MemoryBroker) -> list[bool]:
    reads: list[bool] = []
    read = broker.read

    async def watch(stream: str, after: Position, **options: Any) -> Any:
        reads.append(options["confirmed"])
        return await read(stream, after, **options)

    broker.read = watch  # type: ignore[method-assign]
    return reads


async def test_all_who_come_back_from_the_same_place_are_read_for_once() -> None:
    async with make_node() as node:
        await node.reading("0", "r")
        members = [await node.reading(str(n), "r") for n in range(1, 4)]
        positions = await _away_too_long(node, members)
        reads = _watch_reads(node.broker)
        for member, position in zip(members[:2], positions, strict=False):
            come_back(node, member, position)
        await advance()
        assert reads == [False]
        await write(node, 1, first=RING_MESSAGES + 5)
        assert members[0].got[1:] == members[1].got[1:] == [*range(RING_MESSAGES + 6)]
        await advance(PAGE_SECONDS + 0.1)
        come_back(node, members[2], positions[2])
        await advance()
        assert reads == [False, False]


async def _each_away_from_elsewhere(node: Node, members: list[Member]) -> list[Position]:
    """Let one after the other go away, with an entry between, until the ring has gone past where they all stand."""
    positions = []
    for number, member in enumerate(members):
        positions.append(go_away(node, member))
        member.got.clear()
        await write(node, 1, first=number)
    await write(node, RING_MESSAGES + 5, first=len(members))
    return positions


async def test_a_storm_of_clients_reads_the_history_once_wherever_each_of_them_stands() -> None:
    gate = Gate()
    await gate.start()
    async with make_node(gate) as node:
        await node.reading("0", "r")
        members = [await node.reading(str(n), "r") for n in range(1, 701)]
        positions = await _each_away_from_elsewhere(node, members)
        entries = len(members) + RING_MESSAGES + 5
        gate.hold("read")
        reads = _watch_reads(gate)
        for member, position in reversed([*zip(members, positions, strict=True)]):
            come_back(node, member, position)
        await advance()
        gate.let_go("read")
        await advance(5)
        for number, member in enumerate(members):
            assert [thing for thing in member.got if isinstance(thing, int)] == [*range(number, entries)]
        assert len(reads) <= 2 + 2 * entries // PAGE_MESSAGES


async def test_a_storm_of_proofs_reads_the_history_once() -> None:
    gate = Gate()
    await gate.start()
    async with make_node(gate) as node:
        await node.reading("0", "r")
        members = [await node.reading(str(n), "r") for n in range(1, 101)]
        positions = await _each_away_from_elsewhere(node, members)
        gate.hold("read")
        reads = _watch_reads(gate)
        for member, position in zip(members, positions, strict=True):
            node.room("r").admit(member.itself, position)
        proofs = [asyncio.create_task(node.room("r").prove(member.itself)) for member in members]
        await advance()
        gate.let_go("read")
        assert all(await asyncio.gather(*proofs))
        assert len(reads) == 1


async def test_a_page_that_is_kept_says_nothing_about_what_follows_on_it() -> None:
    async with make_node() as node:
        await node.reading("0", "r")
        members = [await node.reading(str(n), "r") for n in range(1, 3)]
        positions = await _away_too_long(node, members)
        come_back(node, members[0], positions[0])
        await advance()
        await write(node, RING_MESSAGES + 5, first=1_000)  # the ring is beyond the end of that page
        reads = _watch_reads(node.broker)
        come_back(node, members[1], positions[1])
        await advance()
        assert reads == [True]
        assert members[0].got == members[1].got


async def test_if_the_one_who_reads_for_all_is_not_answered_another_one_reads() -> None:
    gate = Gate()
    await gate.start()
    async with make_node(gate) as node:
        await node.reading("0", "r")
        members = [await node.reading(str(n), "r") for n in range(1, 4)]
        positions = await _away_too_long(node, members)
        room = node.room("r")
        for member, position in zip(members, positions, strict=True):
            room.admit(member.itself, position)
        gate.hold("read")
        proofs = [asyncio.create_task(room.prove(member.itself)) for member in members]
        await advance()
        proofs[0].cancel()
        await advance()
        reads = _watch_reads(gate)
        gate.let_go("read")
        assert await asyncio.gather(*proofs[1:]) == [True, True]
        assert len(reads) <= 1


async def test_a_stream_is_opened_once_for_all_who_come_at_the_same_time() -> None:
    gate = Gate()
    await gate.start()
    async with make_node(gate) as node:
        tops: list[str] = []
        top = gate.top

        async def watch(stream: str) -> Position:
            tops.append(stream)
            return await top(stream)

        gate.top = watch  # type: ignore[method-assign]
        room = node.hub.guest("r")
        gate.hold("top")
        standing = [asyncio.create_task(room.stand()) for _ in range(5)]
        await advance()
        gate.let_go("top")
        places = await asyncio.gather(*standing)
        assert len(set(places)) == 1
        assert len(tops) == 1  # it was empty, and where the marker stands is told when it is appended
        node.hub.part(room)
