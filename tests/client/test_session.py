"""A client's connections one after the other, on a virtual clock, with wires that are none."""

import asyncio
from typing import cast

import pytest
from typing_extensions import override

from bellwire import ConnectRefused
from bellwire.client.backoff import Backoff
from bellwire.client.link import Ended, News, Welcome
from bellwire.client.session import TRANSITIONS, Owner, Session, State
from bellwire.client.wire import Listener, Wire
from bellwire.protocol.wire import Drain, Skipped
from bellwire.testing.clock import advance


class Thread:
    """A wire without a network: the test plays the server."""

    def __init__(self) -> None:
        self.over: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.reading = True
        self.left = False
        self.answers = True

    def leave(self, reason: str) -> None:
        self.left = True
        self.close(Ended(reason))

    def close(self, ended: Ended) -> None:
        if self.answers:
            self.end(ended)

    def abort(self, reason: str) -> None:
        self.cut(reason)

    def cut(self, reason: str) -> None:
        self.end(Ended(reason))

    def end(self, ended: Ended) -> None:
        if not self.over.done():
            self.over.set_result(ended)

    def set_reading(self, reading: bool) -> None:
        self.reading = reading


class Stage(Owner):
    """An owner that writes down what it is told, and a network in the test's hand."""

    def __init__(self, *faults: OSError) -> None:
        self.states: list[State] = []
        self.reasons: list[str] = []
        self.attempts: list[float] = []
        self.threads: list[Thread] = []
        self.faults = list(faults)
        self.session = Session(self, self.connect, Backoff(lambda: 0.0))
        self.welcomes: list[Welcome] = []
        self.news: list[News] = []
        self.reliefs = 0

    async def connect(self, listener: Listener) -> Wire:
        self.attempts.append(asyncio.get_running_loop().time())
        if self.faults:
            raise self.faults.pop(0)
        wire = cast("Wire", Thread())
        self.threads.append(cast("Thread", wire))
        listener.attached(wire)
        return wire

    async def arrive(self, sid: str = "s") -> Thread:
        await advance()
        self.session.joined(Welcome(sid))
        return self.threads[-1]

    @override
    def changed(self, state: State) -> None:
        self.states.append(state)

    @override
    def joined(self, wire: Wire, welcome: Welcome) -> None:
        assert (wire, self.states[-1]) == (self.session.wire, "connected")
        self.welcomes.append(welcome)

    @override
    def told(self, news: News) -> None:
        self.news.append(news)

    @override
    def relieved(self) -> None:
        self.reliefs += 1

    @override
    def lost(self, reason: str) -> None:
        self.reasons.append(reason)

    @override
    def ended(self, reason: str) -> None:
        self.reasons.append(reason)


def test_every_state_but_the_last_is_left() -> None:
    assert {state for state, _ in TRANSITIONS} == {"connecting", "connected", "reconnecting"}
    assert TRANSITIONS["connected", "lost"] == "reconnecting"


async def test_who_has_no_connection_and_why_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(OSError("Connection refused"))
    stage.session.start()
    await advance()
    assert [record.getMessage() for record in caplog.records] == [f"{stage!r} has no connection: Connection refused"]
    await stage.session.close()


async def test_attempts_back_off_and_a_connection_starts_the_count_again() -> None:
    stage = Stage(*(OSError("refused") for _ in range(8)))
    stage.session.start()
    ready = asyncio.ensure_future(stage.session.ready())
    await advance(0.5 + 1 + 2 + 4 + 8 + 16 + 30 + 30)
    assert stage.attempts == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5, 91.5]
    assert stage.states == ["connecting"]
    assert not ready.done()
    thread = await stage.arrive()
    await ready
    thread.cut("transport close")
    await advance(0.49)
    assert (len(stage.attempts), stage.states) == (9, ["connecting", "connected", "reconnecting"])
    await advance(0.01)
    assert len(stage.attempts) == 10
    await stage.session.close()


async def test_a_connection_that_breaks_before_it_is_joined_does_not_start_the_count_again() -> None:
    stage = Stage()
    stage.session.start()
    for _ in range(4):
        await advance()
        stage.threads[-1].cut("parse error")
        await advance(10)
    assert stage.attempts == [0, 0.5, 10 + 1, 20 + 2, 30 + 4]
    assert stage.states == ["connecting"]
    await stage.session.close()


async def test_a_timeout_is_a_reason_like_any_other() -> None:
    stage = Stage(TimeoutError())
    stage.session.start()
    await advance(0.5)
    assert (stage.reasons, len(stage.threads)) == (["connect timeout"], 1)
    await stage.session.close()


async def test_the_id_is_that_of_the_present_connection() -> None:
    stage = Stage()
    stage.session.start()
    thread = await stage.arrive("first")
    assert (stage.session.id, stage.session.number) == ("first", 1)
    thread.cut("ping timeout")
    await advance()
    assert (stage.session.id, stage.session.wire) == (None, None)
    await advance(1)
    await stage.arrive("second")
    assert (stage.session.id, stage.session.number) == ("second", 2)
    await stage.session.close()


