"""The contract on NATS, whatever runs there."""

import asyncio
import time

from bellwire.brokers.base import Broker
from bellwire.brokers.nats import NatsBroker
from bellwire.delivery.log import Limits
from tests.brokers.contract import Contract, draft, name


class NatsContract(Contract):
    """Time passes for the broker's judgement of age; what the server itself times has tests of its own."""

    broker_class = NatsBroker
    url: str
    shift = 0.0

    def make(self, *, messages: int = 1_000) -> Broker:
        return self.broker_class(
            self.url,
            Limits(messages=messages),
            prefix=f"keep{messages}",
            monotonic=lambda: time.monotonic() + self.shift,
        )

    async def pass_time(self, seconds: float) -> None:
        self.shift += seconds

    async def test_after_the_window_it_is_another_message(self) -> None:
        broker = self.broker_class(self.url, Limits(dedupe=0.2), prefix="window")
        await broker.start()
        stream = name()
        first = await broker.append(stream, draft("m"))
        assert (await broker.append(stream, draft("m"))).duplicate
        async with asyncio.timeout(10):
            while (again := await broker.append(stream, draft("m"))).duplicate:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # the server's own clock
        assert again.point.seq > first.point.seq
        await broker.close()
