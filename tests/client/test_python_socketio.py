"""The client against the server of python-socketio, under uvicorn."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import socketio
import uvicorn

from bellwire import Client, ConnectRefused, Disconnected, Event
from bellwire.core.errors import OutcomeUnknown
from tests.client.house import ASK, BLOB, PAIR, SAY, SECONDS, Draft, Heard

pytestmark = pytest.mark.bellwire(clock="real")


def server() -> Any:
    sio = socketio.AsyncServer(async_mode="asgi", monitor_clients=False, namespaces="*")
    sio.never = asyncio.Event()

    async def connect(sid: str, environ: Any, auth: Any) -> None:
        if auth is not None and auth.get("token") == "bad":
            raise socketio.exceptions.ConnectionRefusedError("no", {"code": 1})

    async def say(sid: str, text: str) -> None:
        await sio.emit("say", text * 2, to=sid)

    async def ask(sid: str, text: str) -> int:
        await (sio.never.wait() if text == "never" else asyncio.sleep(0))
        return len(text)

    async def blob(sid: str, draft: dict[str, Any]) -> dict[str, Any]:
        return {"text": draft["text"], "data": draft["data"] * 2}

    async def pair(sid: str, number: int, text: str) -> None:
        if text == "call":

            async def call() -> None:
                await sio.emit("say", str(await sio.call("ask", "four", to=sid)), to=sid)

            sio.start_background_task(call)
        else:
            await sio.disconnect(sid)

    for handler in (connect, say, ask, blob, pair):
        sio.on(handler.__name__, handler)
    sio.on("flood", flood_of(sio))
    return sio


def flood_of(sio: Any) -> Callable[[str, int], Awaitable[None]]:
    async def flood(sid: str, count: int) -> None:
        for size in range(count):
            await sio.emit("say", "x" * (20_000 + size), to=sid)

    return flood


@asynccontextmanager
async def running(sio: Any) -> AsyncIterator[str]:
    config = uvicorn.Config(socketio.ASGIApp(sio), port=0, loop="none", lifespan="off", log_config=None)
    config.load()
    runner = uvicorn.Server(config)
    runner.lifespan = config.lifespan_class(config)
    await runner.startup()
    try:
        yield f"http://127.0.0.1:{runner.servers[0].sockets[0].getsockname()[1]}"
    finally:
        sio.never.set()
        await sio.shutdown()
        for listener in runner.servers:
            listener.close()
        for connection in list(runner.server_state.connections):
            connection.shutdown()
        async with asyncio.timeout(SECONDS):
            await runner._wait_tasks_to_complete()
        for task in asyncio.all_tasks():  # that server leaves the heartbeats of its clients behind
            if getattr(task.get_coro(), "__qualname__", "").startswith("AsyncSocket."):
                task.cancel()


async def test_events_calls_and_binary() -> None:
    async with running(server()) as url:
        client, said = Client(url), Heard()
        client.on(SAY)(said)
        client.on(ASK)(len)
        async with client:
            assert client.id
            await client.emit(SAY, "ü")
            assert await client.call(ASK, "four", timeout=SECONDS) == 4
            assert await client.call(BLOB, Draft("x", b"\0\1"), timeout=SECONDS) == Draft("x", b"\0\1\0\1")
            await client.emit(PAIR, 1, "call")
            assert await said.count(2) == ["üü", "4"]


async def test_what_was_sent_when_a_connection_breaks_is_lost_and_a_call_says_so() -> None:
    sio = server()
    async with running(sio) as url:
        client, states = Client(url), Heard()
        client.on_state(states)
        async with client:
            call = asyncio.ensure_future(client.call(ASK, "never", timeout=SECONDS))
            await client.call(ASK, "four", timeout=SECONDS)
            assert client._session.wire is not None
            client._session.wire.abort("cut")
            with pytest.raises(Disconnected, match="cut"):
                await call
            await client.emit(SAY, "kept")
            said = client.messages(SAY)
            assert await anext(said) == "keptkept"
            assert await client.call(ASK, "12345", timeout=SECONDS) == 5
        assert states.all == ["connecting", "connected", "reconnecting", "connected", "disconnected"]


async def test_a_call_that_was_sent_and_not_answered_in_time_is_unknown() -> None:
    async with running(server()) as url, Client(url) as client:
        with pytest.raises(OutcomeUnknown, match="'ask' may have been handled"):
            await client.call(ASK, "never", timeout=0.05)
        assert await client.call(ASK, "four", timeout=SECONDS) == 4


async def test_a_handler_that_is_slow_holds_the_server_up_and_loses_nothing() -> None:
    heard, pressed, go_on = Heard(), Heard(), asyncio.Event()
    async with running(server()) as url:
        client = Client(url)
        turns = client._program.turns
        press = turns._pressure

        def pressure(on: bool) -> None:
            press(on)
            pressed(on)

        turns._pressure = pressure

        @client.on(SAY)
        async def say(text: str) -> None:
            await go_on.wait()
            heard(len(text))

        async with client:
            await client.emit(Event("flood", int), 400)
            assert await pressed.count(1) == [True]
            go_on.set()
            assert await heard.count(400) == [20_000 + size for size in range(400)]
            assert client.state == "connected"


async def test_refusals() -> None:
    async with running(server()) as url:
        with pytest.raises(ConnectRefused, match="no") as refused:
            async with Client(url, auth={"token": "bad"}):
                raise AssertionError
        assert refused.value.data == {"code": 1}


async def test_an_unknown_namespace() -> None:
    sio = server()
    sio.namespaces = ["/"]
    async with running(sio) as url:
        with pytest.raises(ConnectRefused, match="Unable to connect"):
            async with Client(url, namespace="/nowhere"):
                raise AssertionError


async def test_a_server_that_disconnects() -> None:
    async with running(server()) as url, Client(url) as client:
        await client.emit(PAIR, 1, "leave")
        assert [text async for text in client.messages(SAY)] == []
        with pytest.raises(Disconnected, match="io server disconnect"):
            await client.emit(SAY, "x")
