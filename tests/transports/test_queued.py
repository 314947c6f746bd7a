"""Carriers with a queue of their own: what they count, and how their reader is made to wait."""

import asyncio
from typing import Any

import pytest

from bellwire.protocol.outgoing import Outgoing
from bellwire.testing.clock import advance
from bellwire.transports.asgi import ASGIWebSocket
from bellwire.transports.base import Request
from bellwire.transports.polling import PollingCarrier
from bellwire.transports.queued import QueuedCarrier
from tests.transports.wire import EchoServer

both = pytest.mark.parametrize("kind", ["polling", "asgi"])


async def nothing(*_: object) -> dict[str, object]:
    return {"type": "websocket.disconnect"}


async def unsent(message: object) -> None:
    raise AssertionError(message)


def make(kind: str, server: EchoServer) -> QueuedCarrier[Any]:
    """A carrier whose client takes nothing; the greeting does not wait for it."""
    carrier = _carrier(kind, server)
    carrier.session = server.engine.open(carrier, Request(path="/"))
    take(carrier)
    return carrier


def take(carrier: QueuedCarrier[Any], count: int = 1) -> None:
    """The client takes the first messages, as a GET or the ASGI server's writes do."""
    taken, carrier._queue = carrier._queue[:count], carrier._queue[count:]
    carrier._dequeue(sum(message.size for message in taken))


def notices(server: EchoServer) -> list[str]:
    (echo,) = server.echoes.values()
    return echo.notices


def _carrier(kind: str, server: EchoServer) -> QueuedCarrier[Any]:
    if kind == "polling":
        return PollingCarrier(server.engine)
    return ASGIWebSocket(server.engine, nothing, unsent, max_message=1000)


@both
async def test_what_is_sent_is_counted_until_it_is_too_much_for_volatile_events(kind: str) -> None:
    server = EchoServer(volatile_buffer_bytes=100)
    carrier = make(kind, server)
    assert carrier.writable
    message = Outgoing("4" + "x" * 60)
    carrier.send(message)
    assert carrier.buffered == message.size
    assert carrier.writable
    carrier.send(message)
    assert carrier.buffered == 2 * message.size
    assert not carrier.writable


@both
async def test_a_reader_waits_until_reading_is_allowed(kind: str) -> None:
    server = EchoServer()
    carrier = make(kind, server)
    async with asyncio.timeout(1):
        await carrier._may_read()
    carrier.set_reading(False)
    carrier.set_reading(False)
    waiting = asyncio.ensure_future(carrier._may_read())
    await advance(5)
    assert not waiting.done()
    carrier.set_reading(True)
    carrier.set_reading(True)
    async with asyncio.timeout(1):
        await waiting


MESSAGE = Outgoing("4" + "x" * 97)
"""100 bytes, with its frame's head."""


@both
async def test_congestion_is_told_after_send_and_its_end_when_a_quarter_is_left(kind: str) -> None:
    server = EchoServer(volatile_buffer_bytes=400)
    carrier = make(kind, server)
    for _ in range(4):
        carrier.send(MESSAGE)
    await advance(1)
    assert (carrier.congested, notices(server)) == (False, [])
    carrier.send(MESSAGE)
    assert (carrier.congested, notices(server)) == (True, [])
    await advance(1)
    assert notices(server) == ["congested"]
    take(carrier, 3)
    await advance(1)
    assert not carrier.writable
    assert notices(server) == ["congested"]
    take(carrier, 1)
    assert notices(server) == ["congested"]
    await advance(1)
    assert (carrier.congested, notices(server)) == (False, ["congested", "drained"])


@both
async def test_who_saw_that_it_was_not_writable_is_told_though_it_is_by_then(kind: str) -> None:
    server = EchoServer(volatile_buffer_bytes=190)
    carrier = make(kind, server)
    carrier.send(MESSAGE)
    carrier.send(MESSAGE)
    assert not carrier.writable
    take(carrier, 2)
    assert carrier.writable
    await advance(1)
    assert notices(server) == ["congested", "drained"]


@both
async def test_progress_is_what_is_taken_and_not_what_is_added(kind: str) -> None:
    server = EchoServer(volatile_buffer_bytes=300)
    carrier = make(kind, server)
    for _ in range(6):
        carrier.send(MESSAGE)
    before = carrier.progress
    for _ in range(5):
        carrier.send(MESSAGE)
    assert carrier.progress == before
    take(carrier, 2)
    assert carrier.progress == before + 200


@both
async def test_session_whose_client_takes_nothing_is_cut_off(kind: str) -> None:
    server = EchoServer(volatile_buffer_bytes=300)
    carrier = make(kind, server)
    for _ in range(4):
        carrier.send(MESSAGE)
    for _ in range(50):  # a little more from time to time is no sign of life
        carrier.send(MESSAGE)
        await advance(1)
    (echo,) = server.echoes.values()
    assert echo.reasons == ["slow consumer"]
