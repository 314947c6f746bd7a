import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.brokers.envelope import (
    MAX_BYTES,
    Alive,
    Answer,
    Direct,
    Envelope,
    Gone,
    Question,
    Unreadable,
    Withdrawn,
    seal,
    unseal,
)
from bellwire.core.errors import MessageTooLarge

NODES = st.text("0123456789abcdef", min_size=8, max_size=8)
ENVELOPES: st.SearchStrategy[Envelope] = st.one_of(
    st.builds(Alive, NODES, st.booleans()),
    st.builds(Gone, NODES),
    st.builds(Question, NODES, st.integers(0, 2**63), st.text(max_size=64), st.binary(), st.floats(0, 86_400)),
    st.builds(Answer, NODES, st.integers(0, 2**63), st.integers(0, 2**31), st.binary(), st.booleans(), st.booleans()),
    st.builds(Withdrawn, NODES, st.integers(0, 2**63)),
    st.builds(Direct, st.text(), st.binary()),
)


@given(ENVELOPES)
def test_what_was_sealed_is_unsealed(envelope: Envelope) -> None:
    assert unseal(seal(envelope)) == envelope


@given(st.binary())
def test_any_bytes_are_an_envelope_or_ignored_for_a_reason(data: bytes) -> None:
    found = unseal(data)
    assert not isinstance(found, Unreadable) or found.reason in ("version", "malformed")


@given(st.binary())
def test_nothing_behind_the_right_version_raises(data: bytes) -> None:
    unseal(b"\x01" + data)


def test_another_version_is_told_apart() -> None:
    assert unseal(b"\x02" + seal(Gone("00000000"))[1:]) == Unreadable("version")


def test_a_node_is_named_by_eight_hexadecimal_digits() -> None:
    assert unseal(seal(Gone("../../x"))) == Unreadable("malformed")


def test_what_is_too_large_is_neither_said_nor_heard() -> None:
    with pytest.raises(MessageTooLarge):
        seal(Direct("s", bytes(MAX_BYTES)))
    assert unseal(bytes(MAX_BYTES + 1)) == Unreadable("too_large")
