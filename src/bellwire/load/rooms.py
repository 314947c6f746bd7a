"""Many rooms of a few members. In each of them one publishes, and again when everyone has the last message."""

import time

from bellwire.load import swarm as crowds
from bellwire.load.clients.base import Content, LoadError, Said
from bellwire.load.fanout import WARM_UP, content
from bellwire.load.result import Meter, Result, Shape
from bellwire.load.swarm import Address, Connection, Make, Swarm


class Room:
    """Its members; the first one publishes."""

    def __init__(self, members: list[Connection]) -> None:
        self.members, self.publisher = members, members[0]
        self.missing = 0
        """Deliveries that are on their way."""
        self.sent_at = 0.0

    def publish(self, message: bytes) -> None:
        """Send the next one."""
        self.missing = len(self.members)
        self.sent_at = time.perf_counter()
        self.publisher.socket.send(message)


class Rooms:
    """So many rooms, of which neighbouring connections are in the same."""

    def __init__(self, crowd: Swarm, size: int, rooms: int) -> None:
        self.crowd, self.size = crowd, size
        members, each = list(crowd.members.values()), len(crowd.members) // rooms
        self.rooms = [Room(members[at : at + each]) for at in range(0, len(members), each)]
        self.room_of = {member.fd: room for room in self.rooms for member in room.members}

    def verify(self) -> None:
        """A message in each room, which its members get, and nobody else does."""
        due: dict[int, Said] = {}
        for number, room in enumerate(self.rooms):
            said = content(self.crowd, self.size, number)
            for member in room.members:
                member.client.join(room.publisher.client)
                due[member.fd] = member.client.msg, said
            room.publisher.socket.send(room.publisher.client.publish(said))
        while due:
            for connection in self.crowd.readable():
                for said_here in connection.said(connection.receive()):
                    if due.pop(connection.fd, None) != said_here:
                        raise LoadError(f"not what was published in this room: {said_here!r}")

    def run(self, seconds: float) -> Result:
        """Publish for ``seconds``, and receive until everyone has everything."""
        said = content(self.crowd, self.size)
        message = self.rooms[0].publisher.client.publish(said)
        counters = {fd: connection.client.counter() for fd, connection in self.crowd.members.items()}
        latencies: list[float] = []
        deadline = time.perf_counter() + seconds
        with Meter(self.crowd.server) as meter:
            for room in self.rooms:
                room.publish(message)
            waiting = len(self.rooms)
            while waiting:
                for connection in self.crowd.readable():
                    room, data = self.room_of[connection.fd], connection.receive()
                    publishes = connection is room.publisher
                    got = _parsed(connection, data, said) if publishes else counters[connection.fd].feed(data)
                    if not got:
                        continue
                    latencies.append(time.perf_counter() - room.sent_at)
                    room.missing -= got
                    if room.missing < 0:
                        raise LoadError("a room got more messages than were published there")
                    if not room.missing and time.perf_counter() < deadline:
                        room.publish(message)
                    elif not room.missing:
                        waiting -= 1
        done, each = len(latencies), len(self.rooms[0].members)
        shape = Shape("rooms", len(self.crowd.members), self.size, 1, f"{len(self.rooms):,} rooms")
        return meter.result(shape, done // each, done, latencies)


def _parsed(connection: Connection, data: bytes, expected: Content) -> int:
    """How many messages there are; of each room one member reads them."""
    got = 0
    for said in connection.said(data):
        if said != (connection.client.msg, expected):
            raise LoadError(f"not what was published in this room: {said!r}")
        got += 1
    return got


def rooms(
    address: Address, connections: int, make: Make, *, size: int, rooms: int, seconds: float, server: int | None = None
) -> list[Result]:
    """Verify, then measure."""
    with crowds.swarm(address, connections, make, server) as crowd:
        load = Rooms(crowd, size, rooms)
        load.verify()
        load.run(min(seconds, WARM_UP))
        return [load.run(seconds)]
