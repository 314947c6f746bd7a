"""Clients that come all at once: from the TCP connection to the answer to CONNECT."""

import time

from bench.clients import Client, Stock
from bench.result import Meter, Result, Shape
from bench.swarm import CONNECTING, Swarm


def connecting(
    host: str,
    port: int,
    *,
    connections: int,
    seconds: float,
    client: type[Client] = Stock,
    server: int | None = None,
) -> list[Result]:
    """Connect so many, again and again for ``seconds``. Those of before leave meanwhile, as they do in life."""
    latencies: list[float] = []
    meter = Meter(server)
    deadline = time.perf_counter() + seconds
    while not latencies or time.perf_counter() < deadline:
        with meter:
            crowd = Swarm(host, port, connections, client)
        latencies += [connection.took for connection in crowd.members.values()]
        crowd.close()
    done = len(latencies)
    return [meter.result(Shape("connecting", connections, 0, CONNECTING), done, done, latencies)]
