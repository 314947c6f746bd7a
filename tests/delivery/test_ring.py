"""A ring: what it accepts, what makes it ask, and what the log's answers do to it."""

import pytest

from bellwire.delivery.answer import Page, Reason, Unproved
from bellwire.delivery.entry import Entry
from bellwire.delivery.position import START, Point, Position, position
from bellwire.delivery.ring import HELD_MESSAGES, Broken, Repair, Ring, State, Verdict
from tests.delivery.making import GEN, line, make


def _ring(entries: list[Entry], base: Point = START, **limits: int) -> Ring:
    ring = Ring(**limits)
    ring.open(position(GEN, base))
    for entry in entries:
        assert ring.accept(GEN, entry) is Verdict.ACCEPTED
    return ring


def _page(entries: list[Entry], top: Point, *, gen: str = GEN, more: bool = False) -> Page:
    return Page(entries, position(gen, top), more, confirmed=True)


def _seqs(ring: Ring) -> list[int]:
    return [entry.seq for entry in ring.chain]


def test_it_follows_what_follows_on_its_top() -> None:
    ring = _ring(line(3))
    assert ring.top == Position(GEN, 3, 1003)
    assert ring.question is None


def test_the_same_entry_again_is_a_duplicate_and_the_same_number_is_not() -> None:
    ring = _ring(line(3))
    assert ring.accept(GEN, line(2)[1]) is Verdict.DUPLICATE
    assert ring.accept(GEN, line(3)[2]) is Verdict.DUPLICATE
    assert ring.following
    assert ring.accept(GEN, make(2, Point(1, 1001), branch=2)) is Verdict.SUSPECT
    assert ring.question == Position(GEN, 0, 0)


@pytest.mark.parametrize(
    ("entry", "verdict", "behind"),
    [
        (make(6, Point(5, 1005)), Verdict.GAP, Point(3, 1003)),
        (make(4, Point(3, 2003), branch=2), Verdict.SUSPECT, START),
        (make(9, Point(2, 1002)), Verdict.SUSPECT, START),
    ],
)
def test_what_does_not_follow_makes_it_ask(entry: Entry, verdict: Verdict, behind: Point) -> None:
    ring = _ring(line(3))
    assert ring.accept(GEN, entry) is verdict
    assert ring.state is State.REPAIRING
    assert ring.question == position(GEN, behind)


def test_the_first_entry_of_another_generation_proves_nothing() -> None:
    ring = _ring([])
    assert ring.accept("other", make(1, START)) is Verdict.SUSPECT


def test_a_new_generation_with_an_unbroken_chain_is_followed() -> None:
    ring = _ring(line(3))
    assert ring.accept("h", make(4, Point(3, 1003))) is Verdict.ACCEPTED
    assert ring.top.gen == "h"


def test_a_gap_is_repaired_and_what_was_held_follows() -> None:
    entries = line(6)
    ring = _ring(entries[:2])
    ring.accept(GEN, entries[3])
    assert ring.accept(GEN, entries[4]) is Verdict.HELD
    repair = ring.repair(_page(entries[2:4], entries[3].point))
    assert repair == Repair(None, [(GEN, entry) for entry in entries[2:5]])
    assert ring.following
    assert _seqs(ring) == [1, 2, 3, 4, 5]


def test_a_gap_is_read_page_by_page() -> None:
    entries = line(6)
    ring = _ring(entries[:1])
    ring.accept(GEN, entries[5])
    assert ring.repair(_page(entries[1:3], entries[5].point, more=True)).entries == [(GEN, e) for e in entries[1:3]]
    assert ring.question == position(GEN, entries[2].point)
    assert ring.repair(_page(entries[3:], entries[5].point)).entries == [(GEN, e) for e in entries[3:]]
    assert ring.following


def test_what_found_no_place_while_it_was_held_is_asked_for() -> None:
    entries = line(HELD_MESSAGES + 10)
    ring = _ring(entries[:1])
    for entry in entries[3:]:
        ring.accept(GEN, entry)
    assert ring.repair(_page(entries[1:4], entries[3].point)).entries == [(GEN, e) for e in entries[1:4]]
    assert ring.question == position(GEN, entries[3].point)
    ring.repair(_page(entries[4:], entries[-1].point))
    assert ring.top.point == entries[-1].point
    assert ring.following


def test_a_gap_among_what_was_held_is_asked_for_again() -> None:
    entries = line(8)
    ring = _ring(entries[:1])
    ring.accept(GEN, entries[2])
    ring.accept(GEN, entries[5])
    assert ring.repair(_page(entries[1:3], entries[2].point)).entries == [(GEN, e) for e in entries[1:3]]
    assert ring.question == position(GEN, entries[2].point)


def test_a_suspicion_that_the_log_refutes_changes_nothing() -> None:
    entries = line(3)
    ring = _ring(entries)
    ring.accept("old", make(3, Point(2, 1002), branch=2))
    assert ring.repair(_page(entries, entries[2].point)) == Repair(None, [])
    assert ring.following
    assert _seqs(ring) == [1, 2, 3]


def test_what_the_log_took_back_is_taken_back_and_the_common_point_is_told() -> None:
    entries = line(8)
    others = line(3, entries[4].point, branch=2)
    ring = _ring(entries)
    assert ring.accept("h", others[0]) is Verdict.SUSPECT
    common = entries[4].point
    repair = ring.repair(_page(entries[:5] + others, others[2].point, gen="h"))
    assert repair.broken == Broken(Reason.DIVERGED, common, position("h", common))
    assert repair.entries == [("h", entry) for entry in others]
    assert ring.following
    assert ring.top == position("h", others[2].point)


