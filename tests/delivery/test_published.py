import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.delivery.published import Published, decode_published, encode_published

NAMES = st.lists(st.text(max_size=20), max_size=3).map(tuple)


@given(st.builds(Published, st.binary(), st.booleans(), NAMES, NAMES))
def test_what_was_written_is_read(published: Published) -> None:
    assert decode_published(encode_published(published)) == published


@given(st.binary())
def test_anything_else_is_told_by_one_error(data: bytes) -> None:
    for tried in (data, b"\x01" + data):
        try:
            decode_published(tried)
        except msgspec.MsgspecError:
            continue
        assert tried[:1] == b"\x01"


def test_another_version_is_not_read() -> None:
    with pytest.raises(msgspec.ValidationError, match="version"):
        decode_published(b"\x02" + encode_published(Published(b""))[1:])


def test_text_that_is_no_unicode_is_not_read() -> None:
    with pytest.raises(msgspec.MsgspecError, match="UTF-8"):
        decode_published(encode_published(Published(b"", excluded=("ab",))).replace(b"ab", b"\xff\xfe"))
