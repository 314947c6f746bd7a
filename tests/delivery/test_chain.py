"""A chain against a plain list, and what it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.delivery.chain import Chain, Place
from bellwire.delivery.entry import Entry
from bellwire.delivery.position import START, Point
from tests.delivery.making import line, make


def _chain(entries: list[Entry], base: Point = START) -> Chain:
    chain = Chain(base)
    for entry in entries:
        chain.append(entry)
    return chain


@pytest.mark.parametrize("entry", [make(3, Point(2, 1)), make(1, START), make(2, START), make(1, Point(1, 1001))])
def test_what_does_not_follow_is_refused_and_changes_nothing(entry: Entry) -> None:
    chain = _chain(line(1))
    with pytest.raises(ValueError, match="the chain ends at"):
        chain.append(entry)
    assert list(chain) == line(1)


def test_an_empty_chain_has_no_newest_and_no_oldest() -> None:
    chain = _chain(line(2))
    assert (chain.oldest.seq, chain.newest.seq) == (1, 2)
    chain.shift()
    chain.shift()
    assert not len(chain)
    assert chain.base == chain.top == Point(2, 1002)
    assert chain.size == 0
    with pytest.raises(IndexError):
        _ = chain.newest
    with pytest.raises(IndexError):
        _ = chain.oldest


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_shifting_and_cutting_are_those_of_a_list(count: int, shifted: int, kept: int) -> None:
    entries = line(count)
    chain = _chain(entries)
    shifted = min(shifted, count)
    for entry in entries[:shifted]:
        assert chain.shift() == entry
    rest = entries[shifted:]
    keep = min(kept, len(rest))
    point = rest[keep - 1].point if keep else chain.base
    assert chain.cut(point) == rest[keep:]
    assert list(chain) == rest[:keep]
    assert len(chain) == keep
    assert chain.size == sum(entry.size for entry in rest[:keep])
    assert chain.top == point
    assert chain.base == (entries[shifted - 1].point if shifted else START)


def test_places() -> None:
    chain = _chain(line(9))
    for _ in range(3):
        chain.shift()
    assert chain.locate(Point(3, 1003)) is Place.PROVED
    assert chain.locate(Point(6, 1006)) is Place.PROVED
    assert chain.locate(Point(9, 1009)) is Place.PROVED
    assert chain.locate(Point(2, 1002)) is Place.BEHIND
    assert chain.locate(Point(10, 1010)) is Place.AHEAD
    for astray in (Point(3, 2003), Point(6, 2006), Point(9, 2009)):
        assert chain.locate(astray) is Place.ASTRAY
        with pytest.raises(ValueError, match="is not in the chain"):
            chain.cut(astray)


def test_a_number_that_was_left_out_is_astray() -> None:
    chain = _chain([make(2, START), make(7, Point(2, 1002))])
    assert chain.locate(Point(5, 1005)) is Place.ASTRAY
    assert chain.at_most(6) == Point(2, 1002)
    assert chain.at_most(7) == Point(7, 1007)
    assert chain.at_most(1) == START


@given(st.integers(1, 30), st.integers(0, 29), st.integers(1, 30))
def test_pages_are_cut_by_messages(count: int, after: int, messages: int) -> None:
    entries = line(count)
    after = min(after, count)
    point = entries[after - 1].point if after else START
    page, more = _chain(entries).after(point, messages, 10**9)
    assert page == entries[after : after + messages]
    assert more == (after + messages < count)


def test_pages_are_cut_by_bytes_but_hold_one_entry_at_least() -> None:
    entries = line(5, body=b"x" * 1000)
    size = entries[0].size
    chain = _chain(entries)
    assert chain.after(START, 100, size * 3) == (entries[:3], True)
    assert chain.after(START, 100, size * 3 - 1) == (entries[:2], True)
    assert chain.after(START, 100, 1) == (entries[:1], True)
    assert chain.after(entries[3].point, 100, 1) == (entries[4:], False)
    assert chain.after(chain.top, 100, 1) == ([], False)


def test_what_was_shifted_out_is_not_kept_for_long() -> None:
    chain = _chain(line(1))
    for n in range(2, 2000):
        chain.append(make(n, chain.top))
        if len(chain) > 8:
            chain.shift()
    assert len(chain._entries) <= 12
