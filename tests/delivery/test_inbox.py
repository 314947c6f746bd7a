"""The inbox: one test for each row of its table, for each that writes who may write, and its corner cases."""

import dataclasses
from dataclasses import dataclass

import msgspec
import pytest

from bellwire.core.errors import BellwireError
from bellwire.delivery.effects import APPEND_SECONDS, DEDUPE_SECONDS, RULES, Effect, Emission
from bellwire.delivery.inbox import (
    GREETED_SECONDS,
    HELD_BYTES,
    LEASE_SECONDS,
    RECORD_SECONDS,
    WINDOW,
    Answer,
    Arrival,
    Complete,
    Connected,
    Decision,
    Nack,
    Record,
    Refuse,
    Relaying,
    Run,
    Skipped,
    Started,
    Verdict,
    View,
    Wait,
    commit,
    complete,
    connect,
    decode_record,
    encode_record,
    finish,
    lifetime,
    receive,
    renew,
    settle,
    skip,
    unfinished,
)

EMISSIONS = (Emission(("room",), b"hello"),)
LEASED: list[Effect] = ["transactional", "at_most_once", "at_least_once"]


def digest(payload: bytes) -> bytes:
    return payload.ljust(16, b".")


@dataclass
class Inbox:
    """A record, and what is asked of it one after the other; what is decided is stored at once."""

    record: Record | None = None
    now: float = 1000.0
    lease: str = "mine"
    generation: str = "broker"
    born: str = "birth"

    def connect(self) -> Connected:
        view = View(self.generation, self.now, self.born)
        connected, self.record = connect(self._reread(), view)
        return connected

    def by(self, lease: str, after: float = 0.0) -> "Inbox":
        """Ask as somebody else, later."""
        return dataclasses.replace(self, lease=lease, now=self.now + after)

    @property
    def view(self) -> View:
        return View(self.generation, self.now, self.lease)

    def receive(self, number: int, effect: Effect = "at_most_once", payload: bytes = b"x", resent: str = "") -> Verdict:
        return self._store(receive(self._reread(), self.arrival(number, effect, payload, resent), self.view))

    def arrival(self, number: int, effect: Effect, payload: bytes = b"x", resent: str = "") -> Arrival:
        return Arrival(number, digest(payload), effect, resent or "broker.birth", bool(resent))

    def commit(self, number: int, reply: bytes, emissions: tuple[Emission, ...] = EMISSIONS) -> Verdict:
        return self._store(commit(self._reread(), self.arrival(number, "relay"), reply, emissions, self.view))

    def finish(self, number: int, reply: bytes) -> Verdict:
        return self._store(finish(self._reread(), number, reply, self.view))

    def run(self, number: int, payload: bytes = b"x", reply: bytes = b"done") -> None:
        assert self.receive(number, payload=payload) == Run(again=False)
        assert self.finish(number, reply) == Answer(reply)

    def skip(self, first: int, upto: int) -> Verdict:
        return self._store(skip(self._reread(), first, upto, self.view))

    def _store(self, decision: Decision) -> Verdict:
        verdict, changed = decision
        self.record = changed or self.record
        return verdict

    def _reread(self) -> Record | None:
        return None if self.record is None else decode_record(encode_record(self.record))


@pytest.fixture
def inbox() -> Inbox:
    inbox = Inbox()
    inbox.connect()
    return inbox


# --- greeting


def test_a_new_producer_has_a_record_from_the_moment_it_connects() -> None:
    inbox = Inbox()
    assert inbox.connect() == Connected("broker.birth", 0)
    assert inbox.record is not None


def test_a_known_producer_is_told_the_last_number_under_the_same_birth(inbox: Inbox) -> None:
    inbox.run(1)
    inbox.born = "other"
    assert inbox.connect() == Connected("broker.birth", 1)


def test_a_record_lives_long_once_something_is_in_it(inbox: Inbox) -> None:
    assert inbox.record is not None
    assert lifetime(inbox.record) == GREETED_SECONDS
    inbox.run(1)
    assert lifetime(inbox.record) == RECORD_SECONDS == 86_400


# --- the number that is expected


