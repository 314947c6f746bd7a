"""Corner cases of delivery from server to client, each with the behaviour that is promised."""

from bellwire.delivery.entry import Copy, Draft, enter
from bellwire.delivery.log import Limits
from bellwire.delivery.position import Position
from bellwire.delivery.receiver import Reset
from bellwire.delivery.ring import State
from tests.delivery.cluster import Client, Node, World

ROOM = "room"


def _joined(world: World, *names: str) -> tuple[Node, list[Client]]:
    node = Node(world)
    clients = [Client(name) for name in names]
    for client in clients:
        client.join(node, ROOM)
        client.take()
    return node, clients


def _resets(client: Client) -> list[Reset]:
    return [seen for seen in client.handed[ROOM] if isinstance(seen, Reset)]


def test_c07_history_truncated_is_told_before_anything_newer_and_nothing_older_follows() -> None:
    world = World(Limits(messages=3))
    _, (client,) = _joined(world, "a")
    world.publish(ROOM, "m1")
    client.take()
    client.cut()
    world.publish(ROOM, *(f"m{n}" for n in range(2, 10)))
    node = Node(world)
    client.connect(node)
    node.drive()
    client.take()
    assert client.mids(ROOM) == ["m1", "[truncated]", "m6", "m7", "m8", "m9"]
    (reset,) = _resets(client)
    assert reset.restart.seq == world.top(ROOM).seq - 4


def test_c07_the_ring_spares_those_who_were_away_for_a_moment() -> None:
    world = World(Limits(messages=3))
    node, (client, other) = _joined(world, "a", "b")
    client.cut()
    world.publish(ROOM, *(f"m{n}" for n in range(1, 10)))
    client.connect(node)
    node.drive()
    client.take()
    other.take()
    assert client.mids(ROOM) == other.mids(ROOM) == [f"m{n}" for n in range(1, 10)]
    assert node.reads == 0


def test_c07_a_quiet_room_resets_nobody() -> None:
    world = World(Limits(age=600.0))
    _, (client,) = _joined(world, "a")
    world.publish(ROOM, "m1", "m2")
    client.take()
    client.cut()
    world.time += 3 * 3600
    node = Node(world)  # its ring is empty: only the log's top is left to prove the position
    client.connect(node)
    node.drive()
    world.publish(ROOM, "m3")
    client.take()
    assert client.mids(ROOM) == ["m1", "m2", "m3"]


def test_c08_a_new_generation_continues_what_it_holds() -> None:
    world = World()
    node, (client,) = _joined(world, "a")
    world.publish(ROOM, "m1", "m2")
    client.take()
    client.cut()
    before = client.receiver.received()[ROOM].gen
    world.faults.renew(ROOM)
    world.publish(ROOM, "m3")
    client.connect(Node(world))
    assert client.node is not None
    client.node.drive()
    client.take()
    assert client.mids(ROOM) == ["m1", "m2", "m3"]
    assert client.receiver.received()[ROOM].gen == world.top(ROOM).gen != before
    assert node.feeds[ROOM].ring.gen == world.top(ROOM).gen


def test_c09_a_phantom_tail_is_reset_and_known_messages_are_not_repeated() -> None:
    world = World()
    _, (client,) = _joined(world, "a")
    world.publish(ROOM, "m1", "m2", "m3")
    client.take()
    client.cut()
    world.faults.lose_tail(ROOM, 2)
    world.publish(ROOM, "m2", "n1")  # the publisher of m2 tries again, with the same id
    node = Node(world)
    client.connect(node)
    node.drive()
    client.take()
    assert client.mids(ROOM) == ["m1", "m2", "m3", "[diverged]", "n1"]
    assert _resets(client)[0].restart.seq <= 2  # the marker and m1 are all that is left of what it has seen


def test_c10_a_stream_that_was_wiped_resets_with_generation() -> None:
    world = World()
    _, (client,) = _joined(world, "a")
    world.publish(ROOM, "m1", "m2")
    client.take()
    client.cut()
    world.faults.wipe(ROOM)
    world.publish(ROOM, "n1")
    node = Node(world)
    client.connect(node)
    node.drive()
    client.take()
    assert client.mids(ROOM) == ["m1", "m2", "[generation]", "n1"]


