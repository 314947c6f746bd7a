"""Stock clients that come back side by side."""

from functools import partial
from pathlib import Path

import pytest

from bellwire.testing.clock import advance
from tests.guarantee.world import Make, world_on
from tests.server.stock import Stock
from tests.server.test_recovery_attacks import slow, steps


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return partial(world_on, "memory", tmp_path)


@pytest.mark.parametrize("count", range(12))
async def test_one_that_still_proves_where_it_stands_does_not_hold_up_the_others(
    make: Make, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with make(connection_state_recovery=True) as world:
        node = await world.node()
        clients = [Stock("a"), Stock("b")]
        for client in clients:
            await client.connect(node)
            await node.namespace.to(client.id).join("room")
        await node.say("room", "live")
        await advance(1)
        for client in clients:
            client.cut()
        await node.say("room", "missed")
        slow(node)
        for client in clients:
            client.dial(node)
            await steps(count)
        await node.say("room", "live again")
        await advance(10)
        for client in clients:
            assert client.recovered
            assert client.labels == ["live", "missed", "live again"]
            client.cut()
    assert not caplog.records
