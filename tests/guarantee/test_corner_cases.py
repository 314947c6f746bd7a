"""The corner cases of streams and their brokers, each with exactly the behaviour that is promised for it.

C7 to C13, C16, C22 and C24. Those of numbered events, C1 to C6, are in `test_upstream_cases`; those of sessions,
clients and clocks are in `test_session_cases`.
"""

import asyncio
import itertools

import pytest

from bellwire.delivery.log import Limits
from bellwire.server.room import Room
from tests.guarantee.client import Client, Handed, Opened
from tests.guarantee.world import Make, Node, World, stream

A = stream("a")


async def _two(world: World) -> tuple[Node, list[Client]]:
    node = await world.node()
    return node, [await world.client(node, "a") for _ in range(2)]


async def _return(world: World, node: Node, *clients: Client) -> Node:
    """Let ``node`` die, and its clients come back to a new one, which knows nothing but what the broker has."""
    node.crash()
    node = await world.node()
    for client in clients:
        await client.connect(node)
        assert client.resumed
    return node


async def _have(world: World, *clients: Client, labels: list[str], within: float = 10.0) -> None:
    await world.until(lambda: all(client.of(A) == labels for client in clients), within=within)


def _numbered(first: int, last: int) -> list[str]:
    return [f"m{n}" for n in range(first, last + 1)]


# --- C7: the history was truncated


async def test_c07_a_truncated_history_is_told_before_anything_newer_and_nothing_older_follows(make: Make) -> None:
    async with make(Limits(messages=3)) as world:
        node, (client, other) = await _two(world)
        await node.say("a", "m1")
        await _have(world, client, other, labels=["m1"])
        client.cut()
        await node.say("a", *_numbered(2, 9))
        await _have(world, other, labels=_numbered(1, 9))
        node = await _return(world, node, client, other)
        await node.say("a", "m10")
        await _have(world, client, labels=["m1", "[truncated]", *_numbered(6, 10)])
        await _have(world, other, labels=_numbered(1, 10))
        (reset,) = client.resets
        handed = {event.label: event for event in client.history if isinstance(event, Handed)}
        assert reset.restart is not None
        assert handed["m1"].seq < reset.restart.seq < handed["m6"].seq


async def test_c07_a_history_that_is_too_old_is_truncated(make: Make) -> None:
    async with make(Limits(age=60.0)) as world:
        node, (client, other) = await _two(world)
        await node.say("a", "m1")
        await _have(world, client, other, labels=["m1"])
        client.cut()
        await node.say("a", "m2")
        await world.pass_time(61)
        await node.say("a", "m3")
        await _return(world, node, client)
        await _have(world, client, labels=["m1", "[truncated]", "m3"])


async def test_c07_a_quiet_room_resets_nobody(make: Make) -> None:
    async with make(Limits(age=60.0)) as world:
        node, (client, _) = await _two(world)
        await node.say("a", "m1")
        await _have(world, client, labels=["m1"])
        client.cut()
        await world.pass_time(61)
        node = await _return(world, node, client)
        await node.say("a", "m2")
        await _have(world, client, labels=["m1", "m2"])


# --- C8 to C10, C24: another generation, another history


async def test_c08_what_a_new_generation_still_holds_is_continued(make_any: Make) -> None:
    """A Redis that was killed goes on under another generation, a nats-server under the same."""
    async with make_any() as world:
        node, (client, other) = await _two(world)
        await node.say("a", "m1", "m2")
        await _have(world, client, other, labels=["m1", "m2"])
        client.cut()
        if world.in_memory:
            world.memory.faults.renew(A)
        else:
            await world.process.kill()
        await node.say("a", "m3")
        await _have(world, other, labels=_numbered(1, 3))
        node = await _return(world, node, client, other)
        await node.say("a", "m4")
        await _have(world, client, other, labels=_numbered(1, 4))


async def _lose_tail(world: World, count: int, *, same_generation: bool) -> None:
    """Take the newest entries back: a replica lacks them, or a backup is restored that was made before."""
    if world.in_memory:
        world.memory.faults.lose_tail(A, count, same_generation=same_generation)
    else:
        await world.data.restore()