def test_c10_those_who_are_connected_while_it_is_wiped_learn_it_with_the_next_entry() -> None:
    world = World()
    _, (client,) = _joined(world, "a")
    world.publish(ROOM, "m1", "m2")
    world.faults.wipe(ROOM)
    world.publish(ROOM, "n1")
    client.take()
    assert client.mids(ROOM) == ["m1", "m2", "[generation]", "n1"]


def test_c12_a_dead_subscription_is_found_by_the_probe_and_repaired_without_a_reset() -> None:
    world = World()
    node, clients = _joined(world, "a", "b")
    world.faults.deafen(node)
    world.publish(ROOM, "m1", "m2", "m3")
    assert not any(client.link for client in clients)
    node.probe(ROOM)
    for client in clients:
        client.take()
        assert client.mids(ROOM) == ["m1", "m2", "m3"]
    assert node.reads == 1


def test_c13_one_lost_live_message_is_repaired_by_one_read_for_all() -> None:
    world = World()
    node, clients = _joined(world, *(f"c{n}" for n in range(20)))
    world.publish(ROOM, "m1")
    world.faults.lose_live(ROOM)
    world.publish(ROOM, "m2", "m3", "m4")
    for client in clients:
        client.take()
        assert client.mids(ROOM) == ["m1", "m2", "m3", "m4"]
    assert node.reads == 1


def test_c16_live_messages_out_of_order_are_handed_over_in_the_order_of_the_log() -> None:
    world = World()
    _, (client,) = _joined(world, "a")
    world.faults.hold_live(ROOM)
    world.publish(ROOM, "m1", "m2", "m3")
    for listener, stream, gen, entry in reversed(world.faults.held):
        listener.entry(stream, gen, entry)
    client.take()
    assert client.mids(ROOM) == ["m1", "m2", "m3"]


def test_c17_a_slow_reader_pulls_and_is_told_when_the_history_has_gone_past_it() -> None:
    world = World(Limits(messages=3))
    node = Node(world, page=2, ring=2)
    client = Client("a")
    client.join(node, ROOM)
    client.take()
    node.lazy = True
    node.feed(ROOM).lag(client)
    world.publish(ROOM, "m1", "m2", "m3", "m4")
    assert node.step(ROOM, client)  # reads m1 and m2
    assert node.step(ROOM, client)  # sends them
    world.publish(ROOM, *(f"n{n}" for n in range(8)))
    node.drive()
    client.take()
    assert client.mids(ROOM) == ["m1", "m2", "[too_far]", "n4", "n5", "n6", "n7"]


def test_c17_a_slow_reader_that_catches_up_is_live_again_and_has_noticed_nothing() -> None:
    world = World()
    node, (client,) = _joined(world, "a")
    node.feed(ROOM).lag(client)
    world.publish(ROOM, "m1", "m2")
    node.drive()
    world.publish(ROOM, "m3")
    client.take()
    assert client.mids(ROOM) == ["m1", "m2", "m3"]
    assert client in node.feed(ROOM).audience.live


def test_c20_a_handler_that_raises_keeps_the_cursor_and_is_tried_again_until_the_dead_letter() -> None:
    world = World()
    _, (client,) = _joined(world, "a")
    client.at_once = False
    points = world.publish(ROOM, "m1", "m2")
    client.take()
    start = client.receiver.cursors()[ROOM]
    client.fail()
    client.fail()
    assert client.receiver.cursors()[ROOM] == start
    assert not client.dead
    client.fail()
    assert [entry.mid for entry in client.dead] == ["m1"]
    assert client.receiver.cursors()[ROOM].point == points[0]
    client.handle()
    assert client.mids(ROOM) == ["m2"]
    assert client.receiver.cursors()[ROOM].point == points[1]


def test_c22_what_is_published_while_a_client_subscribes_arrives_once() -> None:
    world = World()
    _, (client,) = _joined(world, "a")
    world.publish(ROOM, "m1")
    client.cut()
    world.publish(ROOM, "m2")
    node = Node(world, page=1)
    node.lazy = True
    client.connect(node)
    number = 2
    while client in node.feed(ROOM).resuming:
        node.step(ROOM, client)
        node.repair(ROOM)
        if number < 12:
            number += 1
            world.publish(ROOM, f"m{number}")
    world.publish(ROOM, "last")
    client.take()
    assert client.mids(ROOM) == [f"m{n}" for n in range(1, number + 1)] + ["last"]


