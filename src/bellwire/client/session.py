"""A client's connections, one after the other.

The states that an application sees, and what moves them::

    state          event                                       next           meanwhile
    disconnected   start                                       connecting     attempt at once
    connecting     no connection, or it broke                  connecting     the next attempt after the backoff
    connecting     the server refused the client               disconnected   `Session.ready` raises it
    connecting     the namespace is joined                     connected      the backoff starts again
    connected      the connection broke                        reconnecting   the next attempt after the backoff
    connected      the server disconnected the client          disconnected
    reconnecting   no connection, or it broke                  reconnecting   the next attempt after the backoff
    reconnecting   the server refused the client               disconnected
    reconnecting   the namespace is joined                     connected      the backoff starts again
    any            close                                       disconnected

A server that disconnects a client in so many words (Socket.IO's DISCONNECT), or refuses it, does not want it back: as
stock clients do, this one does not try again then.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from typing_extensions import override

from bellwire.client.backoff import Backoff
from bellwire.client.outlet import Outlet
from bellwire.client.wire import Listener, Wire
from bellwire.core.errors import ConnectRefused
from bellwire.protocol.socketio import Packet

logger = logging.getLogger("bellwire.client")

State: TypeAlias = Literal["connecting", "connected", "reconnecting", "disconnected"]
Connect: TypeAlias = Callable[[Listener], Awaitable[Wire]]

_LOST: Final = "lost"
_JOINED: Final = "joined"
_ENDED: Final = "ended"

TRANSITIONS: Final[Mapping[tuple[State, str], State]] = {
    ("connecting", _LOST): "connecting",
    ("connecting", _JOINED): "connected",
    ("connecting", _ENDED): "disconnected",
    ("connected", _LOST): "reconnecting",
    ("connected", _ENDED): "disconnected",
    ("reconnecting", _LOST): "reconnecting",
    ("reconnecting", _JOINED): "connected",
    ("reconnecting", _ENDED): "disconnected",
}

_FINAL_REASONS: Final = frozenset(("io server disconnect", "io client disconnect", "connect_error"))


class Owner(ABC):
    """The client, as its session knows it."""

    @abstractmethod
    def changed(self, state: State) -> None:
        """The state is another one."""

    @abstractmethod
    def received(self, packet: Packet, objects: list[Any] | None) -> None:
        """An event came. Raises PacketError if it is none."""

    @abstractmethod
    def answered(self, packet: Packet, objects: list[Any] | None) -> None:
        """An acknowledgement came. Raises PacketError if it cannot be read."""

    @abstractmethod
    def lost(self, reason: str) -> None:
        """The connection broke; what was sent on it will not be answered."""

    @abstractmethod
    def ended(self, reason: str, dropped: int) -> None:
        """There will be no connection any more; so many messages were kept and are not sent."""


class Session(Listener):
    """Connects for its `Owner` until it is closed, refused or disconnected; it is started once.

    ``wire`` is the connection that is joined, None without one; ``number`` tells connections apart; ``refusal`` is why
    the server does not want this client.
    """

    def __init__(self, owner: Owner, connect: Connect, backoff: Backoff) -> None:
        self.state: State = "disconnected"
        self.id: str | None = None
        self.outlet = Outlet()
        self.wire: Wire | None = None
        self.number = 0
        self._owner = owner
        self._connect = connect
        self._backoff = backoff
        self._wire: Wire | None = None  # the present connection, joined or not
        self._paused = False
        self.refusal: ConnectRefused | None = None
        self._ready: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def started(self) -> bool:
        """Whether `start` was called."""
        return self._task is not None

    def start(self) -> None:
        """Begin with the first attempt."""
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        self._become("connecting")
        self._task = loop.create_task(self._run())
        self._task.add_done_callback(self._stopped)

    async def ready(self) -> None:
        """Wait for the first connection. Raises ConnectRefused if the server refused it."""
        if self._ready is not None:
            await asyncio.shield(self._ready)
        if self.refusal is not None and self.number == 0:
            raise self.refusal

    async def close(self) -> None:
        """Send what waits, leave, and end; nothing happens if it has ended."""
        if self.state != "disconnected":
            self._end("io client disconnect", leaving=True)
        task = self._task
        if task is None or task is asyncio.current_task():
            return
        wire = self._wire
        try:
            if wire is not None:
                await asyncio.shield(wire.over)  # the wire sees to it that this is soon
        finally:
            if wire is not None:
                wire.abort("io client disconnect")
            task.cancel()
        await asyncio.wait([task])

    def press(self, pressed: bool) -> None:
        """Stop to read, or go on, on this connection and on those to come."""
        self._paused = pressed
        if self.wire is not None:
            self.wire.set_reading(not pressed)

    # --- what the wire says

    @override
    def attached(self, wire: Wire) -> None:
        self._wire = wire

    @override
    def joined(self, sid: str) -> None:
        wire = self.wire = self._wire
        if wire is None:
            return
        wire.set_reading(not self._paused)
        self.id = sid
        self.number += 1
        self._backoff.reset()
        self._step(_JOINED)
        self.outlet.attach(wire)
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    @override
    def refused(self, error: ConnectRefused) -> None:
        logger.warning("refused: %s", error)
        self.refusal = error

    @override
    def received(self, packet: Packet, objects: list[Any] | None) -> None:
        self._owner.received(packet, objects)

    @override
    def answered(self, packet: Packet, objects: list[Any] | None) -> None:
        self._owner.answered(packet, objects)

    @override
    def relieved(self) -> None:
        self.outlet.flush()

    # --- inside

    def _stopped(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:  # a fault of this program
            logger.error("the client failed", exc_info=error)
            if self.state != "disconnected":
                self._end("client error")

    async def _run(self) -> None:
        while True:
            reason = await self._attempt()
            if self.state == "disconnected":
                return
            if reason in _FINAL_REASONS:
                self._end(reason)
                return
            self._lose(reason)
            await asyncio.sleep(self._backoff.next())

    async def _attempt(self) -> str:
        """Live through one connection; return why it ended, or why there was none."""
        try:
            wire = await self._connect(self)
            return await wire.over
        except TimeoutError:
            return "connect timeout"
        except OSError as error:
            return str(error) or type(error).__name__
        finally:
            self._wire = None

    def _lose(self, reason: str) -> None:
        logger.warning("not connected: %s", reason)
        self.id = self.wire = None
        self.outlet.detach()
        self._step(_LOST)
        self._owner.lost(reason)

    def _end(self, reason: str, *, leaving: bool = False) -> None:
        if leaving and self.wire is not None:
            self.outlet.drain()
            self.wire.leave(reason)
        elif leaving and self._wire is not None:
            self._wire.abort(reason)
        self.id = self.wire = None
        self._step(_ENDED)
        dropped = self.outlet.close(reason)
        self._owner.ended(reason, dropped)
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def _step(self, event: str) -> None:
        self._become(TRANSITIONS[self.state, event])

    def _become(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._owner.changed(state)
