"""Payloads and replies against their events: values, faults with paths, and no other error for any text."""

import enum
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.core.errors import EventRefused, PacketError
from bellwire.core.events import Event, PlainText
from bellwire.guard.schema import MAX_MESSAGE_LENGTH, PayloadReader, ReplyReader
from bellwire.protocol.json_text import MAX_DEPTH


class Draft(msgspec.Struct):
    room: Annotated[str, msgspec.Meta(max_length=8)]
    text: Annotated[PlainText, msgspec.Meta(max_length=30)]


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    counts: dict[int, list[int]] = {}


class Upload(msgspec.Struct):
    name: str
    data: bytes


class Even(msgspec.Struct):
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError("an even number, please")


class Colour(enum.Enum):
    RED = "red"


class Tree(msgspec.Struct):
    text: PlainText = ""
    below: list["Tree"] = []


NOTHING = PayloadReader(Event("x"))
NUMBER = PayloadReader(Event("x", int))
DRAFT = PayloadReader(Event("x", Draft))
SEVERAL = PayloadReader(Event("x", int, Draft, str | None))
COLOURS = PayloadReader(Event("x", Colour))
TREE = PayloadReader(Event("x", Tree))


@pytest.mark.parametrize(
    ("reader", "payload", "arguments"),
    [
        (NOTHING, '["x"]', ()),
        (NUMBER, '["x",7]', (7,)),
        (NUMBER, ' [ "x" , 7 ] ', (7,)),
        (NUMBER, "[5,7]", (7,)),  # a number as a name is legal in Socket.IO
        (DRAFT, '["x",{"room":"a","text":"<b>hi</b> & bye"}]', (Draft("a", "hi &amp; bye"),)),
        (DRAFT, '["x",{"room":"a","text":"b","more":1}]', (Draft("a", "b"),)),
        (SEVERAL, '["x",1,{"room":"a","text":"<i>b"},"<i>"]', (1, Draft("a", "b"), "<i>")),
        (SEVERAL, '["x",1,{"room":"a","text":"b"},null]', (1, Draft("a", "b"), None)),
        (PayloadReader(Event("x", Strict)), '["x",{"counts":{"3":[4]}}]', (Strict({3: [4]}),)),
        (PayloadReader(Event("x", bytes)), '["x","aGk="]', (b"hi",)),
        (PayloadReader(Event("x", Any, object)), '["x",{"a":[1]},null]', ({"a": [1]}, None)),
    ],
)
def test_reading_json_text(reader: PayloadReader, payload: str, arguments: tuple[Any, ...]) -> None:
    assert reader.read(payload) == arguments


@pytest.mark.parametrize(
    ("types", "given_", "arguments"),
    [
        ((), [], ()),
        ((bytes,), [b"hi"], (b"hi",)),
        ((bytearray,), [b"hi"], (bytearray(b"hi"),)),
        ((Upload,), [{"name": "a", "data": b"hi"}], (Upload("a", b"hi"),)),
        ((Draft, bytes), [{"room": "a", "text": "<b>hi</b>"}, b"<b>"], (Draft("a", "hi"), b"<b>")),
        ((Strict,), [{"counts": {"3": [4]}}], (Strict({3: [4]}),)),
        ((Any,), [{"deep": [b"hi"]}], ({"deep": [b"hi"]},)),
        ((object,), [b"hi"], (b"hi",)),
        ((dict[str, Any],), [{"deep": b"hi"}], ({"deep": b"hi"},)),
    ],
)
def test_reading_decoded_arguments(types: Any, given_: list[Any], arguments: tuple[Any, ...]) -> None:
    assert PayloadReader(Event("x", *types)).read_objects(given_) == arguments


FAULTS: list[tuple[tuple[Any, ...], str, str, str]] = [
    ((Draft,), '[{"room":"a"}]', "$", "Object missing required field `text`"),
    ((Draft,), '[{"room":"a","text":7}]', "$.text", "Expected `str`, got `int`"),
    ((Draft,), '[{"room":"a","text":"%s"}]' % ("<b>" * 11), "$.text", "Expected `str` of length <= 30"),
    ((Draft,), "[7]", "$", "Expected `object`, got `int`"),
    ((int,), '["7"]', "$", "Expected `int`, got `str`"),
    ((int, Draft), '[1,{"room":1,"text":""}]', "$[1].room", "Expected `str`, got `int`"),
    ((int, Draft), '["1",{}]', "$[0]", "Expected `int`, got `str`"),
    ((Strict,), '[{"counts":{"1":[0,"1"]}}]', "$.counts[...][1]", "Expected `int`, got `str`"),
    ((Strict,), '[{"counts":{"q":[]}}]', "$.counts", "Expected `int`, got `str` as a key"),
    ((Strict,), '[{" - at `$[9].x`":1}]', "$", "Object contains unknown field ` - at `$[9].x``"),
    ((Even,), '[{"number":3}]', "$", "an even number, please"),
    ((), "[1]", "$", "Expected 0 arguments, got 1"),
    ((int,), "[]", "$", "Expected 1 argument, got 0"),
    ((int,), "[1,2,3]", "$", "Expected 1 argument, got 3"),
    ((int, int), "[1]", "$", "Expected 2 arguments, got 1"),
]


