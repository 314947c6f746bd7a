import asyncio
from typing import Any, cast

import pytest

from bellwire import Config, Server
from bellwire.protocol.wire import JSON, PATH, CloseCode
from bellwire.server.heartbeat import BEATS, Heartbeat
from bellwire.testing import TestClient, connect
from bellwire.testing.clock import VirtualClockLoop, advance
from bellwire.transports.base import Request
from bellwire.transports.session import Session
from tests.server.house import raw
from tests.transports.pipe import Pipe
from tests.transports.wire import EchoServer


class Patient:
    """As much of a session as the heartbeat needs."""

    def __init__(self, *, answers: bool = True) -> None:
        self.alive = True
        self.missed = 0
        self.paused = False
        self.upgrading = False
        self.asked = False
        self.answers = answers
        self.pings: list[float] = []
        self.ended: tuple[str, float] | None = None

    def ping(self) -> None:
        self.pings.append(asyncio.get_running_loop().time())
        self.alive = self.answers

    def close(self, reason: str) -> None:
        assert self.ended is None
        self.ended = (reason, asyncio.get_running_loop().time())


def watch(heartbeat: Heartbeat, *patients: Patient) -> None:
    for patient in patients:
        heartbeat.watch(cast("Session", patient))


def forget(heartbeat: Heartbeat, patient: Patient) -> None:
    heartbeat.forget(cast("Session", patient))


def make(**settings: Any) -> Heartbeat:
    return Heartbeat(Config(**settings), asyncio.get_running_loop())


async def test_a_ping_every_25_seconds() -> None:
    heartbeat, patient = make(), Patient()
    watch(heartbeat, patient)
    await advance(101)
    assert patient.pings == pytest.approx([25, 50, 75, 100])
    assert patient.ended is None
    heartbeat.close()


async def test_two_consecutive_misses_end_a_session_after_55_seconds() -> None:
    heartbeat, patient = make(), Patient(answers=False)
    watch(heartbeat, patient)
    await advance(54.9)
    assert (patient.missed, patient.ended) == (1, None)
    await advance(0.2)
    assert patient.ended is not None
    assert patient.ended[0] == "ping timeout"
    assert patient.ended[1] == pytest.approx(55)
    heartbeat.close()


async def test_one_miss_and_then_a_sign_of_life_starts_the_count_again() -> None:
    heartbeat, patient = make(), Patient(answers=False)
    watch(heartbeat, patient)
    await advance(31)
    assert patient.missed == 1
    patient.answers = True
    await advance(25)
    assert patient.missed == 0
    patient.answers = False
    await advance(25)
    assert (patient.missed, patient.ended) == (1, None)
    heartbeat.close()


async def test_with_one_miss_allowed_the_first_ends_a_session_after_30_seconds() -> None:
    heartbeat, patient = make(max_missed_pongs=1), Patient(answers=False)
    watch(heartbeat, patient)
    await advance(31)
    assert patient.ended is not None
    assert patient.ended[1] == pytest.approx(30)
    heartbeat.close()


@pytest.mark.parametrize("state", ["paused", "upgrading", "asked"])
async def test_a_session_that_is_not_read_from_or_is_moving_or_asked_by_others_is_not_missed(state: str) -> None:
    heartbeat, patient = make(), Patient(answers=False)
    setattr(patient, state, True)
    watch(heartbeat, patient)
    await advance(200)
    assert (patient.missed, patient.ended) == (0, None)
    heartbeat.close()


async def test_a_session_that_was_forgotten_is_pinged_no_longer() -> None:
    heartbeat, patient = make(), Patient()
    watch(heartbeat, patient)
    await advance(26)
    forget(heartbeat, patient)
    forget(heartbeat, patient)
    await advance(100)
    assert len(patient.pings) == 1


async def test_ten_thousand_sessions_have_one_timer_and_none_when_they_have_gone() -> None:
    loop = cast("Any", asyncio.get_running_loop())
    heartbeat = make()
    patients = [Patient() for _ in range(10_000)]
    watch(heartbeat, *patients)
    assert len(loop._scheduled) == 1
    await advance(26)
    assert all(len(patient.pings) == 1 for patient in patients)
    assert len(loop._scheduled) == 1
    for patient in patients:
        forget(heartbeat, patient)
    await advance(2)
    assert len(loop._scheduled) == 0


async def test_sessions_that_come_one_after_the_other_are_pinged_one_after_the_other() -> None:
    heartbeat = make()
    patients = []
    for _ in range(BEATS):
        patients.append(Patient())
        watch(heartbeat, patients[-1])
        await advance(1)
    await advance(25)
    firsts = [patient.pings[0] for patient in patients]
    assert len({round(first) for first in firsts}) == BEATS
    for number, first in enumerate(firsts):
        assert 24 <= first - number <= 25.01  # never later than was promised
    heartbeat.close()


