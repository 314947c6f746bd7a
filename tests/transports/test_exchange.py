"""Requests of long-polling without a network: who answers them, and when they are read no further."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from bellwire.protocol.engineio import RequestError, node_of
from bellwire.protocol.outgoing import Outgoing
from bellwire.transports.base import Carrier, Link, Request
from bellwire.transports.exchange import Abandoned, Exchange, respond
from bellwire.transports.polling import GONE, Response
from tests.transports.pipe import Pipe
from tests.transports.wire import EchoServer

OTHER = "0123abcd"
THEIRS = OTHER + "a" * 16
UNKNOWN = Response(400, b'{"code":1,"message":"Session ID unknown"}', "application/json")


class Call(Exchange):
    """A request with a body of some chunks; a client that gives it up is one more, None."""

    def __init__(self, method: str, sid: str = "", *chunks: bytes | None, head: bytes = b"") -> None:
        query = f"EIO=4&transport=polling&sid={sid}" if sid else "EIO=4&transport=polling"
        super().__init__(Request(path="/socket.io/", query_string=query.encode(), head=head), method)
        self.left = list(chunks)
        self.gone = asyncio.Event()

    async def chunk(self) -> tuple[bytes, bool]:
        chunk = self.left.pop(0)
        if chunk is None:
            raise Abandoned
        return chunk, bool(self.left)

    async def disconnected(self) -> None:
        await self.gone.wait()


class Elsewhere:
    """A forwarder that keeps what it is given."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Exchange | Request]] = []

    def knows(self, node: str) -> bool:
        return node == OTHER

    async def forward(self, node: str, exchange: Exchange) -> Response:
        self.asked.append((node, exchange))
        return Response(200, b"from there")

    def tunnel(self, node: str, request: Request) -> Callable[[Carrier], Link]:
        self.asked.append((node, request))
        raise NotImplementedError

    def close(self, code: int) -> None:
        self.asked.clear()


async def opened(server: EchoServer) -> str:
    response = await respond(server.engine, Call("GET"))
    sid: str = msgspec.json.decode(response.body[1:])["sid"]
    return sid


async def test_a_session_belongs_to_the_node_that_opened_it() -> None:
    server = EchoServer()
    server.engine.node = OTHER
    assert node_of(await opened(server)) == OTHER


async def test_a_body_is_read_in_chunks_and_no_further_than_is_allowed() -> None:
    server = EchoServer(max_message_bytes=10)
    sid = await opened(server)
    assert (await respond(server.engine, Call("POST", sid, b"4he", b"llo", b""))).body == b"ok"
    assert server.echoes[sid].messages == ["hello"]
    call = Call("POST", sid, b"4" * 6, b"4" * 6, b"never read")
    assert (await respond(server.engine, call)).status == 413
    assert call.left == [b"never read"]
    call = Call("POST", sid, b"never read", head=b"content-length: 11")
    assert (await respond(server.engine, call)).status == 413
    assert call.left == [b"never read"]


async def test_a_body_that_is_given_up_ends_the_session() -> None:
    server = EchoServer()
    sid = await opened(server)
    await respond(server.engine, Call("POST", sid, b"4he", None))
    assert server.echoes[sid].messages == []
    assert server.echoes[sid].reasons == ["transport error"]


async def test_only_what_belongs_to_another_node_that_is_there_is_handed_on() -> None:
    server = EchoServer()
    engine = server.engine
    elsewhere = engine.forwarder = Elsewhere()
    sid = await opened(server)
    assert (await engine.answer(Call("POST", sid, b"4a"))).body == b"ok"
    assert (await engine.answer(Call("GET"))).body[:1] == b"0"
    assert await engine.answer(Call("GET", "fedcba98" + "a" * 16)) == UNKNOWN
    assert await engine.answer(Call("GET", OTHER)) == UNKNOWN
    assert elsewhere.asked == []
    call = Call("GET", THEIRS)
    assert (await engine.answer(call)).body == b"from there"
    assert elsewhere.asked == [(OTHER, call)]
    await engine.close()
    assert elsewhere.asked == []


async def test_an_upgrade_is_checked_before_it_is_handed_on() -> None:
    server = EchoServer()
    engine = server.engine
    elsewhere = engine.forwarder = Elsewhere()

    def request(query: str) -> Request:
        return Request(path="/socket.io/", query_string=query.encode())

    for wrong in ("EIO=3&transport=websocket", "EIO=4&transport=smoke", "EIO=4&transport=polling"):
        with pytest.raises(RequestError):
            engine.admit(request(f"{wrong}&sid={THEIRS}"))
    with pytest.raises(RequestError, match="Session ID unknown"):
        engine.admit(request("EIO=4&transport=websocket&sid=fedcba98" + "a" * 16))
    assert elsewhere.asked == []
    with pytest.raises(NotImplementedError):
        engine.admit(request(f"EIO=4&transport=websocket&sid={THEIRS}"))
    assert [node for node, _ in elsewhere.asked] == [OTHER]
    pipe = Pipe()
    link = engine.admit(request("EIO=4&transport=websocket"))(pipe)
    assert pipe.sent[0].startswith(f'0{{"sid":"{engine.node}')  # type: ignore[arg-type]
    assert link in engine.sessions.values()


class Stalled(Call):
    """A request of whose body nothing comes."""

    async def chunk(self) -> tuple[bytes, bool]:
        await self.gone.wait()
        return b"", False


async def test_a_post_that_is_being_read_may_lose_its_session_in_two_steps() -> None:
    server = EchoServer()
    sid = await opened(server)
    carrier = server.engine.sessions[sid].carrier
    posting = asyncio.ensure_future(respond(server.engine, Stalled("POST", sid)))
    await asyncio.sleep(0)
    carrier.close()
    await asyncio.sleep(0)
    carrier.abort()  # the reading is being ended, and has not ended yet
    assert await posting == GONE


async def test_a_get_that_is_given_up_as_it_is_answered_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    server = EchoServer()
    sid = await opened(server)
    session, call = server.engine.sessions[sid], Call("GET", sid)
    waiting = asyncio.ensure_future(respond(server.engine, call))
    await asyncio.sleep(0)
    call.gone.set()
    session.send(Outgoing("4late"))
    session.carrier.flush()
    assert await waiting == GONE
    await asyncio.sleep(0)
    assert server.echoes[sid].reasons == ["transport close"]
    assert caplog.record_tuples == []  # nothing failed on the way
