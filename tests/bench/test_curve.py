import pytest
from bench.curve import FLAT, LINEAR, SQUARE, Curve, Point, number


def curve(shape: int, *points: tuple[float, float]) -> Curve:
    return Curve("an emit", "members", "us", shape, tuple(Point(*point) for point in points))


def test_a_line_is_a_fixed_part_and_one_for_each() -> None:
    found = curve(LINEAR, (1, 12), (10, 30), (100, 210), (1000, 2010))
    assert [found.fixed, found.each] == pytest.approx([10, 2])
    assert not found.steep
    assert str(found) == "an emit, by members: linear: 12.0 at 1, 2,010 at 1,000 us; each adds 2.00"


def test_large_points_do_not_drown_small_ones() -> None:
    found = curve(LINEAR, (1, 12), (10, 30), (100_000, 300_010))
    assert found.fixed == pytest.approx(9, abs=1)


def test_what_grows_with_the_square_is_told_where_it_may_not() -> None:
    points = [(n, 5 + n * n) for n in (1, 4, 16, 64)]
    assert curve(LINEAR, *points).steep
    square = curve(SQUARE, *points)
    assert [square.fixed, square.each] == pytest.approx([5, 1])
    assert not square.steep
    assert "STEEPER THAN LINEAR" in str(curve(LINEAR, *points))


def test_what_is_flat_may_be_a_little_more_where_caches_are_missed() -> None:
    assert not curve(FLAT, (1, 10), (10, 11), (100, 10), (1000, 18)).steep
    assert curve(FLAT, (1, 10), (10, 11), (100, 10), (1000, 22)).steep
    assert curve(FLAT, (1, 10), (1000, 12)).fixed == pytest.approx(10.8, rel=0.05)
    assert curve(FLAT, (1, 10), (1000, 12)).each == 0


def test_a_cost_of_nothing_is_flat() -> None:
    assert not curve(FLAT, (1, 0), (2, 0), (16, 0)).steep
    assert not curve(LINEAR, (0, 0), (4, 0), (16, 0)).steep


def test_three_digits_of_a_number_are_shown() -> None:
    assert [number(value) for value in (0, 0.01234, 1.5, 12.34, 123.4, 12345.6)] == [
        "0",
        "0.0123",
        "1.50",
        "12.3",
        "123",
        "12,346",
    ]
