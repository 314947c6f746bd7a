"""What a client costs the garbage collector: few objects while it is here, and none when it is gone."""

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from uvicorn.server import ServerState

from bellwire import Config, Server, Socket
from bellwire.protocol.frames import build_frame
from bellwire.transports.first_read import native_http

MOST = {"stock": 7, "recovering": 12, "v1": 14}
"""Objects of an idle connection that the collector looks at; the loop has one more, its transport."""
NUMBER = 100

WEBSOCKET = (
    "Host: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
STOCK = (f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n{WEBSOCKET}\r\n", "40")
V1 = (
    f"GET /bellwire HTTP/1.1\r\n{WEBSOCKET}Sec-WebSocket-Protocol: bellwire.v1.json\r\n\r\n",
    '["connect","/",null,"instance","0123456789abcdef0123456789abcdef"]',
)


class Connection:
    """A transport that keeps how much was written, with its protocol as uvloop has it: until it is lost."""

    __slots__ = ("protocol", "written")

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.written = 0
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 4711) if name == "peername" else default

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int) -> None: ...

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None: ...

    def abort(self) -> None: ...

    def lose(self) -> None:
        protocol, self.protocol = self.protocol, None
        protocol.connection_lost(None)


@pytest.fixture(autouse=True)
def nothing_collected() -> Iterator[None]:
    """The collector does not run by itself."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def connected(server: Server, head: str, hello: str, number: int = NUMBER) -> list[Connection]:
    make, state = native_http(lambda: server.engine), ServerState()
    connections = [Connection(make(server_state=state)) for _ in range(number)]
    for connection in connections:
        connection.protocol.data_received(head.encode())
    await asyncio.sleep(0)
    for connection in connections:
        connection.protocol.data_received(build_frame(1, hello.encode(), mask=bytes(4)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(server.namespaces["/"].hub("/").sockets) >= number
    return connections


def tracked() -> Counter[str]:
    """How many objects of which type the collector looks at."""
    gc.collect()
    return Counter(type(thing).__qualname__ for thing in gc.get_objects())


@pytest.mark.parametrize("kind", MOST)
async def test_an_idle_connection_is_few_objects(kind: str) -> None:
    server = Server(config=Config(connection_state_recovery=kind == "recovering"))
    server.namespace("/")
    client = V1 if kind == "v1" else STOCK
    async with server.lifespan():
        kept = await connected(server, *client)  # what all share is made with these
        before = tracked()
        kept += await connected(server, *client)
        grown = tracked() - before
        each = {name: round(count / NUMBER) for name, count in grown.items() if name != "Connection"}
        assert sum(each.values()) <= MOST[kind], each


@pytest.mark.parametrize("client", [STOCK, V1], ids=["stock", "v1"])
@pytest.mark.parametrize("recovery", [False, True])
async def test_nothing_of_a_client_is_left_to_the_collector(client: tuple[str, str], recovery: bool) -> None:
    server = Server(config=Config(connection_state_recovery=recovery))
    root = server.namespace("/")

    @root.on_connect
    async def came(socket: Socket) -> None:
        await socket.join("room")
        socket.state["room"] = "room"

    @root.on_disconnect
    async def left(socket: Socket, reason: str) -> None:
        assert socket.rooms == {"room"}

    async with server.lifespan():
        for _ in range(2):
            connections = await connected(server, *client)
            for connection in connections:
                connection.lose()
            connections.clear()
            del connection
            await asyncio.sleep(1)
        names = Counter(type(thing).__qualname__ for thing in gc.get_objects())
        for name in ("NativeWebSocket", "WebSocket", "SocketIOConnection", "RawConnection", "Socket", "RawSession"):
            assert names[name] == 0, name
        assert names["RecoveringReader"] == names["Reader"] == 0


async def test_a_handler_that_outlives_its_client_still_has_its_socket() -> None:
    server = Server()
    root = server.namespace("/")
    gate = asyncio.Event()
    seen: list[object] = []

    @root.on_connect
    async def came(socket: Socket) -> None:
        asyncio.get_running_loop().create_task(later(socket)).add_done_callback(seen.append)

    async def later(socket: Socket) -> None:
        await gate.wait()
        await socket.join("room")  # its session may still be taken up, and is in the room then
        seen.append((socket.connected, sorted(socket.rooms)))

    async with server.lifespan():
        (connection,) = await connected(server, *V1, number=1)
        connection.lose()
        gate.set()
        await asyncio.sleep(1)
        assert seen[0] == (False, ["room"])
