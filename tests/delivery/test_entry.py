"""Entries: what is stored, what it counts, and that it survives the way between nodes."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bellwire.delivery.entry import Copy, Draft, Entry, enter, marker
from bellwire.delivery.position import START, Point

_copies = st.lists(st.builds(Copy, st.text(), st.text(), st.integers(0, 2**63 - 1))).map(tuple)
_drafts = st.builds(Draft, st.text(), st.integers(0, 2**32 - 1), st.binary(), st.lists(st.text()).map(tuple), _copies)


@given(_drafts, st.integers(1, 2**63 - 1))
def test_a_draft_becomes_an_entry_that_survives_encoding(draft: Draft, seq: int) -> None:
    entry = enter(draft, seq, Point(seq - 1, 5), 1.5)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(entry), type=Entry) == entry
    assert entry.point == Point(seq, draft.tag)
    assert (entry.mid, entry.body, entry.excluded, entry.copies) == (
        draft.mid,
        draft.body,
        draft.excluded,
        draft.copies,
    )


@given(_drafts)
def test_an_entry_counts_at_least_what_a_client_put_into_it(draft: Draft) -> None:
    size = enter(draft, 1, START, 0.0).size
    assert size > len(draft.body) + len(draft.mid) + sum(map(len, draft.excluded))


def test_copies_count_too() -> None:
    plain, copied = Draft("m", 1, b"x"), Draft("m", 1, b"x", (), (Copy("room", "g", 1),))
    assert enter(copied, 1, START, 0.0).size > enter(plain, 1, START, 0.0).size


def test_a_marker_is_told_from_a_message() -> None:
    assert enter(marker(7), 1, START, 0.0).is_marker
    assert not enter(Draft("m", 7, b""), 1, START, 0.0).is_marker
    assert enter(marker(7), 1, START, 0.0).point == Point(1, 7)
