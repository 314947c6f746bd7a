"""Whose pages may connect, with the tricks of those who should not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.guard.origin import Origin, Origins, Verdict, parse_origin

OWN = Origin("https", "chat.example", 443)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://chat.example", OWN),
        ("https://chat.example:443", OWN),
        ("HTTPS://Chat.EXAMPLE", OWN),
        ("http://chat.example", ("http", "chat.example", 80)),
        ("http://127.0.0.1:8000", ("http", "127.0.0.1", 8000)),
        ("http://[::1]:8000", ("http", "[::1]", 8000)),
        ("capacitor://localhost", ("capacitor", "localhost", None)),
    ],
)
def test_an_origin_has_a_scheme_a_host_and_a_port(text: str, origin: Origin) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "*",
        "chat.example",
        "https://",
        "https://chat.example/",
        "https://chat.example/path",
        "https://user@chat.example",
        "https://chat.example https://evil.example",
        "https://chat.example, https://evil.example",
        "https://chat.example\n",
        "https://chat.example:",
        "https://chat.example:-1",
        "https://chat.example:1e3",
        "https://*.example",
        "https://[chat.example]",
        "https://chat.example\x00",
        "//chat.example",
    ],
)
def test_all_else_is_none(text: str) -> None:
    assert parse_origin(text) is None
    assert Origins(["*", "https://chat.example"]).judge(text, OWN) is Verdict.REFUSED


@pytest.mark.parametrize("text", ["https://chat.example", "https://chat.example:443", "HTTPS://CHAT.EXAMPLE"])
def test_the_servers_own_pages_may_connect(text: str) -> None:
    assert Origins().judge(text, OWN) is Verdict.ADMITTED


FOREIGN = [
    "http://chat.example",
    "https://chat.example:8443",
    "https://chat.example.",
    "https://chat.example.evil.example",
    "https://evil-chat.example",
    "https://evil.chat.example",
    "https://evil.example",
    "wss://chat.example",
]


@pytest.mark.parametrize("text", FOREIGN)
def test_others_may_not(text: str) -> None:
    assert Origins().judge(text, OWN) is Verdict.REFUSED
    assert Origins(["https://other.example"]).judge(text, OWN) is Verdict.REFUSED
    assert Origins().judge(text, None) is Verdict.REFUSED


def test_who_is_named_may() -> None:
    origins = Origins(["https://App.example", "http://localhost:5173"])
    assert origins.judge("https://app.example:443", OWN) is Verdict.ADMITTED
    assert origins.judge("http://localhost:5173", OWN) is Verdict.ADMITTED
    assert origins.judge("https://chat.example", OWN) is Verdict.ADMITTED
    assert origins.judge("http://localhost:5174", OWN) is Verdict.REFUSED


@pytest.mark.parametrize("text", ["https://a.example.org", "https://a.b.example.org:443", "https://A.EXAMPLE.ORG"])
def test_a_pattern_names_all_names_below_one(text: str) -> None:
    assert Origins(["https://*.example.org"]).judge(text, None) is Verdict.ADMITTED


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org",
        "https://evilexample.org",
        "https://.example.org",
        "https://a.example.org.evil.example",
        "https://a.example.org:8443",
        "http://a.example.org",
        "null",
    ],
)
def test_and_no_others(text: str) -> None:
    assert Origins(["https://*.example.org"]).judge(text, None) is Verdict.REFUSED


def test_any_port_of_a_host() -> None:
    origins = Origins(["http://localhost:*", "http://[::1]:*", "http://*.test:*"])
    for text in ("http://localhost", "http://localhost:5173", "http://[::1]:1", "http://a.test:99"):
        assert origins.judge(text, None) is Verdict.ADMITTED
    for text in ("https://localhost:5173", "http://localhost.evil.example:5173", "http://test:99"):
        assert origins.judge(text, None) is Verdict.REFUSED


def test_a_star_admits_any_page_but_gives_it_no_rights() -> None:
    origins = Origins(["*", "https://app.example"])
    assert origins.judge("https://evil.example", OWN) is Verdict.ANYBODY
    assert origins.judge("https://app.example", OWN) is Verdict.ADMITTED
    assert origins.judge("https://chat.example", OWN) is Verdict.ADMITTED
    assert origins.judge("null", OWN) is Verdict.REFUSED


@given(st.text(max_size=50))
def test_whatever_comes_is_judged(text: str) -> None:
    found = parse_origin(text)
    assert Origins().judge(text, OWN) is (Verdict.ADMITTED if found == OWN else Verdict.REFUSED)
