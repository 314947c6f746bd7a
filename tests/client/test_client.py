"""The client against a real Bellwire server on loopback."""

import asyncio
from typing import Any, cast

import pytest

import bellwire
from bellwire import ConnectRefused, Disconnected, Event, EventRefused, Socket
from bellwire.client.client import Client
from bellwire.client.session import State
from bellwire.core.errors import OutcomeUnknown
from tests.client.house import ASK, BLOB, PAIR, POKE, SAY, SECONDS, TICK, Draft, Heard, House, served_by, until_state
from tests.serving import serve

pytestmark = pytest.mark.bellwire(clock="real")


def open_events(client: Client) -> int:
    """How many events of a client that was entered have no outcome."""
    assert client._entered is not None
    return len(client._entered.up._open)


def test_it_is_exported() -> None:
    assert bellwire.Client is Client


# --- connecting


@pytest.mark.parametrize("native", [True, False])
async def test_it_connects_and_leaves(native: bool) -> None:
    house, states = House(), Heard()
    async with serve(house.server, native=native) as url:
        client = Client(url)
        client.on_state(states)
        assert (client.state, client.id) == ("disconnected", None)
        async with client:
            assert (client.state, client.id) == ("connected", house.sockets[0].id)
            assert states.all == ["connecting", "connected"]
        assert (client.state, client.id) == ("disconnected", None)
        assert states.all == ["connecting", "connected", "disconnected"]
        assert await house.left.count(1) == ["client namespace disconnect"]


async def test_auth_and_namespace_reach_the_server() -> None:
    house = House()
    chat, seen = house.server.namespace("/chat/{room}"), Heard()

    @chat.on_connect
    async def joined(socket: Socket) -> None:
        seen((socket.namespace, dict(socket.auth)))
        await socket.emit(SAY, "welcome")

    async with serve(house.server) as url:
        client, said = Client(url, namespace="/chat/7", auth={"token": "x"}), Heard()
        client.on(SAY)(said)
        async with client:
            assert await said.count(1) == ["welcome"]
    assert seen.all == [("/chat/7", {"token": "x"})]


async def test_a_refusal_is_raised_at_entry_with_its_data() -> None:
    house, states = House(), Heard()

    @house.root.on_connect
    async def refuse(socket: Socket) -> None:
        raise ConnectRefused("staff only", {"code": "E1"})

    async with serve(house.server) as url:
        client = Client(url)
        client.on_state(states)
        with pytest.raises(ConnectRefused, match="staff only") as refused:
            async with client:
                raise AssertionError
        assert refused.value.data == {"code": "E1"}
        assert states.all == ["connecting", "disconnected"]
        with pytest.raises(ConnectRefused, match="Invalid namespace"):
            async with Client(url, namespace="/nowhere"):
                raise AssertionError


async def test_entering_retries_until_there_is_a_server() -> None:
    attempts = Heard()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts("hung up")

    house = House()
    async with served_by(hang_up) as url:
        client = Client(url)
        entering = asyncio.ensure_future(client.__aenter__())
        await until_state(client, "connecting")
        await attempts.count(2)
        assert not entering.done()
        entering.cancel()
        await asyncio.wait([entering])
        assert entering.cancelled()
        assert client.state == "disconnected"
    async with serve(house.server) as url, Client(url):
        assert len(house.joined.all) == 1


async def test_a_client_is_entered_once() -> None:
    house = House()
    async with serve(house.server) as url:
        client = Client(url)
        async with client:
            with pytest.raises(RuntimeError, match="entered once"):
                await client.__aenter__()
            assert client.state == "connected"
        with pytest.raises(RuntimeError, match="entered once"):
            await client.__aenter__()


async def test_before_and_after_nothing_can_be_sent() -> None:
    house = House()
    async with serve(house.server) as url:
        client = Client(url)
        with pytest.raises(RuntimeError, match="async with"):
            await client.emit(POKE)
        async with client:
            pass
        with pytest.raises(Disconnected, match="io client disconnect"):
            await client.emit(POKE)
        with pytest.raises(Disconnected, match="io client disconnect"):
            await client.call(ASK, "?", timeout=1)
        await client.disconnect()  # again: nothing happens


# --- to the server


