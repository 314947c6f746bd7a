"""What the proxy does to connections, seen from both of their sides."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.chaos.proxy import ChaosProxy, Connection, Direction

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Peers:
    """A server that hands out the connections it gets, and clients of the proxy before it."""

    def __init__(self, proxy: ChaosProxy, came: "asyncio.Queue[Stream]") -> None:
        self.proxy = proxy
        self._came = came
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> Stream:
        """A client that the proxy has accepted."""
        client = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        self.writers.append(client[1])
        return client

    async def pair(self) -> tuple[Stream, Stream, Connection]:
        """The two ends of a connection, and what is between them."""
        number = self.proxy.accepted
        client = await self.connect()
        server = await self._came.get()
        self.writers.append(server[1])
        return client, server, await self.proxy.connection(number)


@asynccontextmanager
async def peers() -> AsyncIterator[Peers]:
    came: asyncio.Queue[Stream] = asyncio.Queue()
    server = await asyncio.start_server(lambda *stream: came.put_nowait(stream), "127.0.0.1", 0)
    async with ChaosProxy(server.sockets[0].getsockname()[1]) as proxy:
        both = Peers(proxy, came)
        try:
            yield both
        finally:
            server.close()
            for writer in both.writers:
                writer.transport.abort()


async def is_reset(stream: Stream) -> bool:
    """Whether the stream ends with a reset, and not with an end."""
    try:
        while await stream[0].read(65_536):
            pass
    except ConnectionResetError:
        return True
    return False


async def test_bytes_pass_both_ways_and_ends_too() -> None:
    async with peers() as p:
        client, server, connection = await p.pair()
        client[1].write(b"hello")
        assert await server[0].readexactly(5) == b"hello"
        server[1].write(b"x" * 1_000_000)
        assert await client[0].readexactly(1_000_000) == b"x" * 1_000_000
        client[1].write_eof()
        assert await server[0].read() == b""
        server[1].write(b"still there")  # one direction has ended, and the other has not
        server[1].close()
        assert await client[0].read() == b"still there"
        await connection.ended.wait()
        assert (connection.up.passed, connection.down.passed) == (5, 1_000_011)
        assert (p.proxy.accepted, p.proxy.connections, dict(p.proxy.faults)) == (1, {}, {})


async def test_a_reset_is_one_to_both_sides() -> None:
    async with peers() as p:
        client, server, connection = await p.pair()
        connection.reset()
        assert await is_reset(client)
        assert await is_reset(server)
        await connection.ended.wait()
        assert p.proxy.faults == {"reset": 1}
        connection.reset()
        assert p.proxy.faults == {"reset": 1}  # there was nothing to be reset


async def test_what_one_side_does_is_done_to_the_other() -> None:
    async with peers() as p:
        client, server, connection = await p.pair()
        server[1].write(b"unread")
        await connection.down.until_passed(6)
        client[1].transport.abort()  # a close that leaves something unread is a reset
        await connection.ended.wait()
        assert await is_reset(server)
        assert p.proxy.faults == {}


async def test_what_is_stalled_comes_later_and_whole() -> None:
    async with peers() as p:
        client, server, connection = await p.pair()
        connection.stall("up")
        client[1].write(b"x" * 5_000_000)  # more than the buffers on the way hold: the client feels it
        draining = asyncio.create_task(client[1].drain())
        server[1].write(b"the other way")
        assert await client[0].readexactly(13) == b"the other way"
        assert not draining.done()
        assert connection.up.passed == 0
        connection.resume()
        assert await server[0].readexactly(5_000_000) == b"x" * 5_000_000
        await draining


@pytest.mark.parametrize("directions", [("up", "down"), ()])
async def test_a_stall_may_be_one_of_both_directions(directions: tuple[Direction, ...]) -> None:
    async with peers() as p:
        client, server, connection = await p.pair()
        connection.stall(*directions)
        assert connection.up.stalled
        assert connection.down.stalled
        connection.reset()  # it ends nevertheless
        assert await is_reset(client)
        assert await is_reset(server)


@pytest.mark.parametrize("count", [0, 1, 7, 99_999])
async def test_a_cut_lets_so_many_bytes_through_and_no_more(count: int) -> None:
    async with peers() as p:
        client, server, connection = await p.pair()
        connection.cut("down", count)
        server[1].write(b"x" * 100_000)
        assert await client[0].read() == b"x" * count
        assert await is_reset(server)
        client, server, connection = await p.pair()
        connection.cut("up", count)
        client[1].write(b"x" * 100_000)
        assert await server[0].read() == b"x" * count
        assert await is_reset(client)


async def test_what_is_swallowed_never_comes_and_the_connection_stands() -> None:
    async with peers() as p:
        client, server, connection = await p.pair()
        connection.swallow("up")
        client[1].write(b"x" * 1000)
        await connection.up.until_swallowed(1000)
        server[1].write(b"the other way")
        assert await client[0].readexactly(13) == b"the other way"
        connection.resume()
        client[1].write(b"y")
        await connection.up.until_swallowed(1001)
        assert connection.up.passed == 0
        connection.reset()
        assert await is_reset(server)


@pytest.mark.parametrize("kept", ["client", "server"])
async def test_half_open_one_side_is_reset_and_the_other_finds_out_nothing(kept: str) -> None:
    async with peers() as p:
        client, server, connection = await p.pair()
        if kept == "client":
            connection.half_open("client")
            stays, lost = client, server
        else:
            connection.half_open("server")
            stays, lost = server, client
        assert await is_reset(lost)
        stays[1].write(b"x" * 5_000_000)  # more than buffers hold: it is taken
        await stays[1].drain()
        assert not stays[0].at_eof()
        assert not connection.ended.is_set()
        assert connection.number in p.proxy.connections
        connection.reset()
        assert await is_reset(stays)
        await connection.ended.wait()


async def test_half_open_ends_when_the_other_side_gives_up() -> None:
    async with peers() as p:
        client, server, connection = await p.pair()
        connection.half_open("server")
        assert await is_reset(client)
        server[1].close()
        await connection.ended.wait()


async def test_latency_holds_bytes_back_in_order() -> None:
    async with peers() as p:
        client, server, connection = await p.pair()
        connection.delay(0.25)
        loop = asyncio.get_running_loop()
        for word in (b"one", b"two"):
            began = loop.time()
            client[1].write(word)
            assert await server[0].readexactly(3) == word
            assert 0.25 <= loop.time() - began <= 0.5
        connection.resume()
        began = loop.time()
        client[1].write(b"now")
        assert await server[0].readexactly(3) == b"now"
        assert loop.time() - began < 0.1


async def test_single_bytes_are_all_that_a_receiver_gets_at_a_time() -> None:
    async with peers() as p:
        client, server, connection = await p.pair()
        connection.slice()
        client[1].write(b"in single bytes")
        parts: list[bytes] = []
        while b"".join(parts) != b"in single bytes":
            parts.append(await server[0].read(100))
        assert len(parts) > 5
        server[1].write(b"x" * 10_000)
        assert await client[0].readexactly(10_000) == b"x" * 10_000


async def test_those_who_come_may_be_held_or_turned_away() -> None:
    async with peers() as p:
        p.proxy.admission = "hold"
        client = await p.connect()
        client[1].write(b"hello?")
        held = await p.proxy.connection(0)
        p.proxy.admission = "reset"
        assert await is_reset(await p.connect())
        assert not held.ended.is_set()
        assert not client[0].at_eof()
        held.reset()
        assert await is_reset(client)
        p.proxy.admission = "pass"
        client, server, _ = await p.pair()
        client[1].write(b"hello")
        assert await server[0].readexactly(5) == b"hello"
        assert p.proxy.faults == {"hold": 1, "reset": 2}


async def test_without_a_server_clients_are_reset() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with ChaosProxy(port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await is_reset((reader, writer))
        writer.transport.abort()


async def test_a_connection_is_shown_before_its_first_byte_passes() -> None:
    async with peers() as p:
        p.proxy.on_connect = lambda connection: connection.cut("up", 3)
        client, server, _ = await p.pair()
        client[1].write(b"hello")
        assert await server[0].read() == b"hel"


async def test_what_breaks_in_the_proxy_itself_is_told() -> None:
    def broken(_: Connection) -> None:
        raise LookupError("a fault of the test")

    proxy = ChaosProxy(1, on_connect=broken)
    await proxy.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert await is_reset((reader, writer))
    with pytest.raises(ExceptionGroup, match="the proxy is broken"):
        await proxy.close()
    writer.transport.abort()


async def test_before_several_servers_each_gets_its_turn_but_for_those_that_are_out_or_not_there() -> None:
    async with AsyncExitStack() as stack:

        def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            stack.callback(writer.close)
            writer.write(b"x")

        servers = [await asyncio.start_server(greet, "127.0.0.1", 0) for _ in range(3)]
        a, b, gone = (server.sockets[0].getsockname()[1] for server in servers)
        proxy = await stack.enter_async_context(ChaosProxy(a, gone, b))
        servers[2].close()

        async def come() -> int | None:
            number = proxy.accepted
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            stack.callback(writer.close)
            assert await reader.readexactly(1) == b"x"
            return proxy.connections[number].to

        assert [await come() for _ in range(6)] == [a, b, b, a, b, b]
        assert (len(proxy.connections_to(a)), len(proxy.connections_to(b))) == (2, 4)
        proxy.take_out(b)
        assert [await come() for _ in range(3)] == [a, a, a]
        assert len(proxy.connections_to(b)) == 4
        proxy.put_back(b)
        proxy.take_out(a)
        assert [await come() for _ in range(3)] == [b, b, b]
        for server in servers:
            server.close()
