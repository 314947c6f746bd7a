import pytest
from bench.verdict import Tolerance, judge, slope_of


def test_what_rises_within_its_tolerance_is_flat() -> None:
    warming = [1, 5, 9]
    assert judge("x", [*warming, 100, 102, 104, 106, 108, 110], Tolerance(0.1, 0.0)).flat
    found = judge("x", [*warming, 100, 104, 108, 112, 116, 120], Tolerance(0.1, 0.0))
    assert found == ("x", 104, 116, 4.0, False)
    assert str(found) == "x: NOT flat, 104.00 in the second third, 116.00 in the last"
    assert judge("x", [0, 0, 0, 4, 4, 4, 5, 5, 5], Tolerance(0.0, 5.0)).flat


def test_a_value_that_stands_out_makes_no_slope() -> None:
    assert judge("x", [1, 1, 1, 100, 100, 100, 100, 900, 100], Tolerance(0.0, 0.0)).flat
    assert slope_of([5, 5, 5, 5, 1_000]) == 0
    assert slope_of([1, 2, 30, 4, 5]) == pytest.approx(1, abs=0.1)


def test_less_is_flat_and_the_beginning_does_not_count() -> None:
    assert judge("x", [500, 500, 10, 10, 5, 5], Tolerance(0.0, 0.0)).flat


@pytest.mark.parametrize("values", [[], [7], [7, 7]])
def test_of_fewer_values_than_thirds_nothing_is_said(values: list[int]) -> None:
    with pytest.raises(ValueError, match="median"):
        judge("x", values, Tolerance(0.0, 0.0))


def test_three_values_are_enough() -> None:
    assert judge("x", [9, 7, 7], Tolerance(0.0, 0.0)).flat
    assert not judge("x", [9, 7, 8], Tolerance(0.0, 0.0)).flat
