"""RFC 6455, section 4.1: the client's half of the opening handshake, and both halves against each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.protocol.client_handshake import MAX_HEAD, Response, ResponseError, build_request, new_key, subprotocols
from bellwire.protocol.handshake import build_response, check_upgrade

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # the example of section 1.3
RESPONSE = build_response(KEY)


def refusal(response: bytes) -> ResponseError:
    with pytest.raises(ResponseError) as caught:
        Response(KEY).receive(response)
    return caught.value


def test_section_4_1_the_request() -> None:
    assert build_request("example.com:8000", "/socket.io/?EIO=4", KEY, [(b"X", b"y")]) == (
        b"GET /socket.io/?EIO=4 HTTP/1.1\r\n"
        b"Host: example.com:8000\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"X: y\r\n"
        b"\r\n"
    )


def test_a_server_takes_the_request_and_the_client_its_response() -> None:
    key = new_key()
    first, *lines = build_request("h", "/", key)[:-4].decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert first == "GET / HTTP/1.1"
    assert check_upgrade("GET", "1.1", headers) == key
    assert Response(key).receive(build_response(key)) == b""


def test_keys_differ() -> None:
    assert len({new_key() for _ in range(20)}) == 20


@pytest.mark.parametrize("target", ["", "socket.io", "/a b", "/\r\nX: y", "/ü", "http://x/"])
def test_a_target_cannot_break_the_head_apart(target: str) -> None:
    with pytest.raises(ValueError, match="is no path"):
        build_request("h", target, KEY)


@pytest.mark.parametrize(("host", "field"), [("h\r\nX: y", b"a"), ("h", b"a\n"), ("ü", b"a")])
def test_a_field_cannot_break_the_head_apart(host: str, field: bytes) -> None:
    with pytest.raises(ValueError, match=r"is no header field|codec can't encode"):
        build_request(host, "/", KEY, [(b"X", field)])


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_the_head_comes_in_any_portions_and_what_follows_is_kept(step: int) -> None:
    response, data = Response(KEY), RESPONSE + b"\x81\x01a"
    rest: bytes | None = None
    for at in range(0, len(data), step):
        portion = data[at : at + step]
        rest = response.receive(portion) if rest is None else rest + portion
    assert rest == b"\x81\x01a"


@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad Request", b"403", b"503 ", b"301 Moved"])
def test_section_4_1_another_status_is_told(status: bytes) -> None:
    error = refusal(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
    assert (error.status, error.code) == (int(status[:3]), "response_error")
    assert str(error) == f"the server opens no WebSocket here (status {int(status[:3])})"


@pytest.mark.parametrize("line", [b"SSH-2.0-x", b"HTTP/1.0 101 X", b"HTTP/2 101", b"HTTP/1.1 1010", b"", b"\xff"])
def test_what_is_no_http_is_told(line: bytes) -> None:
    assert refusal(line + b"\r\n\r\n").status is None


@pytest.mark.parametrize("name", [b"Upgrade", b"Connection", b"Sec-WebSocket-Accept"])
def test_section_4_1_each_field_is_needed(name: bytes) -> None:
    assert refusal(RESPONSE.replace(name, b"X-" + name)).status == 101


def test_section_4_1_accept_is_that_of_the_key() -> None:
    assert "not made for this request" in str(refusal(build_response(new_key())))


@pytest.mark.parametrize("field", [b"Sec-WebSocket-Extensions: permessage-deflate", b"Sec-WebSocket-Protocol: x"])
def test_section_4_1_nothing_was_offered(field: bytes) -> None:
    assert "not offered" in str(refusal(RESPONSE[:-2] + field + b"\r\n\r\n"))


JSON, MSGPACK = "bellwire.v1.json", "bellwire.v1.msgpack"


def chosen(*fields: bytes) -> Response:
    response = Response(KEY, (MSGPACK, JSON))
    assert response.receive(RESPONSE[:-2] + b"".join(field + b"\r\n" for field in fields) + b"\r\n") == b""
    return response


def test_section_4_1_a_subprotocol_that_was_offered_is_chosen() -> None:
    name, value = subprotocols((MSGPACK, JSON))
    assert (name, value) == (b"Sec-WebSocket-Protocol", b"bellwire.v1.msgpack, bellwire.v1.json")
    assert chosen(b"Sec-WebSocket-Protocol: " + JSON.encode()).subprotocol == JSON
    assert Response(KEY).subprotocol is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([], "chooses no sub-protocol"),
        ([b"Sec-WebSocket-Protocol: chat"], "'chat', which was not offered"),
        ([b"Sec-WebSocket-Protocol: " + JSON.encode()] * 2, "which was not offered"),
        ([b"Sec-WebSocket-Protocol: \xff"], "which was not offered"),
    ],
)
def test_section_4_1_one_of_those_that_were_offered_is_needed(fields: list[bytes], said: str) -> None:
    with pytest.raises(ResponseError, match=said):
        chosen(*fields)


@pytest.mark.parametrize("field", [b"no colon", b"a b: c", b": c", b"X: \0", b" folded: x"])
def test_malformed_fields(field: bytes) -> None:
    assert "malformed" in str(refusal(RESPONSE[:-2] + field + b"\r\n\r\n"))


def test_the_head_is_bounded_in_any_portions() -> None:
    assert "longer than" in str(refusal(RESPONSE[:-2] + b"X: " + b"y" * MAX_HEAD + b"\r\n\r\n"))
    response = Response(KEY)
    assert all(response.receive(b"a") is None for _ in range(MAX_HEAD))
    with pytest.raises(ResponseError, match="longer than"):
        response.receive(b"a")


@given(st.lists(st.binary(max_size=60), max_size=5), st.booleans())
def test_any_bytes_are_refused_or_waited_for(portions: list[bytes], http: bool) -> None:
    response = Response(KEY)
    try:
        for portion in [b"HTTP/1.1 101 X\r\n" if http else b"", *portions]:
            assert response.receive(portion) is None
    except ResponseError:
        pass
