"""Long-polling where requests reach the wrong node: two nodes of one process, each on a real port of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import pytest

from bellwire.brokers.memory import MemoryBroker
from bellwire.server.channels import PART_BYTES
from bellwire.server.cluster import Cluster
from bellwire.server.dispatch import Dispatcher
from bellwire.server.forwarding import MAX_FORWARDED, Forwarding
from bellwire.transports.engine import Engine
from tests.server.test_channels import Lossy
from tests.serving import serve
from tests.transports.wire import PATIENCE, Client, Echo, EchoServer, WebSocket, connect, on_both, until

UNKNOWN = (400, '{"code":1,"message":"Session ID unknown"}')


class Node(EchoServer):
    """An echo that is one of several nodes."""

    def __init__(self, broker: MemoryBroker, *, most: int = MAX_FORWARDED, **settings: Any) -> None:
        super().__init__(**settings)
        self.dispatcher = Dispatcher(asyncio.get_running_loop())
        self.cluster = Cluster(broker, super().engine.wheel, self.dispatcher, self.counters)
        super().engine.node = self.cluster.node
        self.forwarding = Forwarding(super().engine, self.cluster, self.dispatcher, most=most)

    @property
    def engine(self) -> Engine:
        engine = super().engine
        engine.forwarder = self.forwarding
        return engine

    async def close(self) -> None:
        await self.dispatcher.close()
        await self.cluster.close(1)


class Pair(NamedTuple):
    """``there`` has the session, ``here`` is where its requests arrive."""

    broker: Lossy
    here: Node
    there: Node
    client: Client
    """Speaks to ``here``."""
    owner: Client
    """Speaks to ``there``."""

    async def open(self) -> tuple[str, Echo]:
        sid = await self.owner.open()
        return sid, self.there.echoes[sid]


@asynccontextmanager
async def pair(*, native: bool, **settings: Any) -> AsyncIterator[Pair]:
    broker = Lossy()
    await broker.start()
    here, there = Node(broker, **settings), Node(broker, **settings)
    async with (
        serve(there, native=native) as far,
        serve(here, native=native) as near,
        connect(far) as owner,
        connect(near) as client,
    ):
        for node in (here, there):
            await node.cluster.start()
        yield Pair(broker, here, there, client, owner)
        await here.engine.close()
        await there.engine.close()
        await here.close()
        await there.close()
    await broker.close()


@on_both
async def test_requests_are_answered_as_by_the_sessions_own_node(native: bool) -> None:
    async with pair(native=native) as nodes:
        sid, echo = await nodes.open()
        assert (await nodes.client.post(sid, "4héllo\x1e4two\x1ebAQIDBA==")).text == "ok"
        answer = await nodes.client.get(sid)
        assert (answer.status, answer.text) == (200, "4héllo\x1e4two\x1ebAQIDBA==")
        assert answer.headers["content-type"] == "text/plain; charset=UTF-8"
        assert answer.headers["cache-control"] == "no-store"
        assert echo.messages == ["héllo", "two", b"\x01\x02\x03\x04"]
        assert (await nodes.owner.post(sid, "4three")).text == "ok"
        assert (await nodes.client.get(sid)).text == "4three"


@on_both
async def test_a_get_waits_at_the_other_node(native: bool) -> None:
    async with pair(native=native) as nodes:
        sid, _ = await nodes.open()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(nodes.client.get(sid))
            group.create_task(nodes.client.post(sid, "4later"))
        assert waiting.result().text == "4later"


@on_both
async def test_a_post_waits_while_its_session_does_not_read(native: bool) -> None:
    async with pair(native=native) as nodes:
        sid, echo = await nodes.open()
        echo.session.pause(True)
        post = asyncio.create_task(nodes.client.post(sid, "4a\x1e4b"))
        await until(lambda: echo.messages)
        assert (echo.messages, post.done()) == (["a"], False)
        echo.session.pause(False)
        assert (await post).text == "ok"
        assert echo.messages == ["a", "b"]


@on_both
async def test_bodies_and_answers_may_be_as_large_as_anywhere(native: bool) -> None:
    async with pair(native=native) as nodes:
        sid, echo = await nodes.open()
        text = "é" * 499_990
        assert (await nodes.client.post(sid, f"4{text}")).status == 200
        assert (await nodes.client.get(sid)).text == f"4{text}"
        assert (await nodes.client.post(sid, "4" + "a" * 1_000_000)).status == 413
        assert [len(message) for message in echo.messages] == [499_990]


@on_both
async def test_an_answer_may_be_larger_than_what_a_client_may_send(native: bool) -> None:
    async with pair(native=native) as nodes:
        sid, echo = await nodes.open()
        waiting = asyncio.create_task(nodes.client.get(sid))
        await until(lambda: echo.session.carrier._waiter is not None)  # type: ignore[attr-defined]
        echo.send("a" * 5_000_000)
        assert len((await waiting).text) == 5_000_001


@on_both
async def test_a_body_too_large_that_does_not_say_so_is_not_read_on(native: bool) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"a" * PART_BYTES

    async with pair(native=native) as nodes:
        sid, echo = await nodes.open()
        with contextlib.suppress(aiohttp.ClientError):  # the answer may come while it still sends
            assert (await nodes.client.post(sid, body())).status == 413
        assert echo.messages == []
        assert (await nodes.client.post(sid, "4a")).text == "ok"


@on_both
async def test_a_session_that_no_node_knows_is_unknown_at_once(native: bool) -> None:
    async with pair(native=native) as nodes:
        for node in (nodes.there.engine.node, nodes.here.engine.node, "0123abcd"):
            answer = await nodes.client.get(node + "a" * 16)
            assert (answer.status, answer.text) == UNKNOWN
            answer = await nodes.client.post(node + "a" * 16, "4a")
            assert (answer.status, answer.text) == UNKNOWN


@on_both
async def test_what_is_wrong_with_a_request_is_said_as_by_the_sessions_own_node(native: bool) -> None:
    async with pair(native=native) as nodes:
        sid, _ = await nodes.open()
        answers = [
            await client.request(method, EIO=version, transport=transport, sid=sid)
            for client in (nodes.client, nodes.owner)
            for method, version, transport in [
                ("GET", "3", "polling"),
                ("GET", "4", "websocket"),
                ("PUT", "4", "polling"),
                ("GET", "4", "smoke"),
            ]
        ]
        assert [answer[:2] for answer in answers[:4]] == [answer[:2] for answer in answers[4:]]
        assert {answer.status for answer in answers} == {400}


@on_both
async def test_two_gets_at_a_time_end_the_session(native: bool) -> None:
    async with pair(native=native) as nodes:
        sid, echo = await nodes.open()
        waiting = asyncio.create_task(nodes.owner.get(sid))
        await until(lambda: echo.session.carrier._waiter is not None)  # type: ignore[attr-defined]
        assert (await nodes.client.get(sid)).status == 400
        assert (await waiting).text == "1"
        assert echo.reasons == ["transport error"]


@on_both
async def test_the_end_of_a_session_reaches_its_get(native: bool) -> None:
    async with pair(native=native) as nodes:
        sid, echo = await nodes.open()
        waiting = asyncio.create_task(nodes.client.get(sid))
        await until(lambda: echo.session.carrier._waiter is not None)  # type: ignore[attr-defined]
        echo.session.close("forced server close")
        assert (await waiting).text == "1"


@on_both
async def test_last_words_wait_for_the_next_get(native: bool) -> None:
    async with pair(native=native) as nodes:
        sid, echo = await nodes.open()
        echo.send("last words")
        echo.session.close("forced server close")
        assert (await nodes.client.get(sid)).text == "4last words"
        assert (await nodes.client.get(sid)).text == "1"
        answer = await nodes.client.get(sid)
        assert (answer.status, answer.text) == UNKNOWN


@on_both
async def test_a_get_that_is_given_up_ends_the_session_where_it_is(native: bool) -> None:
    async with pair(native=native) as nodes:
        sid, echo = await nodes.open()
        waiting = asyncio.create_task(nodes.client.get(sid))
        await until(lambda: echo.session.carrier._waiter is not None)  # type: ignore[attr-defined]
        waiting.cancel()
        await asyncio.wait_for(echo.ended.wait(), PATIENCE)
        assert echo.reasons == ["transport close"]


@on_both
async def test_a_post_that_is_given_up_ends_the_session_and_nothing_of_it_is_taken(native: bool) -> None:
    begun = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"4a"
        begun.set()
        await asyncio.get_running_loop().create_future()

    async with pair(native=native) as nodes:
        sid, echo = await nodes.open()
        posting = asyncio.create_task(nodes.client.post(sid, body()))
        await begun.wait()
        await until(lambda: nodes.there.forwarding._channels._accepted)
        posting.cancel()
        await asyncio.wait_for(echo.ended.wait(), PATIENCE)
        assert echo.reasons == ["transport error"]
        assert echo.messages == []


@on_both
async def test_what_waits_is_answered_when_the_other_node_leaves(native: bool) -> None:
    async with pair(native=native) as nodes:
        sid, echo = await nodes.open()
        waiting = asyncio.create_task(nodes.client.get(sid))
        await until(lambda: echo.session.carrier._waiter is not None)  # type: ignore[attr-defined]
        await nodes.there.cluster.close(1)
        answer = await waiting
        assert (answer.status, answer.text) == UNKNOWN
        answer = await nodes.client.post(sid, "4a")
        assert (answer.status, answer.text) == UNKNOWN


@on_both
async def test_a_node_that_stops_lets_go_what_waits_and_the_session_goes_on(native: bool) -> None:
    async with pair(native=native) as nodes:
        sid, echo = await nodes.open()
        waiting = asyncio.create_task(nodes.client.get(sid))
        await until(lambda: echo.session.carrier._waiter is not None)  # type: ignore[attr-defined]
        await nodes.here.engine.close()
        answer = await waiting
        assert (answer.status, answer.text) == (200, "6")
        await nodes.owner.post(sid, "4still here")
        assert (await nodes.owner.get(sid)).text == "4still here"


@on_both
async def test_a_node_that_stops_does_not_wait_for_an_owner_that_is_silent(native: bool) -> None:
    async with pair(native=native, shutdown_grace=0.2) as nodes:
        sid, _ = await nodes.open()
        nodes.broker.to_lose = 100
        posting = asyncio.create_task(nodes.client.post(sid, "4a"))
        await until(lambda: nodes.broker.to_lose < 98)
        await nodes.here.engine.close()
        assert (await posting).status == 503


@on_both
async def test_a_post_that_is_given_up_while_the_owner_is_silent_is_forgotten(native: bool) -> None:
    async with pair(native=native) as nodes:
        sid, _ = await nodes.open()
        nodes.broker.to_lose = 100
        posting = asyncio.create_task(nodes.client.post(sid, "4a"))
        await until(lambda: nodes.broker.to_lose < 98)
        posting.cancel()
        await until(lambda: not nodes.here.forwarding._calls)


@on_both
async def test_an_answer_that_is_lost_ends_the_session(native: bool) -> None:
    settings = {"client_ping_interval": 0.6, "client_ping_timeout": 0.6, "ping_interval": 1, "pong_timeout": 0.2}
    async with pair(native=native, **settings) as nodes:
        sid, echo = await nodes.open()
        waiting = asyncio.create_task(nodes.client.get(sid))
        await until(lambda: echo.session.carrier._waiter is not None)  # type: ignore[attr-defined]
        nodes.broker.to_lose = 1
        echo.send("nobody will see it")
        assert (await waiting).status == 503
        await asyncio.wait_for(echo.ended.wait(), PATIENCE)
        assert echo.reasons == ["transport error"]
        answer = await nodes.client.get(sid)
        assert (answer.status, answer.text) == UNKNOWN


@on_both
async def test_a_broker_that_is_away_fails_requests_and_sessions_whose_answers_it_does_not_take(native: bool) -> None:
    async with pair(native=native) as nodes:
        sid, echo = await nodes.open()
        waiting = asyncio.create_task(nodes.client.get(sid))
        await until(lambda: echo.session.carrier._waiter is not None)  # type: ignore[attr-defined]
        nodes.broker.faults.go_away()
        assert (await nodes.client.post(sid, "4a")).status == 503
        echo.send("nobody will see it")
        await asyncio.wait_for(echo.ended.wait(), PATIENCE)
        assert echo.reasons == ["transport error"]
        assert echo.messages == []
        nodes.broker.faults.come_back()
        waiting.cancel()


@on_both
async def test_there_is_an_end_to_how_many_are_forwarded(native: bool) -> None:
    async with pair(native=native, most=1) as nodes:
        (sid, echo), (other, ending) = await nodes.open(), await nodes.open()
        waiting = asyncio.create_task(nodes.client.get(sid))
        await until(lambda: echo.session.carrier._waiter is not None)  # type: ignore[attr-defined]
        assert (await nodes.client.get(other)).status == 503
        await asyncio.wait_for(ending.ended.wait(), PATIENCE)
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await nodes.client.websocket(sid)
        counted = nodes.here.counters.get(
            "dropped_total", kind="forwarded_request", reason="too_many", policy="refused"
        )
        assert counted == 2
        echo.send("done")
        assert (await waiting).text == "4done"
        assert (await nodes.client.post(sid, "4a")).text == "ok"


# --- WebSockets


async def upgraded(nodes: Pair) -> tuple[str, Echo, WebSocket]:
    sid, echo = await nodes.open()
    ws = await nodes.client.websocket(sid)
    await ws.probe()
    assert (await nodes.client.get(sid)).text == "6"
    echo.send("waited")
    await ws.send("5")
    assert await ws.text() == "4waited"
    return sid, echo, ws


@on_both
async def test_an_upgrade_that_reaches_another_node_goes_through(native: bool) -> None:
    async with pair(native=native) as nodes:
        _, echo, ws = await upgraded(nodes)
        for n in range(100):
            await ws.send(f"4{n}")
        await ws.send_bytes(b"\x00\xff")
        assert [await ws.text() for _ in range(100)] == [f"4{n}" for n in range(100)]
        assert await ws.bytes() == b"\x00\xff"
        assert echo.messages == [*map(str, range(100)), b"\x00\xff"]
        large = "é" * 490_000
        await ws.send(f"4{large}")
        assert await ws.text() == f"4{large}"


@on_both
async def test_the_clients_end_is_the_sessions_after_all_that_it_said(native: bool) -> None:
    async with pair(native=native) as nodes:
        _, echo, ws = await upgraded(nodes)
        for n in range(100):
            await ws.send(f"4{n}")
        await ws.close()
        await asyncio.wait_for(echo.ended.wait(), PATIENCE)
        assert echo.messages == [*map(str, range(100))]
        assert echo.reasons == ["transport close"]
        await until(lambda: not nodes.here.forwarding._tunnels)


@on_both
async def test_the_sessions_end_is_the_clients_after_all_that_was_sent(native: bool) -> None:
    async with pair(native=native) as nodes:
        _, echo, ws = await upgraded(nodes)
        echo.send("last words")
        echo.session.close("forced server close", code=4000)
        assert await ws.text() == "4last words"
        assert await ws.close_code() == 4000
        await until(lambda: not nodes.here.forwarding._tunnels)


@on_both
async def test_a_node_that_stops_closes_the_websockets_that_it_has_for_others(native: bool) -> None:
    async with pair(native=native) as nodes:
        _, echo, ws = await upgraded(nodes)
        await nodes.here.engine.close(1012)
        assert await ws.close_code() == 1012
        await asyncio.wait_for(echo.ended.wait(), PATIENCE)
        assert echo.reasons == ["transport close"]


@on_both
async def test_a_websocket_whose_sessions_node_leaves_is_closed(native: bool) -> None:
    async with pair(native=native) as nodes:
        _, _, ws = await upgraded(nodes)
        await nodes.there.cluster.close(1)
        assert await ws.close_code() == 1012


@on_both
async def test_a_message_that_is_lost_on_the_way_ends_both(native: bool) -> None:
    async with pair(native=native) as nodes:
        _, echo, ws = await upgraded(nodes)
        nodes.broker.to_lose = 1
        echo.send("lost")
        await until(lambda: not nodes.broker.to_lose)
        echo.send("next")
        assert await ws.close_code() == 1012
        await asyncio.wait_for(echo.ended.wait(), PATIENCE)


@on_both
async def test_an_upgrade_of_a_session_that_is_not_there_is_closed_and_of_no_node_refused(native: bool) -> None:
    async with pair(native=native) as nodes:
        ws = await nodes.client.websocket(nodes.there.engine.node + "a" * 16)
        assert await ws.close_code() == 1012
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await nodes.client.websocket("0123abcd" + "a" * 16)
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await nodes.client.websocket(nodes.there.engine.node + "a" * 16, EIO="3")


@on_both
async def test_a_client_that_does_not_read_is_congested_where_its_session_is_and_cut_off(native: bool) -> None:
    async with pair(native=native) as nodes:
        _, echo, ws = await upgraded(nodes)
        block = "a" * 100_000
        async with asyncio.timeout(PATIENCE):
            while not echo.ended.is_set():
                echo.send(block)
                await asyncio.sleep(0)
        assert "congested" in echo.notices
        assert echo.reasons == ["slow consumer"]
        await ws.close()


@on_both
async def test_a_client_that_reads_again_is_drained(native: bool) -> None:
    async with pair(native=native, send_buffer_bytes=100_000_000) as nodes:
        _, echo, ws = await upgraded(nodes)
        block, sent = "a" * 100_000, 0
        async with asyncio.timeout(PATIENCE):
            while not echo.session.carrier.congested or echo.session.carrier.buffered < 3_000_000:
                echo.send(block)
                sent += 1
                await asyncio.sleep(0)
        assert echo.notices[-1] == "congested"
        assert not echo.session.carrier.writable
        for _ in range(sent):
            assert len(await ws.text()) == 100_001
        await until(lambda: echo.notices[-1] == "drained")


@on_both
async def test_a_client_that_is_not_to_be_read_from_waits_and_goes_on(native: bool) -> None:
    async with pair(native=native) as nodes:
        _, echo, ws = await upgraded(nodes)
        echo.session.pause(True)
        await until(lambda: not next(iter(nodes.here.forwarding._tunnels))._reading)
        await ws.send("4later")
        echo.session.pause(False)
        assert await ws.text() == "4later"
