"""The record of a session: what each change leaves, what a fork takes along, and what a holder finds."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.core.errors import BellwireError
from bellwire.delivery.membership import Membership
from bellwire.delivery.position import Position
from bellwire.delivery.session import (
    FIRST_FENCE,
    MAX_CHECKPOINTS,
    MAX_LEFT,
    MAX_LOST,
    MAX_READ,
    Member,
    Record,
    Verdict,
    decode_record,
    encode_record,
    judge,
    new_record,
    session_key,
)

ID = "socket-id"


def at(seq: int) -> Position:
    return Position("g", seq, seq + 1000)


def member(seq: int, name: str = "lobby", kind: str = "r") -> Member:
    return Member(kind, name, at(seq))


def record() -> Record:
    return new_record(ID, "run", 77)


# --- memberships


def test_a_join_and_a_leave() -> None:
    joined = record().joined("s1", member(3))
    assert joined.streams == {"s1": member(3)}
    gone = joined.departed("s1", at(9))
    assert gone.streams == {}
    assert gone.spans("s1") == [Membership(at(3), at(9))]


def test_a_join_while_a_member_changes_nothing() -> None:
    joined = record().joined("s1", member(3))
    assert joined.joined("s1", member(8)) is joined


def test_a_leave_of_what_it_is_not_in_changes_nothing() -> None:
    joined = record().joined("s1", member(3))
    assert joined.departed("s2", at(9)) is joined


def test_who_rejoins_takes_the_new_top_and_still_has_to_read_up_to_the_leave() -> None:
    again = record().joined("s1", member(3)).departed("s1", at(9)).joined("s2", member(1)).joined("s1", member(20))
    assert again.spans("s1") == [Membership(at(3), at(9)), Membership(at(20))]
    assert again.spans("s2") == [Membership(at(1))]
    assert again.spans("s3") == []


def test_what_the_reader_has_passed_is_forgotten_and_nothing_else() -> None:
    left = record()
    for seq in (3, 20):
        left = left.joined("s1", member(seq)).departed("s1", at(seq + 5))
    left = left.joined("s2", member(3)).departed("s2", at(8))
    forgotten = left.forgotten("s1", at(8))
    assert forgotten.unread("s1") == [Membership(at(20), at(25))]
    assert forgotten.spans("s1") == [Membership(at(3), at(8)), Membership(at(20), at(25))]
    assert forgotten.unread("s2") == forgotten.spans("s2") == [Membership(at(3), at(8))]
    assert forgotten.forgotten("s1", at(8)) is forgotten


def test_memberships_to_whose_end_the_reader_has_come_are_forgotten() -> None:
    left = record()
    for seq in (3, 20):
        left = left.joined("s1", member(seq)).departed("s1", at(seq + 5))
    left = left.joined("s2", member(3)).departed("s2", at(8)).joined("s3", member(3))
    assert left.reached({}) is left
    assert left.reached({"s1": at(7), "s2": at(7), "s3": at(99), "s4": at(99)}) is left
    assert left.reached({"s1": at(8)}).unread("s1") == [Membership(at(20), at(25))]
    reached = left.reached({"s1": at(25), "s2": at(8), "s3": at(99)})
    assert reached.left == ()
    assert reached.read == left.left
    assert reached.streams == left.streams


def test_of_what_was_read_the_newest_is_remembered() -> None:
    left = record()
    for n in range(MAX_READ + 3):
        left = left.joined(f"s{n}", member(n)).departed(f"s{n}", at(n)).forgotten(f"s{n}", at(n))
    assert left.left == ()
    assert [past.stream for past in left.read] == [f"s{n}" for n in range(3, MAX_READ + 3)]


def test_a_join_that_is_taken_back_leaves_nothing_and_spares_another() -> None:
    joined = record().joined("s1", member(3))
    assert joined.withdrawn("s1", member(3)) == record()
    assert joined.withdrawn("s1", member(4)) is joined
    assert joined.withdrawn("s2", member(3)) is joined


def test_of_too_many_former_memberships_the_oldest_give_way() -> None:
    left = record()
    for n in range(MAX_LEFT + 3):
        left = left.joined(f"s{n}", member(n)).departed(f"s{n}", at(n))
    kept = left.trimmed()
    assert [past.stream for past in kept.left] == [f"s{n}" for n in range(3, MAX_LEFT + 3)]
    assert kept.trimmed() is kept


# --- data and checkpoints


def test_the_same_data_again_changes_nothing() -> None:
    saved = record().saved(b"x")
    assert saved.data == b"x"
    assert saved.saved(b"x") is saved


def test_checkpoint_0_is_the_connect_and_all_others_must_be_there() -> None:
    assert record().vector(0) == {}
    assert record().vector(1) is None
    marked = record().marked(1, {"s1": at(4)}, 0)
    assert marked.vector(0) == {}
    assert marked.vector(1) == {"s1": at(4)}


def test_a_checkpoint_lets_those_go_that_no_client_names_any_more() -> None:
    marked = record().marked(1, {"s1": at(1)}, 0).marked(2, {"s1": at(2)}, 1).marked(3, {"s1": at(3)}, 2)
    assert sorted(marked.checkpoints) == [2, 3]


def test_of_too_many_checkpoints_the_oldest_give_way() -> None:
    marked = record()
    for k in range(1, MAX_CHECKPOINTS + 3):
        marked = marked.marked(k, {"s1": at(k)}, 0)
    assert sorted(marked.trimmed().checkpoints) == [3, 4, 5, 6]


# --- holders


def test_another_holder_gets_all_of_it_and_a_higher_fence() -> None:
    held = record().joined("s1", member(3)).saved(b"x").marked(1, {"s1": at(4)}, 0).written(5)
    taken = held.taken("next run", 88)
    assert (taken.fence, taken.holder, taken.instance, taken.edition) == (FIRST_FENCE + 1, 88, "next run", 6)
    assert (taken.id, taken.streams, taken.data, taken.checkpoints) == (ID, held.streams, b"x", held.checkpoints)


def test_a_fork_has_the_memberships_but_not_the_stream_of_the_other_socket_and_no_checkpoints() -> None:
    held = record().joined("s1", member(3)).joined("own", member(1, ID)).joined("u", member(1, ID, "u"))
    held = held.joined("s2", member(5)).departed("s2", at(7)).saved(b"x").marked(1, {"s1": at(4)}, 0).taken("run", 1)
    fork = held.forked("other-id", "other run", 99)
    assert fork == new_record(
        "other-id",
        "other run",
        99,
        streams={"s1": member(3), "u": member(1, ID, "u")},  # a user may be called like a socket
        left=held.left,
        data=b"x",
    )
    assert held.departed("own", at(3)).forked("other-id", "other run", 99) == fork


def test_an_ended_one_holds_nothing_but_its_fence() -> None:
    ended = record().joined("s1", member(3)).saved(b"x").taken("run", 88).ended()
    assert ended.over
    assert (ended.fence, ended.holder) == (2, 88)
    assert (ended.streams, ended.left, ended.data, ended.checkpoints) == ({}, (), b"", {})


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (None, Verdict.NOTHING),
        (record().taken("run", 5).written(9), Verdict.MINE),
        (record(), Verdict.OLDER),
        (record().taken("run", 6), Verdict.TAKEN),  # the broker fell back, and somebody else was faster
        (record().taken("run", 5).taken("run", 6), Verdict.TAKEN),
        (record().taken("run", 5).taken("run", 6).ended(), Verdict.TAKEN),
    ],
)
def test_what_a_holder_finds(found: Record | None, verdict: Verdict) -> None:
    assert judge(found, record().taken("run", 5)) is verdict


# --- stored


def test_a_record_comes_back_as_it_was() -> None:
    full = record().joined("s1", member(3)).joined("s2", member(5)).departed("s2", at(7)).saved(b"\x00\xff")
    full = full.marked(1, {"s1": at(4)}, 0).marked(2, {"s1": Position("h", 2**63 - 1, 2**32 - 1)}, 0).written(12)
    full = full.taken("run", 2**64 - 1)
    assert decode_record(encode_record(full)) == full


def test_a_record_is_small() -> None:
    assert len(encode_record(new_record("i" * 20, "r" * 20, 2**64 - 1))) < 80
    stream, position = "5" * 32, Position("0123456789ab.1", 1_000_000, 2**32 - 1)
    one = new_record("i", "r", 1, streams={stream: Member("r", "room:lobby", position)})
    assert len(encode_record(one)) - len(encode_record(record())) < 100


@pytest.mark.parametrize("data", [b"", b"x", b"\x90", msgspec.msgpack.encode(["1", "id"]), b"\xc1"])
def test_what_is_no_record_is_an_error(data: bytes) -> None:
    with pytest.raises(BellwireError, match="cannot be read"):
        decode_record(data)


def test_a_record_of_another_version_is_an_error() -> None:
    with pytest.raises(BellwireError, match="version 2"):
        decode_record(encode_record(msgspec.structs.replace(record(), version=2)))


# --- keys

TEXT = st.text(st.characters(), max_size=8)  # lone surrogates as well: a client's JSON may contain them
WHO = st.tuples(TEXT, TEXT, st.none() | TEXT)


@given(WHO, WHO)
def test_a_secret_is_another_one_in_another_namespace_and_for_another_principal(
    one: tuple[str, str, str | None], two: tuple[str, str, str | None]
) -> None:
    assert (session_key(*one) == session_key(*two)) is (one == two)


def test_a_key_does_not_show_the_secret() -> None:
    key = session_key("the-secret", "/chat", "ann")
    assert key.startswith("session.")
    assert len(key) == len("session.") + 32
    assert "secret" not in key


def test_what_was_read_to_the_end_is_read_again_by_who_stands_before_it() -> None:
    found = record().joined("s", member(3)).departed("s", at(7)).reached({"s": at(7)}).joined("s", member(20))
    assert [span.joined.seq for span in found.unread("s")] == [20]
    assert [span.joined.seq for span in found.unread("s", at(7))] == [20]
    assert [span.joined.seq for span in found.unread("s", at(5))] == [3, 20]
    assert found.has_read("s", at(7))
    assert not found.has_read("s", at(5))
    assert not found.has_read("other", at(7))
    left = found.departed("s", at(30)).reached({"s": at(30)})
    assert left.members({}) == left.members({"s": at(30)}) == {}
    assert left.members({"s": at(7)}).keys() == {"s"}


def test_the_end_of_a_stay_is_reached_right_there_or_in_a_later_one_and_not_by_a_greater_number() -> None:
    left = record().joined("s", member(3)).departed("s", at(7))
    assert left.reached({"s": at(7)}).left == ()
    assert left.reached({"s": at(6)}) == left
    assert left.reached({"s": at(9)}) == left  # there is nothing beyond the end for it: a failover took that back
    again = left.joined("s", member(8))
    assert again.reached({"s": at(9)}).left == ()
    assert again.reached({"s": at(7)._replace(tag=1)}) == again


def full() -> Record:
    """As many stays as are kept, and one more that gave way."""
    kept = record()
    for n in range(MAX_LEFT + 1):
        kept = kept.joined(f"s{n}", member(3)).departed(f"s{n}", at(7))
    return kept.trimmed()


def test_of_a_stay_that_gave_way_it_is_remembered_where_it_ended() -> None:
    assert full().lost == {"s0": at(7)}
    assert len(full().left) == MAX_LEFT
    assert full().missed({}) == full().missed({"s0": at(6)}) == full().missed({"s0": at(8)}) == full().lost
    assert full().reached({"s0": at(7)}).lost == {}
    assert full().reached({"s0": at(6)}) == full()
    assert full().ended().lost == {}
    assert full().forked("other", "run", 1).lost == full().lost


def test_who_stands_in_a_later_stay_was_told_of_the_one_that_gave_way() -> None:
    again = full().joined("s0", member(8))
    assert again.missed({"s0": at(7)}) == {}
    assert again.missed({"s0": at(9)}) == {}
    assert again.missed({"s0": at(6)}) == {"s0": at(7)}


def test_what_gave_way_is_bounded_and_beyond_the_bound_there_is_no_session() -> None:
    kept = record()
    for n in range(MAX_LEFT + MAX_LOST + 9):
        assert kept.is_patchy == (n > MAX_LEFT + MAX_LOST)
        kept = kept.joined(f"s{n}", member(3)).departed(f"s{n}", at(7)).trimmed()
    assert len(kept.lost) == MAX_LOST + 1
