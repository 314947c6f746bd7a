"""How HTTP is answered, and what a client does not read: answers of long-polling, and of the application beside it."""

import asyncio
import contextlib
import socket
from typing import Any

import pytest

from bellwire import Server
from bellwire.core.config import Config
from bellwire.protocol.client_handshake import build_request, new_key
from bellwire.transports.base import Receive, Scope, Send
from bellwire.transports.native_http import COPIED, MAX_WAITING, Joined
from bellwire.transports.polling import PollingCarrier
from tests.serving import serve
from tests.transports.sluggish import sluggish
from tests.transports.wire import PATIENCE, EchoServer, connect, dial, until

pytestmark = pytest.mark.bellwire(clock="real", uvloop=True)

SIZE = 8_000_000
"""More than kernels keep for a connection."""


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def poll(sid: str) -> bytes:
    return get(f"/socket.io/?EIO=4&transport=polling&sid={sid}")


def waits(server: EchoServer, sid: str) -> bool:
    """Whether a GET waits for what the session is told."""
    carrier = server.echoes[sid].session.carrier
    return isinstance(carrier, PollingCarrier) and carrier._waiting is not None


def no_progress(server: Any) -> int:
    count: int = server.counters.get("slow_consumers_total", cause="no_progress")
    return count


class Pieces(asyncio.Transport):
    """A transport that keeps each piece that is written, and its end."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True
        self.written.append(b"end")

    def is_closing(self) -> bool:
        return self.closed


def joined() -> tuple[Joined, Pieces]:
    pieces = Pieces()
    return Joined(pieces, asyncio.get_running_loop()), pieces


async def test_the_head_of_a_response_leaves_with_what_follows_at_once() -> None:
    response, pieces = joined()
    for piece in (b"head", b"body", b"more"):
        response.write(piece)
    await asyncio.sleep(0)
    assert pieces.written == [b"headbody", b"more"]


async def test_a_head_that_nothing_follows_at_once_leaves_by_itself() -> None:
    """As that of a stream of events does, from which a page sees that it is open."""
    response, pieces = joined()
    response.write(b"head")
    assert pieces.written == []
    await asyncio.sleep(0)
    assert pieces.written == [b"head"]
    response.write(b"event")
    assert pieces.written == [b"head", b"event"]


async def test_a_head_leaves_before_its_connection_ends() -> None:
    response, pieces = joined()
    response.write(b"head")
    response.close()
    assert response.is_closing()
    await asyncio.sleep(0)
    assert pieces.written == [b"head", b"end"]


async def test_a_head_does_not_leave_when_its_connection_has_ended() -> None:
    """uvloop raises an error where a client left in the turn of the loop in which its answer began."""
    response, pieces = joined()
    response.write(b"head")
    pieces.close()
    await asyncio.sleep(0)
    assert pieces.written == [b"end"]


async def test_a_head_without_a_body_leaves_with_the_end_of_its_response_and_the_next_one_is_joined_again() -> None:
    response, pieces = joined()
    response.write(b"head")
    response.complete()
    assert pieces.written == [b"head"]
    for piece in (b"another", b"body"):
        response.write(piece)
    await asyncio.sleep(0)
    assert pieces.written == [b"head", b"anotherbody"]


async def test_a_long_body_is_not_copied_behind_its_head() -> None:
    response, pieces = joined()
    body = bytes(COPIED + 1)
    response.write(b"head")
    response.write(body)
    assert pieces.written[0] == b"head"
    assert pieces.written[1] is body


@pytest.mark.parametrize("ended", [True, False])
async def test_a_head_reaches_a_client_that_waits_for_nothing_else(ended: bool) -> None:
    """It is written with the end of its response, or when the client has said that it sends no more."""
    with socket.socket() as peer:
        got: list[bytes] = []

        async def page(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await send({"type": "http.response.start", "status": 204, "headers": []})
                if ended:
                    await send({"type": "http.response.body", "body": b""})
                else:
                    peer.shutdown(socket.SHUT_WR)
                    while (await receive())["type"] != "http.disconnect":
                        pass
                got.append(peer.recv(SIZE))

        async with serve(Server(http=page)) as url:
            peer.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(peer, ("127.0.0.1", int(url.rpartition(":")[2])))
            await loop.sock_sendall(peer, get("/").replace(b"GET", b"HEAD"))
            await until(lambda: got)
        assert got == [b"HTTP/1.1 204 No Content\r\n\r\n"]


async def test_a_client_that_leaves_ends_the_request_that_is_answered_also_if_others_came_behind_it() -> None:
    """uvicorn tells the last one: the others would be answered on a connection that is gone, which uvloop refuses."""
    server = EchoServer()
    async with serve(server) as url, connect(url) as client:
        sid = await client.open()
        async with dial(url) as (_, writer):
            writer.write(poll(sid) + get("/socket.io/"))
            await until(lambda: waits(server, sid))
        async with asyncio.timeout(PATIENCE):
            await server.echoes[sid].ended.wait()


async def test_what_is_asked_behind_a_request_that_is_answered_is_no_late_head_while_nobody_reads_it() -> None:
    server = EchoServer(head_timeout=0.1)
    async with serve(server) as url, connect(url) as client, dial(url) as (reader, writer), asyncio.timeout(PATIENCE):
        sid = await client.open()
        writer.write(poll(sid))
        await until(lambda: waits(server, sid))
        third = get("/socket.io/?transport=third")
        writer.write(get("/socket.io/") + third[:20])
        await client.request()  # what came before it on another connection has been read
        writer.write(third[20:])
        passed = asyncio.Event()
        server.engine.wheel.after(0.4, passed.set)  # longer than the deadline by a few turns of the wheel
        await passed.wait()
        server.echoes[sid].send("x")
        await reader.readuntil(b"4x")
        for _ in range(2):
            await reader.readuntil(b"Transport unknown")


@pytest.mark.parametrize("number", [MAX_WAITING, MAX_WAITING + 1])
async def test_there_is_an_end_to_how_many_requests_wait_behind_one(number: int) -> None:
    server = EchoServer()
    async with serve(server) as url, connect(url) as client, dial(url) as (reader, writer), asyncio.timeout(PATIENCE):
        sid = await client.open()
        writer.write(poll(sid))
        await until(lambda: waits(server, sid))
        writer.write(get("/socket.io/") * number)
        if number > MAX_WAITING:
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            assert server.counters.get("requests_refused_total", reason="malformed") == 1
        else:
            await client.request()  # what came before it on another connection has been read
            server.echoes[sid].send("x")
            for _ in range(number):
                await reader.readuntil(b"Transport unknown")


@pytest.mark.parametrize("target", ["/socket.io/?EIO=4&transport=websocket", "/elsewhere"])
async def test_a_websocket_behind_a_request_that_is_answered_is_refused(target: str) -> None:
    """The answer would else come in the middle of its frames."""
    server = EchoServer()
    async with serve(server) as url, connect(url) as client, dial(url) as (reader, writer), asyncio.timeout(PATIENCE):
        sid = await client.open()
        writer.write(poll(sid))
        await until(lambda: waits(server, sid))
        writer.write(build_request("h", target, new_key(), ()))
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        await server.echoes[sid].ended.wait()


async def test_an_answer_that_is_not_read_ends_with_its_connection() -> None:
    """uvicorn alone keeps it for as long as the client's kernel says that it is there."""
    server = EchoServer(write_timeout=0.5, send_buffer_bytes=2 * SIZE)
    async with serve(server) as url, connect(url) as client, sluggish(url, None) as slow:
        sid = await client.open()
        server.echoes[sid].send("x" * SIZE)
        await slow.send(poll(sid))
        await until(lambda: no_progress(server))
        got = 0
        while data := await slow.receive():
            got += len(data)
        assert got < SIZE
        assert server.engine.unread.total == 0


async def test_an_answer_that_is_read_slowly_arrives() -> None:
    server = EchoServer(write_timeout=0.5, send_buffer_bytes=2 * SIZE)
    async with serve(server) as url, connect(url) as client, sluggish(url, None) as slow:
        sid = await client.open()
        server.echoes[sid].send("x" * SIZE)
        await slow.send(poll(sid))
        got = 0
        while got < SIZE:
            data = await slow.receive()
            assert data, "the connection ended"
            got += len(data)
        assert no_progress(server) == 0
        await until(lambda: len(server.engine.unread) == 0)


@pytest.mark.parametrize("pieces", [1, 8])
async def test_a_page_of_the_application_that_is_not_read_ends_with_its_connection(pieces: int) -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8000000")]})
            for _ in range(pieces):
                body = {"type": "http.response.body", "body": bytes(SIZE // pieces), "more_body": True}
                await send(body)
            await send({"type": "http.response.body", "body": b""})

    server = Server(http=page, config=Config(write_timeout=0.5))
    async with serve(server) as url, sluggish(url, None) as slow:
        await slow.send(get("/page"))
        await until(lambda: no_progress(server))
        assert server.engine.unread.total == 0
