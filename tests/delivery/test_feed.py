"""One stream on a node: its parts meet; test_guarantee and test_corner_cases show what they promise together."""

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.delivery.answer import Page, Reason, Unproved
from bellwire.delivery.entry import Entry, enter, marker
from bellwire.delivery.feed import REMIND_EVERY, Advance, Cast, Feed, Own, Told
from bellwire.delivery.position import START, Point, Position, position
from bellwire.delivery.resume import Hand, Live, Proved
from bellwire.delivery.ring import Ring
from tests.delivery.making import GEN, line, make


def _skipped(entry: Entry) -> Collection[str]:
    return entry.excluded


def _nothing(_: object) -> None:
    pass


def _feed(top: Point, *members: str) -> Feed[str]:
    feed: Feed[str] = Feed(_skipped, _nothing, Ring(4))
    assert feed.opened(position(GEN, top)) == []
    for member in members:
        feed.join(member)
    return feed


TOP = Point(10, 1010)


def test_an_entry_is_cast_to_all_in_one_value() -> None:
    feed = _feed(TOP, "a", "b")
    (entry,) = line(1, TOP)
    assert feed.live(GEN, entry) == [Cast(GEN, entry, {"a", "b"})]
    assert feed.live(GEN, entry) == ()


def test_nobody_can_stand_at_the_start_of_an_empty_stream() -> None:
    feed = _feed(START)
    with pytest.raises(ValueError, match="append a marker"):
        feed.join("a")
    assert feed.empty


def test_a_repair_names_everyone_as_they_were_at_each_entry() -> None:
    feed = _feed(TOP, "a", "b")
    first = make(11, TOP)
    second = make(12, first.point, excluded=("a",))
    third = make(13, second.point)
    fourth = make(14, third.point, excluded=("a",))
    feed.live(GEN, fourth)
    assert feed.question == position(GEN, TOP)
    page = Page([first, second, third, fourth], position(GEN, fourth.point), more=False, confirmed=True)
    outputs = feed.answered(page)
    got = [(o.entry.seq, sorted(o.members)) if isinstance(o, Cast) else o for o in outputs]
    assert got == [
        (11, ["a", "b"]),
        (12, ["b"]),
        (13, ["b"]),
        Own(GEN, third, "a", first.point),
        (14, ["b"]),
    ]
    assert feed.question is None


def test_a_marker_is_cast_to_nobody() -> None:
    feed = _feed(TOP, "a")
    mark = enter(marker(1), 11, TOP, 0.0)
    assert feed.live(GEN, mark) == []
    after = make(12, mark.point)
    assert feed.live(GEN, after) == [Own(GEN, after, "a", TOP)]


def test_who_is_always_passed_over_is_told_where_it_stands() -> None:
    feed = _feed(TOP, "a", "b")
    prev = TOP
    outputs = []
    for n in range(REMIND_EVERY):
        entry = make(11 + n, prev, excluded=("a",))
        outputs = list(feed.live(GEN, entry))
        prev = entry.point
    assert outputs[-1] == Advance("a", TOP, position(GEN, prev))
    assert feed.audience.point("a") == prev


def test_in_a_repair_it_is_told_the_entry_that_was_cast_and_not_where_the_ring_is() -> None:
    feed = _feed(TOP, "a")
    entries = []
    prev = TOP
    for n in range(REMIND_EVERY + 9):
        entries.append(make(11 + n, prev, excluded=("a",)))
        prev = entries[-1].point
    feed.live(GEN, entries[-1])
    outputs = feed.answered(Page(entries, position(GEN, prev), more=False, confirmed=True))
    assert outputs == [Advance("a", TOP, position(GEN, entries[REMIND_EVERY - 1].point))]
    assert feed.audience.point("a") == entries[REMIND_EVERY - 1].point


def test_the_probe_tells_who_was_passed_over_where_it_stands() -> None:
    feed = _feed(TOP, "a", "b")
    entry = make(11, TOP, excluded=("a",))
    feed.live(GEN, entry)
    assert feed.probe(position(GEN, entry.point)) == [Advance("a", TOP, position(GEN, entry.point))]
    assert feed.probe(position(GEN, entry.point)) == []
    assert feed.probe(position(GEN, Point(12, 5))) == []
    assert feed.question is not None


def test_a_broken_ring_tells_those_beyond_the_common_point_first() -> None:
    feed = _feed(TOP, "a", "b")
    (first,) = line(1, TOP)
    feed.live(GEN, first)
    feed.live(GEN, make(12, first.point, excluded=("a",)))
    other = make(12, first.point, branch=2)
    feed.live("h", other)
    outputs = feed.answered(Page([first, other], position("h", other.point), more=False, confirmed=True))
    told, *casts = outputs
    assert told == Told("b", Reason.DIVERGED, position("h", first.point))
    assert [(o.entry, sorted(o.members)) for o in casts if isinstance(o, Cast)] == [(other, ["a", "b"])]


