import asyncio

import pytest

from bellwire.core.errors import BrokerUnavailable
from bellwire.server.register import KEY, Register
from tests.server.far import FarBroker
from tests.server.nodes import away, start


async def test_nodes_enter_themselves_and_are_taken_out() -> None:
    register = Register(await start())
    assert await register.add("a") == {"a"}
    assert await register.add("b") == {"a", "b"}
    await register.remove({"a", "never there"})
    assert await register.add("c") == {"b", "c"}


async def test_nodes_that_start_at_the_same_moment_all_stand_there_after_a_few_tries_each() -> None:
    broker, nodes = FarBroker(), 200
    await broker.start()
    await asyncio.gather(*(Register(broker).add(str(n)) for n in range(nodes)))
    assert broker.asked < 10 * nodes
    assert len(await Register(broker).add("last")) == nodes + 1


async def test_a_lost_answer_is_looked_up() -> None:
    broker = await start()
    broker.faults.lose_put_answer(done=True)
    broker.faults.lose_put_answer(done=False)
    assert await Register(broker).add("a") == {"a"}
    assert await Register(broker).add("b") == {"a", "b"}


async def test_what_another_program_wrote_is_written_anew() -> None:
    broker = await start()
    await broker.put(KEY, b"\xc1")
    assert await Register(broker).add("a") == {"a"}


async def test_a_broker_that_is_away_is_told() -> None:
    broker = await start()
    with away(broker), pytest.raises(BrokerUnavailable):
        await Register(broker).add("a")
