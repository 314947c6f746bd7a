"""Connections on which nothing happens but heartbeats: what memory each takes, and what processor time all together."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol, TypeAlias

from bellwire.load.clients.base import LoadError
from bellwire.load.result import Idle, Shape, own_memory, processor_time
from bellwire.load.swarm import Address, Make, swarm

FIRST = 500
"""Connections before the first look at the memory: what all connections share is made with them."""
PART = 1_000
"""Connections that come before all that are there have their pings answered."""
TURN = 0.01
"""Seconds of waiting for the pings of one such part."""
SETTLING = 1.0
"""Seconds between the last connection and the second look: a garbage collector may have begun to work."""


class Crowd(Protocol):
    """Clients that are connected."""

    def attend(self, seconds: float) -> None:
        """Answer what has to be answered for so long."""


Connect: TypeAlias = Callable[[int], AbstractContextManager[Crowd]]
"""Connects so many clients until the block ends."""


def websockets(address: Address, make: Make) -> Connect:
    """Clients over WebSocket."""
    return lambda number: swarm(address, number, make)


def idle(connect: Connect, connections: int, *, seconds: float, server: int | None, name: str = "") -> list[Idle]:
    """Connect some, then ``connections`` more, and do nothing for ``seconds``; ``name`` is the transport's."""
    if server is None:
        raise LoadError("whose memory is meant? The server's process is not known")
    with ExitStack() as stack:
        crowds = [stack.enter_context(connect(FIRST))]
        _attend(crowds, SETTLING)
        before = own_memory(server)
        for number in _parts(connections):
            crowds.append(stack.enter_context(connect(number)))
            _attend(crowds, 0.0)
        _attend(crowds, SETTLING)
        each = (own_memory(server) - before) / connections
        began, computed, busy = time.perf_counter(), processor_time(server), time.process_time()
        _attend(crowds, seconds)
        took = time.perf_counter() - began
        share = (processor_time(server) - computed) / took
        busy = (time.process_time() - busy) / took
    return [Idle(Shape("idle", connections, 0, 0, name), took, each, share * 100, busy)]


def _parts(connections: int) -> list[int]:
    """Crowds that are small enough for the others to be attended between them."""
    return [min(PART, connections - at) for at in range(0, connections, PART)]


def _attend(crowds: Sequence[Crowd], seconds: float) -> None:
    """Answer the pings of all, at least once."""
    deadline = time.perf_counter() + seconds
    while True:
        for crowd in crowds:
            crowd.attend(TURN)
        if time.perf_counter() >= deadline:
            return
