"""Long-polling over real sockets; every rule of Engine.IO protocol v4, "HTTP long-polling", has a test."""

import asyncio
import gzip
import logging
import zlib
from collections.abc import AsyncIterator

import msgspec
import pytest

from bellwire.transports.base import Request
from bellwire.transports.polling import COMPRESS_FROM, Response, compress
from tests.transports.wire import echo_server, on_both, until

# --- the handshake


@on_both
async def test_handshake_body_has_exactly_five_keys(native: bool) -> None:
    async with echo_server(native=native, max_message_bytes=4321) as (_, client):
        answer = await client.request(EIO="4", transport="polling")
        opened = msgspec.json.decode(answer.text[1:])
        assert answer.text[0] == "0"
        assert list(opened) == ["sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"]
        assert opened["upgrades"] == ["websocket"]
        assert (opened["pingInterval"], opened["pingTimeout"], opened["maxPayload"]) == (25000, 30000, 4321)
        assert len(opened["sid"]) == 24


@on_both
async def test_handshake_headers(native: bool) -> None:
    async with echo_server(native=native) as (_, client):
        answer = await client.request(EIO="4", transport="polling", t="a1b2c3")
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/plain; charset=UTF-8"
        assert answer.headers["content-length"] == str(len(answer.text))
        assert answer.headers["cache-control"] == "no-store"
        assert "set-cookie" not in answer.headers


@on_both
async def test_handshake_offers_no_upgrade_where_websockets_are_off(native: bool) -> None:
    async with echo_server(native=native, transports=("polling",)) as (_, client):
        answer = await client.request(EIO="4", transport="polling")
        assert msgspec.json.decode(answer.text[1:])["upgrades"] == []


@on_both
async def test_cookie_comes_with_the_handshake_and_only_there(native: bool) -> None:
    async with echo_server(native=native, cookie="io") as (_, client):
        answer = await client.request(EIO="4", transport="polling")
        sid = msgspec.json.decode(answer.text[1:])["sid"]
        assert answer.headers["set-cookie"] == f"io={sid}; Path=/; HttpOnly; SameSite=Lax"
        assert "set-cookie" not in (await client.post(sid, "4a")).headers
        assert "set-cookie" not in (await client.get(sid)).headers


@on_both
async def test_over_tls_the_cookie_is_for_tls_only(native: bool) -> None:
    async with echo_server(native=native, cookie="io", behind_proxy=("127.0.0.1",)) as (_, client):
        answer = await client.request(headers={"x-forwarded-proto": "https"}, EIO="4", transport="polling")
        assert answer.headers["set-cookie"].endswith("; HttpOnly; SameSite=Lax; Secure")


# --- GET


@on_both
async def test_get_brings_what_was_sent_in_one_payload(native: bool) -> None:
    async with echo_server(native=native) as (_, client):
        sid = await client.open()
        await client.post(sid, "4héllo\x1e4two\x1ebAQIDBA==")
        answer = await client.get(sid)
        assert answer.text == "4héllo\x1e4two\x1ebAQIDBA=="
        assert answer.headers["content-type"] == "text/plain; charset=UTF-8"


@on_both
async def test_get_waits_for_packets(native: bool) -> None:
    async with echo_server(native=native) as (_, client):
        sid = await client.open()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(client.get(sid))
            group.create_task(client.post(sid, "4later"))
        assert waiting.result().text == "4later"


@on_both
async def test_second_get_ends_the_session(native: bool) -> None:
    """The first is answered with a close packet, the second refused."""
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        first = asyncio.create_task(client.get(sid))
        carrier = server.engine.sessions[sid].carrier
        await until(lambda: carrier._waiter)  # type: ignore[attr-defined]
        second = await client.get(sid)
        assert (second.status, second.text) == (400, "")
        assert ((await first).status, (await first).text) == (200, "1")
        assert server.echoes[sid].reasons == ["transport error"]
        assert (await client.get(sid)).text == '{"code":1,"message":"Session ID unknown"}'


