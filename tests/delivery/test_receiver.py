"""The client's side: order, ids, gaps, resets, failing handlers, and bounds on all that waits."""

from itertools import pairwise

import pytest

from bellwire.delivery.answer import Reason
from bellwire.delivery.entry import Draft, Entry, enter, marker
from bellwire.delivery.position import START, Point, Position, position
from bellwire.delivery.receiver import (
    KNOWN_MIDS,
    MAX_ATTEMPTS,
    MAX_CLOSED,
    MAX_EARLY,
    MAX_EARLY_BYTES,
    MAX_HELD,
    MAX_WAITING,
    MAX_WAITING_BYTES,
    Actions,
    AskFor,
    DeadLetter,
    Deliver,
    Pass,
    Receiver,
    Reset,
)
from tests.delivery.making import GEN, line, make

S = "s"


def _receiver(at: Point = START) -> Receiver:
    receiver = Receiver()
    receiver.open(S, position(GEN, at))
    return receiver


def _send(receiver: Receiver, entry: Entry, gen: str = GEN) -> Actions:
    return receiver.receive(S, gen, entry.prev, entry)


def _deliver(entry: Entry, gen: str = GEN) -> Deliver:
    return Deliver(S, gen, entry)


def _handed(receiver: Receiver, entries: list[Entry]) -> None:
    for entry in entries:
        assert _send(receiver, entry) == (_deliver(entry),)
        assert receiver.handed(S) == ()


def test_one_at_a_time_in_order_and_the_cursor_follows_the_handler() -> None:
    first, second = line(2)
    receiver = _receiver()
    assert _send(receiver, first) == (_deliver(first),)
    assert receiver.waiting == 0
    assert _send(receiver, second) == ()
    assert receiver.waiting == 1
    assert receiver.received() == {S: position(GEN, second.point)}
    assert receiver.cursors() == {S: position(GEN, START)}
    assert receiver.handed(S) == (_deliver(second),)
    assert receiver.cursors() == {S: position(GEN, first.point)}
    assert receiver.handed(S) == ()
    assert receiver.cursors() == receiver.received()
    with pytest.raises(ValueError, match="nothing of s is being handed over"):
        receiver.handed(S)


def test_a_frame_of_ones_own_names_the_point_before() -> None:
    receiver = _receiver()
    entry = make(9, Point(8, 5))
    assert receiver.receive(S, GEN, START, entry) == (_deliver(entry),)


def test_a_gap_is_asked_for_once_and_what_came_early_follows_it() -> None:
    entries = line(5)
    receiver = _receiver()
    _handed(receiver, entries[:1])
    assert _send(receiver, entries[3]) == (AskFor(S, position(GEN, entries[0].point)),)
    assert _send(receiver, entries[4]) == ()
    assert _send(receiver, entries[2]) == ()
    assert _send(receiver, entries[1]) == (_deliver(entries[1]),)
    assert receiver.handed(S) == (_deliver(entries[2]),)
    assert receiver.received()[S].point == entries[4].point


def test_when_the_answer_came_a_gap_is_asked_for_again() -> None:
    entries = line(9)
    receiver = _receiver()
    assert len(_send(receiver, entries[3])) == 1
    assert receiver.proved(S, position("h", START)) == ()
    assert receiver.received()[S].gen == "h"
    assert _send(receiver, entries[6]) == (AskFor(S, position("h", START)),)


def test_a_message_sent_twice_is_nothing_and_its_number_with_another_tag_is_asked_for() -> None:
    entries = line(3)
    receiver = _receiver()
    _handed(receiver, entries)
    assert _send(receiver, entries[2]) == ()
    assert _send(receiver, entries[0]) == ()
    other = make(3, entries[1].point, branch=2)
    assert _send(receiver, other) == (AskFor(S, position(GEN, entries[2].point)),)


def test_what_skips_the_last_point_is_asked_for_and_not_handed_over() -> None:
    entries = line(3)
    receiver = _receiver()
    _handed(receiver, entries)
    other = make(4, Point(3, 2003), branch=2)
    assert _send(receiver, other) == (AskFor(S, position(GEN, entries[2].point)),)
    assert receiver.received()[S].point == entries[2].point


