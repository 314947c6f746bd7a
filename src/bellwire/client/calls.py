"""Acknowledgements that a client waits for."""

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from bellwire.core.errors import BellwireError, Disconnected, EventRefused
from bellwire.guard.schema import ReplyReader
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.socketio import Packet

R = TypeVar("R")


class Call(Generic[R]):
    """One event whose acknowledgement is awaited, by a client in one namespace."""

    __slots__ = ("_done", "_reader", "message")

    def __init__(self, reader: ReplyReader[R], message: Outgoing) -> None:
        self.message = message
        self._reader = reader
        self._done: asyncio.Future[R | BellwireError] = asyncio.get_running_loop().create_future()

    def answered(self, packet: Packet, objects: list[Any] | None) -> None:
        """Take the acknowledgement. Raises PacketError if it cannot be read at all."""
        try:
            reader = self._reader
            self._settle(reader.read(packet.payload) if objects is None else reader.read_objects(objects))
        except EventRefused as error:
            self._settle(error)

    def lost(self, reason: str) -> None:
        """There will be none."""
        self._settle(Disconnected(reason))

    def _settle(self, answer: R | BellwireError) -> None:
        if not self._done.done():
            self._done.set_result(answer)

    async def reply(self) -> R:
        """Wait for it. Raises what stands in its place."""
        answer = await self._done
        if isinstance(answer, BellwireError):
            raise answer
        return answer


class Calls:
    """All that are open, by their packets' ids; an id is used once in a client's life.

    So an acknowledgement that belongs to a connection before, or comes too late, finds nobody.
    """

    __slots__ = ("_next", "_open")

    def __init__(self) -> None:
        self._open: dict[int, Call[Any]] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._open)

    def number(self) -> int:
        """An id for the next packet."""
        number, self._next = self._next, self._next + 1
        return number

    def expect(self, number: int, call: Call[Any]) -> None:
        """Keep ``call`` until it is forgotten."""
        self._open[number] = call

    def forget(self, number: int) -> None:
        """Nobody waits any longer."""
        self._open.pop(number, None)

    def answered(self, packet: Packet, objects: list[Any] | None) -> None:
        """An acknowledgement came; one that nobody waits for is ignored, as stock clients do."""
        call = self._open.pop(packet.id, None) if packet.id is not None else None
        if call is not None:
            call.answered(packet, objects)

    def lost(self, reason: str, kept: Callable[[Outgoing], bool]) -> None:
        """The connection is gone: nobody answers any more, but to what has not been sent."""
        for call in list(self._open.values()):
            if not kept(call.message):
                call.lost(reason)
