"""What a client sends, through connections that break at any point, with a server that answers, or forgets."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from typing_extensions import override

from bellwire import CallTimeout, Disconnected, Event, EventRefused
from bellwire.client.codec import RawCodec, SocketIOCodec
from bellwire.client.journal import Done, MemoryJournal
from bellwire.client.upstream import Upstream
from bellwire.core.errors import BellwireError, MessageTooLarge, OutcomeUnknown
from bellwire.delivery.outbox import OutboxRecord
from bellwire.protocol import wire
from bellwire.testing.clock import advance
from tests.client.desk import LIMIT, told
from tests.client.stage import ASK, SAY, TICK, Stage


class Slow(MemoryJournal):
    """A journal whose writes take as long as the test wants, and fail as often."""

    outlives = True

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[tuple[Sequence[OutboxRecord], Done]] = []

    @override
    def write(self, records: Sequence[OutboxRecord], done: Done) -> None:
        assert not self.writes  # one at a time
        self.writes.append((list(records), done))

    def finish(self, error: OSError | None = None) -> int:
        """End the write that is under way; return how many records it had."""
        records, done = self.writes.pop()
        if error is None:
            for record in records:
                self.state.apply(record)
        done(error)
        return len(records)

    def settle(self) -> None:
        while self.writes:
            self.finish()


async def test_events_have_numbers_and_take_effect_in_order() -> None:
    stage = Stage()
    await stage.up.emit(SAY, ("before",))
    line = stage.join()
    for number in range(100):
        await stage.up.emit(SAY, (str(number),))
    assert len(line.sent) == 32
    call = stage.ask("four")
    await advance()
    line.work()
    assert await call == 102
    assert stage.heard == ["before", *map(str, range(100)), "four"]
    assert (stage.failed, stage.up.dialect) == ([], None)
    assert not stage.journal.state.events


async def test_what_is_not_answered_is_sent_again_and_takes_effect_once() -> None:
    stage = Stage()
    line = stage.join()
    for text in "abc":
        await stage.up.emit(SAY, (text,))
    call = stage.ask("d")
    await advance()
    line.read(2)
    line.cut()
    line = stage.join()
    assert [message.resent for message in line.sent if isinstance(message, wire.NumberedEvent)] == [True] * 4
    line.work()
    assert await call == 4
    assert stage.heard == list("abcd")


async def test_a_refusal_of_an_emit_is_reported_and_that_of_a_call_raised() -> None:
    stage = Stage()
    stage.desk.refuses = {"say": {"code": "no", "message": "not this"}, "ask": {"code": "busy", "message": "later"}}
    line = stage.join()
    await stage.up.emit(SAY, ("x",))
    call = stage.ask("y")
    await advance()
    line.work()
    with pytest.raises(EventRefused, match="busy: later"):
        await call
    assert [(failed.event, str(failed.error)) for failed in stage.failed] == [("say", "no: not this")]
    assert stage.counters.get("emits_failed_total") == 1


async def test_a_server_that_forgot_everything_leaves_the_outcome_unknown() -> None:
    stage = Stage()
    line = stage.join()
    await stage.up.emit(SAY, ("a",))
    call = stage.ask("b")
    await advance()
    line.read()
    line.cut()
    stage.desk.forget("g2")
    stage.join().work()
    with pytest.raises(OutcomeUnknown, match="'ask' may have been handled or not"):
        await call
    assert [type(failed.error) for failed in stage.failed] == [OutcomeUnknown]
    assert stage.heard == ["a", "b"]


async def test_a_number_whose_record_is_gone_is_told_apart() -> None:
    stage = Stage()
    line = stage.join()
    call = stage.ask("b")
    await advance()
    line.cut()
    stage.desk.last = 1
    stage.join().work()
    with pytest.raises(EventRefused) as refused:
        await call
    assert refused.value.code == "producer_unknown"


async def test_a_nack_is_waited_for_and_tried_again() -> None:
    stage = Stage()
    stage.desk.busy = 1
    line = stage.join()
    for text in "ab":
        await stage.up.emit(SAY, (text,))
    line.work()
    assert stage.heard == []
    await advance(0.49)
    assert line.sent == []
    await advance(0.01)
    line.work()
    assert stage.heard == ["a", "b"]
    assert stage.failed == []


async def test_a_timer_of_a_connection_that_is_gone_does_nothing() -> None:
    stage = Stage()
    stage.desk.busy = 1
    line = stage.join()
    await stage.up.emit(SAY, ("a",))
    line.work()
    line.cut()
    await advance(1)
    stage.join().work()
    assert stage.heard == ["a"]


# --- calls that end


async def test_a_call_that_was_not_sent_in_time_never_is() -> None:
    stage = Stage()
    with pytest.raises(CallTimeout, match="'ask' could not be sent within 1 s"):
        await stage.up.call(ASK, ("a",), 1)
    await stage.up.emit(SAY, ("b",))
    stage.join().work()
    assert stage.heard == ["b"]
    assert stage.failed == []


async def test_a_call_that_was_sent_and_not_answered_in_time_is_unknown_and_not_sent_again() -> None:
    stage = Stage()
    line = stage.join()
    call = stage.ask("a", 1)
    await advance(2)
    with pytest.raises(OutcomeUnknown, match="no reply came within 1 s"):
        await call
    line.cut()
    await stage.up.emit(SAY, ("b",))
    stage.join().work()
    assert stage.heard == ["b"]


async def test_a_call_that_is_cancelled_is_given_up() -> None:
    stage = Stage()
    call = stage.ask("a")
    await advance()
    call.cancel()
    await asyncio.wait([call])
    stage.join().work()
    assert stage.heard == []
    assert stage.up.dialect is None


async def test_an_answer_that_cannot_be_read_is_none() -> None:
    stage = Stage()
    line = stage.join()
    call = stage.ask("a")
    await advance()
    line.sent.clear()
    line.tell(wire.Outcome("/", 1, wire.encode_args(["no number"], msgpack=False)))
    with pytest.raises(EventRefused) as refused:
        await call
    assert refused.value.code == "invalid_reply"
    line.tell(wire.Outcome("/", 7, wire.encode_args([1], msgpack=False)))  # of no event: nothing happens


# --- room


async def test_emit_waits_for_room_in_turn() -> None:
    stage = Stage()
    for _ in range(1_024):
        await stage.up.emit(SAY, ("x",))
    late = [asyncio.ensure_future(stage.up.emit(SAY, (text,))) for text in "abc"]
    await advance()
    assert not any(emit.done() for emit in late)
    late[1].cancel()
    await advance()
    assert [emit.done() for emit in late] == [False, True, False]
    line = stage.join()
    line.work()
    await advance()
    assert stage.heard[1_024:] == ["a", "c"]


async def test_a_call_that_waits_for_room_is_withdrawn_in_time() -> None:
    stage = Stage()
    await stage.up.emit(SAY, ("x" * 59_000,))
    for _ in range(16):
        await stage.up.emit(SAY, ("x" * 59_000,))
    with pytest.raises(CallTimeout):
        await stage.up.call(ASK, ("y" * 59_000,), 1)
    await asyncio.wait_for(stage.up.emit(SAY, ("z",)), 1)  # that is still small enough


async def test_what_is_too_large_for_the_server_is_refused_at_once() -> None:
    stage = Stage()
    stage.join()
    with pytest.raises(MessageTooLarge, match=f"the server takes {LIMIT}"):
        await stage.up.emit(SAY, ("x" * LIMIT,))


async def test_what_turns_out_to_be_too_large_does_not_hold_up_the_rest() -> None:
    stage = Stage()
    await stage.up.emit(SAY, ("x" * LIMIT,))
    call = stage.ask("x" * LIMIT)
    await advance()
    await stage.up.emit(SAY, ("small",))
    stage.join().work()
    assert stage.heard == ["small"]
    with pytest.raises(MessageTooLarge):
        await call
    assert [type(failed.error) for failed in stage.failed] == [MessageTooLarge]


# --- volatile events


async def test_a_volatile_event_is_written_at_once_or_not_at_all() -> None:
    stage = Stage()
    assert not stage.up.cast(TICK, ("away",))
    line = stage.join()
    assert stage.up.cast(TICK, ("now",))
    line.writable = False
    assert not stage.up.cast(TICK, ("slow",))
    line.work()
    assert stage.desk.ran == [(0, ["now"])]


# --- servers that know no producers


async def test_without_a_producer_each_event_is_written_once() -> None:
    stage = Stage()
    await stage.up.emit(SAY, ("before",))
    line = stage.join(plain=True)
    for number in range(100):
        await stage.up.emit(SAY, (str(number),))
    call = asyncio.ensure_future(stage.up.call(Event("ask", str, reply=str), ("four",), 10))
    await advance()
    line.work()
    assert await call == "ask"
    assert [args for _, args in stage.desk.ran] == [["before"], *([str(n)] for n in range(100)), ["four"]]
    line.cut()
    assert stage.join(plain=True).sent == []


async def test_a_call_that_was_written_is_lost_with_the_connection() -> None:
    stage = Stage()
    line = stage.join(plain=True)
    call = stage.ask("a")
    await advance()
    line.read()
    line.cut("transport error")
    with pytest.raises(Disconnected, match="transport error"):
        await call
    line = stage.join(plain=True)
    assert line.sent == []
    line.tell(wire.Reply("/", 0, wire.encode_args([1], msgpack=False)))  # too late: nobody waits


async def test_a_call_that_was_written_and_not_answered_in_time_is_unknown() -> None:
    stage = Stage()
    stage.join(plain=True)
    call = stage.ask("a", 1)
    await advance(2)
    with pytest.raises(OutcomeUnknown):
        await call


async def test_a_server_that_does_not_keep_up_is_written_no_more_than_a_window() -> None:
    stage = Stage()
    line = stage.join(plain=True)
    line.writable = False
    for number in range(50):
        await stage.up.emit(SAY, (str(number),))
    assert len(line.sent) == 32
    line.writable = True
    stage.up.relieved()
    assert len(line.sent) == 50
    assert stage.up.dialect is None


async def test_what_a_slow_server_may_have_got_is_not_sent_again() -> None:
    stage = Stage()
    line = stage.join(plain=True)
    line.writable = False
    await stage.up.emit(SAY, ("a",))
    line.cut()
    line = stage.join(plain=True)
    assert line.sent == []
    assert [type(failed.error) for failed in stage.failed] == [OutcomeUnknown]
    await stage.up.emit(SAY, ("b",))
    line.work()
    assert stage.desk.ran == [(0, ["b"])]


async def test_what_was_sent_with_a_number_is_not_sent_without_one() -> None:
    stage = Stage()
    stage.join().cut()
    line = stage.join()
    await stage.up.emit(SAY, ("a",))
    line.cut()
    await stage.up.emit(SAY, ("b",))
    line = stage.join(plain=True)
    assert [message.name for message in line.sent if isinstance(message, wire.ClientEvent)] == ["say"]
    assert [failed.event for failed in stage.failed] == ["say"]


# --- storing


async def test_nothing_is_sent_before_it_is_stored_and_emit_waits_for_that() -> None:
    journal = Slow()
    stage = Stage(journal)
    line = stage.join()
    emits = [asyncio.ensure_future(stage.up.emit(SAY, (text,))) for text in "abc"]
    await advance()
    assert (line.sent, [emit.done() for emit in emits]) == ([], [False] * 3)
    assert journal.finish() == 2  # the first, and its mark
    await advance()
    assert [emit.done() for emit in emits] == [True, False, False]
    assert len(line.sent) == 1
    assert journal.finish() == 2
    journal.settle()
    await advance()
    assert all(emit.done() for emit in emits)
    line.work()
    assert stage.heard == list("abc")


async def test_what_was_to_be_sent_on_a_connection_that_is_gone_is_left_to_the_next() -> None:
    journal = Slow()
    stage = Stage(journal)
    line = stage.join()
    emit = asyncio.ensure_future(stage.up.emit(SAY, ("a",)))
    await advance()
    line.cut()
    line = stage.join()
    journal.settle()
    await emit
    assert len(line.sent) == 1
    line.work()
    assert stage.heard == ["a"]


async def test_an_outbox_that_cannot_be_written_is_the_emitters_error() -> None:
    journal = Slow()
    stage = Stage(journal)
    line = stage.join()
    waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(stage.up.emit(SAY, (text,))) for text in "ab"]
    waiting.append(stage.ask("c"))
    await advance()
    journal.finish(OSError(28, "No space left on device", "/full"))
    for emit in waiting:
        with pytest.raises(OSError, match=r"No space left on device: '/full'"):
            await emit
    with pytest.raises(OSError, match="No space"):  # and so it is until a write succeeds
        await stage.up.emit(SAY, ("d",))
    assert journal.writes == []
    await advance(1)
    journal.finish(OSError(28, "No space left on device", "/full"))
    await advance(1)
    journal.settle()
    assert not line.whole
    line = stage.join()
    emit = asyncio.ensure_future(stage.up.emit(SAY, ("e",)))
    await advance()
    journal.settle()
    await emit
    line.work()
    assert stage.heard == ["e"]
    assert stage.failed == []


async def test_what_is_left_is_sent_by_the_next_program_but_for_calls() -> None:
    stage = Stage()
    for text in "ab":
        await stage.up.emit(SAY, (text,))
    call = stage.ask("c")
    await advance()
    await stage.up.emit(SAY, ("d",))
    stage.up.end("io client disconnect")
    with pytest.raises(Disconnected):
        await call
    stage.begin()
    assert stage.up.dialect == wire.JSON
    line = stage.join()
    await stage.up.emit(SAY, ("e",))
    line.work()
    assert stage.heard == list("abde")
    assert stage.failed == []


async def test_an_outcome_that_a_program_did_not_live_to_hear_is_told_to_the_next() -> None:
    stage = Stage()
    stage.desk.refuses = {"say": {"code": "no", "message": "x"}}
    line = stage.join()
    await stage.up.emit(SAY, ("a",))
    line.read()
    stage.up.end("io client disconnect")
    stage.begin()
    stage.join().work()
    assert [(failed.event, str(failed.error)) for failed in stage.failed] == [("say", "no: x")]
    assert stage.heard == ["a"]


@pytest.mark.parametrize("codec", [RawCodec("/other", wire.JSON), SocketIOCodec("/")])
async def test_an_outbox_for_something_else_is_refused(codec: RawCodec | SocketIOCodec) -> None:
    stage = Stage()
    await stage.up.emit(SAY, ("a",))
    with pytest.raises(BellwireError, match=r"holds events for '/' in bellwire\.v1\.json"):
        Upstream(stage.journal, codec, stage.counters, stage.failed.append)


# --- forks


async def test_a_copy_goes_on_under_an_id_of_its_own() -> None:
    stage = Stage()
    await stage.up.emit(SAY, ("copied",))
    stage.up.end("io client disconnect")
    stage.begin()
    await stage.up.emit(SAY, ("mine",))
    call = stage.ask("mine too")
    await advance()
    stage.desk.producer = "f" * 32
    line = stage.join()
    line.work()
    assert await call == 5
    assert stage.heard == ["mine", "mine too"]
    assert stage.up.producer == stage.journal.state.producer == "f" * 32
    reason = {"kind": "event", "reason": "copied", "policy": "sent_by_the_other"}
    assert stage.counters.get("dropped_total", **reason) == 1


async def test_what_was_sent_before_the_copy_was_found_out_is_unknown() -> None:
    stage = Stage()
    line = stage.join()
    await stage.up.emit(SAY, ("a",))
    line.cut()
    stage.desk.producer = "f" * 32
    stage.join().work()
    assert [type(failed.error) for failed in stage.failed] == [OutcomeUnknown]
    assert stage.heard == []


# --- the end


async def test_the_end_is_told_to_all_who_wait() -> None:
    stage = Stage()
    for _ in range(1_024):
        await stage.up.emit(SAY, ("x",))
    waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(stage.up.emit(SAY, ("y",))), stage.ask("z")]
    empty = asyncio.ensure_future(stage.up.emptied())
    await advance()
    assert not empty.done()
    assert stage.up.end("io client disconnect") == 1_024
    await empty
    for end in waiting:
        with pytest.raises(Disconnected, match="io client disconnect"):
            await end
    with pytest.raises(Disconnected, match="io client disconnect"):
        await stage.up.emit(SAY, ("late",))
    await stage.up.close()


async def test_closing_waits_for_what_is_being_stored() -> None:
    journal = Slow()
    stage = Stage(journal)
    emit = asyncio.ensure_future(stage.up.emit(SAY, ("a",)))
    await advance()
    assert stage.up.end("io client disconnect") == 0
    close = asyncio.ensure_future(stage.up.close())
    await advance()
    assert not close.done()
    journal.settle()
    await close
    await emit
    assert len(journal.state.events) == 1


async def test_it_is_empty_when_all_that_was_emitted_has_its_outcome() -> None:
    stage = Stage()
    await stage.up.emptied()
    line = stage.join()
    await stage.up.emit(SAY, ("a",))
    call = stage.ask("b")
    empty = asyncio.ensure_future(stage.up.emptied())
    await advance()
    assert not empty.done()
    line.read(1)
    line.answer()
    await empty  # the call has somebody else who waits for it
    call.cancel()
    await asyncio.wait([call])


def test_the_desk_says_what_a_client_is_told() -> None:
    assert isinstance(told(wire.Skipped("/", 1)), wire.Skipped)
