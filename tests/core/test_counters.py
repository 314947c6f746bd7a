"""Counters grow, keep their labels apart, and cannot be made to fill the memory."""

import pytest

from bellwire.core.counters import DROPPED, MAX_SERIES, OVERFLOW, Counters


def test_series_are_kept_apart_by_name_and_labels() -> None:
    counters = Counters()
    counters.add("events_total")
    counters.add("events_total", 4)
    counters.add("closed_total", reason="a", code="1")
    counters.add("closed_total", code="1", reason="a")
    counters.add("closed_total", reason="b", code="1")
    assert counters.get("events_total") == 5
    assert counters.get("closed_total", code="1", reason="a") == 2
    assert counters.get("closed_total", reason="b", code="1") == 1
    assert counters.get("closed_total") == counters.get("other_total") == 0
    assert counters.snapshot() == {
        'closed_total{code="1",reason="a"}': 2,
        'closed_total{code="1",reason="b"}': 1,
        "events_total": 5,
    }


def test_a_drop_has_a_kind_a_reason_and_a_policy() -> None:
    counters = Counters()
    counters.dropped("volatile", reason="buffer_full", policy="newest_kept")
    counters.dropped("volatile", reason="buffer_full", policy="newest_kept", n=2)
    assert counters.get(DROPPED, kind="volatile", reason="buffer_full", policy="newest_kept") == 3
    assert counters.snapshot() == {'dropped_total{kind="volatile",policy="newest_kept",reason="buffer_full"}': 3}


def test_a_snapshot_does_not_change_any_more() -> None:
    counters = Counters()
    counters.add("x_total")
    before = counters.snapshot()
    counters.add("x_total")
    assert before == {"x_total": 1}


@pytest.mark.parametrize(("name", "n", "message"), [("events", 1, "ends with _total"), ("x_total", -1, "only grow")])
def test_what_is_no_counter_is_refused(name: str, n: int, message: str) -> None:
    counters = Counters()
    with pytest.raises(ValueError, match=message):
        counters.add(name, n)
    assert counters.snapshot() == {}


def test_a_label_that_is_not_bounded_fills_no_memory_and_is_told() -> None:
    counters = Counters()
    for number in range(MAX_SERIES + 50):
        counters.add("x_total", label=str(number))
    assert len(counters.snapshot()) == MAX_SERIES + 1
    assert counters.get(OVERFLOW) == 50
    counters.add("x_total", label="0")
    assert counters.get("x_total", label="0") == 2
