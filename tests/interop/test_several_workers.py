"""Unmodified clients on ``bellwire run --workers 3``, where any request may reach any worker."""

from collections.abc import Iterator

import pytest

from tests.interop.processes import Node, ServerProcess, running_server
from tests.interop.test_socketio_client import EVERYWHERE, TRANSPORTS

pytestmark = pytest.mark.node

OF_ONE_PROCESS = ("client disconnects", "server disconnects", "connection breaks")
"""Scenarios that ask the application what one of its processes remembers."""


@pytest.fixture(scope="module")
def workers() -> Iterator[ServerProcess]:
    with running_server("--workers", "3") as process:
        yield process


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scenario", [name for name in EVERYWHERE if name not in OF_ONE_PROCESS])
def test_scenario(scenario: str, transport: str, node: Node, workers: ServerProcess) -> None:
    node.run(scenario, workers.url, "4.8", transport)


@pytest.mark.parametrize("attempt", range(5))
def test_messages_during_the_upgrade(attempt: int, node: Node, workers: ServerProcess) -> None:
    node.run("messages during the upgrade", workers.url, "4.8", "upgrade")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_burst(transport: str, node: Node, workers: ServerProcess) -> None:
    node.run("burst", workers.url, "4.8", transport)
