import pytest
from bench.memory import TITLES, per_thing


@pytest.mark.parametrize("thing", list(TITLES))
def test_each_thing_takes_some_memory(thing: str) -> None:
    assert 200 < per_thing(thing, 500) < 2_000_000
