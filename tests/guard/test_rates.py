"""Token buckets: what they let through, and what they keep."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.core.rate import Rate
from bellwire.delivery.inbox import WINDOW
from bellwire.guard.rates import Bucket, Buckets, Hold, told

rates = st.builds(Rate, st.integers(1, 1_000), st.sampled_from([1.0, 60.0, 3600.0]))
steps = st.lists(st.floats(0, 3, allow_nan=False), max_size=300)


@pytest.mark.parametrize("now", [0.0, 5.0, 1e7])
def test_a_new_one_is_full_and_no_more(now: float) -> None:
    bucket = Bucket(Rate(100, 1))
    assert [bucket.take(now) for _ in range(100)] == [0.0] * 100
    assert bucket.take(now) == pytest.approx(0.01, abs=1e-6)


def test_it_fills_evenly() -> None:
    bucket = Bucket(Rate(10, 1))
    taken = sum(bucket.take(tick / 1000) == 0 for tick in range(10_000))
    assert taken == 10 + 99


@given(rates, steps)
def test_it_never_lets_more_through_than_its_rate_and_what_it_holds(rate: Rate, steps: list[float]) -> None:
    bucket, now, taken = Bucket(rate), 1_000.0, 0
    for step in steps:
        now += step
        taken += bucket.take(now) == 0
        assert taken <= rate.tokens + (now - 1_000) * rate.tokens / rate.seconds + 1e-3


@given(rates, steps)
def test_who_waits_as_told_is_let_through(rate: Rate, steps: list[float]) -> None:
    bucket, now = Bucket(rate), 50.0
    for step in steps:
        now += step / 100
        wait = bucket.take(now)
        if wait:
            assert bucket.take(now + told(wait)) == 0
            now += told(wait)


@given(rates, st.integers(1, 2_000), st.integers(0, 2_000))
def test_it_says_when_several_will_be_there(rate: Rate, wanted: int, used: int) -> None:
    bucket, now = Bucket(rate), 50.0
    bucket.charge(now, min(used, rate.tokens))
    later = now + bucket.wait(now, wanted)
    held = min(wanted, rate.tokens)  # more than it holds will never be there
    assert [bucket.take(later) for _ in range(held)] == [0.0] * held


def test_a_charge_beyond_what_is_there_has_to_fill_up_first() -> None:
    bucket = Bucket(Rate(10, 1))
    bucket.charge(100, 25)
    assert bucket.take(101) == pytest.approx(0.6)
    assert bucket.take(101.6) == 0
    assert not bucket.is_full(102)
    assert bucket.is_full(103)


def test_what_is_owed_is_bounded() -> None:
    bucket = Bucket(Rate(10, 1))
    bucket.charge(100, 10**9)
    bucket.charge(100, 10**9)
    assert bucket.take(100) == pytest.approx(10.1)


def test_what_is_told_is_whole_milliseconds_and_none_too_few() -> None:
    assert (told(0.01), told(0.01 + 1e-9), told(0.0101), told(1e-9)) == (0.01, 0.01, 0.011, 0.001)


# --- many of them


def test_full_ones_are_forgotten() -> None:
    buckets: Buckets[int] = Buckets(Rate(10, 1))
    for key in range(100_000):
        assert buckets.of(key, key / 1000).take(key / 1000) == 0  # each is full again after a tenth of a second
    assert len(buckets) <= Buckets.FEWEST


def test_those_in_use_are_kept_however_many_they_are() -> None:
    buckets: Buckets[int] = Buckets(Rate(1, 3600))
    for key in range(5_000):
        buckets.of(key, 1.0).take(1.0)
    assert all(buckets.of(key, 2.0).take(2.0) for key in range(5_000))


# --- numbered events that have to wait


def test_each_event_behind_a_refused_one_waits_for_a_token_of_its_own() -> None:
    bucket, now = Bucket(Rate(10, 1)), 100.0
    bucket.charge(now, 10)
    hold = Hold(7, bucket, now + bucket.take(now))
    assert hold.until == pytest.approx(100.1)
    assert [hold.wait(number, now) for number in (8, 9, 10)] == pytest.approx([0.2, 0.3, 0.4])


def test_nobody_waits_for_longer_than_it_takes_to_fill() -> None:
    bucket, now = Bucket(Rate(2, 1)), 100.0
    bucket.charge(now, 2)
    hold = Hold(1, bucket, now + bucket.take(now))
    assert max(hold.wait(number, now) for number in range(2, 40)) == pytest.approx(1.0)


def test_what_was_under_way_when_the_client_was_told_is_fair_and_nothing_else() -> None:
    hold = Hold(7, Bucket(Rate(10, 1)), 100.0)
    for number in (8, 9, 7 + WINDOW):
        assert hold.is_fair(number)
        hold.wait(number, 100.0)
        assert not hold.is_fair(number)
    assert not hold.is_fair(8 + WINDOW)
