"""nginx with the recipe of deploy/nginx: addresses lead to nodes; the nodes share a NATS."""

import asyncio
import signal
from collections.abc import Iterator

import pytest

from tests.brokers.nats_server import NatsServer
from tests.deploy.contract import ADDRESSES, ClientContract, ProxyContract
from tests.deploy.fronts import NGINX, PATIENCE, Authority, Front, Nodes, nginx, two_nodes

pytestmark = [
    pytest.mark.nginx,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
    pytest.mark.node,
    pytest.mark.bellwire(clock="real"),
]


@pytest.fixture(scope="module")
def nodes(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    broker = NatsServer(tmp_path_factory.mktemp("nats"))
    try:
        with two_nodes(broker.url) as nodes:
            yield nodes
    finally:
        broker.kill()


@pytest.fixture(scope="module")
def front(nodes: Nodes, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with nginx(tmp_path_factory.mktemp("nginx"), authority, nodes) as front:
        yield front


@pytest.fixture(scope="module")
def in_turns(nodes: Nodes, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    without = "        hash $remote_addr consistent;\n", ""
    with nginx(tmp_path_factory.mktemp("nginx"), authority, nodes, without) as front:
        yield front


class TestNginx(ProxyContract):
    reload = signal.SIGHUP

    def taken_out(self, line: str) -> str:
        return line.replace(";", " down;")

    async def test_an_address_leads_to_a_node(self, front: Front) -> None:
        places: list[set[int]] = []
        async with asyncio.timeout(PATIENCE):  # nginx passes a node over for seconds that another test had stopped
            while set(map(len, places)) != {1} or set.union(*places) != {node.pid for node in front.nodes}:
                places = [{await front.where(address) for _ in range(3)} for address in ADDRESSES]


class TestWithoutStickiness(ClientContract):
    """In turns: what reaches another node is brought to the right one."""

    @pytest.fixture
    def front(self, in_turns: Front) -> Front:
        return in_turns

    async def test_requests_go_to_both_nodes(self, front: Front) -> None:
        assert {await front.where() for _ in range(8)} == {node.pid for node in front.nodes}
