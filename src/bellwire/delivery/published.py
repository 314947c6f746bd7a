"""What goes to a stream's listeners beside the log, and how it is written: a byte, the version, and MessagePack."""

from typing import Final

import msgspec

VERSION: Final = b"\x01"
"""Nodes of another version do not understand it, and count it."""

_encode: Final = msgspec.msgpack.Encoder().encode


class Published(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What goes to a stream's listeners beside the log.

    ``excluded`` names rooms and sockets that do not get it; whoever is in one of the streams ``earlier`` had it there.
    """

    body: bytes
    volatile: bool = False
    excluded: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()


_decode: Final = msgspec.msgpack.Decoder(Published).decode


def encode_published(published: Published) -> bytes:
    """Return it as bytes."""
    return VERSION + _encode(published)


def decode_published(data: bytes) -> Published:
    """Return what the bytes hold.

    Raises:
        msgspec.MsgspecError: something else, or of another version.

    """
    if data[:1] != VERSION:
        raise msgspec.ValidationError(f"published in version {data[:1]!r}, known is {VERSION!r}")
    try:
        return _decode(memoryview(data)[1:])
    except UnicodeDecodeError as error:  # what msgspec before 0.23 raises for text that is none
        raise msgspec.ValidationError(f"published with text that is no UTF-8: {error}") from None
