"""Sessions taken up on the same node and on another: the older holder fenced off, the duplicated tab forked."""

import asyncio
from itertools import repeat

import pytest

from bellwire.brokers.base import Kept
from bellwire.core.errors import BrokerUnavailable, Disconnected
from bellwire.delivery.session import SLOWEST, Member, Turn
from bellwire.server.session import ATTEMPTS, HELD_SECONDS, Session
from bellwire.server.sessions import RENEW_SECONDS, SWEEP_SECONDS, Overtaken
from bellwire.server.upkeep import MAX_OPTIONAL
from bellwire.testing.clock import advance
from tests.server.keeping import (
    LIFETIME,
    Connection,
    Fate,
    FatefulBroker,
    at,
    count,
    create,
    member,
    node,
    resume,
    resumed,
    started,
    stored,
)

# --- taken up


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("detached", [False, True])
async def test_a_session_is_taken_up_with_all_it_has_and_the_same_id_and_secret(
    detached: bool, elsewhere: bool
) -> None:
    broker = await started()
    first = node(broker)
    old = await create(first)
    await old.join("s1", member(3))
    await old.join("s2", member(5))
    await old.leave("s2", at(9))
    await old.save(b"data")
    await old.checkpoint(1, {"s1": at(4)})
    if detached:
        old.detach()
        await advance(LIFETIME - 1)
    second = node(broker) if elsewhere else first
    new = await resumed(second, old.secret)
    assert (new.record.id, new.secret, new.forked) == ("socket-id", old.secret, False)
    assert (new.record.streams, new.record.left, new.record.data, new.record.checkpoints) == (
        old.record.streams,
        old.record.left,
        b"data",
        {1: {"s1": at(4)}},
    )
    assert new.record.fence == old.record.fence + 1
    assert broker.ends(new.key) == pytest.approx(HELD_SECONDS, abs=LIFETIME)
    await new.join("s3", member(7))
    assert await stored(broker, new) == new.record
    assert count(second, "resumed") == 1


@pytest.mark.parametrize("answer", ["kept", "lost"])
@pytest.mark.parametrize("instance", ["run", "tab"])
async def test_memberships_that_the_client_has_read_to_their_ends_are_forgotten_when_it_comes_back(
    instance: str, answer: str
) -> None:
    broker = await started()
    old = await create(node(broker))
    for name, seq in (("read", 9), ("unread", 9)):
        await old.join(name, member(3))
        await old.leave(name, at(seq))
    if answer == "lost":
        broker.faults.lose_put_answer(done=True)
    cursors = {"read": at(9), "unread": at(8)}
    new = await resumed(node(broker), old.secret, instance=instance, cursors=cursors)
    assert [past.stream for past in new.record.left] == ["unread"]
    assert new.found is not None
    assert [past.stream for past in new.found.left] == ["read", "unread"]
    assert await stored(broker, new) == new.record


async def test_a_fork_forgets_what_its_client_has_read_and_the_first_does_not() -> None:
    broker = await started()
    sessions = node(broker)
    old = await create(sessions)
    await old.join("s1", member(3))
    await old.leave("s1", at(9))
    fork = await resumed(sessions, old.secret, instance="tab", cursors={"s1": at(9)})
    assert fork.forked
    assert fork.record.left == ()
    assert fork.found is not None
    assert fork.found.spans("s1") == old.record.spans("s1") != []


async def test_a_session_survives_the_death_of_its_node() -> None:
    """All that was joined and left is on record, though nobody said goodbye."""
    broker = await started()
    old = await create(node(broker))
    await old.join("s1", member(3))
    new = await resumed(node(broker), old.secret)
    assert new.record.streams == {"s1": member(3)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"secret": "another"},
        {"secret": ""},
        {"secret": "\ud800"},
        {"principal": "bob"},
        {"principal": None},
        {"namespace": "/"},
    ],
)
async def test_a_wrong_secret_and_a_wrong_owner_are_answered_alike_and_disturb_nobody(
    wrong: dict[str, str | None],
) -> None:
    broker = await started()
    sessions = node(broker)
    connection = Connection()
    old = await create(sessions, connection)
    before = await stored(broker, old)
    asked = {"secret": old.secret, "principal": "ann", "namespace": "/chat", "instance": "other", **wrong}
    assert await sessions.resume(**asked, holder=Connection()) is None  # type: ignore[arg-type]
    assert await stored(broker, old) == before
    assert connection.probes == connection.times_replaced == 0
    assert count(sessions, "unknown") == 1


