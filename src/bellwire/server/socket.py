"""One client in one namespace."""

import contextlib
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

import msgspec
from typing_extensions import override

from bellwire.core.errors import CallLimit, Disconnected, EventRefused, RoomLimit
from bellwire.core.events import Event
from bellwire.delivery.effects import Key
from bellwire.delivery.naming import EVERYONE, User, stream_of
from bellwire.guard.packets import check_mid, post
from bellwire.protocol.embedding import HEARD, Hello
from bellwire.protocol.outgoing import Message
from bellwire.protocol.socket_id import new_socket_id, read_socket_id
from bellwire.protocol.socketio import Packet
from bellwire.server import attempt, relay
from bellwire.server.acks import Acknowledgement, Call
from bellwire.server.dialects import Dialect, Item
from bellwire.server.dispatch import Finished, Job
from bellwire.server.inbound import Inbound, Phase
from bellwire.server.latest import Fresh, Latest
from bellwire.server.numbers import Numbers
from bellwire.server.reader import Reader
from bellwire.server.recovery import NEWCOMER, Plea, RecoveringReader
from bellwire.transports.base import Request, Sink

if TYPE_CHECKING:
    from bellwire.guard.auth import Identity
    from bellwire.server.admission import Admission
    from bellwire.server.connection import Connection
    from bellwire.server.hub import Hub
    from bellwire.server.namespace import Namespace
    from bellwire.server.places import UserPlaces
    from bellwire.server.runtime import Runtime
    from bellwire.server.tenure import Tenure

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

logger = logging.getLogger("bellwire.server")

_write_session = msgspec.msgpack.Encoder().encode
_read_session = msgspec.msgpack.Decoder(dict[str, Any]).decode

_EMPTY: Mapping[str, Any] = MappingProxyType({})

SERVICE_RESTART = 1012
"""The close code that tells a client to come back (of the registry that RFC 6455 §11.7 began)."""


