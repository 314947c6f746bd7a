"""Sockets and their events: payloads, replies, the order of handlers. The rest of sockets is in test_socket."""

import asyncio
import contextvars
import logging
from collections.abc import Callable
from typing import Any, cast

import pytest

from bellwire import Config, ConnectRefused, Event, EventRefused, Namespace, Server, Socket
from bellwire.protocol.socketio import decode_json
from bellwire.testing import TestClient, connect
from bellwire.testing.clock import advance
from tests.server.house import ASK, BLOB, PAIR, SAY, SEND, Draft, Receipt, error_of, raw

COLOUR: contextvars.ContextVar[str] = contextvars.ContextVar("COLOUR", default="none")


def make(**settings: Any) -> tuple[Server, Namespace]:
    server = Server(config=Config(**settings))
    return server, server.namespace("/")


def socket_of(namespace: Namespace, client: TestClient) -> Socket:
    return namespace._hubs[client.namespace].sockets[client.id]


async def refused(client: TestClient, event: Event[Any, *tuple[Any, ...]], *payload: Any) -> EventRefused:
    with pytest.raises(EventRefused) as caught:
        await client.call(event, *payload)
    return caught.value


async def wire_reply(client: TestClient, packet: str) -> Any:
    """The acknowledgement of a packet with the id 7, as JSON values."""
    reply = client._replies[7] = asyncio.get_running_loop().create_future()
    raw(client, packet)
    async with asyncio.timeout(5):
        answer = await reply
    return decode_json(answer)


# --- payloads


async def test_a_handler_is_given_the_types_of_its_event() -> None:
    server, root = make()
    seen: list[object] = []

    @root.on(SEND)
    async def send(socket: Socket, draft: Draft) -> Receipt:
        seen.append(draft)
        return Receipt(draft.text)

    async with connect(server) as client:
        assert await client.call(SEND, Draft("r", "hello")) == Receipt("hello")
        assert seen == [Draft("r", "hello")]


async def test_plain_text_is_cleaned_before_the_handler() -> None:
    server, root = make()
    seen = []

    @root.on(SEND)
    async def send(socket: Socket, draft: Draft) -> Receipt:
        seen.append(draft.text)
        return Receipt("")

    async with connect(server) as client:
        await client.call(SEND, Draft("r", "<b>one</b> & <script>x</script>two"))
        assert seen == ["one &amp; two"]


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ('{"room":"much too long","text":"x"}', "$.room"),
        ('{"room":"r"}', "$"),
        ('{"room":"r","text":7}', "$.text"),
        ('"text"', "$"),
        ("", "$"),
        ('{"room":"r","text":"x"},1', "$"),
    ],
)
async def test_a_wrong_payload_is_refused_with_its_path_and_never_reaches_the_handler(payload: str, path: str) -> None:
    server, root = make()
    seen: list[object] = []

    @root.on(SEND)
    async def send(socket: Socket, draft: Draft) -> Receipt:
        seen.append(draft)
        return Receipt("")

    async with connect(server) as client:
        arguments = f",{payload}" if payload else ""
        (reply,) = await wire_reply(client, f'427["send"{arguments}]')
        error = error_of(reply)
        assert error["code"] == "invalid_payload"
        assert error["path"] == path
        assert seen == []
        assert server.counters.get("events_refused_total") == 1
        assert client.reason is None


async def test_an_unknown_event_is_refused() -> None:
    server, _ = make()
    async with connect(server) as client:
        assert (await refused(client, ASK, "x")).code == "unknown_event"


@pytest.mark.parametrize("packet", ['42["nobody"]', '42["send",7]'])
async def test_without_an_acknowledgement_id_a_refusal_is_only_counted(packet: str) -> None:
    server, root = make()

    @root.on(SEND)
    async def send(socket: Socket, draft: Draft) -> Receipt:
        raise AssertionError("called")

    async with connect(server) as client:
        packets: list[str | bytes] = []
        client.take = packets.append  # type: ignore[method-assign, assignment]
        raw(client, packet)
        await advance(1)
        assert packets == []
        assert server.counters.get("events_refused_total") == 1


