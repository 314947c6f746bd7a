"""Plain text comes out of any text, in linear time; cleaners reach every place a type can have."""

import dataclasses
import time
from typing import Annotated, Any, Generic, NamedTuple, TypedDict, TypeVar

import msgspec
import nh3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.core.events import PlainText
from bellwire.guard import sanitise
from bellwire.guard.sanitise import build_cleaner, plain_text

T = TypeVar("T")

SCRIPT = "<script>steal()</script>hi <b>you</b>"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("", ""),
        ("hello", "hello"),
        ("größe 🎉 \xa0", "größe 🎉 \xa0"),
        ("I <3 you", "I &lt;3 you"),
        ("a < b > c & d", "a &lt; b &gt; c &amp; d"),
        ("a > b", "a &gt; b"),
        ("R&D", "R&amp;D"),
        ("&amp; &lt;b&gt;", "&amp; &lt;b&gt;"),
        ("&eacute;", "é"),
        ("<b>bold</b>\xa0text", "bold\xa0text"),
        (SCRIPT, "hi you"),
        ("<img src=x onerror=alert(1)>", ""),
        ("<style>p{}</style>x", "x"),
        ("<scr<script>ipt>alert(1)", "ipt&gt;alert(1)"),
        ("&#60;img&#62;", "&lt;img&gt;"),
        ("&#" + "9" * 5000 + ";", "&amp;#" + "9" * 5000 + ";"),
        ("&#xd800;", "\ufffd"),
    ],
)
def test_plain_text(text: str, clean: str) -> None:
    assert plain_text(text) == clean


PIECES = [*"<>&;#/!?-'\"= \xa0\r\n\0abpx39", "script", "div", "&lt;", "🎉"]
HTML = st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text()
ENTITIES = st.lists(st.sampled_from([*"&;#x3 abltg", "&amp;", "&lt;"]), max_size=30).map("".join)


@given(HTML)
def test_nothing_that_opens_a_tag_is_left_and_cleaning_again_changes_nothing(text: str) -> None:
    clean = plain_text(text)
    assert "<" not in clean
    assert ">" not in clean
    assert plain_text(clean) == clean


@given(HTML)
def test_long_texts_are_as_safe_as_short_ones(text: str) -> None:
    clean = plain_text(text + "<b>" * (sanitise.PARSER_MAX_TAGS + 1))
    assert "<" not in clean
    assert plain_text(clean) == clean


@given(ENTITIES)
def test_without_tags_the_short_way_agrees_with_the_html_parser(text: str) -> None:
    parsed = nh3.clean(text, tags=set())  # it keeps the control characters that no text may name
    assert plain_text(text) == parsed.translate(dict.fromkeys([*range(9), 11, *range(14, 32), 127]))


