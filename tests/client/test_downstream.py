"""What a client receives in streams, and what is left for the program after it."""

from typing import Any

from typing_extensions import override

from bellwire import Event, EventRefused
from bellwire.client.codec import RawCodec
from bellwire.client.downstream import LOST, Audience, Downstream, Handed
from bellwire.client.journal import MemoryJournal
from bellwire.client.link import Placed, Received, Welcome, arrived
from bellwire.client.parcel import Parcel, packet_parcel
from bellwire.client.reports import Reset
from bellwire.client.turns import Outcome
from bellwire.core.errors import PacketError
from bellwire.delivery.position import Point, Position
from bellwire.guard.schema import PayloadReader
from bellwire.protocol import wire
from bellwire.protocol.outgoing import Outgoing

SAY = Event("say", int)
READER = PayloadReader(SAY)
CODEC = RawCodec("/", wire.JSON)
GREETED = Welcome("s", "secret")


class Lasting(MemoryJournal):
    """A journal that the next program finds."""

    outlives = True


class Program(Audience):
    """An application that writes down what it is told, and is done with it at once or when the test says so."""

    def __init__(self, *, slow: bool = False) -> None:
        self.told: list[Any] = []
        self.slow = slow
        self.waiting: list[Handed] = []
        self.fails: dict[int, int] = {}

    def take(self, what: Any, handed: Handed) -> None:
        self.told.append(what)
        if self.slow:
            self.waiting.append(handed)
        elif self.fails.get(what, 0):
            self.fails[what] -= 1
            handed(Outcome(error=RuntimeError(f"no. {what}")))
        else:
            handed(Outcome())

    def done(self, error: BaseException | None = None) -> None:
        self.waiting.pop(0)(Outcome(error=error))

    @override
    def event(self, parcel: Parcel, handed: Handed) -> None:
        self.take(parcel.read(READER)[0], handed)

    @override
    def beside(self, event: Received, connection: int) -> None:
        if event.parcel.name == "broken":
            raise PacketError("cannot be read")
        self.told.append((event.parcel.read(READER)[0], connection))

    @override
    def reset(self, reset: Reset, handed: Handed) -> None:
        self.take(reset, handed)

    @override
    def dead_letter(self, parcel: Parcel, error: BaseException) -> None:
        self.told.append((parcel.read(READER)[0], str(error)))


class Line:
    """What the client writes."""

    writable = True

    def __init__(self) -> None:
        self.sent: list[wire.ClientMessage] = []

    def send(self, message: Outgoing) -> None:
        self.sent.append(wire.parse(message.parts[0]))

    def abort(self, reason: str) -> None:
        raise AssertionError


class Stage:
    def __init__(self, journal: MemoryJournal | None = None, *, slow: bool = False) -> None:
        self.journal = MemoryJournal() if journal is None else journal
        self.program = Program(slow=slow)
        self.down = Downstream(self.journal, CODEC, self.program)
        self.line = Line()
        self.down.joined(self.line, CODEC, GREETED)

    def open(self, *streams: str, seq: int = 0) -> None:
        for stream in streams:
            self.down.take(wire.Open("/", stream, alias_of(stream), "g", seq, 100 + seq))

    def send(self, seq: int, stream: str = "r", prev: int | None = None) -> None:
        """The server sends an event, which says its own number."""
        before = Point(seq - 1 if prev is None else prev, 100 + (seq - 1 if prev is None else prev))
        entry = arrived(seq, 100 + seq, before, f"{stream}-{seq}", parcel(seq))
        self.down.take(Placed(alias_of(stream), "g", before, entry))


def alias_of(stream: str) -> int:
    """What the server calls a stream in its events."""
    return int.from_bytes(stream.encode())


def parcel(number: int, name: str = "say") -> Parcel:
    return packet_parcel(name, f'["{name}",{number}]', None)


def test_events_are_handed_over_in_order_and_a_gap_is_asked_for() -> None:
    stage = Stage()
    stage.open("r")
    stage.send(1)
    stage.send(3)
    assert stage.line.sent == [wire.Ask("r", "g", 1, 101)]
    stage.down.take(wire.Proved("r", alias_of("r"), "g", 1, 101))
    stage.send(2)
    assert stage.program.told == [1, 2, 3]
    assert stage.down.cursors() == (wire.Cursor("r", "g", 3, 103),)