async def test_emits_arrive_in_order() -> None:
    house = House(message_rate="off")  # a volatile event may be refused
    async with serve(house.server) as url, Client(url) as client:
        for number in range(200):
            await client.emit(PAIR, number, "ü" * number)
        assert await house.said.count(200) == [(n, "ü" * n) for n in range(200)]
        await client.emit(TICK, 1)
        assert (await house.said.count(201))[-1] == 1


async def test_what_was_emitted_before_the_end_arrives() -> None:
    house = House()
    async with serve(house.server) as url:
        async with Client(url) as client:
            for _ in range(20):
                await client.emit(SAY, "x" * 90_000)
        await house.left.count(1)
        assert len(house.said.all) == 20


async def test_calls_and_their_replies() -> None:
    house = House()
    async with serve(house.server) as url, Client(url) as client:
        assert await client.call(ASK, "four", timeout=SECONDS) == 4
        replies = await asyncio.gather(*(client.call(ASK, "x" * n, timeout=SECONDS) for n in range(50)))
        assert replies == list(range(50))
        assert await client.call(BLOB, Draft("a", b"\0\1\2"), timeout=SECONDS) == Draft("A", b"\2\1\0")
        assert open_events(client) == 0


async def test_a_refused_event_is_raised() -> None:
    house = House()
    async with serve(house.server) as url, Client(url) as client:
        with pytest.raises(EventRefused, match="not this one") as refused:
            await client.call(ASK, "no", timeout=SECONDS)
        assert (refused.value.code, refused.value.path, refused.value.retry_after) == ("no", "$", 2.0)
        with pytest.raises(EventRefused) as unknown:
            await client.call(POKE, timeout=SECONDS)
        assert unknown.value.code == "unknown_event"


async def test_a_reply_of_another_type_is_refused() -> None:
    house = House()
    wrong = Event("ask", str, reply=str)
    async with serve(house.server) as url, Client(url) as client:
        with pytest.raises(EventRefused) as refused:
            await client.call(wrong, "four", timeout=SECONDS)
        assert refused.value.code == "invalid_reply"


async def test_a_call_ends_with_its_time() -> None:
    house = House()
    async with serve(house.server) as url, Client(url) as client:
        with pytest.raises(OutcomeUnknown, match=r"'ask' may have been handled or not: no reply came within 0\.05 s"):
            await client.call(ASK, "never", timeout=0.05)
        assert (open_events(client), client.state) == (0, "connected")
        with pytest.raises(ValueError, match="finite number"):
            await client.call(ASK, "x", timeout=-1)


async def test_a_call_that_is_cancelled_is_forgotten() -> None:
    house = House()
    async with serve(house.server) as url, Client(url) as client:
        call = asyncio.ensure_future(client.call(ASK, "never", timeout=SECONDS))
        await house.asked.count(1)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        assert open_events(client) == 0


async def test_wrong_use_is_a_type_error() -> None:
    client = Client("http://localhost")
    with pytest.raises(TypeError, match=r"SAY = Event\('say', ...\)"):
        client.on(cast("Any", "say"))
    with pytest.raises(TypeError, match=r"Event\('say', ...\)"):
        client.messages(cast("Any", "say"))
    with pytest.raises(TypeError, match=r"Event\('say', ...\)"):
        await client.emit(cast("Any", "say"))
    with pytest.raises(TypeError, match="takes 1 payload"):
        await cast("Any", client).emit(SAY)
    with pytest.raises(TypeError, match=r"call\('say'\).*Event\('say', ...\)"):
        await client.call(cast("Any", "say"), timeout=1)
    with pytest.raises(TypeError, match=r"on\('say'\) calls its handler with 1 argument, without a socket"):
        client.on(SAY)(cast("Any", lambda: None))
    with pytest.raises(TypeError, match="takes a function"):
        client.on(SAY)(cast("Any", 1))
    with pytest.raises(TypeError, match="on_state calls"):
        client.on_state(cast("Any", lambda: None))


def test_one_event_has_one_handler_and_one_declaration() -> None:
    client = Client("http://localhost")
    client.on(SAY)(print)
    with pytest.raises(ValueError, match="one handler"):
        client.on(SAY)(print)
    with pytest.raises(ValueError, match="declare it once"):
        client.on(Event("say", int))


