"""Records of producers: what is read, what is remembered, and what is proved."""

import asyncio

import pytest

from bellwire.brokers.memory import MemoryBroker
from bellwire.core.errors import BellwireError, BrokerUnavailable, MessageTooLarge, OutcomeUnknown
from bellwire.delivery.inbox import Record, View
from bellwire.server import records
from bellwire.server.pending import Pending
from bellwire.server.records import TIMELY, Records
from tests.server.numbered import Line, started

KEY = "a" * 32


def counts(record: Record | None, view: View) -> tuple[int, Record]:
    """One more than was on record."""
    number = 0 if record is None else record.last
    return number, Record(1, "birth", number + 1)


def looks(record: Record | None, view: View) -> tuple[int, None]:
    return (0 if record is None else record.last), None


async def on(broker: MemoryBroker) -> tuple[Line, Records]:
    line = Line(broker)
    return line, Records(line, Pending(line))


async def test_a_verdict_is_true_once_what_it_wants_stored_is_stored() -> None:
    broker = await started()
    line, mine = await on(broker)
    _, others = await on(broker)
    for number in range(3):
        ruling = await mine.update(KEY, counts, "lease")
        assert (ruling.verdict, ruling.generation, ruling.at) == (number, broker.generation(), 0.0)
    assert line.calls == ["get", "put", "put", "put"]
    assert (await others.update(KEY, looks, "lease")).verdict == 3


async def test_what_is_remembered_is_not_believed_without_a_proof() -> None:
    broker = await started()
    line, mine = await on(broker)
    _, others = await on(broker)
    await mine.update(KEY, counts, "lease")
    await others.update(KEY, counts, "lease")
    assert (await mine.update(KEY, looks, "lease")).verdict == 2
    assert (await mine.update(KEY, counts, "lease")).verdict == 2
    assert line.calls == ["get", "put", "get", "put", "get", "put"]


async def test_what_ran_out_is_not_believed_either() -> None:
    broker = await started()
    _, mine = await on(broker)
    await mine.update(KEY, counts, "lease")
    await asyncio.sleep(24 * 3600 + 1)
    assert (await mine.update(KEY, counts, "lease")).verdict == 0


async def test_a_lease_is_as_old_as_what_it_was_decided_on() -> None:
    _, mine = await on(await started())
    await mine.update(KEY, counts, "lease")
    await asyncio.sleep(7)
    assert (await mine.update(KEY, counts, "lease")).at == 7


async def test_a_verdict_of_another_generation_is_no_verdict() -> None:
    broker = await started()
    line, mine = await on(broker)
    first = await mine.update(KEY, counts, "lease")

    def fail_over(call: str) -> None:
        line.hook = lambda call: None
        broker.faults.take_back(broker.faults.keys())

    line.hook = fail_over  # the write is the new leader's: under which generation it was decided is not known any more
    ruling = await mine.update(KEY, counts, "lease")
    assert ruling.generation == broker.generation() != first.generation
    assert ruling.verdict == 2
    line.calls.clear()
    line.hook = fail_over  # in a reading
    assert (await mine.update(KEY, looks, "lease")).generation == broker.generation()
    assert line.calls == ["get", "get"]


async def test_a_writing_that_took_too_long_is_judged_again() -> None:
    broker = await started()
    line = Line(broker)
    mine = Records(line, Pending(line))
    slow = asyncio.Event()

    async def takes_long() -> None:
        await asyncio.sleep(TIMELY + 1)
        slow.set()

    line.pause = takes_long
    assert (await mine.update(KEY, counts, "lease")).verdict == 1
    assert slow.is_set()


async def test_what_was_stored_too_late_is_in_doubt_while_the_broker_is_away() -> None:
    broker = await started()
    line, mine = await on(broker)
    await mine.update(KEY, counts, "lease")
    line.pause = lambda: asyncio.sleep(TIMELY + 1)

    def go_away(call: str) -> None:
        if call == "get":
            broker.faults.go_away()

    line.hook = go_away
    with pytest.raises(OutcomeUnknown):
        await mine.update(KEY, counts, "lease")


@pytest.mark.parametrize("done", [True, False])
async def test_an_answer_that_was_lost_is_read_back_or_left_in_doubt(done: bool) -> None:
    broker = await started()
    line, mine = await on(broker)
    broker.faults.lose_put_answer(done=done)
    assert (await mine.update(KEY, counts, "lease")).verdict == int(done)
    broker.faults.lose_put_answer(done=done)

    def go_away(call: str) -> None:
        if call == "get":
            broker.faults.go_away()

    line.hook = go_away
    with pytest.raises(OutcomeUnknown):
        await mine.update(KEY, counts, "lease")
    with pytest.raises(BrokerUnavailable):
        await mine.update(KEY, counts, "lease")


async def test_what_cannot_be_read_is_not_taken_for_nothing() -> None:
    broker = await started()
    _, mine = await on(broker)
    await broker.put(f"bellwire:producer:{KEY}", b"\x91\x63")
    with pytest.raises(BellwireError, match="record"):
        await mine.update(KEY, counts, "lease")


async def test_what_is_too_large_is_not_stored() -> None:
    line, mine = await on(await started())
    line.max_value = 3
    with pytest.raises(MessageTooLarge):
        await mine.update(KEY, counts, "lease")
    line.max_value = 100
    assert (await mine.update(KEY, counts, "lease")).verdict == 0


async def test_only_so_much_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "REMEMBERED_BYTES", 10_000)
    line, mine = await on(await started())
    for n in range(100):
        await mine.update(f"{n:032x}", counts, "lease")
    assert 10 < len(mine._remembered) < 20
    assert 5_000 < mine._bytes <= 10_000
    for producer in [*mine._remembered]:
        mine.forget(producer)
    assert mine._bytes == 0
    line.calls.clear()
    assert (await mine.update(f"{99:032x}", counts, "lease")).verdict == 1
    assert line.calls == ["get", "put"]
