"""The broker on NATS: the contract on a real nats-server, and every trap of JetStream by its name."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from bellwire.brokers.base import Broker
from bellwire.brokers.nats import NatsBroker
from bellwire.delivery.log import Limits
from tests.brokers.contract import Contract, draft, name
from tests.brokers.nats_server import NatsServer

pytestmark = pytest.mark.bellwire(clock="real")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield server
    server.kill()


class TestNats(Contract):
    """Time passes for the broker's judgement of age; what the server itself times has tests of its own."""

    @pytest.fixture(autouse=True)
    def _server(self, server: NatsServer) -> None:
        self.server = server
        self.shift = 0.0

    def make(self, *, messages: int = 1_000) -> Broker:
        return NatsBroker(
            self.server.url,
            Limits(messages=messages),
            prefix=f"keep{messages}",
            monotonic=lambda: time.monotonic() + self.shift,
        )

    async def pass_time(self, seconds: float) -> None:
        self.shift += seconds

    async def test_after_the_window_it_is_another_message(self) -> None:
        broker = NatsBroker(self.server.url, Limits(dedupe=0.2), prefix="window")
        await broker.start()
        stream = name()
        first = await broker.append(stream, draft("m"))
        assert (await broker.append(stream, draft("m"))).duplicate
        async with asyncio.timeout(10):
            while (again := await broker.append(stream, draft("m"))).duplicate:
                await asyncio.sleep(0.05)
        assert again.point.seq > first.point.seq
        await broker.close()