@pytest.mark.parametrize("how", ["end", "expire"])
@pytest.mark.parametrize("times_taken", [0, 1])
async def test_a_session_that_is_over_is_not_found(how: str, times_taken: int) -> None:
    broker = await started()
    sessions = node(broker)
    session = await create(sessions)
    for _ in range(times_taken):
        session = await resumed(sessions, session.secret)
    if how == "end":
        session.end()
        await advance()
    else:
        session.detach()
        await advance(LIFETIME + 1)
    assert await resume(sessions, session.secret) is None


async def test_what_this_program_cannot_read_is_not_found_and_left_alone() -> None:
    broker = await started()
    sessions = node(broker)
    session = await create(sessions)
    kept = Kept(b"of the next version", 1_000)
    broker.fall_back(session.key, kept)
    assert await resume(sessions, session.secret) is None
    assert await broker.get(session.key) == kept


async def test_without_a_broker_nothing_is_taken_up_and_nothing_is_left_to_do() -> None:
    broker = await started()
    sessions = node(broker)
    connection = Connection()
    old = await create(sessions, connection)
    broker.faults.go_away()
    with pytest.raises(BrokerUnavailable):
        await resume(sessions, old.secret)
    broker.faults.come_back()
    broker.fates.append("away")
    with pytest.raises(BrokerUnavailable):
        await resume(sessions, old.secret)
    assert len(sessions.upkeep) == 0
    assert connection.times_replaced == 0
    await old.join("s1", member(3))


@pytest.mark.parametrize("fates", [["kept"], ["lost"], ["late"], ["lost", "late"], ["late", "kept"]])
async def test_taking_up_without_an_answer_is_read_back(fates: list[Fate]) -> None:
    broker = await started()
    sessions = node(broker)
    connection, next_connection = Connection(), Connection()
    old = await create(sessions, connection)
    await old.join("s1", member(3))
    broker.fates.extend(fates)
    new = await resumed(sessions, old.secret, next_connection)
    assert await stored(broker, new) == new.record
    assert new.record.fence == 2
    await new.join("s2", member(5))
    assert (await resumed(sessions, old.secret)).record.streams == {"s1": member(3), "s2": member(5)}
    assert connection.times_replaced == next_connection.times_replaced == 1


@pytest.mark.parametrize("fate", ["kept", "lost", "late"])
async def test_what_was_taken_up_and_could_not_be_read_back_is_let_go_again(fate: Fate) -> None:
    broker = await started()
    first, second = node(broker), node(broker)
    old = await create(first)
    await old.join("s1", member(3))
    broker.hold()
    broker.fates.append(fate)
    task = asyncio.ensure_future(resume(second, old.secret))
    await advance()
    broker.blind = True
    broker.let_go()
    with pytest.raises(BrokerUnavailable):
        await task
    broker.blind = False
    await advance(60)
    assert len(second) == len(second.upkeep) == 0
    if fate == "kept":
        assert broker.ends(old.key) == pytest.approx(LIFETIME, abs=60)
    new = await resumed(second, old.secret)
    assert new.record.streams == {"s1": member(3)}


async def test_what_was_taken_up_late_after_the_repetition_was_refused_is_let_go_again() -> None:
    broker = await started()
    first, second = node(broker), node(broker)
    old = await create(first)
    broker.fates.extend(["late", "away"])
    with pytest.raises(BrokerUnavailable):
        await resume(second, old.secret)
    await advance(60)
    assert broker.ends(old.key) == pytest.approx(LIFETIME, abs=60)


async def test_what_was_taken_up_by_somebody_who_is_cancelled_is_let_go_again() -> None:
    broker = await started()
    sessions = node(broker)
    old = await create(sessions)
    task = asyncio.ensure_future(resume(sessions, old.secret))
    broker.hold()
    await advance()
    task.cancel()
    await advance()
    broker.let_go()
    await advance(60)
    assert len(sessions.upkeep) == 0
    assert (await resumed(sessions, old.secret)).held


