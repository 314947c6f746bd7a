"""Brokers that other programs can reach, one of each kind, for the tests of a module."""

from collections.abc import Iterator

import pytest

from tests.brokers.nats_server import NatsServer
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


@pytest.fixture(params=["redis", "nats"])
def url(request: pytest.FixtureRequest) -> str:
    """The address of a Valkey, then that of a nats-server."""
    server: RedisServer | NatsServer = request.getfixturevalue(request.param)
    return server.url
