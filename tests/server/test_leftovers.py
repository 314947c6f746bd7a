"""The streams of sessions that nobody came back to, through a server with a broker in memory."""

from contextlib import AsyncExitStack
from pathlib import Path

from bellwire import Config, Server
from bellwire.brokers.memory import MemoryBroker
from bellwire.delivery.naming import stream_of
from bellwire.server.leftovers import MARGIN
from bellwire.server.upkeep import MAX_OPTIONAL
from bellwire.testing import connect
from bellwire.testing.clock import advance
from tests.guarantee.world import SAY, stream, world_on

LIFETIME = 60.0
HELLO = {"bellwire": {"version": 1, "instance": "i"}}


def make() -> tuple[Server, MemoryBroker]:
    broker = MemoryBroker()
    server = Server(config=Config(session_lifetime=LIFETIME))
    server.configure(broker=broker)
    server.namespace("/")
    return server, broker


async def test_a_sockets_own_stream_goes_when_its_sessions_lifetime_is_over() -> None:
    server, broker = make()
    async with server.lifespan():
        async with connect(server, auth=HELLO) as client:
            own = stream_of("/", client.id)
        await advance(LIFETIME - 1)
        assert broker.has_log(own)
        await advance(2 * MARGIN)
        assert not broker.has_log(own)


async def test_the_stream_of_a_session_that_was_taken_up_stays() -> None:
    server, broker = make()
    welcome: list[str] = []
    async with server.lifespan():
        async with connect(server, auth=HELLO) as client:
            session = next(iter(server.namespaces["/"].hub("/").sockets.values())).reader
            assert session is not None
            welcome.append(session.session.secret)
            own = stream_of("/", client.id)
        again = {"bellwire": {"version": 1, "instance": "i", "session": welcome[0]}}
        async with connect(server, auth=again) as client:
            assert stream_of("/", client.id) == own
            await advance(LIFETIME + 2 * MARGIN)
            assert broker.has_log(own)
        await advance(LIFETIME + 2 * MARGIN)
        assert not broker.has_log(own)


async def test_a_broker_that_is_away_is_asked_again() -> None:
    server, broker = make()
    async with server.lifespan():
        async with connect(server, auth=HELLO) as client:
            own = stream_of("/", client.id)
        await advance(1)  # the session is let go
        broker.faults.go_away()
        await advance(LIFETIME + 2 * MARGIN)
        broker.faults.come_back()
        assert broker.has_log(own)
        await advance(30)
        assert not broker.has_log(own)


async def test_the_stream_of_a_session_that_is_over_goes_soon() -> None:
    server, broker = make()
    async with server.lifespan(), connect(server, auth=HELLO) as client:
        own = stream_of("/", client.id)
        await client.disconnect()
        await advance(2 * MARGIN)
        assert not broker.has_log(own)


async def test_the_stream_of_a_session_that_could_not_be_ended_goes_when_its_lifetime_is_over() -> None:
    server, broker = make()
    async with server.lifespan(), connect(server, auth=HELLO) as client:
        own = stream_of("/", client.id)
        session = server.namespaces["/"].hub("/").sockets[client.id].reader
        assert session is not None
        key = session.session.key
        kept = await broker.get(key)
        assert kept is not None
        await client.disconnect()
        await advance(1)
        await broker.put(key, kept.value, ttl=LIFETIME / 2)  # as if another node had taken it up
        await advance(2 * MARGIN)
        assert broker.has_log(own)
        await advance(LIFETIME + MARGIN)
        assert not broker.has_log(own)


async def test_all_streams_go_however_many_are_due_at_once() -> None:
    server, broker = make()
    count = MAX_OPTIONAL + 10
    async with server.lifespan():
        async with AsyncExitStack() as clients:
            for _ in range(count):
                await clients.enter_async_context(connect(server, auth=HELLO))
            assert len(broker._logs) == count + 1  # and that of everyone
        await advance(LIFETIME + 3 * MARGIN)
        assert len(broker._logs) == 1
        assert not [name for name in server.counters.snapshot() if "leftover_stream" in name]


async def test_the_log_of_a_room_in_which_nothing_was_said_goes_when_nobody_can_come_back_to_it(
    tmp_path: Path,
) -> None:
    async with world_on("memory", tmp_path) as world:
        node = await world.node()
        stays, away = [await world.client(node, "quiet") for _ in range(2)]
        lifetime = node.server.config.session_lifetime
        await advance(10 * lifetime)
        away.cut()
        await advance(lifetime - 10)
        await away.connect(node)
        await node.say("quiet", "said")
        await advance(1)
        assert stays.labels == away.labels == ["said"]  # and nobody was reset
        await world.client(node, "unused")
        for client in world.clients:
            client.cut()
        await advance(lifetime + 61)
        for n in range(20):
            await node.namespace.to("other").emit(SAY, str(n), mid=f"m{n}")
        kept = world.memory.broker._logs
        assert stream("unused") not in kept
        assert stream("quiet") in kept
