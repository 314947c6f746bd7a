"""Servers for the tests of a module, and two for a test in which one follows the other."""

from collections.abc import Iterator

import pytest

from tests.brokers.nats_server import NatsServer
from tests.brokers.redis_server import REDIS_7, RedisServer, two_servers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def redis_7(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis7"), binary=REDIS_7)
    yield server
    server.kill()


servers = pytest.fixture(two_servers)
