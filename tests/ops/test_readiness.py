import asyncio

import httpx
import pytest
from typing_extensions import override

from bellwire import Config, Server
from bellwire.brokers.base import Kept
from bellwire.ops.readiness import BELIEVED, ENDED, Readiness, Verdict
from bellwire.testing.clock import advance
from tests.server.nodes import Gate, away, start
from tests.server.servers import SharedBroker


async def test_a_server_whose_broker_answers_is_ready_and_one_whose_broker_is_away_is_not() -> None:
    broker = await start()
    readiness = Readiness(broker)
    assert await readiness.look() == Verdict(True)
    with away(broker):
        assert await readiness.look() == Verdict(True)  # still believed
        await advance(BELIEVED)
        assert await readiness.look() == Verdict(False, "the broker does not answer")
    await advance(BELIEVED)
    assert (await readiness.look()).ready


class Slow(Gate):
    """Answers to ``get`` when it is let go; counts how often it is asked."""

    asked = 0

    async def get(self, key: str):  # type: ignore[no-untyped-def]  # as Broker.get
        self.asked += 1
        await self._pass("get")
        return await super().get(key)


async def test_many_who_ask_at_the_same_time_make_one_question() -> None:
    broker = Slow()
    await broker.start()
    broker.hold("get")
    readiness = Readiness(broker)
    looks = [asyncio.create_task(readiness.look()) for _ in range(10)]
    await advance()
    looks[0].cancel()
    broker.let_go("get")
    assert await asyncio.gather(*looks[1:]) == [Verdict(True)] * 9
    assert broker.asked == 1


async def test_a_broker_that_says_nothing_is_given_up() -> None:
    broker = Slow()
    await broker.start()
    broker.hold("get")
    readiness = Readiness(broker)
    assert not (await readiness.look()).ready
    broker.hold("get")
    await advance(BELIEVED)
    looking = asyncio.create_task(readiness.look())
    await advance()
    await readiness.close()
    assert await looking == ENDED


class Faulty(SharedBroker):
    """Fails once in a way that no broker should."""

    failed = False

    @override
    async def get(self, key: str) -> Kept | None:
        if not self.failed:
            self.failed = True
            raise ValueError("as it is meant to")
        return await super().get(key)


async def test_a_fault_of_the_broker_is_told_and_logged_and_does_not_stay(caplog: pytest.LogCaptureFixture) -> None:
    broker = Faulty()
    await broker.start()
    readiness = Readiness(broker)
    assert await readiness.look() == Verdict(False, "the broker cannot be asked")
    assert "as it is meant to" in caplog.text
    await advance(BELIEVED)
    assert (await readiness.look()).ready


async def ask(server: Server, path: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=server), base_url="http://chat") as client:
        return await client.get(path)


async def test_balancers_ask_over_http() -> None:
    broker, server = SharedBroker(), Server()
    server.configure(broker=broker)
    async with server.lifespan():
        answer = await ask(server, "/readyz")
        assert (answer.status_code, answer.text) == (200, "ready\n")
        assert answer.headers["cache-control"] == "no-store"
        with away(broker):
            await advance(BELIEVED)
            answer = await ask(server, "/readyz")
            assert (answer.status_code, answer.text) == (503, "the broker does not answer\n")
        await advance(BELIEVED)
        assert (await ask(server, "/readyz")).status_code == 200


async def test_a_server_that_starts_with_a_request_says_that_it_cannot() -> None:
    broker, server = SharedBroker(), Server()
    await broker.start()
    server.configure(broker=broker)
    with away(broker):
        for path in ("/readyz", "/socket.io/?EIO=4&transport=polling"):
            answer = await ask(server, path)
            assert (answer.status_code, answer.text) == (503, "the broker does not answer\n")
    assert (await ask(server, "/readyz")).status_code == 200
    await server.close()


async def test_the_path_can_be_another_and_none() -> None:
    async with (server := Server(config=Config(ready_path="/health"))).lifespan():
        assert (await ask(server, "/health")).status_code == 200
        assert (await ask(server, "/readyz")).status_code == 404
    async with (server := Server(config=Config(ready_path=""))).lifespan():
        assert (await ask(server, "/readyz")).status_code == 404
        assert (await ask(server, "")).status_code == 404
