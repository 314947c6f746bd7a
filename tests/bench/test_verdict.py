from bench.verdict import Tolerance, judge


def test_what_stays_within_its_tolerance_is_flat() -> None:
    assert judge("x", [1, 5, 9, 100, 100, 100, 109, 110, 200], Tolerance(0.1, 0.0)).flat
    found = judge("x", [1, 5, 9, 100, 100, 100, 111, 111, 111], Tolerance(0.1, 0.0))
    assert found == ("x", 100, 111, False)
    assert str(found) == "x: NOT flat, 100.00 in the second third, 111.00 in the last"
    assert judge("x", [0, 0, 0, 4, 4, 5], Tolerance(0.0, 5.0)).flat


def test_less_is_flat_and_the_beginning_does_not_count() -> None:
    assert judge("x", [500, 500, 10, 10, 5, 5], Tolerance(0.0, 0.0)).flat


def test_of_one_value_nothing_is_said_against_it() -> None:
    assert judge("x", [7], Tolerance(0.0, 0.0)).flat
