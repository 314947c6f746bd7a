"""Several servers in one process, as nodes on one broker in memory."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from typing_extensions import override

from bellwire import Config, Namespace, Server, Socket
from bellwire.brokers.base import Broker
from bellwire.brokers.envelope import ALL, stream_of_node
from bellwire.brokers.memory import MemoryBroker
from bellwire.protocol.embedding import KEY
from bellwire.protocol.socketio import decode_json
from bellwire.server.runtime import Runtime
from bellwire.testing import TestClient, connect
from bellwire.testing.clock import advance

HELLO = {"bellwire": {"version": 1, "instance": "i"}}
"""What a client that recovers sends with CONNECT."""


async def heard(client: TestClient) -> list[Any]:
    """The arguments of the events that the client was sent, without what it was told of streams; all of it is taken."""
    await advance()
    events = [decode_json(packet.payload) for packet, _ in client._events]
    client._events.clear()
    return [argument for name, argument, *_ in events if name != KEY]


class SharedBroker(MemoryBroker):
    """The broker of several servers: that one of them closes does not close it for the others."""

    @override
    async def close(self) -> None:
        pass


class House:
    """One of the servers, with its root namespace."""

    def __init__(self, broker: Broker, stack: AsyncExitStack, config: Config | None = None) -> None:
        self.server = Server(config=config)
        self.server.configure(broker=broker)
        self.root: Namespace = self.server.namespace("/")
        self.stack = stack

    @property
    def runtime(self) -> Runtime:
        return self.root.runtime

    @property
    def node(self) -> str:
        return self.runtime.cluster.node

    async def come(
        self, *rooms: str, user: str | None = None, recovers: bool = False, namespace: str = "/"
    ) -> TestClient:
        """Return a new client whose socket is in these rooms."""
        auth = HELLO if recovers else None
        client = await self.stack.enter_async_context(connect(self.server, namespace, user=user, auth=auth, timeout=5))
        for room in rooms:
            await self.socket(client).join(room)
        return client

    def socket(self, client: TestClient) -> Socket:
        return self.root.hub("/").sockets[client.id]

    async def die(self) -> None:
        """Be killed: nothing is heard or said any more."""
        await self.runtime.dispatcher.close()
        for stream in (ALL, stream_of_node(self.node)):
            await self.runtime.broker.unsubscribe(stream, self.runtime.cluster)


@asynccontextmanager
async def houses(
    count: int = 2,
    config: Config | None = None,
    furnish: Callable[[House], None] = lambda house: None,
    broker: SharedBroker | None = None,
) -> AsyncIterator[list[House]]:
    """``count`` servers that know each other."""
    broker = broker or SharedBroker()
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(count):
            house = House(broker, stack, config)
            furnish(house)
            await stack.enter_async_context(house.server.lifespan())
            found.append(house)
        yield found