def test_c23_everyone_resumes_after_a_restart_from_one_ring() -> None:
    world = World()
    node, clients = _joined(world, *(f"c{n}" for n in range(50)))
    world.publish(ROOM, "m1")
    for client in clients:
        client.take()
    node.crash()
    again = Node(world)
    first, *rest = clients
    first.connect(again)
    again.drive()
    world.publish(ROOM, "m2")
    reads = again.reads
    for client in rest:
        client.connect(again)
    again.drive()
    for client in clients:
        client.take()
        assert client.mids(ROOM) == ["m1", "m2"]
    assert again.reads - reads <= len(rest)


def test_c24_a_cursor_ahead_of_the_top_never_continues() -> None:
    world = World()
    _, (client,) = _joined(world, "a")
    world.publish(ROOM, "m1", "m2", "m3")
    client.take()
    client.cut()
    world.faults.lose_tail(ROOM, 2, same_generation=True)
    node = Node(world)
    client.connect(node)
    node.drive()
    client.take()
    assert client.mids(ROOM) == ["m1", "m2", "m3", "[diverged]"]


def test_c24_a_follower_that_lags_is_no_verdict() -> None:
    world = World()
    _, (client,) = _joined(world, "a")
    world.publish(ROOM, "m1", "m2", "m3")
    client.take()
    client.cut()
    world.publish(ROOM, "m4")
    node = Node(world)
    world.faults.lag(ROOM, 3)
    client.connect(node)
    node.drive()
    client.take()
    assert client.mids(ROOM) == ["m1", "m2", "m3", "m4"]


def test_c25_what_was_handed_over_and_not_stored_comes_again_with_the_same_id() -> None:
    world = World()
    node, (client,) = _joined(world, "a")
    client.at_once = False
    world.publish(ROOM, "m1", "m2")
    client.take()
    client.handle()
    client.reload()  # while m2 is with its handler
    client.at_once = True
    client.connect(node)
    node.drive()
    client.take()
    assert client.mids(ROOM) == ["m1", "m2"]


# --- the flagship: a tail is lost, the numbers come again


def _fail_over(world: World, *, same_generation: bool) -> tuple[Node, list[Client], list[str]]:
    """Three subscribers of one node, one with 8 entries, one with 5, one connected throughout; then 6 to 8 change."""
    node, clients = _joined(world, "has 8", "has 5", "stays")
    world.publish(ROOM, *(f"m{n}" for n in range(1, 6)))
    for client in clients:
        client.take()
    clients[1].cut()
    world.publish(ROOM, "phantom 6", "twice", "phantom 8")
    clients[0].take()
    clients[2].take()
    clients[0].cut()
    world.faults.lose_tail(ROOM, 3, same_generation=same_generation)
    world.publish(ROOM, "other 6", "twice", "other 8")  # the one at 7 is tried again with its id, in the same place
    return node, clients, [f"m{n}" for n in range(1, 6)]


def _everyone_is_told(same_generation: bool, *, elsewhere: bool) -> None:
    world = World()
    node, (has8, has5, stays), common = _fail_over(world, same_generation=same_generation)
    target = Node(world) if elsewhere else node
    has8.connect(target)
    has5.connect(target)
    target.drive()
    world.publish(ROOM, "m9")
    for client in (has8, has5, stays):
        client.take()
    phantoms = ["phantom 6", "twice", "phantom 8"]
    told = [*common, *phantoms, "[diverged]", "other 6", "other 8", "m9"]
    assert has8.mids(ROOM) == told
    assert stays.mids(ROOM) == told
    assert has5.mids(ROOM) == [*common, "other 6", "twice", "other 8", "m9"]


def test_a_phantom_tail_is_told_under_a_new_generation() -> None:
    _everyone_is_told(same_generation=False, elsewhere=True)


def test_a_phantom_tail_is_told_under_a_new_generation_on_the_same_node() -> None:
    _everyone_is_told(same_generation=False, elsewhere=False)


def test_a_phantom_tail_is_told_when_the_same_generation_comes_back() -> None:
    _everyone_is_told(same_generation=True, elsewhere=True)


def test_a_phantom_tail_is_told_when_the_same_generation_comes_back_on_the_same_node() -> None:
    _everyone_is_told(same_generation=True, elsewhere=False)


