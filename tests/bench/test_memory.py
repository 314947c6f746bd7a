import pytest
from bench.memory import TITLES, per_thing

ENOUGH = {"membership": 20_000}
"""How many are more than what a process has to spare."""


@pytest.mark.parametrize("thing", list(TITLES))
def test_each_thing_takes_some_memory(thing: str) -> None:
    assert 40 < per_thing(thing, ENOUGH.get(thing, 500)) < 2_000_000
