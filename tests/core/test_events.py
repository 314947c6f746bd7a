"""What an Event accepts, what it knows about its types, and the messages of what it refuses."""

import copy
import dataclasses
import datetime
import enum
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, cast

import msgspec
import pytest

from bellwire.core.events import OWN_NAME, RESERVED_NAMES, Event, PlainText, require_event, text_kind, walk_types


class Draft(msgspec.Struct):
    room: Annotated[str, msgspec.Meta(max_length=64)]
    text: Annotated[PlainText, msgspec.Meta(max_length=2000)]


class Tree(msgspec.Struct):
    name: str
    children: list["Tree"] = []


class Upload(msgspec.Struct):
    name: str
    parts: dict[str, list[bytes]]


@dataclasses.dataclass
class Point:
    x: int
    note: PlainText


class Row(TypedDict):
    note: PlainText


class Pair(NamedTuple):
    left: bytes
    right: str


class Colour(enum.Enum):
    RED = "red"


class Opaque:
    pass


def test_it_keeps_what_was_declared() -> None:
    event = Event("message:send", Draft, int | None, reply=bool, volatile=True, rate="10/s")
    assert event.name == "message:send"
    assert event.payload_types == (Draft, int | None)
    assert event.reply is bool
    assert event.volatile is True
    assert event.rate == "10/s"
    assert repr(event) == "Event('message:send', Draft, int | None, reply=bool, volatile=True, rate='10/s')"


def test_defaults() -> None:
    event = Event("tick")
    assert (event.payload_types, event.reply, event.volatile, event.rate) == ((), None, False, None)
    assert (event.binary, event.reply_binary, event.plain) == (False, False, False)
    assert repr(event) == "Event('tick')"


@pytest.mark.parametrize(
    ("type_", "binary", "plain"),
    [
        (str, False, False),
        (list[int], False, False),
        (Annotated[str, msgspec.Meta(max_length=3)], False, False),
        (dict[uuid.UUID, datetime.datetime | None], False, False),
        (Literal["a", "b"], False, False),
        (Colour, False, False),
        (Tree, False, False),
        (msgspec.Raw, False, False),
        (bytes, True, False),
        (bytearray, True, False),
        (memoryview, True, False),
        (Any, True, False),
        (object, True, False),
        (list, True, False),
        (Upload, True, False),
        (tuple[str, Pair], True, False),
        (dict[str, Any], True, False),
        (Draft, False, True),
        (PlainText, False, True),
        (PlainText | None, False, True),
        (Point, False, True),
        (dict[str, tuple[Row, ...]], False, True),
        (dict[PlainText, int], False, True),
        (tuple[Draft, bytes], True, True),
    ],
)
def test_it_knows_whether_bytes_or_plain_text_are_inside(type_: Any, binary: bool, plain: bool) -> None:
    as_payload = Event("x", int, type_)
    assert (as_payload.binary, as_payload.plain, as_payload.reply_binary) == (binary, plain, False)
    as_reply = Event("x", reply=type_)
    assert (as_reply.binary, as_reply.plain, as_reply.reply_binary) == (False, False, binary)


@pytest.mark.parametrize(
    ("type_", "message"),
    [
        (Opaque, "holds Opaque, which cannot travel as JSON"),
        (list[complex], "holds complex, which cannot travel as JSON"),
        (Callable[[], int], "holds Callable, which cannot travel as JSON"),
        ("Draft", "pass the type, not its name"),
        (3, "cannot be read from JSON"),
        (Draft | Tree, "cannot be read from JSON"),
        (Annotated[int, msgspec.Meta(extra={"bellwire": "plain"})], "^PlainText of .* it can only mark a str"),
        (Annotated[int, msgspec.Meta(extra={"bellwire": "rich"})], "^RichText of .* it can only mark a str"),
    ],
)
def test_a_type_that_cannot_travel_is_refused_at_once(type_: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Event("x", type_)
    with pytest.raises(TypeError, match=message):
        Event("x", reply=type_)


def test_the_name_of_a_type_is_none() -> None:
    with pytest.raises(TypeError, match=r"payload type of Event\('a'\) is the text 'str': pass the type, not its name"):
        Event("a", cast("Any", "str"))
    with pytest.raises(TypeError, match=r"reply type of .* is the text 'Receipt': pass the type"):
        Event("a", reply=cast("Any", "Receipt"))


def test_at_most_five_payload_types() -> None:
    assert len(Event("x", int, int, int, int, int).payload_types) == 5
    with pytest.raises(TypeError, match=r"has 6 payload types, 5 are allowed: put the fields into one"):
        Event("x", int, int, int, int, int, int)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["a", "x" * 128, "message:send", "größe", "🎉", "with space"])
def test_names(name: str) -> None:
    assert Event(name).name == name


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb", "\ud800", OWN_NAME, *sorted(RESERVED_NAMES)])
def test_a_name_that_cannot_be_used_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"choose another name|take them out"):
        Event(name)


def test_a_name_is_a_string() -> None:
    with pytest.raises(TypeError, match=r"an event's name is a str, not StructMeta"):
        Event(Draft)  # type: ignore[call-overload]


@pytest.mark.parametrize("rate", ["10/s", "1/min", "100/h", "off"])
def test_rates(rate: str) -> None:
    assert Event("x", rate=rate).rate == rate


@pytest.mark.parametrize("rate", ["", "0/s", "10", "10/d", "-1/s", "1.5/s", "10/s ", "OFF", "9" * 10 + "/s"])
def test_a_rate_of_another_form_is_refused(rate: str) -> None:
    with pytest.raises(ValueError, match="write it as '10/s'"):
        Event("x", rate=rate)


def test_it_is_immutable_and_equal_to_itself_only() -> None:
    event, twin = Event("x", int), Event("x", int)
    with pytest.raises(AttributeError, match="declare another Event"):
        event.name = "y"
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del event.name
    assert event != twin
    assert {event: 1}.get(event) == 1
    assert copy.deepcopy(event) is copy.copy(event) is event


def test_require_event_accepts_an_event() -> None:
    require_event(Event("x"), "chat.on")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "message",
            r"chat\.on\('message'\): .* declare MESSAGE = Event\('message', \.\.\.\) and pass",
        ),
        ("message:send", r"declare MESSAGE_SEND = Event\('message:send'"),
        ("2fa", r"declare EVENT_2FA = Event\('2fa'"),
        ("!", r"declare MESSAGE = Event\('!'"),
        (Draft, r"chat\.on takes an Event, not StructMeta; declare one, such as"),
        (None, r"chat\.on takes an Event, not NoneType"),
    ],
)
def test_require_event_names_the_fix(value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        require_event(value, "chat.on")


def test_walking_a_type_that_contains_itself_ends() -> None:
    found = list(walk_types(msgspec.inspect.type_info(Tree)))
    assert len(found) == len({id(info) for info in found})
    assert not any(map(text_kind, found))