def test_a_known_id_only_advances_across_generations() -> None:
    first, second = line(2)
    receiver = _receiver()
    _handed(receiver, [first])
    again = enter(Draft(first.mid, 77, b""), 2, first.point, 0.0)
    assert _send(receiver, again, "h") == ()
    assert receiver.cursors() == {S: Position("h", 2, 77)}
    assert second.mid != first.mid


def test_a_known_id_that_waits_behind_a_message_moves_the_cursor_in_its_turn() -> None:
    first, second = line(2)
    receiver = _receiver()
    _send(receiver, first)
    _send(receiver, second)
    again = enter(Draft(first.mid, 77, b""), 3, second.point, 0.0)
    assert _send(receiver, again) == ()
    receiver.handed(S)
    assert receiver.cursors()[S].point == first.point
    receiver.handed(S)
    assert receiver.cursors()[S].point == again.point


def test_the_oldest_ids_are_forgotten() -> None:
    receiver = _receiver()
    entries = line(KNOWN_MIDS + 1)
    _handed(receiver, entries)
    prev = entries[-1].point
    newest = enter(Draft(entries[1].mid, 1, b""), prev.seq + 1, prev, 0.0)
    assert _send(receiver, newest) == ()
    oldest = enter(Draft(entries[0].mid, 2, b""), prev.seq + 2, newest.point, 0.0)
    assert _send(receiver, oldest) == (_deliver(oldest),)


def test_a_marker_is_not_handed_over() -> None:
    receiver = _receiver()
    mark = enter(marker(5), 1, START, 0.0)
    assert _send(receiver, mark) == ()
    assert receiver.cursors() == {S: position(GEN, mark.point)}


def test_a_reset_comes_after_what_was_received_and_before_anything_newer() -> None:
    first, second, third = line(3)
    receiver = _receiver()
    _send(receiver, first)
    _send(receiver, second)
    restart = Position("h", 50, 5)
    assert receiver.reset(S, Reason.TRUNCATED, restart) == ()
    newer = make(51, restart.point)
    assert _send(receiver, newer, "h") == ()
    assert _send(receiver, third) == (AskFor(S, Position("h", 51, newer.tag)),)  # older: never handed over
    assert receiver.handed(S) == (_deliver(second),)
    assert receiver.handed(S) == (Reset(S, Reason.TRUNCATED, restart),)
    assert receiver.cursors()[S].point == second.point
    assert receiver.handed(S) == (_deliver(newer, "h"),)
    assert receiver.cursors()[S] == restart


def test_a_reset_drops_what_was_kept_beyond_a_gap() -> None:
    entries = line(5)
    receiver = _receiver()
    _send(receiver, entries[3])
    restart = position(GEN, entries[2].point)
    assert receiver.reset(S, Reason.DIVERGED, restart) == (Reset(S, Reason.DIVERGED, restart),)
    assert receiver.handed(S) == ()
    assert receiver.received()[S] == restart
    assert _send(receiver, entries[3]) == (_deliver(entries[3]),)


def test_two_resets_in_a_row_are_one() -> None:
    receiver = _receiver()
    (entry,) = line(1)
    _send(receiver, entry)
    receiver.reset(S, Reason.TRUNCATED, Position("h", 5, 5))
    receiver.reset(S, Reason.DIVERGED, Position("i", 3, 3))
    assert receiver.handed(S) == (Reset(S, Reason.DIVERGED, Position("i", 3, 3)),)
    assert receiver.handed(S) == ()


def test_a_handler_that_fails_gets_it_again_then_it_is_a_dead_letter() -> None:
    first, second = line(2)
    receiver = _receiver()
    _send(receiver, first)
    _send(receiver, second)
    for _ in range(MAX_ATTEMPTS - 1):
        assert receiver.failed(S) == (_deliver(first),)
        assert receiver.cursors()[S].point == START
    assert receiver.failed(S) == (DeadLetter(S, first), _deliver(second))
    assert receiver.cursors()[S].point == first.point
    assert receiver.failed(S) == (_deliver(second),)
    assert receiver.handed(S) == ()