@pytest.mark.parametrize("same_generation", [False, True])
async def test_c09_a_phantom_tail_is_reset_to_the_last_valid_entry_and_what_is_known_not_repeated(
    make: Make, same_generation: bool
) -> None:
    """On NATS a backup is restored: the generation is the same in any case."""
    async with make() as world:
        node, (away, here) = await _two(world)
        early = await world.client(node, "a")
        await node.say("a", *_numbered(1, 5))
        await _have(world, away, here, early, labels=_numbered(1, 5))
        early.cut()
        if not world.in_memory:
            await world.data.back_up()
        await node.say("a", "m6", mid="sixth")
        await node.say("a", "m7", "m8")
        await _have(world, away, here, labels=_numbered(1, 8))
        away.cut()
        await _lose_tail(world, 3, same_generation=same_generation)
        await node.say("a", "n6", "n7")
        await node.say("a", "m6", mid="sixth")
        await node.say("a", "n9")
        await _have(world, here, labels=[*_numbered(1, 8), "[diverged]", "n6", "n7", "n9"])
        await _return(world, node, away, early, here)
        await _have(world, away, labels=[*_numbered(1, 8), "[diverged]", "n6", "n7", "n9"])
        await _have(world, early, labels=[*_numbered(1, 5), "n6", "n7", "m6", "n9"])
        for client in (away, here):
            (reset,) = client.resets
            places = {event.label: event for event in client.history if isinstance(event, Handed)}
            assert reset.restart is not None
            assert reset.restart.seq <= places["m5"].seq


async def test_c10_a_wiped_stream_is_another_one(make_any: Make) -> None:
    async with make_any() as world:
        node, (client, other) = await _two(world)
        await node.say("a", "m1", "m2")
        await _have(world, client, other, labels=["m1", "m2"])
        client.cut()
        if world.in_memory:
            world.memory.faults.wipe(A)
        else:
            await world.process.wipe(A)
        node = await _return(world, node, client)
        await node.say("a", "m3")
        await _have(world, client, labels=["m1", "m2", "[generation]", "m3"])


async def test_c24_a_cursor_ahead_of_the_log_never_continues(make: Make) -> None:
    async with make() as world:
        node, (client, _) = await _two(world)
        await node.say("a", "m1")
        await _have(world, client, labels=["m1"])
        if not world.in_memory:
            await world.data.back_up()
        await node.say("a", "m2", "m3")
        await _have(world, client, labels=_numbered(1, 3))
        node.crash()
        await _lose_tail(world, 2, same_generation=True)
        await world.patiently(lambda: _connect(world, client))
        await _have(world, client, labels=[*_numbered(1, 3), "[diverged]"])


async def _connect(world: World, client: Client) -> Node:
    node = await world.node()
    await client.connect(node)
    return node


async def test_c24_a_follower_that_lags_is_no_verdict(make_memory: Make) -> None:
    """On a single nats-server there is no follower to ask."""
    async with make_memory() as world:
        node, (client, _) = await _two(world)
        await node.say("a", *_numbered(1, 4))
        await _have(world, client, labels=_numbered(1, 4))
        world.memory.faults.lag(A, 3)
        node = await _return(world, node, client)
        await node.say("a", "m5")
        await _have(world, client, labels=_numbered(1, 5))


# --- C11 to C13: what the broker loses on the way


@pytest.mark.parametrize("done", [True, False])
async def test_c11_an_unanswered_append_is_one_message_and_one_success(make_any: Make, done: bool) -> None:
    """A server stands still when it is asked, and dies: it had done it (after a moment) or not."""
    async with make_any() as world:
        node, clients = await _two(world)
        await node.say("a", "m1")
        if world.in_memory:
            world.memory.faults.lose_answer(done=done)
            await node.say("a", "m2")
        else:
            await _have(world, *clients, labels=["m1"])
            await _say_while_it_dies(world, node, "m2", moment=0.001 if done else 0.0)
        await node.say("a", "m3")
        await _have(world, *clients, labels=_numbered(1, 3))
        assert sum(b"m2" in entry.body for entry in await world.backend.history(A)) == 1


async def _say_while_it_dies(world: World, node: Node, label: str, *, moment: float) -> None:
    if not moment:
        world.process.freeze()
    task = asyncio.create_task(node.say("a", label))
    await asyncio.sleep(moment)
    await world.process.kill()
    await task


async def test_c11_a_failover_that_loses_the_append_has_it_once_all_the_same(make_memory: Make) -> None:
    """A single nats-server acknowledges nothing before it is on the disk, and fails over to nobody."""
    async with make_memory() as world:
        node, (here, away) = await _two(world)
        await node.say("a", "m1")
        await _have(world, here, away, labels=["m1"])
        away.cut()
        world.memory.faults.lose_answer(done=True)
        emit = asyncio.create_task(node.say("a", "m2"))
        await _have(world, here, labels=["m1", "m2"], within=0.04)
        world.memory.faults.lose_tail(A, 1)
        await emit
        await node.say("a", "m3")
        await _have(world, here, labels=["m1", "m2", "[diverged]", "m3"])
        await _return(world, node, away)
        await _have(world, away, labels=["m1", "m2", "m3"])