def test_without_the_chain_check_the_phantom_tail_goes_unnoticed() -> None:
    """The same fault where all tags are equal, so that numbers and generations alone must tell."""
    world = World(tagged=False)
    node, (has8, _, stays), common = _fail_over(world, same_generation=True)
    has8.connect(node)
    node.drive()
    world.publish(ROOM, "m9")
    has8.take()
    stays.take()
    wrong = [*common, "phantom 6", "twice", "phantom 8", "m9"]
    assert has8.mids(ROOM) == stays.mids(ROOM) == wrong  # neither told, nor given what is in the log
    assert [entry.mid for entry in world.entries(ROOM, Position(world.top(ROOM).gen, 6, 0))] == [
        "other 6",
        "twice",
        "other 8",
        "m9",
    ]


# --- except_, several rooms, those who are passed over


def test_who_is_excluded_is_passed_over_live_and_resumed_and_goes_on_without_a_gap() -> None:
    world = World()
    node, (a, b) = _joined(world, "a", "b")
    world.append(ROOM, "m1")
    world.append(ROOM, "m2", excluded=["a"])
    world.append(ROOM, "m3")
    b.take()
    b.cut()
    world.append(ROOM, "m4", excluded=["b"])
    world.append(ROOM, "m5")
    b.connect(node)
    node.drive()
    world.append(ROOM, "m6")
    for client in (a, b):
        client.take()
    assert a.mids(ROOM) == ["m1", "m3", "m4", "m5", "m6"]
    assert b.mids(ROOM) == ["m1", "m2", "m3", "m5", "m6"]
    assert not a.receiver.ignored


def test_who_only_speaks_is_told_where_it_stands_so_that_it_can_resume() -> None:
    world = World(Limits(messages=10))
    node, (a, b) = _joined(world, "a", "b")
    for n in range(300):
        world.append(ROOM, f"m{n}", excluded=["a"])
    node.probe(ROOM)
    a.take()
    assert a.receiver.received()[ROOM] == world.top(ROOM)
    a.connect(Node(world))
    assert a.node is not None
    a.node.drive()
    world.publish(ROOM, "last")
    a.take()
    b.take()
    assert a.mids(ROOM) == ["last"]
    assert len(b.mids(ROOM)) == 301


def test_a_message_to_several_rooms_is_taken_from_the_first_that_the_receiver_was_in() -> None:
    world = World()
    node = Node(world)
    both, second = Client("both"), Client("second")
    both.join(node, "r1")
    both.join(node, "r2")
    second.join(node, "r2")
    first = world.append("r1", "m1")
    world.append("r2", "m1", copies=[Copy("r1", first.gen, first.point.seq)])
    world.append("r2", "m2")
    for client in (both, second):
        client.take()
    assert (both.mids("r1"), both.mids("r2")) == (["m1"], ["m2"])
    assert second.mids("r2") == ["m1", "m2"]


def test_a_marker_is_a_place_to_stand_on_and_never_handed_over() -> None:
    world = World()
    node, (client,) = _joined(world, "a")
    assert world.top(ROOM).seq == 1
    assert not client.handed
    assert client.receiver.received()[ROOM] == world.top(ROOM)
    world.faults.wipe(ROOM)
    client.connect(node)
    node.probe(ROOM)
    client.take()
    assert client.mids(ROOM) == ["[generation]"]


def test_a_membership_that_ended_is_resumed_up_to_its_end() -> None:
    world = World()
    node, (client,) = _joined(world, "a")
    world.publish(ROOM, "m1")
    client.take()
    cursor = client.receiver.received()[ROOM]
    client.cut()
    world.publish(ROOM, "m2", "m3")
    until = world.top(ROOM)
    world.publish(ROOM, "m4")
    client.node = node
    node.feed(ROOM).resume(client, cursor, until=until)
    node.drive()
    world.publish(ROOM, "m5")
    client.take()
    assert client.mids(ROOM) == ["m1", "m2", "m3"]
    assert node.feed(ROOM).empty


def test_a_deposed_leader_costs_a_read_and_changes_nothing() -> None:
    world = World()
    node, (client,) = _joined(world, "a")
    world.publish(ROOM, "m1")
    entry = world.broker._log(ROOM).newest
    foreign = enter(Draft("foreign", 999_999, b""), entry.seq + 1, entry.point, 0.0)
    world.publish(ROOM, "m2")
    node.entry(ROOM, "old", foreign)
    world.publish(ROOM, "m3")
    client.take()
    assert client.mids(ROOM) == ["m1", "m2", "m3"]
    assert node.reads == 1
    assert node.feed(ROOM).ring.state is State.FOLLOWING
