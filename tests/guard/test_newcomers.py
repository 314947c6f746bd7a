"""The places at the door."""

from hypothesis import given
from hypothesis import strategies as st

from bellwire.guard.newcomers import Newcomers


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
