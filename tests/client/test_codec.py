"""What a client writes: the same bytes each time, with something around them, in each dialect."""

from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire import Event, EventRefused, TooManyAttachments
from bellwire.client.codec import (
    ENVELOPE_BYTES,
    SOCKET_IO,
    Codec,
    Encoded,
    RawCodec,
    SocketIOCodec,
    check_payload,
    read_encoded,
)
from bellwire.core.errors import BellwireError
from bellwire.delivery.position import Position
from bellwire.protocol import wire
from bellwire.protocol.embedding import is_message, read_request, take_number
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.socketio import parse_packet

SAY = Event("say", str)
POKE = Event("poke")
BLOB = Event("blob", bytes, str, reply=bytes)
ANY = Event("any", cast("Any", object))

STOCK = SocketIOCodec("/chat")
ROOT = SocketIOCodec("/")
JSON = RawCodec("/chat", wire.JSON)
PACKED = RawCodec("/chat", wire.MSGPACK)

raws = pytest.mark.parametrize("codec", [JSON, PACKED], ids=["json", "msgpack"])


def read(message: Outgoing) -> wire.ClientMessage:
    (part,) = message.parts
    return wire.parse(part)


def args(message: wire.ClientMessage, codec: Codec) -> Any:
    assert isinstance(message, wire.ClientEvent | wire.NumberedEvent | wire.Reply)
    decode = msgspec.msgpack.decode if codec is PACKED else msgspec.json.decode
    return decode(message.args)


# --- Socket.IO


def test_an_event_of_socket_io() -> None:
    event = STOCK.encode(SAY, ("hi",))
    assert event == Encoded(SOCKET_IO, "/chat", "say", b'["say","hi"]')
    assert STOCK.plain(event).parts == ('42/chat,["say","hi"]',)
    assert STOCK.plain(event, 7).parts == ('42/chat,7["say","hi"]',)
    assert ROOT.plain(ROOT.encode(SAY, ("hi",)), 0).parts == ('420["say","hi"]',)
    assert ROOT.plain(ROOT.encode(POKE, ())).parts == ('42["poke"]',)


def test_a_namespace_with_brackets() -> None:
    codec = SocketIOCodec('/a["b"]')
    assert codec.plain(codec.encode(SAY, ("hi",))).parts == ('42/a["b"],["say","hi"]',)


def test_a_binary_event_of_socket_io() -> None:
    event = STOCK.encode(BLOB, (b"\0\1", "x"))
    assert event.attachments == (b"\0\1",)
    assert STOCK.plain(event, 3).parts == ('451-/chat,3["blob",{"_placeholder":true,"num":0},"x"]', b"\0\1")
    with pytest.raises(TooManyAttachments):
        STOCK.encode(ANY, ([b"x"] * 11,))


def test_a_number_is_put_on_and_the_server_finds_what_was_there() -> None:
    for event in (STOCK.encode(SAY, ("hi",)), STOCK.encode(BLOB, (b"x", "y"))):
        head, *attachments = STOCK.numbered(event, 7, "g1", True).parts
        payload, number = take_number(parse_packet(str(head)[1:]))
        assert payload.encode() == event.args
        assert tuple(attachments) == event.attachments
        assert number is not None
        assert (number.number, number.generation, number.resent) == (7, "g1", True)
    head = STOCK.numbered(STOCK.encode(SAY, ("hi",)), 7, None, False).parts[0]
    assert head == '42/chat,["say","hi",{"bellwire":["n",7]}]'


def test_an_event_that_looks_as_if_it_had_a_number_has_none() -> None:
    event = STOCK.encode(ANY, ({"bellwire": ["n", 7]},))
    head = str(STOCK.beside(event).parts[0])
    assert take_number(parse_packet(head[1:])) == (event.args.decode(), None)
    assert STOCK.beside(STOCK.encode(SAY, ("hi",))).parts == ('42/chat,["say","hi"]',)


def test_other_messages_inside_socket_io() -> None:
    for message, request in (
        (STOCK.skip(3, 5), wire.Skip("/chat", 3, 5)),
        (STOCK.ask("r", Position("g", 3, 7)), wire.Ask("r", "g", 3, 7)),
    ):
        packet = parse_packet(str(message.parts[0])[1:])
        assert is_message(packet)
        assert read_request(packet) == request


def test_acknowledgements_of_socket_io() -> None:
    assert STOCK.reply(5, SAY, None).parts == ("43/chat,5[]",)
    assert STOCK.reply(5, BLOB, b"x").parts == ('461-/chat,5[{"_placeholder":true,"num":0}]', b"x")
    assert STOCK.refuse(5, EventRefused("no", "x")).parts == ('43/chat,5[{"error":{"code":"no","message":"x"}}]',)
    assert STOCK.leave().parts == ("41/chat,",)


