"""Socket.IO protocol v5: what holds for every packet, whatever is in it."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bellwire.core.errors import PacketError
from bellwire.protocol.socketio import (
    ACK,
    BINARY_EVENT,
    CONNECT,
    EVENT,
    MAX_ATTACHMENTS,
    RESERVED_EVENTS,
    Assembly,
    Packet,
    append_argument,
    check_ack_payload,
    check_connect_payload,
    decode_json,
    encode_ack,
    encode_connect,
    encode_event,
    event_name,
    name_of,
    open_argument,
    parse_header,
    parse_packet,
)
from tests.protocol.binary import placeholder

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(
    st.text(st.characters(codec="utf-8")).filter(lambda name: name not in RESERVED_EVENTS),
    st.lists(json_values),
)
def test_event_name_is_found_however_it_is_written(name: str, args: list[Any]) -> None:
    for text in (json.dumps([name, *args]), json.dumps([name, *args], ensure_ascii=False, indent=1)):
        assert event_name(text) == name
    assert event_name(json.dumps([name, *args], ensure_ascii=False, separators=(",", ":"))) == name


texts = st.text(st.characters(codec="utf-8"))
namespaces = st.just("/") | st.text(st.characters(codec="utf-8", exclude_characters=",")).map("/".__add__)
ids = st.none() | st.integers(0, 10**15 - 1)
headers = st.from_regex(r"\A[0-9][0-9]{0,3}-?(/[a-z]{0,3},?)?[0-9]{0,17}[\[{\"]?\Z")
hostile = st.builds(str.__add__, headers, st.text() | json_values.map(json.dumps))


@given(st.text() | hostile)
def test_any_text_is_a_packet_or_a_packet_error(text: str) -> None:
    try:
        packet = parse_packet(text)
    except PacketError:
        return
    assert text.startswith(str(packet.type))
    assert text.endswith(packet.payload)
    assert packet.namespace.startswith("/")
    assert packet.id is None or 0 <= packet.id < 10**15
    assert (1 <= packet.attachments <= 10) == (packet.type >= BINARY_EVENT)
    assert packet.type >= BINARY_EVENT or packet.attachments == 0


almost_plain = st.from_regex(r'\A2(/[a-z]{0,2},?)?[0-9]{0,16} ?\[ ?("|5)(connect|[^"]{0,3})"? ?[,\]}:]')


@given(st.text() | hostile | almost_plain | st.builds(str.__add__, almost_plain, st.text()))
@example('2["connect",1]')
@example('2/a,1["",1]')
def test_an_event_with_a_plain_name_is_read_as_any_other_packet(text: str) -> None:
    try:
        packet = parse_packet(text)
    except PacketError:
        with pytest.raises(PacketError):
            parse_header(text, MAX_ATTACHMENTS)
        return
    assert msgspec.structs.replace(packet, name="") == parse_header(text, MAX_ATTACHMENTS)
    if packet.name:
        assert packet.name == event_name(packet.payload) == name_of(packet)


@given(st.text() | hostile | json_values.map(json.dumps))
def test_any_payload_is_read_or_a_packet_error(payload: str) -> None:
    readers: list[Callable[[str], object]] = [
        event_name,
        decode_json,
        check_connect_payload,
        check_ack_payload,
    ]
    for read in readers:
        try:
            read(payload)
        except PacketError:
            continue


placeholders = st.builds(placeholder, st.integers(-1, 4) | json_values)
trees = st.recursive(
    placeholders | json_values,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(trees, max_size=4), st.lists(st.binary(max_size=20), max_size=4))
def test_any_assembly_resolves_or_is_a_packet_error(payload: list[Any], attachments: list[bytes]) -> None:
    assembly = Assembly(Packet(BINARY_EVENT, "/", None, json.dumps(payload), len(attachments)), max_bytes=50)
    try:
        for attachment in attachments:
            assembly.add(attachment)
        found = assembly.resolve()
    except PacketError:
        return
    assert sum(map(len, attachments)) <= 50
    assert len(found) == len(payload)


binary_values = st.recursive(
    st.none() | st.integers(-(2**53), 2**53) | texts | st.binary(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)

# Of one tree, so that all arguments together hold no more attachments than a packet may have.
binary_args = binary_values.map(lambda value: value if isinstance(value, list) else [value])


@given(
    namespaces,
    ids,
    texts.filter(lambda name: name not in RESERVED_EVENTS),
    binary_args,
)
def test_event_round_trip(namespace: str, ack: int | None, name: str, args: list[Any]) -> None:
    sent = [name, *args]
    text, *attachments = encode_event(namespace, sent, id=ack).parts

    assert isinstance(text, str)
    packet = parse_packet(text[1:])
    assert (packet.namespace, packet.id, event_name(packet.payload)) == (namespace, ack, name)
    if packet.type == EVENT:
        assert decode_json(packet.payload) == sent
        assert encode_event(namespace, sent, id=ack, binary=False).parts == (text,)
    else:
        assert receive_attachments(packet, attachments) == sent


@given(namespaces, st.integers(0, 10**15 - 1), binary_args)
def test_ack_round_trip(namespace: str, ack: int, args: list[Any]) -> None:
    text, *attachments = encode_ack(namespace, ack, args).parts

    assert isinstance(text, str)
    packet = parse_packet(text[1:])
    assert (packet.namespace, packet.id) == (namespace, ack)
    if packet.type == ACK:
        assert check_ack_payload(packet.payload) == args
    else:
        assert receive_attachments(packet, attachments) == args


def receive_attachments(packet: Packet, attachments: list[str | bytes]) -> list[Any]:
    assembly = Assembly(packet, max_bytes=1000)
    complete = []
    for attachment in attachments:
        assert isinstance(attachment, bytes)
        complete.append(assembly.add(attachment))
    assert complete == [False] * (packet.attachments - 1) + [True]
    return assembly.resolve()


@given(namespaces, st.none() | st.dictionaries(texts, json_values, max_size=3))
def test_connect_round_trip(namespace: str, payload: dict[str, Any] | None) -> None:
    (text,) = encode_connect(namespace, payload).parts

    assert isinstance(text, str)
    packet = parse_packet(text[1:])
    assert (packet.type, packet.namespace) == (CONNECT, namespace)
    assert check_connect_payload(packet.payload) == payload


@given(st.sampled_from(["/", "/a[b"]), st.lists(json_values | st.binary(max_size=3), max_size=3), json_values)
def test_one_argument_more_is_as_if_it_had_been_there(namespace: str, args: list[Any], last: Any) -> None:
    event, other = encode_event(namespace, ["x", *args], id=7), encode_event(namespace, ["x", *args, last], id=7)
    text = msgspec.json.encode(last).decode()

    assert append_argument(event, text).parts == other.parts
    ascii_only = len(text.encode()) == len(text)
    start = text[:1] if ascii_only else text
    assert open_argument(event, start).end(f"{text[len(start) :]}]").parts == other.parts