@pytest.mark.parametrize("begins", [False, True])
async def test_clients_that_try_again_and_again_add_no_unbounded_work(begins: bool) -> None:
    """A broker that can be read, but answers no write: each attempt may or may not have been made."""
    broker = await started()
    sessions = node(broker)
    old = await create(sessions)
    broker.fates.extend(repeat("lost", ATTEMPTS * (MAX_OPTIONAL + 10)))
    for _ in range(MAX_OPTIONAL + 10):
        with pytest.raises(BrokerUnavailable):
            await (create(sessions) if begins else resume(sessions, old.secret))
        assert len(sessions.upkeep) <= MAX_OPTIONAL
    broker.fates.clear()
    await advance(60)
    assert len(sessions.upkeep) == 0
    assert old.held
    await old.join("s1", member(3))


# --- fenced


async def test_on_the_same_node_the_older_holder_is_told_at_once() -> None:
    """C15: a half-open connection, and the client's next one."""
    broker = await started()
    sessions = node(broker)
    connection, next_connection = Connection(), Connection()
    old = await create(sessions, connection)
    await resumed(sessions, old.secret, next_connection)
    assert (connection.times_replaced, next_connection.times_replaced) == (1, 0)
    assert connection.probes == 0
    assert not old.held
    with pytest.raises(Disconnected):
        await old.join("s1", member(3))
    old.detach()
    old.end()
    await advance(60)
    assert connection.times_replaced == 1
    assert len(sessions) == count(sessions, "replaced") == 1
    assert (await resumed(sessions, old.secret)).record.streams == {}


async def test_on_another_node_the_older_holder_is_told_when_it_writes() -> None:
    broker = await started()
    first, connection = node(broker), Connection()
    old = await create(first, connection)
    new = await resumed(node(broker), old.secret)
    assert connection.times_replaced == 0
    with pytest.raises(Disconnected, match="somebody else"):
        await old.join("s1", member(3))
    assert connection.times_replaced == 1
    assert len(first) == 0
    assert await stored(broker, new) == new.record
    with pytest.raises(Disconnected):
        await old.join("s1", member(3))
    assert connection.times_replaced == 1


async def test_on_another_node_the_older_holder_is_told_at_the_latest_when_it_renews() -> None:
    broker = await started()
    connection = Connection()
    old = await create(node(broker), connection)
    new = await resumed(node(broker), old.secret)
    await advance(RENEW_SECONDS + SWEEP_SECONDS)
    assert connection.times_replaced == 1
    assert not old.held
    assert new.held


@pytest.mark.parametrize("how", ["detach", "end"])
async def test_an_older_holder_that_goes_does_nothing_to_the_session(how: str) -> None:
    broker = await started()
    connection = Connection()
    old = await create(node(broker), connection)
    new = await resumed(node(broker), old.secret)
    getattr(old, how)()
    await advance(LIFETIME + 60)
    assert connection.times_replaced == 0  # it knows that it is over
    assert await stored(broker, new) == new.record


async def test_an_older_holder_does_not_bring_back_what_a_later_one_ended() -> None:
    broker = await started()
    connection = Connection()
    old = await create(node(broker), connection)
    new = await resumed(node(broker), old.secret)
    new.end()
    await advance(60)
    with pytest.raises(Disconnected):
        await old.join("s1", member(3))
    assert connection.times_replaced == 1
    await advance(LIFETIME)
    assert await stored(broker, new) is None


async def test_a_write_of_the_older_holder_that_is_under_way_is_in_it_or_refused() -> None:
    broker = await started()
    old = await create(node(broker))
    broker.hold()
    joining = asyncio.ensure_future(old.join("s1", member(3)))
    await advance()
    broker.fates.append("late")  # it is made after the new holder has read
    taking = asyncio.ensure_future(resume(node(broker), old.secret))
    broker.let_go()
    new = await taking
    assert new is not None
    told = (await asyncio.gather(joining, return_exceptions=True))[0]
    record = await stored(broker, new)
    assert record == new.record
    assert record is not None
    assert ("s1" in record.streams) == (told is None)


