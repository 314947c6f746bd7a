from collections.abc import Iterator

import pytest

from tests.attacks.target import Target, running


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One server with its defaults, for all of this worker's tests."""
    with running(tmp_path_factory.mktemp("attacks") / "log", "--log-level", "warning") as target:
        yield target


@pytest.fixture
def target(served: Target) -> Iterator[Target]:
    """The same, checked behind the test: nothing is left of the attack."""
    with served.is_as_before():
        yield served
