"""Rates as the client of python-socketio meets them."""

import asyncio

import pytest

from bellwire import Config, Event, Server, Socket
from tests.interop.test_python_socketio import PATIENCE, TRANSPORTS, new_client
from tests.serving import serve

SEARCH = Event("search", str, reply=str, rate="2/s")


@pytest.mark.bellwire(clock="real")
@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_an_event_is_refused_with_the_time_to_wait_and_taken_then(transport: str) -> None:
    server = Server(config=Config(refusal_rate="off"))

    @server.namespace("/").on(SEARCH)
    async def search(socket: Socket, text: str) -> str:
        return text.upper()

    async with serve(server) as url, new_client(reconnection=False) as client:
        await client.connect(url, transports=TRANSPORTS[transport])
        replies = await asyncio.gather(*(client.call("search", text) for text in "abc"))
        assert replies[:2] == ["A", "B"]
        error = replies[2]["error"]
        assert error["code"] == "rate_limited"
        assert 0 < error["retry_after"] <= 0.5
        loop = asyncio.get_running_loop()
        told = loop.time()
        async with asyncio.timeout(PATIENCE):
            while (reply := await client.call("search", "c")) != "C":
                assert reply["error"]["retry_after"] <= error["retry_after"]
        assert loop.time() - told == pytest.approx(error["retry_after"], abs=0.1)