async def test_what_comes_is_passed_on() -> None:
    stage = Stage()
    stage.session.start()
    await stage.arrive("s")
    stage.session.told(Skipped("/", 1))
    stage.session.relieved()
    assert (stage.welcomes, stage.news, stage.reliefs) == ([Welcome("s")], [Skipped("/", 1)], 1)
    await stage.session.close()


@pytest.mark.parametrize("leave", [True, False])
async def test_closing_leaves_or_stays(leave: bool) -> None:
    stage = Stage()
    stage.session.start()
    thread = await stage.arrive()
    await stage.session.close(leave=leave)
    assert (thread.left, thread.over.done()) == (leave, True)
    assert (stage.states[-1], stage.reasons) == ("disconnected", ["io client disconnect"])


@pytest.mark.parametrize("after", [0.0, 0.2])
async def test_closing_while_away(after: float) -> None:
    stage = Stage(OSError("refused"))
    stage.session.start()
    await advance(after)
    await stage.session.close()
    await stage.session.close()
    assert stage.states == ["connecting", "disconnected"]
    await advance(100)
    assert len(stage.attempts) == (1 if after else len(stage.attempts))


async def test_a_server_that_stops_is_left_when_it_says_and_for_another_at_once() -> None:
    stage = Stage()
    stage.session.start()
    first = await stage.arrive()
    await advance(10)
    stage.session.told(Drain(5.0))
    await advance(4.9)
    assert not first.over.done()
    await advance(0.1)
    assert (first.over.result(), stage.attempts) == (Ended("server draining"), [0, 15.0])
    assert stage.news == []
    second = await stage.arrive()
    await advance(50)
    second.cut("transport close")
    await advance(1)
    assert stage.attempts == [0, 15.0, 65.5]
    await stage.session.close()


async def test_a_server_that_stops_before_its_time_is_not_come_back_to_earlier() -> None:
    stage = Stage()
    stage.session.start()
    first = await stage.arrive()
    await advance(10)
    stage.session.told(Drain(5.0))
    stage.session.told(Drain(7.0))
    await advance(2)
    first.cut("transport close")
    await advance(10)
    assert stage.attempts == [0, 17.0]
    await stage.session.close()


async def test_a_server_that_only_sends_away_does_not_make_the_client_spin() -> None:
    stage = Stage()
    stage.session.start()
    for _ in range(4):
        await stage.arrive()
        stage.session.told(Drain(0.0))
        await advance(0.5)
    assert stage.attempts == [0, 0.5, 1.0, 1.5, 2.0]
    await stage.session.close()


async def test_closing_before_the_namespace_is_joined_aborts() -> None:
    stage = Stage()
    stage.session.start()
    await advance()
    await stage.session.close()
    assert (stage.threads[0].left, stage.threads[0].over.done()) == (False, True)


async def test_a_refusal_is_raised_at_entry() -> None:
    stage = Stage()
    stage.session.start()
    ready = asyncio.ensure_future(stage.session.ready())
    await advance()
    stage.session.refused(ConnectRefused("no", 1))
    stage.threads[0].end(Ended("connect_error", final=True))
    with pytest.raises(ConnectRefused, match="no"):
        await ready
    await advance(100)
    assert (len(stage.attempts), stage.states) == (1, ["connecting", "disconnected"])


@pytest.mark.parametrize("reason", ["connect_error", "io server disconnect", "closed by the server: replaced"])
async def test_who_is_not_wanted_does_not_come_back(reason: str) -> None:
    stage = Stage()
    stage.session.start()
    thread = await stage.arrive()
    await stage.session.ready()
    thread.end(Ended(reason, final=True))
    await advance(100)
    assert (len(stage.attempts), stage.states[-1], stage.reasons) == (1, "disconnected", [reason])
    await stage.session.close()


async def test_pressure_reaches_this_connection_and_the_next() -> None:
    stage = Stage()
    stage.session.start()
    stage.session.press(True)
    await advance()
    assert stage.threads[0].reading  # the handshakes have to be read
    thread = await stage.arrive()
    assert not thread.reading
    stage.session.press(False)
    assert thread.reading
    await stage.session.close()


async def test_closing_that_is_cancelled_leaves_nothing_behind() -> None:
    stage = Stage()
    stage.session.start()
    thread = await stage.arrive()
    thread.answers = False
    closing = asyncio.ensure_future(stage.session.close())
    await advance()
    assert not closing.done()
    closing.cancel()
    await advance()
    assert thread.over.done()


async def test_a_fault_of_the_program_ends_the_client_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()

    async def broken(listener: Listener) -> Wire:
        raise ValueError("a bug")

    stage.session._connect = broken
    stage.session.start()
    await stage.session.ready()
    assert stage.states == ["connecting", "disconnected"]
    assert "a bug" in caplog.text
    await stage.session.close()
