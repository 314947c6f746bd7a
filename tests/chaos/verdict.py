"""How many notes the long tests are about, and what is wrong with what somebody has heard of them."""

import itertools
from collections.abc import Collection, Sequence

from tests.chaos.program import SCALE

COUNT = 2_000 * SCALE
WHOLE = 40.0 * SCALE
"""Seconds for all of a test's notes to arrive."""

HISTORY = ("--history-messages", "100000")
"""More than anybody misses while away."""

FINE: dict[str, list[int]] = {"lost": [], "doubled": [], "invented": [], "out of order": []}


def verdict(heard: Sequence[int], written: Sequence[int], doubtful: Collection[int] = ()) -> dict[str, list[int]]:
    """What is wrong with what was heard; what is ``doubtful`` may have been written or not."""
    once = set(heard)
    return {
        "lost": [number for number in written if number not in once and number not in doubtful],
        "doubled": [] if len(once) == len(heard) else [number for number in once if heard.count(number) > 1],
        "invented": sorted(once.difference(written)),
        "out of order": [after for before, after in itertools.pairwise(heard) if after < before],
    }
