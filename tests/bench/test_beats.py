"""Counted, and so exact."""

import pytest
from bench.beats import beats, presence


def test_beats_are_the_square_of_the_nodes_and_starting_is_not() -> None:
    found = beats((2, 4, 8))
    told, _, total, _, asked = found.curves
    assert [point.y for point in told.points] == pytest.approx(
        [2 * found.constants["beats_each"] * n for n in (1, 2, 4)]
    )
    assert 0.3 < found.constants["beats_each"] <= 0.4, "one each 2.5 s"
    assert total.points[2].y == pytest.approx(16 * total.points[0].y)
    assert not asked.steep


def test_a_room_that_is_looked_at_is_spoken_of_twice_a_minute_by_each_node() -> None:
    found = presence((2, 4))
    assert [point.y for point in found.curves[0].points] == pytest.approx([2 / 30, 4 / 30])
