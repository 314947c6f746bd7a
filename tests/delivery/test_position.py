"""Positions, and how far the cursors of former generations reach."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.delivery.position import MAX_GENERATIONS, UNBOUNDED, Generations, Point, Position, era, order, position


def test_a_position_is_a_point_under_a_generation() -> None:
    at = position("g", Point(3, 7))
    assert at == Position("g", 3, 7)
    assert at.point == Point(3, 7)


@given(st.builds(Position, st.text(min_size=1), st.integers(0, 2**63 - 1), st.integers(0, 2**32 - 1)))
def test_a_position_survives_the_wire(at: Position) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(at), type=Position) == at


def test_the_current_generation_leaves_it_to_the_chain_and_an_unknown_one_reaches_nowhere() -> None:
    generations = Generations("a")
    assert generations.reach("a") == UNBOUNDED
    assert generations.reach("b") is None
    assert generations.history == []


def test_a_former_generation_reaches_as_far_as_the_log_went_when_the_next_opened() -> None:
    generations = Generations("a")
    generations.open("b", 5)
    generations.open("c", 9)
    assert generations.history == [("a", 5), ("b", 9)]
    assert (generations.reach("a"), generations.reach("b"), generations.reach("c")) == (5, 9, UNBOUNDED)


def test_what_a_later_failover_took_back_is_gone_for_the_earlier_ones_too() -> None:
    generations = Generations("a")
    generations.open("b", 5)
    generations.open("c", 3)
    assert generations.history == [("a", 3), ("b", 3)]
    generations.clip(1)
    assert generations.history == [("a", 1), ("b", 1)]


def test_a_generation_that_comes_back_is_judged_by_the_chain_alone() -> None:
    generations = Generations("a")
    generations.open("b", 5)
    generations.open("a", 7)
    assert generations.reach("a") == UNBOUNDED
    assert generations.history == [("b", 7)]
    generations.open("a", 4)
    assert generations.history == [("b", 4)]


def test_the_history_of_generations_is_bounded_and_keeps_the_newest() -> None:
    generations = Generations("g0")
    for n in range(1, 40):
        generations.open(f"g{n}", n)
    assert len(generations.history) == MAX_GENERATIONS
    assert generations.history[-1] == ("g38", 39)
    assert generations.reach("g5") is None


@pytest.mark.parametrize(
    ("gen", "number"),
    [("12.ab", 12), ("1.2.3", 1), ("ab", 0), ("12", 0), (".a", 0), ("-1.a", 0), ("\u0663.a", 0), ("9" * 99 + ".a", 0)],
)
def test_the_era_of_a_generation_is_the_number_before_its_first_dot(gen: str, number: int) -> None:
    assert era(gen) == number


def test_places_are_in_the_order_in_which_they_were_given_out() -> None:
    places = [("1.b", 3), ("1.b", 8), ("2.a", 4), ("10.a", 4)]
    assert sorted(places, key=lambda place: order(*place)) == places
