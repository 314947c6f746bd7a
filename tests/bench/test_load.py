"""The generator against a small server, which is right or wrong as a test wants it."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from bench.load import LoadError, echo, fanout

Spoil = Callable[[int, str], list[str]]
"""What becomes of a packet: (number of the connection, packet) -> the packets that are sent instead."""


def intact(_: int, packet: str) -> list[str]:
    return [packet]


class FakeServer:
    """Enough of a Socket.IO server for the generator, written without its code."""

    def __init__(self, spoil: Spoil) -> None:
        self.spoil = spoil
        self.members: list[asyncio.StreamWriter] = []
        self.pongs = 0
        self.here = 0
        self.left = threading.Event()  # everyone went, and all that they sent is read

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n")
        number = len(self.members)
        self.members.append(writer)
        self.here += 1
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        self.send(number, '0{"sid":"s","pingInterval":25000,"pingTimeout":20000}')
        try:
            while True:
                self.handle(number, await self.read(reader))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            self.here -= 1
            if not self.here:
                self.left.set()

    async def read(self, reader: asyncio.StreamReader) -> str:
        first, second = await reader.readexactly(2)
        assert (first, second & 0x80) == (0x81, 0x80), "a client sends whole text frames, masked"
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(await reader.readexactly(2), "big")
        key = await reader.readexactly(4)
        masked = await reader.readexactly(size)
        return bytes(byte ^ key[at % 4] for at, byte in enumerate(masked)).decode()

    def handle(self, number: int, packet: str) -> None:
        if packet == "3":
            self.pongs += 1
        elif packet == "40":
            self.send(number, '40{"sid":"t"}')
        elif packet.startswith('42["pub",'):
            for member in range(len(self.members)):
                self.send(member, packet.replace('"pub"', '"msg"', 1))
        else:
            ack, _, arguments = packet.removeprefix("42").partition("[")
            name, text = json.loads("[" + arguments)
            assert name == "echo"
            self.send(number, f'43{ack}["{text}"]')

    def send(self, number: int, packet: str) -> None:
        for each in self.spoil(number, packet):
            self.write(number, each)

    def write(self, number: int, packet: str) -> None:
        data = packet.encode()
        head = bytes([0x81, len(data)]) if len(data) < 126 else b"\x81\x7e" + len(data).to_bytes(2, "big")
        self.members[number].write(head + data)


@contextmanager
def running(spoil: Spoil = intact) -> Iterator[tuple[int, FakeServer]]:
    """Serve from a thread: the generator blocks, as it has a process of its own in the bench."""
    fake = FakeServer(spoil)
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


def test_fanout_counts_every_delivery() -> None:
    with running() as (port, _):
        one, many = fanout("127.0.0.1", port, connections=5, size=64, windows=[1, 8], seconds=0.05)
    assert (one.work, one.connections, one.size, one.window) == ("fanout", 5, 64, 1)
    assert many.window == 8
    for result in (one, many):
        assert result.messages > 0
        assert result.rate == pytest.approx(result.messages * 5 / result.seconds)
        assert 0 < result.p50 <= result.p99 <= result.seconds * 1e3


def test_echo_counts_every_reply() -> None:
    with running() as (port, _):
        (result,) = echo("127.0.0.1", port, connections=3, size=200, seconds=0.05)
    assert (result.work, result.connections, result.size) == ("echo", 3, 200)
    assert result.messages >= 3
    assert result.rate == pytest.approx(result.messages / result.seconds)
    assert 0 < result.p50 <= result.p99


def test_pings_are_answered_and_not_counted() -> None:
    events = [0, 0, 0]

    def with_pings(number: int, packet: str) -> list[str]:
        events[number] += packet.startswith("42")
        return ["2", "2", packet] if events[number] == 25 else [packet]  # after the verifying pass

    with running(with_pings) as (port, fake):
        (result,) = fanout("127.0.0.1", port, connections=3, size=8, windows=[4], seconds=0.05)
        assert fake.left.wait(10)
    assert result.messages > 0
    assert fake.pongs == 6


def test_pings_do_not_stand_for_what_is_late() -> None:
    fakes: list[FakeServer] = []
    events = [0, 0, 0]

    def late(number: int, packet: str) -> list[str]:
        if not packet.startswith("42"):
            return [packet]
        events[number] += 1
        pings = ["2"] * 4 if events[number] == 25 else []  # of all three together, more than one message
        if number < 2:
            return [*pings, packet]
        asyncio.get_running_loop().call_later(0.01, fakes[0].write, number, packet)
        return pings

    with running(late) as (port, fake):
        fakes.append(fake)
        (result,) = fanout("127.0.0.1", port, connections=3, size=8, windows=[1], seconds=0.1)
    assert result.messages > 0


def test_bytes_that_nobody_sent_for_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.load.PATIENCE", 0.2)
    count = 0

    def doubled(number: int, packet: str) -> list[str]:
        nonlocal count
        count += number == 1 and packet.startswith("42")
        return [packet, packet] if count == 25 and number == 1 else [packet]

    with running(doubled) as (port, _), pytest.raises(LoadError, match=r"bytes too many|not what was"):
        fanout("127.0.0.1", port, connections=3, size=64, windows=[1], seconds=0.05)


def test_a_message_that_comes_again_late_is_found() -> None:
    measured = False

    def again(number: int, packet: str) -> list[str]:
        nonlocal measured
        measured |= "00000000" in packet
        return [packet.replace("1", "0"), packet] if measured and "00000001" in packet else [packet]

    with running(again) as (port, _), pytest.raises(LoadError, match="not what was published"):
        fanout("127.0.0.1", port, connections=2, size=64, windows=[1], seconds=0.02)


def test_replies_with_pings_between_them_are_replies() -> None:
    with running(lambda _, packet: ["2", packet]) as (port, _):
        (result,) = echo("127.0.0.1", port, connections=2, size=64, seconds=0.02)
    assert result.messages > 0


def test_json_with_other_spaces_is_the_same_reply() -> None:
    with running(lambda _, packet: [packet.replace('["', '[ "')]) as (port, _):
        (result,) = echo("127.0.0.1", port, connections=1, size=64, seconds=0.02)
    assert result.messages > 0


def test_a_wrong_order_is_found() -> None:
    held: list[str] = []

    def swapped(number: int, packet: str) -> list[str]:
        if number != 2 or not packet.startswith("42"):
            return [packet]
        held.append(packet)
        return [] if len(held) == 1 else [packet, held.pop(0)] if len(held) == 2 else [packet]

    with (
        running(swapped) as (port, _),
        pytest.raises(LoadError, match="not what was published, in that order"),
    ):
        fanout("127.0.0.1", port, connections=3, size=64, windows=[1], seconds=0.02)


def test_a_message_that_never_comes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.load.PATIENCE", 0.2)
    count = 0

    def leaky(number: int, packet: str) -> list[str]:
        nonlocal count
        if number != 2 or not packet.startswith("42"):
            return [packet]
        count += 1
        return [] if count == 25 else [packet]  # after the 20 messages of the verifying pass

    with running(leaky) as (port, _), pytest.raises(LoadError, match=r"stalled: \d+ bytes are missing"):
        fanout("127.0.0.1", port, connections=3, size=64, windows=[1], seconds=0.2)


def test_a_reply_to_another_request_is_found() -> None:
    with (
        running(lambda _, packet: [packet.replace("43100", "43101")]) as (port, _),
        pytest.raises(LoadError, match="not the reply to request 100"),
    ):
        echo("127.0.0.1", port, connections=1, size=64, seconds=0.02)


def test_a_refused_namespace_is_told() -> None:
    def refuse(_: int, packet: str) -> list[str]:
        return ['44{"message":"no"}'] if packet.startswith("40") else [packet]

    with running(refuse) as (port, _), pytest.raises(LoadError, match=r'refused the namespace.*"no"'):
        echo("127.0.0.1", port, connections=1, size=64, seconds=0.02)