def test_a_handler_of_resets_that_fails_is_not_called_again() -> None:
    receiver = _receiver()
    receiver.reset(S, Reason.FORBIDDEN, Position("h", 5, 5))
    assert receiver.failed(S) == ()
    assert receiver.cursors()[S] == Position("h", 5, 5)


def test_what_nobody_takes_is_left_in_the_log_and_asked_for_when_there_is_room() -> None:
    entries = line(MAX_WAITING + 50)
    receiver = _receiver()
    for entry in entries:
        _send(receiver, entry)
    last = receiver.received()[S]
    assert last.seq == MAX_WAITING + 1  # one is with its handler
    actions: Actions = ()
    for _ in range(MAX_WAITING + 1):
        actions = receiver.handed(S)
    assert actions == (AskFor(S, last),)
    assert _send(receiver, entries[MAX_WAITING + 1]) == (_deliver(entries[MAX_WAITING + 1]),)


def test_what_is_kept_beyond_a_gap_is_bounded_by_count_and_by_bytes() -> None:
    entries = line(MAX_EARLY * 3)
    receiver = _receiver()
    for entry in entries[1:]:
        _send(receiver, entry)
    track = receiver._tracks[S]
    assert len(track.early) == MAX_EARLY
    _send(receiver, entries[0])
    assert receiver.received()[S].seq == MAX_EARLY + 1
    assert (len(track.early), track.early_size) == (0, 0)
    large = line(8, track.last, body=b"x" * (MAX_EARLY_BYTES // 4))
    for entry in large[1:]:
        _send(receiver, entry)
    assert 0 < track.early_size <= MAX_EARLY_BYTES


def test_what_the_gap_was_closed_by_makes_room_for_what_comes_early_later() -> None:
    receiver = _receiver()
    entries = line(MAX_EARLY + 2)
    for entry in entries[2:]:
        _send(receiver, entry)
    far = entries[-1]
    advanced = receiver.advance(S, START, position(GEN, far.point))  # past all of them
    assert advanced == ()
    more = line(3, far.point)
    _send(receiver, more[1])
    assert _send(receiver, more[0]) == (_deliver(more[0]),)
    assert receiver.received()[S].point == more[1].point


def test_being_told_where_one_stands() -> None:
    first, second, third = line(3)
    receiver = _receiver()
    _send(receiver, first)
    assert receiver.advance(S, first.point, position("h", second.point)) == ()
    assert receiver.cursors()[S].point == START
    receiver.handed(S)
    assert receiver.cursors() == {S: position("h", second.point)}
    assert receiver.advance(S, first.point, position("h", second.point)) == ()
    assert receiver.advance(S, third.point, Position("h", 9, 9)) == (AskFor(S, position("h", second.point)),)


def test_a_lost_connection_forgets_what_was_asked_for_and_keeps_what_waits() -> None:
    entries = line(5)
    receiver = _receiver()
    _send(receiver, entries[0])
    _send(receiver, entries[1])
    _send(receiver, entries[4])
    receiver.disconnected()
    assert receiver.received() == {S: position(GEN, entries[1].point)}
    assert receiver.handed(S) == (_deliver(entries[1]),)
    assert _send(receiver, entries[3]) == (AskFor(S, position(GEN, entries[1].point)),)


def test_streams_do_not_wait_for_each_other() -> None:
    (entry,) = line(1)
    receiver = _receiver()
    receiver.open("t", position(GEN, START))
    assert _send(receiver, entry) == (_deliver(entry),)
    assert receiver.receive("t", GEN, START, entry) == (Deliver("t", GEN, entry),)


def test_opening_a_stream_again_is_another_membership() -> None:
    entries = line(9)
    receiver = _receiver()
    _handed(receiver, entries[:2])
    receiver.open(S, position(GEN, entries[5].point))
    assert receiver.cursors()[S].point == entries[5].point
    _handed(receiver, entries[6:])


def test_a_closed_stream_is_ignored_and_counted() -> None:
    (entry,) = line(1)
    receiver = _receiver()
    receiver.close(S)
    assert _send(receiver, entry) == ()
    assert receiver.reset(S, Reason.DIVERGED, position(GEN, START)) == ()
    assert receiver.advance(S, START, Position(GEN, 1, 1)) == ()
    assert receiver.proved(S, position(GEN, START)) == ()
    assert receiver.volatile(S, b"x") == ()
    assert receiver.handed(S) == receiver.failed(S) == ()
    assert receiver.ignored == 5


def test_volatile_messages_pass_beside() -> None:
    first, second = line(2)
    receiver = _receiver()
    _send(receiver, first)
    _send(receiver, second)
    assert receiver.volatile(S, b"now") == (Pass(S, b"now"),)
    assert receiver.received()[S].point == second.point


def test_bytes_that_wait_are_bounded_too() -> None:
    receiver = _receiver()
    entries = line(9, body=b"x" * (MAX_WAITING_BYTES // 4))
    for entry in entries:
        _send(receiver, entry)
    assert receiver.received()[S].seq == 5  # one is with its handler
    actions: Actions = ()
    for _ in range(5):
        actions = receiver.handed(S)
    assert actions == (AskFor(S, position(GEN, entries[4].point)),)


def test_what_waits_of_a_closed_stream_is_handed_over() -> None:
    first, second, third = line(3)
    receiver = _receiver()
    _send(receiver, first)
    _send(receiver, second)
    assert receiver.close(S) == ()
    assert _send(receiver, third) == ()
    assert receiver.ignored == 1
    assert receiver.received() == {S: position(GEN, START)}
    assert receiver.cursors() == {S: position(GEN, START)}  # a crash now would lose what waits
    assert receiver.handed(S) == (_deliver(second),)
    assert receiver.cursor(S) == position(GEN, first.point)
    assert receiver.told(receiver.received()) == []  # the server may forget it, and this client may not
    assert receiver.handed(S) == ()
    assert receiver.cursors() == receiver.received() == {S: position(GEN, second.point)}
    assert receiver.cursor(S) == position(GEN, second.point)


def test_where_a_closed_stream_ended_is_known_until_the_server_has_been_told() -> None:
    first, second = line(2)
    receiver = _receiver()
    receiver.open("other", position(GEN, START))
    _handed(receiver, [first])
    receiver.close(S)
    ended = position(GEN, first.point)
    places = receiver.received()
    assert places == {"other": position(GEN, START), S: ended}
    receiver.close("other")
    assert sorted(receiver.told(places)) == ["other", S]
    assert receiver.received() == {}

    receiver.open(S, ended)
    receiver.close(S)
    places = receiver.received()
    receiver.open(S, ended)
    _handed(receiver, [second])
    receiver.close(S)
    assert receiver.told(places) == []  # it was opened meanwhile, and ended elsewhere
    assert receiver.received() == {S: position(GEN, second.point)}
    receiver.open(S, position(GEN, second.point))
    assert receiver.told(receiver.received()) == []


@pytest.mark.parametrize(("reason", "known"), [("diverged", True), ("generation", True), ("truncated", False)])
def test_once_a_log_has_changed_an_event_to_several_streams_is_known_in_all(reason: str, known: bool) -> None:
    first, second = line(2)
    receiver = _receiver()
    receiver.open("other", position(GEN, START))
    receiver.reset("other", reason, position(GEN, START))
    receiver.handed("other")
    _handed(receiver, [first])
    actions = receiver.receive("other", GEN, START, first)
    assert actions == (() if known else (Deliver("other", GEN, first),))
    if not known:
        receiver.handed("other")
    assert receiver.received()["other"] == position(GEN, first.point)
    assert receiver.receive("other", GEN, first.point, second) == (Deliver("other", GEN, second),)


def test_of_not_too_many_closed_streams_the_end_is_known() -> None:
    receiver = Receiver()
    for n in range(MAX_CLOSED + 1):
        receiver.open(str(n), position(GEN, START))
        receiver.close(str(n))
    assert list(receiver.received()) == [str(n) for n in range(1, MAX_CLOSED + 1)]


def test_a_stream_closed_for_a_reason_ends_with_a_reset() -> None:
    first, second = line(2)
    receiver = _receiver()
    _send(receiver, first)
    assert receiver.close(S, "forbidden") == ()
    assert receiver.handed(S) == (Reset(S, "forbidden", position(GEN, first.point)),)
    assert receiver.handed(S) == ()
    receiver.open(S, position(GEN, START))
    _handed(receiver, [first, second])
    assert receiver.close(S, "truncated") == (Reset(S, "truncated", position(GEN, second.point)),)
    assert receiver.failed(S) == ()
    assert receiver.cursors() == {S: position(GEN, second.point)}
    assert receiver.close(S, "forbidden") == ()


def test_a_stream_that_is_opened_again_before_the_rest_of_it_was_handed_over() -> None:
    entries = line(9)
    receiver = _receiver()
    _send(receiver, entries[0])
    _send(receiver, entries[1])
    receiver.close(S)
    receiver.open(S, position(GEN, entries[4].point))
    assert _send(receiver, entries[5]) == ()
    assert receiver.handed(S) == (_deliver(entries[1]),)
    assert receiver.handed(S) == (_deliver(entries[5]),)
    assert receiver.handed(S) == ()
    assert receiver.cursors() == {S: position(GEN, entries[5].point)}


def test_what_comes_after_a_position_has_its_turn_there() -> None:
    first, second, third = line(3)
    receiver = _receiver()
    _send(receiver, first)
    _send(receiver, second)
    assert receiver.after(S, first.point, "behind all that is here") == ()
    assert receiver.after(S, third.point, "behind the third") == ()
    assert receiver.handed(S) == (_deliver(second),)
    assert receiver.handed(S) == (Pass(S, "behind all that is here"),)
    assert _send(receiver, third) == (_deliver(third),)
    assert receiver.handed(S) == (Pass(S, "behind the third"),)
    assert receiver.after(S, third.point, "at once") == (Pass(S, "at once"),)
    assert receiver.after("not open", Point(9, 9), "at once") == (Pass("not open", "at once"),)


def test_what_comes_after_a_position_does_not_wait_for_one_that_a_reset_passed() -> None:
    receiver = _receiver()
    receiver.after(S, Point(5, 5), "a")
    reset = Reset(S, Reason.DIVERGED, Position("h", 3, 3))
    assert receiver.reset(S, Reason.DIVERGED, reset.restart) == (reset,)
    assert receiver.handed(S) == (Pass(S, "a"),)
    receiver.after(S, Point(5, 5), "b")
    assert receiver.open(S, Position("h", 4, 4)) == (Pass(S, "b"),)
    receiver.after(S, Point(5, 5), "c")
    assert receiver.advance(S, Point(4, 4), Position("h", 5, 6)) == (Pass(S, "c"),)
    receiver.after(S, Point(9, 9), "d")
    assert receiver.close(S) == (Pass(S, "d"),)


def test_what_is_held_for_a_position_is_bounded_and_ends_with_the_connection() -> None:
    receiver = _receiver()
    for _ in range(MAX_HELD + 1):
        assert receiver.after(S, Point(5, 5), "x") == ()
    assert receiver.ignored == 1
    receiver.disconnected()
    assert receiver.ignored == 1 + MAX_HELD
    assert receiver.close(S) == ()


def test_being_told_often_where_one_stands_does_not_pile_up() -> None:
    receiver, entries = _receiver(), line(50)
    _send(receiver, entries[0])
    for before, entry in pairwise(entries):
        receiver.advance(S, before.point, position(GEN, entry.point))
    assert len(receiver._tracks[S].waiting) == 1
    receiver.handed(S)
    assert receiver.cursors() == receiver.received()


def test_a_message_that_names_no_generation_has_that_of_the_point_before() -> None:
    first, second, third = line(3)
    receiver = _receiver()
    assert receiver.receive(S, None, third.prev, third) == (AskFor(S, position(GEN, START)),)
    assert receiver.receive(S, "h", first.prev, first) == (_deliver(first, "h"),)
    assert receiver.receive(S, None, second.prev, second) == ()
    assert receiver.handed(S) == (_deliver(second, "h"),)
    assert receiver.received()[S].seq == 2  # the third was not kept