async def test_a_binary_payload_is_checked_too() -> None:
    server, root = make()

    @root.on(BLOB)
    async def blob(socket: Socket, data: bytes) -> bytes:
        return data + b"!"

    async with connect(server) as client:
        assert await client.call(BLOB, b"x") == b"x!"
        reply = client._replies[7] = asyncio.get_running_loop().create_future()
        raw(client, '451-7["blob",[{"_placeholder":true,"num":0}]]', b"x")
        assert '"code":"invalid_payload"' in await reply


@pytest.mark.parametrize(
    "use",
    [
        lambda root, socket: root.on("say"),
        lambda root, socket: Namespace("/x", emits=("say",)),  # type: ignore[arg-type]
        lambda root, socket: Server().namespace("/x", emits=("say",)),  # type: ignore[arg-type]
        lambda root, socket: socket.emit("say", "x"),
        lambda root, socket: socket.call("say", "x", timeout=1),
        lambda root, socket: root.emit("say", "x"),
        lambda root, socket: root.to("r").emit("say", "x"),
        lambda root, socket: root.to("r").call("say", "x", timeout=1),
        lambda root, socket: root.user("u").emit("say", "x"),
    ],
)
async def test_a_string_where_an_event_belongs_is_a_type_error_that_names_the_fix(
    use: Callable[[Any, Any], Any],
) -> None:
    server, root = make()
    async with connect(server) as client:
        with pytest.raises(TypeError, match=r"SAY = Event\('say', \.\.\.\)"):
            await use(root, socket_of(root, client))


# --- replies


async def test_a_success_is_exactly_the_reply() -> None:
    server, root = make()

    @root.on(ASK)
    async def ask(socket: Socket, text: str) -> str:
        return text * 2

    async with connect(server) as client:
        assert await wire_reply(client, '427["ask","ab"]') == ["abab"]


@pytest.mark.parametrize("pause", [False, True])
async def test_an_event_without_a_reply_type_is_answered_with_nothing(pause: bool) -> None:
    server, root = make()

    @root.on(PAIR)
    async def pair(socket: Socket, a: int, b: int) -> None:
        if pause:
            await asyncio.sleep(1)

    async with connect(server) as client:
        assert await wire_reply(client, '427["pair",1,2]') == []


@pytest.mark.parametrize("pause", [False, True])
async def test_a_refusal_of_the_handler_is_the_reply(pause: bool) -> None:
    server, root = make()

    @root.on(ASK)
    async def ask(socket: Socket, text: str) -> str:
        if pause:
            await asyncio.sleep(1)
        raise EventRefused("too_early", "not yet", path="$.x", retry_after=2.5)

    async with connect(server) as client:
        (reply,) = await wire_reply(client, '427["ask","x"]')
        assert error_of(reply) == {"code": "too_early", "message": "not yet", "path": "$.x", "retry_after": 2.5}


@pytest.mark.parametrize("pause", [False, True])
async def test_an_exception_is_internal_without_its_text_logged_once_and_hurts_nobody(
    pause: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server, root = make()

    @root.on(ASK)
    async def ask(socket: Socket, text: str) -> str:
        if pause:
            await asyncio.sleep(1)
        if text == "bad":
            raise LookupError("the password is hunter2")
        return text

    async with connect(server) as client, connect(server) as other:
        with caplog.at_level(logging.ERROR, "bellwire"):
            (reply,) = await wire_reply(client, '427["ask","bad"]')
            assert error_of(reply)["code"] == "internal"
            assert "hunter2" not in str(reply)
            assert await client.call(ASK, "next", timeout=5) == "next"
            assert await other.call(ASK, "other", timeout=5) == "other"
        (record,) = caplog.records
        assert record.getMessage().startswith("handling 'ask' (tests.server.test_socket_events.")
        assert ".ask) failed for Socket('/', " in record.getMessage()
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], LookupError)
        assert record.exc_info[2] is not None
        assert server.counters.get("handler_errors_total") == 1


