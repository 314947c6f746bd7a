"""One reader's way back: what it reads, in which order it is told, and what it is never told by a follower."""

import pytest

from bellwire.delivery.answer import Page, Reason, Unproved
from bellwire.delivery.entry import Entry, enter, marker
from bellwire.delivery.position import START, Point, Position, position
from bellwire.delivery.resume import Ended, Hand, Live, Proved, Read, Reset, Resume, State, Wait
from bellwire.delivery.ring import Ring
from tests.delivery.making import GEN, line


def _ring(base: Point, entries: list[Entry]) -> Ring:
    ring = Ring()
    ring.open(position(GEN, base))
    for entry in entries:
        ring.accept(GEN, entry)
    return ring


def _all(_: Entry) -> bool:
    return True


def _page(entries: list[Entry], top: Point, *, more: bool = False, confirmed: bool = True) -> Page:
    return Page(entries, position(GEN, top), more, confirmed)


def test_who_stands_in_the_ring_needs_no_read() -> None:
    entries = line(5)
    resume = Resume(_ring(START, entries), position("older", entries[2].point), _all)
    assert resume.next() == Proved(position(GEN, entries[2].point))
    assert resume.next() == Hand(GEN, entries[2].point, tuple(entries[3:]))
    assert resume.next() == Live(entries[4].point)
    assert resume.state is State.LIVE
    assert resume.next() == Live(entries[4].point)


def test_history_is_proved_then_handed_page_by_page_and_goes_on_in_the_ring() -> None:
    entries = line(9)
    ring = _ring(entries[5].point, entries[6:8])
    resume = Resume(ring, position(GEN, entries[0].point), _all, messages=3, size=999)
    assert resume.next() == Read(position(GEN, entries[0].point), 3, 999, confirmed=False)
    assert resume.next() == Wait()
    resume.answered(_page(entries[1:4], entries[7].point, more=True, confirmed=False))
    assert resume.next() == Proved(position(GEN, entries[0].point))
    assert resume.next() == Hand(GEN, entries[0].point, tuple(entries[1:4]))
    assert resume.next() == Read(position(GEN, entries[3].point), 3, 999, confirmed=False)
    resume.answered(_page(entries[4:7], entries[7].point, more=True, confirmed=False))
    assert resume.next() == Hand(GEN, entries[3].point, tuple(entries[4:7]))
    ring.accept(GEN, entries[8])  # published while the socket drained
    assert resume.next() == Hand(GEN, entries[6].point, tuple(entries[7:]))
    assert resume.next() == Live(entries[8].point)


def test_a_follower_that_knows_less_is_asked_again_as_the_leader() -> None:
    entries = line(5)
    resume = Resume(_ring(entries[4].point, []), position(GEN, entries[2].point), _all)
    resume.next()
    behind = position(GEN, START)
    resume.answered(Unproved(Reason.DIVERGED, behind, behind, confirmed=False))
    assert resume.next() == Read(position(GEN, entries[2].point), 500, 1024 * 1024, confirmed=True)
    resume.answered(_page(entries[3:], entries[4].point))
    assert isinstance(resume.next(), Proved)


def test_that_a_follower_knows_nothing_more_is_no_verdict_either() -> None:
    entries = line(6)
    resume = Resume(_ring(entries[5].point, []), position(GEN, entries[0].point), _all)
    resume.next()
    resume.answered(_page(entries[1:3], entries[2].point, confirmed=False))
    assert isinstance(resume.next(), Proved)
    assert isinstance(resume.next(), Hand)
    assert resume.next() == Read(position(GEN, entries[2].point), 500, 1024 * 1024, confirmed=True)


@pytest.mark.parametrize("reason", [Reason.TRUNCATED, Reason.DIVERGED, Reason.GENERATION])
def test_what_cannot_be_proved_is_reset_and_replayed_from_the_restart(reason: Reason) -> None:
    entries = line(5)
    restart = position(GEN, entries[1].point)
    resume = Resume(_ring(entries[4].point, []), Position("g", 77, 7), _all)
    resume.next()
    resume.answered(Unproved(reason, restart, position(GEN, entries[4].point), confirmed=True))
    assert resume.next() == Reset(reason, restart)
    assert resume.next() == Read(restart, 500, 1024 * 1024, confirmed=False)
    resume.answered(_page(entries[2:], entries[4].point))
    assert resume.next() == Hand(GEN, entries[1].point, tuple(entries[2:]))
    assert resume.next() == Live(entries[4].point)


