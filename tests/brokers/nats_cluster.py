"""Three nats-servers of the tests' own that are one cluster: any of them may be killed, frozen and started again."""

import socket
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from bellwire.brokers.nats_link import Link, Unanswered
from bellwire.brokers.nats_streams import ask_api
from bellwire.core.errors import BrokerUnavailable
from tests.brokers.nats_server import TOKEN, NatsServer, again

SIZE = 3
AWAY = (BrokerUnavailable, Unanswered)


class NatsCluster:
    """Starts at once; each server's data and ports stay over its restarts."""

    def __init__(self, folder: Path) -> None:
        self._reserved = [_reserve() for _ in range(SIZE)]
        ports = [reserved.getsockname()[1] for reserved in self._reserved]
        routes = [f"nats://127.0.0.1:{port}" for port in ports]
        self.servers: dict[str, NatsServer] = {}
        for n, port in enumerate(ports):
            name = f"n{n}"
            (folder / name).mkdir()
            cluster = {"name": "tests", "host": "127.0.0.1", "port": port, "routes": routes}
            self.servers[name] = NatsServer(folder / name, server_name=name, cluster=cluster)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers.values())
        return f"nats://{TOKEN}@{hosts}?replicas={SIZE}"

    def url_of(self, *names: str) -> str:
        """Return the address of some of the servers."""
        hosts = ",".join(f"127.0.0.1:{self.servers[name].port}" for name in names)
        return f"nats://{TOKEN}@{hosts}?replicas={SIZE}"

    def kill(self) -> None:
        for server in self.servers.values():
            server.kill()
        for reserved in self._reserved:
            reserved.close()

    async def leader(self, stream: str) -> str:
        """Return the name of the server that leads a JetStream stream."""
        return str(await again(lambda: self._leader(stream), AWAY, within=60))

    async def _leader(self, stream: str) -> str:
        async with self.link() as link:
            info = await ask_api(link, f"STREAM.INFO.{stream}")
        leader = info.get("cluster", {}).get("leader")
        if not leader:
            raise BrokerUnavailable("there is no leader")
        return str(leader)

    async def in_sync(self, stream: str) -> None:
        """Wait until all replicas of a JetStream stream have all that there is."""

        async def check() -> None:
            async with self.link() as link:
                info = await ask_api(link, f"STREAM.INFO.{stream}")
            replicas = info.get("cluster", {}).get("replicas", ())
            if len(replicas) < SIZE - 1 or not all(replica["current"] for replica in replicas):
                raise BrokerUnavailable("not yet")

        await again(check, AWAY, within=60)

    async def lead(self, stream: str, names: Collection[str]) -> None:
        """Let one of these servers lead a JetStream stream."""

        async def check() -> None:
            if await self._leader(stream) in names:
                return
            async with self.link() as link:
                await ask_api(link, f"STREAM.LEADER.STEPDOWN.{stream}")
            raise BrokerUnavailable("not yet")

        await again(check, AWAY, within=60)

    def others(self, name: str) -> list[str]:
        return [other for other in self.servers if other != name]

    @asynccontextmanager
    async def link(self, *names: str) -> AsyncIterator[Link]:
        """A connection to one of the servers."""
        link = Link()
        await link.open(self.url_of(*(names or self.servers)))
        try:
            yield link
        finally:
            await link.close()


def _reserve() -> socket.socket:
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved
