"""Memberships, and which copy of a message to several rooms a reader takes."""

import pytest

from bellwire.delivery.entry import Copy, Draft, Entry, enter
from bellwire.delivery.membership import Membership, taken_elsewhere
from bellwire.delivery.position import START, Position


def _at(seq: int) -> Position:
    return Position("g", seq, 1)


def _entry(*copies: Copy) -> Entry:
    return enter(Draft("m", 1, b"", (), copies), 1, START, 0.0)


def test_a_membership_covers_what_follows_on_the_join_up_to_the_leave() -> None:
    inside = [seq for seq in range(10) if Membership(_at(3), _at(6)).covers("g", seq)]
    assert inside == [4, 5, 6]
    assert not Membership(_at(3)).covers("g", 3)
    assert Membership(_at(3)).covers("g", 10**9)


@pytest.mark.parametrize(
    ("copy", "covered"),
    [
        (("1.a", 8), False),  # before it joined, and taken back since
        (("2.b", 3), False),
        (("2.b", 4), True),
        (("2.b", 9), True),  # taken back since, but it was there
        (("3.c", 2), True),  # after a failover that took its join back
        (("4.d", 5), True),
        (("4.d", 6), False),
        (("5.e", 4), False),  # after it left, under a number that was given out before
    ],
)
def test_places_are_compared_by_generations_first(copy: tuple[str, int], covered: bool) -> None:
    assert Membership(Position("2.b", 3, 1), Position("4.d", 5, 1)).covers(*copy) is covered


@pytest.mark.parametrize(
    ("spans", "elsewhere"),
    [
        ({}, False),
        ({"r1": [Membership(_at(3))]}, True),
        ({"r1": [Membership(_at(5))]}, False),  # it joined behind the copy
        ({"r1": [Membership(_at(1), _at(4))]}, False),  # it left before the copy
        ({"r2": [Membership(_at(1))]}, True),
        ({"r2": [Membership(_at(0), _at(1)), Membership(_at(1), _at(2))]}, True),  # it left and came back
        ({"r3": [Membership(_at(1))]}, False),
    ],
)
def test_the_first_named_room_that_the_reader_was_in(spans: dict[str, list[Membership]], elsewhere: bool) -> None:
    entry = _entry(Copy("r1", "g", 5), Copy("r2", "g", 2))
    assert taken_elsewhere(entry, spans) is elsewhere


def test_a_message_to_one_room_is_nowhere_else() -> None:
    assert not taken_elsewhere(_entry(), {"r1": [Membership(_at(0))]})
