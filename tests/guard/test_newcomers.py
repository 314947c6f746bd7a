"""The places at the door."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.guard.newcomers import Newcomers, address_key


def test_all_together_are_bounded() -> None:
    newcomers = Newcomers(3, 0)
    for address in ("192.0.2.1", "192.0.2.1", None):
        assert not newcomers.is_full(address)
        newcomers.add(address)
    assert newcomers.is_full("192.0.2.9")
    assert newcomers.is_full(None)
    newcomers.remove(None)
    assert not newcomers.is_full("192.0.2.9")


def test_those_of_one_address_too() -> None:
    newcomers = Newcomers(100, 2)
    for _ in range(2):
        newcomers.add("192.0.2.1")
    assert newcomers.is_full("192.0.2.1")
    assert not newcomers.is_full("192.0.2.2")
    assert not newcomers.is_full(None)
    newcomers.remove("192.0.2.1")
    assert not newcomers.is_full("192.0.2.1")


def test_an_address_that_stands_for_many_counts_among_all_only() -> None:
    newcomers = Newcomers(3, 1, lambda address: address == "10.0.0.1")
    for _ in range(3):
        assert not newcomers.is_full("10.0.0.1")
        newcomers.add("10.0.0.1")
    assert newcomers.is_full("10.0.0.1")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("fe80::1%eth0", "fe80:0:0:1::1%eth0", False),
        ("::ffff:192.0.2.1%1", "::ffff:192.0.2.2%1", False),
        ("testclient", "testclient", True),
    ],
)
def test_what_is_one_address(one: str, other: str, same: bool) -> None:
    assert (address_key(one) == address_key(other)) is same


@given(st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2", "::1", None])))
def test_when_all_have_left_nothing_is_kept(addresses: list[str | None]) -> None:
    newcomers = Newcomers(1000, 2)
    for address in addresses:
        newcomers.add(address)
    assert newcomers.count == len(addresses)
    for address in reversed(addresses):
        newcomers.remove(address)
    assert newcomers.count == 0
    assert newcomers._of_address == {}
