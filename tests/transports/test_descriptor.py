"""Writing past the transport: in order, once per tick, and never to a connection that is another's by now."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from typing_extensions import override

from bellwire.protocol.outgoing import Message, Outgoing
from bellwire.transports.base import Sink
from bellwire.transports.descriptor import descriptor_of, give_back, write_all, write_each, write_in_python
from bellwire.transports.native import NativeWebSocket
from bellwire.transports.volley import fire as volley
from tests.transports.clogged import upgrade
from tests.transports.wire import PATIENCE, EchoServer, real

pytestmark = pytest.mark.usefixtures("writing")


class Plain(asyncio.Transport):
    """A transport over a socket, whose own writes wait until somebody looks."""

    def __init__(self, connection: socket.socket, **extra: object) -> None:
        super().__init__({"socket": connection, **extra})
        self.protocol: asyncio.BaseProtocol = asyncio.Protocol()
        self.waiting = bytearray()
        self.high: int | None = None
        self.closing = False

    @override
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    @override
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    @override
    def get_write_buffer_size(self) -> int:
        return len(self.waiting)

    @override
    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        before = len(self.waiting)
        self.waiting += data
        if self.high is not None and before <= self.high < len(self.waiting):
            self.protocol.pause_writing()

    @override
    def is_closing(self) -> bool:
        return self.closing

    @override
    def resume_reading(self) -> None: ...

    @override
    def abort(self) -> None:
        self.closing = True

    def drain(self) -> bytes:
        """What waits, as if the kernel had taken it."""
        data, self.waiting = bytes(self.waiting), bytearray()
        self.protocol.resume_writing()
        return data


@pytest.fixture
def packets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends; what one write took is what one read gives."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(ours), closing(theirs):
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


async def opened(transport: Plain, client: socket.socket) -> NativeWebSocket:
    _, carrier, _ = await upgrade(EchoServer(), transport)
    assert client.recv(1000).startswith(b"HTTP/1.1 101 ")
    return carrier


def drained(connection: socket.socket) -> bytes:
    """All that there is to read."""
    read = b""
    with contextlib.suppress(BlockingIOError):
        while data := connection.recv(65_536):
            read += data
    return read


def frame(text: str) -> bytes:
    return Outgoing(text).frames


def fire(carrier: NativeWebSocket, text: str) -> None:
    volley(Outgoing(text), [carrier])


class Rest(Sink):
    """A sink that keeps what the kernel did not take."""

    buffered = 0
    writable = True

    def __init__(self) -> None:
        self.rest: list[memoryview] = []

    @override
    def send(self, message: Message) -> None: ...

    @override
    def unwritten(self, data: memoryview) -> None:
        self.rest.append(data)


def test_each_gets_back_what_was_not_taken_also_behind_one_that_failed() -> None:
    """Of four connections the first has room for a part, the second is gone, the others have room for all."""
    pairs = [socket.socketpair() for _ in range(4)]
    for ours, _ in pairs:
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    pairs[0][0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pairs[1][1].close()
    pieces = [bytes([65 + number]) * 100_000 for number in range(4)]
    sinks = [Rest() for _ in pairs]
    write_each(sinks, [ours.fileno() for ours, _ in pairs], pieces)
    (part,) = sinks[0].rest
    assert 0 < len(part) < 100_000
    assert set(part) == {65}
    assert [sink.rest for sink in sinks[1:]] == [[pieces[1]], [], []]
    assert [len(theirs.recv(200_000)) for _, theirs in pairs[2:]] == [100_000, 100_000]
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


@pytest.mark.parametrize(
    ("taken", "shared"),
    [
        ([0], True),
        ([50], True),
        ([51], False),
        ([51, 99], True),  # half of the piece waits, though for nobody so much
        ([52, 99], False),
    ],
)
def test_a_piece_is_kept_whole_for_no_less_than_its_half(taken: list[int], shared: bool) -> None:
    """A client could else have the server keep many times what is counted for it."""
    piece = bytes(range(100))
    sinks = [Rest() for _ in taken]
    give_back(sinks, [piece] * len(taken), taken)
    for sink, count in zip(sinks, taken, strict=True):
        (rest,) = sink.rest
        assert rest == piece[count:]
        assert (rest.obj is piece) == shared


class Pieces:
    """Looking through them runs code in Python, which must not begin with an exception set."""

    def __iter__(self) -> Iterator[bytes]:
        return iter([b""])


@pytest.mark.skipif(write_all is write_in_python, reason="the compiled part is not there")
class TestCompiled:
    """What only the compiled one could do wrong."""

    @pytest.mark.parametrize(
        ("descriptors", "pieces", "error"),
        [
            ([1], [], ValueError),
            (1, [b""], TypeError),
            (1, Pieces(), TypeError),
            ([1], b"", ValueError),
            ([1, "a"], [b"", b""], TypeError),
            ([1, 1], [b"", "a"], TypeError),
            ([1 << 32], [b""], OverflowError),
            ([1 << 80], [b""], OverflowError),
        ],
    )
    def test_it_refuses_what_is_no_piece_for_each_descriptor(
        self, descriptors: Any, pieces: Any, error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            write_all(descriptors, pieces)

    @pytest.mark.parametrize("last", [b"", "no bytes"])
    def test_it_keeps_nothing(self, last: Any) -> None:
        piece, shared = bytearray(), b"shared by all"
        before = sys.getrefcount(shared)
        with contextlib.suppress(TypeError):
            write_all([-1, -1, -1], [piece, shared, last])
        assert sys.getrefcount(shared) == before
        piece.append(1)  # nobody looks at it

    def test_nothing_is_nothing(self) -> None:
        assert write_all([], []) == []


def test_descriptor_is_that_of_the_socket(packets: tuple[socket.socket, socket.socket]) -> None:
    assert descriptor_of(Plain(packets[0])) == packets[0].fileno()


def test_what_tls_writes_is_not_what_is_written(packets: tuple[socket.socket, socket.socket]) -> None:
    assert descriptor_of(Plain(packets[0], sslcontext=object())) == -1


def test_transport_without_a_socket_writes_itself() -> None:
    assert descriptor_of(asyncio.Transport()) == -1


async def test_messages_of_one_tick_leave_in_one_write(packets: tuple[socket.socket, socket.socket]) -> None:
    carrier = await opened(Plain(packets[0]), packets[1])
    for number in range(10):
        carrier.send(Outgoing(str(number)))
    with pytest.raises(BlockingIOError):
        packets[1].recv(1000)
    await asyncio.sleep(0)
    assert packets[1].recv(1000) == b"".join([frame(str(number)) for number in range(10)])


async def test_outlet_is_there_while_nothing_waits(packets: tuple[socket.socket, socket.socket]) -> None:
    carrier = await opened(Plain(packets[0]), packets[1])
    assert carrier.outlet == packets[0].fileno()
    carrier.send(Outgoing("a"))
    assert carrier.outlet == -1
    await asyncio.sleep(0)
    assert carrier.outlet == packets[0].fileno()


async def test_what_the_kernel_does_not_take_waits_in_the_transport_and_so_does_what_follows(
    packets: tuple[socket.socket, socket.socket],
) -> None:
    transport = Plain(packets[0])
    carrier = await opened(transport, packets[1])
    sent, number = b"", 0
    while not transport.waiting:
        fire(carrier, str(number))
        sent += frame(str(number))
        number += 1
    read = b""
    while len(read) < len(sent) - len(transport.waiting):
        read += packets[1].recv(1000)
    fire(carrier, "behind")  # the kernel would take it now, and the order would be lost
    await asyncio.sleep(0)
    assert read + transport.drain() == sent + frame("behind")
    fire(carrier, "after")
    assert packets[1].recv(1000) == frame("after")


async def test_who_is_told_that_one_does_not_keep_up_finds_all_others_of_that_write_dealt_with() -> None:
    """Two take a part of a frame, and the first has the second closed: the close frame goes behind the frame."""
    pairs = [socket.socketpair() for _ in range(2)]
    transports, carriers, told = [Plain(ours) for ours, _ in pairs], list[NativeWebSocket](), asyncio.Event()

    def congested() -> None:
        carriers[1].close()
        told.set()

    for transport, (ours, theirs) in zip(transports, pairs, strict=True):
        ours.setblocking(False)
        theirs.setblocking(False)
        _, carrier, echo = await upgrade(EchoServer(), transport)
        assert theirs.recv(1000).startswith(b"HTTP/1.1 101 ")
        carriers.append(carrier)
        echo.congested = congested  # type: ignore[method-assign]
    big = Outgoing("a" * 500_000)
    volley(big, carriers)
    await told.wait()
    taken = drained(pairs[1][1])
    for ends in pairs:
        for end in ends:
            end.close()
    assert 0 < len(taken) < len(big.frames)
    assert taken + transports[1].waiting == big.frames + b"\x88\x02\x03\xe8"


@pytest.mark.parametrize("how", ["close", "abort", "lost"])
async def test_nothing_is_written_to_a_descriptor_that_may_be_another_connections(
    how: str, packets: tuple[socket.socket, socket.socket]
) -> None:
    carrier = await opened(Plain(packets[0]), packets[1])
    if how == "lost":
        carrier.connection_lost(None)
    else:
        carrier.close() if how == "close" else carrier.abort()
    carrier.resume_writing()  # a transport that is closing may still say so
    carrier.send(Outgoing("to somebody else"))
    fire(carrier, "to somebody else")
    await asyncio.sleep(0)
    with pytest.raises(BlockingIOError):
        packets[1].recv(1000)


async def test_client_that_is_gone_is_the_transports_to_tell(packets: tuple[socket.socket, socket.socket]) -> None:
    transport = Plain(packets[0])
    carrier = await opened(transport, packets[1])
    packets[1].close()
    fire(carrier, "a")
    assert transport.waiting == frame("a")


@real
async def test_all_arrives_in_order_at_a_client_that_reads_slowly() -> None:
    """On the loop's own transport, and through a kernel that takes a part of nearly every write."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
    assert descriptor_of(transport) == ours.fileno()
    _, carrier, _ = await upgrade(EchoServer(), transport)
    sent = b""
    with closing(theirs):
        for number in range(300):
            text = f"{number} {'a' * (number * 37 % 3000)}"
            if number % 3:
                fire(carrier, text)
            else:
                carrier.send(Outgoing(text))
            sent += frame(text)
            if number % 5 == 0:
                await asyncio.sleep(0)
        carrier.close()
        received = b""
        while data := await asyncio.wait_for(loop.sock_recv(theirs, 1500), PATIENCE):
            received += data
            if received.endswith(b"\x88\x02\x03\xe8"):
                break
    assert received.partition(b"\r\n\r\n")[2] == sent + b"\x88\x02\x03\xe8"
    transport.abort()


@real
async def test_descriptor_is_still_the_connections_own_when_it_is_lost() -> None:
    """The loop closes it afterwards: until then its number cannot be given to another connection."""
    ours, theirs = socket.socketpair()
    lost: asyncio.Future[os.stat_result] = asyncio.get_running_loop().create_future()
    before = os.fstat(ours.fileno())

    class Witness(asyncio.Protocol):
        @override
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set_result(os.fstat(descriptor))

    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(Witness, ours)
    descriptor = descriptor_of(transport)
    theirs.close()
    assert (await asyncio.wait_for(lost, PATIENCE)).st_ino == before.st_ino