async def test_connect_refused_in_a_handler_is_internal_with_a_hint(caplog: pytest.LogCaptureFixture) -> None:
    server, root = make()

    @root.on(ASK)
    async def ask(socket: Socket, text: str) -> str:
        raise ConnectRefused("of somebody else's server, perhaps")

    async with connect(server) as client:
        with pytest.raises(EventRefused, match=r"^internal: the server failed"):
            await client.call(ASK, "x")
    assert "raise EventRefused(code, message) here" in caplog.text


async def test_what_fails_in_on_any_and_on_disconnect_is_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    server, root = make()

    @root.on_any
    async def watch(socket: Socket, name: str, *payload: object) -> None:
        raise LookupError

    @root.on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        raise EventRefused("late", "nobody hears it")

    async with connect(server) as client:
        await client.emit(SAY, "x")
    said = [record.getMessage().partition(" for Socket(")[0] for record in caplog.records]
    assert said == ["on_any failed", "on_disconnect failed"]
    assert server.counters.get("handler_errors_total") == 2


async def test_refusals_are_logged_for_who_looks_without_payloads(caplog: pytest.LogCaptureFixture) -> None:
    server, root = make()

    @root.on(ASK)
    async def ask(socket: Socket, text: str) -> str:
        raise EventRefused("sold_out", f"no {text} left")

    async with connect(server) as client:
        with caplog.at_level(logging.DEBUG, "bellwire"):
            for part in ('42["ask",7]', '42["ask","secret"]', f'42["{"n" * 100}","secret"]'):
                raw(client, part)
        said = [record.getMessage() for record in caplog.records]
        who = f"Socket('/', '{client.id}', user=None)"
        assert said == [
            f"refused the event 'ask' of {who}: invalid_payload at '$'",
            f"refused the event 'ask' of {who}: sold_out",
            f"refused the event '{'n' * 64}' of {who}: unknown_event",
        ]
        assert {record.name for record in caplog.records} == {"bellwire.server"}
        assert client.carrier.session.sid not in caplog.text


async def test_an_unknown_event_is_named_with_its_namespace() -> None:
    server, _ = make()
    server.namespace("/org/{org}")
    async with connect(server, "/org/7") as client:
        with pytest.raises(EventRefused, match=r"^unknown_event: no handler takes 'n{64}' in '/org/7'$"):
            await client.call(Event("n" * 100), timeout=1)


async def test_a_handler_that_lets_a_cancellation_through_is_internal_too() -> None:
    server, root = make()

    @root.on(ASK)
    async def ask(socket: Socket, text: str) -> str:
        task = asyncio.ensure_future(asyncio.sleep(10))
        asyncio.get_running_loop().call_later(1, task.cancel)
        await task
        return text

    async with connect(server) as client:
        with pytest.raises(EventRefused, match="internal"):
            await client.call(ASK, "x", timeout=5)


@pytest.mark.parametrize("pause", [False, True])
async def test_a_reply_that_cannot_be_encoded_is_internal(pause: bool, caplog: pytest.LogCaptureFixture) -> None:
    server, root = make()

    @root.on(ASK)
    async def ask(socket: Socket, text: str) -> str:
        if pause:
            await asyncio.sleep(1)
        return cast("str", object())

    async with connect(server) as client:
        with pytest.raises(EventRefused) as caught:
            await client.call(ASK, "x", timeout=5)
        assert caught.value.code == "internal"
        assert len(caplog.records) == 1


