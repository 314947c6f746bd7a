from collections.abc import Callable
from sys import getrefcount

import pytest

from bellwire.delivery.naming import EVERYONE, MAX_KEPT, Key, User, key_of, kind_of, name_stream, stream_of

KEYS: list[Key] = ["room", "", "n", "uann", User("room"), User(""), EVERYONE]


def test_a_stream_is_named_by_what_says_nothing_of_the_room() -> None:
    name = stream_of("/chat", "room")
    assert len(name) == 24
    assert set(name) <= set("0123456789abcdef")
    assert stream_of("/chat", "room") == name


def test_no_two_rooms_users_or_namespaces_share_a_stream() -> None:
    names = [stream_of(namespace, key) for namespace in ("/", "/r", "/ro") for key in (*KEYS, "om", "oom")]
    assert len(set(names)) == len(names)


def test_a_name_that_is_no_unicode_has_a_stream_too() -> None:
    assert stream_of("/", "\ud800") != stream_of("/", "\ud801")


@pytest.mark.parametrize("length", [255, 256])
@pytest.mark.parametrize("kind", [str, User])
def test_long_names_have_streams_and_are_not_kept(length: int, kind: Callable[[str], Key]) -> None:
    name = "".join(["a"] * length)
    before = getrefcount(name)
    assert len({stream_of("/", kind(name)), stream_of("/", kind(name)), name_stream("/", kind(name))}) == 1
    assert (getrefcount(name) > before) is (length <= MAX_KEPT)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_stored_as_a_letter_and_a_name(key: Key) -> None:
    kind, name = kind_of(key)
    assert len(kind) == 1
    assert key_of(kind, name) == key
    assert type(key_of(kind, name)) is type(key)
