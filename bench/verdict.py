"""Whether something stayed as it was."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple


class Tolerance(NamedTuple):
    """What may be added: a share of what there was, and an amount."""

    share: float
    amount: float


class Verdict(NamedTuple):
    """A figure's medians in the second and the last third of the time, and whether the last is within its tolerance."""

    name: str
    before: float
    after: float
    flat: bool

    def __str__(self) -> str:
        said = "flat" if self.flat else "NOT flat"
        return f"{self.name}: {said}, {self.before:,.2f} in the second third, {self.after:,.2f} in the last"


def judge(name: str, values: Sequence[float], tolerance: Tolerance) -> Verdict:
    """Compare the last third of the values with the second one; the first warmed up. Less is always flat."""
    third = max(1, len(values) // 3)
    before, after = median(values[-2 * third : -third] or values), median(values[-third:])
    return Verdict(name, before, after, after <= before * (1 + tolerance.share) + tolerance.amount)
