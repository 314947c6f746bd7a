"""A stream's history: ids within their window, limits, and what a reader is told by its position."""

import pytest

from bellwire.delivery.answer import Page, Reason, Unproved
from bellwire.delivery.entry import Draft, marker
from bellwire.delivery.log import Appended, Footing, Limits, Log
from bellwire.delivery.position import START, Point, Position


def _log(count: int, limits: Limits | None = None) -> Log:
    log = Log("g", limits or Limits())
    for n in range(1, count + 1):
        log.append(Draft(f"m{n}", n * 11, b""), 0.0)
    return log


def _page(log: Log, after: Position) -> Page:
    page = log.read(after)
    assert isinstance(page, Page)
    return page


def _refused(log: Log, after: Position) -> tuple[Reason, Point]:
    answer = log.read(after)
    assert isinstance(answer, Unproved)
    assert answer.top == log.top
    assert answer.restart.gen == log.top.gen
    return answer.reason, answer.restart.point


def test_an_append_tells_where_the_message_stands() -> None:
    log = Log("g")
    assert log.top == Position("g", 0, 0)
    assert log.append(Draft("m1", 7, b"x"), 3.0) == Appended("g", Point(1, 7), START, duplicate=False)
    assert log.append(Draft("m2", 8, b"y"), 4.0) == Appended("g", Point(2, 8), Point(1, 7), duplicate=False)
    assert (log.newest.body, log.newest.at, log.newest.prev) == (b"y", 4.0, Point(1, 7))


def test_a_message_is_appended_once_within_the_window_and_again_after_it() -> None:
    log = Log("g")
    first = log.append(Draft("m", 1, b""), 0.0)
    again = log.append(Draft("m", 2, b""), 120.0)
    assert again == first.again
    assert len(log) == 1
    assert not log.append(Draft("m", 3, b""), 120.1).duplicate
    assert log.top == Position("g", 2, 3)


def test_ids_beyond_the_window_are_forgotten_and_those_within_are_not() -> None:
    log = Log("g", Limits(messages=5))
    for n in range(1_000):
        log.append(Draft(f"m{n}", n, b""), float(n))
        assert len(log._ids) <= 136, "no more than those of the window, and a batch that waits"
    assert log.append(Draft("m880", 1, b""), 1_000.0).duplicate
    assert not log.append(Draft("m879", 1, b""), 1_000.0).duplicate
    assert log.append(Draft("m879", 2, b""), 1_001.0).duplicate
    log.expire(1_200.0)
    assert not log._ids


def test_an_id_is_remembered_when_its_entry_is_gone() -> None:
    log = _log(5, Limits(messages=1))
    assert log.base == Point(3, 33)
    assert log.append(Draft("m1", 99, b""), 1.0).duplicate


def test_numbers_may_be_left_out() -> None:
    log = Log("g", step=lambda last: last + 10)
    log.append(Draft("a", 1, b""), 0.0)
    log.append(Draft("b", 2, b""), 0.0)
    assert log.newest.prev == Point(10, 1)
    assert [entry.mid for entry in _page(log, Position("g", 10, 1)).entries] == ["b"]
    assert _refused(log, Position("g", 15, 1)) == (Reason.DIVERGED, START)


@pytest.mark.parametrize("after", range(6))
def test_what_stands_in_the_log_is_continued(after: int) -> None:
    page = _page(_log(5), Position("g", after, after * 11))
    assert [entry.seq for entry in page.entries] == list(range(after + 1, 6))
    assert page.top == Position("g", 5, 55)
    assert (page.more, page.confirmed) == (False, True)


def test_what_does_not_stand_in_the_log_is_diverged() -> None:
    log = _log(5)
    assert _refused(log, Position("g", 5, 54)) == (Reason.DIVERGED, START)
    assert _refused(log, Position("g", 3, 0)) == (Reason.DIVERGED, START)
    assert _refused(log, Position("g", 6, 66)) == (Reason.DIVERGED, START)


def test_another_log_is_another_generation_even_for_who_has_seen_nothing() -> None:
    log = _log(5)
    assert _refused(log, Position("other", 3, 33)) == (Reason.GENERATION, START)
    assert _refused(log, Position("other", 0, 0)) == (Reason.GENERATION, START)


def test_the_last_point_trimmed_away_is_proved_and_what_lies_before_it_is_not() -> None:
    log = _log(10, Limits(messages=3))
    assert [entry.seq for entry in _page(log, Position("g", 6, 66)).entries] == [7, 8, 9, 10]
    assert _refused(log, Position("g", 5, 55)) == (Reason.TRUNCATED, Point(6, 66))
    assert _refused(log, Position("g", 6, 67)) == (Reason.DIVERGED, Point(6, 66))
    assert _refused(log, Position("g", 0, 0)) == (Reason.TRUNCATED, Point(6, 66))


def test_the_limits_count_what_lies_behind_the_newest() -> None:
    assert len(_log(10, Limits(messages=3))) == 4
    log = Log("g", Limits(size=3_000))
    for n in range(10):
        log.append(Draft(f"m{n}", n, b"x" * 936), 0.0)
    assert len(log) == 3
    log.append(Draft("big", 1, b"x" * 10_000), 0.0)
    assert len(log) == 3
    log.append(Draft("small", 1, b""), 0.0)
    assert [entry.mid for entry in _page(log, Position("g", *log.base)).entries] == ["small"]


