"""Engine.IO protocol v4: one test for each rule of the protocol that needs no I/O."""

import base64
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.core.errors import PacketError, ProtocolError
from bellwire.protocol.engineio import (
    CLOSE,
    MESSAGE,
    NOOP,
    OPEN,
    PING,
    PONG,
    UPGRADE,
    Control,
    Handshake,
    RequestError,
    Upgrade,
    UpgradeAction,
    UpgradeState,
    check_request,
    decode_handshake,
    decode_payload,
    encode_base64,
    encode_handshake,
    encode_payload,
    new_sid,
    node_of,
    read_packet,
    refuse_request,
)

# --- handshake


def test_handshake_bytes_are_those_of_the_reference_server() -> None:
    packet = encode_handshake(
        "WkezFsGeHfr6BhiIAAAA",
        upgrades=["websocket"],
        ping_interval=25.0,
        ping_timeout=20.0,
        max_payload=1_000_000,
    )

    assert packet == (
        '0{"sid":"WkezFsGeHfr6BhiIAAAA","upgrades":["websocket"],'
        '"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}'
    )


def test_handshake_has_exactly_five_keys_and_no_upgrades_on_websocket() -> None:
    packet = encode_handshake("s", upgrades=(), ping_interval=0.3, ping_timeout=0.2, max_payload=9)

    assert json.loads(packet[1:]) == {
        "sid": "s",
        "upgrades": [],
        "pingInterval": 300,
        "pingTimeout": 200,
        "maxPayload": 9,
    }


def test_handshake_times_are_whole_milliseconds() -> None:
    packet = encode_handshake("s", upgrades=(), ping_interval=1.0006, ping_timeout=0.29, max_payload=9)

    assert '"pingInterval":1001,"pingTimeout":290,' in packet


def test_handshake_is_read_by_a_client() -> None:
    packet = encode_handshake("s", upgrades=["websocket"], ping_interval=25, ping_timeout=30, max_payload=9)

    assert decode_handshake(packet) == Handshake("s", ("websocket",), 25_000, 30_000, 9)


def test_handshake_of_a_server_that_does_not_tell_its_limit() -> None:
    handshake = decode_handshake('0{"sid":"s","upgrades":[],"pingInterval":25000,"pingTimeout":20000}')

    assert handshake == Handshake("s", (), 25_000, 20_000, 0)


@pytest.mark.parametrize("packet", ["", "4hello", "0", "0[]", '0{"sid":1}', "0" + "[" * 100_000, "0\ud800"])
def test_handshake_that_is_none_is_refused_by_a_client(packet: str) -> None:
    with pytest.raises(PacketError):
        decode_handshake(packet)


def test_sid_names_its_node_and_is_new_each_time() -> None:
    sids = {new_sid("0123abcd") for _ in range(1000)}

    assert len(sids) == 1000
    assert all(re.fullmatch(r"0123abcd[A-Za-z0-9_-]{16}", sid) for sid in sids)
    assert {node_of(sid) for sid in sids} == {"0123abcd"}


@pytest.mark.parametrize(
    "sid", ["", "0123abcd", "0123ABCD" + "a" * 16, "0123abcd" + "a" * 15, "0123abcd" + "é" * 16, "a" * 20]
)
def test_what_is_no_sid_names_no_node(sid: str) -> None:
    assert node_of(sid) is None


# --- packet types


def test_packet_types() -> None:
    assert tuple("0123456") == (OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP)


def test_message_is_given_without_its_type() -> None:
    assert read_packet("4hello") == "hello"
    assert read_packet("4") == ""
    assert read_packet("41") == "1"


def test_binary_message_has_no_prefix() -> None:
    assert read_packet(b"\x01\x02") == b"\x01\x02"


def test_text_frame_that_starts_with_b_is_base64_binary() -> None:
    assert read_packet("bAQIDBA==") == b"\x01\x02\x03\x04"
    assert read_packet("b") == b""


def test_pong_is_accepted_asked_for_or_not() -> None:
    assert read_packet("3") is Control.PONG
    assert read_packet("3probe") is Control.PONG


def test_close_from_the_client() -> None:
    assert read_packet("1") is Control.CLOSE


@pytest.mark.parametrize("packet", ["2", "2probe"])
def test_ping_from_a_client_is_an_invalid_heartbeat_direction(packet: str) -> None:
    with pytest.raises(PacketError, match="invalid heartbeat direction"):
        read_packet(packet)


@pytest.mark.parametrize("packet", ["0", '0{"sid":"x"}', "6", "5", "7", "abc", "", " 4", "\ud800", "٤hello"])
def test_packet_that_no_client_may_send(packet: str) -> None:
    with pytest.raises(PacketError):
        read_packet(packet)