@pytest.mark.parametrize(("types", "arguments", "path", "message"), FAULTS)
def test_a_fault_is_refused_with_its_path(types: tuple[Any, ...], arguments: str, path: str, message: str) -> None:
    reader = PayloadReader(Event("x", *types))
    payload = '["x"' + ("," + arguments[1:] if arguments != "[]" else "]")
    for read, source in ((reader.read, payload), (reader.read_objects, json.loads(arguments))):
        with pytest.raises(EventRefused) as caught:
            read(source)
        assert (caught.value.code, caught.value.path) == ("invalid_payload", path)
        assert caught.value.message == message


def test_a_refusal_does_not_repeat_what_the_client_sent_at_length() -> None:
    reader = PayloadReader(Event("x", Strict))
    with pytest.raises(EventRefused) as caught:
        reader.read('["x",{"%s":1}]' % ("q" * 100_000))
    assert len(caught.value.message) == MAX_MESSAGE_LENGTH
    assert caught.value.path == "$"


@pytest.mark.parametrize("reader", [NUMBER, DRAFT, SEVERAL, PayloadReader(Event("x", list[Any]))])
@pytest.mark.parametrize(
    "payload",
    [
        "",
        "x",
        "{}",
        "7",
        "[",
        '["x",',
        '["x",NaN]',
        "[null,7]",
        "[[],7]",
        '["x","\ud800"]',
        "[" * 100_000,
    ],
    ids=ascii,
)
def test_text_that_is_no_event_breaks_the_protocol(reader: PayloadReader, payload: str) -> None:
    with pytest.raises(PacketError):
        reader.read(payload)


