"""Connection state recovery for stock Socket.IO clients (`Config.connection_state_recovery`).

Such a client keeps two strings: the ``pid`` of its CONNECT reply, which is its session's secret, and the last argument
of the last event, which is where it stands in all its streams (`bellwire.delivery.offset`). With both it comes back.
Its way is that of any reader, but for what it cannot be told: where it stands must be proved in every stream before the
answer to CONNECT, or it begins anew; and a reset afterwards ends its connection and its session.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from typing_extensions import override

from bellwire.core.clock import Timer, Wheel
from bellwire.core.errors import BellwireError
from bellwire.delivery.answer import Reason
from bellwire.delivery.membership import Membership
from bellwire.delivery.naming import key_of
from bellwire.delivery.offset import CONNECTED, MAX_OTHERS, Mark, Standing, Trail, claimed, make_mark, mark, stand
from bellwire.delivery.position import Point, Position
from bellwire.delivery.session import Record
from bellwire.protocol.embedding import Control
from bellwire.protocol.outgoing import Message, Stem, join
from bellwire.protocol.post import Delivery
from bellwire.protocol.socketio import append_argument, open_argument
from bellwire.server.dialects import Dialect, Item, Stock
from bellwire.server.dispatch import Outcome
from bellwire.server.reader import NOTHING, Reader
from bellwire.server.room import Room

if TYPE_CHECKING:
    from bellwire.server.hub import Hub
    from bellwire.server.sessions import Sessions
    from bellwire.server.socket import Socket

CHECK_SECONDS: Final = 1.0
"""How often it is looked for clients whose offsets have grown, so that a checkpoint is due."""

_RANDOM_BITS: Final = 40  # of a checkpoint's number; those above count


class Plea(NamedTuple):
    """What a stock client gives in CONNECT to be recovered; both are None at first."""

    pid: str | None
    offset: object


NEWCOMER: Final = Plea(None, None)
"""What one gives that was never connected, or was recovered since."""


def take_plea(auth: dict[str, Any] | None) -> Plea:
    """Take out of CONNECT's payload what the application is not to see."""
    if auth is None:
        return NEWCOMER
    pid, offset = auth.pop("pid", None), auth.pop("offset", None)
    return NEWCOMER if pid is None and offset is None else Plea(pid if isinstance(pid, str) else None, offset)


class Recovering(Trail, Stock):
    """The dialect of the clients that have the same trail: each event without an acknowledgement brings an offset.

    An event and the entry that says where it stands are encoded once for all of them; only what follows on that differs
    from trail to trail.
    """

    __slots__ = ()

    @override
    def deliver(self, items: Sequence[Item]) -> tuple[Message, Dialect]:
        trail, end = self, ""
        messages: list[Message] = []
        left: Mark | None = None  # by the event before, no step is taken yet: the next of its stream has the same end
        for item in items:
            if isinstance(item, Delivery):
                its_mark, stem = item.opened or _open(item)
                if left is None or left.stream != its_mark.stream:
                    trail = (trail if left is None else trail.step(left)).step(its_mark)
                    end = f'{trail.tail}"]'
                left = its_mark
                messages.append(stem.end(end))
            else:
                trail, left = (trail if left is None else trail.step(left)), None
                messages.append(trail.render(item))
        return join(messages), trail if left is None else trail.step(left)

    @override
    def render(self, item: Item) -> Message:
        if not isinstance(item, Delivery) and item.id is not None:
            return item.stock  # the client takes the last argument for its own function
        return append_argument(item.stock, f'"{self.offset}"')


def _open(item: Delivery) -> tuple[Mark, Stem]:
    left = make_mark(item.stream, item.gen, item.seq, item.tag)
    opened = item.opened = left, open_argument(item.stock, f'"{left.text}')
    return opened


AT_CONNECT: Final = Recovering.like(CONNECTED)
"""The dialect of a client that nothing was sent to yet."""


