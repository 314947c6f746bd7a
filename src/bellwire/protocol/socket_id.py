"""Socket.IO ids that say what they are: whoever holds one knows how to reach the socket, and that it is no room's name.

An id has 20 characters of ``[A-Za-z0-9_-]``, as Node's have, whose adapters tell ids from rooms by that. They stand for
15 bytes: four of the node that the socket is on, seven random ones, and four that check the others. A socket that
recovers may come back on any node, so the first four of its id are random too, and the check is another one.

Of names of 20 such characters that are something else, one in two thousand million is taken for an id.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

from bellwire.core.randomness import random_bytes

_LENGTH: Final = 20
_NODE: Final = 4
_RANDOM: Final = 7
_PLAIN: Final = blake2b(digest_size=4, person=b"bw.id.plain")
_RECOVERING: Final = blake2b(digest_size=4, person=b"bw.id.recovering")


class SocketId(NamedTuple):
    """What an id says: the ``node`` that the socket is on, 8 hexadecimal digits; None if it may come back anywhere."""

    node: str | None


_ANYWHERE: Final = SocketId(None)


def new_socket_id(node: str | None) -> str:
    """Make an id for a socket on ``node``, or for one that recovers."""
    if node is None:
        said = random_bytes(_NODE + _RANDOM)
        return urlsafe_b64encode(said + _check(said, _RECOVERING)).decode()
    said = bytes.fromhex(node) + random_bytes(_RANDOM)
    return urlsafe_b64encode(said + _check(said, _PLAIN)).decode()


def read_socket_id(name: str) -> SocketId | None:
    """Return what the id ``name`` says, None if it is none."""
    return _read(name) if len(name) == _LENGTH else None  # no other name is kept, whatever its length


@lru_cache(maxsize=65_536)
def _read(name: str) -> SocketId | None:
    if not name.isascii() or "+" in name or "/" in name:  # the decoder takes both alphabets
        return None
    try:
        data = urlsafe_b64decode(name)
    except ValueError:
        return None
    said, check = data[: _NODE + _RANDOM], data[_NODE + _RANDOM :]
    if check == _check(said, _PLAIN):
        return SocketId(said[:_NODE].hex())
    return _ANYWHERE if check == _check(said, _RECOVERING) else None


def _check(said: bytes, kind: blake2b) -> bytes:
    check = kind.copy()  # half of the time goes into making one
    check.update(said)
    return check.digest()
