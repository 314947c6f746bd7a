"""The brokers that every case is tried on, and two Redis servers for failovers.

What becomes of streams is tried on Redis too. The rest needs no more of a broker than its contract.
"""

from functools import partial
from pathlib import Path

import pytest

from tests.brokers.redis_server import two_servers
from tests.guarantee.world import Make, world_on

_REAL = pytest.mark.bellwire(clock="real")
_DATA, _REDIS = (pytest.param(kind, marks=_REAL) for kind in ("data", "redis"))


@pytest.fixture(params=["memory", _DATA])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Make a world: ``async with make() as world``."""
    return partial(world_on, request.param, tmp_path)


@pytest.fixture(params=["memory", _DATA, _REDIS])
def make_any(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """The same, on Redis too."""
    return partial(world_on, request.param, tmp_path)


@pytest.fixture
def make_memory(tmp_path: Path) -> Make:
    """The same, on the broker in memory only."""
    return partial(world_on, "memory", tmp_path)


servers = pytest.fixture(two_servers)
