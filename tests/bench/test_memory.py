import os

import pytest
from bench.memory import TITLES, own_memory, per_thing


def test_memory_of_a_process_grows_with_what_it_holds() -> None:
    before = own_memory(os.getpid())
    held = bytearray(os.urandom(8_000_000))
    assert 7_000_000 < own_memory("self") - before < 12_000_000, len(held)


@pytest.mark.parametrize("thing", list(TITLES))
def test_each_thing_takes_some_memory(thing: str) -> None:
    assert 200 < per_thing(thing, 500) < 2_000_000
