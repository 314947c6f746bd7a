"""The two brokers that every case is tried on, and two Redis servers for failovers."""

from functools import partial
from pathlib import Path

import pytest

from tests.brokers.redis_server import two_servers
from tests.guarantee.world import Make, world_on


@pytest.fixture(params=["memory", pytest.param("data", marks=pytest.mark.bellwire(clock="real"))])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Make a world: ``async with make() as world``."""
    return partial(world_on, request.param, tmp_path)


@pytest.fixture
def make_memory(tmp_path: Path) -> Make:
    """The same, on the broker in memory only."""
    return partial(world_on, "memory", tmp_path)


servers = pytest.fixture(two_servers)
