"""What both kinds of sessions have in common: notices of backpressure, and questions whether anybody is there."""

import asyncio

import pytest

from bellwire.protocol.wire import JSON
from bellwire.testing.clock import advance
from bellwire.transports.base import Request
from bellwire.transports.base_session import BaseSession
from bellwire.transports.polling import PollingCarrier
from bellwire.transports.raw import RawSession
from bellwire.transports.session import Session
from tests.transports.pipe import Pipe
from tests.transports.wire import Echo, EchoServer, echo_server, on_both, until

REQUEST = Request(path="/")
kinds = pytest.mark.parametrize("kind", ["engine.io", "bellwire.v1"])


def open_session(server: EchoServer, kind: str) -> tuple[BaseSession, Pipe, Echo]:
    pipe = Pipe()
    if kind == "engine.io":
        session = server.engine.open(pipe, REQUEST)
        pipe.sent.clear()
        return session, pipe, server.echoes[session.sid]
    return server.engine.open_raw(pipe, REQUEST, JSON), pipe, server.raw_echoes[-1]


# --- backpressure


@kinds
async def test_receiver_is_told_once_and_then_once_that_it_is_over(kind: str) -> None:
    session, pipe, echo = open_session(EchoServer(), kind)
    session.drained(pipe)
    assert echo.notices == []
    for _ in range(2):
        session.congested(pipe)
        session.congested(pipe)
        session.drained(pipe)
        session.drained(pipe)
    assert echo.notices == ["congested", "drained"] * 2


@kinds
async def test_nothing_is_told_of_other_carriers_or_after_the_end(kind: str) -> None:
    server = EchoServer()
    session, pipe, echo = open_session(server, kind)
    session.congested(Pipe())
    assert echo.notices == []
    session.congested(pipe)
    session.drained(Pipe())
    session.close("forced server close")
    session.drained(pipe)
    session.congested(pipe)
    assert echo.notices == ["congested"]
    assert server.engine.wheel.pending == 0


class Upgrade:
    """A session on long-polling whose client probes a WebSocket that takes everything."""

    def __init__(self, server: EchoServer) -> None:
        self.polling = PollingCarrier(server.engine)
        self.session = self.polling.session = server.engine.open(self.polling, REQUEST)
        self.echo = server.echoes[self.session.sid]
        self.websocket = Pipe()
        self.session.offer(self.websocket)
        self.session.received(self.websocket, "2probe")

    def finish(self) -> None:
        self.session.received(self.websocket, "5")


async def test_congestion_of_long_polling_ends_when_the_websocket_takes_everything() -> None:
    upgrade = Upgrade(EchoServer(volatile_buffer_bytes=5000))
    upgrade.echo.send("a" * 6000)
    await advance(1)
    assert upgrade.echo.notices == ["congested"]
    upgrade.finish()
    await advance(1)
    assert upgrade.echo.notices == ["congested", "moved", "drained"]


async def test_congestion_of_long_polling_goes_on_on_a_websocket_that_is_congested_too() -> None:
    upgrade = Upgrade(EchoServer(volatile_buffer_bytes=5000))
    upgrade.echo.send("a" * 6000)
    await advance(1)
    upgrade.websocket.clogged = True
    upgrade.finish()
    upgrade.session.congested(upgrade.websocket)
    await advance(1)
    assert upgrade.echo.notices == ["congested", "moved"]
    upgrade.session.drained(upgrade.websocket)
    assert upgrade.echo.notices == ["congested", "moved", "drained"]


async def test_congestion_in_the_tick_of_the_upgrade_is_told_and_ends() -> None:
    """Somebody may have seen in this tick that the session was not writable, and waits to be told."""
    upgrade = Upgrade(EchoServer(volatile_buffer_bytes=5000))
    upgrade.echo.send("a" * 6000)
    assert not upgrade.session.carrier.writable
    upgrade.finish()
    await advance(1)
    assert upgrade.echo.notices == ["congested", "moved", "drained"]


async def test_websocket_that_is_congested_from_the_start_is_told_of() -> None:
    upgrade = Upgrade(EchoServer())
    upgrade.websocket.clogged = True
    upgrade.finish()
    await advance(1)
    assert upgrade.echo.notices == ["moved", "congested"]


# --- questions


def answer(session: BaseSession) -> None:
    session.received(session.carrier, "3" if isinstance(session, Session) else '["pong"]')


@kinds
async def test_client_that_answers_is_there_and_nobody_waits_longer(kind: str) -> None:
    session, pipe, _ = open_session(EchoServer(), kind)
    asking = asyncio.ensure_future(session.answers(2))
    await advance(1)
    assert pipe.sent == ["2" if kind == "engine.io" else '["ping"]']
    assert not asking.done()
    assert session.asked
    answer(session)
    assert await asking is True
    assert asyncio.get_running_loop().time() == pytest.approx(1)
    assert not session.asked


