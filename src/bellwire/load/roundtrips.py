"""Acknowledged round trips: every connection has one request on its way, and every reply is compared with it."""

import time
from collections.abc import Callable, Iterator

from bellwire.load.clients.base import ECHO, RELAY, Client, LoadError, Said
from bellwire.load.fanout import VERIFIED, WARM_UP, text
from bellwire.load.result import Meter, Result, Shape
from bellwire.load.swarm import Address, Connection, Make, Swarm, swarm

IDS = range(100, 1000)
"""Acknowledgement ids, all of the same length."""


class RoundTrips:
    """What is asked for, by the clients' manner: an acknowledgement, or the outcome of a numbered event.

    A relay's handler emits the text to the client as well: it has answered when both are here.
    """

    def __init__(self, crowd: Swarm, size: int) -> None:
        client = next(iter(crowd.members.values())).client
        self.crowd, self.size, self.kind = crowd, size, client.manner.kind
        self.prepared = [self._turn(client, number) for number in IDS] if self.kind == ECHO else []
        self.asked = dict.fromkeys(crowd.members, 0)
        self.asked_at = dict.fromkeys(crowd.members, 0.0)
        self.replies = dict.fromkeys(crowd.members, b"")
        self.due: dict[int, list[Said]] = {fd: [] for fd in crowd.members}
        self.latencies: list[float] = []

    def verify(self) -> None:
        """Some round trips on every connection, in which every reply is parsed."""
        self._converse(self._parsed, lambda connection: self.asked[connection.fd] < VERIFIED)

    def run(self, seconds: float) -> Result:
        """Ask for ``seconds``, and wait for the last replies."""
        deadline = time.perf_counter() + seconds
        answered = self._parsed if self.kind == RELAY else self._answered
        with Meter(self.crowd.server) as meter:
            self._converse(answered, lambda _: time.perf_counter() < deadline)
        done = len(self.latencies)
        return meter.result(Shape(self.kind, len(self.crowd.members), self.size, 1), done, done, self.latencies)

    def _converse(self, answered: Callable[[Connection], bool], more: Callable[[Connection], bool]) -> None:
        for connection in self.crowd.members.values():
            self._ask(connection)
        waiting = len(self.crowd.members)
        while waiting:
            for connection in self.crowd.readable():
                if not answered(connection):
                    continue
                self.latencies.append(time.perf_counter() - self.asked_at[connection.fd])
                if more(connection):
                    self._ask(connection)
                else:
                    waiting -= 1

    def _ask(self, connection: Connection) -> None:
        fd = connection.fd
        number = self.asked[fd]
        self.asked[fd] += 1
        if self.prepared:
            turn = self.prepared[number % len(IDS)]
        else:  # the numbers of a producer go on from one measurement to the next
            connection.numbered += 1
            turn = self._turn(connection.client, connection.numbered)
        request, self.replies[fd], due = turn
        self.due[fd] = list(due)
        self.asked_at[fd] = time.perf_counter()
        connection.socket.send(request)

    def _turn(self, client: Client, number: int) -> tuple[bytes, bytes, list[Said]]:
        """A request, the bytes that are probably its reply, and what it has to say."""
        said = text(self.size, number)
        due: list[Said] = [(client.msg, said), (number, said)] if self.kind == RELAY else [(number, said)]
        return client.ask(number, said), client.reply(number, said), due

    def _answered(self, connection: Connection) -> bool:
        """Compare the bytes; only when they differ (two pieces, a ping, another JSON) parse them."""
        data = connection.receive()
        if data == self.replies[connection.fd] and not connection.inbox:
            self.due[connection.fd].clear()
            return True
        return self._right(connection, connection.said(data))

    def _parsed(self, connection: Connection) -> bool:
        return self._right(connection, connection.said(connection.receive()))

    def _right(self, connection: Connection, everything: Iterator[Said]) -> bool:
        """Whether that is the rest of what is due."""
        due = self.due[connection.fd]
        before = len(due)
        for said in everything:
            if not due or said != due[0]:
                raise LoadError(f"not the reply to request {due[-1][0] if due else None}: {said!r}")
            del due[0]
        return not due and before > 0


def roundtrips(
    address: Address, connections: int, make: Make, *, size: int, seconds: float, server: int | None = None
) -> list[Result]:
    """Verify, then measure."""
    with swarm(address, connections, make, server) as crowd:
        RoundTrips(crowd, size).verify()
        RoundTrips(crowd, size).run(min(seconds, WARM_UP))
        return [RoundTrips(crowd, size).run(seconds)]
