"""The tick: one flush per carrier and round of the loop, broadcasts first."""

import asyncio
import os

import pytest
from typing_extensions import override

from bellwire.protocol.outgoing import Message, Outgoing
from bellwire.transports.base import Carrier
from bellwire.transports.tick import Tick

pytestmark = pytest.mark.usefixtures("writing")


class Paper(Carrier):
    """A carrier that writes down what it is told."""

    name = "paper"

    def __init__(self, tick: Tick, log: list[str]) -> None:
        self.tick = tick
        self.log = log
        self.queue: list[Message] = []

    @override
    def send(self, message: Message) -> None:
        self.queue.append(message)
        if len(self.queue) == 1:
            self.tick.touch(self)

    @override
    def flush(self) -> None:
        self.log.append(" ".join(str(part) for message in self.queue for part in message.parts))
        self.queue.clear()

    @override
    def close(self, code: int = 1000) -> None:
        self.log.append(f"close {code}")

    @override
    def abort(self) -> None:
        self.log.append("abort")

    @override
    def set_reading(self, reading: bool) -> None:
        self.log.append(f"reading {reading}")

    @property
    @override
    def buffered(self) -> int:
        return len(self.queue)

    @property
    @override
    def writable(self) -> bool:
        return True


async def rounds(count: int = 1) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_everything_of_a_tick_is_flushed_once() -> None:
    tick = Tick(asyncio.get_running_loop())
    log: list[str] = []
    one, two = Paper(tick, log), Paper(tick, log)
    one.send(Outgoing("a"))
    two.send(Outgoing("x"))
    one.send(Outgoing("b"))
    assert log == []
    await rounds()
    assert log == ["a b", "x"]
    await rounds(3)
    assert log == ["a b", "x"]


async def test_next_tick_flushes_anew() -> None:
    tick = Tick(asyncio.get_running_loop())
    log: list[str] = []
    carrier = Paper(tick, log)
    for letter in "ab":
        carrier.send(Outgoing(letter))
        await rounds()
    assert log == ["a", "b"]


async def test_broadcasts_are_settled_before_the_flush_and_leave_with_it() -> None:
    tick = Tick(asyncio.get_running_loop())
    log: list[str] = []
    carrier = Paper(tick, log)
    tick.turn = lambda: carrier.send(Outgoing("broadcast"))
    carrier.send(Outgoing("direct"))
    tick.wake()
    await rounds()
    assert log == ["direct broadcast"]


async def test_waking_is_enough_for_a_broadcast() -> None:
    tick = Tick(asyncio.get_running_loop())
    log: list[str] = []
    carrier = Paper(tick, log)
    tick.turn = lambda: carrier.send(Outgoing("broadcast"))
    tick.wake()
    tick.wake()
    await rounds()
    assert log == ["broadcast"]


async def test_what_is_sent_during_a_flush_leaves_in_the_next_tick() -> None:
    tick = Tick(asyncio.get_running_loop())
    log: list[str] = []
    second = Paper(tick, log)

    class Chain(Paper):
        @override
        def flush(self) -> None:
            super().flush()
            second.send(Outgoing("then"))

    Chain(tick, log).send(Outgoing("first"))
    await rounds()
    assert log == ["first"]
    await rounds()
    assert log == ["first", "then"]


async def test_more_than_one_turn_can_bear_are_flushed_in_several_and_none_twice() -> None:
    tick, log = Tick(asyncio.get_running_loop(), most=2), list[str]()
    for name in "abcde":
        Paper(tick, log).send(Outgoing(name))
    for expected in ("ab", "abcd", "abcde", "abcde"):
        await rounds()
        assert "".join(log) == expected


async def test_those_who_wait_share_the_turns_with_those_who_come() -> None:
    tick, log = Tick(asyncio.get_running_loop(), most=2), list[str]()
    for name in "abcdef":
        Paper(tick, log).send(Outgoing(name))
    await rounds()
    for name in "xyz":
        Paper(tick, log).send(Outgoing(name))
    await rounds()
    assert "".join(log) == "abxycd"
    await rounds(2)
    assert "".join(log) == "abxycdefz"


async def test_what_is_sent_to_one_who_waits_leaves_with_the_rest() -> None:
    tick, log = Tick(asyncio.get_running_loop(), most=1), list[str]()
    first, second = Paper(tick, log), Paper(tick, log)
    first.send(Outgoing("a"))
    second.send(Outgoing("x"))
    await rounds()
    second.send(Outgoing("y"))
    await rounds(2)
    assert log == ["a", "x y"]


class Ready(Paper):
    """One that gives out what is due."""

    def __init__(self, tick: Tick, log: list[str], descriptor: int) -> None:
        super().__init__(tick, log)
        self.descriptor = descriptor

    @override
    def due(self) -> tuple[int, bytes] | None:
        data = b"".join([message.frames for message in self.queue])
        self.queue.clear()
        return self.descriptor, data


async def test_what_is_due_is_written_and_the_others_are_flushed() -> None:
    tick, log = Tick(asyncio.get_running_loop()), list[str]()
    reading, writing = os.pipe2(os.O_NONBLOCK)
    ready, paper = Ready(tick, log, writing), Paper(tick, log)
    paper.send(Outgoing("p"))
    ready.send(Outgoing("a"))
    ready.send(Outgoing("b"))
    await rounds()
    assert os.read(reading, 1000) == Outgoing("a").frames + Outgoing("b").frames
    os.close(reading)
    os.close(writing)
    assert log == ["p"]
