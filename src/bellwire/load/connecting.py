"""Clients that come all at once: from the TCP connection to the answer to CONNECT."""

import time

from bellwire.load.result import Meter, Result, Shape
from bellwire.load.swarm import CONNECTING, Address, Make, Swarm


def connecting(
    address: Address, connections: int, make: Make, *, seconds: float, server: int | None = None
) -> list[Result]:
    """Connect so many, again and again for ``seconds``. Those of before leave meanwhile, as they do in life."""
    latencies: list[float] = []
    meter = Meter(server)
    deadline = time.perf_counter() + seconds
    while not latencies or time.perf_counter() < deadline:
        with meter:
            crowd = Swarm(address, connections, make)
        latencies += [connection.took for connection in crowd.members.values()]
        crowd.close()
    done = len(latencies)
    return [meter.result(Shape("connecting", connections, 0, CONNECTING), done, done, latencies)]
