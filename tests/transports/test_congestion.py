"""How long a client may take nothing of what waits for it."""

import logging

import pytest

from bellwire.protocol.wire import JSON, CloseCode
from bellwire.testing.clock import advance
from bellwire.transports.base import Request
from bellwire.transports.congestion import CHECKS, STALL_SECONDS
from bellwire.transports.raw import RawSession
from tests.transports.pipe import Pipe
from tests.transports.wire import Echo, EchoServer


def congested(server: EchoServer) -> tuple[RawSession, Pipe, Echo]:
    pipe = Pipe()
    session = server.engine.open_raw(pipe, Request(path="/bellwire"), JSON)
    pipe.clogged = True
    session.congested(pipe)
    return session, pipe, server.raw_echoes[-1]


async def test_client_that_takes_nothing_is_cut_off_as_a_slow_consumer(caplog: pytest.LogCaptureFixture) -> None:
    server = EchoServer()
    session, pipe, echo = congested(server)
    await advance(STALL_SECONDS - 1)
    assert not session.closed
    with caplog.at_level(logging.WARNING, "bellwire"):
        await advance(2)
    assert (pipe.closed, echo.reasons) == (CloseCode.SLOW, ["slow consumer"])
    assert "it took nothing for 30 seconds" in caplog.text
    assert server.counters.get("sessions_closed_total", reason="slow_consumer") == 1
    assert server.engine.wheel.pending == 0


async def test_signs_of_life_are_not_enough() -> None:
    session, pipe, _ = congested(EchoServer())
    for _ in range(int(STALL_SECONDS) + 1):
        session.received(pipe, "hello")
        await advance(1)
    assert session.closed


async def test_client_that_takes_a_byte_now_and_then_stays_and_has_one_timer() -> None:
    server = EchoServer()
    session, pipe, _ = congested(server)
    for _ in range(20):
        pipe.taken += 1
        await advance(STALL_SECONDS - STALL_SECONDS / CHECKS)
        assert server.engine.wheel.pending == 1
    assert not session.closed
    await advance(STALL_SECONDS + STALL_SECONDS / CHECKS)
    assert session.closed


async def test_client_that_keeps_up_again_is_not_watched() -> None:
    server = EchoServer()
    session, pipe, _ = congested(server)
    await advance(STALL_SECONDS - 1)
    session.drained(pipe)
    assert server.engine.wheel.pending == 0
    await advance(10 * STALL_SECONDS)
    assert not session.closed


async def test_second_congestion_has_the_whole_time_again() -> None:
    session, pipe, _ = congested(EchoServer())
    await advance(STALL_SECONDS - 1)
    session.drained(pipe)
    session.congested(pipe)
    await advance(STALL_SECONDS - 1)
    assert not session.closed


async def test_session_that_ends_leaves_no_timer() -> None:
    server = EchoServer()
    session, _, _ = congested(server)
    session.close("forced server close")
    assert server.engine.wheel.pending == 0
