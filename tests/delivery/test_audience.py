"""Who stands where: the common case touches nobody, the others get their own previous point."""

import pytest

from bellwire.delivery.audience import Audience, Fan
from bellwire.delivery.position import START, Point
from tests.delivery.making import line, make


def test_who_stands_at_the_top_is_one_shared_set_and_nothing_is_done_for_it() -> None:
    changes: list[str | None] = []
    audience: Audience[str] = Audience(before_change=changes.append)
    audience.join("a", START)
    audience.join("b", START)
    assert len(changes) == 2
    for entry in line(3):
        fan = audience.advance(entry)
        assert fan.common is audience.live
        assert fan.others == ()
    assert audience.live == {"a", "b"}
    assert len(changes) == 2
    assert audience.point("a") == Point(3, 1003)


def test_who_is_passed_over_gets_its_next_entry_with_its_own_previous_point_and_is_back() -> None:
    first, second, third, fourth = line(4)
    audience: Audience[str] = Audience()
    for member in "abc":
        audience.join(member, START)
    audience.advance(first)
    fan = audience.advance(second, ["a", "nobody"])
    assert set(fan.common) == {"b", "c"}
    assert not fan.others
    assert (audience.point("a"), audience.point("b")) == (first.point, second.point)
    fan = audience.advance(third, ["a", "b"])
    assert set(fan.common) == {"c"}
    assert audience.behind == {"a": first.point, "b": second.point}
    fan = audience.advance(fourth)
    assert set(fan.common) == {"c"}
    assert dict(fan.others) == {"a": first.point, "b": second.point}
    assert not audience.behind
    assert audience.advance(make(5, fourth.point)) == Fan({"a", "b", "c"}, ())


def test_the_fan_out_settles_before_the_shared_set_changes() -> None:
    seen: list[set[str]] = []
    audience: Audience[str] = Audience(before_change=lambda _: seen.append(set(audience.live)))
    audience.join("a", START)
    audience.join("b", START)
    first, second = line(2)
    audience.advance(first, ["a"])
    audience.advance(second)
    audience.leave("a")
    assert seen == [set(), {"a"}, {"a", "b"}, {"b"}, {"a", "b"}]


def test_what_does_not_follow_on_the_top_is_refused() -> None:
    audience: Audience[str] = Audience()
    with pytest.raises(ValueError, match="the audience stands at"):
        audience.advance(make(2, Point(1, 5)))


def test_joining_elsewhere_than_at_the_top_and_leaving() -> None:
    (entry,) = line(1)
    audience: Audience[str] = Audience()
    audience.advance(entry)
    audience.join("old", START)
    audience.join("new", entry.point)
    assert len(audience) == 2
    assert "old" in audience
    assert sorted(audience.members) == ["new", "old"]
    assert audience.leave("old") == START
    assert audience.leave("new") == entry.point
    assert not audience
    with pytest.raises(KeyError):
        audience.leave("old")


def test_a_member_that_is_told_the_top_is_at_the_top() -> None:
    (entry,) = line(1)
    audience: Audience[str] = Audience()
    audience.join("a", START)
    audience.advance(entry, ["a"])
    assert audience.catch_up("a") == START
    assert audience.live == {"a"}


def test_a_restart_resets_who_stands_beyond_the_common_point_and_nobody_else() -> None:
    entries = line(5)
    audience: Audience[str] = Audience()
    for member in ("live", "beyond", "before"):
        audience.join(member, START)
    audience.advance(entries[0])
    audience.advance(entries[1], ["before"])
    audience.advance(entries[2], ["before"])
    audience.advance(entries[3], ["before", "beyond"])
    audience.advance(entries[4], ["before", "beyond"])
    common = entries[1].point
    assert sorted(audience.restart(common, common)) == ["beyond", "live"]
    assert audience.live == {"live", "beyond"}
    assert audience.behind == {"before": entries[0].point}
    assert audience.top == common


def test_a_restart_without_a_common_point_resets_all() -> None:
    entries = line(2)
    audience: Audience[str] = Audience()
    audience.join("a", START)
    audience.join("b", START)
    audience.advance(entries[0], ["b"])
    assert sorted(audience.restart(Point(50, 1), None)) == ["a", "b"]
    assert audience.live == {"a", "b"}
    assert not audience.behind
