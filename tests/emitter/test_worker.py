"""The thread that sends for others, on a real Valkey."""

import threading

import pytest

from bellwire import BrokerUnavailable
from bellwire.brokers.publisher import Publisher
from bellwire.brokers.urls import PREFIX
from bellwire.core.counters import Counters
from bellwire.emitter.worker import Worker
from tests.brokers.redis_server import RedisServer

TIMEOUT = 20.0


def started(url: str) -> Worker:
    return Worker(url, PREFIX, Counters())


def test_all_who_begin_at_once_wait_for_one_connection(redis: RedisServer) -> None:
    worker, publishers = started(redis.url), []

    async def send(publisher: Publisher) -> None:
        publishers.append(publisher)

    for sending in [worker.begin(send) for _ in range(20)]:
        sending.result(TIMEOUT)
    worker.close()
    assert len(publishers) == 20
    assert len(set(map(id, publishers))) == 1


def test_all_who_wait_are_told_that_nobody_answers() -> None:
    worker = started("redis://127.0.0.1:1")

    async def send(publisher: Publisher) -> None:
        raise AssertionError("there is no connection")

    for sending in [worker.begin(send) for _ in range(3)]:
        with pytest.raises(BrokerUnavailable):
            sending.result(TIMEOUT)
    worker.close()


def test_it_sends_in_its_own_thread_and_that_may_end_it(redis: RedisServer) -> None:
    worker, names = started(redis.url), []

    async def send(publisher: Publisher) -> None:
        names.append(threading.current_thread().name)
        worker.close()  # as the garbage collector may do there

    worker.begin(send).result(TIMEOUT)
    worker.close()
    worker.close()
    assert names == ["bellwire: emitter"]
    assert "bellwire: emitter" not in [thread.name for thread in threading.enumerate()]