@pytest.mark.parametrize("packet", ["bA", "b!!!!", "bAQID\nBA==", "b=", "bAA==AA", "bé", "b_-8="])
def test_base64_is_strict(packet: str) -> None:
    with pytest.raises(PacketError, match="base64"):
        read_packet(packet)
    with pytest.raises(PacketError, match="base64"):
        decode_payload(packet.encode())


@given(st.text() | st.binary())
def test_any_packet_is_a_message_a_control_or_a_packet_error(packet: str | bytes) -> None:
    try:
        verdict = read_packet(packet)
    except PacketError:
        assert packet == "" or packet[0] not in (*"134", *range(256))
    else:
        assert isinstance(verdict, (str, bytes, Control))


# --- the polling payload


def test_payload_of_text_packets() -> None:
    assert decode_payload(b"4hello\x1e2\x1e4world") == ["4hello", "2", "4world"]
    assert encode_payload(["4hello", "2", "4world"]) == "4hello\x1e2\x1e4world"


def test_payload_with_a_binary_packet_has_no_type_digit() -> None:
    assert decode_payload(b"4hello\x1ebAQIDBA==") == ["4hello", b"\x01\x02\x03\x04"]
    assert encode_payload(["4hello", b"\x01\x02\x03\x04"]) == "4hello\x1ebAQIDBA=="
    assert encode_base64(b"\x01\x02\x03\x04") == "bAQIDBA=="


def test_payload_with_characters_beyond_ascii() -> None:
    assert decode_payload("4€ 😀\x1e4é".encode()) == ["4€ 😀", "4é"]


def test_payload_with_a_large_binary_packet_has_no_line_breaks() -> None:
    data = bytes(range(256)) * 300

    assert encode_payload([data]) == "b" + base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"abc",
        b"9",
        b"4a\x1e",
        b"\x1e4a",
        b"4a\x1e\x1e4b",
        b"4\xff",
        b"4\xed\xa0\x80",
        b"4a\x1ebA",
        b"\x1e",
    ],
)
def test_bad_packet_in_a_post(body: bytes) -> None:
    with pytest.raises(PacketError):
        decode_payload(body)


def test_payload_may_have_1024_packets_and_the_next_is_never_dropped_in_silence() -> None:
    assert decode_payload(b"\x1e".join([b"4a"] * 1024)) == ["4a"] * 1024
    with pytest.raises(PacketError, match="1025 packets in one payload, 1024 are allowed"):
        decode_payload(b"\x1e".join([b"4a"] * 1025))
    assert len(decode_payload(b"\x1e".join([b"4a"] * 5000), max_packets=5000)) == 5000


packets = st.one_of(st.binary(), st.text(st.characters(exclude_characters="\x1e", codec="utf-8")).map("4".__add__))


@given(st.lists(packets, min_size=1))
def test_payload_round_trip(sent: list[str | bytes]) -> None:
    assert decode_payload(encode_payload(sent).encode()) == sent


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_body_is_packets_or_a_packet_error(body: bytes) -> None:
    try:
        found = decode_payload(body, max_packets=3)
    except PacketError:
        return
    assert len(found) == body.count(b"\x1e") + 1 <= 3
    assert all(isinstance(packet, bytes) or packet[0] in "0123456" for packet in found)
    assert sum(map(len, found)) <= len(body)


# --- the upgrade


def test_upgrade_probe_then_upgrade() -> None:
    upgrade = Upgrade()

    states = [upgrade.state]
    assert upgrade.receive("2probe") is UpgradeAction.ANSWER_PROBE
    states.append(upgrade.state)
    assert upgrade.receive("5") is UpgradeAction.SWITCH
    states.append(upgrade.state)

    assert states == [UpgradeState.POLLING, UpgradeState.PROBING, UpgradeState.UPGRADED]


def test_upgrade_probe_may_be_repeated() -> None:
    upgrade = Upgrade()

    assert [upgrade.receive(packet) for packet in ("2probe", "2probe", "5")] == [
        UpgradeAction.ANSWER_PROBE,
        UpgradeAction.ANSWER_PROBE,
        UpgradeAction.SWITCH,
    ]


@pytest.mark.parametrize("packet", ["5", "2", "2prob", "2probe ", "4hello", "1", "3probe", "", b"2probe", b""])
def test_upgrade_any_other_first_packet_closes_the_candidate_only(packet: str | bytes) -> None:
    upgrade = Upgrade()

    assert upgrade.receive(packet) is UpgradeAction.CLOSE_CANDIDATE
    assert upgrade.receive("2probe") is UpgradeAction.CLOSE_CANDIDATE
    assert upgrade.state is UpgradeState.FAILED