def test_age_takes_all_but_the_newest_and_the_top_outlives_them() -> None:
    log = _log(5)
    log.append(Draft("m6", 66, b""), 300.0)
    log.expire(600.0)
    assert len(log) == 6
    log.expire(600.1)
    assert len(log) == 1
    log.expire(10**9)
    assert len(log) == 1
    assert _page(log, Position("g", 6, 66)).entries == []
    assert len(_page(log, Position("g", 5, 55)).entries) == 1


def test_after_a_failover_older_cursors_are_good_up_to_what_was_left() -> None:
    log = _log(8)
    log.lose_tail(3, "h")
    for n in (6, 7, 8):
        log.append(Draft(f"n{n}", n * 13, b""), 0.0)
    page = _page(log, Position("g", 5, 55))
    assert [entry.mid for entry in page.entries] == ["n6", "n7", "n8"]
    assert page.top.gen == "h"
    assert _refused(log, Position("g", 6, 66)) == (Reason.DIVERGED, START)
    assert _refused(log, Position("g", 6, 78)) == (Reason.DIVERGED, START)  # the generation finds out early


def test_two_failovers_the_first_under_one_generation_skip_nothing_of_what_came_between_them() -> None:
    log = _log(8)
    log.lose_tail(3)
    for n in (6, 7):
        log.append(Draft(f"n{n}", n * 13, b""), 0.0)
    log.lose_tail(0, "h")
    answer = log.read(Position("g", 8, 88))  # beyond what its generation reaches, 7; it has neither n6 nor n7
    assert isinstance(answer, Unproved)
    assert answer.reason is Reason.DIVERGED
    assert [entry.mid for entry in _page(log, answer.restart).entries][-2:] == ["n6", "n7"]


def _since(log: Log, after: Position) -> Point | None:
    answer = log.read(after)
    assert isinstance(answer, Unproved)
    return None if answer.since is None else answer.since.point


def test_what_came_after_a_position_that_has_diverged_is_told_from_what_may_have_come_before() -> None:
    log = _log(8)
    log.lose_tail(3, "h")
    for n in (6, 7):
        log.append(Draft(f"n{n}", n * 13, b""), 0.0)
    assert _since(log, Position("g", 8, 88)) == Point(5, 55)
    assert _since(log, Position("g", 6, 66)) == Point(5, 55)
    assert _since(log, Position("h", 6, 66)) == Point(6, 78)  # the number alone tells
    assert _since(log, Position("h", 9, 99)) == log.top.point
    assert _since(log, Position("other", 6, 66)) is None


def test_when_the_same_generation_goes_on_the_tag_tells() -> None:
    log = _log(8)
    assert [entry.seq for entry in log.lose_tail(3)] == [6, 7, 8]
    assert log.top == Position("g", 5, 55)
    assert not log.append(Draft("m6", 60, b""), 0.0).duplicate  # the same id, the same number, another tag
    assert _refused(log, Position("g", 6, 66)) == (Reason.DIVERGED, START)
    assert _page(log, Position("g", 6, 60)).entries == []


def test_a_page_can_be_limited_and_goes_on_where_it_ended() -> None:
    log = _log(10)
    seen, after, more = [], Position("g", 0, 0), True
    while more:
        page = log.read(after, messages=3)
        assert isinstance(page, Page)
        seen += [entry.seq for entry in page.entries]
        after, more = Position("g", *page.entries[-1].point), page.more
    assert seen == list(range(1, 11))


def test_the_log_as_a_follower_has_it() -> None:
    log = _log(5)
    assert log.as_of(2).top == Position("g", 3, 33)
    assert log.as_of(9).top == Position("g", 0, 0)
    assert log.top.seq == 5


def test_a_log_with_one_marker_stands_on_a_footing_and_is_the_same_again() -> None:
    log = Log("g", Limits())
    log.append(marker(7), 5.0)
    footing = log.footing
    assert footing == Footing("g", 1, 7, 5.0)
    again = Log.on(footing, Limits())
    assert (again.bare, again.begun, again.touched, again.due) == (True, True, 5.0, log.due)
    assert again.append(marker(8), 6.0).duplicate
    assert log.append(marker(8), 6.0).duplicate
    assert again.read(Position("g", 0, 0)) == log.read(Position("g", 0, 0))
    for each in (log, again):
        each.append(Draft("m", 1, b""), 7.0)
        assert each.footing is None
    assert again.read(Position("g", 1, 7)) == log.read(Position("g", 1, 7))


def test_a_log_with_more_to_it_than_one_marker_has_no_footing() -> None:
    log = Log("g")
    assert log.footing is None
    log.append(Draft("m", 1, b""), 0.0)
    assert log.footing is None
    other = Log("g")
    other.append(marker(1), 0.0)
    other.lose_tail(0, "h")
    assert other.footing is None
    both = Log("g")
    both.append(marker(1), 0.0)
    both.append(marker(2), 1_000.0)
    assert both.footing is None
