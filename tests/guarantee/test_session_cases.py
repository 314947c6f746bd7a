"""The corner cases of sessions, clients and clocks, each with exactly the behaviour that is promised for it.

C14, C15, C17 to C21, C23 and C25; the others are in `test_upstream_cases` and `test_corner_cases`.
"""

import asyncio
import time

import pytest

from bellwire.delivery.inbox import LEASE_SECONDS
from bellwire.delivery.log import Limits
from bellwire.protocol.wire import CloseCode
from bellwire.server.room import PAGE_SECONDS
from tests.guarantee.client import Client, Handed
from tests.guarantee.world import SAY, Make, Node, World, stream, stream_of_user

A = stream("a")
TEN_YEARS = 10 * 365 * 86_400.0


async def _have(world: World, *clients: Client, labels: list[str], name: str = A) -> None:
    await world.until(lambda: all(client.of(name) == labels for client in clients))


# --- C14, C15: who has a session


async def test_c14_two_tabs_of_a_user_both_receive_and_send_independently(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        one, two = [await world.client(node, "a", user="u") for _ in range(2)]
        assert one.stored.session != two.stored.session
        await node.namespace.user("u").emit(SAY, "m1")
        await _have(world, one, two, labels=["m1"], name=stream_of_user("u"))
        numbers = one.emit("once", "x"), two.emit("once", "y")
        assert numbers == (1, 1)
        await world.outcome(one, 1)
        await world.outcome(two, 1)
        assert sorted(world.effects) == ["x", "y"]
        two.cut()
        await node.namespace.user("u").emit(SAY, "m2")
        await _have(world, one, labels=["m1", "m2"], name=stream_of_user("u"))
        await two.connect(node)
        await _have(world, two, labels=["m1", "m2"], name=stream_of_user("u"))


async def test_c14_a_duplicated_tab_becomes_a_fork_that_begins_at_the_same_cursors(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        tab = await world.client(node, "a", user="u")
        await node.say("a", "m1")
        await _have(world, tab, labels=["m1"])
        number = tab.emit("once", "x")
        await world.outcome(tab, number)
        copy = tab.duplicated("copy")
        await node.say("a", "m2")
        await _have(world, tab, labels=["m1", "m2"])
        connection = tab.connection
        await copy.connect(node)
        await _have(world, copy, labels=["m2"])
        assert copy.resumed
        assert copy.id != tab.id
        assert copy.stored.session != tab.stored.session
        assert copy.stored.outbox.state.producer != tab.stored.outbox.state.producer
        assert tab.connection is connection, "the first goes on as it was"

        await node.say("a", "m3")
        await _have(world, tab, labels=["m1", "m2", "m3"])
        await _have(world, copy, labels=["m2", "m3"])
        theirs, ours = copy.emit("once", "theirs"), tab.emit("once", "ours")
        assert (theirs, ours) == (1, 2)
        await world.outcome(copy, theirs)
        await world.outcome(tab, ours)
        assert sorted(world.effects) == ["ours", "theirs", "x"]

        copy.cut()
        await node.say("a", "m4")
        await copy.connect(node)
        await _have(world, copy, labels=["m2", "m3", "m4"])


async def test_c14_a_tab_that_was_duplicated_on_another_node_goes_on_and_the_copy_forks(make: Make) -> None:
    async with make() as world:
        first, second = await world.node(), await world.node()
        tab = await world.client(first, "a")
        copy = tab.duplicated("copy")
        await first.say("a", "m1")
        await _have(world, tab, labels=["m1"])
        connection = tab.connection
        await copy.connect(second)
        await _have(world, copy, labels=["m1"])
        assert copy.id != tab.id
        assert copy.stored.session != tab.stored.session
        await second.say("a", "m2")
        await _have(world, tab, labels=["m1", "m2"])
        await _have(world, copy, labels=["m1", "m2"])
        assert tab.connection is connection, "the first goes on as it was"


async def test_c14_what_a_duplicated_tab_found_in_its_outbox_is_sent_by_the_first_alone(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        tab = await world.client(node)
        world.gate.close()
        number = tab.emit("once", "x")
        await world.until(lambda: world.gate.waiting == 1)
        copy = tab.duplicated("copy")
        await copy.connect(node)
        new = copy.emit("again", "y")
        world.gate.open()
        await world.outcome(tab, number)
        await world.outcome(copy, new)
        assert sorted(world.effects) == ["x", "y"]
        assert new == 1


async def test_c14_a_tab_whose_first_is_gone_takes_the_session_up(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        tab = await world.client(node, "a")
        copy = tab.duplicated("copy")
        tab.cut()
        await node.say("a", "m1")
        await copy.connect(node)
        await _have(world, copy, labels=["m1"])
        assert copy.stored.session == tab.stored.session


async def test_c15_a_half_open_connection_is_closed_when_its_session_comes_back(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a")
        await node.say("a", "m1")
        await _have(world, client, labels=["m1"])
        half_open = client.leave_half_open()
        await node.say("a", "m2")
        await client.connect(node)
        await node.say("a", "m3")
        await _have(world, client, labels=["m1", "m2", "m3"])
        assert client.resumed
        await world.until(lambda: not half_open.carrier.open)
        assert half_open.code == CloseCode.REPLACED
        assert len(node.namespace.hub("/").sockets) == 1


async def test_c15_a_half_open_connection_on_another_node_is_closed_when_it_writes(make: Make) -> None:
    async with make() as world:
        one, two = await world.node(), await world.node()
        client = await world.client(one, "a")
        await one.say("a", "m1")
        await _have(world, client, labels=["m1"])
        half_open = client.leave_half_open()
        old = one.socket(client)
        await client.connect(two)
        await one.say("a", "m2")
        await _have(world, client, labels=["m1", "m2"])
        await old.join("b")
        await world.until(lambda: not half_open.carrier.open)
        assert half_open.code == CloseCode.REPLACED
        assert "b" not in two.socket(client).rooms
        await two.join(client, "c")
        await two.say("c", "m3")
        await _have(world, client, labels=["m3"], name=stream("c"))


async def test_c15_the_instance_that_comes_last_has_the_session(make: Make) -> None:
    """Its client gave the first up, so nobody answers there: it is no duplicated tab."""
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a")
        half_open = client.leave_half_open()
        client.crash()
        await client.connect(node)
        await node.say("a", "m1")
        await _have(world, client, labels=["m1"])
        assert client.resumed
        assert half_open.code == CloseCode.REPLACED


@pytest.mark.parametrize("counting", [False, True])
async def test_c15_the_newest_connection_keeps_the_session_though_an_older_one_is_slower(
    make: Make, counting: bool
) -> None:
    async with make() as world:
        one, two = await world.node(), await world.node()
        client = await world.client(one, "a")
        client.counting = counting
        client.cut()
        one.broker.latency = lambda: 0.2
        asked = one.broker.asked["get"]
        client.dial(one)
        await world.until(lambda: one.broker.asked["get"] > asked)
        given_up = client.leave_half_open()
        await client.connect(two)
        await world.until(lambda: not given_up.carrier.open, within=60)
        await two.join(client, "b")
        await two.say("a+b", "m1")
        await _have(world, client, labels=["m1"])
        assert client.connected


# --- C18, C19: clocks


@pytest.mark.parametrize("skew", [-TEN_YEARS, TEN_YEARS])
async def test_c18_a_client_whose_clock_is_years_off_notices_nothing(make: Make, skew: float) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a")
        client.skew = skew
        await node.say("a", "m1")
        await _have(world, client, labels=["m1"])
        client.cut()
        await node.say("a", "m2")
        node.crash()
        late = client.emit("once", "x")
        node = await world.node()
        await client.connect(node)
        await _have(world, client, labels=["m1", "m2"])
        await world.outcome(client, late)
        assert world.effects == ["x"]


@pytest.mark.parametrize("skew", [-TEN_YEARS, 0.0, TEN_YEARS])
async def test_c18_a_pause_that_the_server_asks_for_is_as_long_on_any_clock(make_memory: Make, skew: float) -> None:
    async with make_memory() as world:
        node = await world.node()
        client = await world.client(node)
        client.skew = skew
        world.memory.faults.go_away()
        number = client.emit("once", "x")
        await world.until(lambda: len(client.answers) == 1)
        begun = world.loop.time()
        world.memory.faults.come_back()
        await world.outcome(client, number)
        assert world.loop.time() - begun == pytest.approx(1.0, abs=0.05)
        assert world.effects == ["x"]


@pytest.mark.parametrize("jump", [-TEN_YEARS, TEN_YEARS])
async def test_c19_a_jump_of_the_wall_clock_has_no_effect(
    make: Make, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a")
        await node.say("a", "m1")
        await _have(world, client, labels=["m1"])
        client.cut()
        world.gate.close()
        before = time.time
        monkeypatch.setattr(time, "time", lambda: before() + jump)
        await node.say("a", "m2")
        other = await world.node()
        await client.connect(other)
        number = client.emit("once", "x")
        await world.until(lambda: world.gate.waiting == 1)
        world.gate.open()
        await world.outcome(client, number)
        await _have(world, client, labels=["m1", "m2"])
        assert client.resumed
        assert [client.outcome(number)] == [f'["{run.reply}"]' for run in world.runs]


async def test_c19_a_jump_of_the_brokers_clock_runs_nothing_twice(make: Make) -> None:
    """The lease of a running handler seems to be over; what is said then is final, and the handler writes nothing."""
    async with make() as world:
        one, two = await world.node(), await world.node()
        client = await world.client(one)
        world.gate.close()
        number = client.emit("once", "x")
        await world.until(lambda: world.gate.waiting == 1)
        client.leave_half_open()
        world.backend.ahead += LEASE_SECONDS + 1
        await client.connect(two)
        assert await world.outcome(client, number) == "outcome_unknown"
        world.gate.open()
        await world.until(lambda: world.gate.waiting == 0)
        answers = len(client.answers)
        client.send(number, "once", "x", client.generation, resent=True)
        await world.until(lambda: len(client.answers) > answers)
        assert client.answers[-1] == client.answers[-2]
        assert world.effects == ["x"]


# --- C20, C25: the client's handlers


async def test_c20_a_handler_that_raises_keeps_the_cursor_and_is_tried_again_until_the_dead_letter(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a")
        await node.say("a", "m1")
        await _have(world, client, labels=["m1"])
        cursor = client.stored.cursors[A]
        tried: list[tuple[str, bool]] = []

        def fail(handed: Handed) -> None:
            tried.append((handed.label, client.receiver.cursor(A) == cursor))
            if handed.label == "m2":
                raise RuntimeError("the handler failed")

        client.on_message = fail
        await node.say("a", "m2", "m3")
        await _have(world, client, labels=["m1", "m3"])
        assert tried == [("m2", True), ("m2", True), ("m2", True), ("m3", False)]
        assert client.dead_letters == ["m2"]


async def test_c25_what_was_handled_and_not_stored_comes_again_with_the_same_id(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a")
        await node.say("a", "m1")
        await _have(world, client, labels=["m1"])
        client.saving = False
        await node.say("a", "m2", "m3")
        await _have(world, client, labels=["m1", "m2", "m3"])
        client.crash()
        assert client.of(A) == ["m1"]
        client.saving = True
        await client.connect(node)
        await _have(world, client, labels=["m1", "m2", "m3"])
        again = [event for event in client.history if isinstance(event, Handed) and event.label in ("m2", "m3")]
        assert again == client.undone


async def test_c25_what_was_stored_with_its_handling_does_not_come_again(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a")
        await node.say("a", "m1", "m2")
        await _have(world, client, labels=["m1", "m2"])
        client.crash()
        await node.say("a", "m3")
        await client.connect(node)
        await _have(world, client, labels=["m1", "m2", "m3"])
        assert client.undone == []


# --- C21: authorisation


async def test_c21_who_may_not_read_any_more_is_told_so_and_gets_nothing(make: Make) -> None:
    async with make() as world:
        node = await world.node()
        client = await world.client(node, "a", "b", user="u")
        await node.say("b", "m1")
        await _have(world, client, labels=["m1"], name=stream("b"))
        client.cut()
        await node.say("b", "secret1")
        await node.say("a", "m2")
        world.forbidden.add(("u", "b"))
        node.crash()
        node = await world.node()
        await client.connect(node)
        await node.say("b", "secret2")
        await node.say("a+b", "m3")
        await _have(world, client, labels=["m2", "m3"])
        assert client.of(stream("b")) == ["m1", "[forbidden]"]
        assert not any("secret" in part for part in (client.connection.wire if client.connection else []))
        assert node.socket(client).rooms == {"a"}

        world.forbidden.clear()
        client.cut()
        await node.say("b", "secret3")
        await client.connect(node)
        await node.say("a", "m4")
        await _have(world, client, labels=["m2", "m3", "m4"])
        assert client.of(stream("b")) == ["m1", "[forbidden]"]


# --- C23: everyone at once


async def test_c23_all_clients_of_a_room_resume_at_once_and_its_history_is_read_once(make: Make) -> None:
    async with make() as world:
        node, other = await world.node(), await world.node()
        clients = [await world.client(node, "a") for _ in range(200)]
        late = clients[:5]
        await node.say("a", *(f"m{n}" for n in range(300)))
        await _all(world, clients, 300)
        for client in late:
            client.cut()
        await node.say("a", *(f"m{n}" for n in range(300, 400)))
        await _all(world, clients[5:], 400)
        node.crash()
        await other.say("a", *(f"m{n}" for n in range(400, 500)))

        node = await world.node()
        begun = asyncio.get_running_loop().time()
        for client in clients:
            client.dial(node)
        await _all(world, clients, 500)
        assert all(client.resumed for client in clients)
        # Two places were asked for; on a slow machine more than once, for what was read is kept for some time only.
        # Each client has a stream of its own, whose top says all, as those of the others do.
        seconds = asyncio.get_running_loop().time() - begun
        assert node.broker.asked["read"] <= 4 * (1 + int(seconds / PAGE_SECONDS))
        assert node.broker.asked["top"] <= len(clients) + 2


async def _all(world: World, clients: list[Client], count: int) -> None:
    expected = [f"m{n}" for n in range(count)]
    await world.until(lambda: all(len(client.of(A)) == count for client in clients), within=20)
    assert all(client.of(A) == expected for client in clients)


_ = asyncio, Limits, Node
