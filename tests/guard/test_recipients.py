from typing import Any, cast

import pytest
from typing_extensions import override

from bellwire.core.errors import OutcomeUnknown
from bellwire.delivery.naming import EVERYONE, Key, User, stream_of
from bellwire.guard.recipients import MAX_NAME_LENGTH, Recipients, check_name, concrete_name


class Some(Recipients["Some"]):
    """Recipients that a test can look into."""

    @override
    def _with(self, keys: tuple[Key, ...], excluded: tuple[str, ...]) -> "Some":
        return Some(self._name, keys, excluded)

    @property
    def keys(self) -> tuple[Key, ...]:
        return self._keys

    @property
    def excluded(self) -> tuple[str, ...]:
        return self._excluded

    @property
    def streams(self) -> tuple[str, ...]:
        return self._streams()

    def done(self, *streams: str) -> tuple[str, ...]:
        return self._unknown(OutcomeUnknown("mid", streams)).done


def test_rooms_and_users_add_up_in_order_each_once() -> None:
    some = Some("/chat").to("a", "b").user("ann").to("b", "c").user("ann").except_("x").except_("y", "x")
    assert some.keys == ("a", "b", User("ann"), "c")
    assert some.excluded == ("x", "y")


def test_what_is_made_of_it_leaves_it_as_it_is() -> None:
    some = Some("/chat")
    some.to("a").except_("b").user("c")
    assert (some.keys, some.excluded) == ((), ())


def test_without_rooms_and_users_all_are_meant() -> None:
    assert Some("/chat").except_("a").streams == (stream_of("/chat", EVERYONE),)
    assert Some("/chat").to("a").user("ann").streams == (stream_of("/chat", "a"), stream_of("/chat", User("ann")))


def test_no_room_is_not_everybody() -> None:
    nobody: list[str] = []
    with pytest.raises(ValueError, match=r"names no room.*the namespace itself"):
        Some("/").to(*nobody)


def test_a_room_and_a_user_are_strings() -> None:
    with pytest.raises(TypeError, match=r"not list: to\('a', 'b'\)"):
        Some("/").to(cast("Any", ["a", "b"]))
    with pytest.raises(TypeError, match=r"not int: to\('a', 'b'\)"):
        Some("/").except_(cast("Any", 5))
    with pytest.raises(TypeError, match=r"write user\(str\(5\)\)"):
        Some("/").user(cast("Any", 5))


def test_an_error_names_rooms_users_and_the_namespace_and_no_streams() -> None:
    some = Some("/chat").to("a", "b").user("ann")
    first, _, third = some.streams
    assert some.done(third, first) == ("a", "user ann")
    assert Some("/chat").done(*Some("/chat").streams) == ("the namespace",)


@pytest.mark.parametrize("name", ["chat", "", "/a,b", "/a?b", "/" + "x" * MAX_NAME_LENGTH])
def test_a_name_that_is_no_namespaces_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no namespace: it begins with '/'"):
        check_name(name)


def test_a_pattern_is_no_namespace_that_somebody_is_in() -> None:
    assert concrete_name("/org/7") == "/org/7"
    for name in ("/org/{org}", "/org/}"):
        with pytest.raises(ValueError, match=r"is a pattern: name one of its namespaces, such as namespace\(f'/org/"):
            concrete_name(name)
    with pytest.raises(ValueError, match="is no namespace"):
        concrete_name("org")
