"""What waits in queues, simulated: clients that all come back, and one message to everyone beside other work.

Both go event by event through time, with a seed, so that a run can be repeated. Times are in seconds.
"""

import random
from collections import deque
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

HALF_OPEN = 1_024
"""Clients that may be connecting to a node at a time (``Config.half_open``): one more is answered with 503."""
PATIENCE = 15.0
"""Seconds after which a client that is not connected yet is cut off (``Config.connect_timeout``), and comes again."""
FIRST_DELAY, LAST_DELAY, SPREAD = 1.0, 5.0, 0.5
"""How stock clients wait: a second, twice as long each time up to five, and up to half of that more or less."""
BATCH = 1_024
"""Clients of a broadcast that are served before others have their turn (``Config.fanout_batch``)."""
TASK_US = 200.0
"""How long the other work of a node is at a time."""
NEVER = float("inf")
GIVEN_UP = 300.0
"""Seconds of time after which it is taken that not all will ever be connected."""


@dataclass(frozen=True)
class Comeback:
    """Clients that come back to one node."""

    clients: int
    half: float
    """Seconds until half of them are connected,"""
    seconds: float
    """and all."""
    attempts: float
    """Attempts of each."""
    refused: int
    """Attempts that were answered with 503, or cut off."""


class _Door:
    """A node that clients come to: first its own core has to do with each, then the broker, one after the other."""

    def __init__(self, connect: float, refuse: float, broker: float) -> None:
        self._connect, self._refuse, self._broker = connect, refuse, broker
        self._free = self._broker_free = 0.0
        self._ends: deque[float] = deque()  # when those that are connecting will be connected

    def come(self, now: float) -> tuple[float, bool]:
        """Return when a client that comes now is connected, or knows that it is turned away; and which of the two."""
        start = max(now, self._free)
        while self._ends and self._ends[0] <= now:
            self._ends.popleft()
        if len(self._ends) >= HALF_OPEN:
            self._free = start + self._refuse
            return self._free, False
        self._free = start + self._connect
        self._broker_free = end = max(self._free, self._broker_free + self._broker)
        self._ends.append(end)
        return (end, True) if end - now <= PATIENCE else (now + PATIENCE, False)


def come_back(
    clients: int, *, connect_us: float, refuse_us: float, broker_us: float = 0.0, busy: float = 0.0, seed: int = 1
) -> Comeback:
    """Let so many clients come to a node that has ``busy`` of its core to do beside.

    Each costs it ``connect_us``, or ``refuse_us``, and the broker ``broker_us``, which has all nodes to serve: it is
    what passes until it has the next one of this node.
    """
    if clients < 1:
        return Comeback(0, 0.0, 0.0, 0.0, 0)
    if busy >= 1:
        return Comeback(clients, NEVER, NEVER, NEVER, 0)
    chance, left = random.Random(seed), 1 - busy
    door = _Door(connect_us / 1e6 / left, refuse_us / 1e6 / left, broker_us / 1e6)
    events = [(_delay(chance, 0), client, 1) for client in range(clients)]
    heapify(events)
    connected: list[float] = []
    tries = 0
    while events and events[0][0] < GIVEN_UP:
        now, client, attempt = heappop(events)
        tries += 1
        end, is_connected = door.come(now)
        if is_connected:
            connected.append(end)
        else:
            heappush(events, (end + _delay(chance, attempt), client, attempt + 1))
    connected += [NEVER] * len(events)
    connected.sort()
    refused = tries - clients + len(events)
    return Comeback(clients, connected[len(connected) // 2], connected[-1], tries / clients, refused)


def _delay(chance: random.Random, failed: int) -> float:
    return min(LAST_DELAY, FIRST_DELAY * 2.0 ** min(failed, 10)) * chance.uniform(1 - SPREAD, 1 + SPREAD)


@dataclass(frozen=True)
class Broadcast:
    """A message to everyone."""

    clients: int
    seconds: float
    """Until the last one has it, on the slowest node,"""
    fastest: float
    """and on the fastest."""


def broadcast(clients: int, nodes: int, *, delivery_us: float, told_us: float, busy: float, seed: int = 1) -> Broadcast:
    """Send one message to clients who are on any of the nodes; each has ``busy`` of its core to do beside.

    The broker tells one node after the other, in ``told_us`` each. A node serves batch after batch, and between two of
    them whatever has come meanwhile.
    """
    if busy >= 1:
        return Broadcast(clients, NEVER, NEVER)
    chance = random.Random(seed)
    ends = []
    for place, here in enumerate(_spread(chance, clients, nodes)):
        told = (place + 1) * told_us / 1e6
        ends.append(told + _served(chance, here, delivery_us / 1e6, busy))
    return Broadcast(clients, max(ends), min(ends))


def _spread(chance: random.Random, clients: int, nodes: int) -> list[int]:
    """Spread clients over nodes at random: each gets its share, more or less its square root."""
    found, left = [], clients
    for remaining in range(nodes, 1, -1):
        mean = left / remaining
        here = min(left, max(0, round(chance.gauss(mean, (mean * (1 - 1 / remaining)) ** 0.5))))
        found.append(here)
        left -= here
    return [*found, left]


def _served(chance: random.Random, clients: int, delivery: float, busy: float) -> float:
    """Seconds until all of a node's clients are served."""
    task = TASK_US / 1e6
    rate = busy / task
    now, coming = 0.0, chance.expovariate(rate) if rate else NEVER
    while clients > 0:
        now += min(clients, BATCH) * delivery
        clients -= BATCH
        while coming <= now:  # what came meanwhile, and while that was done
            now += task
            coming += chance.expovariate(rate)
    return now