async def test_after_a_pause_of_the_whole_process_clients_have_their_time_to_answer() -> None:
    """A blocked loop, a suspended machine: neither is the clients' fault, and their answers come afterwards."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    heartbeat, patient = make(max_missed_pongs=1), Patient(answers=False)
    watch(heartbeat, patient)
    await advance(24.5)
    loop._now += 100  # nothing ran in these seconds
    await asyncio.sleep(0.2)
    assert len(patient.pings) == 1
    await asyncio.sleep(3.5)
    assert patient.ended is None
    await asyncio.sleep(3)
    assert patient.ended is not None
    heartbeat.close()


async def test_a_session_may_end_while_it_is_checked() -> None:
    heartbeat = make()

    class Fragile(Patient):
        def close(self, reason: str) -> None:
            super().close(reason)
            for other in patients:
                forget(heartbeat, other)

    patients = [Fragile(answers=False) for _ in range(5)]
    watch(heartbeat, *patients)
    await advance(60)
    assert all(patient.missed <= 2 for patient in patients)
    assert any(patient.ended is not None for patient in patients)


@pytest.mark.parametrize("interval", [0.1, 1.0, 60.0])
async def test_other_intervals(interval: float) -> None:
    heartbeat = make(ping_interval=interval, pong_timeout=interval / 5, client_ping_timeout=60.0)
    patient = Patient(answers=False)
    watch(heartbeat, patient)
    await advance(interval * 2.25)
    assert patient.ended is not None
    assert patient.ended[1] == pytest.approx(interval * 2.2)
    heartbeat.close()


# --- with sessions of bellwire.v1


async def test_a_silent_client_of_bellwire_v1_is_closed_with_4001_after_55_seconds() -> None:
    echoes, pipe = EchoServer(), Pipe()
    session = echoes.engine.open_raw(pipe, Request(path=PATH), JSON)
    heartbeat = make()
    heartbeat.watch(session)
    await advance(54.5)
    assert (pipe.sent, pipe.closed) == (['["ping"]'] * 2, None)
    await advance(1)
    assert pipe.closed == CloseCode.SILENT
    assert echoes.raw_echoes[0].reasons == ["ping timeout"]
    heartbeat.close()


async def test_a_client_of_bellwire_v1_that_says_anything_stays() -> None:
    echoes, pipe = EchoServer(), Pipe()
    session = echoes.engine.open_raw(pipe, Request(path=PATH), JSON)
    heartbeat = make()
    heartbeat.watch(session)
    for _ in range(10):
        await advance(26)
        session.received(pipe, "anything")
    assert pipe.closed is None
    heartbeat.close()


async def test_a_question_between_ping_and_check_is_not_the_client_s_fault() -> None:
    """It answered the heartbeat's ping in time; the question makes it appear silent until it answers that as well."""
    echoes, pipe = EchoServer(), Pipe()
    session = echoes.engine.open_raw(pipe, Request(path=PATH), JSON)
    heartbeat = make(max_missed_pongs=1)
    heartbeat.watch(session)
    await advance(26)
    session.received(pipe, '["pong"]')
    await advance(3)
    asking = asyncio.ensure_future(session.answers(2))
    await advance(1.5)
    session.received(pipe, '["pong"]')
    assert await asking is True
    await advance(10)
    assert (session.closed, session.missed) == (False, 0)
    heartbeat.close()


# --- with real sessions


def reasons(server: Server) -> list[str]:
    found: list[str] = []

    @server.namespace("/").on_disconnect
    async def leave(socket: object, reason: str) -> None:
        found.append(reason)

    return found


def go_silent(client: TestClient) -> None:
    """The client reads nothing more, and so answers no ping."""
    client.carrier.stalled = True


async def test_a_client_that_answers_stays() -> None:
    server = Server()
    ends = reasons(server)
    async with connect(server) as client:
        await advance(300)
        assert (ends, client.reason) == ([], None)


async def test_a_silent_client_is_gone_after_55_seconds_with_the_reason_ping_timeout() -> None:
    server = Server()
    ends = reasons(server)
    async with connect(server) as client:
        go_silent(client)
        await advance(54.5)
        assert ends == []
        await advance(1)
        assert ends == ["ping timeout"]
        assert server.engine.sessions == {}


async def test_any_byte_is_a_sign_of_life() -> None:
    server = Server()
    ends = reasons(server)
    async with connect(server) as client:
        go_silent(client)
        for _ in range(10):
            await advance(26)
            raw(client, '42["anything"]')
        assert ends == []
