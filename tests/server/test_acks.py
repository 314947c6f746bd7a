import asyncio
from typing import Any

import pytest

from bellwire import (
    CallLimit,
    CallTimeout,
    Config,
    Disconnected,
    Event,
    EventRefused,
    Namespace,
    Replies,
    Server,
    Socket,
)
from bellwire.testing import TestClient, connect
from bellwire.testing.clock import advance
from tests.server.house import ASK, BLOB, POKE, SAY, raw

FETCH = Event("fetch", reply=dict[str, Any])


def make(**settings: Any) -> tuple[Server, Namespace]:
    server = Server(config=Config(**settings))
    return server, server.namespace("/")


def socket_of(namespace: Namespace, client: TestClient) -> Socket:
    return namespace._hubs[client.namespace].sockets[client.id]


async def outcome(awaitable: Any) -> Any:
    """What a call came to: its value or its error."""
    try:
        return await awaitable
    except Exception as error:
        return error


async def test_a_call_to_one_client_returns_its_typed_reply() -> None:
    server, root = make()
    async with connect(server) as client:
        call = asyncio.ensure_future(socket_of(root, client).call(ASK, "name?", timeout=5))
        assert await client.answer(ASK, "Ann") == "name?"
        assert await call == "Ann"


async def test_a_reply_may_be_binary() -> None:
    server, root = make()
    async with connect(server) as client:
        call = asyncio.ensure_future(socket_of(root, client).call(BLOB, b"\x01", timeout=5))
        assert await client.answer(BLOB, b"\x02\x03") == b"\x01"
        assert await call == b"\x02\x03"


async def test_an_event_without_a_reply_is_acknowledged_with_nothing() -> None:
    server, root = make()
    async with connect(server) as client:
        call = asyncio.ensure_future(outcome(socket_of(root, client).call(POKE, timeout=5)))
        await client.answer(POKE, None)
        assert await call is None


async def test_a_refusal_of_the_client_is_raised() -> None:
    server, root = make()
    async with connect(server) as client:
        call = asyncio.ensure_future(outcome(socket_of(root, client).call(ASK, "?", timeout=5)))
        await advance()
        raw(client, '430[{"error":{"code":"busy","message":"later","retry_after":2}}]')
        error = await call
        assert isinstance(error, EventRefused)
        assert (error.code, error.retry_after) == ("busy", 2)


@pytest.mark.parametrize("answer", ["[7]", "[]", '["a","b"]', "[null]"])
async def test_a_reply_of_another_type_is_an_error_and_costs_nothing_else(answer: str) -> None:
    server, root = make()
    async with connect(server) as client:
        call = asyncio.ensure_future(outcome(socket_of(root, client).call(ASK, "?", timeout=5)))
        await advance()
        raw(client, f"430{answer}")
        error = await call
        assert isinstance(error, EventRefused)
        assert error.code == "invalid_reply"
        assert client.reason is None


async def test_no_reply_in_time_is_a_timeout_and_nothing_is_kept_of_the_call() -> None:
    server, root = make()
    async with connect(server) as client:
        socket = socket_of(root, client)
        with pytest.raises(CallTimeout, match="within 5 s"):
            await socket.call(ASK, "?", timeout=5)
        assert 5 <= asyncio.get_running_loop().time() <= 5.25
        assert socket._acks is None
        raw(client, '430["late"]')
        assert client.reason is None


async def test_a_client_that_leaves_ends_the_call_with_its_reason() -> None:
    server, root = make()
    async with connect(server) as client:
        call = asyncio.ensure_future(outcome(socket_of(root, client).call(ASK, "?", timeout=5)))
        await advance()
        client.drop()
        error = await call
        assert isinstance(error, Disconnected)
        assert error.reason == "transport close"


async def test_a_client_that_has_left_cannot_be_called() -> None:
    server, root = make()
    async with connect(server) as client:
        socket = socket_of(root, client)
        client.drop()
        with pytest.raises(Disconnected):
            await socket.call(ASK, "?", timeout=5)


@pytest.mark.parametrize("packet", ['4399["x"]', '43["no id"]', '43999999999999999["x"]'])
async def test_an_acknowledgement_that_nobody_waits_for_is_ignored(packet: str) -> None:
    server, _ = make()
    async with connect(server) as client:
        raw(client, packet)
        assert client.reason is None


async def test_a_second_acknowledgement_changes_nothing() -> None:
    server, root = make()
    async with connect(server) as client:
        call = asyncio.ensure_future(socket_of(root, client).call(ASK, "?", timeout=5))
        await advance()
        raw(client, '430["first"]')
        raw(client, '430["second"]')
        assert await call == "first"


async def test_an_acknowledgement_that_is_no_json_ends_the_connection_and_the_call() -> None:
    server, root = make()
    async with connect(server) as client:
        call = asyncio.ensure_future(outcome(socket_of(root, client).call(FETCH, timeout=5)))
        await advance()
        raw(client, '430[{"a":]')
        assert isinstance(await call, Disconnected)
        assert asyncio.get_running_loop().time() < 1
        assert client.reason is not None


async def test_an_acknowledgement_that_is_nested_too_deeply_ends_the_connection_and_the_call() -> None:
    server, root = make()
    async with connect(server) as client:
        call = asyncio.ensure_future(outcome(socket_of(root, client).call(FETCH, timeout=5)))
        await advance()
        raw(client, "430" + "[" * 100_000 + "]" * 100_000)
        assert isinstance(await call, Disconnected)


