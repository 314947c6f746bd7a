import pytest

from bellwire.client.address import Address, parse_url

QUERY = "EIO=4&transport=websocket"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://h:8000", Address("h", 8000, False, "h:8000", f"/socket.io/?{QUERY}")),
        ("http://h", Address("h", 80, False, "h", f"/socket.io/?{QUERY}")),
        ("https://h/", Address("h", 443, True, "h", f"/socket.io/?{QUERY}")),
        ("https://h:443", Address("h", 443, True, "h", f"/socket.io/?{QUERY}")),
        ("http://h:443", Address("h", 443, False, "h:443", f"/socket.io/?{QUERY}")),
        ("HTTP://H/realtime/socket.io/", Address("h", 80, False, "h", f"/realtime/socket.io/?{QUERY}")),
        ("http://h?room=a%20b&x=1", Address("h", 80, False, "h", f"/socket.io/?room=a%20b&x=1&{QUERY}")),
        ("http://[::1]:8000", Address("::1", 8000, False, "[::1]:8000", f"/socket.io/?{QUERY}")),
        ("http://bücher.example/ü?q=ä b", Address("xn--bcher-kva.example", 80, False, "xn--bcher-kva.example",
                                                  f"/%C3%BC?q=%C3%A4%20b&{QUERY}")),
    ],
)  # fmt: skip
def test_a_url_is_taken_apart(url: str, address: Address) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://h:8000/bellwire", Address("h", 8000, False, "h:8000", "/bellwire", True)),
        ("ws://h", Address("h", 80, False, "h", "/bellwire", True)),
        ("WSS://h/", Address("h", 443, True, "h", "/bellwire", True)),
        ("wss://h/app/bellwire?a=b c", Address("h", 443, True, "h", "/app/bellwire?a=b%20c", True)),
    ],
)
def test_the_scheme_says_what_is_spoken(url: str, address: Address) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("h:8000", "write http://host:port, https"),
        ("", "write http://host:port, https"),
        ("ftp://h", "write http://host:port, https"),
        ("http://", "names no host"),
        ("http:///path", "names no host"),
        ("http://ada:secret@h", "auth="),
        ("http://h/#chat", "leave the part behind '#' out"),
        ("http://h:99999", "[Pp]ort"),
        ("http://h:x", "[Pp]ort"),
        ("http://a..b", "is no name of a host"),
        ("http://" + "a" * 64, "is no name of a host"),
    ],
)
def test_what_is_no_address_says_what_would_be(url: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy) as refused:
        parse_url(url)
    assert "secret" not in str(refused.value)
