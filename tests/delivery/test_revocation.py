"""What a revocation covers, and how it is kept."""

import pytest

from bellwire.delivery.revocation import Revocation, decode_revocation, encode_revocation, revocation_key


@pytest.mark.parametrize(
    ("issued", "covered"), [(None, True), (99.0, True), (100.0, True), (100.5, True), (100.6, False), (101, False)]
)
def test_it_covers_what_was_issued_before_and_what_does_not_say(issued: float | None, covered: bool) -> None:
    assert Revocation(100.5, 7.0).covers(issued) is covered


def test_it_comes_back_as_it_was_kept() -> None:
    kept = Revocation(100.5, 7.0)
    assert decode_revocation(encode_revocation(kept)) == kept


@pytest.mark.parametrize("value", [b"", b"\xc1", b"\x90", b"\x92\xa1x\x01", b"{}"])
def test_what_cannot_be_read_covers_all(value: bytes) -> None:
    found = decode_revocation(value)
    assert found.covers(4e9)
    assert found.since > 1e300


def test_a_key_shows_no_user() -> None:
    assert revocation_key("ada") == revocation_key("ada") != revocation_key("bob")
    assert "ada" not in revocation_key("ada")
    assert revocation_key("\ud800")