@pytest.mark.parametrize("namespace", ["chat", "", "/a,b", "/a?b"])
def test_a_namespace_has_a_form(namespace: str) -> None:
    with pytest.raises(ValueError, match="is no namespace"):
        Client("http://localhost", namespace=namespace)


@pytest.mark.parametrize("auth", ["6f1c2b", ["6f1c2b"], b"6f1c2b"])
def test_auth_is_a_mapping(auth: object) -> None:
    with pytest.raises(TypeError, match=r"auth takes a mapping, not \w+: write auth=\{'token': "):
        Client("http://localhost", auth=cast("Any", auth))


def test_auth_can_be_sent() -> None:
    with pytest.raises(TypeError, match=r"auth cannot be sent as JSON: .*object"):
        Client("http://localhost", auth={"token": object()})


# --- from the server


async def test_handlers_plain_and_async_run_in_order() -> None:
    house, heard = House(), Heard()
    async with serve(house.server) as url:
        client = Client(url)
        slow = asyncio.Event()

        @client.on(SAY)
        async def say(text: str) -> None:
            if text == "wait":
                await slow.wait()
            heard(text)

        @client.on(PAIR)
        def pair(number: int, text: str) -> None:
            heard((number, text))

        @client.on(POKE)
        def poke() -> None:
            heard("poke")

        async with client:
            socket = house.sockets[0]
            await socket.emit(POKE)
            await socket.emit(SAY, "wait")
            await socket.emit(PAIR, 1, "a")
            await socket.emit(SAY, "b")
            await socket.emit(POKE)
            await heard.count(1)
            assert await client.call(ASK, "1234", timeout=SECONDS) == 4  # replies pass the queue
            assert heard.all == ["poke"]
            slow.set()
            assert await heard.count(5) == ["poke", "wait", (1, "a"), "b", "poke"]


async def test_the_server_calls() -> None:
    house = House()
    async with serve(house.server) as url:
        client = Client(url)

        @client.on(ASK)
        async def ask(question: str) -> int:
            if question == "no":
                raise EventRefused("busy", "later")
            if question == "bug":
                raise RuntimeError("secret")
            if question == "back":
                return await client.call(ASK, "12345", timeout=SECONDS)
            return len(question)

        @client.on(BLOB)
        def blob(draft: Draft) -> Draft:
            return Draft(draft.text, draft.data * 2)

        @client.on(SAY)
        def say(text: str) -> None: ...

        async with client:
            socket = house.sockets[0]
            assert await socket.call(ASK, "abc", timeout=SECONDS) == 3
            assert await socket.call(ASK, "back", timeout=SECONDS) == 5
            assert await socket.call(BLOB, Draft("x", b"\1"), timeout=SECONDS) == Draft("x", b"\1\1")
            await socket.call(SAY, "x", timeout=SECONDS)  # an acknowledgement without a reply
            for question, code in (("no", "busy"), ("bug", "internal")):
                with pytest.raises(EventRefused) as refused:
                    await socket.call(ASK, question, timeout=SECONDS)
                assert refused.value.code == code
                assert "secret" not in str(refused.value)
            assert client.counters.get("handler_errors_total") == 1
            assert client.counters.get("events_refused_total") == 1


async def test_what_nobody_takes_is_refused_and_counted() -> None:
    house = House()
    async with serve(house.server) as url:
        client = Client(url)
        client.on(SAY)(lambda text: None)
        messages = client.messages(ASK)
        async with client:
            socket = house.sockets[0]
            for event, payload, code in (
                (Event("unknown"), (), "unknown_event"),
                (Event("say", int), (1,), "invalid_payload"),
                (ASK, ("an iterator does not answer",), "unknown_event"),
            ):
                with pytest.raises(EventRefused) as refused:
                    await cast("Any", socket).call(event, *payload, timeout=SECONDS)
                assert refused.value.code == code
            assert client.counters.get("events_refused_total") == 3
            assert await anext(messages) == "an iterator does not answer"


async def test_a_reply_that_cannot_be_encoded_is_internal() -> None:
    house = House()
    async with serve(house.server) as url:
        client = Client(url)
        client.on(ASK)(cast("Any", lambda question: object()))
        async with client:
            with pytest.raises(EventRefused) as refused:
                await house.sockets[0].call(ASK, "x", timeout=SECONDS)
            assert refused.value.code == "internal"