async def test_of_two_connections_that_take_it_up_at_once_the_later_one_has_it() -> None:
    """The client gave the earlier one up, so that one must not get it for having waited longer."""
    broker = await started()
    sessions = node(broker)
    dead = Connection(alive=False, patience=2)
    old = await create(sessions, dead)
    earlier, later = Connection(), Connection()
    first = asyncio.ensure_future(resume(sessions, old.secret, earlier, instance="next run"))
    await advance(1)
    dead.patience = 0.1
    second = asyncio.ensure_future(resume(sessions, old.secret, later, instance="next run"))
    await asyncio.wait({first, second})
    assert (dead.times_replaced, earlier.times_replaced, later.times_replaced) == (1, 1, 0)
    result = second.result()
    assert result is not None
    assert result.held


async def test_who_waits_for_a_write_when_the_session_is_taken_up_writes_nothing() -> None:
    broker = await started()
    sessions = node(broker)
    old = await create(sessions)
    broker.hold()
    joins = [asyncio.ensure_future(old.join(f"s{n}", member(n))) for n in range(2)]
    await advance()
    taking = asyncio.ensure_future(resume(sessions, old.secret))
    await advance()
    broker.fates.extend(["away", "ok"])
    broker.step()
    await advance()
    broker.let_go()
    await asyncio.gather(*joins, return_exceptions=True)
    assert await taking is not None
    assert [record.fence for record in broker.puts] == [1, 1, 2]


async def test_many_that_take_it_up_at_once_on_two_nodes_leave_one_holder() -> None:
    broker = await started()
    nodes = [node(broker), node(broker)]
    old = await create(nodes[0])
    connections = [Connection() for _ in range(10)]
    taken = await asyncio.gather(*(resume(nodes[n % 2], old.secret, c) for n, c in enumerate(connections)))
    await advance(RENEW_SECONDS + SWEEP_SECONDS)
    assert sum(session is not None and session.held for session in taken) == 1
    assert sum(connection.times_replaced for connection in connections) == 9


async def test_a_record_that_changes_all_the_time_is_not_chased_for_ever() -> None:
    class Busy(FatefulBroker):
        async def get(self, key: str) -> Kept | None:
            kept = await super().get(key)
            if kept is not None:
                self.fall_back(key, Kept(kept.value, kept.revision + 1))
            return kept

    broker = Busy()
    await broker.start()
    sessions = node(broker)
    session = await create(sessions)
    with pytest.raises(BrokerUnavailable, match="faster than it can be taken up"):
        await resume(sessions, session.secret)
    session.detach()
    await sessions.close(1)


# --- forked


async def test_c14_a_duplicated_tab_gets_a_session_of_its_own_and_the_first_goes_on() -> None:
    broker = await started()
    sessions = node(broker)
    connection, tab = Connection(), Connection()
    old = await create(sessions, connection)
    await old.join("s1", member(3))
    await old.join("own", Member("r", "socket-id", at(1)))
    await old.save(b"data")
    before = await stored(broker, old)
    fork = await resumed(sessions, old.secret, tab, instance="tab")
    assert fork.forked
    assert fork.secret != old.secret
    assert fork.record.id != "socket-id"
    assert len(fork.record.id) == 20
    assert fork.record.streams == {"s1": member(3)}
    assert (fork.record.data, fork.record.instance, fork.record.fence) == (b"data", "tab", 1)
    assert await stored(broker, old) == before
    assert await stored(broker, fork) == fork.record
    assert connection.probes == 1
    assert connection.times_replaced == tab.times_replaced == 0
    await old.join("s2", member(5))
    await fork.join("s3", member(7))
    assert sorted(old.record.streams) == ["own", "s1", "s2"]
    assert sorted(fork.record.streams) == ["s1", "s3"]
    assert (count(sessions, "forked"), count(sessions, "resumed")) == (1, 0)
    assert len(sessions) == 2
    # both come back to what is theirs
    assert (await resumed(sessions, fork.secret, instance="tab")).record.id == fork.record.id
    assert (await resumed(sessions, old.secret)).record.id == "socket-id"


async def test_a_fork_has_what_was_joined_while_the_first_tab_was_asked() -> None:
    broker = await started()
    sessions = node(broker)
    old = await create(sessions)
    forking = asyncio.ensure_future(resume(sessions, old.secret, instance="tab"))
    await advance()
    await old.join("s1", member(3))
    fork = await forking
    assert fork is not None
    assert fork.forked
    assert fork.record.streams == {"s1": member(3)}


