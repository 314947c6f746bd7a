"""Calls that wait for clients' acknowledgements: to one socket, and to many.

A call ends when every asked socket has answered, has gone, or has run out of time; whichever comes first for each.
"""

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
from typing_extensions import override

from bellwire.core.clock import Wheel
from bellwire.core.errors import BellwireError, CallTimeout, Disconnected, EventRefused, PacketError
from bellwire.core.events import Event
from bellwire.guard.schema import ReplyReader

if TYPE_CHECKING:
    from bellwire.server.socket import Socket

R = TypeVar("R")


class Replies(msgspec.Struct, Generic[R], frozen=True):
    """What a call to many sockets brought back; every socket that was asked is in one of the first three."""

    values: dict[str, R]
    """The replies by the socket's id."""
    errors: dict[str, BellwireError]
    """What was not a reply: the client refused, answered with something of another type, or went away."""
    missing: frozenset[str]
    """The ids of the sockets that did not answer in time."""
    unreachable_nodes: tuple[str, ...] = ()
    """The ids of the nodes of a cluster that did not answer, or not in full: who is there is not in the others."""


class Acknowledgement(ABC):
    """Somebody waits for sockets to acknowledge an event; each socket keeps it under the packet's id."""

    __slots__ = ()

    @abstractmethod
    def replied(self, socket: "Socket", payload: str | list[object]) -> None:
        """``socket`` answered: with the text of a JSON array, or its items if there was binary data in it."""

    @abstractmethod
    def lost(self, socket: "Socket", reason: str) -> None:
        """``socket`` was disconnected before it answered."""


class Waiting(Acknowledgement):
    """Waits at most ``timeout`` seconds until all of ``asked`` have answered.

    Raises:
        TypeError: ``timeout`` is no number.
        ValueError: it is negative or not finite.

    """

    __slots__ = ("_done", "_open", "_timeout")

    def __init__(self, asked: "Collection[Socket]", timeout: float) -> None:
        check_timeout(timeout)
        self._timeout = timeout
        self._open = {socket.id for socket in asked}
        self._done: asyncio.Future[None] | None = None

    @abstractmethod
    def take(self, id: str, payload: str | list[Any]) -> None:  # noqa: A002 - a socket's
        """The socket answered. Raises :class:`PacketError` if the payload cannot be read at all."""

    @abstractmethod
    def fail(self, id: str, error: BellwireError) -> None:  # noqa: A002
        """The socket will not answer; ``error`` says why."""

    @override
    def replied(self, socket: "Socket", payload: str | list[object]) -> None:
        """Raises :class:`PacketError` if the payload cannot be read at all."""
        self.take(socket.id, payload)
        self._close(socket)

    @override
    def lost(self, socket: "Socket", reason: str) -> None:
        self.failed(socket, Disconnected(reason))

    def failed(self, socket: "Socket", error: BellwireError) -> None:
        """``socket`` will not answer; ``error`` says why."""
        self.fail(socket.id, error)
        self._close(socket)

    def give_up(self) -> None:
        """Wait for nobody any longer."""
        self._open.clear()
        self._wake()

    def _close(self, socket: "Socket") -> None:
        self._open.discard(socket.id)
        if not self._open:
            self._wake()

    def _wake(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    async def wait(self, wheel: Wheel) -> frozenset[str]:
        """Wait, and return the ids of those that did not answer in time."""
        if self._open:
            self._done = asyncio.get_running_loop().create_future()
            timer = wheel.after(self._timeout, self._wake)
            try:
                await self._done
            finally:
                timer.cancel()
        return frozenset(self._open)


class Call(Waiting, Generic[R]):
    """Waits for the replies to ``event``, and reads them. The same errors."""

    __slots__ = ("_errors", "_name", "_reader", "_values")

    def __init__(self, event: Event[R, *tuple[Any, ...]], asked: "Collection[Socket]", timeout: float) -> None:
        super().__init__(asked, timeout)
        self._name = event.name
        self._reader: ReplyReader[R] = ReplyReader(event)
        self._values: dict[str, R] = {}
        self._errors: dict[str, BellwireError] = {}

    @override
    def take(self, id: str, payload: str | list[Any]) -> None:
        try:
            reader = self._reader
            self._values[id] = reader.read(payload) if isinstance(payload, str) else reader.read_objects(payload)
        except PacketError:
            raise
        except EventRefused as error:
            self._errors[id] = error
        except Exception as error:  # a reply type's own __post_init__
            self._errors[id] = invalid_reply(error)

    @override
    def fail(self, id: str, error: BellwireError) -> None:
        self._errors[id] = error

    def replies(self, missing: frozenset[str], unreachable: tuple[str, ...] = ()) -> Replies[R]:
        """Return what came, and who did not answer.

        A socket that has come back on another node may be asked on both, and answers on one: that counts.
        """
        errors = {id_: error for id_, error in self._errors.items() if id_ not in self._values}
        return Replies(self._values, errors, missing - self._values.keys() - errors.keys(), unreachable)

    async def wait_for_one(self, wheel: Wheel) -> R:
        """The only socket's reply. Raises what stands in its place: refused, disconnected, out of time."""
        await self.wait(wheel)
        for error in self._errors.values():
            raise error
        for value in self._values.values():
            return value
        raise CallTimeout(f"no acknowledgement of {self._name!r} within {self._timeout:g} s")


def invalid_reply(error: Exception) -> EventRefused:
    """Return what stands for a reply that the application's own type did not take."""
    refusal = EventRefused("invalid_reply", f"{type(error).__name__}: {error}"[:256])
    refusal.__cause__ = error
    return refusal


def check_timeout(timeout: object) -> None:
    """Raise :class:`TypeError` or :class:`ValueError` if a call cannot wait so long."""
    if not isinstance(timeout, int | float):
        raise TypeError(f"timeout is {timeout!r}: give a number of seconds, such as timeout=10; no call waits for ever")
    if not 0 <= timeout < math.inf:
        raise ValueError(f"timeout is {timeout!r}: give a finite number of seconds from 0 on")
