"""What an address is, and what is counted as one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.guard.address import LONGEST, address_key, is_loopback, read_address


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


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("192.0.2.1:80", "None"),
        ("", "None"),
    ],
)
def test_what_an_address_is(text: str, found: str) -> None:
    assert str(read_address(text)) == found


@pytest.mark.parametrize(
    ("text", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.2", True), ("192.0.2.1", False), ("x", False)],
)
def test_which_are_loopback(text: str, loopback: bool) -> None:
    assert is_loopback(text) is loopback


@given(st.text(), st.integers(LONGEST - 20, LONGEST + 20))
def test_however_long_a_text_is_the_answer_is_the_same_each_time(text: str, length: int) -> None:
    zoned = "fe80::1%" + "a" * (length - 8)
    for either in (text, zoned):
        assert read_address(either) == read_address(either)
        assert address_key(either) == address_key(either)
    assert address_key(zoned) == "fe80:0000:0000:0000"