async def test_more_calls_than_the_limit_are_refused_before_they_are_sent() -> None:
    server, root = make(pending_calls_per_socket=2)
    async with connect(server) as client:
        socket = socket_of(root, client)
        calls = [asyncio.ensure_future(socket.call(ASK, str(n), timeout=5)) for n in range(2)]
        await advance()
        with pytest.raises(CallLimit, match="pending_calls_per_socket"):
            await socket.call(ASK, "one too many", timeout=5)
        for _ in calls:
            await client.answer(ASK, "ok")
        assert await asyncio.gather(*calls) == ["ok", "ok"]
        await client.receive_nothing()


async def test_a_negative_timeout_is_refused_before_anything_is_sent() -> None:
    server, root = make()
    async with connect(server) as client:
        with pytest.raises(ValueError, match="-1"):
            await socket_of(root, client).call(ASK, "?", timeout=-1)
        with pytest.raises(ValueError, match="-1"):
            await root.call(ASK, "?", timeout=-1)
        await client.receive_nothing()


# --- to many


async def test_a_broadcast_call_tells_values_errors_and_who_is_missing() -> None:
    server, root = make()
    async with (
        connect(server) as good,
        connect(server) as wrong,
        connect(server) as silent,
        connect(server) as gone,
    ):
        call = asyncio.ensure_future(root.call(ASK, "?", timeout=5))
        await good.answer(ASK, "yes")
        await wrong.receive(ASK)
        raw(wrong, "430[7]")
        gone.drop()
        replies = await call
        assert replies.values == {good.id: "yes"}
        assert {sid: type(error) for sid, error in replies.errors.items()} == {
            wrong.id: EventRefused,
            gone.id: Disconnected,
        }
        assert replies.missing == {silent.id}
        assert replies.unreachable_nodes == ()


async def test_a_broadcast_call_is_one_packet_for_all_and_ends_with_the_last_answer() -> None:
    server, root = make()
    async with connect(server) as one, connect(server) as two:
        await outcome(socket_of(root, one).call(ASK, "so that the counts differ", timeout=0))
        await one.receive(ASK)
        call = asyncio.ensure_future(root.call(ASK, "?", timeout=60))
        await advance()
        (first, _), (second, _) = one._events[0], two._events[0]
        assert first == second
        await one.answer(ASK, "1")
        await two.answer(ASK, "2")
        assert (await call).values == {one.id: "1", two.id: "2"}
        assert asyncio.get_running_loop().time() < 1


async def test_a_broadcast_call_to_nobody_returns_at_once() -> None:
    server, root = make()
    await server.start()
    assert await root.to("empty").call(ASK, "?", timeout=5) == Replies({}, {}, frozenset())
    assert asyncio.get_running_loop().time() == 0
    await server.close()


async def test_a_broadcast_call_leaves_out_who_is_over_the_limit() -> None:
    server, root = make(pending_calls_per_socket=1)
    async with connect(server) as busy, connect(server) as free:
        first = asyncio.ensure_future(socket_of(root, busy).call(ASK, "first", timeout=5))
        await advance()
        call = asyncio.ensure_future(root.call(ASK, "second", timeout=5))
        await free.answer(ASK, "yes")
        replies = await call
        assert replies.values == {free.id: "yes"}
        assert isinstance(replies.errors[busy.id], CallLimit)
        assert await busy.answer(ASK, "one") == "first"
        await busy.receive_nothing()
        assert await first == "one"


async def test_clients_that_are_still_being_connected_are_not_asked() -> None:
    server, root = make()
    replies = []

    @root.on_connect
    async def enter(socket: Socket) -> None:
        replies.append(await root.call(ASK, "?", timeout=5))

    async with connect(server):
        assert replies == [Replies({}, {}, frozenset())]


async def test_a_cancelled_call_leaves_nothing_behind() -> None:
    server, root = make()
    async with connect(server) as client:
        tasks = [
            asyncio.ensure_future(socket_of(root, client).call(ASK, "?", timeout=5)),
            asyncio.ensure_future(root.call(ASK, "?", timeout=5)),
        ]
        await advance()
        for task in tasks:
            task.cancel()
        await advance()
        assert socket_of(root, client)._acks is None


async def test_a_handler_may_call_its_own_client_while_further_events_wait() -> None:
    """Acknowledgements pass the queue of events, or this would wait for ever."""
    server, root = make()
    order = []

    @root.on(SAY)
    async def say(socket: Socket, text: str) -> None:
        if text == "first":
            order.append(await socket.call(ASK, "more?", timeout=5))
        order.append(text)

    async with connect(server) as client:
        for text in ("first", "second", "third"):
            await client.emit(SAY, text)
        await client.answer(ASK, "yes")
        await advance()
        assert order == ["yes", "first", "second", "third"]


@pytest.mark.parametrize("seconds", [None, "5"])
async def test_a_timeout_is_a_number(seconds: Any) -> None:
    server, root = make()
    async with connect(server) as client:
        for call in (socket_of(root, client).call, root.call):
            with pytest.raises(TypeError, match="give a number of seconds, such as timeout=10; no call waits for ever"):
                await call(ASK, "x", timeout=seconds)


async def test_a_call_that_ran_out_of_time_names_its_event() -> None:
    server, root = make()
    async with connect(server) as client:
        with pytest.raises(CallTimeout, match=r"^no acknowledgement of 'ask' within 2 s$"):
            await socket_of(root, client).call(ASK, "x", timeout=2)
