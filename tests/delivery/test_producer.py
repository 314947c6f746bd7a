"""The producer: its table row by row, and what it owes to the guarantee."""

import pytest

from bellwire.delivery.inbox import WINDOW
from bellwire.delivery.outbox import (
    Emitted,
    MemoryOutbox,
    Passed,
    Pruned,
    Sent,
    State,
    Unsent,
    Withdrawn,
)
from bellwire.delivery.producer import (
    MAX_NUMBER,
    MAX_RETRY_SECONDS,
    Action,
    Fail,
    Producer,
    Prune,
    Resolve,
    RetryAt,
    Send,
    Skip,
    Store,
)

PRODUCER = "0123456789abcdef" * 2


class Client:
    """A producer and its outbox; `wrote` is what went to the connection, `told` what the application heard."""

    def __init__(self, *, events: int = 0, connected: bool = True) -> None:
        self.outbox = MemoryOutbox(PRODUCER)
        self.producer = Producer(self.outbox.state)
        self.wrote: list[Action] = []
        self.told: list[Action] = []
        self.retry_at: float | None = None
        if connected:
            self.do(self.producer.connected("g", 0))
        for _ in range(events):
            self.emit()

    def do(self, actions: list[Action]) -> list[Action]:
        """Do what is asked for, and return what went to the connection."""
        wrote: list[Action] = []
        for action in actions:
            match action:
                case Store(record):
                    self.outbox.store(record)
                case Prune(upto):
                    self.outbox.store(Pruned(upto))
                case Send() | Skip():
                    wrote.append(action)
                case RetryAt(time):
                    self.retry_at = time
                case _:
                    self.told.append(action)
        self.wrote += wrote
        return wrote

    def emit(self, *, call: bool = False) -> list[Action]:
        number, actions = self.producer.emit(b"%d" % (self.outbox.state.last + 1), call=call)
        assert number == self.outbox.state.last + 1
        return self.do(actions)

    def restart(self) -> None:
        self.producer = Producer(self.outbox.state)
        self.do(self.producer.start())

    def reconnect(self, generation: str, last: int) -> list[Action]:
        self.do(self.producer.disconnected())
        return self.do(self.producer.connected(generation, last))

    def nack(self, number: int, expect: int, **more: float) -> list[Action]:
        return self.do(self.producer.nack(number, expect, 100.0, **more))  # type: ignore[arg-type]

    def replied(self, *numbers: int) -> list[Action]:
        return [action for number in numbers for action in self.do(self.producer.replied(number, b"r%d" % number))]


def new(number: int, generation: str = "g") -> Send:
    return Send(number, b"%d" % number, generation, resent=False)


def again(number: int, generation: str = "g") -> Send:
    return Send(number, b"%d" % number, generation, resent=True)


# --- sending


def test_an_event_and_its_mark_are_stored_before_it_is_sent() -> None:
    client = Client()
    number, actions = client.producer.emit(b"hello")
    assert number == 1
    assert actions == [
        Store(Emitted(1, b"hello", False)),
        Store(Sent(1, 1, "g")),
        Send(1, b"hello", "g", resent=False),
    ]


def test_without_a_connection_an_event_is_only_stored() -> None:
    client = Client(connected=False)
    assert client.producer.emit(b"hello", call=True) == (1, [Store(Emitted(1, b"hello", True))])


def test_what_was_stored_is_sent_with_one_mark_for_all() -> None:
    client = Client(events=3, connected=False)
    actions = client.producer.connected("g", 0)
    assert actions == [Store(Sent(1, 3, "g")), new(1), new(2), new(3)]


def test_a_reply_ends_an_event() -> None:
    client = Client(events=1)
    assert client.producer.replied(1, b"reply") == [Resolve(1, b"reply"), Prune(1)]
    assert client.producer.replied(1, b"reply") == []
    assert client.producer.pending == 0


def test_replies_in_another_order_are_pruned_when_those_before_are_over() -> None:
    client = Client(events=3)
    assert client.producer.replied(2, b"") == [Resolve(2, b"")]
    assert client.producer.replied(1, b"") == [Resolve(1, b""), Prune(2)]


@pytest.mark.parametrize("code", ["producer_unknown", "idempotency_mismatch", "outcome_unknown"])
def test_c05_c06_a_refusal_ends_an_event_and_is_told(code: str) -> None:
    client = Client(events=1)
    assert client.producer.refused(1, code) == [Fail(1, code), Prune(1)]  # type: ignore[arg-type]


