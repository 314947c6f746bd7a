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

A server that disconnects a client in so many words (Socket.IO's DISCONNECT, a close code that is final), or refuses it,
does not want it back: as stock clients do, this one does not try again then.

A server that is about to stop (``drain``) says when to come back. At that time the connection is ended and the next one
begun at once, without the backoff; if the server ends it before, the rest of the time is waited for.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, TypeAlias

from typing_extensions import override

from bellwire.client.backoff import Backoff
from bellwire.client.link import Ended, News, Welcome
from bellwire.client.wire import Listener, Wire
from bellwire.core.errors import ConnectRefused
from bellwire.protocol.wire import Drain

logger = logging.getLogger("bellwire.client")

State: TypeAlias = Literal["connecting", "connected", "reconnecting", "disconnected"]
Connect: TypeAlias = Callable[[Listener], Awaitable[Wire]]

LEFT: Final = "io client disconnect"
"""The reason of a client that leaves by itself, in the word of socket.io-client."""

EJECTED: Final = "io server disconnect"
"""The reason of a client that the server took out of the namespace, in the same words."""

MIN_SECONDS: Final = 1.0
"""A connection that is shorter is followed by a wait in any case, whatever a server asks for."""

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


class Owner(ABC):
    """The client, as its session knows it."""

    @abstractmethod
    def changed(self, state: State) -> None:
        """The state is another one."""

    @abstractmethod
    def joined(self, wire: Wire, welcome: Welcome) -> None:
        """There is a connection; the state has changed before."""

    @abstractmethod
    def told(self, news: News) -> None:
        """Something came. Raises PacketError if it cannot be read."""

    @abstractmethod
    def relieved(self) -> None:
        """The server keeps up again."""

    @abstractmethod
    def lost(self, reason: str) -> None:
        """The connection broke, or could not be made."""

    @abstractmethod
    def ended(self, reason: str) -> None:
        """There will be no connection any more."""


class Session(Listener):
    """Connects for its `Owner` until it is closed, refused or disconnected; it is started once.

    ``wire`` is the connection that is joined, None without one; ``number`` tells connections apart; ``refusal`` is why
    the server does not want this client.
    """

    def __init__(self, owner: Owner, connect: Connect, backoff: Backoff) -> None:
        self.state: State = "disconnected"
        self.id: str | None = None
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
        self._joined_at = 0.0
        self._drain_at: float | None = None
        self._drain: asyncio.TimerHandle | None = None

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

    async def close(self, *, leave: bool = True) -> None:
        """End; nothing happens if it has ended. The server is told that the client leaves, or left to find out."""
        if self.state != "disconnected":
            self._close_wire(leave)
            self._end(LEFT)
        task = self._task
        if task is None or task is asyncio.current_task():
            return
        wire = self._wire
        try:
            if wire is not None:
                await asyncio.shield(wire.over)  # the wire sees to it that this is soon
        finally:
            if wire is not None:
                wire.abort(LEFT)
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
    def joined(self, welcome: Welcome) -> None:
        wire = self.wire = self._wire
        if wire is None:
            return
        wire.set_reading(not self._paused)
        self.id = welcome.id
        self.number += 1
        self._joined_at = asyncio.get_running_loop().time()
        self._backoff.reset()
        self._step(_JOINED)
        self._owner.joined(wire, welcome)
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    @override
    def refused(self, error: ConnectRefused) -> None:
        logger.warning("%r is refused: %s", self._owner, error)
        self.refusal = error

    @override
    def told(self, news: News) -> None:
        if isinstance(news, Drain):
            self._drained(news.reconnect_after)
        else:
            self._owner.told(news)

    @override
    def relieved(self) -> None:
        self._owner.relieved()

    # --- inside

    def _stopped(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:  # a fault of this program
            logger.error("the client failed", exc_info=error)
            if self.state != "disconnected":
                self._end("client error")

    async def _run(self) -> None:
        while True:
            ended = await self._attempt()
            if self.state == "disconnected":
                return
            if ended.final:
                self._end(ended.reason)
                return
            self._lose(ended.reason)
            await asyncio.sleep(self._pause())

    async def _attempt(self) -> Ended:
        """Live through one connection; return why it ended, or why there was none."""
        try:
            wire = await self._connect(self)
            return await wire.over
        except TimeoutError:
            return Ended("connect timeout")
        except OSError as error:
            return Ended(str(error) or type(error).__name__)
        finally:
            self._wire = None
            if self._drain is not None:
                self._drain.cancel()

    def _pause(self) -> float:
        """Seconds until the next attempt."""
        drain_at, self._drain_at = self._drain_at, None
        now = asyncio.get_running_loop().time()
        if drain_at is None or now < self._joined_at + MIN_SECONDS:
            return self._backoff.next()
        return max(0.0, drain_at - now)

    def _drained(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._drain_at = loop.time() + seconds
        if self._drain is not None:
            self._drain.cancel()
        if self._wire is not None:
            self._drain = loop.call_later(seconds, self._wire.close, Ended("server draining"))

    def _lose(self, reason: str) -> None:
        self.id = self.wire = None
        self._step(_LOST)
        logger.warning("%r has no connection: %s", self._owner, reason)
        self._owner.lost(reason)

    def _close_wire(self, leave: bool) -> None:
        if self.wire is None:
            if self._wire is not None:
                self._wire.abort(LEFT)
        elif leave:
            self.wire.leave(LEFT)
        else:
            self.wire.close(Ended(LEFT))

    def _end(self, reason: str) -> None:
        self.id = self.wire = None
        self._step(_ENDED)
        self._owner.ended(reason)
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def _step(self, event: str) -> None:
        self._become(TRANSITIONS[self.state, event])

    def _become(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._owner.changed(state)
