"""Who a client is: a user's id is text, and says somebody."""

import uuid
from typing import Any, cast

import pytest

from bellwire.guard.auth import Identity, require_user


@pytest.mark.parametrize(
    ("user", "fix"),
    [
        (5, r"not int: write Identity\(str\(5\)\)"),
        (uuid.UUID(int=5), r"not UUID: write Identity\(str\(user\)\)"),
        (None, "not NoneType: a guest has none"),
    ],
)
def test_a_users_id_is_text(user: object, fix: str) -> None:
    with pytest.raises(TypeError, match=f"^Identity takes a user's id as a str, {fix}$"):
        Identity(cast("Any", user))


def test_a_users_id_is_not_empty() -> None:
    with pytest.raises(ValueError, match=r"Identity\(''\) names nobody"):
        Identity("")


def test_the_error_names_what_was_called() -> None:
    with pytest.raises(TypeError, match=r"write user\(str\(7\)\)"):
        require_user(7, "user")


def test_what_is_right_is_left_alone() -> None:
    require_user("ada", "user")
    assert Identity("ada", {"role": "admin"}, 5.0).user == "ada"
