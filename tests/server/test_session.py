"""One holder's writes: joined into few puts, told truly to those who wait, and right in the end whatever gets lost."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import repeat

import pytest

from bellwire.brokers.base import Kept
from bellwire.core.errors import BellwireError, BrokerUnavailable, Disconnected, MessageTooLarge
from bellwire.delivery.membership import Membership
from bellwire.delivery.session import MAX_DATA, MAX_LEFT
from bellwire.server.session import ATTEMPTS, HELD_SECONDS, Session
from bellwire.testing.clock import advance
from tests.server.keeping import (
    LIFETIME,
    Connection,
    Fate,
    FatefulBroker,
    at,
    create,
    member,
    node,
    resume,
    started,
    stored,
)


async def _session() -> tuple[FatefulBroker, Session]:
    broker = await started()
    return broker, await create(node(broker))


async def _streams(broker: FatefulBroker, session: Session) -> list[str]:
    record = await stored(broker, session)
    assert record is not None
    return sorted(record.streams)


# --- what is written


async def test_what_changes_is_stored_when_the_call_returns() -> None:
    broker, session = await _session()
    await session.join("s1", member(3))
    await session.join("s2", member(5))
    await session.leave("s1", at(9))
    await session.save(b"data")
    await session.checkpoint(1, {"s2": at(6)})
    record = await stored(broker, session)
    assert record == session.record
    assert record is not None
    assert record.streams == {"s2": member(5)}
    assert record.spans("s1") == [Membership(at(3), at(9))]
    assert record.data == b"data"
    assert record.vector(1) == {"s2": at(6)}
    assert broker.ends(session.key) == HELD_SECONDS


async def test_what_changes_nothing_is_not_written() -> None:
    broker, session = await _session()
    await session.join("s1", member(3))
    puts = len(broker.puts)
    await session.join("s1", member(8))
    await session.leave("s2", at(9))
    await session.save(b"")
    assert len(broker.puts) == puts


async def test_nothing_is_waited_for_that_the_broker_has_at_once() -> None:
    """So a handler that joins runs to its end in its first step."""
    _, session = await _session()
    joining = session.join("s1", member(3))
    with pytest.raises(StopIteration):
        joining.send(None)


async def test_changes_that_wait_for_a_put_are_written_by_one() -> None:
    broker, session = await _session()
    puts = len(broker.puts)
    broker.hold()
    async with asyncio.TaskGroup() as group:
        for n in range(20):
            group.create_task(session.join(f"s{n}", member(n)))
        group.create_task(session.leave("s7", at(9)))
        group.create_task(session.save(b"data"))
        await advance(1)
        assert len(broker.puts) == puts + 1
        broker.let_go()
    assert len(broker.puts) == puts + 2
    assert await _streams(broker, session) == sorted(f"s{n}" for n in range(20) if n != 7)
    assert session.record.data == b"data"


async def test_too_much_data_is_refused_and_the_error_names_the_way_out() -> None:
    _, session = await _session()
    await session.save(b"x" * MAX_DATA)
    with pytest.raises(ValueError, match="keep the rest in a database"):
        await session.save(b"x" * (MAX_DATA + 1))
    assert len(session.record.data) == MAX_DATA


async def test_what_the_reader_has_passed_goes_with_the_next_write() -> None:
    broker, session = await _session()
    await session.join("s1", member(3))
    await session.leave("s1", at(9))
    puts = len(broker.puts)
    for _ in range(100):
        session.forget("s1", at(8))
    session.forget("s1", at(9))
    await advance(3600)
    assert len(broker.puts) == puts
    await session.save(b"data")
    record = await stored(broker, session)
    assert record is not None
    assert record.left == ()


async def test_what_is_given_up_of_too_many_memberships_is_counted() -> None:
    broker = await started()
    sessions = node(broker)
    session = await create(sessions)
    for n in range(MAX_LEFT + 2):
        await session.join(f"s{n}", member(n))
        await session.leave(f"s{n}", at(n))
    record = await stored(broker, session)
    assert record == session.record
    assert record is not None
    assert len(record.left) == MAX_LEFT
    assert sessions.counters.get("dropped_total", kind="membership", reason="too_many", policy="newest_kept") == 2


async def test_what_is_given_up_of_too_many_checkpoints_is_counted() -> None:
    broker = await started()
    sessions = node(broker)
    session = await create(sessions)
    for k in range(1, 8):
        await session.checkpoint(k, {"s1": at(k)})
    assert session.record.vector(1) is None
    assert sessions.counters.get("dropped_total", kind="checkpoint", reason="too_many", policy="newest_kept") == 3
    await session.checkpoint(8, {"s1": at(8)}, since=7)
    assert sorted(session.record.checkpoints) == [7, 8]


# --- the broker is away


@pytest.mark.parametrize("way", ["join", "leave", "save", "checkpoint"])
async def test_while_the_broker_is_away_nothing_changes_and_the_caller_is_told(way: str) -> None:
    broker, session = await _session()
    await session.join("s1", member(3))
    before = session.record
    broker.faults.go_away()
    ways: dict[str, Callable[[], Awaitable[None]]] = {
        "join": lambda: session.join("s2", member(5)),
        "leave": lambda: session.leave("s1", at(9)),
        "save": lambda: session.save(b"data"),
        "checkpoint": lambda: session.checkpoint(1, {"s1": at(4)}),
    }
    with pytest.raises(BrokerUnavailable):
        await ways[way]()
    broker.faults.come_back()
    await advance(60)
    assert session.record == before == await stored(broker, session)
    await ways[way]()
    assert session.record != before


async def test_all_who_wait_for_a_put_that_fails_are_told_each_by_an_error_of_its_own() -> None:
    broker, session = await _session()
    broker.hold()
    broker.fates.extend(["ok", "away"])
    joins = [asyncio.ensure_future(session.join(f"s{n}", member(n))) for n in range(4)]
    await advance()
    broker.let_go()
    told = await asyncio.gather(*joins, return_exceptions=True)
    assert [type(error) for error in told] == [type(None), *[BrokerUnavailable] * 3]
    assert len(set(map(id, told))) == 4
    assert await _streams(broker, session) == ["s0"]


async def test_who_has_his_change_is_not_told_of_the_failure_of_another() -> None:
    broker, session = await _session()
    broker.hold()
    joins = [asyncio.ensure_future(session.join(f"s{n}", member(n))) for n in range(3)]
    await advance()
    broker.fates.extend(["ok", "ok", "away"])
    broker.step()  # the first is written; the second is under way, with the third in it
    await advance()
    joins.append(asyncio.ensure_future(session.join("s3", member(3))))
    await advance()
    broker.let_go()
    told = await asyncio.gather(*joins, return_exceptions=True)
    assert [type(error) for error in told] == [*[type(None)] * 3, BrokerUnavailable]
    assert await _streams(broker, session) == ["s0", "s1", "s2"]


async def test_an_error_that_is_not_the_brokers_absence_is_told_as_it_is() -> None:
    class Narrow(FatefulBroker):
        async def put(
            self, key: str, value: bytes, *, expected: int | None = None, ttl: float | None = None
        ) -> int | None:
            if len(value) > 200:
                raise MessageTooLarge(len(value), 200)
            return await super().put(key, value, expected=expected, ttl=ttl)

    broker = Narrow()
    await broker.start()
    session = await create(node(broker))
    with pytest.raises(MessageTooLarge, match="the broker takes 200"):
        await session.save(b"x" * 200)
    await session.join("s1", member(3))
    assert await _streams(broker, session) == ["s1"]


# --- no answer


@pytest.mark.parametrize(
    "fates",
    [["kept"], ["lost"], ["late"], ["lost", "kept"], ["lost", "lost"], ["late", "lost"], ["lost", "late", "kept"]],
)
async def test_a_write_without_an_answer_is_read_back_and_made_once(fates: list[Fate]) -> None:
    broker, session = await _session()
    await session.join("s1", member(3))
    broker.fates.extend(fates)
    await session.join("s2", member(5))
    record = await stored(broker, session)
    assert record == session.record
    assert record is not None
    assert record.streams == {"s1": member(3), "s2": member(5)}
    await session.leave("s2", at(9))
    assert await _streams(broker, session) == ["s1"]


async def test_what_is_never_answered_counts_as_away_and_is_taken_back() -> None:
    broker, session = await _session()
    broker.fates.extend(repeat("lost", ATTEMPTS - 1))
    broker.fates.append("late")
    with pytest.raises(BrokerUnavailable, match="faster than it can be written"):
        await session.join("s1", member(3))
    await advance(60)
    assert await _streams(broker, session) == []
    assert not session.unsettled


@pytest.mark.parametrize("fate", ["kept", "lost", "late"])
async def test_a_change_that_was_refused_for_want_of_an_answer_is_not_there_in_the_end(fate: Fate) -> None:
    """The caller was told that nothing happened; a process that dies later must not leave the contrary behind."""
    broker, session = await _session()
    broker.fates.append(fate)
    broker.blind = True  # and it cannot be read back either
    with pytest.raises(BrokerUnavailable):
        await session.join("s1", member(3))
    broker.blind = False
    await advance(60)
    assert await _streams(broker, session) == []
    await session.join("s2", member(5))
    assert await _streams(broker, session) == ["s2"]


async def test_a_change_that_arrived_late_after_all_is_taken_back_when_its_repetition_was_refused() -> None:
    broker, session = await _session()
    broker.fates.extend(["late", "away"])
    with pytest.raises(BrokerUnavailable):
        await session.join("s1", member(3))
    await advance(60)
    assert await _streams(broker, session) == []


# --- cancelled


async def test_a_cancelled_join_is_taken_back_and_a_cancelled_leave_is_made() -> None:
    broker, session = await _session()
    await session.join("s1", member(3))
    for change in (session.join("s2", member(5)), session.leave("s1", at(9))):
        broker.hold()
        task = asyncio.ensure_future(change)
        await advance()
        task.cancel()
        await advance()
        assert task.cancelled()
        broker.let_go()
        await advance(60)
    assert await _streams(broker, session) == []
    assert session.record.spans("s1") == [Membership(at(3), at(9))]
    assert session.record.spans("s2") == []


async def test_what_waits_for_a_put_whose_maker_is_cancelled_is_written_all_the_same() -> None:
    broker, session = await _session()
    broker.hold()
    tasks = [asyncio.ensure_future(session.join(f"s{n}", member(n))) for n in range(4)]
    await advance()
    tasks[0].cancel()
    await advance()
    tasks[1].cancel()  # it was about to write for the others
    await advance()
    tasks[3].cancel()
    await advance()
    broker.let_go()
    await advance(60)
    assert [task.cancelled() for task in tasks] == [True, True, False, True]
    assert await _streams(broker, session) == ["s2"]


async def test_a_join_that_is_cancelled_while_another_writes_it_is_taken_back() -> None:
    broker, session = await _session()
    broker.hold()
    tasks = [asyncio.ensure_future(session.join(f"s{n}", member(n))) for n in range(3)]
    await advance()
    tasks[0].cancel()
    await advance()  # the second writes, for the third as well
    tasks[2].cancel()
    await advance()
    broker.let_go()
    await advance(60)
    assert await _streams(broker, session) == ["s1"]


async def test_a_cancelled_save_that_is_not_under_way_yet_is_not_made() -> None:
    broker, session = await _session()
    broker.hold()
    joining = asyncio.ensure_future(session.join("s1", member(3)))
    saving = asyncio.ensure_future(session.save(b"data"))
    await advance()
    saving.cancel()
    await advance()
    broker.let_go()
    await joining
    await session.join("s2", member(5))
    assert session.record.data == b""


async def test_joining_again_after_a_cancelled_join() -> None:
    broker, session = await _session()
    broker.hold()
    task = asyncio.ensure_future(session.join("s1", member(3)))
    await advance()
    task.cancel()
    again = asyncio.ensure_future(session.join("s1", member(8)))
    await advance()
    broker.let_go()
    await again
    await advance(60)
    assert session.record.streams == {"s1": member(8)}
    assert session.record == await stored(broker, session)


async def test_a_join_that_is_cancelled_when_all_is_over_is_not_written_any_more() -> None:
    broker, session = await _session()
    broker.hold()
    tasks = [asyncio.ensure_future(session.join(f"s{n}", member(n))) for n in range(2)]
    await advance()
    session.end()
    tasks[1].cancel()
    broker.let_go()
    await advance(60)
    assert await stored(broker, session) is None
    assert [record.over for record in broker.puts] == [False, False]


# --- how it ends


async def test_a_session_whose_connection_was_lost_lives_on_for_its_lifetime() -> None:
    broker, session = await _session()
    await session.join("s1", member(3))
    await advance(100)
    session.detach()
    assert not session.held
    await advance(LIFETIME - 1)
    assert await _streams(broker, session) == ["s1"]
    await advance(2)
    assert await stored(broker, session) is None


async def test_a_handler_that_outlives_its_connection_still_joins_and_leaves() -> None:
    broker, session = await _session()
    await session.join("s1", member(3))
    session.detach()
    await advance(100)
    await session.join("s2", member(5))
    await session.leave("s1", at(9))
    assert await _streams(broker, session) == ["s2"]
    assert broker.ends(session.key) == pytest.approx(LIFETIME)  # it does not live longer for that
    await advance(LIFETIME)
    with pytest.raises(Disconnected):
        await session.join("s3", member(7))
    await advance()
    assert await stored(broker, session) is None
    assert not session.unsettled


async def test_an_ended_session_is_removed_and_cannot_be_changed() -> None:
    broker, session = await _session()
    session.end()
    session.end()
    session.detach()
    for change in (session.join("s1", member(3)), session.save(b"x")):
        with pytest.raises(Disconnected, match="over"):
            await change
    await advance()
    assert await stored(broker, session) is None
    with pytest.raises(Disconnected, match="over"):
        await session.leave("s1", at(3))
    assert not session.unsettled


async def test_a_detached_session_can_be_ended() -> None:
    broker, session = await _session()
    session.detach()
    await advance(1)
    session.end()
    await advance(1)
    assert await stored(broker, session) is None


async def test_what_waits_when_it_ends_is_told_so() -> None:
    broker, session = await _session()
    broker.hold()
    joins = [asyncio.ensure_future(session.join(f"s{n}", member(n))) for n in range(3)]
    await advance()
    session.end()
    broker.let_go()
    told = await asyncio.gather(*joins, return_exceptions=True)
    assert [type(error) for error in told] == [type(None), Disconnected, Disconnected]
    await advance()
    assert await stored(broker, session) is None


@pytest.mark.parametrize("how", ["detach", "end"])
async def test_how_it_ended_is_written_when_the_broker_comes_back(how: str) -> None:
    broker, session = await _session()
    broker.faults.go_away()
    tasks = len(asyncio.all_tasks())
    getattr(session, how)()
    await advance(100)
    assert len(asyncio.all_tasks()) == tasks + 1
    broker.faults.come_back()
    await advance(10)
    assert len(asyncio.all_tasks()) == tasks
    if how == "end":
        assert await stored(broker, session) is None
    else:
        assert broker.ends(session.key) == pytest.approx(LIFETIME)


async def test_a_lifetime_that_is_over_before_the_broker_is_back_ends_it() -> None:
    broker, session = await _session()
    broker.faults.go_away()
    session.detach()
    await advance(LIFETIME + 1)
    broker.faults.come_back()
    await advance(10)
    assert await stored(broker, session) is None


async def test_when_the_broker_stays_away_until_it_has_forgotten_the_session_that_is_the_end() -> None:
    broker = await started()
    sessions = node(broker)
    session = await create(sessions)
    broker.faults.go_away()
    session.detach()
    await advance(HELD_SECONDS + 10)
    assert not session.unsettled
    assert len(sessions.upkeep) == 0
    assert sessions.counters.get("dropped_total", kind="session", reason="broker_away", policy="left_to_expire") == 1


@pytest.mark.parametrize("fates", [["kept"], ["lost"], ["late"], ["away"], ["lost", "kept"], ["away", "late", "away"]])
@pytest.mark.parametrize("how", ["detach", "end"])
@pytest.mark.parametrize("held_before", [False, True])
async def test_whatever_becomes_of_the_last_write_it_is_made_in_the_end(
    how: str, fates: list[Fate], held_before: bool
) -> None:
    broker = await started()
    session = await create(node(broker))
    if held_before:
        session.detach()
        await advance(1)
        resumed = await resume(node(broker), session.secret)
        assert resumed is not None
        session = resumed
    broker.fates.extend(fates)
    getattr(session, how)()
    await advance(60)
    assert not session.unsettled
    record = await stored(broker, session)
    if how == "detach":
        assert record == session.record
        assert broker.ends(session.key) == pytest.approx(LIFETIME, abs=2)
    elif held_before:
        assert record is not None  # for the holder before it, should that one wake
        assert record.over
        assert broker.ends(session.key) == pytest.approx(LIFETIME, abs=61)
    else:
        assert record is None
    await advance(HELD_SECONDS)
    assert await stored(broker, session) is None


async def test_ending_while_a_write_waits_for_its_answer() -> None:
    broker, session = await _session()
    broker.hold()
    broker.fates.append("late")
    joining = asyncio.ensure_future(session.join("s1", member(3)))
    await advance()
    session.end()
    broker.let_go()
    await asyncio.wait({joining})
    await advance(60)
    assert await stored(broker, session) is None
    assert not session.unsettled


# --- the broker lost something


async def test_a_record_that_the_broker_lost_is_written_anew() -> None:
    broker, session = await _session()
    await session.join("s1", member(3))
    broker.lose(session.key)
    await session.join("s2", member(5))
    assert await _streams(broker, session) == ["s1", "s2"]
    assert session.held


async def test_a_broker_that_fell_back_behind_this_holder_is_told_the_state_of_now() -> None:
    broker = await started()
    first, connection = Connection(), Connection()
    old = await create(node(broker), first)
    await old.join("s1", member(3))
    kept = await broker.get(old.key)
    assert kept is not None
    new = await resume(node(broker), old.secret, connection)
    assert new is not None
    await new.join("s2", member(5))
    broker.fall_back(old.key, kept)
    await new.join("s3", member(7))
    assert connection.times_replaced == 0
    assert await _streams(broker, new) == ["s1", "s2", "s3"]
    with pytest.raises(Disconnected):
        await old.join("s4", member(9))
    assert first.times_replaced == 1


async def test_the_newest_state_is_written_also_over_a_record_that_fell_back_to_an_earlier_edition() -> None:
    broker, session = await _session()
    await session.join("s1", member(3))
    kept = await broker.get(session.key)
    assert kept is not None
    await session.join("s2", member(5))
    broker.fall_back(session.key, kept)
    await session.join("s3", member(7))
    assert await _streams(broker, session) == ["s1", "s2", "s3"]


async def test_a_record_that_this_program_cannot_read_belongs_to_somebody_else() -> None:
    broker, session = await _session()
    broker.fall_back(session.key, Kept(b"of the next version", 1_000))
    with pytest.raises(Disconnected):
        await session.join("s1", member(3))
    assert not session.held


def test_every_error_that_may_be_told_to_several_can_be_made_again() -> None:
    errors: list[BellwireError] = [BrokerUnavailable("x"), Disconnected("x"), MessageTooLarge(2, 1)]
    for error in errors:
        assert str(type(error)(*error.args)) == str(error)