def test_a_history_that_is_gone_tells_all() -> None:
    feed = _feed(TOP, "a", "b")
    feed.live(GEN, make(50, Point(49, 1)))
    restart = Position("h", 40, 4)
    outputs = feed.answered(Unproved(Reason.TRUNCATED, restart, Position("h", 50, 1), confirmed=True))
    assert sorted(outputs, key=repr) == [Told("a", Reason.TRUNCATED, restart), Told("b", Reason.TRUNCATED, restart)]
    assert feed.question == restart


def test_who_resumes_gets_nothing_live_until_it_has_caught_up() -> None:
    feed = _feed(TOP, "a")
    first, second, third = line(3, TOP)
    feed.live(GEN, first)
    feed.resume("b", position(GEN, TOP))
    assert feed.live(GEN, second) == [Cast(GEN, second, {"a"})]
    assert feed.next("b") == Proved(position(GEN, TOP))
    assert feed.next("b") == Hand(GEN, TOP, (first, second))
    assert feed.next("b") == Live(second.point)
    assert not feed.resuming
    assert feed.live(GEN, third) == [Cast(GEN, third, {"a", "b"})]


def test_who_leaves_is_told_where_it_stood_wherever_it_was() -> None:
    feed = _feed(TOP, "a", "b")
    (entry,) = line(1, TOP)
    feed.live(GEN, entry)
    assert feed.leave("a") == position(GEN, entry.point)
    feed.lag("b")
    assert feed.leave("b") == position(GEN, entry.point)
    feed.resume("c", position("old", TOP))
    assert feed.leave("c") == position("old", TOP)
    assert feed.empty
    with pytest.raises(KeyError):
        feed.leave("a")


def test_who_was_passed_over_catches_up_before_it_pulls_from_the_history() -> None:
    feed = _feed(TOP, "a", "b")
    assert feed.catch_up("a") == []
    entry = make(11, TOP, excluded=("a",))
    feed.live(GEN, entry)
    assert feed.catch_up("b") == feed.catch_up("nobody") == []
    assert feed.catch_up("a") == [Advance("a", TOP, position(GEN, entry.point))]
    assert feed.leave("a") == position(GEN, entry.point)


@given(
    cursor=st.sampled_from([TOP, Point(11, 1011), Point(12, 1012), Point(12, 7), Point(9, 1009)]),
    gen=st.sampled_from([GEN, "0.b"]),
    until=st.sampled_from([None, position(GEN, Point(12, 1012))]),
    floor=st.sampled_from([None, position(GEN, TOP), position(GEN, Point(13, 1013))]),
    gap=st.booleans(),
    asked=st.booleans(),
)
def test_who_comes_live_at_once_would_have_come_live_with_the_next_steps(
    cursor: Point, gen: str, until: Position | None, floor: Position | None, gap: bool, asked: bool
) -> None:
    feeds = [_feed(TOP, "a"), _feed(TOP, "a")]
    for feed in feeds:
        for entry in line(2, TOP):
            feed.live(GEN, entry)
        if gap:
            feed.live(GEN, make(15, Point(14, 1014)))
        feed.resume("b", position(gen, cursor), until=until, floor=floor)
        if asked:
            feed.next("b")
    at = feeds[0].come_live("b")
    if at is None:
        assert "b" in feeds[0].resuming
        return
    assert [feeds[1].next("b"), feeds[1].next("b")] == [Proved(at), Live(at.point)]
    for feed in feeds:
        assert "b" in feed.audience
        assert not feed.resuming
    assert feeds[0].audience.point("b") == feeds[1].audience.point("b")


def test_who_begins_at_the_top_is_live_at_once_and_who_lagged_is_asked() -> None:
    feed = _feed(TOP, "a")
    feed.resume("b", position(GEN, TOP))
    assert feed.come_live("b") == position(GEN, TOP)
    (entry,) = line(1, TOP)
    assert feed.live(GEN, entry) == [Cast(GEN, entry, {"a", "b"})]
    feed.lag("b")
    assert feed.come_live("b") is None
    assert feed.next("b") == Live(entry.point)
    assert feed.come_live("nobody") is None


def test_a_feed_is_quiet_as_long_as_a_position_and_one_live_member_say_all() -> None:
    assert _feed(TOP).is_quiet
    feed = _feed(TOP, "a")
    assert feed.is_quiet
    feed.live(GEN, make(11, TOP))
    assert (feed.is_quiet, feed.is_plain) == (False, True)
    feed.live(GEN, make(13, Point(12, 1212)))  # one is missing
    assert not feed.is_plain


def test_a_feed_of_two_or_of_one_who_stands_elsewhere_is_not() -> None:
    assert not _feed(TOP, "a", "b").is_plain
    coming = _feed(TOP)
    coming.resume("a", position(GEN, TOP))
    assert not coming.is_plain
    behind = _feed(TOP, "a")
    behind.live(GEN, make(11, TOP, excluded=("a",)))
    assert not behind.is_plain
