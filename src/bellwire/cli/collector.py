"""The garbage collector of a server: it looks at less, and less often, for it stops everybody while it looks.

CPython looks through all objects whenever their number has grown by a quarter: with 100,000 connections that takes
0.2 to 0.4 s, and while they connect, a fifth of all the time. What a server was made of at its start stays until its
end, and is not looked at any more. What connections are made of is freed without the collector, so a tenth of its work
is enough for what applications leave to it: with these numbers those 100,000 are stopped for 7 ms at most.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["rare_collections"]

THRESHOLDS: Final = (2_000, 10, 50)
"""By how many objects their number grows until the youngest are looked at (700 in CPython 3.11); after how many times
those a little older are too (10); and after how many times of that all are (10)."""

_CPYTHONS: Final = gc.get_threshold()


@contextmanager
def rare_collections() -> Iterator[None]:
    """Within it collections are rare, unless the application has set the collector up by itself."""
    if gc.get_threshold() != _CPYTHONS or not gc.isenabled():
        yield
        return
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*_CPYTHONS)
        gc.unfreeze()