def test_no_more_than_a_window_is_ahead_of_the_oldest() -> None:
    client = Client(events=WINDOW + 5)
    assert client.wrote == [new(number) for number in range(1, WINDOW + 1)]
    assert client.replied(*range(2, WINDOW)) == []
    assert client.replied(1) == [new(number) for number in range(WINDOW + 1, WINDOW + 6)]


def test_numbers_end_where_json_ends() -> None:
    state = State(PRODUCER)
    state.apply(Passed(MAX_NUMBER))
    with pytest.raises(OverflowError):
        Producer(state).emit(b"")


# --- another connection


def test_c02_what_has_no_reply_is_sent_again_under_its_mark() -> None:
    client = Client(events=3)
    client.replied(2)
    assert client.reconnect("other", 3) == [again(1), again(3)]
    assert [event.sent for event in client.outbox.state.events.values()] == ["g", "g", "g"]


def test_after_the_program_ended_its_events_are_sent_again_and_its_calls_are_over() -> None:
    client = Client(events=1)
    client.emit(call=True)
    client.do(client.producer.disconnected())
    client.emit(call=True)
    client.emit()
    client.restart()
    assert client.told == [Fail(2, "outcome_unknown"), Fail(3, "withdrawn")]
    assert client.do(client.producer.connected("h", 1)) == [again(1), Skip(2, 2), Skip(3, 3), new(4, "h")]


def test_c06_to_a_server_that_forgot_the_finished_ones_they_are_declared() -> None:
    client = Client(events=3)
    client.replied(1, 2)
    assert client.reconnect("other", 0) == [Skip(1, 2), again(3)]


def test_nothing_is_declared_as_long_as_there_is_nothing_to_send() -> None:
    client = Client(events=2)
    client.replied(1, 2)
    assert client.reconnect("other", 0) == []
    assert client.emit() == [Skip(1, 2), new(3, "other")]


def test_c04_after_an_outbox_that_lost_its_end_the_numbers_go_on_behind_the_servers() -> None:
    client = Client(connected=False)
    assert client.producer.connected("g", 7) == [Store(Passed(7))]
    client.outbox.store(Passed(7))
    assert client.emit() == [new(8)]


# --- nacks


def test_a_nack_takes_the_mark_off_what_was_sent_here_first() -> None:
    client = Client(events=1)
    assert client.producer.nack(1, 1, 100.0, retry_after=2.0) == [Store(Unsent(1)), RetryAt(102.0)]
    assert client.producer.tick(101.9) == []
    assert client.producer.tick(102.0) == [Store(Sent(1, 1, "g")), new(1)]


def test_a_nack_leaves_the_mark_on_what_was_sent_elsewhere_before() -> None:
    client = Client(events=1)
    client.reconnect("other", 0)
    assert client.producer.nack(1, 1, 100.0, retry_after=2.0) == [RetryAt(102.0)]
    assert client.do(client.producer.tick(102.0)) == [again(1)]


def test_after_a_nack_all_behind_it_come_back_before_anything_is_sent() -> None:
    client = Client(events=3)
    assert client.nack(1, 1) == []
    assert client.emit() == []
    assert client.nack(2, 1) == []
    assert client.nack(3, 1) == [new(1), new(2), new(3), new(4)]


def test_the_last_nack_sends_when_the_time_is_over() -> None:
    client = Client(events=2)
    client.nack(1, 1, retry_after=2.0)
    assert client.do(client.producer.tick(102.0)) == []
    assert client.nack(2, 1) == [new(1), new(2)]


def test_events_before_a_nack_do_not_keep_it_waiting() -> None:
    client = Client(events=3)
    client.nack(2, 2)
    assert client.nack(3, 2) == [new(2), new(3)]


def test_a_nack_behind_a_finished_event_declares_it() -> None:
    """A failover took back that number 1 was taken; its reply was told and stays."""
    client = Client(events=2)
    client.replied(1)
    assert client.do(client.producer.nack(2, 1, 100.0, generation="other")) == [Skip(1, 1), new(2, "other")]


def test_a_nack_with_another_generation_marks_anew() -> None:
    client = Client(events=1)
    actions = client.producer.nack(1, 1, 100.0, generation="other")
    assert actions == [Store(Unsent(1)), Store(Sent(1, 1, "other")), new(1, "other")]


