"""Random histories, and the whole guarantee at the end of each.

``BELLWIRE_CHAOS`` is the number of histories, ``BELLWIRE_CHAOS_SEED`` the first one's seed: with that alone, the one
history that failed is run again.
"""

import os

import pytest

from bellwire.delivery.log import Limits
from tests.guarantee.chaos import Chaos
from tests.guarantee.world import Make

_FIRST = int(os.environ.get("BELLWIRE_CHAOS_SEED", "0"))
_COUNT = int(os.environ.get("BELLWIRE_CHAOS", "1" if "BELLWIRE_CHAOS_SEED" in os.environ else "12"))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(_FIRST, _FIRST + _COUNT))
async def test_every_client_has_what_it_is_entitled_to_or_was_told(make_memory: Make, seed: int) -> None:
    limits = Limits(messages=(1_000, 20)[seed % 2])
    async with make_memory(limits) as world:
        chaos = Chaos(world, seed)
        try:
            await chaos.run(clients=4, steps=150)
        except BaseException as error:
            error.add_note(chaos.told())
            raise
