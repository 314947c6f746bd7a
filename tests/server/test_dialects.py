from typing import Any

import msgspec
import pytest

from bellwire.delivery.answer import Reason
from bellwire.protocol.embedding import Control
from bellwire.protocol.outgoing import Message
from bellwire.protocol.post import Delivery, Post
from bellwire.protocol.wire import (
    Advance,
    After,
    Close,
    Drain,
    Nack,
    Open,
    Outcome,
    Proved,
    Reply,
    Reset,
    ServerEvent,
    Skipped,
    encode_args,
    parse_server,
)
from bellwire.server.dialects import STOCK, Dialect, Item, Raw, Stock, embedded, raw

POST = Post("/chat", "say", ("x",), binary=False)
CALL = Post("/chat", "ask", ("x",), binary=False, id=3)
BLOB = Post("/chat", "blob", (b"\x01",), binary=True)
PLACED = Delivery(POST, "r7Xw", 6, "g1", (40, 7), 41, 9, "m-1", named=False)

DIALECTS: dict[str, Dialect] = {
    "stock": STOCK,
    "embedded": embedded("/chat"),
    "json": raw(msgpack=False, streams=True),
    "msgpack": raw(msgpack=True, streams=True),
    "json without streams": raw(msgpack=False, streams=False),
    "msgpack without streams": raw(msgpack=True, streams=False),
}

all_dialects = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS.keys())


@pytest.mark.parametrize(
    ("name", "item", "made"),
    [
        ("stock", POST, POST.stock),
        ("stock", PLACED, POST.stock),
        ("embedded", POST, POST.embedded),
        ("embedded", PLACED, PLACED.embedded),
        ("json", POST, POST.raw_json),
        ("json", PLACED, PLACED.raw_json),
        ("msgpack", POST, POST.raw_msgpack),
        ("msgpack", PLACED, PLACED.raw_msgpack),
        ("json without streams", POST, POST.raw_json),
        ("json without streams", PLACED, POST.raw_json),
        ("msgpack without streams", POST, POST.raw_msgpack),
        ("msgpack without streams", PLACED, POST.raw_msgpack),
    ],
)
def test_each_client_gets_an_event_in_its_own_form(name: str, item: Item, made: Message) -> None:
    assert DIALECTS[name].render(item) is made


@all_dialects
def test_one_event_is_handed_on_as_it_is_and_several_are_joined(dialect: Dialect) -> None:
    one, after = dialect.deliver((PLACED,))
    assert (one, after) == (dialect.render(PLACED), dialect)
    both, after = dialect.deliver((PLACED, POST))
    assert both.parts == dialect.render(PLACED).parts + dialect.render(POST).parts
    assert after is dialect


CONTROLS: list[Control] = [
    Open("/chat", "r7Xw", 6, "g1", 40, 7),
    Close("r7Xw"),
    Close("r7Xw", Reason.FORBIDDEN),
    Advance("r7Xw", 40, 7, "g1", 41, 9),
    Proved("r7Xw", 6, "g1", 40, 7),
    Reset("r7Xw", 6, Reason.DIVERGED, "g2", 39, 5),
    Nack("/chat", 7, 5),
    Skipped("/chat", 7),
    Drain(1.5),
]


@pytest.mark.parametrize("message", CONTROLS, ids=lambda message: type(message).__name__)
def test_what_is_told_of_streams_is_the_same_message_in_each_wire(message: Control) -> None:
    assert STOCK.control(message) is None
    told = embedded("/chat").control(message)
    assert told is not None
    head, _, text = str(told.parts[0]).partition("42/chat,")
    name, inside = msgspec.json.decode(text)
    assert (head, name) == ("", "bellwire")
    for streams in (True, False):
        for msgpack in (True, False):
            made = raw(msgpack=msgpack, streams=streams).control(message)
            assert made is not None
            (part,) = made.parts
            assert parse_server(part) == message
            assert (msgspec.msgpack if msgpack else msgspec.json).decode(part) == inside


def test_the_reply_to_a_numbered_event_travels_too() -> None:
    message = Outcome("/chat", 7, encode_args(({"accepted": True},), msgpack=False))
    told = embedded("/chat").control(message)
    assert told is not None
    assert told.parts == ('42/chat,["bellwire",["n","/chat",7,[{"accepted":true}]]]',)


@pytest.mark.parametrize("dialect", [STOCK, embedded("/chat")])
def test_a_socketio_client_gets_acknowledgements(dialect: Dialect) -> None:
    assert dialect.reply("/chat", 5, (1, "x"), binary=False).parts == ('43/chat,5[1,"x"]',)
    head, attachment = dialect.reply("/chat", 5, (b"\x01",), binary=True).parts
    assert head == '461-/chat,5[{"_placeholder":true,"num":0}]'
    assert attachment == b"\x01"


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("msgpack", [True, False])
def test_a_raw_client_gets_replies(msgpack: bool, streams: bool) -> None:
    (part,) = raw(msgpack=msgpack, streams=streams).reply("/chat", 5, (1, b"\xff"), binary=True).parts
    reply = parse_server(part)
    assert isinstance(reply, Reply)
    assert (reply.namespace, reply.id) == ("/chat", 5)
    decoded: Any = (msgspec.msgpack if msgpack else msgspec.json).decode(reply.args)
    assert decoded == [1, b"\xff" if msgpack else "/w=="]


@all_dialects
def test_what_cannot_be_encoded_is_an_error_of_whoever_replies(dialect: Dialect) -> None:
    with pytest.raises(TypeError):
        dialect.reply("/chat", 5, (object(),), binary=False)


AFTER = After("s9", 12, 34)


def test_a_call_comes_behind_a_place_where_the_client_knows_of_places() -> None:
    assert STOCK.after(CALL, AFTER) is CALL.stock
    assert embedded("/chat").after(CALL, AFTER).parts == ('42/chat,3["ask","x",{"bellwire":["e",["s9",12,34]]}]',)
    head, attachment = embedded("/chat").after(BLOB, AFTER).parts
    assert str(head).endswith(',{"bellwire":["e",["s9",12,34]]}]')
    assert attachment is BLOB.stock.parts[1]
    for msgpack in (True, False):
        (part,) = raw(msgpack=msgpack, streams=True).after(CALL, AFTER).parts
        event = parse_server(part)
        assert isinstance(event, ServerEvent)
        assert (event.name, event.id, event.after) == ("ask", 3, AFTER)


def test_those_who_are_spoken_to_alike_have_the_same_dialect() -> None:
    assert embedded("/chat") is embedded("/chat")
    assert embedded("/chat") is not embedded("/other")
    assert isinstance(embedded("/chat"), Stock)
    made = [raw(msgpack=msgpack, streams=streams) for msgpack in (True, False) for streams in (True, False)]
    assert made == [raw(msgpack=msgpack, streams=streams) for msgpack in (True, False) for streams in (True, False)]
    assert len({id(dialect) for dialect in made}) == 4
    assert all(isinstance(dialect, Raw) for dialect in made)
