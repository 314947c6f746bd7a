"""A small server for the generator, right or wrong as a test wants it; written without the generator's code."""

import asyncio
import json
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

Spoil = Callable[[int, Any], list[Any]]
"""What becomes of a message: (number of the connection, message) -> the messages that are sent instead."""


def intact(_: int, message: Any) -> list[Any]:
    return [message]


class FakeServer:
    """Everyone is in one room: ``pub`` goes to all as ``msg``. A message is what travels in a frame, decoded."""

    def __init__(self, spoil: Spoil) -> None:
        self.spoil = spoil
        self.members: list[asyncio.StreamWriter] = []
        self.pongs = 0
        self.here = 0
        self.left = threading.Event()  # everyone went, and all that they sent is read

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.upgraded(await reader.readuntil(b"\r\n\r\n"))
        number = len(self.members)
        self.members.append(writer)
        self.here += 1
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        self.opened(number)
        try:
            while True:
                self.handle(number, await self.read(reader))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            self.here -= 1
            if not self.here:
                self.left.set()

    async def read(self, reader: asyncio.StreamReader) -> Any:
        first, second = await reader.readexactly(2)
        assert first == 0x80 | self.opcode, "a client sends whole frames of one kind"
        assert second & 0x80, "masked"
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(await reader.readexactly(2), "big")
        key = await reader.readexactly(4)
        masked = await reader.readexactly(size)
        return self.decode(bytes(byte ^ key[at % 4] for at, byte in enumerate(masked)))

    def send(self, number: int, message: Any) -> None:
        for each in self.spoil(number, message):
            self.write(number, each)

    def write(self, number: int, message: Any) -> None:
        data = self.encode(message)
        size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
        self.members[number].write(bytes([0x80 | self.opcode]) + size + data)

    def everyone(self, message: Any) -> None:
        for member in range(len(self.members)):
            self.send(member, message)

    # --- Socket.IO

    opcode = 1

    def upgraded(self, head: bytes) -> None:
        assert head.startswith(b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n")

    def decode(self, data: bytes) -> Any:
        return data.decode()

    def encode(self, message: Any) -> bytes:
        return bytes(message.encode())

    def opened(self, number: int) -> None:
        self.send(number, '0{"sid":"s","pingInterval":25000,"pingTimeout":20000}')

    def handle(self, number: int, message: Any) -> None:
        if message == "3":
            self.pongs += 1
        elif message == "40":
            self.send(number, self.welcome)
        elif message.startswith('42["pub",'):
            self.everyone(self.event(message.replace('"pub"', '"msg"', 1)))
        else:
            ack, _, arguments = message.removeprefix("42").partition("[")
            name, text = json.loads("[" + arguments)
            assert name == "echo"
            self.send(number, f'43{ack}["{text}"]')

    welcome = '40{"sid":"t"}'

    def event(self, packet: str) -> str:
        return packet


class RecoveringServer(FakeServer):
    """With connection state recovery: each event has an offset behind it."""

    welcome = '40{"sid":"t","pid":"secret"}'
    seq = 0

    def event(self, packet: str) -> str:
        self.seq += 1
        entry = b"stream01gener001" + self.seq.to_bytes(8, "big") + b"tag!"
        return f'{packet[:-1]},"{urlsafe_b64encode(entry).decode()[:38]}AQAAAAAAAAAA"]'


class V1Server(FakeServer):
    """bellwire.v1.msgpack: everyone is in one stream, whose top is number 69, and each has one of its own."""

    opcode = 2

    def __init__(self, spoil: Spoil) -> None:
        super().__init__(spoil)
        self.points = {"all": (69, 1)}

    def upgraded(self, head: bytes) -> None:
        assert head.startswith(b"GET /bellwire HTTP/1.1\r\n")
        assert b"\r\nSec-WebSocket-Protocol: bellwire.v1.msgpack\r\n" in head

    def decode(self, data: bytes) -> Any:
        return msgspec.msgpack.decode(data)

    def encode(self, message: Any) -> bytes:
        return msgspec.msgpack.encode(message)

    def opened(self, number: int) -> None:
        """The client begins."""

    def handle(self, number: int, message: Any) -> None:
        match message:
            case ["connect", "/", None, str(), None | str()]:
                self.send(number, ["connected", "/", "id", 65536, "secret", False])
                for stream in ("all", f"own{number}"):
                    point = self.points.setdefault(stream, (1, 7))
                    self.send(number, ["open", "/", stream, self.alias(stream), "g1", *point])
            case ["e", "/", "pub", [text]]:
                self.everyone(self.entry("all", text))
            case ["e", "/", "echo", [text], id_]:
                self.send(number, ["r", "/", id_, [text]])
            case ["n", "/", its_number, name, [text]]:
                if name == "relay":
                    self.send(number, self.entry(f"own{number}", text))
                self.send(number, ["n", "/", its_number, [text]])
            case ["pong"]:
                self.pongs += 1
            case _:
                raise AssertionError(message)

    def entry(self, stream: str, text: str) -> Any:
        prev = self.points[stream]
        point = self.points[stream] = (prev[0] + 1, prev[1] * 7919 % (1 << 32))
        return ["s", self.alias(stream), *point, point[0] - prev[0], prev[1], f"m{point[0]}", "msg", [text]]

    def alias(self, stream: str) -> int:
        return 1 + list(self.points).index(stream)


@contextmanager
def running(spoil: Spoil = intact, kind: type[FakeServer] = FakeServer) -> Iterator[tuple[int, FakeServer]]:
    """Serve from a thread: the generator blocks, as it has a process of its own in the bench."""
    fake = kind(spoil)
    ports: list[int] = []
    listening = threading.Event()

    async def main() -> None:
        server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        stops.append(lambda: loop.call_soon_threadsafe(done.set))
        listening.set()
        async with server:
            await done.wait()
            server.close()
            for member in fake.members:
                member.close()

    stops: list[Callable[[], object]] = []
    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert listening.wait(10)
    try:
        yield ports[0], fake
    finally:
        fake.left.wait(10)
        stops[0]()
        thread.join(10)
