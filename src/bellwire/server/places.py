"""The places of users: which node holds which user's connections, so that each has only so many in the whole cluster.

A user's places stand at the broker, under one key that is changed by comparing and setting. Each node answers for its
own: what it enters is what it holds, and another node takes one of them out only if its node is dead, is silent when it
is asked, or is told to close that connection. A place as its node sees it::

    state    what happens                           next     then
    wanted   the broker has it                      entered
    wanted   there are too many, or no broker       gone
    entered  the user's last socket on it leaves    gone     it is taken out, as soon as the broker can be asked
    entered  others may have struck it out          entered  it is looked after, in the same way

A user whose places are all taken may have lost some without a word, as a laptop does that changes networks. So his
clients are asked first, and who does not answer is closed.
"""

import asyncio
import secrets
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

import msgspec

from bellwire.brokers.base import Broker, Kept
from bellwire.core.clock import Timer, Wheel
from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown, TooManyConnections
from bellwire.delivery.place import Place, Record, decode_places, encode_places, on_nodes, places_key, surplus
from bellwire.server.cluster import Asked, Cluster
from bellwire.server.upkeep import Upkeep

if TYPE_CHECKING:
    from bellwire.server.connection import Connection

PROBE_SECONDS: Final = 2.0
"""How long a silent client has to give a sign of life when its user has no place left."""

LAG_SECONDS: Final = 1.0
"""How much longer other nodes have to tell that; who has not told by then is taken for dead."""

ERRAND_SECONDS: Final = 5.0
"""How long a node has to do what it is told, before it is told again."""

ATTEMPTS: Final = 64
"""How often a record is read again when another node was faster to change it."""

KEPT_SECONDS: Final = 24 * 3600.0
"""How long a record is kept that nobody writes again: one whose nodes all died at once."""

RENEW_SECONDS: Final = KEPT_SECONDS / 3
"""The age at which a record is written again."""

SWEEP_SECONDS: Final = 600.0
"""How often such records are looked for."""


