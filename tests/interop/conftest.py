"""One server and one Node process for all of these tests."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.processes import SCRIPTS, Node, ServerProcess, install, running_server


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """``bellwire run`` in a process of its own."""
    with running_server() as process:
        yield process


@pytest.fixture(scope="session")
def node_modules(request: pytest.FixtureRequest) -> Path:
    """The stock clients from npm, installed once for each state of the lock file."""
    digest = hashlib.sha256((SCRIPTS / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = Path(request.config.cache.mkdir("stock-clients")) / digest
    missing = install(folder)
    if missing:
        pytest.skip(missing)
    return folder / "node_modules"


@pytest.fixture(scope="session")
def node(node_modules: Path) -> Iterator[Node]:
    """A Node process with the stock clients."""
    with Node(node_modules) as process:
        yield process
