"""Sessions on NATS: over crashes of the server, and over connections that lose answers."""

import asyncio
import secrets
from collections.abc import Iterator

import pytest

from bellwire.brokers.base import Broker
from bellwire.core.errors import BrokerUnavailable, Disconnected
from bellwire.delivery.session import decode_record
from bellwire.server.session import Session
from tests.brokers.nats_server import NatsServer, again, behind_proxy, broker_at
from tests.server.keeping import Connection, at, create, member, node, resume

pytestmark = pytest.mark.bellwire(clock="real")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield server
    server.kill()


async def _streams(broker: Broker, session: Session) -> list[str]:
    kept = await broker.get(session.key)
    assert kept is not None
    return sorted(decode_record(kept.value).streams)


async def test_a_session_outlives_its_node_and_the_server(server: NatsServer) -> None:
    async with broker_at(server.url, prefix="outlive") as broker, broker_at(server.url, prefix="outlive") as other:
        connection = Connection()
        old = await create(node(broker), connection)
        await asyncio.gather(*(old.join(f"s{n}", member(n)) for n in range(20)))
        await old.leave("s7", at(9))
        await server.crash()
        sessions = node(other)
        new = await again(lambda: resume(sessions, old.secret))
        assert new is not None
        assert sorted(new.record.streams) == sorted(f"s{n}" for n in range(20) if n != 7)
        with pytest.raises(Disconnected):
            await again(lambda: old.join("s7", member(20)))
        assert connection.times_replaced == 1
        new.end()
        await sessions.close(10)
        assert await resume(sessions, old.secret) is None


async def test_through_cuts_and_mutes_what_was_told_is_on_record(server: NatsServer) -> None:
    prefix = f"cuts{secrets.token_hex(4)}"
    async with behind_proxy(server, prefix=prefix) as (broker, other, proxy):
        sessions = node(broker)
        session = await create(sessions)
        told: set[str] = set()
        for n in range(30):
            joining = asyncio.ensure_future(session.join(f"s{n}", member(n)))
            if n % 3 == 0:
                proxy.mute()
                await asyncio.wait({joining}, timeout=0.05)
                proxy.cut()
            try:
                async with asyncio.timeout(10):
                    await joining
            except BrokerUnavailable:
                continue
            told.add(f"s{n}")
        await sessions.close(10)  # and the connection with it
        assert len(told) >= 20
        assert await _streams(other, session) == sorted(told)
