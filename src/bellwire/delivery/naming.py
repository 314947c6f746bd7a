"""How streams are named: one for each room, for each user's sockets, and for everyone in a namespace.

Whoever emits and whoever listens makes the same name of the same key; nobody reads the key out of it.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple, TypeAlias


class User(NamedTuple):
    """The key under which all sockets of one user are found; no room's name can collide with it."""

    id: str


class Everyone(NamedTuple):
    """The key of all sockets in a namespace."""


EVERYONE: Final = Everyone()

Key: TypeAlias = "str | User | Everyone"
"""A room's name, a socket's id (which is a room that holds just it), a user, or everyone in the namespace."""


def kind_of(key: Key) -> tuple[str, str]:
    """Return a key as it is stored: a letter and a name."""
    if isinstance(key, str):
        return "r", key
    return ("u", key.id) if isinstance(key, User) else ("n", "")


def key_of(kind: str, name: str) -> Key:
    """Return the key that `kind_of` told."""
    return User(name) if kind == "u" else EVERYONE if kind == "n" else name


def name_stream(namespace: str, key: Key) -> str:
    """Return the name of a stream, 32 hexadecimal digits: clients see it, and no room's name."""
    kind, name = kind_of(key)
    data = f"{kind}{len(namespace)}:{namespace}{name}".encode(errors="surrogatepass")
    return blake2b(data, digest_size=16).hexdigest()


stream_of: Final = lru_cache(maxsize=65_536)(name_stream)
"""The same for whoever is about to ask again."""