class Socket(Inbound):
    """One client in one namespace, as handlers see it.

    Its events are handled one after the other, in the order in which they came; acknowledgements and disconnects do
    not wait for that. It is not to be made by applications: handlers are given it.
    """

    __slots__ = (
        "_acks",
        "_rooms",
        "_session",
        "_state",
        "auth",
        "claims",
        "expires",
        "hello",
        "id",
        "latest",
        "params",
        "places",
        "reader",
        "reason",
        "revoked",
        "since",
        "sink",
        "stay",
    )

    def __init__(
        self,
        connection: "Connection",
        namespace: "Namespace",
        hub: "Hub",
        *,
        sink: Sink,
        dialect: Dialect,
        auth: Mapping[str, Any] | None,
        params: Mapping[str, str],
        hello: Hello | Plea | None = None,
    ) -> None:
        super().__init__(connection, namespace, hub, dialect)
        self.id = new_socket_id(self._runtime.cluster.node if hello is None else None)
        """The Socket.IO id: 20 characters, and a room that holds just this socket, wherever it is. No other room has
        such a name. Other clients may know it."""
        self.hello = hello
        """What its client asked for beyond Socket.IO; None if it did not ask."""
        self.since = 0.0 if hello is None else self._runtime.streams.broker.clock()
        """When it asked, in the broker's time."""
        self.auth: Mapping[str, Any] = _EMPTY if auth is None else auth
        """What the client sent with CONNECT. It is the client's word, checked by nobody but ``auth``."""
        self.params = params
        """The parts of the namespace's name that its pattern names: ``{"org": "7"}``."""
        self.claims: Mapping[str, Any] = _EMPTY
        """What the authentication knows of the user."""
        self.expires: float | None = None
        """When the identity ceases to hold, in seconds since the epoch."""
        self.revoked: float | None = None
        """Up to when, in the broker's time, the user's sessions were revoked; None if they were not."""
        self.sink = sink
        self.reader: Reader | None = None
        """What it recovers with; None if it does not."""
        self.latest: Latest | None = None
        """The newest volatile events, while its client does not keep up; None if there are none."""
        self.reason = ""
        """Why it was disconnected."""
        self.stay: Admission | Tenure | None = None
        """Its way in, and then for how long it may stay; None if that has no end."""
        self.places: UserPlaces | None = None
        """Where its connection has a place among its user's; None of a guest's, and where nobody counts."""
        self._rooms: set[str] | None = None
        self._state: dict[str, Any] | None = None
        self._session: dict[str, Any] | None = None
        self._acks: dict[int, Acknowledgement] | None = None

    def __repr__(self) -> str:
        return f"Socket({self._hub.name!r}, {self.id!r}, user={self.user!r})"

    # --- what handlers read

    @property
    def user(self) -> str | None:
        """The user's id, as the authentication found it; None for a guest."""
        return self._user

    @property
    def request(self) -> Request:
        """The HTTP request with which the client's session began."""
        return self._connection.session.request

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms that this socket joined; in ``on_disconnect`` those that it was in at the end."""
        return frozenset(self._rooms or ())

    @property
    def state(self) -> dict[str, Any]:
        """Whatever handlers want to keep for this socket, in this process."""
        if self._state is None:
            self._state = {}
        return self._state

    @property
    def session(self) -> dict[str, Any]:
        """Anything that the application wants to keep with the client, wherever it comes back to.

        It is read when the session is taken up, and written by :meth:`save_session`; what is in it is what msgpack
        holds: None, bool, int, float, str, bytes, datetime, list, and dict with names as keys.
        """
        if self._session is None:
            data = b"" if self.reader is None else self.reader.session.record.data
            self._session = _read_session(data) if data else {}
        return self._session

    async def save_session(self) -> None:
        """Store :attr:`session` with the client's session, so that it is there when the client comes back.

        A client that cannot recover has none to store it in: nothing happens, and it ends with the connection.

        Raises:
            TypeError: there is something in it that msgpack cannot hold.
            ValueError: it has more than 64 KiB.
            BrokerUnavailable: nothing was stored.
            Disconnected: the session is over, or another connection has it.

        """
        relay.forbid("save_session()")
        if self.reader is not None:
            await self.reader.session.save(_write_session(self.session))

    @property
    def recovered(self) -> bool:
        """Whether the client came back: it is in its rooms, and gets what it missed."""
        return self.reader is not None and self.reader.recovered

    @property
    def key(self) -> Key | None:
        """What names the event being handled for good, for a handler with ``effect="transactional"``; else None.

        The handler stores it, unique, in the transaction in which it writes; that it is there already says that the
        work was done.
        """
        return attempt.current().key

    @property
    def redelivered(self) -> bool:
        """Whether the handler may have run before for the event being handled, in a process that died."""
        return attempt.current().redelivered

    @property
    def connected(self) -> bool:
        """Whether what is emitted now can reach the client."""
        return self.phase is not Phase.DISCONNECTED

    @property
    def gone(self) -> bool:
        """Whether it left."""
        return self.phase is Phase.DISCONNECTED

    @property
    def answering(self) -> bool:
        """Whether the client can acknowledge an event: it has been told that it is connected."""
        return self.phase is Phase.CONNECTED

    @property
    def transport(self) -> str:
        """How the client is connected at the moment: ``polling`` or ``websocket``."""
        return self._connection.session.carrier.name

    @property
    def writable(self) -> bool:
        """Whether the client keeps up; while it does not, only the newest volatile events are kept for it."""
        return self.sink.writable

    @property
    def buffered(self) -> int:
        """Bytes that were sent to the client's connection and that it has not read yet."""
        return self.sink.buffered

    # --- rooms

    async def join(self, room: str) -> None:
        """Become a member of ``room``; being one already changes nothing.

        A client that can recover has all that is emitted to the room from here on, those events included that are
        emitted while it is away.

        Raises:
            RoomLimit: the name is empty, too long or another socket's id, or the socket is in too many rooms.
            EventRefused: with the code ``forbidden``, if the namespace's ``authorize`` says no.
            BrokerUnavailable: the broker cannot be reached; the socket is no member.
            RuntimeError: in the handler of a relay, which only emits.

        """
        relay.forbid("join()")
        rooms = self._rooms
        if room == self.id or (rooms is not None and room in rooms):
            return
        self._check_room(room)
        if self._namespace.authorizer is not None:
            if not await self.allowed(room):
                raise EventRefused("forbidden", "this room is not open to you")
            self._check_room(room)  # it may have joined others meanwhile
        if self.gone and self.reader is None:
            return
        if self._rooms is None:
            self._rooms = set()
        self._rooms.add(room)  # already now: another join of the same room has nothing to do
        try:
            await self._hub.join(self, room)
        except Disconnected:  # nobody will come back to be in it
            self._rooms.discard(room)
        except BaseException:
            self._rooms.discard(room)
            raise
        if room not in self._rooms:  # it was to leave before it was in it
            await self._hub.leave(self, room)

    async def track(self, room: str, info: object = None) -> None:
        """Be shown in ``room``, with ``info``, to all who look at it on any node; and look at it, as in `watch`.

        It is shown until `untrack`, until it leaves the room, or until it disconnects; if its connection is lost, for
        five seconds more. A client that comes back is to be tracked again. Called once more, it changes ``info``.

        Raises:
            ValueError: it is not in the room, or ``info`` has more than 1 KiB as JSON.
            TypeError: ``info`` is nothing that JSON can hold.
            RoomLimit: 256 sockets are shown in the room.
            BrokerUnavailable: the broker cannot be reached; it is not shown.
            RuntimeError: in the handler of a relay, which only emits.

        """
        self._check_member(room, "track")
        await self._runtime.presences.track(self, room, info)

    async def watch(self, room: str) -> None:
        """Tell its client who is in ``room``: `PRESENCE_STATE` once, and `PRESENCE_DIFF` whenever that changes.

        Errors as for `track`.
        """
        self._check_member(room, "watch")
        await self._runtime.presences.watch(self, room)

    async def untrack(self, room: str) -> None:
        """Be shown in ``room`` no longer, and do not look at it. It stays a member."""
        relay.forbid("untrack()")
        self._runtime.presences.untrack(self, room)

    def _check_member(self, room: str, what: str) -> None:
        relay.forbid(f"{what}()")
        if self._rooms is None or room not in self._rooms:
            raise ValueError(
                f"{what}({room!r}): the socket is not in this room; write await socket.join({room!r}) first"
            )

    async def allowed(self, room: str) -> bool:
        """Whether the namespace's ``authorize`` lets it be in ``room``."""
        authorize = self._namespace.authorizer
        return authorize is None or bool(await authorize(self, room))

    def _check_room(self, room: str) -> None:
        config = self._runtime.config
        if not isinstance(room, str):
            raise TypeError(f"a room's name is a string, not {type(room).__name__}")
        if not room or len(room) > config.max_room_name:
            raise RoomLimit(f"a room's name has 1 to {config.max_room_name} characters, this one has {len(room)}")
        if read_socket_id(room) is not None:  # it would hear what is meant for that one alone
            raise RoomLimit("this is the id of a socket, and no room's name: to() takes it, join() does not")
        if self._rooms is not None and len(self._rooms) >= config.rooms_per_socket:
            raise RoomLimit(f"a socket can be in {config.rooms_per_socket} rooms (Config.rooms_per_socket)")

    async def leave(self, room: str) -> None:
        """Be a member of ``room`` no longer.

        Raises:
            BrokerUnavailable: the broker cannot be reached; the socket is still a member.
            RuntimeError: in the handler of a relay, which only emits.

        """
        relay.forbid("leave()")
        if self._rooms is None or room not in self._rooms or (self.gone and self.reader is None):
            return
        with contextlib.suppress(Disconnected):  # its session is over, and all memberships with it
            await self._hub.leave(self, room)
        self._rooms.discard(room)
        self._runtime.presences.untrack(self, room)

    # --- to the client

    async def emit(self, event: Event[Any, *Ts], /, *payload: *Ts, mid: str | None = None) -> None:
        """Send ``event`` to this client.

        A client that can recover gets it once and in order, though it be away for a while; any other at most once. If
        the client does not keep up, a volatile event waits, or a newer one in its place. To a client that is gone for
        good nothing is sent, and nothing is raised: it is counted. ``mid`` is as for a room.

        Raises:
            TypeError: the payload is not what the event declares.
            BrokerUnavailable, OutcomeUnknown, MessageTooLarge: as for a room, if the client can recover.

        """
        message = post(self._hub.name, event, payload)
        check_mid(event, mid)
        if relay.running():
            stream = stream_of(self._hub.name, self.id)
            if relay.collects(message.body, (stream,), (), volatile=event.volatile, mid=mid):
                return
        if event.volatile:
            self.dialect.render(message)  # now: what its wire cannot hold would else be the loss of all in this tick
            self._runtime.fanout.cast(((self,),), message, room=stream_of(self._hub.name, self.id), volatile=True)
            return
        if self.reader is not None or mid is not None:
            await self._runtime.streams.emit((stream_of(self._hub.name, self.id),), message, mid=mid)
            return
        self.deliver(message)

    async def call(self, event: Event[R, *Ts], /, *payload: *Ts, timeout: float) -> R:  # noqa: ASYNC109
        """Send ``event`` and wait for the client's acknowledgement, at most ``timeout`` seconds.

        Raises:
            CallTimeout: none came in time.
            Disconnected: the client went away first.
            EventRefused: the client answered with an error, or with something that is no reply of this event.
            CallLimit: too many acknowledgements of this client are outstanding.
            TypeError: the payload is not what the event declares, or ``timeout`` is no number.
            ValueError: ``timeout`` is negative or not finite.
            RuntimeError: in ``on_connect``, where no acknowledgement can come before it has returned.

        """
        if self.phase is Phase.CONNECTING or self.phase is Phase.ENTERING:
            raise RuntimeError("call() in on_connect waits for ever: the client is connected once on_connect returns")
        relay.forbid("call()")
        number = self._hub.next_ack()
        message = post(self._hub.name, event, payload, number)
        call: Call[R] = Call(event, (self,), timeout)
        self.expect(number, call)
        try:
            self.send(self.dialect.render(message) if self.reader is None else self.reader.call(message))
            return await call.wait_for_one(self._runtime.wheel)
        finally:
            self.forget(number)

    async def disconnect(self, *, close: bool = False) -> None:
        """Take the client out of this namespace; with ``close``, out of all of its namespaces, and end its connection.

        A stock client that is disconnected this way does not come back by itself. What was emitted before still
        reaches it. In ``on_connect`` the client is connected first; in middleware it is refused.
        """
        relay.forbid("disconnect()")
        self._connection.expel(self)
        if close:
            self._connection.close()

    def settle(self) -> None:
        """Hand it all that was broadcast before."""
        self._runtime.fanout.settle(self)

    @override
    def send(self, message: Message) -> None:
        self._runtime.fanout.settle(self)
        self.sink.send(message)

    def deliver(self, *items: Item) -> None:
        """Send events in the client's own dialect, behind all that was broadcast before them."""
        self._runtime.fanout.settle(self)
        message, self.dialect = self.dialect.deliver(items)
        self.sink.send(message)

    # --- volatile events, while the client does not keep up

    def keep(self, news: Sequence[Fresh]) -> None:
        """Keep what came last until there is room for it."""
        if self.latest is None:
            self.latest = Latest()
        self._drop_volatile(self.latest.put(news), "buffer_full")

    def send_latest(self) -> None:
        """Send what was kept; whoever calls it knows that there is room."""
        latest, self.latest = self.latest, None
        if latest is not None:
            message, self.dialect = self.dialect.deliver(latest.items)
            self.sink.send(message)

    def drained(self) -> None:
        """The connection has room again."""
        if self.sink.writable:
            self.send_latest()
        if self.reader is not None:
            self.reader.go_on()

    def _drop_volatile(self, count: int, reason: str) -> None:
        if count:
            self._runtime.counters.dropped("volatile", reason=reason, policy="newest_kept", n=count)

    # --- acknowledgements

    def expect(self, number: int, acknowledgement: Acknowledgement) -> None:
        """Keep ``acknowledgement`` until the client answers the packet with this number, or goes away."""
        if self.phase is Phase.DISCONNECTED:
            acknowledgement.lost(self, "disconnected")
            return
        if self._acks is None:
            self._acks = {}
        limit = self._runtime.config.pending_calls_per_socket
        if len(self._acks) >= limit:
            raise CallLimit(f"{limit} acknowledgements are outstanding (Config.pending_calls_per_socket)")
        self._acks[number] = acknowledgement

    def forget(self, number: int) -> None:
        """Nobody waits for this acknowledgement any longer."""
        if self._acks is not None:
            self._acks.pop(number, None)
            if not self._acks:
                self._acks = None

    def acknowledged(self, packet: Packet, objects: list[Any] | None) -> None:
        """An acknowledgement arrived. One that nobody waits for is ignored, as Node's server does, and counted."""
        acknowledgement = self._acks.get(packet.id) if self._acks and packet.id is not None else None
        if acknowledgement is not None and packet.id is not None:
            acknowledgement.replied(self, packet.payload if objects is None else objects)
            self.forget(packet.id)
        else:
            self._runtime.counters.dropped("acknowledgement", reason="not_waited_for", policy="ignored")
            self._connection.work()

    # --- the connection's side

    def identify(self, identity: "Identity | None") -> None:
        """Take over what the authentication found."""
        if identity is not None:
            self._user = identity.user
            self.claims = identity.claims
            self.expires = identity.expires

    async def take_place(self) -> None:
        """Have a place among those of its user. Raises `TooManyConnections` and `BrokerUnavailable`."""
        places = self._runtime.places
        if self._user is not None and places.limit:
            self.places = places.of(self._user)
            await self.places.take(self._connection)

    async def enter(self) -> None:
        """The client is known: rooms and broadcasts can have it from now on; they wait for its CONNECT reply."""
        self._hub = hub = self._namespace.hub(self._hub.name)
        if self.hello is not None:
            hub.entering += 1  # whoever leaves meanwhile does not take it along
            try:
                await self._take_up(self.hello, hub)
            finally:
                hub.entering -= 1
                self._namespace.release(hub)
            return
        hub.add(self)
        await hub.join(self, EVERYONE)
        if self._user is not None and not self.gone:
            await hub.join(self, User(self._user))

    async def _take_up(self, hello: Hello | Plea, hub: "Hub") -> None:
        sessions = self._runtime.sessions
        if isinstance(hello, Plea):
            reader = await RecoveringReader.plead(self, hello, sessions, hub)
        else:
            reader = await Reader.open(self, hello, sessions, hub)
        if self.gone:
            reader.depart(self.reason)
            return
        self.hello = NEWCOMER if isinstance(hello, Plea) else HEARD  # what it gave has served its purpose
        if isinstance(hello, Hello) and hello.producer is not None:
            # A copy of a session is another program: under the same numbers it would send other events.
            producer = secrets.token_hex(16) if reader.session.forked else hello.producer
            inlet = await self._runtime.producers.greet(self._user, producer)
            self.numbers = Numbers(self, inlet, producer)

    def adopt(self, reader: Reader, socket_id: str, rooms: Iterable[str]) -> None:
        """It goes on where its session stands: under this id, and in these rooms."""
        self.id, self.reader, self._rooms = socket_id, reader, set(rooms) or None

    def disown(self) -> None:
        """It does not after all: it is somebody new."""
        if self.reader is not None:
            self._hub.remove(self, self.rooms)
            self.id, self.reader, self._rooms = new_socket_id(None), None, None

    def put_out(self, room: str) -> None:
        """It is in ``room`` no longer: its session is not."""
        if self._rooms is not None:
            self._rooms.discard(room)
        self._runtime.presences.untrack(self, room)

    @property
    def hub(self) -> "Hub":
        """Who is where in its namespace, on this node."""
        return self._hub

    @property
    def node(self) -> "Runtime":
        """What its server shares on this node."""
        return self._runtime

    def start(self, job: Job, finished: Finished) -> None:
        """Run something in the background."""
        self._runtime.dispatcher.run(job, finished)

    def cut(self, reason: str) -> None:
        """End the connection; the client comes back by itself."""
        self._connection.session.close(reason, code=SERVICE_RESTART)

    def replaced(self) -> None:
        """Another connection took its session up."""
        self._connection.replaced(self)

    async def answers(self, within: float) -> bool:
        """Whether its client gives a sign of life within so many seconds."""
        return await self._connection.session.answers(within)

    def depart(self, sink: Sink, reason: str) -> None:
        """The client left: out of all rooms, and whoever waits for its acknowledgements is told.

        Until its last handler is done it counts among what the connection has to wait for, so that a client that joins
        and leaves over and over cannot have as many handlers running as it likes.
        """
        self._connection.delay(1)
        self.reason = reason
        if self.stay is not None:
            self.stay.leave()
        if self.places is not None:
            self.places.leave(self._connection)
        self._runtime.presences.depart(self, reason)
        self._hub.remove(self, self._rooms or ())
        self._namespace.release(self._hub)
        self.phase = Phase.DISCONNECTED
        self.sink = sink
        if self.latest is not None:
            self._drop_volatile(len(self.latest), "disconnected")
            self.latest = None
        if self.reader is not None:
            self.reader.depart(reason)
        if self.numbers is not None:
            self.numbers.close()
        acks, self._acks = self._acks, None
        for acknowledgement in (acks or {}).values():
            acknowledgement.lost(self, reason)