@pytest.mark.parametrize(
    ("types", "payload"),
    [
        ((int,), '["x",7'),
        ((int,), '["x",7] y'),
        ((int,), '["x",7,broken'),
        ((int,), '["x",7,' + "[" * 100_000),
        ((int,), '["x",7,' + "[" * 100_000 + "]" * 100_001),
        ((list[Any],), '["x",' + "[" * 100_000),
        ((list[Any],), '["x",' + "[" * 100_000 + "]" * 100_001),
        ((int,), "[]"),
        ((), "[]"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_breaks_after_the_fault_or_the_limit_breaks_the_protocol(types: tuple[Any, ...], payload: str) -> None:
    with pytest.raises(PacketError):
        PayloadReader(Event("x", *types)).read(payload)


def test_deep_nesting_is_an_error_of_the_client_even_where_only_the_cleaner_meets_it() -> None:
    survived, refused = 0, 0
    for depth in (1, 10, 15, 16, 100, 400, 1_000, 10_000):
        payload = '["x",' + '{"text":"<b>a","below":[' * depth + "]}" * depth + "]"
        try:
            (tree,) = TREE.read(payload)
        except PacketError:
            refused += 1
        else:
            survived += 1
            while tree.below:
                assert tree.text == "a"
                (tree,) = tree.below
    assert survived >= 3
    assert refused >= 1


def test_half_a_surrogate_pair_becomes_the_replacement_character() -> None:
    (draft,) = DRAFT.read(r'["x",{"room":"\ud83d","text":"a\udc00\ud83d\ude00b"}]')
    assert draft == Draft("\ufffd", "a\ufffd😀b")
    assert msgspec.json.encode(draft).decode() == '{"room":"\ufffd","text":"a\ufffd😀b"}'
    with pytest.raises(EventRefused):
        DRAFT.read(r'["x",{"room":"\ud83d"}]')


def test_objects_with_half_a_surrogate_pair_break_the_protocol() -> None:
    with pytest.raises(PacketError, match="no Unicode"):
        COLOURS.read_objects(["\ud800"])
    with pytest.raises(PacketError, match="no Unicode"):
        ReplyReader(Event("x", reply=Colour)).read_objects(["\ud800"])


@pytest.mark.parametrize("reader", [NUMBER, PayloadReader(Event("x", Any)), PayloadReader(Event("x", list[int]))])
def test_integers_that_no_broker_carries_are_refused(reader: PayloadReader) -> None:
    wrap = "{}" if reader is NUMBER else "[{}]"
    for number in (2**64 - 1, -(2**63)):
        assert reader.read(f'["x",{wrap.format(number)}]')
    for number in (2**64, -(2**63) - 1, int("9" * 4_000)):
        with pytest.raises(EventRefused, match="out of range"):
            reader.read(f'["x",{wrap.format(number)}]')


def test_a_double_of_many_digits_is_one() -> None:
    assert PayloadReader(Event("x", float)).read('["x",200000000000000000000]') == (2e20,)
    assert PayloadReader(Event("x", str)).read('["x","' + "9" * 100 + '"]') == ("9" * 100,)


@pytest.mark.parametrize("reader", [NOTHING, NUMBER, DRAFT, SEVERAL, TREE, PayloadReader(Event("x", Any))])
def test_more_than_32_levels_break_the_protocol(reader: PayloadReader) -> None:
    for payload in ("[" * 33 + "]" * 33, '["x",' + "[" * 32 + "]" * 33, '["x",' + "[" * 200_000):
        with pytest.raises((PacketError, EventRefused)):
            reader.read(payload)
    with pytest.raises(PacketError, match="32 levels"):
        PayloadReader(Event("x", Any)).read('["x",' + "[" * 32 + "]" * 33)


# --- replies

EMPTY = ReplyReader(Event("x"))
REPLY = ReplyReader(Event("x", reply=Draft))
MAYBE = ReplyReader(Event("x", reply=int | None))
ANYTHING = ReplyReader(Event("x", reply=Any))
UPLOAD = ReplyReader(Event("x", reply=Upload))


def test_reading_replies() -> None:
    assert [EMPTY.read("[]"), EMPTY.read("[null]")] == [None, None]
    assert REPLY.read('[{"room":"a","text":"<b>hi</b>"}]') == Draft("a", "hi")
    assert [MAYBE.read("[7]"), MAYBE.read("[null]"), MAYBE.read("[]")] == [7, None, None]
    assert ANYTHING.read('[{"error":"mine"}]') == {"error": "mine"}
    assert ANYTHING.read(r'["\ud800"]') == "\ufffd"


def test_reading_decoded_replies() -> None:
    assert UPLOAD.read_objects([{"name": "a", "data": b"hi"}]) == Upload("a", b"hi")
    assert MAYBE.read_objects([]) is None
    assert ANYTHING.read_objects([{"error": b"mine"}]) == {"error": b"mine"}


@pytest.mark.parametrize(
    "refusal",
    [
        EventRefused("rate", "too fast", retry_after=0.5),
        EventRefused("invalid_payload", "Expected `str`", path="$.text"),
        EventRefused("no", ""),
    ],
)
@pytest.mark.parametrize("reader", [EMPTY, REPLY, MAYBE, ANYTHING, UPLOAD])
def test_a_refusal_is_raised(reader: ReplyReader[Any], refusal: EventRefused) -> None:
    reply = [refusal.as_reply()]
    pretty, compact = json.dumps(reply, indent=1), json.dumps(reply, separators=(",", ":"))
    attempts: list[tuple[Callable[[Any], object], object]] = [
        (reader.read, pretty),
        (reader.read, compact),
        (reader.read_objects, reply),
    ]
    for read, source in attempts:
        with pytest.raises(EventRefused) as caught:
            read(source)
        assert vars(caught.value) == vars(refusal)


@pytest.mark.parametrize(
    "reply",
    [
        {"error": {"code": "no"}},
        {"error": {"code": "no", "message": "x", "more": 1}},
        {"error": {"code": "no", "message": "x"}, "more": 1},
        {"error": {"code": 7, "message": "x"}},
        {"error": None},
    ],
)
def test_what_only_looks_like_a_refusal_is_a_reply(reply: dict[str, Any]) -> None:
    assert ANYTHING.read(json.dumps([reply])) == reply
    assert ANYTHING.read_objects([reply]) == reply


@pytest.mark.parametrize(
    ("reader", "payload", "path", "message"),
    [
        (REPLY, '[{"room":7}]', "$.room", "Expected `str`, got `int`"),
        (REPLY, "[]", "$", "Expected `object`, got `null`"),
        (MAYBE, "[1,2]", "$", "Expected 1 argument, got 2"),
        (EMPTY, "[1]", "$", "Expected no reply: Expected `null`, got `int`"),
    ],
)
def test_a_reply_of_the_wrong_shape(reader: ReplyReader[Any], payload: str, path: str, message: str) -> None:
    for read, source in ((reader.read, payload), (reader.read_objects, json.loads(payload))):
        with pytest.raises(EventRefused) as caught:
            read(source)
        assert vars(caught.value) == vars(EventRefused("invalid_reply", message, path=path))


@pytest.mark.parametrize("payload", ["", "{}", "7", "[", '[{"error":', '["\ud800"]', "[null,null x"], ids=ascii)
def test_text_that_is_no_acknowledgement_breaks_the_protocol(payload: str) -> None:
    for reader in (EMPTY, MAYBE, ANYTHING):
        with pytest.raises(PacketError):
            reader.read(payload)


def test_an_acknowledgement_nested_too_deeply_breaks_the_protocol() -> None:
    with pytest.raises(PacketError, match="too deeply"):
        ANYTHING.read("[" * 100_000)


# --- any text, any objects

KEYS = st.sampled_from(["room", "text", "below", "counts", "error", "code", "message"]) | st.text()
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(alphabet=st.characters())
    | st.sampled_from(["<b>a</b>", "error", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["room", "text", "below", "counts", "error", "code", "message"]) | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
READERS = [COLOURS, NOTHING, NUMBER, DRAFT, SEVERAL, TREE, PayloadReader(Event("x", Strict, Any, list[PlainText]))]


@given(st.text() | JSON.map(json.dumps) | st.lists(JSON).map(lambda rest: json.dumps(["x", *rest])))
def test_any_text_gives_arguments_or_one_declared_error(payload: str) -> None:
    for reader in READERS:
        try:
            arguments = reader.read(payload)
        except (EventRefused, PacketError) as error:
            str(error).encode()
        else:
            msgspec.json.encode(arguments)
    for reply_reader in (EMPTY, REPLY, MAYBE, ANYTHING, UPLOAD):
        try:
            reply: Any = reply_reader.read(payload)
        except (EventRefused, PacketError) as error:
            str(error).encode()
        else:
            msgspec.json.encode(reply)


FLAT = [
    COLOURS,
    NOTHING,
    PayloadReader(Event("x", str)),
    PayloadReader(Event("x", bytes, UUID)),
    PayloadReader(Event("x", str | float | None, list[dict[str, bool]])),
    PayloadReader(Event("x", tuple[str, ...], Annotated[str, msgspec.Meta(max_length=3)], Literal["red", "error"])),
]
NESTED: Any = str
for _ in range(MAX_DEPTH):
    NESTED = list[NESTED]


@given(
    st.text()
    | st.lists(JSON, max_size=3).map(lambda rest: json.dumps(["x", *rest]))
    | st.builds(
        str.format, st.sampled_from(['["x",{}]', "[1,{}]", '["x",{},"red"]', " [ {} ]", '["x",{}]]']), st.text()
    )
    | st.sampled_from(["red", "\\ud800", "", "aGk=", "0" * 40]).map('["x","{}"]'.format)
)
def test_what_needs_no_second_look_is_read_and_refused_as_all_else(payload: str) -> None:
    for reader in FLAT:
        assert reader._flat
        assert _read(reader.read, payload) == _read(reader.read_in_full, payload)


def _read(read: Callable[[str], tuple[Any, ...]], payload: str) -> object:
    try:
        return read(payload)
    except EventRefused as error:
        return error.as_reply()
    except PacketError as error:
        return str(error)


@pytest.mark.parametrize("type_", [int, Draft, Strict, Any, object, PlainText, dict[str, int], list[Any], NESTED])
def test_what_may_be_deep_or_a_huge_integer_or_unclean_is_looked_at_twice(type_: Any) -> None:
    assert not PayloadReader(Event("x", type_))._flat


@given(st.lists(JSON | st.binary(), max_size=4))
def test_any_objects_give_arguments_or_one_declared_error(arguments: list[Any]) -> None:
    for reader in READERS:
        try:
            reader.read_objects(arguments)
        except (EventRefused, PacketError) as error:
            str(error)
    for reply_reader in (EMPTY, REPLY, MAYBE, ANYTHING, UPLOAD):
        try:
            reply_reader.read_objects(arguments)
        except (EventRefused, PacketError) as error:
            str(error)


@given(st.integers(), st.text(max_size=8), st.text(alphabet="abc é🎉", max_size=30))
def test_what_fits_arrives(number: int, room: str, text: str) -> None:
    draft = {"room": room, "text": text}
    if -(2**63) <= number < 2**64:
        payload = json.dumps(["x", number, draft, None])
        assert SEVERAL.read(payload) == (number, Draft(room, text), None)
    assert SEVERAL.read_objects([number, draft, None]) == (number, Draft(room, text), None)