async def test_another_run_of_a_program_takes_over_from_a_connection_that_is_dead() -> None:
    broker = await started()
    sessions = node(broker)
    connection = Connection(alive=False)
    old = await create(sessions, connection)
    new = await resumed(sessions, old.secret, instance="next run")
    assert not new.forked
    assert (new.record.id, new.record.instance) == ("socket-id", "next run")
    assert (connection.probes, connection.times_replaced) == (1, 1)
    # and it is the instance of now: the same one takes over without asking
    again = await resumed(sessions, old.secret, instance="next run")
    assert not again.forked


async def test_another_run_of_a_program_takes_over_from_nobody() -> None:
    broker = await started()
    sessions = node(broker)
    connection = Connection()
    old = await create(sessions, connection)
    old.detach()
    new = await resumed(sessions, old.secret, instance="next run")
    assert (new.forked, new.record.id, connection.probes) == (False, "socket-id", 0)
    elsewhere = await resumed(node(broker), old.secret, instance="a third")
    assert (elsewhere.forked, elsewhere.record.id) == (False, "socket-id")


async def test_who_goes_while_it_is_asked_whether_it_is_alive_is_succeeded() -> None:
    broker = await started()
    sessions = node(broker)
    old = await create(sessions, Connection(alive=True))
    taking = asyncio.ensure_future(resume(sessions, old.secret, instance="tab"))
    await advance()
    old.detach()
    new = await taking
    assert new is not None
    assert (new.forked, new.record.id) == (False, "socket-id")


async def test_who_lost_the_session_to_another_node_is_not_asked() -> None:
    broker = await started()
    sessions, elsewhere = node(broker), node(broker)
    connection = Connection()
    old = await create(sessions, connection)
    await resumed(elsewhere, old.secret)
    new = await resumed(sessions, old.secret, instance="tab")
    assert not new.forked
    assert (connection.probes, connection.times_replaced) == (0, 1)


async def test_a_session_that_ends_while_its_holder_is_asked_is_not_found() -> None:
    broker = await started()
    sessions = node(broker)
    old = await create(sessions)
    taking = asyncio.ensure_future(resume(sessions, old.secret, instance="tab"))
    await advance()
    old.end()
    assert await taking is None


# --- which of several is the newest


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        (Turn(3), Turn(2)),
        (Turn(3, since=10.0), Turn(2, since=11.0)),  # what the client counts is certain, a time is not
        (Turn(since=11.0), Turn(since=10.0)),
        (Turn(0, since=11.0), Turn(7, since=10.0)),
    ],
)
async def test_an_older_resume_that_is_slower_does_not_take_the_session_from_the_newer_one(
    newer: Turn, older: Turn
) -> None:
    broker = await started()
    one, two = node(broker), node(broker)
    session = await create(one)
    connection = Connection()
    held = await resumed(two, session.secret, connection, turn=newer)
    with pytest.raises(Overtaken):
        await resume(one, session.secret, turn=older)
    held.detach()  # it was the newest all the same
    await advance(1)
    with pytest.raises(Overtaken):
        await resume(one, session.secret, turn=older)
    assert connection.times_replaced == 0
    await resumed(one, session.secret, turn=newer)


async def test_two_resumes_at_once_leave_the_session_with_the_newer_one_whichever_is_faster() -> None:
    broker = await started()
    one, two = node(broker), node(broker)
    session = await create(one)
    broker.hold()
    older = asyncio.ensure_future(resume(one, session.secret, turn=Turn(1)))
    newer = asyncio.ensure_future(resume(two, session.secret, turn=Turn(2)))
    await advance()
    broker.let_go()
    found = await asyncio.gather(older, newer, return_exceptions=True)
    assert isinstance(found[1], Session)
    record = await stored(broker, session)
    assert record is not None
    assert record.turn == Turn(2)


async def test_another_program_counts_anew() -> None:
    broker = await started()
    one, two = node(broker), node(broker)
    session = await create(one)
    held = await resumed(one, session.secret, turn=Turn(9, since=10.0))
    held.detach()
    await advance(1)
    await resumed(two, session.secret, instance="next run", turn=Turn(1, since=11.0))


async def test_a_broker_whose_clock_is_far_behind_keeps_nobody_out() -> None:
    broker = await started()
    one, two = node(broker), node(broker)
    session = await create(one)
    await resumed(one, session.secret, turn=Turn(since=10_000.0))
    await resumed(two, session.secret, turn=Turn(since=10_000.0 - SLOWEST - 1))