async def _deafen(world: World, node: Node) -> None:
    """Let the subscription die while the connection is fine."""
    if world.in_memory:
        world.memory.faults.deafen(node.broker.ear(A))
    else:
        await world.process.unsubscribe(node.broker, A)


async def test_c12_a_dead_subscription_is_found_within_two_probes_and_made_anew(make_any: Make) -> None:
    """On a real server the rounds of the probe, which come every 30 s, are run by hand."""
    async with make_any() as world:
        node, clients = await _two(world)
        await node.say("a", "m1")
        await _have(world, *clients, labels=["m1"])
        before = [client.connection for client in clients]
        await _deafen(world, node)
        await node.say("a", "m2")
        await _probe(world, node.room("a"))
        await _have(world, *clients, labels=["m1", "m2"])
        reads = node.broker.asked["read"]
        await node.say("a", "m3")
        await _have(world, *clients, labels=_numbered(1, 3))
        assert node.broker.asked["read"] == reads, "the subscription is alive again"
        assert [client.connection for client in clients] == before


async def _probe(world: World, room: Room) -> None:
    if world.in_memory:
        await world.pass_time(60.5)
    else:
        await room.probe()
        await room.probe()


async def test_c13_one_lost_message_is_repaired_by_one_read_for_all(make_any: Make) -> None:
    async with make_any() as world:
        node = await world.node()
        clients = [await world.client(node, "a") for _ in range(5)]
        await node.say("a", "m1")
        await _have(world, *clients, labels=["m1"])
        reads = node.broker.asked["read"]
        node.broker.losing[A] = 1
        await node.say("a", "m2")
        await node.say("a", "m3")
        await _have(world, *clients, labels=_numbered(1, 3))
        assert node.broker.asked["read"] == reads + 1


# --- C16, C22: order, and the moment of joining


async def test_c16_all_nodes_have_the_same_order_and_each_publisher_its_own(make_any: Make) -> None:
    async with make_any() as world:
        nodes = [await world.node(), await world.node()]
        clients = [await world.client(node, "a") for node in nodes for _ in range(2)]
        await asyncio.gather(*(node.say("a", *(f"{node.name}-{n:02}" for n in range(30))) for node in nodes))
        await world.until(lambda: all(len(client.of(A)) == 60 for client in clients))
        orders = {tuple(client.of(A)) for client in clients}
        assert len(orders) == 1
        for node in nodes:
            mine = [label for label in orders.copy().pop() if label.startswith(node.name)]
            assert mine == sorted(mine)


async def test_c16_live_messages_out_of_order_are_handed_over_in_the_order_of_the_log(make_memory: Make) -> None:
    """NATS delivers what is republished in order on one connection; a broker in memory does what it is told to."""
    async with make_memory() as world:
        node, clients = await _two(world)
        world.memory.faults.hold_live(A)
        await node.say("a", *_numbered(1, 6))
        world.memory.faults.let_go(A)
        for listener, name, gen, entry in reversed(world.memory.faults.held):
            listener.entry(name, gen, entry)
        await _have(world, *clients, labels=_numbered(1, 6))


async def test_c22_everything_behind_the_position_of_a_join_arrives_once(make_any: Make) -> None:
    async with make_any() as world:
        node, other = await world.node(), await world.node()
        clients = [Client(world, f"joiner{n}") for n in range(6)]
        world.clients += clients
        for client in clients:
            await client.connect(node)
        joined = asyncio.Event()

        async def talk() -> None:
            for n in itertools.count():
                await other.say("a", f"m{n}")
                await asyncio.sleep(0)
                if joined.is_set() and n > 30:
                    break
            await other.say("a", "last")

        talking = asyncio.create_task(talk())
        for client in clients:
            await node.join(client, "a")
        joined.set()
        await talking
        await world.until(lambda: all(client.of(A)[-1:] == ["last"] for client in clients))
        log = await world.backend.history(A)
        for client in clients:
            (opened,) = [event for event in client.history if isinstance(event, Opened) and event.stream == A]
            behind = [(entry.seq, entry.mid) for entry in log if entry.seq > opened.at.seq and not entry.is_marker]
            handed = [event for event in client.history if isinstance(event, Handed)]
            assert [(event.seq, event.mid) for event in handed] == behind
