"""Socket.IO protocol v5, writing: the examples of the specification, and what binary data becomes."""

import dataclasses
import json
import math
from typing import Any

import msgspec
import pytest

from bellwire.core.errors import TooManyAttachments
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.socketio import (
    encode_ack,
    encode_connect,
    encode_connect_error,
    encode_disconnect,
    encode_event,
)
from tests.protocol.binary import placeholder


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        (encode_connect("/", {"sid": "wZX3oN0bSVIhsaknAAAI"}), ('40{"sid":"wZX3oN0bSVIhsaknAAAI"}',)),
        (encode_connect("/admin", {"sid": "x"}), ('40/admin,{"sid":"x"}',)),
        (encode_connect("/", None), ("40",)),
        (encode_connect("/admin"), ("40/admin,",)),
        (
            encode_connect_error("/random", "Invalid namespace"),
            ('44/random,{"message":"Invalid namespace"}',),
        ),
        (
            encode_connect_error("/", "not authorized", {"code": "E1"}),
            ('44{"message":"not authorized","data":{"code":"E1"}}',),
        ),
        (encode_disconnect("/"), ("41",)),
        (encode_disconnect("/admin"), ("41/admin,",)),
        (encode_event("/", ["foo"]), ('42["foo"]',)),
        (encode_event("/admin", ("bar",)), ('42/admin,["bar"]',)),
        (encode_event("/", ["foo"], id=12), ('4212["foo"]',)),
        (encode_event("/admin", ["foo", 1, None], id=0), ('42/admin,0["foo",1,null]',)),
        (encode_ack("/", 12, ["bar"]), ('4312["bar"]',)),
        (encode_ack("/", 12, []), ("4312[]",)),
        (encode_ack("/admin", 0, ()), ("43/admin,0[]",)),
        (
            encode_event("/admin", ["baz", b"\x01", b"\x02"]),
            (
                '452-/admin,["baz",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]',
                b"\x01",
                b"\x02",
            ),
        ),
        (encode_event("/", ["baz", b"1"], id=7), ('451-7["baz",{"_placeholder":true,"num":0}]', b"1")),
        (encode_ack("/", 15, ["bar", b"1"]), ('461-15["bar",{"_placeholder":true,"num":0}]', b"1")),
        (encode_ack("/admin", 15, [b"1"]), ('461-/admin,15[{"_placeholder":true,"num":0}]', b"1")),
    ],
)
def test_encode_examples(message: Outgoing, parts: tuple[str | bytes, ...]) -> None:
    assert message.parts == parts


@pytest.mark.parametrize("binary", [True, False])
def test_encode_without_binary_data_is_the_same_with_and_without_the_search(binary: bool) -> None:
    args = ["e", {"a": (1, {"b": "é\u2028"}), "c": None}, Point(1, 2), 1.5, 10**30, {3: 4, b"a": 5}]

    event = encode_event("/", args, binary=binary)
    ack = encode_ack("/a", 3, args, binary=binary)

    text = '["e",{"a":[1,{"b":"é\u2028"}],"c":null},{"x":1,"y":2},1.5,1000000000000000000000000000000,{"3":4,"YQ==":5}]'
    assert event.parts == ("42" + text,)
    assert ack.parts == ("43/a,3" + text,)


def test_encode_numbers_that_are_none_as_json_stringify_does() -> None:
    assert encode_event("/", ["e", math.nan, math.inf], binary=False).parts == ('42["e",null,null]',)
    assert encode_event("/", ["e", math.nan, math.inf]).parts == ('42["e",null,null]',)


class Point(msgspec.Struct):
    x: int
    y: int


class Image(msgspec.Struct, frozen=True):
    title: str
    pixels: bytes


@dataclasses.dataclass
class Album:
    images: list[Image]


def test_encode_binary_data_of_every_kind_and_inside_structures() -> None:
    album = Album([Image("a", b"0"), Image("b", b"1")])
    event = encode_event("/", ["e", album, bytearray(b"2"), (memoryview(b"_3_")[1:2], {"k": {"x": b"4"}})])

    text, *attachments = event.parts
    assert attachments == [b"0", b"1", b"2", b"3", b"4"]
    assert all(type(attachment) is bytes for attachment in attachments)
    assert isinstance(text, str)
    assert text.startswith("455-[")
    assert json.loads(text[4:]) == [
        "e",
        {"images": [{"title": "a", "pixels": placeholder(0)}, {"title": "b", "pixels": placeholder(1)}]},
        placeholder(2),
        [placeholder(3), {"k": {"x": placeholder(4)}}],
    ]


def test_encode_leaves_the_arguments_as_they_were() -> None:
    args: list[Any] = ["e", {"a": [b"1"]}, (b"2",)]

    encode_event("/", args)

    assert args == ["e", {"a": [b"1"]}, (b"2",)]


def test_encode_the_same_bytes_twice_are_two_attachments() -> None:
    data = b"1"

    assert encode_event("/", ["e", data, data]).parts[1:] == (b"1", b"1")


def test_encode_more_than_10_attachments() -> None:
    assert len(encode_event("/", ["e", *[b"x"] * 10]).parts) == 11
    with pytest.raises(TooManyAttachments, match="11 binary attachments"):
        encode_event("/", ["e", [b"x"] * 11])
    with pytest.raises(TooManyAttachments):
        encode_ack("/", 1, [b"x"] * 11)


def test_encode_an_object_that_would_pass_for_a_placeholder() -> None:
    forged = {"deep": [{"_placeholder": True, "num": 99}]}

    assert len(encode_event("/", ["e", forged]).parts) == 1  # in a text packet nobody looks for placeholders
    with pytest.raises(ValueError, match="_placeholder"):
        encode_event("/", ["e", forged, b"1"])


def test_encode_what_has_no_json_form() -> None:
    for binary in (True, False):
        with pytest.raises(TypeError):
            encode_event("/", ["e", object()], binary=binary)


def test_encode_deep_nesting_without_recursion() -> None:
    deep: Any = b"1"
    for _ in range(400):
        deep = (deep,)

    assert encode_event("/", ["e", deep]).parts[1:] == (b"1",)