def test_a_stream_is_called_otherwise_on_the_next_connection() -> None:
    stage = Stage()
    stage.open("r", "t")
    stage.send(1)
    stage.down.lost()
    stage.down.joined(stage.line, CODEC, GREETED)
    stage.send(2)
    assert (stage.program.told, stage.down.ignored) == ([1], 1)
    stage.down.take(wire.Proved("r", alias_of("t"), "g", 1, 101))
    stage.down.take(wire.Reset("t", alias_of("r"), "truncated", "g", 1, 101))
    stage.send(2, "t")
    stage.send(2, "r")
    assert stage.program.told == [1, Reset("t", "truncated"), 2, 2]
    assert stage.down.cursors() == (wire.Cursor("r", "g", 2, 102), wire.Cursor("t", "g", 2, 102))
    assert stage.line.sent == []


def test_what_a_closed_stream_was_called_is_not_its_name_any_more() -> None:
    stage = Stage()
    stage.open("r", "t")
    stage.down.take(wire.Close("r"))
    stage.send(1)
    stage.down.take(wire.Open("/", "t", alias_of("r"), "g", 0, 100))
    stage.send(1)
    assert (stage.program.told, stage.down.ignored) == ([1], 1)
    assert stage.down.cursors()[0] == wire.Cursor("t", "g", 1, 101)


def test_without_a_connection_nothing_is_asked() -> None:
    stage = Stage(slow=True)
    stage.open("r")
    for number in range(1, 1_003):
        stage.send(number)
    stage.down.lost()
    while stage.program.waiting:
        stage.program.done()
    assert stage.line.sent == []
    assert len(stage.program.told) == 1_001  # the last one was left in the log


def test_an_event_waits_for_the_one_before_but_not_for_other_streams() -> None:
    stage = Stage(slow=True)
    stage.open("r", "t")
    stage.send(1)
    stage.send(2)
    stage.send(1, "t")
    assert (stage.program.told, stage.down.waiting) == ([1, 1], 1)
    stage.program.done()
    assert stage.program.told == [1, 1, 2]


def test_many_events_at_once_are_no_recursion() -> None:
    stage = Stage(slow=True)
    stage.open("r")
    for number in range(1, 900):
        stage.send(number)
    stage.program.slow = False
    stage.program.done()
    assert stage.program.told == list(range(1, 900))


def test_a_failing_handler_gets_it_three_times() -> None:
    stage = Stage()
    stage.program.fails = {1: 2, 2: 99}
    stage.open("r")
    for number in (1, 2, 3):
        stage.send(number)
    assert stage.program.told == [1, 1, 1, 2, 2, 2, (2, "no. 2"), 3]
    assert stage.down._errors == {}


def test_a_handler_that_says_no_has_handled_it() -> None:
    stage = Stage(slow=True)
    stage.open("r")
    stage.send(1)
    stage.program.done(EventRefused("no", "x"))
    stage.send(2)
    assert stage.program.told == [1, 2]


def test_a_reset_is_told_before_anything_newer() -> None:
    stage = Stage(slow=True)
    stage.open("r")
    stage.down.take(wire.Reset("r", alias_of("r"), "truncated", "g", 8, 108))
    stage.send(9)
    assert stage.program.told == [Reset("r", "truncated")]
    stage.program.done(RuntimeError("the handler of resets"))
    assert stage.program.told == [Reset("r", "truncated"), 9]


def test_the_end_of_a_stream() -> None:
    stage = Stage(slow=True)
    stage.open("r")
    stage.send(1)
    stage.down.take(wire.Close("r", "forbidden"))
    stage.send(2)
    assert stage.down.ignored == 1
    stage.program.done()
    assert stage.program.told == [1, Reset("r", "forbidden")]
    stage.program.done()
    assert stage.down.cursors() == (wire.Cursor("r", "g", 1, 101),)
    stage.down.lost()
    stage.down.joined(stage.line, CODEC, Welcome("s", "secret", resumed=True))
    assert stage.down.cursors() == ()


def test_being_told_where_one_stands() -> None:
    stage = Stage()
    stage.open("r")
    stage.down.take(wire.Advance("r", 0, 100, "h", 7, 107))
    assert stage.down.cursors() == (wire.Cursor("r", "h", 7, 107),)