def test_a_history_that_goes_past_a_proved_reader_is_too_far() -> None:
    entries = line(9)
    resume = Resume(_ring(entries[8].point, []), position(GEN, START), _all)
    resume.next()
    resume.answered(_page(entries[:2], entries[8].point, more=True))
    resume.next()
    resume.next()
    resume.next()
    restart = position(GEN, entries[5].point)
    resume.answered(Unproved(Reason.TRUNCATED, restart, position(GEN, entries[8].point), confirmed=True))
    assert resume.next() == Reset(Reason.TOO_FAR, restart)


def test_a_slow_reader_is_not_told_that_it_is_proved_but_that_it_is_too_far() -> None:
    entries = line(5)
    ring = _ring(entries[4].point, [])
    assert Resume(ring, position(GEN, entries[4].point), _all, lagging=True).next() == Live(entries[4].point)
    resume = Resume(ring, position(GEN, START), _all, lagging=True)
    resume.next()
    restart = position(GEN, entries[3].point)
    resume.answered(Unproved(Reason.TRUNCATED, restart, restart, confirmed=True))
    assert resume.next() == Reset(Reason.TOO_FAR, restart)


def test_when_the_log_is_ahead_of_the_ring_the_ring_is_repaired_first() -> None:
    entries = line(6)
    ring = _ring(entries[1].point, entries[2:4])
    resume = Resume(ring, position(GEN, START), _all)
    resume.next()
    resume.answered(_page(entries, entries[5].point))
    resume.next()
    assert resume.next() == Hand(GEN, START, tuple(entries))
    assert resume.next() == Wait()
    assert ring.question == position(GEN, entries[3].point)
    assert resume.next() == Wait()
    ring.repair(_page(entries[4:], entries[5].point))
    assert resume.next() == Live(entries[5].point)


def test_when_the_ring_turns_out_to_have_another_history_the_log_decides() -> None:
    entries = line(4)
    others = line(1, entries[2].point, branch=2)
    ring = _ring(entries[2].point, [])
    resume = Resume(ring, position(GEN, START), _all)
    resume.next()
    resume.answered(_page(entries, entries[3].point))
    resume.next()
    resume.next()
    assert resume.next() == Wait()
    ring.repair(_page(others, others[0].point))  # a failover came between the two reads
    assert resume.next() == Read(position(GEN, entries[3].point), 500, 1024 * 1024, confirmed=True)
    restart = position(GEN, entries[2].point)
    resume.answered(Unproved(Reason.DIVERGED, restart, position(GEN, others[0].point), confirmed=True))
    assert resume.next() == Reset(Reason.DIVERGED, restart)
    assert resume.next() == Hand(GEN, entries[2].point, tuple(others))
    assert resume.next() == Live(others[0].point)


def test_what_is_not_for_the_reader_only_advances_it() -> None:
    entries = line(5)
    mark = enter(marker(9), 6, entries[4].point, 0.0)
    resume = Resume(_ring(START, [*entries, mark]), position(GEN, entries[0].point), lambda entry: entry.seq == 4)
    resume.next()
    assert resume.next() == Hand(GEN, entries[0].point, (entries[3],))
    assert resume.next() == Live(entries[3].point)
    assert resume.known == position(GEN, entries[3].point)


def test_a_membership_that_ended_is_gone_through_to_its_end() -> None:
    entries = line(5)
    until = position(GEN, entries[2].point)
    resume = Resume(_ring(START, entries), position(GEN, entries[0].point), _all, until=until)
    assert isinstance(resume.next(), Proved)
    assert resume.next() == Hand(GEN, entries[0].point, tuple(entries[1:3]))
    assert resume.next() == Ended(entries[2].point)
    assert resume.next() == Ended(entries[2].point)


