"""To whom: everyone in a namespace, the members of rooms, one user's sockets, without some of them."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

import msgspec
from typing_extensions import override

from bellwire.core.errors import CallLimit, OutcomeUnknown
from bellwire.core.events import Event
from bellwire.delivery.naming import EVERYONE, Key
from bellwire.guard.packets import check_mid, post
from bellwire.guard.recipients import Recipients
from bellwire.server import relay
from bellwire.server.acks import Call, Replies

if TYPE_CHECKING:
    from bellwire.server.hub import Hub
    from bellwire.server.namespace import Namespace
    from bellwire.server.socket import Socket

R = TypeVar("R")
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
            RuntimeError: it is volatile or has a ``mid``, and a relay's handler is running.

        """
        message = post(self._name, event, payload)
        check_mid(event, mid)
        self._hub()
        names = self._streams()
        if relay.collects(message.body, names, self._excluded, volatile=event.volatile, mid=mid):
            return
        streams = self._namespace.runtime.streams
        try:
            await streams.emit(names, message, excluded=self._excluded, volatile=event.volatile, mid=mid)
        except OutcomeUnknown as error:
            raise self._unknown(error) from None

    async def call(self, event: Event[R, *Ts], /, *payload: *Ts, timeout: float) -> Replies[R]:  # noqa: ASYNC109
        """Send ``event`` to all of them and wait for their acknowledgements, at most ``timeout`` seconds.

        Raises:
            TypeError: the payload is not what the event declares, or ``timeout`` is no number.
            ValueError: ``timeout`` is negative or not finite.

        """
        relay.forbid("call()")
        hub = self._hub()
        number = 0 if hub is None else hub.next_ack()
        message = post(self._name, event, payload, number)
        audience = [socket for socket in self._found() if socket.answering]
        runtime = self._namespace.runtime
        call: Call[R] = Call(event, audience, timeout)
        asked: list[Socket] = []
        try:
            for socket in audience:
                try:
                    socket.expect(number, call)
                except CallLimit as error:
                    call.failed(socket, error)
                else:
                    asked.append(socket)
            for dialect in {socket.dialect for socket in asked}:
                dialect.render(message)  # now: what a wire cannot hold is the caller's error, and objects may change
            runtime.fanout.cast((asked,), message)
            return await call.wait(runtime.wheel)
        finally:
            for socket in asked:
                socket.forget(number)

    # --- the sockets themselves

    async def sockets(self) -> "list[RemoteSocket]":
        """Who they are at this moment."""
        return [
            RemoteSocket(self._namespace, self._name, socket.id, socket.user, socket.rooms) for socket in self._found()
        ]

    async def join(self, room: str) -> None:
        """Make all of them members of ``room``. Errors as for ``Socket.join``, at the first that has one."""
        for socket in self._found():
            await socket.join(room)

    async def leave(self, room: str) -> None:
        """Take all of them out of ``room``."""
        for socket in self._found():
            await socket.leave(room)

    async def disconnect(self, *, close: bool = False) -> None:
        """Disconnect all of them; see :meth:`Socket.disconnect <bellwire.server.socket.Socket.disconnect>`."""
        for socket in self._found():
            await socket.disconnect(close=close)

    def _hub(self) -> "Hub | None":
        """The live namespace, None if nobody is in it. Raises :class:`TypeError` for a pattern, which is none."""
        return self._namespace.live(self._name)

    def _found(self) -> "Collection[Socket]":
        hub = self._hub()
        return () if hub is None else list(hub.select(self._keys or (EVERYONE,), self._excluded))


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
