import asyncio
from typing import Any

import pytest
from bench.paced import paced

from bellwire.load.clients.base import Manner
from bellwire.load.clients.socketio import Stock
from bellwire.load.swarm import swarm
from tests.load.server import FakeServer, running


def test_messages_are_published_when_they_are_due() -> None:
    with running() as (port, _), swarm(("127.0.0.1", port), 3, lambda _: Stock(Manner())) as crowd:
        results = list(paced(crowd, 64, rate=100.0, seconds=0.4, every=0.2))
    assert [result.shape for result in results] == [("paced", 3, 64, 0, "")] * 2
    for result in results:
        assert 10 <= result.messages <= 21
        assert result.rate == pytest.approx(result.messages * 3 / result.seconds)


def test_what_waits_behind_a_stop_counts_from_when_it_was_due() -> None:
    held: list[tuple[int, Any]] = []
    fakes: list[FakeServer] = []
    events = 0

    def release() -> None:
        for number, packet in held:
            fakes[0].write(number, packet)
        held.clear()

    def stopping(number: int, packet: Any) -> list[Any]:
        nonlocal events
        events += packet.startswith("42")
        if events == 50:  # behind the 20 messages of the verifying pass, to two clients each
            asyncio.get_running_loop().call_later(0.25, release)
        if events == 50 or held:
            held.append((number, packet))
            return []
        return [packet]

    with running(stopping) as (port, fake), swarm(("127.0.0.1", port), 2, lambda _: Stock(Manner())) as crowd:
        fakes.append(fake)
        (result,) = paced(crowd, 64, rate=200.0, seconds=0.3, every=0.3)
    assert result.p99 > 200
    assert result.p50 > 50, "not one message alone is late, but all that were due meanwhile"
