"""How streams are named: one for each room, for each user's sockets, each socket, and for everyone in a namespace.

Whoever emits and whoever listens makes the same name of the same key; nobody reads the key out of it. A socket that
does not recover is the exception: nobody listens to a stream of its own. What is for it goes to its node, whose id
stands in the socket's, and the stream's name says to which socket.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple, TypeAlias

from bellwire.protocol.socket_id import read_socket_id


class User(NamedTuple):
    """The key under which all sockets of one user are found; no room's name can collide with it."""

    id: str


class Everyone(NamedTuple):
    """The key of all sockets in a namespace."""


EVERYONE: Final = Everyone()

Key: TypeAlias = "str | User | Everyone"
"""A room's name, a socket's id (which is a room that holds just it), a user, or everyone in the namespace."""

MAX_KEPT: Final = 255
"""Characters of a name whose stream is kept. Applications emit to rooms that clients name, of any length; as a rule
none of those has a member (`Config.max_room_name`)."""

_DIRECT: Final = "~"
_ID: Final = 20


class Direct(NamedTuple):
    """A socket that does not recover: its ``id``, the ``node`` that it is on, and the mark of its namespace."""

    id: str
    node: str
    namespace: str


def kind_of(key: Key) -> tuple[str, str]:
    """Return a key as it is stored: a letter and a name."""
    if isinstance(key, str):
        return "r" if read_socket_id(key) is None else "s", key
    return ("u", key.id) if isinstance(key, User) else ("n", "")


def own_kind(socket_id: str) -> tuple[str, str]:
    """Return the same of the id of a socket that recovers."""
    return "s", socket_id


def key_of(kind: str, name: str) -> Key:
    """Return the key that `kind_of` told."""
    return User(name) if kind == "u" else EVERYONE if kind == "n" else name


def name_stream(namespace: str, key: Key) -> str:
    """Return the name of a stream, 24 hexadecimal digits: clients see it with each message, and no room's name.

    That of a socket which does not recover begins with ``~``, and its client never sees it.
    """
    socket = read_socket_id(key) if isinstance(key, str) else None
    if socket is not None and socket.node is not None:
        return f"{_DIRECT}{key}{mark_namespace(namespace)}"
    return stream_of_kind(namespace, *kind_of(key))


def stream_of_kind(namespace: str, kind: str, name: str) -> str:
    """Return the name of the stream of what `kind_of` tells; none of a socket that does not recover."""
    data = f"{kind}{len(namespace)}:{namespace}{name}".encode(errors="surrogatepass")
    return blake2b(data, digest_size=12).hexdigest()


def stream_of(namespace: str, key: Key) -> str:
    """Return the same, for whoever is about to ask again."""
    name = key.id if isinstance(key, User) else key
    return _kept(namespace, key) if len(name) <= MAX_KEPT else name_stream(namespace, key)


_kept: Final = lru_cache(maxsize=65_536)(name_stream)


def mark_namespace(name: str) -> str:
    """Return the mark of a namespace, 16 hexadecimal digits."""
    return blake2b(name.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def direct_of(stream: str) -> Direct | None:
    """Return the socket that the name of ``stream`` tells, None for all other streams."""
    if not stream.startswith(_DIRECT):
        return None
    name = stream[1 : 1 + _ID]
    socket = read_socket_id(name)
    return None if socket is None or socket.node is None else Direct(name, socket.node, stream[1 + _ID :])
