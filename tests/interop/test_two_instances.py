"""Two processes with one broker are one server, for clients of every kind: five on each, and each speaks to all."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.brokers.nats_server import NatsServer
from tests.brokers.redis_server import RedisServer
from tests.interop.crowd import Member, crowd
from tests.interop.instances import (
    ASK,
    ASK_NODES,
    BRING,
    END,
    NODE,
    SAID,
    SAY,
    SAY_TO_USER,
    SHOW,
    SHOWN,
    TAKE,
    TELL_NODES,
    TICK,
    TICKED,
    TOLD,
    WHO,
)
from tests.interop.processes import ServerProcess, running_server

pytestmark = [pytest.mark.node, pytest.mark.bellwire(clock="real")]

Pair: TypeAlias = tuple[ServerProcess, ServerProcess]
EVERYBODY = 10


@pytest.fixture(scope="module", params=["valkey", "nats"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp(request.param)
    broker = RedisServer(folder) if request.param == "valkey" else NatsServer(folder)
    run = partial(running_server, "--broker", broker.url, target="tests.interop.instances:server")
    with run() as a, run() as b:
        yield a, b
    broker.kill()


def text_of(member: Member) -> str:
    return f"from {member!r}"


async def test_a_room_is_reached_from_every_client_on_either_node(pair: Pair, node_modules: Path) -> None:
    async with crowd(pair, node_modules) as c:
        for member in c.members:
            assert await member.ask(SAY, [c.room], [], text_of(member))
        assert len(c.members) == EVERYBODY
        for member in c.members:
            await member.hears(SAID, *map(text_of, c.members))


async def test_who_is_excluded_is_so_on_either_node(pair: Pair, node_modules: Path) -> None:
    async with crowd(pair, node_modules) as c:
        for member, other in zip(c.on(0), c.on(1), strict=True):
            await member.ask(SAY, [c.room], [member.id, other.id], text_of(member))
        await c.members[0].ask(SAY, [c.room], [], "the end")
        for member, other in zip(c.on(0), c.on(1), strict=True):
            for one in (member, other):
                await one.hears(SAID, *[text_of(by) for by in c.on(0) if by is not member], "the end")


async def test_one_socket_is_reached_by_its_id_whether_it_recovers_or_not(pair: Pair, node_modules: Path) -> None:
    async with crowd(pair, node_modules) as c:
        for asker in (c.on(0)[0], c.on(1)[-1]):
            for member in c.members:
                await asker.ask(SAY, [member.id], [], f"to {member!r} {text_of(asker)}")
        await c.members[0].ask(SAY, [c.room], [], "the end")
        for member in c.members:
            texts = [f"to {member!r} {text_of(asker)}" for asker in (c.on(0)[0], c.on(1)[-1])]
            await member.count(SAID, 3)
            assert sorted(member.heard(SAID)) == sorted([*texts, "the end"])  # streams have no common order


async def test_a_user_is_reached_on_both_nodes(pair: Pair, node_modules: Path) -> None:
    async with crowd(pair, node_modules) as c:
        await c.on(0)[0].ask(SAY_TO_USER, "http", "to http")
        await c.on(1)[0].ask(SAY_TO_USER, "node polling", "to a stock client")
        for kind, text in (("http", "to http"), ("polling", "to a stock client")):
            for member in c.members:
                if member.kind == kind:
                    await member.hears(SAID, text)
        await c.members[0].ask(SAY, [c.room], [], "the end")
        for member in c.members:
            if member.kind in ("websocket", "python", "ws"):
                await member.hears(SAID, "the end")


async def test_binary_and_volatile_events_reach_the_other_node(pair: Pair, node_modules: Path) -> None:
    async with crowd(pair, node_modules) as c:
        for member in (c.on(0)[-1], c.on(1)[-2]):  # those that can say bytes
            await member.ask(SHOW, c.room, b"\x00\xff")
            await member.ask(TICK, c.room, text_of(member))
        for member in c.members:
            await member.hears(SHOWN, *[["00ff", "behind it"]] * 2)
            await member.hears(TICKED, text_of(c.on(0)[-1]), text_of(c.on(1)[-2]))


async def test_a_call_brings_the_replies_of_both_nodes(pair: Pair, node_modules: Path) -> None:
    async with crowd(pair, node_modules) as c:
        for asker in c.members:
            asked = await asker.ask(ASK, c.room)
            assert asked == {"answers": {member.id: member.id for member in c.members}, "missing": [], "unreachable": 0}


async def test_sockets_are_found_moved_and_ended_on_both_nodes(pair: Pair, node_modules: Path) -> None:
    async with crowd(pair, node_modules) as c:
        users = {"polling": "node polling", "websocket": "node websocket"}
        everybody = {member.id: users.get(member.kind, member.kind) for member in c.members}
        for asker in (c.on(0)[1], c.on(1)[2]):
            assert await asker.ask(WHO, c.room) == everybody
        other = f"{c.room} other"
        await c.on(0)[2].ask(BRING, c.room, other)
        assert await c.on(1)[1].ask(WHO, other) == everybody
        await c.on(1)[3].ask(TAKE, other, c.room)
        assert await c.on(0)[3].ask(WHO, c.room) == {}
        await c.on(0)[0].ask(SAY, [other], [], "moved")
        for member in c.members:
            await member.hears(SAID, "moved")
        witness = await c.own("http", 1)
        await witness.ask(END, other)
        for member in c.members:
            await member.ends()
        assert await witness.ask(WHO, other) == {}


async def test_nodes_tell_and_ask_each_other(pair: Pair, node_modules: Path) -> None:
    async with crowd(pair, node_modules) as c:
        a, b = c.on(0)[0], c.on(1)[0]
        ids = await a.ask(NODE), await b.ask(NODE)
        assert ids[0] != ids[1]
        for one, other, (sender, answerer) in ((a, b, ids), (b, a, ids[::-1])):
            text = f"{c.room} {text_of(one)}"
            await one.ask(TELL_NODES, text)
            asked = await one.ask(ASK_NODES, text)  # it is behind what was told before
            assert asked == {"answers": {answerer: text.upper()}, "missing": [], "unreachable": 0}
            told = await other.ask(TOLD)
            assert [sender, text] in [[*by] for by in told]
            assert text not in [said for _, said in await one.ask(TOLD)]