class RecoveringReader(Reader):
    """What the socket of a stock client recovers with."""

    __slots__ = ("_marking", "_vector")

    def __init__(self, socket: "Socket") -> None:
        super().__init__(socket)
        self._marking = False
        self._vector: Mapping[str, Position] = NOTHING

    @classmethod
    async def plead(cls, socket: "Socket", plea: Plea, sessions: "Sessions", hub: "Hub") -> Reader:
        """Recover the client, or begin anew. Raises BrokerUnavailable."""
        reader = cls(socket)
        whose = reader._whose("stock")
        session = None if plea.pid is None else await sessions.resume(plea.pid, after=socket.revoked, **whose)
        if session is not None:
            reader.session, session.found = session, None
            try:
                if await reader._prove(hub, plea.offset):
                    return reader
            except BaseException:
                session.detach()
                raise
            session.end()
            socket.disown()
            reader, socket.dialect = cls(socket), AT_CONNECT
            whose["holder"] = reader
        await reader.begin_session(hub, sessions, whose)
        return reader

    async def _prove(self, hub: "Hub", offset: object) -> bool:
        """Find where the client stands, and whether it does in all its streams, and may be there still.

        That is asked last: whoever puts it out of a room from then on finds it there.
        """
        record = self.session.record
        members = {past.stream: past.member for past in record.left} | record.streams
        rooms: dict[str, Room] = {}
        proved = False
        try:
            self._attended, self._spans = {}, {}
            for stream, member in members.items():
                rooms[stream] = hub.guest(key_of(member.kind, member.name))
                self.spans[stream] = record.unread(stream)
            present = {stream: (await room.stand()).gen for stream, room in rooms.items()}
            standing = self._standing(offset, present)
            proved = standing is not None and await self._proved_in(rooms, standing)
            if proved and standing is not None:
                self._forget_read(record, standing)
            self._remember(record)
            if proved:
                self.recovered = True
                self.know(hub)
                proved = await self._allowed_in(rooms)
            return proved
        finally:
            if not proved:
                self.withdraw()
            for room in rooms.values():
                hub.part(room)

    def _standing(self, offset: object, present: Mapping[str, str]) -> Standing | None:
        record = self.session.record
        joined = {stream: spans[0].joined for stream, spans in self.spans.items()}
        try:
            standing = stand(offset, joined, record.checkpoints, present)
        except ValueError:
            return None
        if _has_missed(record, offset):
            return None
        self.socket.dialect = Recovering.like(standing.trail)
        self._vector = record.vector(standing.trail.checkpoint) or NOTHING
        return standing

    def _forget_read(self, record: Record, standing: Standing) -> None:
        """Forget the memberships to whose end the client has come, as its offset says."""
        for past in record.left:
            left = past.member.left
            if left is not None and standing.positions[past.stream].seq >= left.seq:
                self.session.forget(past.stream, left)

    async def _proved_in(self, rooms: Mapping[str, Room], standing: Standing) -> bool:
        for stream, room in rooms.items():
            self.come_back(room, standing.positions[stream])
            if not await room.prove(self.socket):
                return False
        return True

    async def _allowed_in(self, rooms: Mapping[str, Room]) -> bool:
        for room in rooms.values():
            if not await self.allowed(room.key):
                return False
        return True

    # --- what its rooms tell

    @override
    def proved(self, room: Room, at: Position) -> None:
        pass

    @override
    def lost(self, room: Room) -> None:
        self._start_over()

    @override
    def reset(self, room: Room, reason: Reason, restart: Position) -> None:
        self._start_over()

    def _start_over(self) -> None:
        self.session.end()
        self.socket.cut("stream reset")

    @override
    def advance(self, room: Room, prev: Point, to: Position) -> None:
        self.socket.settle()  # what was broadcast before brings the place before
        dialect = self.socket.dialect
        if isinstance(dialect, Recovering):
            self.socket.dialect = dialect.step(mark(room.stream, to.gen, to.seq, to.tag))

    @override
    def say(self, message: Control) -> None:
        pass

    @override
    def _announce(self, room: Room, position: Position) -> None:
        pass

    # --- checkpoints

    @override
    def begin(self) -> None:
        if self.recovered:
            self.socket.node.checkpoints.watch(self)
        super().begin()  # which may end it

    @override
    def _stay(self, room: Room, span: Membership) -> None:
        super()._stay(room, span)
        if len(self.spans) > MAX_OTHERS:  # fewer streams make no offset long
            self.socket.node.checkpoints.watch(self)

    @override
    def depart(self, reason: str) -> None:
        self.socket.node.checkpoints.forget(self)
        super().depart(reason)

    def check(self) -> None:
        """Store a checkpoint if the client's offset has grown so much that one is due."""
        dialect = self.socket.dialect
        if not self._marking and isinstance(dialect, Recovering) and dialect.full:
            self._marking = True
            self.socket.start(self._mark(dialect), self._marked)

    async def _mark(self, trail: Trail) -> None:
        socket = self.socket  # which may leave meanwhile
        number = ((trail.checkpoint >> _RANDOM_BITS) + 1 << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
        vector = trail.vector(self._vector, self.spans)
        await self.session.checkpoint(number, vector, since=trail.checkpoint)
        self._vector = vector
        dialect = socket.dialect
        if isinstance(dialect, Recovering):
            socket.dialect = dialect.checkpointed(number, vector)

    def _marked(self, outcome: Outcome) -> None:
        self._marking = False
        if outcome.error is not None and not isinstance(outcome.error, BellwireError):
            raise outcome.error


def _has_missed(record: Record, offset: object) -> bool:
    """Whether a stay gave way that the client has not come to the end of: it cannot be told."""
    return bool(record.missed(claimed(offset, record.lost, record.checkpoints) if record.lost else {}))


class Checkpoints:
    """Looks after the offsets of all clients on this node: one timer for all."""

    __slots__ = ("_readers", "_timer", "_wheel")

    def __init__(self, wheel: Wheel) -> None:
        self._wheel = wheel
        self._readers: set[RecoveringReader] = set()
        self._timer: Timer | None = None

    def watch(self, reader: RecoveringReader) -> None:
        """Check ``reader`` from time to time."""
        self._readers.add(reader)
        if self._timer is None:
            self._timer = self._wheel.after(CHECK_SECONDS, self._check)

    def forget(self, reader: RecoveringReader) -> None:
        """``reader`` is gone."""
        self._readers.discard(reader)

    def _check(self) -> None:
        self._timer = self._wheel.after(CHECK_SECONDS, self._check) if self._readers else None
        for reader in tuple(self._readers):
            reader.check()
