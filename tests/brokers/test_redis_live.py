"""One stream's live messages: told once and in order, also where what was read meets what arrives."""

import random

import pytest

from bellwire.brokers.envelope import ALL, stream_of_node
from bellwire.brokers.redis_live import Live
from bellwire.brokers.redis_streams import VERSION
from bellwire.core.counters import Counters
from bellwire.delivery.position import Point
from tests.brokers.contract import Ears
from tests.brokers.making import record


def live(counters: Counters | None = None) -> tuple[Live, Ears]:
    live, ears = Live("s", b"c", counters or Counters()), Ears()
    live.add(ears)
    return live, ears


def payload(gen: str, entry: bytes) -> bytes:
    return b"E" + gen.encode() + b"\n" + entry


def test_entries_and_volatile_messages_are_told_to_all_as_they_come() -> None:
    one, ears = live()
    other = Ears()
    one.add(other)
    one.add(other)
    first, second = record(1), record(2, Point(1, 11))
    for message in (payload("g", first), b"Vnow", payload("h", second)):
        one.take(message)
    for each in (ears, other):
        assert [(gen, entry.seq) for _, gen, entry in each.entries] == [("g", 1), ("h", 2)]
        assert each.bodies == [("s", b"now")]
    one.remove(ears)
    one.take(payload("h", record(3, Point(2, 22))))
    assert (len(ears.entries), len(other.entries)) == (2, 3)


@pytest.mark.parametrize(("stream", "kind"), [("room", "volatile"), (ALL, "node"), (stream_of_node("ab"), "node")])
def test_what_comes_is_counted_by_kind(stream: str, kind: str) -> None:
    counters = Counters()
    live = Live(stream, b"c", counters)
    for message in (payload("g", record(1)), b"Vnow", payload("g", record(1)), b"X"):
        live.take(message)
    assert {kind: counters.get("broker_messages_total", kind=kind) for kind in ("entry", kind)} == {"entry": 2, kind: 1}


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"X",
        b"E",
        b"Eg\n1 2 3",
        b"Eg\n1 2 3 4 5 6\n",
        b"Eg\n1 2 3 4 5 6\n\x02rest",
        b"Eg\n1 2 3 4 5 6\n" + VERSION + b"\xc1",
        b"E\xff\n" + record(1),
        payload("g", record(1).replace(b"1 11 ", b"1 12 ", 1)),
        random.Random(100).randbytes(100),
    ],
)
def test_what_bellwire_did_not_write_is_counted_and_told_to_nobody(message: bytes) -> None:
    counters = Counters()
    one, ears = live(counters)
    one.take(message)
    assert not ears.entries
    assert not ears.bodies
    assert counters.get("dropped_total", kind="live", reason="malformed", policy="repaired_from_history") == 1


def test_what_was_missed_shows_in_the_newest_entry() -> None:
    one, ears = live()
    one.take(payload("g", record(1)))
    one.wake("g", record(4, Point(3, 33)), one.known)
    one.take(payload("g", record(5, Point(4, 44))))
    assert [entry.seq for _, _, entry in ears.entries] == [1, 4, 5]


def test_what_was_told_already_is_not_told_when_it_is_read() -> None:
    one, ears = live()
    one.take(payload("g", record(1)))
    one.wake("g", record(1), one.known)
    before = one.known
    one.take(payload("g", record(3, Point(2, 22))))
    one.wake("g", record(2, Point(1, 11)), before)
    assert [entry.seq for _, _, entry in ears.entries] == [1, 3]


def test_what_was_appended_while_the_newest_was_read_is_not_told_behind_it() -> None:
    one, ears = live()
    one.take(payload("g", record(1)))
    one.wake("g", record(3, Point(2, 22)), one.known)
    for seq in (2, 3, 4, 5):
        one.take(payload("g", record(seq, Point(seq - 1, 11 * (seq - 1)))))
    assert [entry.seq for _, _, entry in ears.entries] == [1, 3, 4, 5]


def test_another_generation_may_go_back_in_numbers() -> None:
    one, ears = live()
    one.take(payload("g", record(8, Point(7, 77))))
    one.wake("h", record(6, Point(5, 55)), one.known)
    one.take(payload("i", record(6, Point(5, 55), tag=9)))
    assert [(gen, entry.seq, entry.tag) for _, gen, entry in ears.entries] == [("g", 8, 88), ("h", 6, 66), ("i", 6, 9)]


def test_a_newest_entry_that_bellwire_did_not_write_is_counted() -> None:
    counters = Counters()
    one, ears = live(counters)
    one.wake("g", b"nonsense", one.known)
    assert not ears.entries
    assert counters.get("dropped_total", kind="live", reason="malformed", policy="repaired_from_history") == 1