@pytest.mark.parametrize("effect", LEASED)
def test_the_next_number_is_started_before_it_runs(inbox: Inbox, effect: Effect) -> None:
    assert inbox.receive(1, effect) == Run(again=False)
    assert inbox.record is not None
    assert inbox.record.last == 1
    assert inbox.record.open == Started(digest(b"x"), effect, "mine", inbox.now + LEASE_SECONDS)


def test_of_a_relay_nothing_is_stored_before_it_has_run(inbox: Inbox) -> None:
    before = inbox.record
    assert inbox.receive(1, "relay") == Run(again=False)
    assert inbox.record == before


def test_c04_a_gap_is_named_and_never_jumped(inbox: Inbox) -> None:
    inbox.run(1)
    before = inbox.record
    assert inbox.receive(3) == Nack(2, "broker.birth")
    assert inbox.receive(99) == Nack(2, "broker.birth")
    assert inbox.record == before


def test_c04_a_declared_gap_is_passed(inbox: Inbox) -> None:
    inbox.run(1)
    assert inbox.skip(2, 5) == Skipped(5)
    inbox.run(6)
    assert inbox.receive(4, resent="broker.birth") == Refuse("producer_unknown")


# --- numbers taken before


def test_c02_a_lost_reply_is_given_again_with_the_same_bytes(inbox: Inbox) -> None:
    inbox.run(1, reply=b'{"n":1}')
    before = inbox.record
    assert inbox.receive(1, resent="broker.birth") == Answer(b'{"n":1}')
    assert inbox.by("other node", after=80_000).receive(1, resent="broker.birth") == Answer(b'{"n":1}')
    assert inbox.record == before


def test_c05_the_same_number_with_another_payload_does_nothing(inbox: Inbox) -> None:
    inbox.run(1, b"x")
    assert inbox.receive(1, payload=b"y") == Refuse("idempotency_mismatch")
    assert inbox.receive(2, payload=b"x") == Run(again=False)
    before = inbox.record
    assert inbox.receive(2, payload=b"y") == Refuse("idempotency_mismatch")
    assert inbox.record == before


def test_c06_outcomes_are_held_for_a_window_and_older_ones_are_unknown(inbox: Inbox) -> None:
    for number in range(1, WINDOW + 2):
        inbox.run(number, reply=b"%d" % number)
    assert inbox.receive(1) == Refuse("producer_unknown")
    for number in range(2, WINDOW + 2):
        assert inbox.receive(number) == Answer(b"%d" % number)


def test_c06_after_its_record_expired_a_producer_is_told_and_nothing_runs_twice(inbox: Inbox) -> None:
    inbox.run(1)
    inbox.record, inbox.born = None, "second"
    assert inbox.connect() == Connected("broker.second", 0)
    assert inbox.receive(1, resent="broker.birth") == Refuse("producer_unknown")
    assert inbox.receive(1, resent="broker.birth") == Refuse("producer_unknown")
    assert inbox.receive(2, resent="broker.second") == Run(again=False)


def test_a_record_that_expires_under_a_live_connection_is_made_again_and_says_so(inbox: Inbox) -> None:
    inbox.record = None
    assert inbox.receive(7) == Nack(1, "broker.mine")
    assert inbox.record == Record(1, "mine")


def test_an_event_sent_to_a_state_that_is_gone_never_runs(inbox: Inbox) -> None:
    inbox.run(9 - 8)
    inbox.generation = "after a failover"
    assert inbox.receive(2, resent="broker.birth") == Refuse("outcome_unknown")
    assert inbox.receive(2, resent="broker.birth") == Refuse("outcome_unknown")
    assert inbox.receive(3, resent="after a failover.birth") == Run(again=False)


def test_a_new_event_under_the_wrong_mark_is_turned_away_once(inbox: Inbox) -> None:
    inbox.generation = "after a failover"
    before = inbox.record
    assert inbox.receive(1) == Nack(1, "after a failover.birth")
    assert inbox.record == before


