"""One message to many sinks: written where that is possible, sent where it is not, and never both."""

import os
import socket
from contextlib import closing

import pytest
from typing_extensions import override

from bellwire.protocol.outgoing import Message, Outgoing
from bellwire.transports.base import Sink
from bellwire.transports.volley import fire as volley

pytestmark = pytest.mark.usefixtures("writing")

MESSAGE = Outgoing("42[]")


class Outlet(Sink):
    """A sink with a descriptor, which writes down what else it is given."""

    buffered = 0
    writable = True

    def __init__(self, descriptor: int = -1) -> None:
        self.outlet = descriptor
        self.sent: list[Message] = []
        self.rest: list[bytes] = []

    @override
    def unwritten(self, data: memoryview) -> None:
        self.rest.append(bytes(data))

    @override
    def send(self, message: Message) -> None:
        self.sent.append(message)


def fire(*sinks: Sink) -> None:
    volley(MESSAGE, sinks)


def test_what_has_an_outlet_is_written_to_and_the_rest_is_sent() -> None:
    reading, writing = os.pipe()
    written, sent = Outlet(writing), Outlet()
    fire(sent, written)
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert pipe.read() == MESSAGE.frames
    assert (written.sent, written.rest) == ([], [])
    assert (sent.sent, sent.rest) == ([MESSAGE], [])


def test_what_the_kernel_does_not_take_is_given_back_to_its_own_sink() -> None:
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        ours.setblocking(False)
        try:
            while ours.send(b"a" * 65_536):
                pass
        except BlockingIOError:
            pass
        full, other = Outlet(ours.fileno()), Outlet(os.open(os.devnull, os.O_WRONLY))
        fire(other, full)
        os.close(other.outlet)
    assert (other.rest, full.rest) == ([], [MESSAGE.frames])
    assert other.sent == full.sent == []


def test_nobody_is_written_to_without_a_recipient() -> None:
    fire()
