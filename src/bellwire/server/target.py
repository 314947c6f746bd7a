"""To whom: everyone in a namespace, the members of rooms, one user's sockets, without some of them."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, TypeVarTuple

import msgspec
from typing_extensions import override

from bellwire.core.errors import NodesUnreachable, OutcomeUnknown
from bellwire.core.events import Event
from bellwire.delivery.naming import EVERYONE, Key, User
from bellwire.guard.packets import check_mid, post
from bellwire.guard.recipients import Recipients, check_rooms
from bellwire.protocol.socket_id import read_socket_id
from bellwire.server import relay
from bellwire.server.acks import Call, Replies
from bellwire.server.local import Local
from bellwire.server.operations import Operations, Selection, told

if TYPE_CHECKING:
    from bellwire.server.namespace import Namespace

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

Nodes: TypeAlias = tuple[str, ...]
Ts = TypeVarTuple("Ts")


class Target(Recipients["Target"]):
    """Some of a namespace's sockets, wherever they are; who they are is decided at each use.

    Rooms add up (a socket in two of them is meant once), what ``except_`` names is taken away. A socket's id is a room
    that holds just that socket.
    """

    __slots__ = ("_namespace",)

    def __init__(
        self,
        namespace: "Namespace",
        name: str,
        keys: tuple[Key, ...] = (),
        excluded: tuple[str, ...] = (),
    ) -> None:
        super().__init__(name, keys, excluded)
        self._namespace = namespace

    @override
    def _with(self, keys: tuple[Key, ...], excluded: tuple[str, ...]) -> "Target":
        return Target(self._namespace, self._name, keys, excluded)

    # --- events

    async def emit(self, event: Event[Any, *Ts], /, *payload: *Ts, mid: str | None = None) -> None:
        """Send ``event`` to all of them; when this returns, the broker has it.

        Clients that can recover get it once and in order, or are told that they do not, those that are away as well;
        all others get it at most once, in order. A volatile event is for those who are there and keep up.

        ``mid`` names the message: what is emitted again under the same one within two minutes is not doubled. Give one
        of your own, at most 128 characters, where you want to try again after an error.

        Raises:
            TypeError: the payload is not what the event declares.
            ValueError: ``mid`` is empty or too long, or the event volatile, which has none.
            BrokerUnavailable: nothing was sent.
            OutcomeUnknown: it may have been sent; ``done`` names the rooms that have it for certain.
            MessageTooLarge: it is larger than the broker takes.
            RateLimited: in a handler, if there was too much for one of the rooms (``Config.room_rate``).
            RuntimeError: it is volatile or has a ``mid``, and a relay's handler is running.

        """
        message = post(self._name, event, payload)
        check_mid(event, mid)
        hub = self._namespace.live(self._name)  # it raises for a pattern
        names, runtime = self._streams(), self._namespace.runtime
        outflow, streams = runtime.outflow, runtime.streams
        if outflow is not None and not outflow.admit(self._keys or (EVERYONE,), names, hub, volatile=event.volatile):
            return
        if relay.collects(message.body, names, self._excluded, volatile=event.volatile, mid=mid):
            streams.remember(message)
            return
        try:
            await streams.emit(names, message, excluded=self._excluded, volatile=event.volatile, mid=mid)
        except OutcomeUnknown as error:
            raise self._unknown(error) from None

    async def call(self, event: Event[R, *Ts], /, *payload: *Ts, timeout: float) -> Replies[R]:  # noqa: ASYNC109
        """Send ``event`` to all of them and wait for their acknowledgements, at most ``timeout`` seconds.

        Nodes that do not answer have a second more, and are named in the replies.

        Raises:
            TypeError: the payload is not what the event declares, or ``timeout`` is no number.
            ValueError: ``timeout`` is negative or not finite.
            BrokerUnavailable: the other nodes cannot be asked; nobody was called there.
            MessageTooLarge: it is larger than the broker takes.

        """
        relay.forbid("call()")
        local, others = self._local, await self._others()
        hub, audience = local.hub, local.answering()
        number = 0 if hub is None else hub.next_ack()
        message = post(self._name, event, payload, number)
        call: Call[R] = Call(event, audience, timeout)
        here = local.call(message, number, call, audience)
        if not others:
            return call.replies(await here)
        elsewhere = self._operations.call(self._selection, message.body, call, others, timeout)
        missing, (missing_elsewhere, unreachable) = await _both(here, elsewhere)
        return call.replies(missing | missing_elsewhere, unreachable)

    # --- the sockets themselves

    async def sockets(self) -> "Sockets":
        """Who they are at this moment, on all nodes. Raises BrokerUnavailable: the other nodes cannot be asked."""
        here = [told(socket) for socket in self._local.sockets()]
        elsewhere, unreachable = await self._operations.sockets(self._selection, await self._others())
        found = {one.id: one for one in (*here, *elsewhere)}  # one that has come back may still be where it was
        return Sockets(
            [RemoteSocket(self._namespace, self._name, *msgspec.structs.astuple(one)) for one in found.values()],
            unreachable,
        )

    async def join(self, room: str) -> None:
        """Make all of them members of ``room``, on all nodes.

        Raises:
            RoomLimit, EventRefused: as for ``Socket.join``, at the first on its node that has one.
            TypeError: the room's name is no str.
            BrokerUnavailable: the broker cannot be reached.
            NodesUnreachable: some nodes did not say that it is done.
            RuntimeError: in the handler of a relay, which only emits.

        """
        relay.forbid("join()")
        check_rooms((room,))
        await self._everywhere(
            lambda: self._local.join(room), lambda nodes: self._operations.join(self._selection, room, nodes)
        )

    async def leave(self, room: str) -> None:
        """Take all of them out of ``room``. Raises as :meth:`join` but for what a room refuses."""
        relay.forbid("leave()")
        check_rooms((room,))
        await self._everywhere(
            lambda: self._local.leave(room), lambda nodes: self._operations.leave(self._selection, room, nodes)
        )

    async def disconnect(self, *, close: bool = False) -> None:
        """Disconnect all of them; see :meth:`Socket.disconnect <bellwire.server.socket.Socket.disconnect>`.

        Raises as :meth:`join` but for what a room refuses.
        """
        relay.forbid("disconnect()")
        await self._everywhere(
            lambda: self._local.disconnect(close=close),
            lambda nodes: self._operations.disconnect(self._selection, nodes, close=close),
        )

    async def _everywhere(
        self,
        here: "Callable[[], Coroutine[Any, Any, None]]",
        elsewhere: "Callable[[frozenset[str]], Coroutine[Any, Any, Nodes]]",
    ) -> None:
        others = await self._others()
        if not others:
            await here()
            return
        _, unreachable = await _both(here(), elsewhere(others))
        if unreachable:
            raise NodesUnreachable(unreachable)

    @property
    def _local(self) -> Local:
        return Local(self._namespace, self._name, self._keys, self._excluded)

    @property
    def _selection(self) -> Selection:
        return Selection.of(self._name, self._keys, self._excluded)

    @property
    def _operations(self) -> "Operations":
        return self._namespace.runtime.operations

    async def _others(self) -> frozenset[str]:
        """The other nodes that can have one of them."""
        peers = self._namespace.runtime.cluster.peers.ids
        nodes: frozenset[str] = frozenset()
        for key in self._keys if peers else ():
            found = await self._nodes_of(key)
            if found is None:
                return peers
            nodes |= found
        return peers & nodes if self._keys else peers

    async def _nodes_of(self, key: Key) -> frozenset[str] | None:
        """The nodes that can have a socket of ``key``, None for all of them."""
        if isinstance(key, User):
            return await self._namespace.runtime.places.nodes_of(key.id)
        socket = read_socket_id(key) if isinstance(key, str) else None
        return None if socket is None or socket.node is None else frozenset({socket.node})


class Sockets(list["RemoteSocket"]):
    """Sockets on all nodes; those of ``unreachable_nodes``, which did not answer, are not among them."""

    def __init__(self, found: "Iterable[RemoteSocket]", unreachable_nodes: tuple[str, ...]) -> None:
        super().__init__(found)
        self.unreachable_nodes = unreachable_nodes
        """The ids of nodes that were asked and did not answer in full."""


async def _both(here: Coroutine[Any, Any, S], elsewhere: Coroutine[Any, Any, T]) -> tuple[S, T]:
    """Do both at the same time; the errors of ``here`` go before those of ``elsewhere``."""
    other = asyncio.ensure_future(elsewhere)
    try:
        first = await here
    except BaseException:
        other.cancel()
        await asyncio.wait((other,))
        raise
    return first, await other


class RemoteSocket(msgspec.Struct, frozen=True):
    """A socket somewhere, as it was when it was asked for."""

    _namespace: "Namespace"
    _name: str
    id: str
    """Its Socket.IO id."""
    user: str | None
    """Its user, None for a guest."""
    rooms: frozenset[str]
    """The rooms that it is a member of."""

    def _itself(self) -> Target:
        return Target(self._namespace, self._name, (self.id,))

    async def emit(self, event: Event[Any, *Ts], /, *payload: *Ts, mid: str | None = None) -> None:
        """Send ``event`` to it; see ``Socket.emit``."""
        await self._itself().emit(event, *payload, mid=mid)

    async def call(self, event: Event[R, *Ts], /, *payload: *Ts, timeout: float) -> Replies[R]:  # noqa: ASYNC109
        """Send ``event`` to it and wait for its acknowledgement."""
        return await self._itself().call(event, *payload, timeout=timeout)

    async def join(self, room: str) -> None:
        """Make it a member of ``room``."""
        await self._itself().join(room)

    async def leave(self, room: str) -> None:
        """Take it out of ``room``."""
        await self._itself().leave(room)

    async def disconnect(self, *, close: bool = False) -> None:
        """Disconnect it."""
        await self._itself().disconnect(close=close)
