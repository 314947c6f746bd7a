import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.core.errors import PacketError
from bellwire.protocol.json_text import MAX_DEPTH, check_depth, decode_text, mend_surrogates

DECODE = msgspec.json.Decoder().decode


def decoded(text: str) -> Any:
    return decode_text(text, DECODE)


# --- depth


@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":[', "]}"), ('{"a":', "}")])
def test_depth_is_limited(start: str, end: str) -> None:
    levels = start.count("{") + start.count("[")
    most = MAX_DEPTH // levels
    assert decoded(start * most + "1" + end * most)
    with pytest.raises(PacketError, match="32 levels"):
        decoded(start * (most + 1) + "1" + end * (most + 1))


@pytest.mark.parametrize("text", ['["[[[[", "{{{{", "\\"[[[[", "\\\\"]', "[[],[],{},{},[[]]]"])
def test_breadth_and_brackets_in_strings_are_no_depth(text: str) -> None:
    assert decode_text(text, DECODE, levels=3) == json.loads(text)


def test_200_000_levels_are_refused_as_quickly_as_few() -> None:
    for text in ("[" * 200_000, "[" * 200_000 + "]" * 200_000, '{"a":' * 200_000):
        with pytest.raises(RecursionError):
            decoded(text)


def test_what_a_type_passes_over_counts() -> None:
    class Narrow(msgspec.Struct):
        a: int

    decode = msgspec.json.Decoder(Narrow).decode
    with pytest.raises(PacketError, match="32 levels"):
        decode_text('{"a":1,"unknown":' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}", decode)


def test_depth_of_a_million_brackets_is_counted_in_linear_time() -> None:
    check_depth("[" + "[]," * 300_000 + "[]]", MAX_DEPTH)
    with pytest.raises(PacketError):
        check_depth("[" * 500_000 + "]" * 500_000, MAX_DEPTH)


# --- what msgspec refuses, and what it lets pass


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "[-Infinity]", "1" * 5_000, "1e999", "[] 2", '"\\ud800', "[01]"])
def test_malformed(text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        decoded(text)


def test_a_million_digits() -> None:
    with pytest.raises(msgspec.ValidationError, match="out of range"):
        decoded("9" * 1_000_000)


def test_the_last_of_several_members_with_one_name_counts() -> None:
    assert decoded('{"a":1,"__proto__":2,"a":3}') == {"a": 3, "__proto__": 2}


def test_raw_surrogates_are_no_unicode() -> None:
    with pytest.raises(UnicodeEncodeError):
        decoded('["\ud800"]')


# --- surrogates that are escaped


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (r'"\ud83d"', "\ufffd"),
        (r'"cut \uD83D!"', "cut \ufffd!"),
        (r'"\ude00"', "\ufffd"),
        (r'"\ud83d\ud83d\ude00"', "\ufffd😀"),
        (r'"\ud83d\ude00\ude00"', "😀\ufffd"),
        (r'"\\ud83d\ud83d"', "\\ud83d\ufffd"),
        (r'"\n\ud83dx\"\u00e9"', '\n\ufffdx"é'),
    ],
)
def test_json_half_a_surrogate_pair_becomes_the_replacement_character(payload: str, text: str) -> None:
    assert decoded(payload) == text
    text.encode()


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(categories=["Cs"])))
def test_json_of_any_javascript_string_can_be_read(sound: str, broken: str) -> None:
    found = decoded(mend_surrogates(json.dumps(sound + broken)))

    assert found.startswith(sound)
    assert len(found.encode()) >= len(sound.encode())
    assert mend_surrogates(json.dumps(sound)) == json.dumps(sound)
