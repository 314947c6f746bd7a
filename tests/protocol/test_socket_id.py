import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.protocol.socket_id import SocketId, new_socket_id, read_socket_id


def test_an_id_says_on_which_node_its_socket_is() -> None:
    assert read_socket_id(new_socket_id("00c0ffee")) == SocketId("00c0ffee")


def test_an_id_of_a_socket_that_recovers_names_no_node() -> None:
    assert read_socket_id(new_socket_id(None)) == SocketId(None)


@pytest.mark.parametrize("node", ["ffffffff", None])
def test_an_id_has_twenty_characters_and_is_never_the_same(node: str | None) -> None:
    ids = {new_socket_id(node) for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{20}", id_) for id_ in ids)


@given(st.text(max_size=40) | st.from_regex(r"\A[A-Za-z0-9_-]{20}\Z"))
def test_no_other_name_is_an_id(name: str) -> None:
    assert read_socket_id(name) is None


def test_an_id_is_written_in_one_way() -> None:
    ids = (new_socket_id(None) for _ in range(1_000))
    other = next(id_.replace("-", "+").replace("_", "/") for id_ in ids if "-" in id_ or "_" in id_)
    assert read_socket_id(other) is None


def test_a_changed_id_is_none() -> None:
    for node in ("12345678", None):
        id_ = new_socket_id(node)
        other = id_[:-1] + ("A" if id_[-1] != "A" else "B")
        assert read_socket_id(other) is None
