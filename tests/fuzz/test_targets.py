from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_what_is_cut_off_them(name: str) -> None:
    target, seeds = TARGETS[name]
    for seed in seeds:
        for end in range(len(seed) + 1):
            target(seed[:end])


@pytest.mark.parametrize("target", [target for target, _ in TARGETS.values()], ids=list(TARGETS))
@given(data=st.binary(max_size=200))
def test_any_bytes(target: Callable[[bytes], None], data: bytes) -> None:
    target(data)