def test_outcomes_are_held_up_to_a_number_of_bytes_the_newest_always(inbox: Inbox) -> None:
    inbox.run(1, reply=b"small")
    inbox.run(2, reply=bytes(HELD_BYTES // 2))
    inbox.run(3, reply=bytes(HELD_BYTES // 2))
    assert inbox.receive(1) == Refuse("producer_unknown")
    assert inbox.receive(2) == Answer(bytes(HELD_BYTES // 2))
    inbox.run(4, reply=bytes(HELD_BYTES * 2))
    assert inbox.receive(3) == Refuse("producer_unknown")
    assert inbox.receive(4) == Answer(bytes(HELD_BYTES * 2))


# --- the open number


@pytest.mark.parametrize("effect", LEASED)
def test_c03_a_retry_on_another_node_waits_while_the_first_runs(inbox: Inbox, effect: Effect) -> None:
    inbox.receive(1, effect)
    other = inbox.by("other", after=LEASE_SECONDS - 1)
    assert other.receive(1, effect, resent="broker.birth") == Wait(inbox.now + LEASE_SECONDS)
    assert other.receive(2, effect) == Wait(inbox.now + LEASE_SECONDS)
    inbox.finish(1, b"reply")
    other.record = inbox.record
    assert other.receive(1, effect, resent="broker.birth") == Answer(b"reply")


def test_c01_a_crash_in_a_plain_handler_is_an_unknown_outcome(inbox: Inbox) -> None:
    inbox.receive(1, "at_most_once")
    other = inbox.by("other", after=LEASE_SECONDS)
    assert other.receive(1, resent="broker.birth") == Refuse("outcome_unknown")
    assert other.receive(1, resent="broker.birth") == Refuse("outcome_unknown")
    assert other.receive(2) == Run(again=False)


@pytest.mark.parametrize("effect", ["transactional", "at_least_once"])
def test_c01_a_crash_in_a_handler_that_may_run_again_runs_it_again(inbox: Inbox, effect: Effect) -> None:
    inbox.receive(1, effect)
    other = inbox.by("other", after=LEASE_SECONDS)
    assert other.receive(2, effect) == Nack(1, "broker.birth")
    assert other.receive(1, effect, resent="broker.birth") == Run(again=True)
    assert other.receive(1, effect, resent="broker.birth") == Run(again=True), "its own write, read back"
    assert other.by("third").receive(1, effect, resent="broker.birth") == Wait(other.now + LEASE_SECONDS)


def test_a_handler_that_was_given_another_effect_meanwhile_does_not_run_again(inbox: Inbox) -> None:
    inbox.receive(1, "at_least_once")
    other = inbox.by("other", after=LEASE_SECONDS)
    assert other.receive(1, "relay", resent="broker.birth") == Refuse("outcome_unknown")


def test_a_write_whose_answer_was_lost_is_recognised(inbox: Inbox) -> None:
    assert inbox.receive(1) == Run(again=False)
    inbox.now += LEASE_SECONDS - 1
    assert inbox.receive(1) == Run(again=False)
    assert inbox.by("other", after=LEASE_SECONDS - 1).receive(1) == Wait(inbox.now + LEASE_SECONDS)
    assert inbox.finish(1, b"reply") == Answer(b"reply")
    assert inbox.finish(1, b"reply") == Answer(b"reply")


def test_a_process_that_was_stopped_and_wakes_writes_nothing(inbox: Inbox) -> None:
    inbox.receive(1)
    other = inbox.by("other", after=LEASE_SECONDS)
    assert other.receive(1, resent="broker.birth") == Refuse("outcome_unknown")
    inbox.record = other.record
    assert inbox.finish(1, b"late") == Refuse("outcome_unknown")
    assert inbox.record == other.record


def test_a_process_that_was_stopped_leaves_the_outcome_to_who_took_over(inbox: Inbox) -> None:
    inbox.receive(1, "at_least_once")
    other = inbox.by("other", after=LEASE_SECONDS)
    other.receive(1, "at_least_once", resent="broker.birth")
    inbox.record, inbox.now = other.record, other.now
    assert inbox.finish(1, b"late") == Wait(other.now + LEASE_SECONDS)
    assert inbox.record == other.record
    assert inbox.by("mine", after=LEASE_SECONDS).finish(1, b"late") == Wait(other.now + LEASE_SECONDS)
    assert other.finish(1, b"second") == Answer(b"second")
    inbox.record = other.record
    assert inbox.finish(1, b"late") == Answer(b"second")


def test_what_a_failover_took_back_is_not_written_again(inbox: Inbox) -> None:
    before = inbox.record
    inbox.receive(1)
    inbox.record = before
    assert inbox.finish(1, b"reply") == Refuse("outcome_unknown")
    assert inbox.record == before
    inbox.record = None
    assert inbox.finish(1, b"reply") == Refuse("outcome_unknown")


def test_a_lease_is_renewed_by_its_owner_only(inbox: Inbox) -> None:
    inbox.receive(1)
    later = View("broker", inbox.now + 20, "mine")
    renewed, record = renew(inbox.record, 1, later)
    assert renewed
    assert record is not None
    assert record.open == Started(digest(b"x"), "at_most_once", "mine", inbox.now + 20 + LEASE_SECONDS)
    assert renew(record, 1, View("broker", inbox.now, "other")) == (False, None)
    assert renew(record, 2, later) == (False, None)
    assert renew(None, 1, later) == (False, None)


# --- refusals without a handler


def test_a_refusal_takes_the_number_and_is_given_again(inbox: Inbox) -> None:
    verdict, inbox.record = settle(inbox.record, inbox.arrival(1, "relay"), b"refused", inbox.view)
    assert verdict == Answer(b"refused")
    assert inbox.receive(1) == Answer(b"refused")
    inbox.run(2)


def test_a_refusal_waits_for_its_turn_as_well(inbox: Inbox) -> None:
    assert settle(inbox.record, inbox.arrival(2, "relay"), b"refused", inbox.view) == (Nack(1, "broker.birth"), None)


def test_an_event_that_may_have_run_is_not_called_refused(inbox: Inbox) -> None:
    inbox.receive(1, "at_least_once")
    other = inbox.by("other", after=LEASE_SECONDS)
    arrival = inbox.arrival(1, "at_least_once", resent="broker.birth")
    verdict, _ = settle(inbox.record, arrival, b"refused", other.view)
    assert verdict == Refuse("outcome_unknown")


# --- relays


def test_a_relay_is_one_record_and_the_first_to_write_decides(inbox: Inbox) -> None:
    inbox.receive(1, "relay")
    other = inbox.by("other", after=1)
    other.receive(1, "relay")
    relay = Relaying(digest(b"x"), b"first", EMISSIONS, inbox.now)
    assert inbox.commit(1, b"first") == Complete(1, relay)
    other.record = inbox.record
    assert other.commit(1, b"second") == Complete(1, relay)
    assert other.record == inbox.record


def test_a_relay_without_emissions_is_done_at_once(inbox: Inbox) -> None:
    assert inbox.commit(1, b"reply", ()) == Answer(b"reply")
    assert inbox.receive(1, "relay") == Answer(b"reply")


def test_c01_any_node_completes_a_relay_and_the_next_number_waits_for_it(inbox: Inbox) -> None:
    inbox.commit(1, b"reply")
    other = inbox.by("other", after=APPEND_SECONDS - 1)
    expected = Complete(1, Relaying(digest(b"x"), b"reply", EMISSIONS, inbox.now))
    assert other.receive(1, "relay", resent="broker.birth") == expected
    assert other.receive(2) == expected
    assert unfinished(other.record, other.view) == (expected, None)
    verdict, other.record = complete(other.record, 1, expected.relay, other.view)
    assert verdict == Answer(b"reply")
    assert complete(other.record, 1, expected.relay, inbox.view) == (Answer(b"reply"), None)
    assert unfinished(other.record, other.view) == (None, None)
    assert other.receive(1, "relay", resent="broker.birth") == Answer(b"reply")
    assert other.receive(2) == Run(again=False)


def test_beyond_its_deadline_a_relay_is_only_waited_for(inbox: Inbox) -> None:
    inbox.commit(1, b"reply")
    late = inbox.by("other", after=APPEND_SECONDS)
    end = inbox.now + DEDUPE_SECONDS
    assert late.receive(1, "relay") == Wait(end)
    assert late.receive(2) == Wait(end)
    assert unfinished(late.record, late.view) == (Wait(end), None)


def test_beyond_the_dedupe_window_a_relay_is_an_unknown_outcome(inbox: Inbox) -> None:
    verdict = inbox.commit(1, b"reply")
    assert isinstance(verdict, Complete)
    lost = inbox.by("other", after=DEDUPE_SECONDS)
    nothing, closed = unfinished(lost.record, lost.view)
    assert nothing is None
    assert closed is not None
    assert lost.receive(2) == Run(again=False)
    assert lost.receive(1, "relay") == Refuse("outcome_unknown")
    assert complete(lost.record, 1, verdict.relay, inbox.view) == (Refuse("outcome_unknown"), None)


def test_a_relay_of_another_history_is_not_closed(inbox: Inbox) -> None:
    inbox.commit(1, b"reply")
    other = Relaying(digest(b"other"), b"", (), 0.0)
    verdict, changed = complete(inbox.record, 1, other, inbox.view)
    assert isinstance(verdict, Complete)
    assert changed is None


# --- numbers given up


def test_what_runs_is_waited_for_before_it_is_skipped(inbox: Inbox) -> None:
    inbox.receive(1)
    assert inbox.by("other").skip(1, 1) == Wait(inbox.now + LEASE_SECONDS)
    inbox.finish(1, b"reply")
    assert inbox.skip(1, 1) == Skipped(1)
    assert inbox.receive(1) == Answer(b"reply")


@pytest.mark.parametrize("effect", LEASED)
def test_what_died_is_skipped_as_an_unknown_outcome(inbox: Inbox, effect: Effect) -> None:
    inbox.receive(1, effect)
    other = inbox.by("other", after=LEASE_SECONDS)
    assert other.skip(1, 3) == Skipped(3)
    assert other.receive(1, effect) == Refuse("outcome_unknown")
    assert other.receive(4) == Run(again=False)


def test_what_may_run_again_and_was_not_given_up_is_asked_for(inbox: Inbox) -> None:
    inbox.receive(1, "at_least_once")
    assert inbox.by("other", after=LEASE_SECONDS).skip(2, 3) == Nack(1, "broker.birth")


def test_a_relay_is_completed_before_it_is_skipped(inbox: Inbox) -> None:
    inbox.commit(1, b"reply")
    assert isinstance(inbox.skip(1, 2), Complete)


def test_numbers_behind_a_gap_are_not_skipped(inbox: Inbox) -> None:
    before = inbox.record
    assert inbox.skip(2, 9) == Nack(1, "broker.birth")
    assert inbox.record == before


def test_to_skip_what_was_taken_changes_nothing(inbox: Inbox) -> None:
    inbox.run(1)
    before = inbox.record
    assert inbox.skip(1, 1) == Skipped(1)
    assert inbox.record == before


def test_a_new_record_can_begin_with_numbers_given_up() -> None:
    inbox = Inbox()
    assert inbox.skip(1, 5000) == Skipped(5000)
    assert inbox.record == Record(1, "mine", 5000)


# --- what is stored


def test_c18_only_the_brokers_time_is_in_a_record() -> None:
    """A client gives a number, a payload and a mark; there is no place for its clock."""
    assert Arrival.__struct_fields__ == ("number", "digest", "effect", "generation", "resent")


@pytest.mark.parametrize("effect", sorted(RULES))
def test_a_record_reads_back_as_it_was_written(inbox: Inbox, effect: Effect) -> None:
    inbox.run(1)
    inbox.receive(2, effect)
    inbox.commit(2, b"reply")
    assert inbox.record is not None
    assert decode_record(encode_record(inbox.record)) == inbox.record


def test_a_record_that_cannot_be_read_is_not_taken_for_none(inbox: Inbox) -> None:
    assert inbox.record is not None
    with pytest.raises(BellwireError, match="version 2"):
        decode_record(encode_record(msgspec.structs.replace(inbox.record, version=2)))
    for data in (b"", b"\xc1", b"[]", encode_record(inbox.record)[:-1]):
        with pytest.raises(BellwireError, match="cannot be read"):
            decode_record(data)
