from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import pytest

from bellwire.core.errors import PacketError, TooManyAttachments
from bellwire.protocol.post import Delivery, Post
from bellwire.protocol.wire import ServerEvent, StreamEvent, parse_server


class Colour(Enum):
    RED = "red"


class Drawn(msgspec.Struct, rename="camel"):
    drawn_by: str
    strokes: list[tuple[int, int]]
    blob: bytes = b"\x00\x01"


def post(*args: Any, name: str = "say", binary: bool = False, id: int | None = None) -> Post:  # noqa: A002
    return Post("/chat", name, args, binary=binary, id=id)


def read_event(text_or_bytes: Any) -> Any:
    """What a client of bellwire.v1 reads; its arguments decoded."""
    event = parse_server(text_or_bytes)
    assert isinstance(event, ServerEvent | StreamEvent)
    decode = msgspec.json.decode if isinstance(text_or_bytes, str) else msgspec.msgpack.decode
    return event, decode(event.args)


def deliver(item: Post, *, named: bool = False) -> Delivery:
    return Delivery(item, "r7Xw", 6, "g1", (40, 7), 41, 9, "m-1", named=named)


# --- what every Socket.IO client understands


def test_an_event_is_encoded_for_stock_clients_when_it_is_made() -> None:
    assert post("x", 1).stock.parts == ('42/chat,["say","x",1]',)
    assert post(id=7).stock.parts == ('42/chat,7["say"]',)
    assert Post("/", "say", (), binary=False).stock.parts == ('42["say"]',)


def test_bytes_are_attachments_where_the_event_may_hold_them() -> None:
    head, attachment = post({"b": b"\x01"}, binary=True).stock.parts
    assert head == '451-/chat,["say",{"b":{"_placeholder":true,"num":0}}]'
    assert attachment == b"\x01"
    with pytest.raises(TooManyAttachments):
        post([b""] * 11, binary=True)


def test_what_cannot_be_encoded_is_the_senders_error() -> None:
    with pytest.raises(TypeError):
        post(object())


# --- what brokers carry

PAYLOADS: list[Any] = [
    None,
    "é\x1e\u2028",
    2**64 - 1,
    -(2**63),
    1.5,
    [],
    {"a": [1, {"b": None}]},
    {1: "int keys", 2: "become text"},
    (1, 2),
    Colour.RED,
    Decimal("1.50"),
    UUID(int=5),
    date(2026, 1, 2),
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    datetime(2026, 1, 2, 3, 4, 5),
    float("nan"),
    Drawn("ann", [(1, 2)]),
    b"\xff\x00",
    bytearray(b"ab"),
    memoryview(b"ab"),
]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: type(payload).__name__)
def test_another_node_makes_the_same_of_the_body(payload: Any, binary: bool) -> None:
    sent = post(payload, "last", binary=binary)
    read = Post.read("/chat", sent.body)
    assert (read.namespace, read.name, read.binary, read.id) == ("/chat", "say", binary, None)
    assert read.stock.parts == sent.stock.parts
    assert read.body is not None
    assert read.body == sent.body
    assert read.raw_json.parts == sent.raw_json.parts
    assert read.raw_msgpack.parts == sent.raw_msgpack.parts


def test_the_body_is_made_once_and_kept_as_it_came() -> None:
    sent = post("x")
    assert sent.body is sent.body
    assert Post.read("/chat", sent.body).body is sent.body


def test_integers_that_msgpack_cannot_hold_are_the_senders_error_with_a_message_that_names_the_event() -> None:
    large = post(2**64)
    with pytest.raises(TypeError, match="'say' cannot be sent"):
        _ = large.body


