"""The side of a socket that recovers: its session, its memberships, and what its client is told about them.

A membership is stored before its client hears of it, and its end before the client hears of that (the guarantee,
"Memberships"). What comes meanwhile waits in the room's ring. Nothing is handed over before the client is connected.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar
from weakref import ref

from bellwire.delivery.answer import Reason
from bellwire.delivery.entry import Entry
from bellwire.delivery.membership import Membership
from bellwire.delivery.naming import EVERYONE, Key, User, key_of, kind_of, own_kind, stream_of, stream_of_kind
from bellwire.delivery.position import Point, Position, order
from bellwire.delivery.session import MAX_LEFT, Member, Record, Turn
from bellwire.protocol import wire
from bellwire.protocol.embedding import Control, Hello
from bellwire.protocol.outgoing import Message
from bellwire.protocol.post import Post
from bellwire.server.room import Room
from bellwire.server.session import Session
from bellwire.server.sessions import Sessions

if TYPE_CHECKING:
    from bellwire.server.hub import Hub
    from bellwire.server.socket import Socket

T = TypeVar("T")

ENDING: Final = frozenset(("client namespace disconnect", "server namespace disconnect", "forced server close"))
"""The reasons for which a client goes for good: whoever goes for another may come back to its session."""

PROBE_SECONDS: Final = 2.0
"""How long a client has to answer before another program may take its session for its own."""


MAX_STAYS: Final = 8
"""How many former stays in one stream are remembered, and"""
MAX_STREAMS: Final = 1_024
"""of how many streams, those left included: they say which copy of an event to several streams is taken."""


NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Whose(TypedDict):
    """Whom a session belongs to."""

    namespace: str
    principal: str | None
    instance: str
    turn: Turn
    holder: "Reader"


class Reader:
    """What one socket recovers with; ``recovered`` says that its session was there before this connection."""

    session: Session

    __slots__ = (
        "_absent",
        "_attended",
        "_begun",
        "_deciding",
        "_fresh",
        "_full",
        "_held_up",
        "_missed",
        "_socket",
        "_spans",
        "_to_come",
        "recovered",
        "session",
    )

    def __init__(self, socket: "Socket") -> None:
        self.recovered = False
        self._socket = ref(socket)  # whose reader this is: it is there for as long as anybody asks this for something
        self._spans: dict[str, list[Membership]] | None = None  # while the record says it
        self._attended: dict[str, Room] | None = None  # while it is where every one is, and nowhere else
        self._to_come: Mapping[str, list[Membership]] = NOTHING  # stays that follow on the one being read
        self._fresh: tuple[str, ...] = ()  # streams whose position the client has from this connection
        self._absent: Collection[str] = ()  # streams that it is about to come back to
        self._missed: Mapping[str, Position] = NOTHING  # stays that gave way before it had read them
        self._begun = False
        self._full = False
        self._deciding: Mapping[str, Position | None] = (
            NOTHING  # where joins and leaves under way are, once that is known
        )
        self._held_up = False  # until those are decided

    @property
    def socket(self) -> "Socket":
        """The socket that has it."""
        socket = self._socket()
        assert socket is not None  # noqa: S101 - see there
        return socket

    @property
    def spans(self) -> dict[str, list[Membership]]:
        """From where to where it is, and was, in which stream."""
        if self._spans is None:  # it has been where it was from the beginning, and nowhere else
            streams = self.session.record.streams
            self._spans = {stream: [member.span] for stream, member in streams.items()}
        return self._spans

    @property
    def _rooms(self) -> dict[str, Room]:
        """By stream, the rooms from which it gets something."""
        if self._attended is None:
            self._attended = {room.stream: room for room in self._here}
        return self._attended

    @property
    def _here(self) -> Collection[Room]:
        """The same rooms."""
        if self._attended is not None:
            return tuple(self._attended.values())
        hub = self.socket.hub
        return [room for key in self._always() if (room := hub.room(key)) is not None]

    @property
    def ready(self) -> bool:
        """Whether the client can take the next page of what it missed."""
        if self._deciding:
            self._held_up = True
            return False
        return self._begun and not self._full and self.socket.sink.writable

    # --- its session

    @classmethod
    async def open(cls, socket: "Socket", hello: Hello, sessions: Sessions, hub: "Hub") -> "Reader":
        """Take up the session that the client names, or make one. Raises BrokerUnavailable."""
        reader = cls(socket)
        whose = reader._whose(hello.instance, hello.attempt)
        cursors = {cursor.stream: Position(cursor.gen, cursor.seq, cursor.tag) for cursor in hello.cursors}
        session = None
        if hello.session is not None:
            session = await sessions.resume(hello.session, cursors=cursors, after=socket.revoked, **whose)
        if session is None:
            reader._give_up(cursors, Reason.SESSION_LOST)  # first: the new session is in some of the same streams
            await reader.begin_session(hub, sessions, whose)
            return reader
        reader.session, reader.recovered = session, True
        reader.know(hub)
        try:
            await reader._resume(hub, cursors)
        except BaseException:
            session.detach()
            raise
        return reader

    def _whose(self, instance: str, attempt: int = 0) -> Whose:
        socket = self.socket
        turn = Turn(attempt, socket.since)
        return Whose(namespace=socket.namespace, principal=socket.user, instance=instance, turn=turn, holder=self)

    def know(self, hub: "Hub") -> None:
        """The socket is found from now on, under the id and in the rooms that its session has."""
        record = self.session.record
        rooms = [member.name for member in record.streams.values() if member.kind == "r" and member.name != record.id]
        self._adopted(hub, record.id, rooms)

    def _adopted(self, hub: "Hub", socket_id: str, rooms: Collection[str]) -> None:
        socket = self.socket
        socket.adopt(self, socket_id, rooms)
        if not socket.gone:
            hub.add(socket)

    async def begin_session(self, hub: "Hub", sessions: Sessions, whose: "Whose") -> None:
        """Make a session that is where every one is: among everyone, its user's, and for itself."""
        own = own_kind(self.socket.id)  # nobody else has heard of it yet
        its = hub.guest(self.socket.id, stream_of_kind(hub.name, *own))
        rooms = [its if key == its.key else hub.guest(key) for key in self._always()]
        try:
            standing = [(room, await (room.stand(new=True) if room is its else room.now())) for room in rooms]
            kinds = [own if room is its else kind_of(room.key) for room in rooms]
            streams = {room.stream: Member(*kind, at) for kind, (room, at) in zip(kinds, standing, strict=True)}
            self.session = await sessions.create(socket_id=self.socket.id, streams=streams, **whose)
            self._adopted(hub, self.socket.id, ())
            for room, position in () if self.socket.gone else standing:
                self._announce(room, position)
                room.admit(self.socket, position, None, position)
        finally:
            for room in rooms:
                hub.part(room)

    def _always(self) -> list[Key]:
        user = self.socket.user
        return [EVERYONE, self.socket.id, *(() if user is None else (User(user),))]

    def _give_up(self, cursors: Collection[str], reason: Reason) -> None:
        """The client is in these streams no more: what it has missed of them nobody knows."""
        for stream in cursors:
            self.say(wire.Close(stream, reason))

    def replaced(self) -> None:
        """Another connection holds the session now: this one ends (`bellwire.server.sessions.Holder`)."""
        socket = self._socket()
        if socket is not None:  # else it is gone, and what it left is still being written
            socket.replaced()

    async def probe(self) -> bool:
        """Whether the client is still there."""
        socket = self._socket()
        return socket is not None and await socket.answers(PROBE_SECONDS)

    # --- its rooms

    async def join(self, room: Room) -> bool:
        """Become a member of ``room``; False if the socket was gone first: it is one when it comes back.

        Raises:
            BrokerUnavailable: it is none.
            Disconnected: its session is over.

        """
        stream = self._decide(room)
        try:
            position = await room.now()
            self._deciding = {**self._deciding, stream: position}
            await self.session.join(stream, Member(*kind_of(room.key), position))
            return self._joined(room, position)
        finally:
            self._decided(stream)

    def _joined(self, room: Room, position: Position) -> bool:
        if self.socket.gone:
            return False
        span = Membership(position)
        self._stay(room, span)
        if room.stream in self._absent:
            pass  # it comes back to this stay as well
        elif self.socket in room and len(self._to_come.get(room.stream, ())) < MAX_STAYS:
            self._follow(room.stream, [*self._to_come.get(room.stream, ()), span])  # it has not got all of its last
        else:
            if self.socket in room:
                self._lose(room)
            if self.socket.gone:  # a stock client cannot be told otherwise
                return False
            self._open(room, position)
            room.drive(self.socket)
        return True

    def _lose(self, room: Room) -> None:
        """The client is so slow that what it has not got yet of stays that are over it does not get any more."""
        self._follow(room.stream, [])
        self._rooms.pop(room.stream, None)
        self._known(room)
        room.let_go(self.socket)
        self.socket.node.counters.dropped("membership", reason="too_many", policy="newest_kept")
        self.lost(room)

    def _follow(self, stream: str, stays: list[Membership]) -> None:
        """Read these stays after the one that is being read."""
        if stays or stream in self._to_come:
            others = _without(self._to_come, stream)
            self._to_come = {**others, stream: stays} if stays else others

    def _decide(self, room: Room) -> str:
        """A join or a leave begins: remember where it has been, before the record says something else."""
        self._spans = self.spans
        self._deciding = {**self._deciding, room.stream: None}
        return room.stream

    def _decided(self, stream: str) -> None:
        """A join or a leave has ended, one way or the other."""
        self._deciding = _without(self._deciding, stream)
        if self._held_up and not self._deciding:
            self._held_up = False
            if not self.socket.gone:
                self.go_on()

    def belongs(self, stream: str) -> bool:
        """Whether it is a member of ``stream``, and does not only read what came before it left."""
        return stream in self.session.record.streams

    def undecided(self, entry: Entry) -> bool:
        """Whether a join or a leave under way decides if the client takes an earlier copy of ``entry``."""
        for copy in entry.copies if self._deciding else ():
            if copy.stream in self._deciding:
                place = self._deciding[copy.stream]
                if place is None or order(place.gen, place.seq) < order(copy.gen, copy.seq):
                    self._held_up = True
                    return True
        return False

    def _stay(self, room: Room, span: Membership) -> None:
        """Remember a stay, those that are still being read, and some more: for copies that are still to come."""
        spans, stream = self.spans, room.stream
        kept = max(MAX_STAYS, 1 + len(self._to_come.get(stream, ())))
        spans[stream] = [*spans.pop(stream, ())[-kept:], span]
        if len(spans) > MAX_STREAMS:  # all that it is in, or about to be, are kept
            needed = {stream, *self._rooms, *self._absent}
            spans.pop(next((name for name in spans if name not in needed), ""), None)

    def _open(self, room: Room, position: Position, until: Position | None = None) -> None:
        """Tell the client that it is in a stream, and let it have what follows."""
        self._announce(room, position)
        self._admit(room, position, until)

    def _announce(self, room: Room, position: Position) -> None:
        self._fresh = (*self._fresh, room.stream)
        self.say(wire.Open(self.socket.namespace, room.stream, room.alias, *position))

    def _admit(self, room: Room, position: Position, until: Position | None = None) -> None:
        """Let the client have what follows on ``position``, and whatever that says nothing from before its stay."""
        self._rooms[room.stream] = room
        room.admit(self.socket, position, until, self.floor(room))

    def floor(self, room: Room) -> Position:
        """Where the stay that is being read began."""
        return self._stay_in(room).joined

    def _stay_in(self, room: Room) -> Membership:
        """Return the stay that is being read."""
        return self.spans[room.stream][-1 - len(self._to_come.get(room.stream, ()))]

    async def leave(self, room: Room) -> None:
        """Be a member of ``room`` no longer; what was emitted before still reaches the client.

        Raises:
            BrokerUnavailable: it still is one.
            Disconnected: its session is over.

        """
        stream = room.stream
        if stream not in self.session.record.streams:
            return
        self._decide(room)
        try:
            left = await room.now()
            self._deciding = {**self._deciding, stream: left}
            self._end_at(room, left)
            try:
                await self.session.leave(stream, left)
            except BaseException:
                self._stay_on(room)
                raise
            self._left(room, left)
        finally:
            self._decided(stream)

    def _end_at(self, room: Room, left: Position) -> None:
        """Let it have nothing beyond ``left``, if it is there and reads its last stay."""
        room.catch_up(self.socket)  # while it is still in the rooms that this was decided with
        stood = None if self._to_come.get(room.stream) else room.dismiss(self.socket)
        if stood is not None:
            self._admit(room, stood, left)

    def _stay_on(self, room: Room) -> None:
        """Take that back."""
        stood = None if self._to_come.get(room.stream) else room.dismiss(self.socket)
        if stood is not None:
            self._admit(room, stood)
            self._held_up = True

    def _left(self, room: Room, left: Position) -> None:
        absent = room.stream in self._absent
        if not absent and self.socket not in room:  # it is gone, and will not find the room when it comes back
            return
        span = self.spans[room.stream][-1] = Membership(self.spans[room.stream][-1].joined, left)
        if absent:
            return  # it comes back up to there
        to_come = self._to_come.get(room.stream)
        if to_come:
            to_come[-1] = span
            return
        stood = room.dismiss(self.socket)
        if stood is not None and stood.point != left.point:  # it may also stand where a failover took something back
            self._admit(room, stood, left)
            self._held_up = True
            self._bound()
        else:
            self._close(room)

    def _bound(self) -> None:
        """Lose the oldest of the rooms that it has left and not read to the end, if there are too many."""
        streams = self.session.record.streams
        over = [room for room in self._rooms.values() if room.stream not in streams]
        if len(over) > MAX_LEFT:
            self._lose(over[0])

    def _close(self, room: Room) -> None:
        """All of a stay was sent. Whether it has arrived the client says when it comes back: see `Record.reached`."""
        self._rooms.pop(room.stream, None)
        self._known(room)
        self.say(wire.Close(room.stream))

    def _known(self, room: Room) -> bool:
        """Whether the client has its position in ``room`` from this connection; from now on it counts as its own."""
        known = room.stream in self._fresh
        if known:
            self._fresh = tuple([stream for stream in self._fresh if stream != room.stream])
        return known

    # --- coming back

    async def _resume(self, hub: "Hub", cursors: Mapping[str, Position]) -> None:
        record, self.session.found = self.session.found or self.session.record, None
        members, missed = record.members(cursors), record.missed(cursors)
        self._missed = missed
        self._attended = {}
        self._spans = {stream: record.unread(stream, cursors.get(stream)) for stream in members}
        self._absent = absent = dict(members)
        for stream, member in members.items():
            key = key_of(member.kind, member.name)
            if await self.allowed(key):
                await hub.resume(self.socket, key, cursors.get(stream))
            else:
                await self._forbid(stream, member)
            del absent[stream]
        for key in self._always():  # of a copy, its own stream is new
            if stream_of(hub.name, key) not in record.streams:
                await hub.join(self.socket, key)
        self._remember(record)
        self._missed = NOTHING
        for stream in missed.keys() - members.keys():
            self.say(wire.Open(hub.name, stream, 0, *missed[stream]))  # it may never have heard of it
            self.say(wire.Close(stream, Reason.TOO_FAR))
        for stream in cursors.keys() - members.keys() - missed.keys():
            self.say(wire.Close(stream, None if stream in self.spans else Reason.TRUNCATED))

    def _remember(self, record: Record) -> None:
        """Remember as well where it was, and what it has read: it may be behind with copies of that."""
        for past in reversed(record.read):
            spans = self.spans.get(past.stream, ())
            if past.member.span not in spans:
                self.spans[past.stream] = [past.member.span, *spans]

    async def allowed(self, key: Key) -> bool:
        """Whether it may still be in the room ``key``."""
        return not isinstance(key, str) or key == self.socket.id or await self.socket.allowed(key)

    async def _forbid(self, stream: str, member: Member) -> None:
        while (stay := self.session.record.streams.get(stream)) is not None:
            await self.session.leave(stream, stay.joined)
            self.session.forget(stream, stay.joined)
        self.socket.put_out(member.name)
        self._forget(stream)
        self.say(wire.Close(stream, Reason.FORBIDDEN))

    def _forget(self, stream: str) -> None:
        for span in self.spans.pop(stream, ()):
            if span.left is not None:
                self.session.forget(stream, span.left)

    def come_back(self, room: Room, cursor: Position | None) -> None:
        """Let the client have what it missed in ``room``, stay after stay, from its ``cursor`` on.

        Where it has none, or is at the end of an earlier stay, it never heard that it was a member: it begins where it
        became one.
        """
        spans = list(self.spans[room.stream])
        while cursor is not None and len(spans) > 1 and cursor.seq >= spans[1].joined.seq:
            spans.pop(0)  # it is further already
        first, *following = spans
        self._follow(room.stream, following)
        before = (
            cursor is not None and cursor.seq <= first.joined.seq
        )  # of generations this node may not know the newest
        missed = room.stream in self._missed
        if missed or cursor is None or (before and self.session.record.has_read(room.stream, cursor)):
            self._open(room, first.joined, first.left)
            if missed:
                self.reset(room, Reason.TOO_FAR, first.joined)
        else:
            self._admit(room, cursor, first.left)

    def ended(self, room: Room, known: Point) -> None:
        """It has all of a stay that is over; ``known`` is the last it was given, what followed was not for it."""
        stream = room.stream
        left = self._stay_in(room).left
        if left is not None and known.seq < left.seq:
            self.advance(room, known, left)
        self._close(room)
        to_come = self._to_come.get(stream)
        if to_come:
            following = to_come[0]
            self._follow(stream, to_come[1:])
            self._open(room, following.joined, following.left)
            room.drive(self.socket)

    def ask(self, stream: str, cursor: Position) -> None:
        """The client misses something: prove its cursor, and send what follows."""
        room = self._rooms.get(stream)
        if room is None or room.dismiss(self.socket) is None:
            self.say(wire.Close(stream, Reason.TRUNCATED))
            return
        self._admit(room, cursor, self._stay_in(room).left)  # a cursor from an earlier stay has crossed its end
        room.drive(self.socket)

    def withdraw(self) -> None:
        """It is in none of its rooms any more, nor on its way into one."""
        rooms, self._attended = self._here, {}
        for room in rooms:
            room.let_go(self.socket)

    # --- the connection

    def begin(self) -> None:
        """The client is connected: hand over what waits."""
        self._begun = True
        self.go_on()

    def go_on(self) -> None:
        """The client's connection has room again."""
        self._full = False
        for room in self._here:
            room.drive(self.socket)

    def lag(self) -> None:
        """The client's connection is full: from here on it takes from the history, as fast as it can."""
        self._full = True
        for room in self._here:
            room.lag(self.socket)

    def depart(self, reason: str) -> None:
        """The connection is gone, and the session with it if the client goes for good."""
        self.withdraw()
        over = reason in ENDING
        if over:
            self.session.end()
        else:
            self.session.detach()
        self.socket.node.leftovers.add(self._own, self.session.key, over=over)

    @property
    def _own(self) -> str:
        """The stream of the socket itself."""
        return stream_of_kind(self.socket.namespace, *own_kind(self.socket.id))

    def call(self, post: Post) -> Message:
        """Return a call in the client's dialect, to be handed over behind what was emitted to the client before."""
        room = self.socket.hub.room(self.socket.id)
        point = None if room is None else room.point(self.socket)
        if room is None or point is None:
            return self.socket.dialect.render(post)
        return self.socket.dialect.after(post, wire.After(room.stream, point.seq, point.tag))

    # --- what its rooms tell

    def proved(self, room: Room, at: Position) -> None:
        """The position from which it resumes is in the log."""
        if not self._known(room):
            self.say(wire.Proved(room.stream, room.alias, *at))

    def lost(self, room: Room) -> None:
        """What is missing of a stay that is over is not read for it."""
        self.say(wire.Close(room.stream, Reason.TOO_FAR))

    def reset(self, room: Room, reason: Reason, restart: Position) -> None:
        """It cannot go on from where it stands."""
        self.say(wire.Reset(room.stream, room.alias, reason, *restart))

    def advance(self, room: Room, prev: Point, to: Position) -> None:
        """Nothing up to ``to`` is for it."""
        self.say(wire.Advance(room.stream, prev.seq, prev.tag, *to))

    def say(self, message: Control) -> None:
        """Tell the client."""
        said = self.socket.dialect.control(message)
        if said is not None:
            self.socket.send(said)


def _without(streams: Mapping[str, T], stream: str) -> Mapping[str, T]:
    return {name: value for name, value in streams.items() if name != stream} or NOTHING