async def test_a_handler_that_fails_does_not_hold_up_the_next() -> None:
    house, heard = House(), Heard()
    async with serve(house.server) as url:
        client = Client(url)

        @client.on(SAY)
        async def say(text: str) -> None:
            if text == "bug":
                raise RuntimeError
            if text == "cancelled":
                never = asyncio.get_running_loop().create_future()
                never.cancel()
                await never
            heard(text)

        async with client:
            for text in ("bug", "cancelled", "fine"):
                await house.sockets[0].emit(SAY, text)
            assert await heard.count(1) == ["fine"]
        assert client.counters.get("handler_errors_total") == 6  # three times each
        assert client.counters.get("dead_letters_total") == 2


async def test_messages_iterate() -> None:
    house = House()
    async with serve(house.server) as url, Client(url) as client:
        socket = house.sockets[0]
        says, pairs, pokes = client.messages(SAY), client.messages(PAIR), client.messages(POKE)
        for number in range(3):
            await socket.emit(SAY, str(number))
        await socket.emit(PAIR, 1, "a")
        await socket.emit(POKE)
        assert [await anext(says) for _ in range(3)] == ["0", "1", "2"]
        assert await anext(pairs) == (1, "a")
        assert await anext(pokes) is None  # type: ignore[func-returns-value]
        await socket.emit(SAY, "last")
        await socket.disconnect()
        async with asyncio.timeout(SECONDS):
            assert [text async for text in says] == ["last"]
            assert [text async for text in client.messages(SAY)] == []
        assert client.state == "disconnected"


# --- the end


async def test_a_handler_under_way_is_cancelled_at_the_end() -> None:
    house, heard = House(), Heard()
    async with serve(house.server) as url:
        client = Client(url)

        @client.on(SAY)
        async def say(text: str) -> None:
            heard(text)
            try:
                await asyncio.Event().wait()
            finally:
                heard("cancelled")

        @client.on_state
        async def told(state: State) -> None:
            heard(state)

        async with client:
            await house.sockets[0].emit(SAY, "first")
            await house.sockets[0].emit(SAY, "second")
            await house.sockets[0].emit(POKE)
            await heard.until(lambda told: "first" in told)
            await client.call(ASK, "", timeout=SECONDS)  # the second is here as well
        assert heard.all == ["connecting", "connected", "first", "cancelled", "disconnected"]
        assert client.counters.get("handlers_cancelled_total") == 1
        assert client.counters.get("dropped_total", kind="event", reason="client_closed", policy="at_most_once") == 2


async def test_a_handler_may_disconnect() -> None:
    house, heard = House(), Heard()
    async with serve(house.server) as url:
        client = Client(url)
        client.on_state(heard)

        @client.on(SAY)
        async def say(text: str) -> None:
            await client.emit(SAY, "bye")
            await client.disconnect()
            heard(text)

        async with client:
            await house.sockets[0].emit(SAY, "first")
            await heard.until(lambda told: "first" in told)
        assert heard.all == ["connecting", "connected", "first", "disconnected"]
        assert await house.left.count(1) == ["client namespace disconnect"]
        assert house.said.all == ["bye"]


async def test_the_end_of_the_block_waits_for_a_handler_that_disconnects() -> None:
    house, heard = House(), Heard()
    async with serve(house.server) as url:
        client = Client(url)

        @client.on(SAY)
        async def say(text: str) -> None:
            await client.disconnect()
            heard(text)

        async with client:
            await house.sockets[0].emit(SAY, "first")
            assert [text async for text in client.messages(POKE)] == []
        assert heard.all == ["first"]
        assert await house.left.count(1) == ["client namespace disconnect"]


async def test_a_server_that_disconnects_the_client_has_it_back_no_more() -> None:
    house, states = House(), Heard()
    async with serve(house.server) as url:
        client = Client(url)
        client.on_state(states)
        async with client:
            call = asyncio.ensure_future(client.call(ASK, "never", timeout=SECONDS))
            await house.asked.count(1)
            await house.sockets[0].disconnect()
            assert await states.count(3) == ["connecting", "connected", "disconnected"]
            with pytest.raises(Disconnected, match="io server disconnect"):
                await call
            with pytest.raises(Disconnected, match="io server disconnect"):
                await client.emit(SAY, "x")
        assert len(house.joined.all) == 1
