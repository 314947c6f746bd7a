import pytest

from bellwire.delivery.naming import EVERYONE, Key, User, key_of, kind_of, stream_of

KEYS: list[Key] = ["room", "", "n", "uann", User("room"), User(""), EVERYONE]


def test_a_stream_is_named_by_what_says_nothing_of_the_room() -> None:
    name = stream_of("/chat", "room")
    assert len(name) == 32
    assert set(name) <= set("0123456789abcdef")
    assert stream_of("/chat", "room") == name


def test_no_two_rooms_users_or_namespaces_share_a_stream() -> None:
    names = [stream_of(namespace, key) for namespace in ("/", "/r", "/ro") for key in (*KEYS, "om", "oom")]
    assert len(set(names)) == len(names)


def test_a_name_that_is_no_unicode_has_a_stream_too() -> None:
    assert stream_of("/", "\ud800") != stream_of("/", "\ud801")


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_stored_as_a_letter_and_a_name(key: Key) -> None:
    kind, name = kind_of(key)
    assert len(kind) == 1
    assert key_of(kind, name) == key
    assert type(key_of(kind, name)) is type(key)
