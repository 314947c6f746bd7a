"""The request that opened a session: headers, query and cookies, read from the bytes that came."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.transports.base import Request, join_headers, parse_query


def test_request_of_an_asgi_scope() -> None:
    request = Request.from_scope(
        {
            "type": "websocket",
            "path": "/socket.io/",
            "query_string": b"EIO=4&transport=websocket",
            "headers": [(b"host", b"example.org"), (b"origin", b"https://example.org")],
            "client": ("192.0.2.7", 4711),
            "scheme": "wss",
        }
    )
    assert request.path == "/socket.io/"
    assert request.query == {"EIO": "4", "transport": "websocket"}
    assert request.headers == {"host": "example.org", "origin": "https://example.org"}
    assert request.client == ("192.0.2.7", 4711)
    assert request.scheme == "https"
    assert repr(request) == "Request('/socket.io/', client=('192.0.2.7', 4711))"


def test_scope_without_a_client() -> None:
    assert Request.from_scope({"path": "/", "headers": [], "client": None}).client is None


def test_header_names_are_lower_case_and_values_trimmed() -> None:
    assert Request(path="/", head=b"X-One:  a b \r\nACCEPT:*/*").headers == {"x-one": "a b", "accept": "*/*"}


def test_header_that_comes_several_times_is_joined() -> None:
    """RFC 9110 section 5.2."""
    head = join_headers([(b"x-forwarded-for", b"a"), (b"host", b"h"), (b"x-forwarded-for", b"b")])
    assert Request(path="/", head=head).headers == {"x-forwarded-for": "a, b", "host": "h"}


def test_query_of_which_the_last_counts() -> None:
    assert parse_query(b"a=1&b=&a=2&c=%C3%A9+x") == {"a": "2", "b": "", "c": "é x"}


def test_query_of_too_many_parameters_is_nobodys() -> None:
    assert len(parse_query(b"&".join(b"p%d=" % n for n in range(64)))) == 64
    assert parse_query(b"&".join(b"p%d=" % n for n in range(65))) == {}


def test_cookies() -> None:
    assert Request(path="/", head=b"cookie: a=1; b=two").cookies == {"a": "1", "b": "two"}
    assert Request(path="/").cookies == {}


@pytest.mark.parametrize("value", [b"\xff=1", b"a b=1", b'a="', b";;;=", b"expires=x"])
def test_cookies_that_cannot_be_read_raise_nothing(value: bytes) -> None:
    assert isinstance(Request(path="/", head=b"cookie: " + value).cookies, dict)


@given(st.binary(), st.binary())
def test_any_bytes_can_be_read(head: bytes, query: bytes) -> None:
    request = Request(path="/", head=head, query_string=query)
    assert all(name == name.lower() for name in request.headers)
    assert all(isinstance(value, str) for value in (request.query | request.cookies).values())  # type: ignore[operator]
