"""Who does what a dead node has left; what that is, tests/guarantee/test_upstream_cases.py shows."""

import asyncio

from bellwire.brokers.publisher import Publisher
from bellwire.core.clock import Wheel
from bellwire.core.counters import Counters
from bellwire.server.cluster import Cluster
from bellwire.server.dispatch import Dispatcher
from bellwire.server.producers import Producers
from bellwire.server.succession import Succession
from tests.server.nodes import start


class Recovering(Producers):
    """Counts how often it is asked to recover."""

    recovered = 0

    async def recover(self) -> None:
        self.recovered += 1


async def test_the_first_of_those_that_remain_recovers_and_no_other() -> None:
    loop, broker = asyncio.get_running_loop(), await start()
    wheel, dispatcher = Wheel(loop), Dispatcher(loop)
    cluster = Cluster(broker, wheel, dispatcher, Counters())
    producers = Recovering(broker, Publisher(broker).attempt, wheel, too_large=b"")
    succession = Succession(cluster, producers, dispatcher)
    cluster.peers.heard("zzzzzzzz", 0.0)
    succession.node_left("11111111")
    assert producers.recovered == 1
    cluster.peers.heard("!", 0.0)
    succession.node_left("11111111")
    succession.node_joined("11111111")
    assert producers.recovered == 1
    producers.close()
    await dispatcher.close()