def test_what_the_application_does_to_its_objects_afterwards_changes_nothing() -> None:
    payload = {"n": 1}
    sent = post(payload)
    _ = sent.body
    payload["n"] = 2
    assert sent.stock.parts == ('42/chat,["say",{"n":1}]',)
    assert read_event(sent.raw_json.parts[0])[1] == [{"n": 1}]
    assert read_event(sent.raw_msgpack.parts[0])[1] == [{"n": 1}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"nonsense",
        msgspec.msgpack.encode(("say", False)),
        msgspec.msgpack.encode((1, False, [])),
        msgspec.msgpack.encode(("say", 0, [])),
        msgspec.msgpack.encode(("say", False, "abc")),
        msgspec.msgpack.encode(("say", False, {"a": 1})),
        msgspec.msgpack.encode(("say", False, [])) + b"\x00",
        msgspec.msgpack.encode(("say", False, [1]))[:-1],
        msgspec.msgpack.encode(("say", True, [b"x"] * 11)),
        msgspec.msgpack.encode(("say", False, [msgspec.msgpack.Ext(1, b"x")])),
        msgspec.msgpack.encode(("say", True, [{"_placeholder": True}, b"x"])),
        b"\x93\xa3say\xc2" + b"\x91" * 32 + b"\x90",
        b"\x93\xa3say\xc2" + b"\x91" * 200_000,
    ],
    ids=range(15),
)
def test_what_is_no_body_is_refused(body: bytes) -> None:
    with pytest.raises(PacketError, match="no event"):
        Post.read("/chat", body)


# --- bellwire.v1


@pytest.mark.parametrize("form", ["raw_json", "raw_msgpack"])
def test_an_event_for_raw_clients_is_in_no_stream(form: str) -> None:
    sent = post("x", 1, id=7)
    (part,) = getattr(sent, form).parts
    event, args = read_event(part)
    assert (event.namespace, event.name, event.id, event.after) == ("/chat", "say", 7, None)
    assert args == ["x", 1]


def test_bytes_are_base64_in_json_and_bytes_in_msgpack() -> None:
    sent = post(b"\xff\xfe", binary=True)
    assert sent.raw_json.parts == ('["e","/chat","say",["//4="]]',)
    assert read_event(sent.raw_msgpack.parts[0])[1] == [b"\xff\xfe"]


FORMS: list[Callable[[Any], Any]] = [
    lambda item: item.stock,
    lambda item: item.embedded,
    lambda item: item.raw_json,
    lambda item: item.raw_msgpack,
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "make", [lambda: post("x"), lambda: deliver(post("x")), lambda: deliver(post("x"), named=True)]
)
def test_every_form_is_made_once(make: Callable[[], Any], form: Callable[[Any], Any]) -> None:
    item = make()
    assert form(item) is form(item)


# --- inside Socket.IO


def test_an_event_outside_of_streams_is_the_stock_one() -> None:
    sent = post("x")
    assert sent.embedded is sent.stock


def test_nobody_can_pass_a_place_off_as_the_servers_word() -> None:
    forged = post({"bellwire": ["s", "r7Xw", 1, 1, 2, 2, "m"]})
    (text,) = forged.embedded.parts
    assert str(text).endswith(',{"bellwire":["e"]}]')


def test_a_place_is_one_argument_more() -> None:
    assert deliver(post("x")).embedded.parts == ('42/chat,["say","x",{"bellwire":["s",6,41,9,1,7,"m-1"]}]',)
    assert deliver(post()).embedded.parts == ('42/chat,["say",{"bellwire":["s",6,41,9,1,7,"m-1"]}]',)


def test_a_place_names_the_generation_where_it_has_to() -> None:
    text = str(deliver(post("x"), named=True).embedded.parts[0])
    assert text.endswith('["s",6,41,9,1,7,"m-1","g1"]}]')


def test_attachments_stay_behind_an_event_with_a_place() -> None:
    sent = post(b"\x01", binary=True)
    head, attachment = deliver(sent).embedded.parts
    assert str(head).startswith('451-/chat,["say",{"_placeholder":true,"num":0},{"bellwire":["s",')
    assert attachment is sent.stock.parts[1]


# --- at a place in a stream


def test_who_knows_nothing_of_streams_gets_the_event_without_its_place() -> None:
    sent = post("x")
    assert deliver(sent).stock is sent.stock


@pytest.mark.parametrize("form", ["raw_json", "raw_msgpack"])
@pytest.mark.parametrize("named", [False, True])
def test_an_event_for_raw_clients_has_its_place(form: str, named: bool) -> None:
    item = deliver(post("x", 1), named=named)
    (part,) = getattr(item, form).parts
    event, args = read_event(part)
    assert (event.alias, event.seq, event.tag, event.back, event.prev_tag) == (6, 41, 9, 1, 7)
    assert (event.mid, event.name, event.gen) == ("m-1", "say", "g1" if named else None)
    assert args == ["x", 1]
