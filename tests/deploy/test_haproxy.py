"""HAProxy with the recipe of deploy/haproxy: a cookie, checks, draining; the nodes share a Redis."""

import asyncio
import signal
from collections.abc import Iterator

import aiohttp
import pytest

from tests.brokers.redis_server import RedisServer
from tests.deploy.application import NOTE
from tests.deploy.contract import ClientContract, ProxyContract, one_on_each
from tests.deploy.fronts import HAPROXY, PATIENCE, Authority, Front, haproxy, two_nodes, where

pytestmark = [
    pytest.mark.haproxy,
    pytest.mark.skipif(HAPROXY is None, reason="HAProxy is not installed"),
    pytest.mark.node,
    pytest.mark.bellwire(clock="real"),
]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def front(broker: RedisServer, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with two_nodes(broker.url) as nodes, haproxy(tmp_path_factory.mktemp("haproxy"), authority, nodes) as front:
        yield front


class TestHAProxy(ProxyContract):
    reload = signal.SIGUSR2

    def taken_out(self, line: str) -> str:
        return f"{line} disabled"

    async def test_the_cookie_leads_back_to_the_node(self, front: Front) -> None:
        async with aiohttp.ClientSession(front.url, connector=front.connector()) as http:
            async with http.get("/where") as answer:
                cookie = answer.cookies["bellwire_node"]
                first = int(await answer.text())
            assert cookie.value == ("n1", "n2")[front.nodes.index(front.node(first))]
            assert (cookie["httponly"], cookie["secure"], cookie["samesite"]) == (True, True, "Lax")
            assert [await where(http) for _ in range(4)] == [first] * 4

    async def test_a_drained_node_keeps_its_clients_and_gets_no_new_ones(self, front: Front) -> None:
        async with (
            aiohttp.ClientSession(front.url, connector=front.connector()) as http,
            one_on_each(front) as clients,
        ):
            drained = await where(http)
            name = ("n1", "n2")[front.nodes.index(front.node(drained))]
            await front.tell(f"set server bellwire/{name} state drain")
            try:
                assert drained not in [await front.where() for _ in range(4)]
                assert await where(http) == drained
                assert {await client.where() for client in clients} == {node.pid for node in front.nodes}
                assert all(client.states.all == ["connecting", "connected"] for client in clients)
            finally:
                await front.tell(f"set server bellwire/{name} state ready")

    async def test_the_clients_of_a_node_that_stands_still_go_to_another_one(self, front: Front) -> None:
        async with one_on_each(front) as (one, *_, two):
            frozen = front.node(await one.where())
            frozen.send(signal.SIGSTOP)
            try:
                await one.states.until(lambda told: told[-1] == "reconnecting")
                await one.states.until(lambda told: told[-1] == "connected")
                assert await one.where() == await two.where()
            finally:
                frozen.send(signal.SIGCONT)
            await self.until_it_is_back(front, frozen)

    async def test_when_the_broker_is_away_the_nodes_keep_their_clients(
        self, front: Front, broker: RedisServer
    ) -> None:
        async with one_on_each(front) as (one, *_, two):
            await broker.freeze()
            try:
                await until_all(front, "NOLB")
            finally:
                broker.thaw()
            await until_all(front, "UP")
            assert await one.client.call(NOTE, 1, timeout=PATIENCE)
            assert await two.heard.count(1) == [1]
            assert one.states.all == two.states.all == ["connecting", "connected"]


class TestWithoutCookies(ClientContract):
    """Nothing is lost with them: what reaches another node is brought to the right one."""

    cookies = False


async def until_all(front: Front, state: str) -> None:
    """Wait until HAProxy says of both nodes that they are in this state."""
    async with asyncio.timeout(PATIENCE):
        while [line.split(",")[17] for line in await rows(front)] != [state] * 2:  # noqa: ASYNC110 - it tells nobody by itself
            await asyncio.sleep(0.05)


async def rows(front: Front) -> list[str]:
    """The lines of HAProxy's statistics about the nodes."""
    return [line for line in (await front.tell("show stat")).splitlines() if line.startswith("bellwire,n")]