def test_an_event_in_no_stream_has_its_turn_if_it_says_so() -> None:
    stage = Stage(slow=True)
    stage.open("r")
    stage.send(1)
    stage.down.received(Received(parcel(20), None), 1)
    stage.down.received(Received(parcel(21), None, wire.After("r", 1, 101)), 2)
    stage.down.received(Received(parcel(22), None, wire.After("not open", 1, 101)), 3)
    assert stage.program.told == [1, (20, 1), (22, 3)]
    stage.program.done()
    assert stage.program.told[3:] == [(21, 2)]


def test_one_that_cannot_be_read_when_its_turn_comes_is_passed_over() -> None:
    stage = Stage(slow=True)
    stage.open("r")
    stage.send(1)
    stage.send(2)
    stage.down.received(Received(parcel(0, "broken"), None, wire.After("r", 1, 101)), 1)
    stage.program.done()
    stage.program.done()
    assert stage.program.told == [1, 2]


# --- sessions


def test_a_session_is_resumed_behind_what_arrived() -> None:
    stage = Stage(slow=True)
    stage.open("r")
    stage.send(1)
    stage.send(2)
    stage.down.lost()
    assert (stage.down.session, stage.down.cursors()) == ("secret", (wire.Cursor("r", "g", 2, 102),))
    stage.down.joined(stage.line, CODEC, Welcome("s", "next", resumed=True))
    assert stage.down.session == "next"
    stage.down.take(wire.Proved("r", alias_of("r"), "g", 2, 102))
    stage.send(3)
    stage.program.done()
    stage.program.done()
    assert stage.program.told == [1, 2, 3]


def test_a_server_without_sessions_ends_all_streams() -> None:
    stage = Stage()
    stage.open("r", "t")
    stage.down.lost()
    stage.down.joined(stage.line, CODEC, Welcome("s"))
    assert stage.program.told == [Reset("r", LOST), Reset("t", LOST)]
    assert (stage.down.session, stage.down.cursors()) == (None, ())


def test_more_streams_than_can_be_resumed() -> None:
    stage = Stage()
    stage.open(*map(str, range(1_030)))
    assert len(stage.down.cursors()) == 1_024
    assert stage.program.told == [Reset(str(number), LOST) for number in range(1_024, 1_030)]
    assert len(stage.down.cursors()) == 1_024


def test_the_next_program_goes_on_behind_what_was_handled() -> None:
    stage = Stage(Lasting(), slow=True)
    stage.open("r", "t")
    for number in (1, 2, 3):
        stage.send(number)
    stage.program.done()
    again = Downstream(stage.journal, CODEC, Program())
    assert again.session == "secret"
    assert set(again.cursors()) == {wire.Cursor("r", "g", 1, 101), wire.Cursor("t", "g", 0, 100)}


def test_a_closed_stream_is_kept_until_all_of_it_was_handled() -> None:
    stage = Stage(Lasting(), slow=True)
    stage.open("r")
    stage.send(1)
    stage.send(2)
    stage.down.take(wire.Close("r"))
    stage.program.done()
    assert stage.journal.state.cursors == {"r": Position("g", 1, 101)}
    stage.program.done()
    assert stage.journal.state.cursors == {"r": Position("g", 2, 102)}


def test_a_closed_stream_is_kept_until_the_server_knows_that_it_is() -> None:
    stage = Stage(Lasting())
    stage.open("r")
    stage.send(1)
    assert stage.down.cursors() == (wire.Cursor("r", "g", 1, 101),)  # on a connection that fails
    stage.send(2)
    stage.down.take(wire.Close("r"))
    stage.down.lost()
    stage.down.joined(stage.line, CODEC, Welcome("s", "secret", resumed=True))
    assert stage.journal.state.cursors == {"r": Position("g", 2, 102)}
    assert stage.down.cursors() == (wire.Cursor("r", "g", 2, 102),)
    stage.down.joined(stage.line, CODEC, Welcome("s", "secret", resumed=True))
    assert stage.journal.state.cursors == {}
    assert stage.down.cursors() == ()


def test_a_session_that_is_over_leaves_nothing() -> None:
    stage = Stage(Lasting())
    stage.open("r")
    stage.send(1)
    assert stage.journal.state.cursors
    stage.down.forget()
    stage.down.forget()
    assert (stage.journal.state.session, stage.journal.state.cursors) == (None, {})
    stage.send(2)
    assert stage.journal.state.cursors == {}


def test_the_memory_is_not_written_for_nobody() -> None:
    stage = Stage()
    stage.open("r")
    stage.send(1)
    assert stage.journal.state.cursors == {}
