"""How often the garbage collector of a server looks, and at what."""

import gc
from collections.abc import Iterator

import pytest

from bellwire.cli.collector import THRESHOLDS, rare_collections


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.enable()


def test_what_is_there_is_not_looked_at_and_the_rest_less_often() -> None:
    before, there = gc.get_threshold(), [object]
    with rare_collections():
        assert gc.get_threshold() == THRESHOLDS
        assert gc.get_freeze_count() > 1_000
        assert all(thing is not there for thing in gc.get_objects())
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_what_is_left_to_the_collector_is_still_found() -> None:
    with rare_collections():
        circle: list[object] = []
        circle.append(circle)
        del circle
        assert gc.collect() >= 1


@pytest.mark.parametrize("how", ["thresholds", "off"])
def test_an_application_that_sets_the_collector_up_is_left_alone(how: str) -> None:
    if how == "off":
        gc.disable()
    else:
        gc.set_threshold(5_000, 20, 100)
    before = gc.get_threshold(), gc.isenabled()
    with rare_collections():
        assert (gc.get_threshold(), gc.isenabled()) == before
        assert gc.get_freeze_count() == 0
