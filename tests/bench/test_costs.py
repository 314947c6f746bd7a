"""The experiments, hundreds of times smaller: what they find is of the kind that it should be."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from bench.curve import Found

from bench import costs

Work = Callable[[], Coroutine[Any, Any, Found]]

EXPERIMENTS: dict[str, tuple[Work, int]] = {
    "crowd": (lambda: costs.crowd((1, 2_000)), 4),
    "rooms": (lambda: costs.rooms((1, 300)), 3),
    "own": (lambda: costs.own((1, 20)), 2),
    "resume": (lambda: costs.resume((0, 600), (1, 10)), 2),
}


@pytest.mark.bellwire(clock="real")
@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_each_experiment_finds_curves(name: str) -> None:
    experiment, number = EXPERIMENTS[name]
    found = asyncio.run(experiment())
    assert len(found.curves) == number
    for curve in found.curves:
        assert 1 < curve.points[0].y < 50_000, str(curve)
        assert all(point.y > 0 for point in curve.points)
    for constant in found.constants.values():
        assert constant > 0


@pytest.mark.bellwire(clock="real")
def test_a_message_to_more_members_costs_more() -> None:
    found = asyncio.run(costs.crowd((10, 5_000)))
    few, many = found.curves[0].points
    assert many.y > 20 * few.y
