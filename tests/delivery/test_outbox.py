"""The outbox: what its records do, and what a file gives back however it ends."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.core.errors import BellwireError
from bellwire.delivery.outbox import (
    COMPACT_BYTES,
    HEADER,
    Emitted,
    Left,
    MemoryOutbox,
    Opened,
    OutboxRecord,
    Passed,
    Pruned,
    Reached,
    Resumable,
    Sent,
    State,
    Unsent,
    Withdrawn,
    begin,
    compact,
    encode_record,
    replay,
    worth_compacting,
)
from bellwire.delivery.position import Position

PRODUCER = "0123456789abcdef" * 2

RECORDS: list[OutboxRecord] = [
    Emitted(1, b"one"),
    Emitted(2, b"two", True),
    Emitted(3, b"three"),
    Sent(1, 3, "g"),
    Unsent(2),
    Sent(2, 2, "h"),
    Unsent(3),
    Withdrawn(2),
    Pruned(1),
    Passed(9),
    Emitted(10, b"ten"),
    Resumable("secret"),
    Reached("a", "g", 1, 11),
    Reached("b", "g", 5, 55),
    Reached("a", "h", 2, 22),
    Left("b"),
]


def seen(state: State | None) -> tuple[object, ...]:
    """Return all that a state says."""
    assert state is not None
    events = [(key, e.number, e.payload, e.call, e.sent) for key, e in state.events.items()]
    return state.producer, state.last, state.size, events, state.session, state.cursors


def applied(records: list[OutboxRecord]) -> State:
    state = State(PRODUCER)
    for record in records:
        state.apply(record)
    return state


def test_what_the_records_amount_to() -> None:
    assert seen(applied(RECORDS)) == (
        PRODUCER,
        10,
        len(b"three" + b"ten"),
        [(2, 2, None, True, "h"), (3, 3, b"three", False, None), (10, 10, b"ten", False, None)],
        "secret",
        {"a": Position("h", 2, 22)},
    )


def test_without_a_session_there_are_no_cursors() -> None:
    state = applied([Resumable("secret"), Reached("a", "g", 1, 11), Resumable("")])
    assert (state.session, state.cursors) == (None, {})
    state.apply(Left("a"))


def test_a_copied_outbox_goes_on_under_another_id() -> None:
    state = applied([Emitted(1, b"x"), Pruned(1), Opened("f" * 32)])
    assert (state.producer, state.last, state.events) == ("f" * 32, 1, {})


def test_a_mark_stays_as_it_was_set_first() -> None:
    state = applied([Emitted(1, b""), Sent(1, 1, "first"), Emitted(2, b""), Sent(1, 2, "second")])
    assert [event.sent for event in state.events.values()] == ["first", "second"]


def test_what_does_not_fit_is_passed_over() -> None:
    state = applied([Emitted(2, b"x"), Emitted(2, b"other"), Emitted(1, b"y"), Unsent(7), Withdrawn(7), Passed(1)])
    assert seen(state)[:4] == (PRODUCER, 2, 1, [(2, 2, b"x", False, None)])


def test_the_memory_keeps_what_is_stored() -> None:
    outbox = MemoryOutbox(PRODUCER)
    for record in RECORDS:
        outbox.store(record)
    assert seen(outbox.state) == seen(applied(RECORDS))


def test_a_file_gives_back_what_was_appended() -> None:
    data = begin(PRODUCER) + b"".join(map(encode_record, RECORDS))
    state, good = replay(data)
    assert good == len(data)
    assert seen(state) == seen(applied(RECORDS))


def test_the_format_is_the_one_written_down() -> None:
    assert begin(PRODUCER)[:8] == b"BWOUTBX\x01"
    assert encode_record(Pruned(5)) == b"\x00\x00\x00\x04\x00\x04\xea\xa8\x92\xa1p\x05"


def test_a_file_cut_anywhere_gives_back_the_whole_records_before() -> None:
    frames = [begin(PRODUCER), *map(encode_record, RECORDS)]
    data = b"".join(frames)
    ends = [sum(map(len, frames[: count + 1])) for count in range(len(frames))]
    for cut in range(len(data)):
        state, good = replay(data[:cut])
        whole = sum(end <= cut for end in ends)
        if whole == 0:
            assert (state, good) == (None, 0)
        else:
            assert good == ends[whole - 1]
            assert seen(state) == seen(applied(RECORDS[: whole - 1]))


def test_what_is_appended_after_a_cut_is_read() -> None:
    data = begin(PRODUCER) + b"".join(map(encode_record, RECORDS))
    torn = data[:-3]
    data = torn[: replay(torn).good] + encode_record(Emitted(11, b"again"))
    state = replay(data).state
    assert seen(state) == seen(applied([*RECORDS[:-1], Emitted(11, b"again")]))


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_costs_the_records_from_there_on_and_no_more(place: int, change: int) -> None:
    frames = [begin(PRODUCER), *map(encode_record, RECORDS)]
    data = bytearray(b"".join(frames))
    place = len(HEADER) + place % (len(data) - len(HEADER))
    data[place] ^= change
    state, good = replay(bytes(data))
    assert good <= place
    if good:
        assert seen(state) == seen(applied(RECORDS[: sum(map(bool, _ends_before(frames, good))) - 1]))


def _ends_before(frames: list[bytes], good: int) -> list[bool]:
    ends = [sum(map(len, frames[: count + 1])) for count in range(len(frames))]
    return [end <= good for end in ends]


@given(st.binary(max_size=200))
def test_any_bytes_after_the_header_are_survived(data: bytes) -> None:
    assert replay(HEADER + data).good in range(len(HEADER + data) + 1)


def test_zeros_at_the_end_are_no_records() -> None:
    """What a file system leaves that made the file longer before it wrote the data."""
    data = begin(PRODUCER) + encode_record(Emitted(1, b"one"))
    state, good = replay(data + bytes(4096))
    assert good == len(data)
    assert state is not None
    assert list(state.events) == [1]


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n....", b"BWOUTBX\x02", b"{}"])
def test_another_file_is_not_taken_for_an_empty_outbox(data: bytes) -> None:
    with pytest.raises(BellwireError, match="no outbox of version 1"):
        replay(data)


def test_a_record_of_a_later_program_is_not_passed_over() -> None:
    frame = encode_record(Pruned(5))
    body = frame[8:].replace(b"\xa1p", b"\xa1?")
    length = len(body).to_bytes(4, "big")
    later = length + zlib.crc32(body, zlib.crc32(length)).to_bytes(4, "big") + body
    with pytest.raises(BellwireError, match="does not know"):
        replay(begin(PRODUCER) + later)


def test_a_file_that_begins_with_something_else_has_no_state() -> None:
    assert replay(HEADER + encode_record(Emitted(1, b"one"))) == (None, 0)
    assert seen(replay(HEADER + encode_record(Opened(PRODUCER, 4))).state)[:4] == (PRODUCER, 4, 0, [])


records = st.one_of(
    st.builds(Emitted, st.integers(1, 20), st.binary(max_size=4), st.booleans()),
    st.builds(Sent, st.integers(1, 20), st.integers(1, 20), st.sampled_from("gh")),
    st.builds(Unsent, st.integers(1, 20)),
    st.builds(Withdrawn, st.integers(1, 20)),
    st.builds(Pruned, st.integers(0, 20)),
    st.builds(Passed, st.integers(0, 20)),
    st.builds(Resumable, st.sampled_from(["", "x", "y"])),
    st.builds(Reached, st.sampled_from("ab"), st.sampled_from("gh"), st.integers(0, 20), st.integers(0, 9)),
    st.builds(Left, st.sampled_from("ab")),
)


@given(st.lists(records, max_size=30))
def test_a_file_written_anew_holds_the_same(stored: list[OutboxRecord]) -> None:
    state = applied(stored)
    again = replay(compact(state))
    assert again.good == len(compact(state))
    assert seen(again.state) == seen(state)


def test_when_to_write_anew() -> None:
    state = State(PRODUCER)
    assert not worth_compacting(COMPACT_BYTES - 1, state)
    assert worth_compacting(COMPACT_BYTES, state)
    state.apply(Emitted(1, bytes(COMPACT_BYTES // 4)))
    assert not worth_compacting(COMPACT_BYTES, state)
    state = State(PRODUCER)
    for number in range(COMPACT_BYTES // 1024):
        state.apply(Reached(str(number), "g", 1, 1))
    assert not worth_compacting(COMPACT_BYTES, state)
