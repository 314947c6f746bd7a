import msgspec
import pytest

from bellwire.delivery.published import Published, decode_published, encode_published


@pytest.mark.parametrize("published", [Published(b"body"), Published(b"", True, ("a", "b"), ("c",))])
def test_what_is_written_is_read(published: Published) -> None:
    assert decode_published(encode_published(published)) == published


@pytest.mark.parametrize("body", [b"", b"\xc1", msgspec.msgpack.encode("text"), msgspec.msgpack.encode([1])])
def test_what_is_something_else_is_an_error_of_msgspec(body: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_published(body)