@pytest.mark.parametrize("packet", ["2", "4hello", "1", "3", "6", "5 ", b"5"])
def test_upgrade_any_other_packet_after_the_probe_closes_the_candidate_only(packet: str | bytes) -> None:
    upgrade = Upgrade()
    upgrade.receive("2probe")

    assert upgrade.receive(packet) is UpgradeAction.CLOSE_CANDIDATE
    assert upgrade.receive("5") is UpgradeAction.CLOSE_CANDIDATE


def test_upgrade_happens_once() -> None:
    upgrade = Upgrade()
    upgrade.receive("2probe")
    upgrade.receive("5")

    assert upgrade.receive("5") is UpgradeAction.CLOSE_CANDIDATE


# --- requests: the errors and their order

SESSIONS = {"on-polling": "polling", "on-websocket": "websocket"}


def check(
    method: str = "GET", *, upgrade: bool = False, origin: str | None = None, **query: str
) -> tuple[int, int, str] | None:
    """None if the request passes, else the status, Engine.IO's code and why."""
    try:
        check_request(method=method, query=query, transport_of=SESSIONS.get, is_upgrade=upgrade, origin=origin)
    except RequestError as error:
        return error.status, error.engine_code, error.context
    return None


def test_request_new_sessions_pass() -> None:
    assert check(EIO="4", transport="polling", t="cache", b64="1", origin="https://example.com") is None
    assert check(EIO="4", transport="websocket", upgrade=True) is None
    assert check(EIO="4", transport="polling", sid="") is None


def test_request_of_a_session_passes() -> None:
    assert check(EIO="4", transport="polling", sid="on-polling") is None
    assert check("POST", EIO="4", transport="polling", sid="on-polling") is None
    assert check(EIO="4", transport="websocket", sid="on-polling", upgrade=True) is None


def test_request_code_0_transport_unknown() -> None:
    assert check(EIO="4") == (400, 0, "UNKNOWN_TRANSPORT")
    assert check(EIO="4", transport="tcp") == (400, 0, "UNKNOWN_TRANSPORT")
    assert check(EIO="4", transport="webtransport", upgrade=True) == (400, 0, "UNKNOWN_TRANSPORT")


def test_request_code_0_for_a_transport_that_is_not_offered() -> None:
    with pytest.raises(RequestError) as caught:
        check_request(
            method="GET",
            query={"EIO": "4", "transport": "polling"},
            transport_of=SESSIONS.get,
            is_upgrade=False,
            origin=None,
            transports=("websocket",),
        )

    assert caught.value.engine_code == 0


def test_request_code_1_session_id_unknown() -> None:
    assert check(EIO="4", transport="polling", sid="nobody") == (400, 1, "UNKNOWN_SID")
    assert check(EIO="4", transport="websocket", sid="nobody", upgrade=True) == (400, 1, "UNKNOWN_SID")
    assert check("POST", EIO="4", transport="polling", sid="__proto__") == (400, 1, "UNKNOWN_SID")


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "get"])
def test_request_code_2_bad_handshake_method(method: str) -> None:
    assert check(method, EIO="4", transport="polling") == (400, 2, "BAD_HANDSHAKE_METHOD")


def test_request_code_3_transport_mismatch() -> None:
    assert check(EIO="4", transport="websocket", sid="on-polling") == (400, 3, "TRANSPORT_MISMATCH")


def test_request_code_3_polling_after_the_upgrade() -> None:
    assert check(EIO="4", transport="polling", sid="on-websocket") == (400, 3, "TRANSPORT_MISMATCH")
    assert check("POST", EIO="4", transport="polling", sid="on-websocket") == (400, 3, "TRANSPORT_MISMATCH")


def test_request_second_websocket_of_a_session_is_accepted_so_that_it_can_be_closed() -> None:
    assert check(EIO="4", transport="websocket", sid="on-websocket", upgrade=True) is None


def test_request_code_3_websocket_needs_upgrade() -> None:
    assert check(EIO="4", transport="websocket") == (400, 3, "TRANSPORT_HANDSHAKE_ERROR")
    assert check(EIO="4", transport="websocket", sid="on-websocket") == (400, 3, "TRANSPORT_HANDSHAKE_ERROR")


def test_request_code_3_polling_cannot_upgrade() -> None:
    assert check(EIO="4", transport="polling", upgrade=True) == (400, 3, "TRANSPORT_HANDSHAKE_ERROR")


