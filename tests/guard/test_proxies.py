"""Whose word counts about where a request comes from."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.guard.proxies import MAX_HOPS, Proxies, Seen, is_local

PROXY = ("10.0.0.7", 4711)
CLIENT = "203.0.113.5"


def see(headers: dict[str, str], *, peer: tuple[str, int] | None = PROXY, trusted: Any = ("10.0.0.0/8",)) -> Seen:
    return Proxies(trusted).see(peer, "http", {"host": "inside:8000", **headers})


FORWARDED = {"x-forwarded-for": CLIENT, "x-forwarded-proto": "https", "x-forwarded-host": "chat.example"}


def test_a_trusted_proxy_says_who_the_client_is() -> None:
    assert see(FORWARDED) == ((CLIENT, 0), "https", "chat.example", True)


@pytest.mark.parametrize("peer", [("203.0.113.9", 1), ("::1", 1), ("11.0.0.7", 1), ("unix", 0), None])
def test_nobody_else_does(peer: tuple[str, int] | None) -> None:
    assert see(FORWARDED, peer=peer) == (peer, "http", "inside:8000", False)
    assert see({"forwarded": f"for={CLIENT};proto=https;host=x"}, peer=peer) == (peer, "http", "inside:8000", False)


def test_no_proxy_is_trusted_unasked() -> None:
    assert see(FORWARDED, peer=("127.0.0.1", 1), trusted=()) == (("127.0.0.1", 1), "http", "inside:8000", False)
    assert not Proxies()


@pytest.mark.parametrize(
    ("hops", "client"),
    [
        (CLIENT, (CLIENT, 0)),
        (f"{CLIENT}:5678", (CLIENT, 5678)),
        ("2001:db8::5", ("2001:db8::5", 0)),
        ("[2001:db8::5]", ("2001:db8::5", 0)),
        ("[2001:db8::5]:5678", ("2001:db8::5", 5678)),
        (f"127.0.0.1, {CLIENT}", (CLIENT, 0)),  # the client has written the first one itself
        (f"{CLIENT}, 10.1.1.1,10.2.2.2", (CLIENT, 0)),
        (f"1.2.3.4, {CLIENT}, 10.1.1.1", (CLIENT, 0)),
        ("10.1.1.1, 10.2.2.2", ("10.1.1.1", 0)),
        (f"{CLIENT}, unknown, 10.2.2.2", ("10.2.2.2", 0)),
        (f"{CLIENT}, _hidden", PROXY),
        ("", PROXY),
        (" , ,", PROXY),
        (f"::ffff:{CLIENT}", (CLIENT, 0)),
        (f"{CLIENT}, ::ffff:10.1.1.1", (CLIENT, 0)),
        ("1.2.3.4:999999999", ("1.2.3.4", 0)),
        ("[", PROXY),
    ],
)
def test_the_client_is_the_nearest_that_is_no_trusted_proxy(hops: str, client: tuple[str, int]) -> None:
    assert see({"x-forwarded-for": hops}).client == client


def test_a_list_is_read_from_its_end_and_no_farther_than_is_of_use() -> None:
    hops = ", ".join([CLIENT, *["10.1.1.1"] * MAX_HOPS])
    assert see({"x-forwarded-for": hops}).client == ("10.1.1.1", 0)
    assert see({"x-forwarded-for": "," * 60_000 + CLIENT}).client == (CLIENT, 0)


@pytest.mark.parametrize(
    ("proto", "scheme"),
    [
        ("https", "https"),
        ("HTTPS", "https"),
        ("wss", "https"),
        ("http", "http"),
        ("https, http", "http"),
        ("x", "http"),
    ],
)
def test_the_nearest_proxy_says_whether_there_was_tls(proto: str, scheme: str) -> None:
    assert see({"x-forwarded-proto": proto}).scheme == scheme


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (f"for={CLIENT};proto=https;host=chat.example", ((CLIENT, 0), "https", "chat.example", True)),
        (f'For="{CLIENT}:80"; Proto=https', ((CLIENT, 80), "https", "inside:8000", True)),
        (f"for=1.2.3.4;proto=http, for={CLIENT};proto=https", ((CLIENT, 0), "https", "inside:8000", True)),
        ('for="[2001:db8::5]:80"', (("2001:db8::5", 80), "http", "inside:8000", True)),
        ("for=unknown", (PROXY, "http", "inside:8000", True)),
        (";;==,,", (PROXY, "http", "inside:8000", True)),
    ],
)
def test_forwarded_is_read_too(value: str, seen: Seen) -> None:
    assert see({"forwarded": value}) == seen


def test_forwarded_is_not_read_beside_the_others() -> None:
    """A proxy that writes those may let this one through as its client sent it."""
    forged = {"forwarded": "for=1.2.3.4;proto=https;host=evil.example"}
    assert see({**forged, "x-forwarded-for": CLIENT}) == ((CLIENT, 0), "http", "inside:8000", True)


def test_addresses_of_both_families_are_trusted() -> None:
    trusted = ("2001:db8::/32", "192.0.2.1")
    assert see(FORWARDED, peer=("2001:db8::1", 1), trusted=trusted).proxied
    assert see(FORWARDED, peer=("::ffff:192.0.2.1", 1), trusted=trusted).proxied
    assert not see(FORWARDED, peer=("192.0.2.2", 1), trusted=trusted).proxied


@pytest.mark.parametrize(
    ("client", "local"),
    [
        (None, True),
        (("127.0.0.1", 1), True),
        (("127.9.9.9", 1), True),
        (("::1", 1), True),
        (("::ffff:127.0.0.1", 1), True),
        (("10.0.0.1", 1), False),
        (("testclient", 1), False),
    ],
)
def test_what_does_not_leave_the_machine(client: tuple[str, int] | None, local: bool) -> None:
    assert is_local(client) is local


@given(st.fixed_dictionaries({}, optional={name: st.text(max_size=60) for name in (*FORWARDED, "forwarded")}))
def test_whatever_a_proxy_says_is_read(headers: dict[str, str]) -> None:
    seen = see(headers)
    assert seen.scheme in ("http", "https")
    assert seen.client is not None
