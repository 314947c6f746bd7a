from hypothesis import given
from hypothesis import strategies as st

from bellwire.client.backoff import Backoff


def test_waits_double_up_to_thirty_seconds() -> None:
    backoff = Backoff(lambda: 0.0)
    assert [backoff.next() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_random_part_of_a_second_comes_on_top_and_never_beyond_the_limit() -> None:
    backoff = Backoff(lambda: 0.75)
    assert [backoff.next() for _ in range(8)] == [1.25, 1.75, 2.75, 4.75, 8.75, 16.75, 30, 30]


def test_the_count_starts_again() -> None:
    backoff = Backoff(lambda: 0.0)
    assert [backoff.next(), backoff.next()] == [0.5, 1]
    backoff.reset()
    assert backoff.next() == 0.5


def test_it_is_random_if_nothing_is_said() -> None:
    assert len({Backoff().next() for _ in range(20)}) == 20


@given(st.integers(0, 3000))
def test_it_waits_thirty_seconds_however_often(attempts: int) -> None:
    backoff = Backoff()
    waits = [backoff.next() for _ in range(attempts)]
    assert all(0.5 <= wait <= 30 for wait in waits)
