"""The program behind a client: what is done with each event, and who is told."""

import asyncio
from typing import Any, cast

import pytest

from bellwire import Event, EventRefused
from bellwire.client.codec import SocketIOCodec
from bellwire.client.link import Received
from bellwire.client.messages import Messages
from bellwire.client.parcel import Parcel, packet_parcel
from bellwire.client.program import Program, check_handler
from bellwire.client.reports import DeadLetter, Failed, Reset
from bellwire.client.session import Session
from bellwire.client.turns import Outcome
from bellwire.core.counters import Counters
from bellwire.core.errors import PacketError
from bellwire.protocol.outgoing import Outgoing
from bellwire.testing.clock import advance

SAY = Event("say", str)
ASK = Event("ask", str, reply=int)


class Wire:
    """A connection that writes down what it answers."""

    def __init__(self) -> None:
        self.link = self
        self.codec = SocketIOCodec("/")
        self.answers: list[str] = []

    def answer(self, message: Outgoing) -> None:
        self.answers.append(str(message.parts[0]))


class Line:
    """A session with a wire that is none."""

    def __init__(self) -> None:
        self.number = 1
        self.wire: Wire | None = Wire()
        self.pressed: list[bool] = []

    def press(self, pressed: bool) -> None:
        self.pressed.append(pressed)


class Stage:
    def __init__(self) -> None:
        self.line = Line()
        self.counters = Counters()
        self.program = Program("here", cast("Session", self.line), self.counters)
        self.outcomes: list[Outcome] = []

    def event(self, value: Any, event: Event[Any, *tuple[Any, ...]] = SAY) -> Parcel:
        """An event of a stream comes; what became of it is among the outcomes."""
        parcel = packet_parcel(event.name, f'["{event.name}",{value}]', None)
        self.program.event(parcel, self.outcomes.append)
        return parcel

    def call(self, value: Any, event: Event[Any, *tuple[Any, ...]] = ASK, ack: int | None = 7) -> None:
        """An event in no stream comes, and is to be answered."""
        self.program.beside(Received(packet_parcel(event.name, f'["{event.name}",{value}]', None), ack), 1)

    def on(self, event: Event[Any, *tuple[Any, ...]], handler: Any) -> None:
        self.program.handle(self.program.subscribe(event, "on"), handler)

    def messages(self, event: Event[Any, *tuple[Any, ...]]) -> Messages[Any]:
        messages: Messages[Any] = Messages(event.name)
        self.program.subscribe(event, "messages").iterators.add(messages)
        return messages

    @property
    def answers(self) -> list[str]:
        assert self.line.wire is not None
        return self.line.wire.answers


# --- events of streams


async def test_an_event_is_handed_over_when_its_handler_has_ended() -> None:
    stage, go_on = Stage(), asyncio.Event()

    async def handler(text: str) -> None:
        await go_on.wait()

    stage.on(SAY, handler)
    stage.event('"a"')
    await advance()
    assert stage.outcomes == []
    go_on.set()
    await advance()
    assert stage.outcomes == [Outcome()]


@pytest.mark.parametrize(("event", "value"), [(Event("unknown"), '"x"'), (SAY, 5), (SAY, '"a","b"'), (SAY, "[")])
async def test_what_cannot_be_handed_over_is_counted_and_passed(
    event: Event[Any, *tuple[Any, ...]], value: Any
) -> None:
    stage = Stage()
    stage.on(SAY, lambda text: None)
    stage.event(value, event)
    assert stage.outcomes == [Outcome()]
    assert stage.counters.get("events_refused_total") == 1


async def test_an_error_is_the_outcome_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    stage, error = Stage(), ValueError("broken")

    def handler(text: str) -> None:
        raise error

    stage.on(SAY, handler)
    stage.event('"a"')
    assert stage.outcomes == [Outcome(error=error)]
    assert stage.counters.get("handler_errors_total") == 1
    assert "a handler of here failed" in caplog.text


async def test_a_handler_may_refuse_an_event() -> None:
    stage, refusal = Stage(), EventRefused("no", "x")

    def handler(text: str) -> None:
        raise refusal

    stage.on(SAY, handler)
    stage.event('"a"')
    assert stage.outcomes == [Outcome(error=refusal)]
    assert stage.counters.get("events_refused_total") == 1
    assert stage.counters.get("handler_errors_total") == 0


async def test_an_iterator_gets_an_event_once_however_often_it_is_handed_over() -> None:
    stage = Stage()
    messages = stage.messages(SAY)
    parcel = stage.event('"a"')
    stage.program.event(parcel, stage.outcomes.append)
    stage.event('"b"')
    assert (len(stage.outcomes), await anext(messages), await anext(messages)) == (3, "a", "b")
    stage.program.ended()
    with pytest.raises(StopAsyncIteration):
        await anext(messages)


async def test_an_iterator_that_is_full_is_counted() -> None:
    stage = Stage()
    messages = stage.messages(SAY)
    for _ in range(1_030):
        stage.event('"a"')
    reason = {"kind": "event", "reason": "buffer_full", "policy": "oldest_kept"}
    assert stage.counters.get("dropped_total", **reason) == 6
    assert await anext(messages) == "a"


# --- events that may be answered


