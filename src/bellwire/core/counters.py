"""Counters: what happened how often, and above all what was dropped, why, and by which policy."""

from typing import Final, TypeAlias

__all__ = ["DROPPED", "Counters"]

DROPPED: Final = "dropped_total"
"""The counter of `Counters.dropped`."""

MAX_SERIES: Final = 1_000
OVERFLOW: Final = "counter_series_refused_total"
"""Counts what found no place in `MAX_SERIES` series; more than 0 says that a label is not bounded."""

_Series: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


class Counters:
    """Numbers that only grow, by name and labels.

    Names end with ``_total`` (the Prometheus convention for counters). The values of labels are
    constants of the program: never a name, an address or anything else that a client chooses, because
    every combination is kept for good.
    """

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[_Series, int] = {}

    def add(self, name: str, n: int = 1, **labels: str) -> None:
        """Add ``n``, at least 0, to the series ``name`` with ``labels``.

        Raises:
            ValueError: the name does not end with ``_total``, or ``n`` is negative.

        """
        self._add((name, tuple(sorted(labels.items())) if labels else ()), n)

    def dropped(self, kind: str, *, reason: str, policy: str, n: int = 1) -> None:
        """Count ``n`` messages of a ``kind`` that were dropped: for which reason, by which policy.

        For example ``dropped("volatile", reason="buffer_full", policy="newest_kept")``.
        """
        self._add((DROPPED, (("kind", kind), ("policy", policy), ("reason", reason))), n)

    def get(self, name: str, **labels: str) -> int:
        """Return one series' number, 0 if nothing was added to it."""
        return self._counts.get((name, tuple(sorted(labels.items()))), 0)

    def snapshot(self) -> dict[str, int]:
        """Return all numbers, by names as Prometheus writes them: ``dropped_total{kind="volatile",...}``."""
        return {_written(series): count for series, count in sorted(self._counts.items())}

    def _add(self, series: _Series, n: int) -> None:
        if n < 0:
            raise ValueError(f"{series[0]}: {n} was to be added; counters only grow")
        counts = self._counts
        if series in counts:
            counts[series] += n
        else:
            self._first(series, n)

    def _first(self, series: _Series, n: int) -> None:
        if not series[0].endswith("_total"):
            raise ValueError(f"the counter {series[0]!r} needs a name that ends with _total")
        if len(self._counts) >= MAX_SERIES:
            series = (OVERFLOW, ())
        self._counts[series] = self._counts.get(series, 0) + n


def _written(series: _Series) -> str:
    name, labels = series
    if not labels:
        return name
    inside = ",".join(f'{label}="{value}"' for label, value in labels)
    return f"{name}{{{inside}}}"
