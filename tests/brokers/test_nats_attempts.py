"""What is remembered of appends: for as long as ids are, and bounded."""

from bellwire.brokers import nats_attempts
from bellwire.brokers.nats_attempts import Attempts, Doubt
from bellwire.core.counters import DROPPED, Counters
from bellwire.delivery.log import Appended
from bellwire.delivery.position import START, Point


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_attempt_without_an_answer_is_remembered_for_the_window_or_until_it_is_settled() -> None:
    clock = Clock()
    attempts = Attempts(120.0, clock, Counters())
    assert attempts.doubt("m") is None
    attempts.unanswered("m", 7, 1)
    attempts.unanswered("n", 8, 1)
    assert attempts.doubt("m") == Doubt(7, 1, 100.0)
    attempts.settled("n")
    assert attempts.doubt("n") is None
    clock.now += 120
    assert attempts.doubt("m")
    clock.now += 0.001
    assert attempts.doubt("m") is None


def test_an_answer_is_that_of_a_duplicate_with_the_same_number() -> None:
    attempts = Attempts(120.0, Clock(), Counters())
    attempts.unanswered("m", 0, 1)
    appended = Appended("g", Point(5, 55), START, duplicate=False)
    attempts.answered("m", appended)
    assert attempts.doubt("m") is None
    assert attempts.answer("m", 5) == appended.again
    assert attempts.answer("m", 6) is None
    assert attempts.answer("n", 5) is None


def test_both_memories_are_bounded_and_a_doubt_that_is_dropped_is_counted() -> None:
    counters = Counters()
    attempts = Attempts(120.0, Clock(), counters)
    for n in range(nats_attempts._MAX_DOUBTS + 2):
        attempts.unanswered(f"m{n}", n, 1)
    assert [attempts.doubt(f"m{n}") is None for n in range(3)] == [True, True, False]
    assert counters.get(DROPPED, kind="doubt", reason="too_many", policy="oldest_dropped") == 2
    for n in range(nats_attempts._MAX_ANSWERS + 1):
        attempts.answered(f"m{n}", Appended("g", Point(n, 1), START, duplicate=False))
    assert attempts.answer("m0", 0) is None
    assert attempts.answer("m1", 1)
