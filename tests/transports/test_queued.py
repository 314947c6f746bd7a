"""Carriers with a queue of their own: what they count, and how their reader is made to wait."""

import asyncio

import pytest

from bellwire.protocol.outgoing import Outgoing
from bellwire.testing.clock import advance
from bellwire.transports.asgi import ASGIWebSocket
from bellwire.transports.polling import PollingCarrier
from bellwire.transports.queued import QueuedCarrier
from tests.transports.wire import EchoServer


async def nothing(*_: object) -> dict[str, object]:
    return {"type": "websocket.disconnect"}


async def unsent(message: object) -> None:
    raise AssertionError(message)


def make(kind: str, server: EchoServer) -> QueuedCarrier:
    if kind == "polling":
        return PollingCarrier(server.engine)
    return ASGIWebSocket(server.engine, nothing, unsent, base64=False)


@pytest.mark.parametrize("kind", ["polling", "asgi"])
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


@pytest.mark.parametrize("kind", ["polling", "asgi"])
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