@on_both
async def test_aborted_get_ends_the_session(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        pending = asyncio.create_task(client.get(sid))
        carrier = server.engine.sessions[sid].carrier
        await until(lambda: carrier._waiter)  # type: ignore[attr-defined]
        pending.cancel()
        async with asyncio.timeout(5):
            await server.echoes[sid].ended.wait()
        answer = await client.get(sid)
        assert (answer.status, answer.text) == (400, '{"code":1,"message":"Session ID unknown"}')
        assert not server.engine.sessions
        assert not server.engine.lingering


# --- POST


@on_both
async def test_post_is_answered_ok(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        answer = await client.post(sid, "4hello")
        assert (answer.status, answer.text) == (200, "ok")
        assert answer.headers["content-type"] == "text/html"
        assert answer.headers["content-length"] == "2"
        assert server.echoes[sid].messages == ["hello"]


@on_both
async def test_post_of_packets_in_order_text_and_binary(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        await client.post(sid, "4a\x1ebAQI=\x1e4b\x1e3\x1e4c")
        assert server.echoes[sid].messages == ["a", b"\x01\x02", "b", "c"]


@on_both
async def test_post_of_1024_packets(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        assert (await client.post(sid, "\x1e".join(f"4{n}" for n in range(1024)))).status == 200
        assert server.echoes[sid].messages == [str(n) for n in range(1024)]


@on_both
async def test_post_of_more_packets_than_allowed_is_refused_aloud(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with echo_server(native=native, max_packets_per_post=1024) as (server, client):
        sid = await client.open()
        with caplog.at_level(logging.DEBUG, "bellwire"):
            assert (await client.post(sid, "\x1e".join(["4a"] * 1025))).status == 400
        assert [record.getMessage() for record in caplog.records] == [
            "a client is disconnected, parse error: 1025 packets in one payload, 1024 are allowed"
        ]
        assert server.echoes[sid].reasons == ["parse error"]
        assert server.echoes[sid].messages == []


@on_both
async def test_second_post_ends_the_session(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        first_part, rest = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"4slow"
            first_part.set()
            await rest.wait()
            yield b"er"

        first = asyncio.create_task(client.post(sid, slowly()))
        carrier = server.engine.sessions[sid].carrier
        await until(lambda: carrier._posting)  # type: ignore[attr-defined]
        second = await client.post(sid, "4quick")
        assert (second.status, second.text) == (400, "")
        assert (await first).status == 400  # the rest of its body is not waited for
        rest.set()
        assert server.echoes[sid].reasons == ["transport error"]
        assert server.echoes[sid].messages == []


@on_both
async def test_octet_stream_ends_the_session(native: bool) -> None:
    """In protocol v3 it was how binary packets came; in v4 nobody sends it."""
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        answer = await client.post(sid, b"4a", content_type="application/octet-stream")
        assert (answer.status, answer.text) == (400, "")
        assert server.echoes[sid].reasons == ["transport error"]


@on_both
async def test_post_of_exactly_the_limit_passes(native: bool) -> None:
    async with echo_server(native=native, max_message_bytes=5000) as (server, client):
        sid = await client.open()
        assert (await client.post(sid, "4" + "a" * 4999)).status == 200
        assert server.echoes[sid].messages == ["a" * 4999]


@on_both
async def test_413_of_one_byte_too_much(native: bool) -> None:
    async with echo_server(native=native, max_message_bytes=5000) as (server, client):
        sid = await client.open()
        answer = await client.post(sid, "4" + "a" * 5000)
        assert (answer.status, answer.text) == (413, "")
        assert server.echoes[sid].messages == []


@on_both
async def test_413_of_a_chunked_body_without_content_length(native: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"4"
        for _ in range(6):
            yield b"a" * 1000

    async with echo_server(native=native, max_message_bytes=5000) as (server, client):
        sid = await client.open()
        answer = await client.post(sid, chunks())
        assert (answer.status, answer.text) == (413, "")
        assert server.echoes[sid].messages == []


@on_both
async def test_limit_is_in_bytes_not_in_characters(native: bool) -> None:
    async with echo_server(native=native, max_message_bytes=5000) as (_, client):
        sid = await client.open()
        assert (await client.post(sid, "4" + "é" * 2500)).status == 413


@on_both
async def test_bad_packet_in_a_post_ends_the_session(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        for body in ("abc", "", "4a\x1e", b"4\xff", "b!!!", "9"):
            sid = await client.open()
            assert (await client.post(sid, body)).status == 400, body
            assert server.echoes[sid].reasons == ["parse error"], body
            assert server.echoes[sid].messages == [], body


@on_both
async def test_ping_of_a_client_is_the_wrong_direction(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        await client.post(sid, "2")
        assert server.echoes[sid].reasons == ["parse error"]


@on_both
async def test_unsolicited_pong_is_accepted(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        server.engine.sessions[sid].alive = False
        assert (await client.post(sid, "3")).text == "ok"
        assert server.engine.sessions[sid].alive


# --- the end


@on_both
async def test_client_that_posts_a_close_packet_gets_a_noop_on_its_get(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        pending = asyncio.create_task(client.get(sid))
        carrier = server.engine.sessions[sid].carrier
        await until(lambda: carrier._waiter)  # type: ignore[attr-defined]
        assert (await client.post(sid, "1")).text == "ok"
        assert ((await pending).status, (await pending).text) == (200, "6")
        assert server.echoes[sid].reasons == ["transport close"]
        assert (await client.get(sid)).status == 400


@on_both
async def test_server_that_closes_answers_the_pending_get(native: bool) -> None:
    """With what was sent before; the close packet has a payload of its own, for stock clients handle it first."""
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        pending = asyncio.create_task(client.get(sid))
        session = server.engine.sessions[sid]
        await until(lambda: session.carrier._waiter)  # type: ignore[attr-defined]
        server.echoes[sid].send("bye")
        session.close("forced server close")
        assert not server.engine.sessions
        assert (await pending).text == "4bye"
        assert (await client.get(sid)).text == "1"
        assert not server.engine.lingering


@on_both
async def test_last_packets_of_a_session_wait_for_the_next_get(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        server.echoes[sid].send("bye")
        server.engine.sessions[sid].close("forced server close")
        assert list(server.engine.lingering) == [sid]
        assert (await client.post(sid, "4a")).text == '{"code":1,"message":"Session ID unknown"}'
        assert (await client.get(sid)).text == "4bye"
        assert (await client.get(sid)).text == "1"
        assert not server.engine.lingering
        assert (await client.get(sid)).status == 400


@on_both
async def test_last_packets_that_nobody_fetches_are_let_go(native: bool) -> None:
    async with echo_server(native=native, upgrade_timeout=0.1) as (server, client):
        sid = await client.open()
        server.engine.sessions[sid].close("forced server close")
        assert server.engine.lingering
        await until(lambda: not server.engine.lingering)


@on_both
async def test_slow_consumer_is_cut_off(native: bool) -> None:
    """Nobody fetches: the queue has a limit, and what it held does not linger."""
    async with echo_server(native=native, send_buffer_bytes=10_000, volatile_buffer_bytes=5000) as (server, client):
        sid = await client.open()
        session, echo = server.engine.sessions[sid], server.echoes[sid]
        for _ in range(6):
            echo.send("a" * 1000)
        assert not session.carrier.writable
        assert session.carrier.buffered > 6000
        for _ in range(20):
            echo.send("a" * 1000)
        await until(echo.ended.is_set)
        assert echo.reasons == ["slow consumer"]
        assert not server.engine.lingering
        assert server.counters.get("sessions_closed_total", reason="slow_consumer") == 1


# --- backpressure


@on_both
async def test_much_comes_in_several_answers_and_a_long_message_in_one(native: bool) -> None:
    async with echo_server(native=native, send_buffer_bytes=40_000, volatile_buffer_bytes=40_000) as (server, client):
        sid = await client.open()
        echo = server.echoes[sid]
        for text in ("a" * 4_000, "b" * 4_000, "c" * 4_000, "d" * 20_000, "e"):
            echo.send(text)
        carrier = server.engine.sessions[sid].carrier
        answers, waiting = [], [carrier.buffered]
        for _ in range(4):
            answers.append([packet[1] for packet in (await client.get(sid)).text.split("\x1e")])
            waiting.append(carrier.buffered)
        assert answers == [["a", "b"], ["c"], ["d"], ["e"]]
        assert waiting == sorted(waiting, reverse=True)
        assert waiting[-1] == 0


@on_both
async def test_post_is_answered_when_reading_goes_on(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        server.engine.sessions[sid].pause(True)
        post = asyncio.create_task(client.post(sid, "4a"))
        await until(lambda: server.echoes[sid].messages)
        assert not post.done()
        server.engine.sessions[sid].pause(False)
        assert (await post).text == "ok"


@on_both
async def test_reading_pauses_between_the_packets_of_a_post(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid = await client.open()
        server.engine.sessions[sid].pause(True)
        post = asyncio.create_task(client.post(sid, "4a\x1e4b\x1e4c"))
        messages = server.echoes[sid].messages
        await until(lambda: messages)
        assert messages == ["a"]
        server.engine.sessions[sid].pause(False)
        assert (await post).text == "ok"
        assert messages == ["a", "b", "c"]


# --- compression


@on_both
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_payload_from_1024_bytes_on_is_compressed(native: bool, encoding: str) -> None:
    async with echo_server(native=native) as (_, client):
        sid = await client.open()
        await client.post(sid, "4" + "a" * 1023)
        async with client.http.get(
            client.url,
            params={"EIO": "4", "transport": "polling", "sid": sid},
            headers={"accept-encoding": encoding},
        ) as answer:
            body = await answer.read()
            assert answer.headers["content-encoding"] == encoding
            assert answer.headers["content-length"] == str(len(body))
        unpacked = gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body)
        assert unpacked == b"4" + b"a" * 1023


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("gzip, deflate, br", "gzip"),
        ("deflate;q=0.5", "deflate"),
        ("gzip;q=0, deflate", "deflate"),
        ("GZIP", "gzip"),
        ("gzip; q=0.0", None),
        ("br", None),
        ("", None),
    ],
)
def test_encoding_is_one_that_the_client_takes(accepted: str, expected: str | None) -> None:
    request = Request(path="/", head=b"Accept-Encoding: " + accepted.encode())
    answer = compress(Response(200, b"a" * COMPRESS_FROM), request)
    assert dict(answer.headers).get("content-encoding") == expected


def test_less_than_1024_bytes_are_not_compressed() -> None:
    request = Request(path="/", head=b"accept-encoding: gzip")
    response = Response(200, b"a" * (COMPRESS_FROM - 1))
    assert compress(response, request) is response
