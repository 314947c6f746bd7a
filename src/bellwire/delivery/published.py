"""What goes to a stream's listeners beside the log, and how it is written."""

from typing import Final

import msgspec


class Published(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What goes to a stream's listeners beside the log.

    ``excluded`` names rooms and sockets that do not get it; whoever is in one of the streams ``earlier`` had it there.
    """

    body: bytes
    volatile: bool = False
    excluded: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()


encode_published: Final = msgspec.msgpack.Encoder().encode
"""Return it as bytes."""

decode_published: Final = msgspec.msgpack.Decoder(Published).decode
"""Return what the bytes hold; raises msgspec's errors if that is something else."""