def test_nothing_follows_on_a_membership_that_ended_where_the_reader_stands() -> None:
    entries = line(5)
    at = position(GEN, entries[2].point)
    resume = Resume(_ring(START, entries), at, _all, until=at)
    assert resume.next() == Proved(at)
    assert resume.next() == Ended(at.point)


def test_a_ring_that_is_behind_the_end_of_a_membership_is_not_where_it_ends() -> None:
    entries = line(6)
    until = position(GEN, entries[4].point)
    ring = _ring(entries[0].point, entries[1:3])  # the others were lost on the way, or have not come yet
    resume = Resume(ring, position(GEN, entries[1].point), _all, until=until)
    assert isinstance(resume.next(), Proved)
    assert resume.next() == Hand(GEN, entries[1].point, (entries[2],))
    assert resume.next() == Read(position(GEN, entries[2].point), 500, 1024 * 1024, confirmed=True)
    resume.answered(_page(entries[3:], entries[5].point))
    assert resume.next() == Hand(GEN, entries[2].point, tuple(entries[3:5]))
    assert resume.next() == Ended(entries[4].point)


def test_a_membership_whose_end_a_failover_took_back_ends_with_the_log() -> None:
    entries = line(6)
    until = position(GEN, entries[4].point)
    ring = _ring(entries[0].point, entries[1:3])
    resume = Resume(ring, position(GEN, entries[2].point), _all, until=until)
    assert isinstance(resume.next(), Proved)
    assert isinstance(resume.next(), Read)
    resume.answered(_page([], entries[2].point))
    assert resume.next() == Ended(entries[2].point)
    assert resume.state is State.ENDED


def test_an_answer_needs_a_question() -> None:
    resume = Resume(_ring(START, []), position("x", START), _all)
    with pytest.raises(ValueError, match="nothing was asked"):
        resume.answered(_page([], START))


def test_it_waits_for_a_ring_that_is_not_open_yet() -> None:
    entries = line(2)
    ring = Ring()
    resume = Resume(ring, position(GEN, START), _all)
    resume.next()
    resume.answered(_page(entries, entries[1].point))
    assert isinstance(resume.next(), Proved)
    assert isinstance(resume.next(), Hand)
    assert resume.next() == Wait()
    ring.open(position(GEN, entries[1].point))
    assert resume.next() == Live(entries[1].point)


def test_when_the_log_ends_before_the_ring_begins_the_ring_is_repaired() -> None:
    entries = line(9)
    ring = _ring(entries[7].point, entries[8:])  # what it holds was taken back since
    resume = Resume(ring, position(GEN, entries[2].point), _all)
    resume.next()
    resume.answered(_page(entries[3:5], entries[4].point))
    assert isinstance(resume.next(), Proved)
    assert isinstance(resume.next(), Hand)
    assert isinstance(resume.next(), Read)
    resume.answered(_page([], entries[4].point))
    assert resume.next() == Wait()
    assert ring.question == position(GEN, entries[7].point)
    at = position(GEN, entries[4].point)
    assert ring.repair(Unproved(Reason.DIVERGED, at, at, confirmed=True)).broken is not None
    ring.repair(_page([], entries[4].point))
    assert resume.next() == Live(entries[4].point)


FLOOR = 3  # the reader became a member behind the entry with this index


def _resume_above_floor(entries: list[Entry], cursor: Position, *, until: Position | None = None) -> Resume:
    """A reader that became a member in the middle, on a node that knows of the newest entry only."""
    floor = position(GEN, entries[FLOOR].point)
    return Resume(_ring(entries[-1].point, []), cursor, _all, until=until, floor=floor)


def _read_floor(entries: list[Entry]) -> Read:
    return Read(position(GEN, entries[FLOOR].point), 500, 1024 * 1024, confirmed=True)