async def test_answers_go_to_the_connection_that_asked() -> None:
    stage = Stage()
    stage.on(ASK, len)
    stage.call('"four"')
    stage.call('"four"', ack=None)
    assert stage.answers == ["437[4]"]
    stage.line.number = 2
    stage.call('"four"')
    stage.line.wire = None
    stage.call('"four"')
    reason = {"kind": "acknowledgement", "reason": "disconnected", "policy": "at_most_once"}
    assert stage.counters.get("dropped_total", **reason) == 2


@pytest.mark.parametrize(
    ("handler", "value", "code"),
    [
        (lambda text: object(), '"a"', "internal"),
        (lambda text: 1 / 0, '"a"', "internal"),
        (lambda text: None, 5, "invalid_payload"),
        (None, '"a"', "unknown_event"),
    ],
)
async def test_what_cannot_be_answered_is_refused(handler: Any, value: Any, code: str) -> None:
    stage = Stage()
    if handler is not None:
        stage.on(ASK, handler)
    stage.call(value)
    (answer,) = stage.answers
    assert f'"code":"{code}"' in answer


async def test_a_refusal_that_cannot_be_written_is_internal() -> None:
    stage = Stage()

    def handler(text: str) -> int:
        raise EventRefused("no", cast("Any", object()))

    stage.on(ASK, handler)
    stage.call('"a"')
    (answer,) = stage.answers
    assert '"code":"internal"' in answer


async def test_what_is_broken_is_the_connections_fault() -> None:
    stage = Stage()
    stage.on(ASK, len)
    with pytest.raises(PacketError):
        stage.call('"unfinished')


# --- what else it is told


async def test_a_reset_is_over_when_all_its_handlers_are() -> None:
    stage, told, go_on = Stage(), list[Any](), asyncio.Event()

    async def slow(reset: Reset) -> None:
        await go_on.wait()
        told.append(reset)

    def broken(reset: Reset) -> None:
        raise ValueError

    stage.program.on_reset(slow)
    stage.program.on_reset(broken)
    stage.program.reset(Reset("r", "truncated"), stage.outcomes.append)
    await advance()
    assert stage.outcomes == []
    go_on.set()
    await advance()
    assert told == [Reset("r", "truncated")]
    assert len(stage.outcomes) == 1
    assert stage.counters.get("resets_total") == 1


async def test_a_reset_that_nobody_wants_to_hear_of_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.program.reset(Reset("r", "truncated"), stage.outcomes.append)
    assert len(stage.outcomes) == 1
    assert "may be missing: truncated" in caplog.text


async def test_dead_letters_and_failures(caplog: pytest.LogCaptureFixture) -> None:
    stage, told, error = Stage(), list[Any](), ValueError("x")
    stage.on(SAY, lambda text: None)
    failed = Failed("say", EventRefused("no", "x"))
    stage.program.failed(failed)
    assert "'say' was emitted and came to nothing: no: x" in caplog.text
    stage.program.on_dead_letter(told.append)
    stage.program.on_failed(told.append)
    stage.program.dead_letter(packet_parcel("say", '["say","a"]', None), error)
    stage.program.failed(failed)
    assert told == [DeadLetter("say", ("a",), error), failed]
    assert stage.counters.get("dead_letters_total") == 1


async def test_states() -> None:
    stage, told = Stage(), list[Any]()
    stage.program.on_state(told.append)
    stage.program.changed("connecting")
    assert told == ["connecting"]


# --- the end


@pytest.mark.parametrize("stay", [True, False])
async def test_who_leaves_is_handed_nothing_more(stay: bool) -> None:
    stage, told, begun = Stage(), list[Any](), list[Any]()

    async def handler(text: str) -> None:
        begun.append(text)
        await asyncio.Event().wait()

    stage.on(SAY, handler)
    stage.program.on_state(told.append)
    stage.event('"a"')
    stage.event('"b"')
    await advance()
    stage.program.leave(3, stay=stay)
    stage.event('"c"')
    stage.call('"d"', SAY)
    stage.program.changed("disconnected")
    await advance()
    assert (begun, told, stage.outcomes) == (["a"], ["disconnected"], [])
    assert stage.counters.get("handlers_cancelled_total") == 1
    reason = {"kind": "event", "reason": "client_closed", "policy": "at_most_once"}
    assert stage.counters.get("dropped_total", **reason) == (0 if stay else 6)


def test_handlers_are_checked_when_they_are_given() -> None:
    check_handler(lambda a, b: None, 2, "on")
    check_handler(print, 2, "on")
    with pytest.raises(TypeError, match=r"on\('say'\) calls its handler with 1 argument"):
        check_handler(lambda: None, 1, "on('say')")
    with pytest.raises(TypeError, match="takes a function, not int"):
        check_handler(cast("Any", 5), 1, "on")


def test_one_event_has_one_handler_and_one_declaration() -> None:
    stage = Stage()
    stage.on(SAY, print)
    with pytest.raises(ValueError, match="one event, one handler"):
        stage.on(SAY, print)
    with pytest.raises(ValueError, match="declare it once"):
        stage.on(Event("say", int), print)
    with pytest.raises(TypeError, match="declared once and passed as objects"):
        stage.program.subscribe(cast("Any", "say"), "on")
