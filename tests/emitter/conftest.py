"""Brokers that other programs can reach, one of each kind, for the tests of a module."""

from collections.abc import Iterator

import pytest

from tests.brokers.nats_server import NatsServer
from tests.brokers.redis_cluster import Cluster
from tests.brokers.redis_server import RedisServer


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.kill()


@pytest.fixture(params=["redis", "cluster", "nats"])
def url(request: pytest.FixtureRequest) -> str:
    """The address of a Valkey, then of a cluster of them, then of a nats-server."""
    server: RedisServer | Cluster | NatsServer = request.getfixturevalue(request.param)
    return server.url
