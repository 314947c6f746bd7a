import os

import pytest
from bench.clients import LoadError
from bench.result import Meter, Shape, processor_time

SHAPE = Shape("fanout", 2, 128, 1)


def test_a_meter_adds_up_what_is_within_it() -> None:
    meter = Meter(os.getpid())
    for _ in range(2):
        with meter:
            sum(range(200_000))
    result = meter.result(SHAPE, 5, 10, [0.004, 0.001, 0.002])
    assert result.shape == SHAPE
    assert (result.messages, result.p50, result.p99) == (5, 2.0, 4.0)
    assert result.rate == pytest.approx(10 / result.seconds)
    assert 0 < result.busy <= 1.1
    assert 0 < result.cpu <= result.seconds * 1e6 / 10 * 1.1


def test_nothing_measured_is_an_error() -> None:
    with Meter() as meter:
        pass
    with pytest.raises(LoadError, match="not one"):
        meter.result(SHAPE, 0, 1, [])


def test_a_process_that_is_not_there_has_computed_nothing() -> None:
    assert processor_time(None) == 0.0
    assert processor_time(2**22 + 1) == 0.0