def test_who_claims_less_than_it_began_with_begins_there_and_is_told() -> None:
    entries = line(8)
    resume = _resume_above_floor(entries, position(GEN, entries[1].point))
    assert resume.next() == _read_floor(entries)
    resume.answered(_page(entries[FLOOR + 1 :], entries[-1].point))
    floor = entries[FLOOR].point
    assert resume.next() == Reset(Reason.TRUNCATED, position(GEN, floor))
    assert resume.next() == Hand(GEN, floor, tuple(entries[FLOOR + 1 :]))
    assert resume.next() == Live(entries[-1].point)


def test_who_claims_less_does_so_before_the_ring_is_asked() -> None:
    entries = line(8)
    floor = position(GEN, entries[FLOOR].point)
    resume = Resume(_ring(START, entries), position(GEN, entries[1].point), _all, floor=floor)
    assert resume.next() == _read_floor(entries)


@pytest.mark.parametrize("reason", [Reason.DIVERGED, Reason.GENERATION])
def test_a_claim_that_cannot_be_proved_gets_nothing_from_before_the_membership(reason: Reason) -> None:
    entries = line(8)
    until = position(GEN, entries[6].point)
    resume = _resume_above_floor(entries, Position("g", 77, 7), until=until)
    assert isinstance(resume.next(), Read)
    top = position(GEN, entries[-1].point)
    resume.answered(Unproved(reason, position(GEN, START), top, confirmed=True))
    assert resume.next() == _read_floor(entries)
    resume.answered(_page(entries[FLOOR + 1 :], entries[-1].point))
    floor = entries[FLOOR].point
    assert resume.next() == Reset(reason, position(GEN, floor))
    assert resume.next() == Hand(GEN, floor, tuple(entries[FLOOR + 1 : 7]))
    assert resume.next() == Ended(until.point)


def test_a_restart_that_lies_in_the_membership_needs_no_look_at_where_it_began() -> None:
    entries = line(8)
    resume = _resume_above_floor(entries, Position("g", 77, 7))
    resume.next()
    restart = position(GEN, entries[5].point)
    resume.answered(Unproved(Reason.DIVERGED, restart, position(GEN, entries[-1].point), confirmed=True))
    assert resume.next() == Reset(Reason.DIVERGED, restart)


def test_when_a_failover_took_the_beginning_back_the_log_says_where_to_restart() -> None:
    entries = line(8)
    resume = _resume_above_floor(entries, Position("g", 77, 7))
    resume.next()
    common, top = position(GEN, entries[1].point), position(GEN, entries[-1].point)
    resume.answered(Unproved(Reason.DIVERGED, common, top, confirmed=True))
    assert resume.next() == _read_floor(entries)
    resume.answered(Unproved(Reason.DIVERGED, common, top, confirmed=True))
    assert resume.next() == Reset(Reason.DIVERGED, common)


def test_when_a_failover_took_the_beginning_back_who_was_told_so_goes_on_where_it_stands() -> None:
    """Its cursor is lower than where it began once, and right."""
    entries = line(8)
    at = position(GEN, entries[2].point)
    resume = _resume_above_floor(entries, at)
    assert resume.next() == _read_floor(entries)
    common, top = position(GEN, entries[1].point), position(GEN, entries[-1].point)
    resume.answered(Unproved(Reason.DIVERGED, common, top, confirmed=True))
    assert resume.next() == Read(at, 500, 1024 * 1024, confirmed=False)
    resume.answered(_page(entries[3:], entries[-1].point))
    assert resume.next() == Proved(at)
    assert resume.next() == Hand(GEN, entries[2].point, tuple(entries[3:]))


@pytest.mark.parametrize("at", [Point(77, 7), None])
def test_when_a_failover_took_the_beginning_back_nothing_is_shown_that_may_be_from_before_it(at: Point | None) -> None:
    entries = line(8)
    resume = _resume_above_floor(entries, position(GEN, at or entries[1].point))
    base, since, top = (position(GEN, point) for point in (START, entries[4].point, entries[-1].point))
    if at is not None:
        resume.next()
        resume.answered(Unproved(Reason.DIVERGED, base, top, confirmed=True, since=since))
    assert resume.next() == _read_floor(entries)
    resume.answered(Unproved(Reason.DIVERGED, base, top, confirmed=True, since=since))
    assert resume.next() == Reset(Reason.DIVERGED, since)
