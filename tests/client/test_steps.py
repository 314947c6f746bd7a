"""The order of what is stored and what is done, with a journal in the test's hand."""

import asyncio
from collections.abc import Sequence

from typing_extensions import override

from bellwire.client.journal import Done, MemoryJournal
from bellwire.client.steps import RETRY_SECONDS, Steps
from bellwire.delivery.outbox import Emitted, OutboxRecord, Pruned, Unsent
from bellwire.delivery.producer import Action, Fail, Prune, Skip, Store
from bellwire.testing.clock import advance

FULL = OSError(28, "full")


class Slow(MemoryJournal):
    """A journal that stores when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[tuple[Sequence[OutboxRecord], Done]] = []

    @override
    def write(self, records: Sequence[OutboxRecord], done: Done) -> None:
        self.writes.append((records, done))

    def finish(self, error: OSError | None = None) -> list[int]:
        """End the write that is under way; return the numbers of its records."""
        records, done = self.writes.pop()
        assert not self.writes
        numbers = [record.number for record in records if isinstance(record, Emitted | Unsent)]
        done(error)
        return numbers


class Stage:
    """Steps, and what was done, in order."""

    def __init__(self, journal: MemoryJournal) -> None:
        self.done: list[object] = []
        self.errors: list[OSError] = []
        self.steps = Steps(journal, self.act, self.stored, self.errors.append)

    def act(self, connection: int, action: Action) -> None:
        self.done.append((connection, action))
        if action == Skip(9, 9):
            self.steps.add(connection, [store(9), Prune(9)])

    def stored(self, record: OutboxRecord) -> None:
        assert isinstance(record, Emitted)
        self.done.append(record.number)


def store(number: int) -> Store:
    return Store(Emitted(number, b""))


async def test_with_the_memory_all_is_done_at_once_and_in_order() -> None:
    stage = Stage(MemoryJournal())
    stage.steps.add(1, [store(1), store(2), Skip(1, 1), store(3)])
    stage.steps.add(2, [Prune(1)])
    assert stage.done == [1, 2, (1, Skip(1, 1)), 3, (2, Prune(1))]
    await stage.steps.close()


async def test_what_follows_from_a_step_comes_behind_all_that_was_there() -> None:
    stage = Stage(MemoryJournal())
    stage.steps.add(1, [Skip(9, 9), Prune(1)])
    assert stage.done == [(1, Skip(9, 9)), (1, Prune(1)), 9, (1, Prune(9))]


async def test_nothing_passes_what_is_being_stored() -> None:
    journal = Slow()
    stage = Stage(journal)
    stage.steps.add(1, [Prune(0), store(1), store(2), Skip(1, 1), store(3), Prune(1)])
    stage.steps.add(1, [store(4)])
    assert stage.done == [(1, Prune(0))]
    assert journal.finish() == [1, 2]
    assert stage.done[1:] == [1, 2, (1, Skip(1, 1))]
    assert journal.finish() == [3]
    assert stage.done[4:] == [3, (1, Prune(1))]
    assert journal.finish() == [4]
    assert stage.done[6:] == [4]


async def test_what_cannot_be_stored_is_tried_again_and_all_else_waits() -> None:
    journal = Slow()
    stage = Stage(journal)
    stage.steps.add(1, [store(1), Prune(1)])
    journal.finish(FULL)
    assert (stage.errors, stage.steps.failure) == ([FULL], FULL)
    stage.steps.add(1, [store(2), Fail(1, "withdrawn")])
    assert (stage.done, journal.writes) == ([], [])
    await advance(RETRY_SECONDS)
    assert journal.finish(FULL) == [1]
    await advance(RETRY_SECONDS)
    assert journal.finish() == [1]
    assert stage.steps.failure is None
    assert journal.finish() == [2]
    assert stage.done == [1, (1, Prune(1)), 2, (1, Fail(1, "withdrawn"))]
    await advance(10 * RETRY_SECONDS)
    assert len(stage.errors) == 2


async def test_closing_waits_for_what_is_being_stored_but_not_for_a_full_disk() -> None:
    journal = Slow()
    stage = Stage(journal)
    stage.steps.add(1, [store(1), Prune(1), store(2)])
    closing = asyncio.ensure_future(stage.steps.close())
    await advance()
    journal.finish()
    await advance()
    assert not closing.done()
    journal.finish(FULL)
    await closing
    await advance(10 * RETRY_SECONDS)
    assert journal.writes == []


async def test_a_record_that_is_none_of_the_producers() -> None:
    journal = Slow()
    told: list[OutboxRecord] = []
    steps = Steps(journal, lambda connection, action: None, told.append, lambda error: None)
    steps.add(1, [Store(Pruned(3))])
    journal.finish()
    assert told == [Pruned(3)]
