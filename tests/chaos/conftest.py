"""The stock clients of the tests of interoperation, and the brokers of clusters."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.brokers import BrokerProcess, Nats, Valkey
from tests.interop.conftest import node_modules as node_modules


@pytest.fixture(params=[Valkey, Nats])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker of the test's own: each that there is, unless the test names others."""
    made: BrokerProcess = request.param(tmp_path)
    yield made
    made.server.kill()
