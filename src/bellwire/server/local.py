"""What a target means on one node: the sockets there, and what is done to them.

It is the same whoever wants it, an application on this node or another node for one of its own
(`bellwire.server.operations`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from bellwire.core.errors import CallLimit
from bellwire.delivery.naming import EVERYONE, Key
from bellwire.protocol.post import Post
from bellwire.server.acks import Waiting

if TYPE_CHECKING:
    from bellwire.server.hub import Hub
    from bellwire.server.namespace import Namespace
    from bellwire.server.socket import Socket

AT_ONCE: Final = 128
"""How many sockets something is done to in one turn of the event loop. To disconnect one takes about 0.05 ms."""


class Local:
    """The sockets of this node that are in any of ``keys``, of everyone if there is none, and in none of ``excluded``.

    ``name`` is that of one of the namespaces that ``namespace`` stands for.
    """

    __slots__ = ("_excluded", "_keys", "_name", "_namespace")

    def __init__(self, namespace: "Namespace", name: str, keys: tuple[Key, ...], excluded: tuple[str, ...]) -> None:
        self._namespace = namespace
        self._name = name
        self._keys = keys
        self._excluded = excluded

    @property
    def hub(self) -> "Hub | None":
        """The live namespace, None if nobody is in it. Raises :class:`TypeError` for a pattern, which is none."""
        return self._namespace.live(self._name)

    def sockets(self) -> "list[Socket]":
        """Those that are there now."""
        hub = self.hub
        return [] if hub is None else list(hub.select(self._keys or (EVERYONE,), self._excluded))

    def answering(self) -> "list[Socket]":
        """Those of them whose clients can answer a call."""
        return [socket for socket in self.sockets() if socket.answering]

    async def call(self, message: Post, number: int, waiting: Waiting, audience: "list[Socket]") -> frozenset[str]:
        """Send ``message`` to ``audience``, and return the ids of those that did not answer it in time.

        ``number`` is that of its acknowledgement, one of the namespace's own. Raises what an encoder does for a message
        that a client's wire cannot hold: nobody has it then.
        """
        runtime = self._namespace.runtime
        asked: list[Socket] = []
        try:
            for socket in audience:
                try:
                    socket.expect(number, waiting)
                except CallLimit as error:
                    waiting.failed(socket, error)
                else:
                    asked.append(socket)
            for dialect in {socket.dialect for socket in asked}:
                dialect.render(message)  # now: objects may change
            runtime.fanout.cast((asked,), message)
            return await waiting.wait(runtime.wheel)
        finally:
            for socket in asked:
                socket.forget(number)

    async def join(self, room: str) -> None:
        """Make all of them members of ``room``. Errors as for ``Socket.join``, at the first that has one."""
        await self._each(lambda socket: socket.join(room))

    async def leave(self, room: str) -> None:
        """Take all of them out of ``room``."""
        await self._each(lambda socket: socket.leave(room))

    async def disconnect(self, *, close: bool) -> None:
        """Disconnect all of them."""
        await self._each(lambda socket: socket.disconnect(close=close))

    async def _each(self, do: "Callable[[Socket], Awaitable[None]]") -> None:
        """Do something to those who are there now, one after the other, and let the loop turn now and then."""
        sockets = self.sockets()[::-1]
        while sockets:
            await do(sockets.pop())  # not kept: those that are gone would all be freed in the same turn
            if sockets and len(sockets) % AT_ONCE == 0:
                await asyncio.sleep(0)
