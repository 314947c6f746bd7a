"""Socket.IO protocol v5, reading: one test for each rule of the protocol that needs no I/O."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from bellwire.core.errors import PacketError
from bellwire.protocol.socketio import (
    ACK,
    BINARY_ACK,
    BINARY_EVENT,
    CONNECT,
    CONNECT_ERROR,
    DISCONNECT,
    EVENT,
    MAX_ATTACHMENTS,
    RESERVED_EVENTS,
    Assembly,
    Packet,
    check_ack_payload,
    check_connect_payload,
    decode_json,
    event_name,
    parse_packet,
    read_refusal,
)
from tests.protocol.binary import placeholder


def assemble(payload: object, *attachments: bytes) -> list[Any]:
    """Resolve a binary event whose payload is given decoded, or as JSON text."""
    text = payload if isinstance(payload, str) else json.dumps(payload)
    assembly = Assembly(Packet(BINARY_EVENT, "/", None, text, len(attachments)), max_bytes=1000)
    for attachment in attachments:
        assembly.add(attachment)
    return assembly.resolve()


# --- the examples of the specification


def test_packet_types() -> None:
    types = (CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK)

    assert types == tuple(range(7))


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ("0", Packet(CONNECT, "/", None, "", 0)),
        ("0/", Packet(CONNECT, "/", None, "", 0)),
        ("0/,", Packet(CONNECT, "/", None, "", 0)),
        ('0{"token":"123"}', Packet(CONNECT, "/", None, '{"token":"123"}', 0)),
        ('0/admin,{"token":"123"}', Packet(CONNECT, "/admin", None, '{"token":"123"}', 0)),
        ('4/random,{"message":"no"}', Packet(CONNECT_ERROR, "/random", None, '{"message":"no"}', 0)),
        ('2["foo"]', Packet(EVENT, "/", None, '["foo"]', 0, "foo")),
        ('2/admin,["bar"]', Packet(EVENT, "/admin", None, '["bar"]', 0, "bar")),
        ('212["foo"]', Packet(EVENT, "/", 12, '["foo"]', 0, "foo")),
        ('2/admin,12["foo"]', Packet(EVENT, "/admin", 12, '["foo"]', 0, "foo")),
        ('312["bar"]', Packet(ACK, "/", 12, '["bar"]', 0)),
        ("312[]", Packet(ACK, "/", 12, "[]", 0)),
        ('3/admin,0["bar"]', Packet(ACK, "/admin", 0, '["bar"]', 0)),
        ('52-/admin,["baz"]', Packet(BINARY_EVENT, "/admin", None, '["baz"]', 2)),
        ('51-/admin,7["baz"]', Packet(BINARY_EVENT, "/admin", 7, '["baz"]', 1)),
        ('51-["baz"]', Packet(BINARY_EVENT, "/", None, '["baz"]', 1)),
        ('61-15["bar"]', Packet(BINARY_ACK, "/", 15, '["bar"]', 1)),
        ("1", Packet(DISCONNECT, "/", None, "", 0)),
        ("1/admin,", Packet(DISCONNECT, "/admin", None, "", 0)),
    ],
)
def test_parse_examples(text: str, packet: Packet) -> None:
    assert parse_packet(text) == packet


@pytest.mark.parametrize("text", ["0/random", "1/random"])
def test_parse_comma_after_the_namespace_is_optional(text: str) -> None:
    assert parse_packet(text) == parse_packet(text + ",")
    assert parse_packet(text).namespace == "/random"


def test_parse_namespace_ends_at_the_first_comma_whatever_it_holds() -> None:
    assert parse_packet('2/a/b?c=[1]"é\n,["x"]') == Packet(EVENT, '/a/b?c=[1]"é\n', None, '["x"]', 0, "x")


def test_parse_payload_may_hold_anything() -> None:
    assert parse_packet('2["a","/b,1-[\u2028\n"]').payload == '["a","/b,1-[\u2028\n"]'
    assert parse_packet('21["a","/b,1-[\u2028\n"]').payload == '["a","/b,1-[\u2028\n"]'


# --- decode errors: each closes the connection


@pytest.mark.parametrize("text", ["", "7", '9["a"]', "abc", 'a["x"]', " 2[]", "-1", "٢[]", "/", "[", '"', "\ud800"])
def test_parse_unknown_type(text: str) -> None:
    with pytest.raises(PacketError, match="unknown packet type"):
        parse_packet(text)


@pytest.mark.parametrize("text", ['2abc["x"]', "2{}", '2/admin,abc["x"]', "2", "2/admin", '2/admin["x"]', "212"])
def test_parse_event_not_an_array(text: str) -> None:
    with pytest.raises(PacketError):
        parse_packet(text)


@pytest.mark.parametrize("text", ['2 ["x"]', '2\n["x"]', '2٣["x"]', '2-1["x"]', '2+1["x"]', '21.5["x"]', '2²["x"]'])
def test_parse_id_is_ascii_digits(text: str) -> None:
    with pytest.raises(PacketError):
        parse_packet(text)


def test_parse_id_has_at_most_15_digits() -> None:
    assert parse_packet('2999999999999999["x"]').id == 999_999_999_999_999
    assert parse_packet('2/a,999999999999999["x"]').id == 999_999_999_999_999
    for text in ('21000000000000000["x"]', '2/a,1000000000000000["x"]', f'2{"1" * 10_000}["x"]'):
        with pytest.raises(PacketError, match="15 digits"):
            parse_packet(text)


@pytest.mark.parametrize("kind", "56")
@pytest.mark.parametrize("count", ["", "-", "0-", "00-", "a-", "1", "1.0-", "+1-", " 1-", "٣-", "1e0-", "-1-"])
def test_parse_bad_attachment_count(kind: str, count: str) -> None:
    with pytest.raises(PacketError):
        parse_packet(f'{kind}{count}["x"]')


@pytest.mark.parametrize(
    "count", ["11", "9999999999", "9" * 15, "9" * 16, pytest.param("9" * 100_000, id="many digits")]
)
def test_parse_more_than_10_attachments(count: str) -> None:
    assert parse_packet('510-["x"]').attachments == MAX_ATTACHMENTS == 10
    with pytest.raises(PacketError):
        parse_packet(f'5{count}-["x"]')


def test_parse_fewer_attachments_can_be_allowed() -> None:
    assert parse_packet('52-["x"]', max_attachments=2).attachments == 2
    with pytest.raises(PacketError, match="3 attachments in one packet, 2 are allowed"):
        parse_packet('53-["x"]', max_attachments=2)


@pytest.mark.parametrize("kind", "01234")
def test_parse_attachments_of_a_packet_that_is_not_binary(kind: str) -> None:
    with pytest.raises(PacketError):
        parse_packet(f'{kind}1-["x"]')


@pytest.mark.parametrize("text", ["1{}", "1[]", '1"x"', "1/admin,{}", "1/admin,null"])
def test_parse_disconnect_with_payload(text: str) -> None:
    with pytest.raises(PacketError):
        parse_packet(text)


@pytest.mark.parametrize("text", ['0"x"', "0[]", "0null", "0/admin,true", "0abc", "4[]", "4abc", "4", "4/admin,"])
def test_parse_connect_or_its_error_without_an_object(text: str) -> None:
    with pytest.raises(PacketError):
        parse_packet(text)


@pytest.mark.parametrize(
    ("payload", "refusal"),
    [
        ('{"message":"no"}', ("no", None)),
        ('{"message":"no","data":{"code":"E1"}}', ("no", {"code": "E1"})),
        ('"Unable to connect"', ("Unable to connect", None)),  # python-socketio, of an unknown namespace
    ],
)
def test_refusal_of_a_connection(payload: str, refusal: tuple[str, object]) -> None:
    assert read_refusal(parse_packet("4" + payload).payload) == refusal


@pytest.mark.parametrize("payload", ["{}", '{"message":1}', '{"message":', '"x', "[]", "null"])
def test_refusal_without_a_message(payload: str) -> None:
    with pytest.raises(PacketError):
        read_refusal(payload)


@pytest.mark.parametrize("text", ["3{}", "312", '312"x"', "61-12", '61-12{"a":1}'])
def test_parse_ack_not_an_array(text: str) -> None:
    with pytest.raises(PacketError):
        parse_packet(text)


def test_parse_ack_without_an_id_answers_nothing_and_is_no_error() -> None:
    assert parse_packet("3[]") == Packet(ACK, "/", None, "[]", 0)


@pytest.mark.parametrize(
    "payload",
    [
        "[",
        "[1,]",
        '["a"',
        "{}}",
        "[NaN]",
        "[Infinity]",
        "[01]",
        "[1e999]",
        "['a']",
        "",
        "[1]x",
        "\ud800",
        '["\x00"]',
        pytest.param("[" + "1" * 1_000_000 + "]", id="a million digits"),
    ],
)
def test_json_invalid(payload: str) -> None:
    with pytest.raises(PacketError, match="not valid JSON"):
        decode_json(payload)


@pytest.mark.parametrize(("start", "end"), [("[", ""), ("[", "]"), ('{"a":', "")])
def test_json_nested_too_deeply(start: str, end: str) -> None:
    payload = start * 200_000 + end * 200_000
    readers: list[Callable[[str], object]] = [decode_json, check_ack_payload, check_connect_payload]
    for read in readers:
        with pytest.raises(PacketError):
            read(payload)
    with pytest.raises(PacketError):
        event_name(payload)
    with pytest.raises(PacketError):
        assemble(payload)


@pytest.mark.parametrize(("levels", "fine"), [(32, True), (33, False)])
def test_json_of_more_than_32_levels(levels: int, fine: bool) -> None:
    array, connect = "[" * levels + "]" * levels, '{"a":' * levels + "1" + "}" * levels
    for read, payload in ((check_ack_payload, array), (check_connect_payload, connect), (assemble, array)):
        if fine:
            read(payload)
        else:
            with pytest.raises(PacketError, match="32 levels"):
                read(payload)


def test_an_integer_beside_an_attachment_is_what_javascript_has() -> None:
    assert assemble([2**64, -(2**63), 2**64 - 1]) == [float(2**64), -(2**63), 2**64 - 1]
    with pytest.raises(PacketError, match="out of range"):
        assemble("[" + "9" * 400 + "]")


def test_json_large_numbers_stay_exact() -> None:
    assert decode_json("[9007199254740993,1e300]") == [9007199254740993, 1e300]


def test_json_prototype_keys_are_keys_like_others() -> None:
    assert decode_json('{"__proto__":1,"__class__":2,"a":3,"a":4}') == {
        "__proto__": 1,
        "__class__": 2,
        "a": 4,
    }


# --- the event's name


def test_event_name() -> None:
    assert event_name('["foo"]') == "foo"
    assert event_name('["message:send",{"a":["b"]}]') == "message:send"
    assert event_name('["été 😀",1]') == "été 😀"
    assert event_name('[""]') == ""


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (r'["\u0066oo",1]', "foo"),
        (r'["a\"b"]', 'a"b'),
        (r'["a\\",1]', "a\\"),
        ('[ "foo" ]', "foo"),
        ('["foo" ,1]', "foo"),
        ('["a\x7f"]', "a\x7f"),
        (r'["\ud800"]', "\ufffd"),
        ('[\n"foo"\t]\r\n', "foo"),
    ],
)
def test_event_name_with_escapes_or_white_space(payload: str, name: str) -> None:
    assert event_name(payload) == name


@pytest.mark.parametrize(("payload", "name"), [("[5]", "5"), ("[-1,2]", "-1"), ("[1.0]", "1"), ("[1.5]", "1.5")])
def test_event_name_may_be_a_number(payload: str, name: str) -> None:
    assert event_name(payload) == name


@pytest.mark.parametrize(
    "payload",
    [
        "[]",
        "{}",
        '{"0":"a"}',
        "[null]",
        "[true]",
        "[false,1]",
        '[["a"]]',
        '[{"a":1}]',
        "null",
        '"a"',
        "1",
        "",
    ],
)
def test_event_without_a_name(payload: str) -> None:
    with pytest.raises(PacketError):
        event_name(payload)


@pytest.mark.parametrize("payload", ['["foo', '["foo"', '["a\x00b"]', '["foo"}', r'["a\x"]', '["', '["foo":1]'])
def test_event_name_in_malformed_json(payload: str) -> None:
    with pytest.raises(PacketError):
        event_name(payload)


@pytest.mark.parametrize("name", sorted(RESERVED_EVENTS))
def test_event_name_reserved(name: str) -> None:
    escaped = rf'["\u{ord(name[0]):04x}{name[1:]}"]'

    for payload in (f'["{name}"]', f'["{name}",1]', f'[ "{name}"]', escaped):
        with pytest.raises(PacketError, match="reserved"):
            event_name(payload)


def test_reserved_names_are_those_of_the_reference_parser() -> None:
    reserved = "connect connect_error disconnect disconnecting newListener removeListener"

    assert set(reserved.split()) == RESERVED_EVENTS


# --- payloads


def test_connect_payload_is_an_object_or_nothing() -> None:
    assert check_connect_payload("") is None
    assert check_connect_payload('{"token":"123"}') == {"token": "123"}
    assert check_connect_payload("{}") == {}


@pytest.mark.parametrize("payload", ["[]", '"x"', "null", "1", "{", '{"a":1}x'])
def test_connect_payload_not_an_object(payload: str) -> None:
    with pytest.raises(PacketError):
        check_connect_payload(payload)


def test_ack_payload_is_an_array() -> None:
    assert check_ack_payload("[]") == []
    assert check_ack_payload('["a",{"b":1}]') == ["a", {"b": 1}]


@pytest.mark.parametrize("payload", ["{}", '"x"', "null", "1", "", "["])
def test_ack_payload_not_an_array(payload: str) -> None:
    with pytest.raises(PacketError):
        check_ack_payload(payload)


# --- binary packets


def test_attachments_take_the_places_of_their_placeholders() -> None:
    assert assemble(["baz", placeholder(0), placeholder(1)], b"\x01", b"\x02") == ["baz", b"\x01", b"\x02"]


def test_attachments_may_be_placed_at_any_depth_and_in_any_order() -> None:
    payload = ["e", {"a": [placeholder(2), {"b": placeholder(0)}]}, [[placeholder(1)]]]

    assert assemble(payload, b"0", b"1", b"2") == ["e", {"a": [b"2", {"b": b"0"}]}, [[b"1"]]]


def test_attachment_may_be_empty() -> None:
    assert assemble(["e", placeholder(0)], b"") == ["e", b""]


def test_attachments_of_an_ack() -> None:
    assembly = Assembly(parse_packet('61-15["bar",{"_placeholder":true,"num":0}]'), max_bytes=4)

    assert assembly.add(b"\x01\x02\x03\x04")
    assert assembly.packet.id == 15
    assert assembly.resolve() == ["bar", b"\x01\x02\x03\x04"]


def test_assembly_is_complete_with_its_last_attachment() -> None:
    assembly = Assembly(parse_packet('52-["x"]'), max_bytes=10)

    assert [assembly.add(b"1"), assembly.complete, assembly.add(b"2"), assembly.complete] == [
        False,
        False,
        True,
        True,
    ]


def test_binary_frame_when_none_is_due() -> None:
    assembly = Assembly(parse_packet('51-["x"]'), max_bytes=10)
    assembly.add(b"1")

    with pytest.raises(PacketError, match="none is due"):
        assembly.add(b"2")


def test_attachments_that_are_missing() -> None:
    assembly = Assembly(parse_packet('52-["x"]'), max_bytes=10)
    assembly.add(b"1")

    with pytest.raises(PacketError, match="missing"):
        assembly.resolve()


def test_attachments_are_bounded_together() -> None:
    assembly = Assembly(parse_packet('53-["x"]'), max_bytes=10)
    assembly.add(b"12345")
    assembly.add(b"12345")

    with pytest.raises(PacketError, match="too large"):
        assembly.add(b"1")


@pytest.mark.parametrize("number", [-1, 1, 99, 2**70, "0", "x", None, True, False, 0.0, [0], {}])
def test_parse_placeholder_num_out_of_range(number: object) -> None:
    with pytest.raises(PacketError, match="num"):
        assemble(["e", placeholder(number)], b"1")


def test_parse_placeholder_without_num() -> None:
    with pytest.raises(PacketError, match="num"):
        assemble(["e", {"_placeholder": True}], b"1")


def test_parse_placeholder_used_twice() -> None:
    with pytest.raises(PacketError, match="two placeholders"):
        assemble(["e", placeholder(0), placeholder(0)], b"1")


def test_parse_attachment_without_a_placeholder() -> None:
    with pytest.raises(PacketError, match="without a placeholder"):
        assemble(["e", placeholder(0)], b"1", b"2")
    with pytest.raises(PacketError, match="without a placeholder"):
        assemble(["e"], b"")


@pytest.mark.parametrize("value", [1, "true", False, None, [True]])
def test_parse_object_that_only_looks_like_a_placeholder(value: object) -> None:
    lookalike = {"_placeholder": value, "num": 0}

    assert assemble(["e", lookalike, placeholder(0)], b"1") == ["e", lookalike, b"1"]


@pytest.mark.parametrize("payload", ["{}", '"x"', "[", '{"_placeholder":true,"num":0}'])
def test_parse_binary_payload_not_an_array(payload: str) -> None:
    with pytest.raises(PacketError):
        assemble(payload, b"1")


def test_attachments_are_found_in_the_deepest_place() -> None:
    depth = 30
    payload = '["e",' + "[" * depth + '{"_placeholder":true,"num":0}' + "]" * depth + "]"

    found = assemble(payload, b"1")[1]
    for _ in range(depth):
        found = found[0]
    assert found == b"1"