@pytest.mark.parametrize("origin", ["https://a\x00b", "https://a\r\nb", "https://☃", "\x7f", "\x1f"])
def test_request_code_3_invalid_origin(origin: str) -> None:
    assert check(EIO="4", transport="polling", origin=origin) == (400, 3, "INVALID_ORIGIN")


def test_request_origin_may_have_every_character_of_a_header_value() -> None:
    assert check(EIO="4", transport="polling", origin="https://a\t é ~") is None
    assert check(EIO="4", transport="polling", origin="") is None


def test_request_code_3_protocol_mismatch_of_a_known_session() -> None:
    assert check(EIO="3", transport="polling", sid="on-polling") == (400, 3, "PROTOCOL_MISMATCH")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD"])
def test_request_code_3_method_that_no_session_knows(method: str) -> None:
    assert check(method, EIO="4", transport="polling", sid="on-polling") == (400, 3, "BAD_METHOD")


def test_request_code_3_websocket_is_opened_by_get() -> None:
    refused = check("POST", EIO="4", transport="websocket", sid="on-polling", upgrade=True)

    assert refused == (400, 3, "BAD_METHOD")


@pytest.mark.parametrize("version", ["3", "5", "", "4 ", "٤"])
def test_request_code_5_unsupported_protocol_version(version: str) -> None:
    assert check(EIO=version, transport="polling") == (400, 5, "UNSUPPORTED_PROTOCOL_VERSION")


def test_request_code_5_without_a_version() -> None:
    assert check(transport="polling") == (400, 5, "UNSUPPORTED_PROTOCOL_VERSION")


def test_request_checks_come_in_the_order_of_the_reference_server() -> None:
    # each time the fault that was found is mended, and all later ones are still there
    found = [
        check("POST", transport="tcp", EIO="3", sid="nobody", origin="\x00"),
        check("POST", transport="websocket", EIO="3", sid="nobody", origin="\x00"),
        check("POST", transport="websocket", EIO="3", sid="nobody"),
        check("POST", transport="websocket", EIO="3", sid="on-polling"),
        check("POST", transport="polling", EIO="3", sid="on-polling"),
        check("POST", transport="websocket", EIO="3"),
        check("GET", transport="websocket", EIO="3"),
        check("GET", transport="websocket", EIO="3", upgrade=True),
        check("GET", transport="websocket", EIO="4", upgrade=True),
    ]

    assert [error and error[2] for error in found] == [
        "UNKNOWN_TRANSPORT",
        "INVALID_ORIGIN",
        "UNKNOWN_SID",
        "TRANSPORT_MISMATCH",
        "PROTOCOL_MISMATCH",
        "BAD_HANDSHAKE_METHOD",
        "TRANSPORT_HANDSHAKE_ERROR",
        "UNSUPPORTED_PROTOCOL_VERSION",
        None,
    ]


@pytest.mark.parametrize(
    ("code", "status", "body"),
    [
        (0, 400, b'{"code":0,"message":"Transport unknown"}'),
        (1, 400, b'{"code":1,"message":"Session ID unknown"}'),
        (2, 400, b'{"code":2,"message":"Bad handshake method"}'),
        (3, 400, b'{"code":3,"message":"Bad request"}'),
        (4, 403, b'{"code":4,"message":"Forbidden"}'),
        (5, 400, b'{"code":5,"message":"Unsupported protocol version"}'),
    ],
)
def test_error_status_and_body(code: int, status: int, body: bytes) -> None:
    error = refuse_request(code, "WHY")

    assert (error.status, error.body, error.context) == (status, body, "WHY")
    assert isinstance(error, ProtocolError)
    assert body.decode().endswith(f'"{error.message}"}}')
    assert "WHY" in str(error)


def test_error_code_4_takes_the_message_of_the_guard() -> None:
    error = refuse_request(4, "ORIGIN", "no entry")

    assert error.body == b'{"code":4,"message":"no entry"}'
    assert error.status == 403


@given(
    st.sampled_from(["GET", "POST", "PUT", ""]),
    st.dictionaries(
        st.sampled_from(["EIO", "transport", "sid", "t"]),
        st.sampled_from(["4", "3", "polling", "websocket", "on-polling", "on-websocket"]) | st.text(),
    ),
    st.booleans(),
    st.none() | st.text(),
)
def test_any_request_passes_or_is_a_request_error(
    method: str, query: dict[str, str], upgrade: bool, origin: str | None
) -> None:
    error = check(method, upgrade=upgrade, origin=origin, **query)

    if error is None:
        assert query["EIO"] == "4"
        assert (query["transport"] == "websocket") == upgrade
        assert not query.get("sid") or query["sid"] in SESSIONS
    else:
        assert error[:2] in {(400, code) for code in range(6)} - {(400, 4)}
