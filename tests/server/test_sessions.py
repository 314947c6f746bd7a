"""Sessions of a node: begun, renewed while they are held, and let go at the end."""

import asyncio

import pytest

from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.session import MAX_DATA
from bellwire.server.session import HELD_SECONDS
from bellwire.server.sessions import RENEW_SECONDS, SWEEP_SECONDS
from bellwire.testing.clock import advance
from tests.server.keeping import (
    LIFETIME,
    Connection,
    Fate,
    count,
    create,
    member,
    node,
    resumed,
    started,
    stored,
)

# --- begun


async def test_a_new_session_is_stored_when_the_call_returns_with_what_it_is_given() -> None:
    broker = await started()
    sessions = node(broker)
    session = await sessions.create(
        socket_id="socket-id",
        namespace="/chat",
        principal=None,
        instance="run",
        holder=Connection(),
        streams={"s1": member(3)},
        data=b"data",
    )
    record = await stored(broker, session)
    assert record == session.record
    assert record is not None
    assert (record.id, record.instance, record.streams, record.data) == ("socket-id", "run", {"s1": member(3)}, b"data")
    assert broker.ends(session.key) == HELD_SECONDS
    assert session.held
    assert not session.forked
    assert len(sessions) == count(sessions, "created") == 1


async def test_a_secret_has_128_bits_and_is_not_in_the_broker() -> None:
    broker = await started()
    sessions = node(broker)
    secrets = {(await create(sessions)).secret for _ in range(20)}
    assert len(secrets) == 20
    assert {len(secret) for secret in secrets} == {22}
    everything = repr(broker._keys)
    assert not any(secret in everything for secret in secrets)


async def test_too_much_data_is_refused() -> None:
    sessions = node(await started())
    with pytest.raises(ValueError, match="65536 bytes"):
        await sessions.create(
            socket_id="i", namespace="/", principal=None, instance="", holder=Connection(), data=b"x" * (MAX_DATA + 1)
        )


async def test_without_a_broker_there_is_no_session_and_nothing_is_left_to_do() -> None:
    broker = await started()
    sessions = node(broker)
    broker.faults.go_away()
    with pytest.raises(BrokerUnavailable):
        await create(sessions)
    assert len(sessions) == len(sessions.upkeep) == 0


@pytest.mark.parametrize("fates", [["kept"], ["lost"], ["late"], ["lost", "late"]])
async def test_a_first_write_without_an_answer_is_read_back(fates: list[Fate]) -> None:
    broker = await started()
    broker.fates.extend(fates)
    session = await create(node(broker))
    assert await stored(broker, session) == session.record
    await session.join("s1", member(3))
    assert await stored(broker, session) == session.record
    assert session.held


@pytest.mark.parametrize("fate", ["kept", "lost"])
async def test_a_session_that_could_not_be_read_back_is_removed_should_it_be_there(fate: Fate) -> None:
    broker = await started()
    sessions = node(broker)
    broker.fates.append(fate)
    broker.blind = True
    with pytest.raises(BrokerUnavailable):
        await create(sessions)
    broker.blind = False
    await advance(60)
    assert broker._keys == {}
    assert len(sessions.upkeep) == 0


async def test_a_session_whose_maker_is_cancelled_is_removed() -> None:
    broker = await started()
    sessions = node(broker)
    broker.hold()
    task = asyncio.ensure_future(create(sessions))
    await advance()
    task.cancel()
    await advance()
    broker.let_go()
    await advance(60)
    assert task.cancelled()
    assert broker._keys == {}
    assert len(sessions) == len(sessions.upkeep) == 0


# --- kept


async def test_a_session_that_is_held_does_not_run_out_however_busy_others_are() -> None:
    broker = await started()
    sessions = node(broker)
    busy, quiet = await create(sessions), await create(sessions)
    for n in range(20):
        await advance(HELD_SECONDS / 6)
        await busy.join(f"s{n}", member(n))
        assert await stored(broker, quiet) == quiet.record
        assert (broker.ends(quiet.key) or 0) > asyncio.get_running_loop().time() + HELD_SECONDS / 2


async def test_a_record_is_not_written_more_often_than_needed() -> None:
    broker = await started()
    session = await create(node(broker))
    puts = len(broker.puts)
    await advance(RENEW_SECONDS - SWEEP_SECONDS)
    await session.join("s1", member(3))
    await advance(RENEW_SECONDS - 1)
    assert len(broker.puts) == puts + 1
    await advance(SWEEP_SECONDS + 1)
    assert len(broker.puts) == puts + 2


async def test_a_renewal_that_fails_is_made_when_the_broker_is_back() -> None:
    broker = await started()
    session = await create(node(broker))
    await advance(RENEW_SECONDS - 1)
    broker.faults.go_away()
    await advance(3600)
    broker.faults.come_back()
    await advance(10)
    assert (broker.ends(session.key) or 0) == pytest.approx(RENEW_SECONDS + 3600 + HELD_SECONDS, abs=20)


async def test_no_timer_runs_when_no_session_is_held() -> None:
    broker = await started()
    sessions = node(broker)
    assert sessions._sweeper is None
    session = await create(sessions)
    session.end()
    await advance(SWEEP_SECONDS)
    assert sessions._sweeper is None
    await create(sessions)
    timer = sessions._sweeper
    assert timer is not None
    await sessions.close(10)
    assert timer.cancelled()
    await create(sessions)
    assert sessions._sweeper is None


async def test_a_thousand_connections_lost_at_once_are_written_by_one_task_some_at_a_time() -> None:
    broker = await started()
    sessions = node(broker)
    held = [await create(sessions) for _ in range(1_000)]
    tasks = len(asyncio.all_tasks())
    broker.hold()
    for session in held:
        session.detach()
    assert len(asyncio.all_tasks()) == tasks + 1
    await advance()
    assert len(asyncio.all_tasks()) < tasks + 50
    broker.let_go()
    await advance()
    assert len(asyncio.all_tasks()) == tasks
    assert {broker.ends(session.key) for session in held} == {LIFETIME}


async def test_nothing_is_kept_of_sessions_that_are_gone() -> None:
    broker = await started()
    sessions = node(broker)
    for _ in range(10):
        session = await create(sessions)
        await asyncio.gather(*(session.join(f"s{n}", member(n)) for n in range(3)))
        session = await resumed(sessions, session.secret)
        session.end()
    await advance()
    assert len(sessions._held) == len(sessions._locks) == len(sessions.upkeep) == 0


# --- closing


async def test_closing_lets_all_sessions_go_and_waits_until_that_is_written() -> None:
    broker = await started()
    sessions = node(broker)
    connection = Connection()
    held = [await create(sessions, connection) for _ in range(100)]
    await sessions.close(10)
    assert {broker.ends(session.key) for session in held} == {LIFETIME}
    assert len(sessions) == connection.times_replaced == 0
    assert sessions.counters.get("dropped_total", kind="session", reason="shutdown", policy="left_to_expire") == 0


async def test_closing_while_the_broker_is_away_takes_no_longer_than_it_may() -> None:
    broker = await started()
    sessions = node(broker)
    for _ in range(3):
        await create(sessions)
    broker.faults.go_away()
    await sessions.close(10)
    assert asyncio.get_running_loop().time() == 10
    assert sessions.counters.get("dropped_total", kind="session", reason="shutdown", policy="left_to_expire") == 3
