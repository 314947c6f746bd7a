"""RFC 6455, section 4.2: the server's half of the opening handshake."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.protocol.handshake import HandshakeError, accept_key, build_response, check_upgrade

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # the example of section 1.3
TEXT = KEY.decode()
REQUEST = {
    "host": "server.example.com",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": TEXT,
    "sec-websocket-version": "13",
}


def refusal(*, method: str = "GET", http_version: str = "1.1", without: str = "", **fields: str) -> HandshakeError:
    headers = REQUEST | {name.replace("_", "-"): value for name, value in fields.items()}
    headers.pop(without, None)
    with pytest.raises(HandshakeError) as caught:
        check_upgrade(method, http_version, headers)
    return caught.value


def test_section_4_2_2_accept_is_the_hash_of_the_key() -> None:
    assert accept_key(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_section_4_2_1_request_of_the_example_is_accepted() -> None:
    assert check_upgrade("GET", "1.1", REQUEST) == KEY


@pytest.mark.parametrize("connection", ["keep-alive, Upgrade", "keep-alive,upgrade", " UPGRADE ,x"])
def test_section_4_2_1_connection_is_a_list_in_any_case(connection: str) -> None:
    """Firefox sends the first of these."""
    assert check_upgrade("GET", "1.1", REQUEST | {"connection": connection}) == KEY


@pytest.mark.parametrize("upgrade", ["WebSocket", "h2c, websocket"])
def test_section_4_2_1_upgrade_is_a_list_in_any_case(upgrade: str) -> None:
    assert check_upgrade("GET", "1.1", REQUEST | {"upgrade": upgrade}) == KEY


def test_white_space_around_values_does_not_count() -> None:
    request = REQUEST | {"sec-websocket-key": f" {TEXT}\t", "sec-websocket-version": " 13 "}
    assert check_upgrade("GET", "1.1", request) == KEY


def test_section_4_1_method_is_get() -> None:
    error = refusal(method="POST")
    assert (error.status, error.headers) == (405, (("allow", "GET"),))


@pytest.mark.parametrize("version", ["1.0", "0.9", "2", ""])
def test_section_4_1_http_version_is_1_1(version: str) -> None:
    assert refusal(http_version=version).status == 400


@pytest.mark.parametrize("without", ["upgrade", "connection"])
def test_section_4_2_1_request_without_upgrade_is_told_which_it_needs(without: str) -> None:
    error = refusal(without=without)
    assert error.status == 426
    assert ("upgrade", "websocket") in error.headers


def test_section_4_2_1_other_upgrades_and_part_words_do_not_count() -> None:
    assert refusal(upgrade="h2c").status == 426
    assert refusal(upgrade="websocketx").status == 426
    assert refusal(connection="keep-alive").status == 426
    assert refusal(connection="upgrade-insecure").status == 426


def test_section_4_2_1_host_is_required() -> None:
    assert refusal(without="host").status == 400


@pytest.mark.parametrize("version", ["12", "8", "", "13, 8", "013"])
def test_section_4_4_other_versions_are_told_the_one_there_is(version: str) -> None:
    error = refusal(sec_websocket_version=version)
    assert error.status == 426
    assert ("sec-websocket-version", "13") in error.headers


@pytest.mark.parametrize("key", ["", "short", TEXT[:-4], f"{TEXT}AAAA", "!" * 24, f"{TEXT},{TEXT}", "\xff", "\ud800"])
def test_section_4_2_1_key_is_base64_of_16_bytes(key: str) -> None:
    error = refusal(sec_websocket_key=key)
    assert (error.status, error.code) == (400, "handshake_error")


@pytest.mark.parametrize("name", ["sec-websocket-key", "sec-websocket-version"])
def test_section_4_2_1_missing_fields_are_refused(name: str) -> None:
    assert refusal(without=name).status in (400, 426)


@given(
    st.dictionaries(st.sampled_from(sorted(REQUEST)), st.text(max_size=30)),
    st.sampled_from(["GET", "HEAD", ""]),
    st.text(max_size=4),
)
def test_any_request_is_accepted_or_refused(fields: dict[str, str], method: str, version: str) -> None:
    status = 101
    try:
        check_upgrade(method, version, REQUEST | fields)
    except HandshakeError as error:
        status = error.status
    assert status in (101, 400, 405, 426)


def test_section_4_2_2_response_of_the_example() -> None:
    assert build_response(KEY, subprotocol="chat") == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Sec-WebSocket-Protocol: chat\r\n"
        b"\r\n"
    )


def test_section_4_2_2_response_names_extensions_and_further_fields() -> None:
    lines = build_response(KEY, extensions="permessage-deflate", headers=[(b"Set-Cookie", b"io=1"), (b"X", b"")]).split(
        b"\r\n"
    )
    assert lines[4:] == [
        b"Sec-WebSocket-Extensions: permessage-deflate",
        b"Set-Cookie: io=1",
        b"X: ",
        b"",
        b"",
    ]


@pytest.mark.parametrize("field", [(b"X", b"a\r\nY: b"), (b"X", b"a\n"), (b"X:", b"a"), (b"", b"a"), (b"X", b"\0")])
def test_a_field_cannot_break_the_head_apart(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="is no header field"):
        build_response(KEY, headers=[field])


def test_a_subprotocol_cannot_break_the_head_apart() -> None:
    with pytest.raises(ValueError, match="is no header field"):
        build_response(KEY, subprotocol="chat\r\nX: y")
