"""What is kept of a user whose tokens were revoked: from when on those are good again that are new."""

from hashlib import blake2b
from typing import Final

import msgspec


class Revocation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Everything up to a moment was revoked."""

    at: float
    """The moment, in seconds since the epoch by the clock of the node that was asked."""
    since: float
    """The same in the broker's time, in which sessions are dated."""

    def covers(self, issued: float | None) -> bool:
        """Whether it holds for what was issued then; for what does not say, it does.

        Tokens are dated in whole seconds. One of the same second may be older, and is covered.
        """
        return issued is None or issued <= self.at


NEVER: Final = Revocation(float("-inf"), float("-inf"))
"""It covers nothing that has a date."""

_ALL: Final = Revocation(float("inf"), float("inf"))

encode_revocation: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Revocation).decode


def decode_revocation(value: bytes) -> Revocation:
    """Return what is kept; if another program wrote it, one that covers all: nobody is let in by mistake."""
    try:
        return _decode(value)
    except msgspec.MsgspecError:
        return _ALL


def revocation_key(user: str) -> str:
    """Return the key under which it is kept, in which there is no trace of the user's name."""
    return f"revoked.{blake2b(user.encode(errors='surrogatepass'), digest_size=16).hexdigest()}"
