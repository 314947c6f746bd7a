"""Who is where on this node: the sockets of one namespace, its rooms, its users.

Leaving costs what the socket's own rooms cost, however many rooms there are.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from bellwire.delivery.naming import EVERYONE, Key, User, direct_of, mark_namespace, name_stream, stream_of
from bellwire.delivery.position import Position
from bellwire.delivery.published import Published
from bellwire.protocol.socket_id import read_socket_id
from bellwire.server.dispatch import Dispatcher, Outcome
from bellwire.server.room import Room
from bellwire.server.streams import Streams

if TYPE_CHECKING:
    from bellwire.server.socket import Socket


class Hub:
    """One live namespace: ``/chat``, or ``/org/7`` of the pattern ``/org/{org}``."""

    __slots__ = (
        "_dispatcher",
        "_emptied",
        "_everyone",
        "_next_ack",
        "_rooms",
        "_streams",
        "entering",
        "name",
        "sockets",
        "streams",
    )

    def __init__(
        self, name: str, streams: Streams, dispatcher: Dispatcher, emptied: "Callable[[Hub], None] | None" = None
    ) -> None:
        self.name = name
        self.sockets: dict[str, Socket] = {}
        self.streams: dict[str, Room] = {}
        """The rooms by their streams."""
        self._everyone = self.sockets.values()  # the same object each time: fan-out joins events to one audience
        self._rooms: dict[Key, Room] = {}
        self._streams = streams
        self._dispatcher = dispatcher
        self._emptied = emptied  # a guest of its last room may go after its last socket
        self._next_ack = 0
        self.entering = 0
        """How many sockets are about to be in it: it is not given up meanwhile."""
        streams.hubs[mark_namespace(name)] = self

    def add(self, socket: "Socket") -> None:
        """``socket`` is being connected: it is found under its id from now on."""
        self.sockets[socket.id] = socket

    async def join(self, socket: "Socket", key: Key) -> bool:
        """Make ``socket`` a member of the room ``key``; False if it was gone before it was one.

        Raises BrokerUnavailable: it is no member.
        """
        room = self.guest(key)
        try:
            if not room.subscribed:
                await room.subscribe()
            if socket.reader is not None:
                return await socket.reader.join(room)
            if socket.gone:
                return False
            self._streams.fanout.settle(socket)  # what was sent before goes to those who were members before
            room.add(socket)
            return True
        finally:
            self.part(room)

    async def resume(self, socket: "Socket", key: Key, cursor: Position | None) -> None:
        """Let a recovered ``socket`` go on in the room ``key``. Raises BrokerUnavailable."""
        room = self.guest(key)
        try:
            await room.stand()
            if socket.reader is not None and not socket.gone:
                socket.reader.come_back(room, cursor)
        finally:
            self.part(room)

    def room(self, key: Key) -> Room | None:
        """Return the room ``key``; None if nobody is in it."""
        return self._rooms.get(key)

    def guest(self, key: Key, stream: str | None = None) -> Room:
        """Return the room ``key``; it is not given up before :meth:`part`, though nobody is in it yet.

        ``stream`` is its stream's name, if that is known.
        """
        room = self._rooms.get(key) or self._open(key, stream or name_stream(self.name, key))
        room.guests += 1
        return room

    def part(self, room: Room) -> None:
        """Whoever :meth:`guest` was called for is in ``room``, or will not come."""
        room.guests -= 1
        self.vacate(room)

    async def leave(self, socket: "Socket", key: Key) -> None:
        """``socket`` is no longer a member of the room ``key``. Raises BrokerUnavailable: it still is."""
        if key not in self._rooms and socket.reader is None:
            return
        room = self.guest(key)  # a reader that cannot leave it goes on where it was
        try:
            if socket.reader is not None:
                await socket.reader.leave(room)
            else:
                self._streams.fanout.settle(socket)
                room.discard(socket)
        finally:
            self.part(room)

    def remove(self, socket: "Socket", rooms: Iterable[str]) -> None:
        """``socket`` is gone, and so from all of its rooms."""
        self._streams.fanout.settle(socket)
        if self.sockets.get(socket.id) is socket:  # else one that took its session up is found under its id
            del self.sockets[socket.id]
        self._remove(socket, EVERYONE)
        self._remove(socket, socket.id)
        if socket.user is not None:
            self._remove(socket, User(socket.user))
        for room in rooms:
            self._remove(socket, room)

    def _remove(self, socket: "Socket", key: Key) -> None:
        room = self._rooms.get(key)
        if room is not None:
            room.discard(socket)
            room.dismiss(socket)
            self.vacate(room)

    def _open(self, key: Key, stream: str) -> Room:
        room = self._rooms[key] = self.streams[stream] = Room(self, key, self._streams, self._dispatcher, stream)
        return room

    def vacate(self, room: Room) -> None:
        """Give ``room`` up if nobody is in it, or what it keeps for those who recover if none of them is."""
        room.tidy()
        if room.empty and self._rooms.get(room.key) is room:
            del self._rooms[room.key], self.streams[room.stream]
            self._dispatcher.start(self._streams.broker.unsubscribe(room.stream, room), self._unsubscribed)
            if self._emptied is not None and self.empty:
                self._emptied(self)

    def _unsubscribed(self, outcome: Outcome) -> None:
        """Whether it worked or not: a room that nobody is in takes what comes, and does nothing with it."""

    # --- who is meant

    def members(self, key: Key) -> "Collection[Socket]":
        """The sockets in a room, of a user, or with an id (a socket's id is a room that holds just it)."""
        if key == EVERYONE:
            return self._everyone
        room = self._rooms.get(key)
        if room is not None:
            return room.members
        socket = self.sockets.get(key) if isinstance(key, str) else None
        return () if socket is None else (socket,)

    def members_in(self, stream: str) -> "Collection[Socket]":
        """The same of a stream."""
        room = self.streams.get(stream)
        if room is not None:
            return room.members
        direct = direct_of(stream)
        return () if direct is None else self.members(direct.id)

    def plain_in(self, stream: str) -> "Collection[Socket]":
        """Those of them that do not recover."""
        room = self.streams.get(stream)
        return room.plain if room is not None else self.members_in(stream)

    def count(self, key: Key) -> int:
        """How many sockets `members` has, but for those on their way back; it makes no collection of them."""
        if key == EVERYONE:
            return len(self.sockets)
        room = self._rooms.get(key)
        return int(key in self.sockets) if room is None else room.count

    def hand(self, id: str, published: Published) -> None:  # noqa: A002 - a socket's
        """Send an event to the socket with this id, unless it is excluded, or had it in another stream."""
        socket = self.sockets.get(id)
        post = self._streams.read(self.name, published.body)
        if socket is None or post is None or any(self.holds(key, socket) for key in published.excluded):
            return
        if not any(socket in self.members_in(stream) for stream in published.earlier):
            stream = stream_of(self.name, id) if published.volatile else ""
            self._streams.fanout.cast(((socket,),), post, room=stream, volatile=published.volatile)

    def close(self) -> None:
        """It is given up: nothing is handed to it any more."""
        mark = mark_namespace(self.name)
        if self._streams.hubs.get(mark) is self:
            del self._streams.hubs[mark]

    def select(self, keys: Sequence[Key], excluded: Sequence[str]) -> "Collection[Socket]":
        """The sockets in any of ``keys`` and in none of ``excluded``; each of them once."""
        found = self.members(keys[0]) if len(keys) == 1 else set().union(*map(self.members, keys))
        if not excluded:
            return found
        return set(found).difference(*map(self.members, excluded))

    def holds(self, key: Key, socket: "Socket") -> bool:
        """Whether ``socket`` is among the `members` of ``key``."""
        room = self._rooms.get(key)
        return key == socket.id or (room is not None and room.has(socket))

    @property
    def rooms(self) -> list[str]:
        """The rooms that have a member on this node."""
        return [key for key in self._rooms if isinstance(key, str) and read_socket_id(key) is None]

    @property
    def empty(self) -> bool:
        """Whether nobody is in it."""
        return not self.sockets and not self._rooms and not self.entering

    def next_ack(self) -> int:
        """A number for an acknowledgement; one count for the namespace, so that a broadcast can share its frame."""
        self._next_ack += 1
        return self._next_ack - 1