# --- bellwire.v1


@raws
def test_events_of_bellwire_v1(codec: RawCodec) -> None:
    event = codec.encode(SAY, ("hi",))
    assert (event.dialect, event.namespace, event.name) == (codec.dialect, "/chat", "say")
    plain = read(codec.plain(event, 3))
    assert isinstance(plain, wire.ClientEvent)
    assert (plain.namespace, plain.name, args(plain, codec), plain.id) == ("/chat", "say", ["hi"], 3)
    assert codec.beside(event).parts == codec.plain(event).parts
    numbered = read(codec.numbered(event, 7, "g1", True))
    assert isinstance(numbered, wire.NumberedEvent)
    assert (numbered.number, numbered.generation, numbered.resent) == (7, "g1", True)
    assert bytes(numbered.args) == event.args


@raws
def test_other_messages_of_bellwire_v1(codec: RawCodec) -> None:
    assert read(codec.skip(3, 5)) == wire.Skip("/chat", 3, 5)
    assert read(codec.ask("r", Position("g", 3, 7))) == wire.Ask("r", "g", 3, 7)
    assert read(codec.leave()) == wire.Disconnect("/chat")
    assert args(read(codec.reply(5, SAY, None)), codec) == []
    assert args(read(codec.reply(5, BLOB, b"x")), codec) == [b"x" if codec is PACKED else "eA=="]
    assert args(read(codec.refuse(5, EventRefused("no", "x"))), codec) == [{"error": {"code": "no", "message": "x"}}]


def test_bytes_need_no_attachments() -> None:
    assert PACKED.encode(BLOB, (b"x" * 99, "y")).attachments == ()
    assert args(read(JSON.plain(JSON.encode(BLOB, (b"x", "y")))), JSON) == ["eA==", "y"]


# --- all of them


@pytest.mark.parametrize("codec", [STOCK, JSON, PACKED])
def test_what_no_server_takes_is_an_error_of_who_emits_it(codec: Codec) -> None:
    deep: Any = 0
    for _ in range(40):
        deep = [deep]
    with pytest.raises(ValueError, match=r"'any' cannot be sent: .*nested"):
        codec.encode(ANY, (deep,))
    with pytest.raises(TypeError):
        codec.encode(ANY, (object(),))
    with pytest.raises((ValueError, UnicodeEncodeError)):
        codec.encode(SAY, ("\ud800",))
    wide = [[n] for n in range(100)]
    codec.encode(ANY, (wide,))


def test_an_integer_that_msgpack_cannot_hold() -> None:
    with pytest.raises(ValueError, match="'any' cannot be sent"):
        PACKED.encode(ANY, (2**70,))
    JSON.encode(ANY, (2**70,))


def test_the_payload_is_what_the_event_declares() -> None:
    check_payload(SAY, ("hi",), "emit")
    with pytest.raises(TypeError, match="takes 1 payload"):
        check_payload(SAY, (), "emit")
    with pytest.raises(TypeError, match=r"call\('say'\)"):
        check_payload(cast("Any", "say"), (), "call")


@pytest.mark.parametrize("codec", [STOCK, JSON, PACKED])
def test_what_cannot_be_encoded_is_a_type_error_that_names_the_event(codec: Codec) -> None:
    with pytest.raises(TypeError, match=r"'any' cannot be sent: .*object.*what its Event declares"):
        codec.encode(ANY, (object(),))


def test_an_outbox_gives_back_what_it_was_given() -> None:
    for codec in (STOCK, JSON, PACKED):
        event = codec.encode(BLOB, (b"\0\1", "x"))
        assert read_encoded(event.to_bytes()) == event
    with pytest.raises(BellwireError, match="does not know"):
        read_encoded(b"\x93\1\2\3")


def test_who_speaks_a_dialect() -> None:
    assert STOCK.for_dialect(SOCKET_IO) is STOCK
    assert STOCK.for_dialect(wire.JSON) is None
    assert JSON.for_dialect(SOCKET_IO) is None
    other = JSON.for_dialect(wire.MSGPACK)
    assert isinstance(other, RawCodec)
    assert (other.dialect, other.namespace) == (wire.MSGPACK, "/chat")


@given(st.binary(max_size=50), st.text(st.characters(codec="utf-8"), max_size=50), st.integers(1, 2**53 - 1))
def test_a_size_is_never_below_what_is_written(data: bytes, text: str, number: int) -> None:
    for codec in (STOCK, JSON, PACKED):
        event = codec.encode(BLOB, (data, text))
        parts = codec.numbered(event, number, "g" * 128, True).parts
        written = sum(len(part.encode() if isinstance(part, str) else part) for part in parts)
        assert written <= event.size < written + ENVELOPE_BYTES