@pytest.mark.parametrize("pause", [False, True])
async def test_a_refusal_that_cannot_be_encoded_is_internal(pause: bool, caplog: pytest.LogCaptureFixture) -> None:
    server, root = make()

    @root.on(ASK)
    async def ask(socket: Socket, text: str) -> str:
        if pause:
            await asyncio.sleep(1)
        raise EventRefused("bad", cast("str", ValueError("no text")))

    async with connect(server) as client:
        with pytest.raises(EventRefused, match="internal"):
            await client.call(ASK, "x", timeout=5)
        assert len(caplog.records) == 1


async def test_a_failing_on_disconnect_is_logged_and_nobody_notices(caplog: pytest.LogCaptureFixture) -> None:
    server, root = make()

    @root.on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        raise LookupError("gone")

    @root.on(ASK)
    async def ask(socket: Socket, text: str) -> str:
        return text

    async with connect(server) as other:
        async with connect(server):
            pass
        assert await other.call(ASK, "x") == "x"
        assert len(caplog.records) == 1


# --- order


async def test_events_of_one_socket_are_handled_in_order_even_if_the_first_waits() -> None:
    server, root = make()
    order = []

    @root.on(SAY)
    async def say(socket: Socket, text: str) -> None:
        order.append(f"{text} begins")
        if text == "a":
            await asyncio.sleep(1)
        order.append(f"{text} ends")

    async with connect(server) as client:
        for text in "abc":
            await client.emit(SAY, text)
        assert order == ["a begins"]
        await advance(2)
        assert order == ["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]


async def test_another_sockets_events_do_not_wait() -> None:
    server, root = make()
    order = []

    @root.on(SAY)
    async def say(socket: Socket, text: str) -> None:
        if text == "slow":
            await asyncio.sleep(1)
        order.append(text)

    async with connect(server) as client, connect(server) as other:
        await client.emit(SAY, "slow")
        await other.emit(SAY, "quick")
        assert order == ["quick"]
        await advance(2)
        assert order == ["quick", "slow"]


async def test_the_first_step_of_a_handler_runs_without_a_turn_of_the_loop() -> None:
    server, root = make()
    seen = []

    @root.on(SAY)
    async def say(socket: Socket, text: str) -> None:
        seen.append(text)

    async with connect(server) as client:
        raw(client, '42["say","now"]')
        assert seen == ["now"]


async def test_no_task_is_left_of_a_handler() -> None:
    server, root = make()

    @root.on(SAY)
    async def say(socket: Socket, text: str) -> None:
        await asyncio.sleep(1)

    async with connect(server) as client:
        for _ in range(50):
            await client.emit(SAY, "x")
            await advance(1)
        assert len(asyncio.all_tasks()) <= 3  # the test, and parked tasks: the handler's and the probe's


async def test_a_disconnect_is_noticed_at_once_but_told_behind_the_last_event() -> None:
    server, root = make()
    order: list[Any] = []

    @root.on(SAY)
    async def say(socket: Socket, text: str) -> None:
        order.append(text)
        await asyncio.sleep(1)
        order.append(socket.connected)

    @root.on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        order.append(reason)

    async with connect(server) as client:
        await client.emit(SAY, "a")
        await client.emit(SAY, "b")
        client.drop()
        assert root._hubs == {}
        await advance(5)
        assert order == ["a", False, "b", False, "transport close"]


@pytest.mark.parametrize("pause", [False, True])
async def test_a_handler_that_disconnects_its_socket_ends_before_on_disconnect_begins(pause: bool) -> None:
    server, root = make()
    order = []

    @root.on(SAY)
    async def say(socket: Socket, text: str) -> None:
        if pause:
            await asyncio.sleep(1)
        await socket.disconnect()
        order.append("handler ends")

    @root.on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        order.append(reason)

    async with connect(server) as client:
        await client.emit(SAY, "x")
        await advance(2)
        assert order == ["handler ends", "server namespace disconnect"]


async def test_an_event_that_comes_within_a_handlers_first_step_waits_for_its_end() -> None:
    server, root = make()
    order = []
    clients: list[TestClient] = []

    @root.on(SAY)
    async def say(socket: Socket, text: str) -> None:
        order.append(f"{text} begins")
        if text == "a":
            await clients[0].emit(SAY, "b")
        order.append(f"{text} ends")

    async with connect(server) as client:
        clients.append(client)
        await client.emit(SAY, "a")
        assert order == ["a begins", "a ends", "b begins", "b ends"]


async def test_a_full_queue_stops_the_reading_and_half_of_it_starts_it_again() -> None:
    server, root = make(inbound_queue_events=4)
    seen = []

    @root.on(SAY)
    async def say(socket: Socket, text: str) -> None:
        await asyncio.sleep(1)
        seen.append(text)

    async with connect(server) as client:
        session = client.carrier.session
        for n in range(10):
            await client.emit(SAY, str(n))
        assert session.paused
        assert len(socket_of(root, client)._queue or ()) == 4
        await advance(1.5)  # one is handled, one begins: three wait
        assert session.paused
        await advance(1)
        assert len(socket_of(root, client)._queue or ()) == 4  # two were left, and the reading went on
        await advance(20)
        assert seen == [str(n) for n in range(10)]
        assert not session.paused


async def test_a_socket_whose_queue_is_short_does_not_start_the_reading_for_one_whose_queue_is_full() -> None:
    server, root = make(inbound_queue_events=4)
    other = server.namespace("/other")
    for namespace in (root, other):

        @namespace.on(SAY)
        async def say(socket: Socket, text: str) -> None:
            await asyncio.sleep(float(text))

    async with connect(server) as client:
        raw(client, "40/other,")
        raw(client, '42/other,["say","1"]')
        for _ in range(20):
            await client.emit(SAY, "100")
        await advance(2)  # the other's handler is done
        assert client.carrier.session.paused
        assert len(socket_of(root, client)._queue or ()) == 4


async def test_the_heartbeat_does_not_end_a_client_that_is_made_to_wait() -> None:
    server, root = make(inbound_queue_events=2, max_missed_pongs=1)
    ends = []

    @root.on(SAY)
    async def say(socket: Socket, text: str) -> None:
        await asyncio.sleep(29.9)

    @root.on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        ends.append(reason)

    async with connect(server) as client:
        for _ in range(8):
            await client.emit(SAY, "x")
        await advance(300)
        assert (ends, client.reason) == ([], None)


async def test_a_client_that_is_listened_to_again_is_not_missed_for_the_time_before() -> None:
    """Its pong came while nobody read; the check of the heartbeat follows before it can be read."""
    server, root = make(inbound_queue_events=1, max_missed_pongs=1)

    @root.on(SAY)
    async def say(socket: Socket, text: str) -> None:
        await asyncio.sleep(29.9)

    async with connect(server) as client:
        await client.emit(SAY, "now")
        await client.emit(SAY, "has to wait")
        client.carrier.stalled = True
        session = client.carrier.session
        await advance(29.8)
        assert session.paused
        await advance(0.3)
        assert not session.paused
        assert client.reason is None


# --- context


async def test_context_variables_timeouts_and_groups_work_inside_a_handler() -> None:
    server, root = make()

    @root.on(ASK)
    async def ask(socket: Socket, text: str) -> str:
        before = COLOUR.get()
        COLOUR.set(text)
        try:
            async with asyncio.timeout(1):
                async with asyncio.TaskGroup() as group:
                    child = group.create_task(asyncio.sleep(0, COLOUR.get()))
                await asyncio.sleep(10)
        except TimeoutError:
            return f"{before} {child.result()} {COLOUR.get()} timed out"
        return "not timed out"

    async with connect(server) as client:
        assert await client.call(ASK, "red", timeout=5) == "none red red timed out"
        assert await client.call(ASK, "blue", timeout=5) == "none blue blue timed out"
