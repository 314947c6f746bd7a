"""Who is where on this node: the sockets of one namespace, its rooms, its users.

Leaving costs what the socket's own rooms cost, however many rooms there are.
"""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from bellwire.server.fanout import Fanout
    from bellwire.server.socket import Socket


class User(NamedTuple):
    """The key under which all sockets of one user are found; no room's name can collide with it."""

    id: str


Key: TypeAlias = "str | User"
"""A room's name, a socket's id, or a user."""


class Hub:
    """One live namespace: ``/chat``, or ``/org/7`` of the pattern ``/org/{org}``."""

    __slots__ = ("_everyone", "_fanout", "_groups", "_next_ack", "name", "sockets")

    def __init__(self, name: str, fanout: "Fanout") -> None:
        self.name = name
        self.sockets: dict[str, Socket] = {}
        self._everyone = self.sockets.values()  # the same object each time: fan-out joins messages to one audience
        self._fanout = fanout
        self._groups: dict[Key, set[Socket]] = {}
        self._next_ack = 0

    def add(self, socket: "Socket") -> None:
        """``socket`` is being connected: it is found under its id and its user from now on."""
        self._fanout.settle()
        self.sockets[socket.id] = socket
        if socket.user is not None:
            self._group(User(socket.user)).add(socket)

    def join(self, socket: "Socket", room: str) -> None:
        """``socket`` becomes a member of ``room``."""
        self._fanout.settle()  # what was sent before goes to those who were members before
        self._group(room).add(socket)

    def leave(self, socket: "Socket", room: str) -> None:
        """``socket`` is no longer a member of ``room``."""
        self._fanout.settle()
        self._remove(socket, room)

    def remove(self, socket: "Socket", rooms: Iterable[str]) -> None:
        """``socket`` is gone, and so from all of its rooms."""
        self._fanout.settle()
        if self.sockets.pop(socket.id, None) is None:
            return
        for room in rooms:
            self._remove(socket, room)
        if socket.user is not None:
            self._remove(socket, User(socket.user))

    def _group(self, key: Key) -> "set[Socket]":
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = set()
        return group

    def _remove(self, socket: "Socket", key: Key) -> None:
        group = self._groups.get(key)
        if group is not None:
            group.discard(socket)
            if not group:
                del self._groups[key]

    def members(self, key: Key) -> "Collection[Socket]":
        """The sockets in a room, of a user, or with an id (a socket's id is a room that holds just it)."""
        group = self._groups.get(key)
        socket = self.sockets.get(key) if isinstance(key, str) else None
        if group is None:
            return () if socket is None else (socket,)
        return group if socket is None else group | {socket}  # others may join a room of that name

    def select(self, keys: frozenset[Key], excluded: frozenset[Key]) -> "Collection[Socket]":
        """The sockets in any of ``keys`` (all, if there are none) and in none of ``excluded``; each of them once."""
        if not keys:
            found: Collection[Socket] = self._everyone
        elif len(keys) == 1:
            (key,) = keys
            found = self.members(key)
        else:
            found = set().union(*map(self.members, keys))
        if not excluded:
            return found
        return set(found).difference(*map(self.members, excluded))

    @property
    def rooms(self) -> list[str]:
        """The rooms that have a member on this node."""
        return [key for key in self._groups if isinstance(key, str)]

    def next_ack(self) -> int:
        """A number for an acknowledgement; one count for the namespace, so that a broadcast can share its frame."""
        self._next_ack += 1
        return self._next_ack - 1