class _Close(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A connection that is to be closed, to make place for a newer one."""

    user: str
    connection: str


_encode: Final = msgspec.msgpack.Encoder().encode
_read_close: Final = msgspec.msgpack.Decoder(_Close).decode
_read_ids: Final = msgspec.msgpack.Decoder(list[str]).decode


class _Held:
    """A connection of this node, and how many of its sockets are the user's."""

    __slots__ = ("connection", "entered", "place", "sockets")

    def __init__(self, connection: "Connection", place: Place) -> None:
        self.connection = connection
        self.place = place
        self.sockets = 0
        self.entered = False


class UserPlaces:
    """One user's places, as this node sees them. It is a job of the upkeep."""

    __slots__ = ("_busy", "_dead", "_held", "_node", "_written", "unsettled", "user")

    def __init__(self, node: "Places", user: str) -> None:
        self.user = user
        self.unsettled = False
        """Whether the broker may have something else than what is so."""
        self._node = node
        self._held: dict[Connection, _Held] = {}
        self._dead: Collection[str] = ()
        self._busy = 0
        self._written = node.now

    @property
    def idle(self) -> bool:
        """Whether there is nothing to know about the user."""
        return not self._held and not self.unsettled and not self._busy

    @property
    def age(self) -> float:
        """Seconds since it was written last."""
        return self._node.now - self._written

    @property
    def _own(self) -> list[Place]:
        return [held.place for held in self._held.values() if held.entered]

    # --- this node's connections

    async def take(self, connection: "Connection") -> None:
        """Have a place for ``connection``, which each of its sockets calls and then `leave`s.

        Raises:
            TooManyConnections: the user has as many as he may.
            BrokerUnavailable: it cannot be known how many he has.

        """
        held = self._held.get(connection)
        if held is None:
            place = Place(secrets.token_hex(8), self._node.cluster.node, self._node.broker.clock())
            held = self._held[connection] = _Held(connection, place)
        held.sockets += 1
        self._busy += 1
        try:
            async with self._node.lock(self.user):
                if not held.entered and held.sockets:
                    await self._enter(held)
        finally:
            self._busy -= 1
            self._node.dismiss(self)

    def leave(self, connection: "Connection") -> None:
        """A socket of ``connection`` is gone, whether it had a place or not; the last one gives that back."""
        held = self._held[connection]
        held.sockets -= 1
        if held.sockets:
            return
        del self._held[connection]
        if held.entered:
            self.look_after()
        else:
            self._node.dismiss(self)

    async def _enter(self, held: _Held) -> None:
        silent: set[str] | None = None
        unreachable: set[str] = set()
        tried = False
        try:
            for _ in range(ATTEMPTS):
                kept, others = await self._others()
                taken = [place for place in (*others, *self._own) if silent is None or place.connection not in silent]
                over = surplus(taken, self._node.limit)
                if over and silent is None:
                    silent, unreachable = await self._silent(taken)
                    continue
                if over and not self._node.closes_oldest:
                    raise TooManyConnections(self._node.limit)
                tried = True
                if await self._put(kept, (*(place for place in taken if place not in over), held.place)):
                    self._node.struck_out(unreachable)
                    self._entered(held, over)
                    return
            raise BrokerUnavailable("a user's places change faster than they can be written")
        except BaseException:
            if tried:  # what was not answered may have been done
                self.look_after()
            raise

    def _entered(self, held: _Held, over: Collection[Place]) -> None:
        if held.sockets:
            held.entered = True
        else:  # it has left meanwhile
            self.look_after()
        for place in over:
            self._node.counters.add("connections_displaced_total")
            self._node.send_away(self.user, place)

    # --- at the broker

    async def _others(self) -> tuple[Kept | None, list[Place]]:
        """Return what is kept, and the places in it that other nodes, which live, hold."""
        kept = await self._node.broker.get(places_key(self.user))
        places = () if kept is None else decode_places(kept.value)
        others = self._node.elsewhere(places)
        self._dead = tuple({place.node for place in places} - {place.node for place in others})
        return kept, others

    async def _put(self, kept: Kept | None, places: Record) -> bool:
        """Write it; False if something else stands there meanwhile, or if nobody knows."""
        broker, key = self._node.broker, places_key(self.user)
        before = () if kept is None else decode_places(kept.value)
        try:
            if kept is not None and not places:
                done = await broker.delete(key, expected=kept.revision)
            elif (kept is None and not places) or (set(before) == set(places) and self.age < RENEW_SECONDS):
                return True
            else:
                expected, value = 0 if kept is None else kept.revision, encode_places(places)
                done = await broker.put(key, value, expected=expected, ttl=KEPT_SECONDS) is not None
        except OutcomeUnknown:
            return False
        if done:
            self._written = self._node.now
            self._node.struck_out(self._dead)
        return done

    def look_after(self) -> None:
        """See to it soon that the broker has what is so."""
        self.unsettled = True
        self._node.upkeep.add(self)

    async def settle(self) -> None:
        """Do that. Raises BrokerUnavailable: it is to be tried again."""
        self._busy += 1
        try:
            async with self._node.lock(self.user):
                self.unsettled = False
                await self._settle()
        except BaseException:
            self.unsettled = True
            raise
        finally:
            self._busy -= 1
            self._node.dismiss(self)

    async def _settle(self) -> None:
        for _ in range(ATTEMPTS):
            kept, others = await self._others()
            if await self._put(kept, (*others, *self._own)):
                return
        raise BrokerUnavailable("a user's places change faster than they can be written")

    # --- who is still there

    async def _silent(self, places: Collection[Place]) -> tuple[set[str], set[str]]:
        """Return the connections of ``places`` whose clients, or nodes, do not answer; and those nodes."""
        alive: set[str] = set()
        nodes = {place.node for place in places}
        here = asyncio.ensure_future(self.probe())
        try:
            unreachable = await self._node.probe(self.user, nodes, alive.update)
        finally:
            alive.update(await here)
        return {place.connection for place in places} - alive, set(unreachable)

    async def probe(self) -> list[str]:
        """Ask the clients of this node; close those that do not answer, and return those that do."""
        asked = [held for held in self._held.values() if held.entered]
        answers = await asyncio.gather(*[held.connection.session.answers(PROBE_SECONDS) for held in asked])
        alive = []
        for held, answered in zip(asked, answers, strict=True):
            if answered:
                alive.append(held.place.connection)
            else:
                held.connection.session.close("ping timeout")
        return alive

    def close(self, connection: str) -> None:
        """Make place for a newer connection."""
        for held in tuple(self._held.values()):
            if held.place.connection == connection:
                held.connection.close()


class Places:
    """The places of all users, as this node sees them; made, and used, in the running loop."""

    def __init__(self, broker: Broker, cluster: Cluster, wheel: Wheel, config: Config, counters: Counters) -> None:
        self.broker = broker
        self.cluster = cluster
        self.counters = counters
        self.limit = config.connections_per_user
        """How many connections a user may have; 0 for any number: nothing is kept then."""
        self.closes_oldest = config.connections_per_user_policy == "close_oldest"
        self.upkeep = Upkeep("place", counters)
        self._errands = Upkeep("errand", counters)
        self._loop = asyncio.get_running_loop()
        self._wheel = wheel
        self._users: dict[str, UserPlaces] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._struck: set[str] = set()
        self._timer: Timer | None = None
        cluster.watch(self)
        cluster.remind(self.look_after)
        cluster.serve("places.probe", self._probed)
        cluster.serve("places.close", self._told_to_close)
        cluster.serve("places.enter", self._told_to_enter)

    def __len__(self) -> int:
        return len(self._users)

    @property
    def now(self) -> float:
        """The loop's time."""
        return self._loop.time()

    def of(self, user: str) -> UserPlaces:
        """Return the places of ``user``."""
        found = self._users.get(user)
        if found is None:
            found = self._users[user] = UserPlaces(self, user)
            if self._timer is None:
                self._timer = self._wheel.after(SWEEP_SECONDS, self._sweep)
        return found

    async def nodes_of(self, user: str) -> frozenset[str] | None:
        """Return the nodes that hold ``user``'s connections; None if that is not known, and it may be any."""
        if not self.limit:
            return None
        try:
            kept = await self.broker.get(places_key(user))
        except BrokerUnavailable:
            return None
        nodes = {place.node for place in self.elsewhere(() if kept is None else decode_places(kept.value))}
        return frozenset(nodes | {self.cluster.node} if user in self._users else nodes)

    async def close(self, grace: float) -> None:
        """Wait at most ``grace`` seconds until the places of those who left are taken out."""
        if self._timer is not None:
            self._timer.cancel()
        await self._errands.close(0)
        await self.upkeep.close(grace)

    # --- for the users' places

    def elsewhere(self, places: Record) -> list[Place]:
        """Return those of ``places`` that other nodes, which live, hold."""
        return on_nodes(places, self.cluster.peers.ids)

    def lock(self, user: str) -> asyncio.Lock:
        """Return the lock of a user's places; it is there as long as somebody has it."""
        lock = self._locks.get(user)
        if lock is None:
            lock = self._locks[user] = asyncio.Lock()
        return lock

    def dismiss(self, places: UserPlaces) -> None:
        """Forget a user of whom nothing is known any more."""
        if places.idle and self._users.get(places.user) is places:
            del self._users[places.user]
            if not self._users and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    async def probe(self, user: str, nodes: set[str], answered: Callable[[Iterable[str]], None]) -> tuple[str, ...]:
        """Let other ``nodes`` probe the clients of ``user``; return those that do not tell."""
        try:
            return await self.cluster.ask(
                "places.probe",
                user.encode(errors="surrogatepass"),
                lambda _, part: answered(_read_ids(part)),
                timeout=PROBE_SECONDS + LAG_SECONDS,
                nodes=frozenset(nodes) - {self.cluster.node},
            )
        except OutcomeUnknown as error:
            raise BrokerUnavailable("the other nodes may not have been asked") from error

    def struck_out(self, nodes: Iterable[str]) -> None:
        """Places of ``nodes`` count no longer: one that lives nevertheless is to enter its own again."""
        self._struck |= set(nodes) - {self.cluster.node}
        for node in self._struck & self.cluster.peers.ids:
            self.node_joined(node)

    def send_away(self, user: str, place: Place) -> None:
        """Close a connection, wherever it is."""
        if place.node == self.cluster.node:
            self.of(user).close(place.connection)
        else:
            close = _encode(_Close(user, place.connection))
            self._errands.add(_Errand(self.cluster, place.node, "places.close", close))

    # --- told by the cluster

    def node_joined(self, node: str) -> None:
        """If it was taken for dead, it is told to enter its places again."""
        if node in self._struck:
            self._struck.discard(node)
            self._errands.add(_Errand(self.cluster, node, "places.enter", b""))

    def node_left(self, node: str) -> None:
        """Its places count no longer, whatever the broker has."""

    def look_after(self) -> None:
        """See to it soon that the broker has all places of this node."""
        for places in tuple(self._users.values()):
            places.look_after()

    async def _probed(self, asked: Asked) -> None:
        places = self._users.get(asked.body.decode(errors="surrogatepass"))
        await asked.answer(_encode([] if places is None else await places.probe()))

    async def _told_to_close(self, asked: Asked) -> None:
        wanted = asked.read(_read_close)
        places = self._users.get(wanted.user)
        if places is not None:
            places.close(wanted.connection)

    async def _told_to_enter(self, asked: Asked) -> None:
        self.look_after()

    def _sweep(self) -> None:
        self._timer = self._wheel.after(SWEEP_SECONDS, self._sweep)
        for places in self._users.values():
            if places.age >= RENEW_SECONDS:
                places.look_after()


class _Errand:
    """Something that another node is told until it has heard it, or is dead."""

    __slots__ = ("_body", "_cluster", "_kind", "_node", "unsettled")

    def __init__(self, cluster: Cluster, node: str, kind: str, body: bytes) -> None:
        self.unsettled = True
        self._cluster = cluster
        self._node = node
        self._kind = kind
        self._body = body

    async def settle(self) -> None:
        try:
            unreachable = await self._cluster.ask(
                self._kind, self._body, lambda *_: None, timeout=ERRAND_SECONDS, nodes=frozenset({self._node})
            )
        except OutcomeUnknown as error:
            raise BrokerUnavailable("the node may not have been told") from error
        if unreachable and self._node in self._cluster.peers:
            raise BrokerUnavailable("the node did not answer")
        self.unsettled = False
