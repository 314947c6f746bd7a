"""The side of a socket that recovers: its session, its memberships, and what its client is told about them.

A membership is stored before its client hears of it, and its end before the client hears of that (the guarantee,
"Memberships"). What comes meanwhile waits in the room's ring. Nothing is handed over before the client is connected.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.answer import Reason
from bellwire.delivery.membership import Membership
from bellwire.delivery.position import Point, Position
from bellwire.delivery.session import Member
from bellwire.protocol import wire
from bellwire.protocol.embedding import Control
from bellwire.protocol.outgoing import Message
from bellwire.protocol.post import Post
from bellwire.server.room import Room
from bellwire.server.sessions import Session
from bellwire.server.streams import Key, key_of, kind_of, stream_of

if TYPE_CHECKING:
    from bellwire.server.hub import Hub
    from bellwire.server.socket import Socket

ENDING: Final = frozenset(("client namespace disconnect", "server namespace disconnect", "forced server close"))
"""The reasons for which a client goes for good: whoever goes for another may come back to its session."""


class Reader:
    """What one socket recovers with; ``recovered`` says that its session was there before this connection."""

    __slots__ = ("_begun", "_rooms", "_to_come", "recovered", "session", "socket", "spans")

    def __init__(self, socket: "Socket", session: Session, *, recovered: bool) -> None:
        self.session = session
        self.recovered = recovered
        self.socket = socket
        self.spans: dict[str, list[Membership]] = {}
        """From where to where it is in which stream, its last stay there and those that it still reads."""
        self._rooms: dict[str, Room] = {}
        self._to_come: dict[str, list[Membership]] = {}  # stays that follow on the one being read
        self._begun = False

    @property
    def ready(self) -> bool:
        """Whether the client can take the next page of what it missed."""
        return self._begun and self.socket.sink.writable

    # --- its rooms

    async def join(self, room: Room) -> bool:
        """Become a member of ``room``; False if the socket was gone first. Raises BrokerUnavailable: it is none."""
        position = await room.stand()
        kind, name = kind_of(room.key)
        await self.session.join(room.stream, Member(kind, name, position))
        if self.socket.gone:
            return False
        self._stay(room.stream, Membership(position))
        self._open(room, position)
        room.drive()
        return True

    def _stay(self, stream: str, span: Membership) -> None:
        self.spans[stream] = [*self.spans.get(stream, ())[-1:], span]

    def _open(self, room: Room, position: Position, until: Position | None = None) -> None:
        """Tell the client that it is in a stream, and let it have what follows."""
        self._say(wire.Open(self.socket.namespace, room.stream, *position))
        self._admit(room, position, until)

    def _admit(self, room: Room, position: Position, until: Position | None) -> None:
        self._rooms[room.stream] = room
        room.admit(self.socket, position, until)

    async def leave(self, room: Room) -> None:
        """Be a member of ``room`` no longer. Raises BrokerUnavailable: it still is one."""
        position = room.dismiss(self.socket)
        if position is None:
            return
        try:
            await self.session.leave(room.stream, position)
        except BrokerUnavailable:
            self._admit(room, position, None)
            room.drive()
            raise
        last = self.spans[room.stream][-1]
        self.spans[room.stream][-1] = Membership(last.joined, position)
        self._close(room)

    def _close(self, room: Room) -> None:
        self._rooms.pop(room.stream, None)
        self._say(wire.Close(room.stream))

    # --- coming back

    async def resume(self, hub: "Hub", cursors: Mapping[str, Position]) -> list[str]:
        """Go on in the session's streams, each from the client's own cursor; return the rooms that it is in.

        Raises BrokerUnavailable.
        """
        record = self.session.record
        members = {past.stream: past.member for past in record.left} | record.streams
        for stream, member in members.items():
            self.spans[stream] = record.spans(stream)
            key = key_of(member.kind, member.name)
            if await self._allowed(key):
                await hub.resume(self.socket, key, cursors.get(stream))
            else:
                await self._forbid(stream, member)
        for stream in cursors.keys() - members.keys():
            self._say(wire.Close(stream, Reason.TRUNCATED))
        return [member.name for member in record.streams.values() if member.kind == "r"]

    async def _allowed(self, key: Key) -> bool:
        return not isinstance(key, str) or key == self.socket.id or await self.socket.allowed(key)

    async def _forbid(self, stream: str, member: Member) -> None:
        if member.left is None:
            await self.session.leave(stream, member.joined)
        self._forget(stream)
        self._say(wire.Close(stream, Reason.FORBIDDEN))

    def _forget(self, stream: str) -> None:
        for span in self.spans.pop(stream, ()):
            if span.left is not None:
                self.session.forget(stream, span.left)

    def come_back(self, room: Room, cursor: Position | None) -> None:
        """Let the client have what it missed in ``room``, stay after stay, from its ``cursor`` on.

        Where it has none it never heard that it was a member: it begins where it became one.
        """
        spans = list(self.spans[room.stream])
        while cursor is not None and len(spans) > 1 and cursor.seq >= spans[1].joined.seq:
            spans.pop(0)  # it is further already
        first, *self._to_come[room.stream] = spans
        if cursor is None:
            self._open(room, first.joined, first.left)
        else:
            self._admit(room, cursor, first.left)

    def ended(self, room: Room) -> None:
        """It has all of a stay that is over."""
        stream = room.stream
        span = next((span for span in self.spans.get(stream, ()) if span.left is not None), None)
        if span is not None and span.left is not None:
            self.session.forget(stream, span.left)
            self.spans[stream].remove(span)
        self._close(room)
        if self._to_come.get(stream):
            following = self._to_come[stream].pop(0)
            self._open(room, following.joined, following.left)
            room.drive()

    def ask(self, stream: str, cursor: Position) -> None:
        """The client misses something: prove its cursor, and send what follows."""
        room = self._rooms.get(stream)
        if room is None or room.dismiss(self.socket) is None:
            self._say(wire.Close(stream, Reason.TRUNCATED))
            return
        self.come_back(room, cursor)
        room.drive()

    # --- the connection

    def begin(self) -> None:
        """The client is connected: hand over what waits."""
        self._begun = True
        self.go_on()

    def go_on(self) -> None:
        """The client's connection has room again."""
        for room in tuple(self._rooms.values()):
            room.drive()

    def lag(self) -> None:
        """The client's connection is full: from here on it takes from the history, as fast as it can."""
        for room in self._rooms.values():
            room.lag(self.socket)

    def depart(self, reason: str) -> None:
        """The connection is gone, and the session with it if the client goes for good."""
        self._rooms.clear()
        if reason in ENDING:
            self.session.end()
        else:
            self.session.detach()

    def call(self, post: Post) -> Message:
        """Return a call in the client's dialect, to be handed over behind what was emitted to the client before."""
        own = stream_of(self.socket.namespace, self.socket.id)
        room = self._rooms.get(own)
        point = None if room is None else room.point(self.socket)
        if point is None:
            return self.socket.dialect.render(post)
        return self.socket.dialect.after(post, wire.After(own, point.seq, point.tag))

    # --- what its rooms tell

    def proved(self, room: Room, at: Position) -> None:
        """The position from which it resumes is in the log."""
        self._say(wire.Proved(room.stream, *at))

    def reset(self, room: Room, reason: Reason, restart: Position) -> None:
        """It cannot go on from where it stands."""
        self._say(wire.Reset(room.stream, reason, *restart))

    def advance(self, room: Room, prev: Point, to: Position) -> None:
        """Nothing up to ``to`` is for it."""
        self._say(wire.Advance(room.stream, prev.seq, prev.tag, *to))

    def _say(self, message: Control) -> None:
        said = self.socket.dialect.control(message)
        if said is not None:
            self.socket.send(said)
