"""A verdict on what was heard."""

from tests.chaos.verdict import FINE, verdict


def test_a_verdict_says_what_is_wrong() -> None:
    assert verdict([1, 2, 3], range(1, 4)) == FINE
    assert verdict([1, 3], range(1, 4), {2}) == FINE
    assert verdict([1, 3, 3, 2, 9], range(1, 5)) == {
        "lost": [4],
        "doubled": [3],
        "invented": [9],
        "out of order": [2],
    }
