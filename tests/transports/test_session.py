"""A session over real sockets: WebSocket messages, the upgrade, closing (Engine.IO protocol v4)."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from bellwire.protocol.outgoing import Outgoing
from tests.transports.wire import Client, EchoServer, WebSocket, echo_server, on_both, until

# --- on a WebSocket


@on_both
async def test_one_packet_per_frame_text_and_binary(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid, ws = await client.open_websocket()
        await ws.send("4héllo")
        await ws.send_bytes(b"\x01\x02")
        assert await ws.text() == "4héllo"
        assert await ws.bytes() == b"\x01\x02"
        assert server.echoes[sid].messages == ["héllo", b"\x01\x02"]
        await ws.close()


@on_both
async def test_text_frame_that_begins_with_b_is_binary(native: bool) -> None:
    async with echo_server(native=native) as (_, client):
        _, ws = await client.open_websocket()
        await ws.send("bAQIDBA==")
        assert await ws.bytes() == b"\x01\x02\x03\x04"
        await ws.close()


@on_both
async def test_client_that_takes_no_binary_gets_base64(native: bool) -> None:
    async with echo_server(native=native) as (_, client):
        _, ws = await client.open_websocket(b64="1")
        await ws.send("bAQIDBA==")
        assert await ws.text() == "bAQIDBA=="
        await ws.close()


@on_both
async def test_pong_is_a_sign_of_life(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid, ws = await client.open_websocket()
        session = server.engine.sessions[sid]
        session.ping()
        assert not session.alive
        assert await ws.text() == "2"
        await ws.send("3")
        await until(lambda: session.alive)
        await ws.close()


@on_both
@pytest.mark.parametrize("packet", ["2", "2probe", "5", "0{}", "6", "abc", "", "b!"])
async def test_packet_that_a_client_must_not_send_ends_the_session(
    native: bool, packet: str, caplog: pytest.LogCaptureFixture
) -> None:
    """``2`` among them: the server pings ("invalid heartbeat direction")."""
    async with echo_server(native=native) as (server, client):
        sid, ws = await client.open_websocket()
        with caplog.at_level(logging.DEBUG, "bellwire"):
            await ws.send(packet)
            assert await ws.close_code() == 1000
        assert server.echoes[sid].reasons == ["parse error"]
        (said,) = [record.getMessage() for record in caplog.records]
        assert said.startswith("a client is disconnected, parse error: ")
        assert sid not in said


@on_both
async def test_close_packet_closes_at_once(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid, ws = await client.open_websocket()
        await ws.send("1")
        assert await ws.close_code() == 1000
        assert server.echoes[sid].reasons == ["transport close"]


@on_both
async def test_what_was_sent_before_the_end_still_comes(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid, ws = await client.open_websocket()
        server.echoes[sid].send("a" * 300_000)
        server.echoes[sid].send("bye")
        server.engine.sessions[sid].close("forced server close")
        server.echoes[sid].send("too late")
        assert len(await ws.text()) == 300_001
        assert await ws.text() == "4bye"
        assert await ws.close_code() == 1000


@on_both
async def test_websocket_that_goes_ends_the_session(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid, ws = await client.open_websocket()
        await ws.close()
        await until(server.echoes[sid].ended.is_set)
        assert server.echoes[sid].reasons == ["transport close"]
        assert not server.engine.sessions


@on_both
async def test_message_of_exactly_the_limit_passes(native: bool) -> None:
    async with echo_server(native=native, max_message_bytes=5000) as (_, client):
        _, ws = await client.open_websocket()
        await ws.send("4" + "a" * 4999)
        assert len(await ws.text()) == 5000
        await ws.close()


@on_both
@pytest.mark.parametrize("message", ["4" + "a" * 5000, "4" + "é" * 2500, b"a" * 5001], ids=["text", "utf-8", "bytes"])
async def test_1009_for_one_byte_too_much(native: bool, message: str | bytes) -> None:
    async with echo_server(native=native, max_message_bytes=5000) as (server, client):
        sid, ws = await client.open_websocket()
        await (ws.send(message) if isinstance(message, str) else ws.send_bytes(message))
        assert await ws.close_code() == 1009
        await until(server.echoes[sid].ended.is_set)
        assert server.echoes[sid].messages == []


@on_both
async def test_paused_client_is_read_again_in_order(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid, ws = await client.open_websocket()
        session = server.engine.sessions[sid]
        session.pause(True)
        for number in range(50):
            await ws.send(f"4{number}")
        session.pause(False)
        assert [await ws.text() for _ in range(50)] == [f"4{number}" for number in range(50)]
        await ws.close()


# --- the upgrade


async def waits(server: EchoServer, sid: str) -> None:
    """Until a GET of this session is pending."""
    carrier = server.engine.sessions[sid].carrier
    await until(lambda: carrier._waiter)  # type: ignore[attr-defined]


async def upgraded(client: Client) -> tuple[str, WebSocket]:
    sid = await client.open()
    ws = await client.websocket(sid)
    await ws.probe()
    await client.get(sid)
    await ws.send("5")
    return sid, ws


@on_both
async def test_upgrade_moves_the_session(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid, ws = await upgraded(client)
        await ws.send("4hello")
        assert await ws.text() in ("4hello", "6")
        echo = server.echoes[sid]
        assert [carrier.name for carrier in echo.carriers] == ["websocket"]
        assert not echo.reasons
        await ws.close()


@on_both
async def test_probe_frees_the_pending_get_with_a_noop(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        pending = asyncio.create_task(client.get(sid))
        await waits(server, sid)
        ws = await client.websocket(sid)
        await ws.probe()
        assert (await pending).text == "6"
        await ws.close()


@on_both
async def test_get_during_the_probe_does_not_wait(native: bool) -> None:
    async with echo_server(native=native) as (_, client):
        sid = await client.open()
        ws = await client.websocket(sid)
        await ws.probe()
        assert (await client.get(sid)).text == "6"
        assert (await client.get(sid)).text == "6"
        await ws.close()


@on_both
async def test_polling_goes_on_until_the_client_says_5(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        ws = await client.websocket(sid)
        await client.post(sid, "4before the probe")
        assert (await client.get(sid)).text == "4before the probe"
        await ws.probe()
        await client.post(sid, "4after it")
        assert (await client.get(sid)).text == "6\x1e4after it"
        server.echoes[sid].send("queued")
        await ws.send("5")
        assert await ws.text() == "4queued"
        await ws.close()


@on_both
async def test_get_that_is_pending_at_5_is_freed(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        ws = await client.websocket(sid)
        pending = asyncio.create_task(client.get(sid))
        await waits(server, sid)
        await ws.probe()
        await pending
        await ws.send("5")
        await until(lambda: server.echoes[sid].carriers)
        await ws.close()


@on_both
async def test_polling_after_the_upgrade_is_a_bad_request(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid, ws = await upgraded(client)
        await until(lambda: server.echoes[sid].carriers)
        for answer in (await client.get(sid), await client.post(sid, "4a")):
            assert (answer.status, answer.text) == (400, '{"code":3,"message":"Bad request"}')
        await ws.send("4still here")
        assert await ws.text() == "4still here"
        await ws.close()


@on_both
async def test_post_that_is_under_way_at_5_is_refused_not_swallowed(native: bool) -> None:
    """A stock client waits for it; from one that does not, nothing is taken with a 200 and then lost."""
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        rest = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"4slow"
            await rest.wait()

        post = asyncio.create_task(client.post(sid, slowly()))
        carrier = server.engine.sessions[sid].carrier
        await until(lambda: carrier._posting)  # type: ignore[attr-defined]
        ws = await client.websocket(sid)
        await ws.probe()
        await ws.send("5")
        await until(lambda: server.echoes[sid].carriers)
        rest.set()
        assert (await post).status == 400
        assert server.echoes[sid].messages == []
        await ws.send("4a")
        while await ws.text() != "4a":
            pass
        await ws.close()


@on_both
async def test_second_websocket_during_the_upgrade_is_accepted_and_closed(native: bool) -> None:
    async with echo_server(native=native) as (_, client):
        sid = await client.open()
        first = await client.websocket(sid)
        second = await client.websocket(sid)
        assert await second.close_code() == 1000
        await first.probe()
        await first.close()


@on_both
async def test_second_websocket_after_the_upgrade_is_accepted_and_closed(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid, ws = await upgraded(client)
        await until(lambda: server.echoes[sid].carriers)
        second = await client.websocket(sid)
        assert await second.close_code() == 1000
        await ws.send("4a")
        while await ws.text() != "4a":
            pass
        await ws.close()


@on_both
@pytest.mark.parametrize("packet", ["4hello", "5", "2", "3probe", "x"])
async def test_other_first_packet_closes_that_websocket_only(native: bool, packet: str) -> None:
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        ws = await client.websocket(sid)
        await ws.send(packet)
        assert await ws.close_code() == 1000
        assert (await client.post(sid, "4on polling")).text == "ok"
        assert (await client.get(sid)).text == "4on polling"
        assert not server.echoes[sid].reasons
        again = await client.websocket(sid)
        await again.probe()
        await again.close()


@on_both
async def test_upgrade_timeout_closes_the_websocket_only(native: bool) -> None:
    async with echo_server(native=native, upgrade_timeout=0.1) as (_, client):
        sid = await client.open()
        ws = await client.websocket(sid)
        await ws.probe()
        assert await ws.close_code() == 1000
        await client.post(sid, "4a")
        assert (await client.get(sid)).text == "6\x1e4a"


@on_both
async def test_websocket_that_breaks_off_while_probed_costs_nothing(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        ws = await client.websocket(sid)
        await ws.probe()
        await ws.close()
        session = server.engine.sessions[sid]
        await until(lambda: not session.upgrading)
        await client.get(sid)
        pending = asyncio.create_task(client.get(sid))
        await waits(server, sid)
        await client.post(sid, "4a")
        assert (await pending).text == "4a"


@on_both
async def test_session_that_ends_takes_the_probed_websocket_along(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        ws = await client.websocket(sid)
        await ws.probe()
        await client.post(sid, "1")
        assert await ws.close_code() == 1000
        assert server.echoes[sid].reasons == ["transport close"]


@on_both
async def test_oversize_message_on_a_probed_websocket_costs_only_that(native: bool) -> None:
    async with echo_server(native=native, max_message_bytes=5000) as (server, client):
        sid = await client.open()
        ws = await client.websocket(sid)
        await ws.send("2" + "a" * 6000)
        assert await ws.close_code() == 1009
        await client.post(sid, "4a")
        assert (await client.get(sid)).text == "4a"
        assert not server.echoes[sid].reasons


@on_both
async def test_nothing_is_lost_or_doubled_while_upgrading(native: bool) -> None:
    """The server sends all the time; what came over polling and what came after 5 make up the whole, in order."""
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        session = server.engine.sessions[sid]
        sent = 0

        async def send_on() -> None:
            nonlocal sent
            while len(server.echoes[sid].carriers) == 0 or sent < 300:
                session.send(Outgoing(f"4{sent}"))
                sent += 1
                await asyncio.sleep(0)

        sending = asyncio.create_task(send_on())
        got = (await client.get(sid)).text.split("\x1e")
        ws = await client.websocket(sid)
        await ws.send("2probe")
        probed = asyncio.create_task(ws.text())
        while not probed.done():
            got += (await client.get(sid)).text.split("\x1e")
        assert probed.result() == "3probe"
        await ws.send("5")
        await sending
        while len([packet for packet in got if packet != "6"]) < sent:
            got.append(await ws.text())
        assert [packet for packet in got if packet != "6"] == [f"4{number}" for number in range(sent)]
        await ws.close()