@pytest.mark.parametrize(
    "piece",
    ["<", "&", "<a>", "<div>", "</p>", "<a b", "<!--", "&lt", "&#9", "x1 ", "\xa0", "<a &", "<table>", "9"],
)
def test_a_megabyte_is_cleaned_in_linear_time(piece: str) -> None:
    started = time.process_time()
    for text in (piece, "<a " + piece, "&#" + piece):
        plain_text(text * (1_000_000 // len(text)))
    plain_text("<a " + piece * (1_000_000 // len(piece)))
    assert time.process_time() - started < 5  # with the HTML parser alone: up to minutes


def test_short_of_the_limit_the_parser_is_quick() -> None:
    started = time.process_time()
    plain_text("<div>" * sanitise.PARSER_MAX_TAGS)
    plain_text(("<a " + "".join(f" {number:x}" for number in range(10_000)))[: sanitise.PARSER_MAX_CHARACTERS])
    assert time.process_time() - started < 1


class Item(msgspec.Struct):
    raw: str
    text: PlainText


class Frozen(msgspec.Struct, frozen=True):
    text: Annotated[PlainText, msgspec.Meta(max_length=100)]


class Hashed(msgspec.Struct, frozen=True, cache_hash=True):
    text: PlainText


class Renamed(msgspec.Struct, rename="camel", array_like=True):
    my_text: PlainText


class Tree(msgspec.Struct):
    text: PlainText
    left: "Tree | None" = None
    children: dict[str, "Tree"] = {}


class Branch(msgspec.Struct):
    """Contains itself by way of another class, and the text only there."""

    leaf: "Leaf"


class Leaf(msgspec.Struct):
    up: Branch | None = None
    text: PlainText = ""


class Optional(msgspec.Struct):
    text: PlainText | msgspec.UnsetType | None = msgspec.UNSET


class Box(msgspec.Struct, Generic[T]):
    value: T


class Left(msgspec.Struct, tag=True):
    text: PlainText


class Right(msgspec.Struct, tag=True):
    text: str


@dataclasses.dataclass
class Data:
    text: PlainText


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenData:
    text: PlainText


class Pair(NamedTuple):
    raw: str
    text: PlainText


class Row(TypedDict, total=False):
    raw: str
    text: PlainText


RAW: dict[str, Any] = {"text": SCRIPT}
CLEAN: dict[str, Any] = {"text": "hi you"}
CLEAN_TREE: dict[str, Any] = {
    **CLEAN,
    "left": {**CLEAN, "left": None, "children": {"a": {**CLEAN, "left": None, "children": {}}}},
    "children": {},
}


@pytest.mark.parametrize(
    ("type_", "raw", "clean"),
    [
        (PlainText, SCRIPT, "hi you"),
        (PlainText | None, SCRIPT, "hi you"),
        (PlainText | None, None, None),
        (PlainText | int | list[PlainText], [SCRIPT], ["hi you"]),
        (PlainText | int | list[PlainText], 7, 7),
        (Item, {"raw": SCRIPT, **RAW}, {"raw": SCRIPT, **CLEAN}),
        (Frozen, RAW, CLEAN),
        (Hashed, RAW, CLEAN),
        (Renamed, [SCRIPT], ["hi you"]),
        (Tree, {**RAW, "left": {**RAW, "children": {"a": RAW}}}, CLEAN_TREE),
        (
            Branch,
            {"leaf": {"up": {"leaf": RAW}, **RAW}},
            {"leaf": {"up": {"leaf": {"up": None, **CLEAN}}, **CLEAN}},
        ),
        (Optional, {}, {}),
        (Optional, {"text": None}, {"text": None}),
        (Optional, RAW, CLEAN),
        (Box[PlainText], {"value": SCRIPT}, {"value": "hi you"}),
        (Box[list[Frozen]], {"value": [RAW]}, {"value": [CLEAN]}),
        (Left | Right, {"type": "Left", **RAW}, {"type": "Left", **CLEAN}),
        (Left | Right, {"type": "Right", **RAW}, {"type": "Right", **RAW}),
        (Data, RAW, CLEAN),
        (FrozenData, RAW, CLEAN),
        (Pair, [SCRIPT, SCRIPT], [SCRIPT, "hi you"]),
        (Row, {"raw": SCRIPT}, {"raw": SCRIPT}),
        (Row, {"raw": SCRIPT, **RAW}, {"raw": SCRIPT, **CLEAN}),
        (list[Annotated[PlainText, msgspec.Meta(max_length=99)]], [SCRIPT, "x"], ["hi you", "x"]),
        (tuple[PlainText, ...], [SCRIPT], ["hi you"]),
        (tuple[str, PlainText], [SCRIPT, SCRIPT], [SCRIPT, "hi you"]),
        (set[PlainText], [SCRIPT], ["hi you"]),
        (frozenset[Hashed], [RAW], [CLEAN]),
        (dict[PlainText, str], {SCRIPT: SCRIPT}, {"hi you": SCRIPT}),
        (dict[str, dict[str, PlainText]], {SCRIPT: {"a": SCRIPT}}, {SCRIPT: {"a": "hi you"}}),
    ],
)
def test_a_cleaner_reaches_the_text_and_nothing_else(type_: Any, raw: Any, clean: Any) -> None:
    cleaner = build_cleaner(type_)
    assert cleaner is not None
    value = cleaner(msgspec.convert(raw, type_))
    if isinstance(raw, list) and isinstance(value, set | frozenset):
        value = list(value)
    assert msgspec.to_builtins(value) == (clean if not isinstance(value, tuple) else tuple(clean))


def test_a_set_finds_what_was_cleaned_inside() -> None:
    cleaner = build_cleaner(frozenset[Hashed])
    assert cleaner is not None
    assert Hashed("hi you") in cleaner(frozenset({Hashed(SCRIPT)}))


@pytest.mark.parametrize("type_", [str, int, Right, list[dict[str, Any]], Any, bytes, Box[str], object])
def test_nothing_to_clean(type_: Any) -> None:
    assert build_cleaner(type_) is None