@kinds
async def test_client_that_does_not_answer_is_not_there(kind: str) -> None:
    session, _, _ = open_session(EchoServer(), kind)
    assert await session.answers(2) is False
    assert asyncio.get_running_loop().time() == pytest.approx(2)
    assert not session.asked
    assert not session.alive


@kinds
async def test_bytes_of_a_message_that_is_not_complete_are_an_answer(kind: str) -> None:
    session, _, _ = open_session(EchoServer(), kind)
    asking = asyncio.ensure_future(session.answers(2))
    await advance(1)
    session.alive = True  # what a carrier says of any byte
    assert await asking is True


@kinds
async def test_several_who_ask_share_one_ping_and_each_waits_its_own_time(kind: str) -> None:
    session, pipe, _ = open_session(EchoServer(), kind)
    short = asyncio.ensure_future(session.answers(1))
    long = asyncio.ensure_future(session.answers(3))
    assert await short is False
    assert len(pipe.sent) == 1
    answer(session)
    assert await long is True
    assert not session.asked


@kinds
async def test_who_gives_up_asking_takes_nobody_along(kind: str) -> None:
    session, _, _ = open_session(EchoServer(), kind)
    impatient = asyncio.ensure_future(session.answers(3))
    patient = asyncio.ensure_future(session.answers(3))
    await advance(1)
    impatient.cancel()
    await advance(1)
    assert session.asked
    answer(session)
    assert await patient is True
    assert not session.asked


@kinds
async def test_session_that_ends_answers_no_more(kind: str) -> None:
    session, pipe, _ = open_session(EchoServer(), kind)
    asking = asyncio.ensure_future(session.answers(2))
    await advance(1)
    session.close("transport close")
    assert await asking is False
    assert await session.answers(2) is False
    assert len(pipe.sent) == 1
    assert asyncio.get_running_loop().time() == pytest.approx(1)


@kinds
async def test_client_that_is_not_read_from_is_taken_to_be_there(kind: str) -> None:
    session, pipe, _ = open_session(EchoServer(), kind)
    session.pause(True)
    assert await session.answers(2) is True
    assert pipe.sent == []
    session.pause(False)
    asking = asyncio.ensure_future(session.answers(2))
    await advance(1)
    session.pause(True)
    assert await asking is True


async def test_client_that_is_upgrading_is_taken_to_be_there() -> None:
    upgrade = Upgrade(EchoServer())
    assert await upgrade.session.answers(2) is True


async def test_close_packet_is_no_sign_of_life() -> None:
    session, pipe, _ = open_session(EchoServer(), "engine.io")
    asking = asyncio.ensure_future(session.answers(2))
    await advance(1)
    session.received(pipe, "1")
    assert await asking is False


@on_both
async def test_clients_on_real_sockets_answer_or_do_not(native: bool) -> None:
    async with echo_server(native=native) as (server, client):
        sid, ws = await client.open_websocket()
        raw = await client.raw_websocket(JSON)
        await until(lambda: server.raw_echoes)
        session, raw_session = server.engine.sessions[sid], server.raw_echoes[0].session
        assert isinstance(raw_session, RawSession)
        asking = asyncio.gather(session.answers(5), raw_session.answers(5))
        assert await ws.text() == "2"
        await ws.send("3")
        assert await raw.text() == '["ping"]'
        await raw.send('["pong"]')
        assert list(await asking) == [True, True]
        assert not any(await asyncio.gather(session.answers(0.05), raw_session.answers(0.05)))
        await ws.close()
        await raw.close()


@on_both
async def test_half_of_a_message_on_a_real_socket_is_a_sign_of_life(native: bool) -> None:
    """Natively; other servers hand over whole messages only, and cannot tell."""
    async with echo_server(native=native) as (server, client):
        raw = await client.raw_websocket(JSON)
        await until(lambda: server.raw_echoes)
        session = server.raw_echoes[0].session
        asking = asyncio.ensure_future(session.answers(0.3))
        assert await raw.text() == '["ping"]'
        connection = raw.raw._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.write(b"\x81\x85\0\0\0\0he")
        assert await asking is native
        connection.transport.write(b"llo")
        assert await raw.text() == "hello"
        await raw.close()


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def test_client_of_long_polling_answers_with_a_post() -> None:
    server = EchoServer()
    carrier = PollingCarrier(server.engine)
    session = carrier.session = server.engine.open(carrier, REQUEST)
    await carrier.get(never)
    asking = asyncio.ensure_future(session.answers(2))
    assert (await carrier.get(never)).body == b"2"
    session.received(carrier, "3")
    assert await asking is True
