"""The probe of idle subscriptions, through a server: what the broker told nobody about is found."""

from contextlib import AsyncExitStack

from bellwire import Server
from bellwire.brokers.memory import MemoryBroker
from bellwire.delivery.naming import stream_of
from bellwire.server.prober import AT_ONCE, PROBE_SECONDS
from bellwire.testing import connect
from bellwire.testing.clock import advance
from tests.server.far import FarBroker
from tests.server.house import SAY

_HELLO = {"bellwire": {"version": 1, "instance": "i"}}


async def test_what_the_broker_told_nobody_about_is_found_within_two_rounds() -> None:
    broker = MemoryBroker()
    server = Server()
    server.configure(broker=broker)
    root = server.namespace("/")
    async with server.lifespan(), connect(server, auth=_HELLO) as client:
        parts: list[str | bytes] = []
        take = client.take

        def watch(part: str | bytes) -> None:
            parts.append(part)
            take(part)

        client.take = watch  # type: ignore[method-assign]
        await next(iter(root.hub("/").sockets.values())).join("r")
        broker.faults.lose_live(stream_of("/", "r"))
        await root.to("r").emit(SAY, "lost on the way")
        await advance(1)
        assert not any("lost on the way" in str(part) for part in parts)
        await advance(2 * PROBE_SECONDS + 1)
        assert sum("lost on the way" in str(part) for part in parts) == 1


async def test_a_broker_that_is_away_is_asked_again_in_the_next_round() -> None:
    broker = MemoryBroker()
    server = Server()
    server.configure(broker=broker)
    root = server.namespace("/")
    async with server.lifespan(), connect(server, auth=_HELLO):
        room = root.hub("/").streams[next(iter(root.hub("/").streams))]
        broker.faults.go_away()
        await advance(2 * PROBE_SECONDS + 1)
        broker.faults.come_back()
        room.idle = False
        await advance(PROBE_SECONDS + 1)
        assert room.idle


async def test_many_rooms_are_looked_at_some_at_a_time() -> None:
    broker = FarBroker()
    server = Server()
    server.configure(broker=broker)
    root = server.namespace("/")
    async with server.lifespan(), AsyncExitStack() as stack:
        for number in range(2 * AT_ONCE):
            await stack.enter_async_context(connect(server, auth={"bellwire": {"version": 1, "instance": str(number)}}))
        rooms = root.hub("/").streams.values()
        assert len(rooms) > 2 * AT_ONCE
        broker.most = 0
        await advance(2 * PROBE_SECONDS + 1)
        assert broker.most == AT_ONCE > 1
        assert all(room.idle for room in rooms)