def test_a_tail_that_is_gone_without_another_is_taken_back() -> None:
    entries = line(5)
    ring = _ring(entries)
    assert not ring.compare(position(GEN, entries[2].point))
    repair = ring.repair(_page(entries[:3], entries[2].point))
    assert repair == Repair(Broken(Reason.DIVERGED, entries[2].point, position(GEN, entries[2].point)), [])
    assert _seqs(ring) == [1, 2, 3]


def test_a_page_that_ends_too_early_takes_nothing_back_before_the_last_one() -> None:
    entries = line(5)
    ring = _ring(entries)
    ring.compare(position(GEN, Point(5, 2005)))
    assert ring.repair(_page(entries[:2], entries[4].point, more=True)) == Repair(None, [])
    assert ring.question == position(GEN, entries[1].point)
    assert ring.repair(_page(entries[2:], entries[4].point)) == Repair(None, [])
    assert _seqs(ring) == [1, 2, 3, 4, 5]


def _unproved(reason: Reason, restart: Point, gen: str = GEN) -> Unproved:
    return Unproved(reason, position(gen, restart), position(gen, Point(99, 99)), confirmed=True)


def test_when_the_top_is_not_proved_the_base_is_asked() -> None:
    base = Point(10, 1010)
    ring = _ring(line(3, base), base)
    ring.compare(Position(GEN, 20, 20))
    assert ring.repair(_unproved(Reason.DIVERGED, START)) == Repair(None, [])
    assert ring.question == position(GEN, base)
    repair = ring.repair(_unproved(Reason.DIVERGED, START))
    assert repair == Repair(Broken(Reason.DIVERGED, None, position(GEN, START)), [])
    assert not len(ring.chain)
    assert ring.question == position(GEN, START)


def test_when_the_base_was_trimmed_the_logs_own_base_is_enough() -> None:
    entries = line(5)
    ring = _ring(entries)
    ring.accept("old", make(5, entries[3].point, branch=2))
    assert ring.repair(_unproved(Reason.TRUNCATED, entries[2].point)) == Repair(None, [])
    assert ring.question == position(GEN, entries[2].point)
    assert ring.repair(_page(entries[3:], entries[4].point)) == Repair(None, [])
    assert ring.following


def test_a_history_that_went_past_it_breaks_it_for_all() -> None:
    ring = _ring(line(3))
    ring.accept(GEN, make(50, Point(49, 1)))
    restart = Point(40, 4)
    repair = ring.repair(_unproved(Reason.TRUNCATED, restart))
    assert repair.broken == Broken(Reason.TRUNCATED, None, position(GEN, restart))
    assert ring.question == position(GEN, restart)


def test_another_log_breaks_it_at_once() -> None:
    ring = _ring(line(3))
    ring.accept("h", make(1, START, branch=2))
    repair = ring.repair(_unproved(Reason.GENERATION, START, "h"))
    assert repair.broken == Broken(Reason.GENERATION, None, position("h", START))
    assert ring.question == position("h", START)


def test_it_keeps_the_newest_by_count_and_by_bytes() -> None:
    assert _seqs(_ring(line(10), messages=4)) == [7, 8, 9, 10]
    entries = line(10, body=b"x" * 1000)
    assert _seqs(_ring(entries, size=entries[9].size * 3)) == [8, 9, 10]
    assert _seqs(_ring(line(2, body=b"x" * 1000), size=10)) == [2]


def test_what_comes_before_it_is_open_is_held() -> None:
    entries = line(4)
    ring = Ring()
    assert ring.accept(GEN, entries[1]) is Verdict.HELD
    assert ring.accept(GEN, entries[2]) is Verdict.HELD
    assert not ring.compare(position(GEN, entries[3].point))
    assert ring.open(position(GEN, entries[1].point)) == [(GEN, entries[2])]
    assert ring.following
    with pytest.raises(ValueError, match="is open"):
        ring.open(position(GEN, START))


def test_the_probe_finds_nothing_where_all_is_well_and_an_answer_needs_a_question() -> None:
    ring = _ring(line(3))
    assert ring.compare(ring.top)
    with pytest.raises(ValueError, match="nothing was asked"):
        ring.repair(_page([], Point(3, 1003)))


def test_the_probe_knows_an_empty_log_from_another_empty_log() -> None:
    ring = _ring([])
    assert not ring.compare(position("other", START))
    assert ring.question == position(GEN, START)


def test_where_it_stands_is_proved_by_the_tag_and_the_start_by_the_generation() -> None:
    ring = _ring(line(3))
    assert ring.stands(Position("whatever", 2, 1002))
    assert not ring.stands(Position(GEN, 2, 2002))
    assert ring.stands(Position(GEN, 0, 0))
    assert not ring.stands(Position("other", 0, 0))
    ring.accept(GEN, make(9, Point(8, 1)))
    assert not ring.stands(Position(GEN, 2, 1002))


def test_many_doubtful_entries_held_cost_one_more_read() -> None:
    entries = line(9)
    ring = _ring(entries)
    ring.compare(position(GEN, Point(12, 5)))
    for entry in line(9, branch=2):  # a deposed leader goes on publishing
        assert ring.accept("old", entry) is Verdict.HELD
    assert ring.repair(_page([], entries[8].point)) == Repair(None, [])
    assert ring.question == position(GEN, START)
    assert ring.repair(_page(entries, entries[8].point)) == Repair(None, [])
    assert ring.question is None
