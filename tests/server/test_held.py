from bellwire import Config, Server, Socket
from bellwire.core.counters import Counters
from bellwire.protocol.outgoing import Outgoing
from bellwire.server.held import Nowhere
from bellwire.testing import connect
from bellwire.testing.clock import advance
from tests.server.house import SAY, WAVE


async def test_what_is_sent_nowhere_is_counted() -> None:
    counters = Counters()
    nowhere = Nowhere(counters)
    nowhere.send(Outgoing('42["a"]'))
    assert counters.get("dropped_total", kind="event", reason="disconnected", policy="at_most_once") == 1
    assert (nowhere.buffered, nowhere.writable) == (0, True)


async def test_what_is_emitted_in_on_connect_is_buffered_and_then_sent_in_order() -> None:
    server = Server()
    root = server.namespace("/")
    buffered = []

    @root.on_connect
    async def enter(socket: Socket) -> None:
        buffered.append(socket.buffered)
        await socket.emit(SAY, "one")
        await socket.emit(SAY, "two")
        buffered.append(socket.buffered)

    async with connect(server) as client:
        assert [await client.receive(SAY), await client.receive(SAY)] == ["one", "two"]
    assert buffered[0] == 0
    assert buffered[1] > 0


async def test_volatile_events_of_on_connect_come_behind_the_others_where_too_much_waits() -> None:
    server = Server(config=Config(volatile_buffer_bytes=20))
    root = server.namespace("/")

    @root.on_connect
    async def enter(socket: Socket) -> None:
        await socket.emit(SAY, "x" * 100)
        assert not socket.writable
        await socket.emit(WAVE, 1)
        await socket.emit(SAY, "y")

    async with connect(server) as client:
        await client.receive(SAY)
        assert await client.receive(SAY) == "y"
        assert await client.receive(WAVE) == 1


async def test_a_client_that_is_sent_too_much_before_it_is_connected_is_a_slow_consumer() -> None:
    server = Server(config=Config(send_buffer_bytes=1000, volatile_buffer_bytes=1000))
    root = server.namespace("/")
    ends = []

    @root.on_connect
    async def enter(socket: Socket) -> None:
        for _ in range(5):
            await socket.emit(SAY, "x" * 500)

    @root.on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        ends.append(reason)

    async with connect(server) as client:
        await client.closed()
        await advance()
        assert ends == ["slow consumer"]
        assert server.counters.get("sessions_closed_total", reason="slow_consumer") == 1
        assert server.counters.get("dropped_total", kind="event", reason="slow_consumer", policy="at_most_once") == 5