def test_nacks_without_progress_come_slower_and_slower() -> None:
    client = Client(events=1)
    pauses: list[float] = []
    for _ in range(12):
        client.retry_at = None
        client.nack(1, 1)
        if client.retry_at is not None:
            pauses.append(round(client.retry_at - 100.0, 3))
            client.do(client.producer.tick(client.retry_at))
    assert pauses[:4] == [0.4, 0.8, 1.6, 3.2]
    assert set(pauses[4:]) == {5.0}
    client.replied(1)
    client.emit()
    client.retry_at = None
    assert client.nack(2, 2) == [new(2)]


@pytest.mark.parametrize("seconds", [float("inf"), 1e300])
def test_a_server_cannot_ask_for_ever(seconds: float) -> None:
    client = Client(events=1)
    client.nack(1, 1, retry_after=seconds)
    assert client.retry_at == 100.0 + MAX_RETRY_SECONDS


@pytest.mark.parametrize("expect", [-5, 0, 9])
def test_a_nack_that_expects_nonsense_does_no_harm(expect: int) -> None:
    client = Client(events=1)
    assert client.nack(1, expect)[-1] == new(1)


def test_an_answer_to_nothing_is_passed_over() -> None:
    client = Client(events=1)
    client.replied(1)
    assert client.nack(1, 1) == []
    assert client.nack(5, 1) == []
    assert client.do(client.producer.skipped(5)) == []
    assert client.replied(5) == []
    assert client.emit() == [new(2)]


# --- giving up


def test_a_call_that_was_not_sent_is_withdrawn_and_its_number_skipped() -> None:
    client = Client(connected=False)
    client.emit(call=True)
    client.emit()
    assert client.producer.call_timed_out(1) == [Store(Withdrawn(1)), Fail(1, "withdrawn")]
    assert client.producer.call_timed_out(1) == []
    assert client.do(client.producer.connected("g", 0)) == [Skip(1, 1), new(2)]
    client.do(client.producer.skipped(1))
    assert client.producer.replied(2, b"") == [Resolve(2, b""), Prune(2)]


def test_a_call_that_was_sent_is_an_unknown_outcome_and_its_answer_is_not_told() -> None:
    client = Client()
    client.emit(call=True)
    assert client.producer.call_timed_out(1) == [Store(Withdrawn(1)), Fail(1, "outcome_unknown")]
    assert client.producer.replied(1, b"late") == [Prune(1)]


def test_a_call_that_was_sent_and_given_up_is_not_sent_again() -> None:
    client = Client()
    client.emit(call=True)
    client.do(client.producer.call_timed_out(1))
    assert client.reconnect("g", 0) == [Skip(1, 1)]
    assert client.producer.skipped(1) == [Prune(1)]


def test_a_call_that_was_nacked_is_withdrawn() -> None:
    client = Client()
    client.emit(call=True)
    client.nack(1, 1, retry_after=5.0)
    client.do(client.producer.call_timed_out(1))
    assert client.told == [Fail(1, "withdrawn")]
    assert client.do(client.producer.tick(105.0)) == [Skip(1, 1)]


def test_a_call_that_was_nacked_but_sent_elsewhere_before_is_an_unknown_outcome() -> None:
    client = Client()
    client.emit(call=True)
    client.reconnect("g", 0)
    client.nack(1, 1, retry_after=5.0)
    client.do(client.producer.call_timed_out(1))
    assert client.told == [Fail(1, "outcome_unknown")]


def test_a_skip_that_is_nacked_comes_again_in_its_turn() -> None:
    client = Client(connected=False)
    client.emit()
    client.emit(call=True)
    client.do(client.producer.call_timed_out(2))
    client.do(client.producer.connected("g", 0))
    client.nack(1, 1)
    assert client.nack(2, 1) == [new(1), Skip(2, 2)]


# --- apart from others


def test_c14_two_outboxes_number_apart() -> None:
    first, second = Producer(State("a" * 32)), Producer(State("b" * 32))
    assert (first.emit(b"")[0], first.emit(b"")[0], second.emit(b"")[0]) == (1, 2, 1)
    assert (first.id, second.id) == ("a" * 32, "b" * 32)


@pytest.mark.parametrize("clock", [-1e12, 0.0, 1e12])
def test_c18_a_clock_that_is_years_off_decides_nothing(clock: float) -> None:
    client = Client(events=1)
    assert client.producer.nack(1, 1, clock, retry_after=2.0) == [Store(Unsent(1)), RetryAt(clock + 2.0)]
    assert client.do(client.producer.tick(clock + 1.0)) == []
    assert client.do(client.producer.tick(clock + 2.0)) == [new(1)]
