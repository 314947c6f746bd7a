from bench.spread import Spread, times


def test_a_spread_is_the_median_between_the_extremes() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert Spread.of([4.0, 1.0]) == Spread(2.5, 1.0, 4.0)


def test_a_ratio_is_that_of_the_medians_between_those_of_the_rounds() -> None:
    assert times([10.0, 30.0, 50.0], [10.0, 20.0, 10.0], less_is_better=False) == Spread(3.0, 1.0, 5.0)
    assert times([10.0, 30.0], [20.0, 30.0], less_is_better=True) == Spread(1.25, 1.0, 2.0)
    assert times([1.0], [0.0], less_is_better=False) is None
