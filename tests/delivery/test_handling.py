"""The steps of one event through a node, row by row, and a crash between any two of them."""

from collections.abc import Callable

import pytest

from bellwire.delivery.effects import APPEND_SECONDS, DEDUPE_SECONDS, RULES, Effect, Emission, Key, message_id
from bellwire.delivery.entry import Copy
from bellwire.delivery.handling import (
    Append,
    Completion,
    Course,
    End,
    Handling,
    Invoke,
    Pause,
    Recovering,
    Skipping,
    Step,
    Update,
)
from bellwire.delivery.inbox import (
    LEASE_SECONDS,
    Answer,
    Arrival,
    Nack,
    Record,
    Refuse,
    Relaying,
    Skipped,
    Verdict,
    View,
    connect,
    unfinished,
)

KEY = "a" * 32
EMISSIONS = (Emission(("room", "hall"), b"one", ("me",)), Emission((), b"nobody"), Emission(("room",), b"two"))


class Storage:
    """One record, and who looks at it when."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.record: Record | None = connect(None, View("g", 0.0, "birth"))[1]

    def do(self, course: Course, step: Step, lease: str) -> Step:
        assert isinstance(step, Update)
        return course.decided(self.decide(step, lease))

    def decide(self, step: Update, lease: str) -> Verdict:
        verdict, changed = step.decide(self.record, View("g", self.now, lease))
        self.record = changed or self.record
        return verdict


def arrival(number: int, effect: Effect, *, resent: bool = False) -> Arrival:
    return Arrival(number, b"digest", effect, "g.birth", resent)


def relay(storage: Storage, lease: str = "mine") -> tuple[Handling, Step]:
    """Bring a relay as far as its first append."""
    handling = Handling(KEY, arrival(1, "relay"))
    assert storage.do(handling, handling.begin(), lease) == Invoke(None, redelivered=False)
    return handling, storage.do(handling, handling.returned(b"reply", EMISSIONS), lease)


@pytest.mark.parametrize("effect", ["transactional", "at_most_once", "at_least_once"])
def test_a_handler_runs_between_two_writes(effect: Effect) -> None:
    storage = Storage()
    handling = Handling(KEY, arrival(1, effect))
    step = storage.do(handling, handling.begin(), "mine")
    assert step == Invoke(Key(KEY, 1) if effect == "transactional" else None, redelivered=False)
    assert storage.do(handling, handling.returned(b"reply"), "mine") == End(Answer(b"reply"))


def test_a_refusal_needs_no_handler() -> None:
    storage = Storage()
    handling = Handling(KEY, arrival(1, "at_most_once"), refusal=b"no")
    assert storage.do(handling, handling.begin(), "mine") == End(Answer(b"no"))


def test_a_gap_ends_at_once() -> None:
    storage = Storage()
    handling = Handling(KEY, arrival(2, "at_most_once"))
    assert storage.do(handling, handling.begin(), "mine") == End(Nack(1, "g.birth"))


def test_the_emissions_of_a_relay_are_appended_in_order_each_copy_with_those_before() -> None:
    storage = Storage()
    handling, step = relay(storage)
    deadline = storage.now + APPEND_SECONDS
    assert step == Append("room", message_id(KEY, 1, 0), b"one", ("me",), (), deadline)
    first = Copy("room", "s", 7)
    step = handling.appended(first)
    assert step == Append("hall", message_id(KEY, 1, 0), b"one", ("me",), (first,), deadline, ("room",))
    step = handling.appended(Copy("hall", "s", 3))
    assert step == Append("room", message_id(KEY, 1, 2), b"two", (), (), deadline)
    step = handling.appended(Copy("room", "s", 8))
    assert isinstance(step, Update)
    assert step.pending == "remove"
    assert storage.do(handling, step, "mine") == End(Answer(b"reply"))


def test_a_stream_that_nobody_can_read_leaves_no_copy() -> None:
    handling, _ = relay(Storage())
    step = handling.appended(None)
    assert isinstance(step, Append)
    assert (step.stream, step.copies) == ("hall", ())


def test_the_producer_is_in_the_index_before_its_record_says_so() -> None:
    storage = Storage()
    handling = Handling(KEY, arrival(1, "relay"))
    storage.do(handling, handling.begin(), "mine")
    step = handling.returned(b"reply", EMISSIONS)
    assert isinstance(step, Update)
    assert step.pending == "add"


def test_c03_what_another_node_runs_is_waited_for() -> None:
    storage = Storage()
    first = Handling(KEY, arrival(1, "at_most_once"))
    storage.do(first, first.begin(), "first")
    second = Handling(KEY, arrival(1, "at_most_once", resent=True))
    assert storage.do(second, second.begin(), "second") == Pause(storage.now + LEASE_SECONDS)
    assert storage.do(first, first.returned(b"reply"), "first") == End(Answer(b"reply"))
    assert storage.do(second, second.resumed(), "second") == End(Answer(b"reply"))


def test_c03_two_nodes_that_ran_the_same_relay_make_one_of_it() -> None:
    storage = Storage()
    second = Handling(KEY, arrival(1, "relay", resent=True))
    storage.do(second, second.begin(), "second")
    first, _ = relay(storage, "first")
    step = storage.do(second, second.returned(b"another reply", (Emission(("x",), b"other"),)), "second")
    for course in (first, second):
        for _ in range(3):
            step = course.appended(None)
        assert storage.do(course, step, "any") == End(Answer(b"reply"))


def test_c01_a_relay_that_died_in_the_middle_is_done_by_the_next_event() -> None:
    storage = Storage()
    relay(storage, "dead")
    storage.now += 10
    handling = Handling(KEY, arrival(2, "at_most_once"))
    step = storage.do(handling, handling.begin(), "mine")
    assert step == Append("room", message_id(KEY, 1, 0), b"one", ("me",), (), 1000.0 + APPEND_SECONDS)
    for _ in range(3):
        step = handling.appended(None)
    step = storage.do(handling, step, "mine")
    assert storage.do(handling, step, "mine") == Invoke(None, redelivered=False)


def test_c01_a_relay_that_died_in_the_middle_is_done_by_a_node_that_looks_for_such() -> None:
    storage = Storage()
    relay(storage, "dead")
    found, _ = unfinished(storage.record, View("g", storage.now, "mine"))
    assert found is not None
    completion = Completion(KEY, 1, storage_relay(storage))
    step = completion.step()
    streams = []
    while isinstance(step, Append):
        streams.append((step.stream, step.body))
        step = completion.appended(None)
    assert streams == [("room", b"one"), ("hall", b"one"), ("room", b"two")]
    assert storage.decide(step, "mine") == Answer(b"reply")


def test_c01_a_recovery_ends_when_nothing_is_left_to_do() -> None:
    storage = Storage()
    relay(storage, "dead")
    for appends in (3, 0):
        recovering = Recovering(KEY)
        step = storage.do(recovering, recovering.begin(), "mine")
        for _ in range(appends):
            assert isinstance(step, Append)
            step = recovering.appended(None)
        if appends:
            step = storage.do(recovering, storage.do(recovering, step, "mine"), "mine")
        assert step == End(Skipped(0))
    assert storage.record is not None
    assert storage.record.open is None


def test_a_recovery_that_comes_too_late_waits_and_then_says_that_the_outcome_is_unknown() -> None:
    storage = Storage()
    relay(storage, "dead")
    storage.now += APPEND_SECONDS
    recovering = Recovering(KEY)
    assert storage.do(recovering, recovering.begin(), "mine") == Pause(1000.0 + DEDUPE_SECONDS)
    storage.now += DEDUPE_SECONDS
    assert storage.do(recovering, recovering.resumed(), "mine") == End(Skipped(0))
    assert storage.record is not None
    assert storage.record.held[-1].refusal == "outcome_unknown"


@pytest.mark.parametrize("effect", sorted(RULES))
def test_what_is_too_large_to_be_stored_is_replaced_by_a_word_about_it(effect: Effect) -> None:
    storage = Storage()
    handling = Handling(KEY, arrival(1, effect))
    storage.do(handling, handling.begin(), "mine")
    assert isinstance(handling.returned(b"much", EMISSIONS), Update)
    assert storage.do(handling, handling.too_large(b"too much"), "mine") == End(Answer(b"too much"))


def test_nothing_is_too_large_before_a_handler_has_run() -> None:
    handling = Handling(KEY, arrival(1, "relay"))
    handling.begin()
    with pytest.raises(RuntimeError):
        handling.too_large(b"too much")


def storage_relay(storage: Storage) -> Relaying:
    assert storage.record is not None
    assert isinstance(storage.record.open, Relaying)
    return storage.record.open


def test_c11_an_append_without_an_answer_is_the_same_step_again_and_one_success() -> None:
    """The log took the message, the answer was lost; or a failover took it back: the id decides."""
    for taken_back in (False, True):
        storage = Storage()
        handling, step = relay(storage)
        log: list[str] = []

        def append(step: Append, log: list[str] = log) -> Copy:
            if step.mid not in log:
                log.append(step.mid)
            return Copy(step.stream, "s", log.index(step.mid) + 1)

        assert isinstance(step, Append)
        append(step)
        if taken_back:
            log.clear()
        while isinstance(step, Append):
            step = handling.appended(append(step))
        assert log == [message_id(KEY, 1, 0), message_id(KEY, 1, 2)]
        assert storage.do(handling, step, "mine") == End(Answer(b"reply"))


def test_after_a_failover_the_record_is_read_before_more_is_appended() -> None:
    storage = Storage()
    stopped, _ = relay(storage, "stopped")
    other = Handling(KEY, arrival(1, "relay", resent=True))
    step = storage.do(other, other.begin(), "other")
    while isinstance(step, Append):
        step = other.appended(None)
    storage.do(other, step, "other")
    assert storage.do(stopped, stopped.moved(), "stopped") == End(Answer(b"reply"))


def test_too_late_to_append_is_an_unknown_outcome_when_the_window_is_over() -> None:
    storage = Storage()
    handling, _ = relay(storage)
    storage.now += APPEND_SECONDS
    assert handling.too_late() == Pause(1000.0 + DEDUPE_SECONDS)
    storage.now = 1000.0 + DEDUPE_SECONDS
    assert storage.do(handling, handling.resumed(), "mine") == End(Refuse("outcome_unknown"))


def test_a_relay_that_has_run_does_not_run_again_when_it_had_to_wait() -> None:
    storage = Storage()
    handling = Handling(KEY, arrival(2, "relay"))
    empty = storage.record
    first, step = relay(storage)
    while isinstance(step, Append):
        step = first.appended(None)
    pending = storage.record
    storage.do(first, step, "mine")
    assert storage.do(handling, handling.begin(), "mine") == Invoke(None, redelivered=False)
    storage.record = pending  # a failover took the last write back
    step = storage.do(handling, handling.returned(b"two", ()), "mine")
    while isinstance(step, Append):
        step = handling.appended(None)
    step = storage.do(handling, step, "mine")
    assert storage.do(handling, step, "mine") == End(Answer(b"two"))
    assert storage.record != empty


def test_once_a_handler_has_run_its_event_is_not_turned_away() -> None:
    """A nack lets the client run it again; but the record was stored, and somebody may have seen to its emissions."""
    storage = Storage()
    handling, _ = relay(storage)
    handling.too_late()
    storage.record = None
    assert storage.do(handling, handling.resumed(), "mine") == End(Refuse("outcome_unknown"))


def test_before_a_handler_has_run_its_event_is_turned_away_when_the_record_is_gone() -> None:
    storage = Storage()
    storage.record = None
    handling = Handling(KEY, arrival(1, "relay"))
    assert storage.do(handling, handling.begin(), "mine") == End(Nack(1, "g.mine"))


def test_numbers_to_skip_wait_for_what_runs() -> None:
    storage = Storage()
    first = Handling(KEY, arrival(1, "at_most_once"))
    storage.do(first, first.begin(), "first")
    skipping = Skipping(KEY, 1, 3)
    assert storage.do(skipping, skipping.begin(), "second") == Pause(storage.now + LEASE_SECONDS)
    storage.now += LEASE_SECONDS
    assert storage.do(skipping, skipping.resumed(), "second") == End(Skipped(3))
    assert storage.do(first, first.returned(b"late"), "first") == End(Refuse("outcome_unknown"))


def test_numbers_to_skip_complete_a_relay_first() -> None:
    storage = Storage()
    relay(storage, "dead")
    skipping = Skipping(KEY, 1, 1)
    step = storage.do(skipping, skipping.begin(), "mine")
    while isinstance(step, Append):
        step = skipping.appended(None)
    step = storage.do(skipping, step, "mine")
    assert storage.do(skipping, step, "mine") == End(Skipped(1))


@pytest.mark.parametrize("step", [Course.appended, Course.too_late, Course.moved, Course.decided, Handling.returned])
def test_a_step_at_the_wrong_time_is_the_drivers_fault(step: Callable[..., Step]) -> None:
    handling = Handling(KEY, arrival(1, "relay"))
    arguments = (None,) if step in (Course.appended, Course.decided, Handling.returned) else ()
    with pytest.raises(RuntimeError):
        step(handling, *arguments)
