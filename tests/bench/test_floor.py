import pytest
from bench.floor import measure


@pytest.mark.parametrize("kind", ["echo", "broadcast"])
def test_every_message_comes_back_or_to_all(kind: str) -> None:
    found = measure(kind, 3, 0.05)
    assert found.rate > 0
