"""What one huge room costs, and what it costs all others: ``python -m bench.room``.

Without sockets, in one thread: 100,000 members whose carriers join the frames and count them, and beside them a room of
ten. All times are that thread's processor time, so that it makes no difference what else the machine does. What is left
out is the kernel's part, some microseconds for each write; ``python -m bench.crowd`` has that.
"""

import argparse
import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Awaitable
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from bellwire import Config, Event, Server
from bellwire.load import wire
from bellwire.load.amounts import count
from bellwire.load.clients.base import LoadError
from bellwire.load.result import own_memory, quantiles
from bench.carriers import SILENT, Member, connect

MSG = Event("msg", str)
HUGE, SMALL = "huge", "small"
OTHERS = 10
TEXT = "The quick brown fox jumps over the lazy dog. " * 3
SIZE = wire.framed(len(f'42["msg","{TEXT}"]'))
PATIENCE = 300.0
"""Seconds after which it is given up."""
PROBES = 100
"""Messages to the small room while nothing else happens."""


@dataclass(frozen=True)
class Room:
    """What was found. Times are in milliseconds, latencies are those of messages to the small room."""

    members: int
    batch: int
    rate: float
    """Deliveries to the huge room in a second."""
    alone_p99: float
    """The latency while nothing else happens."""
    p50: float
    p99: float
    ahead: int
    """The most members of the huge room that were served between an emit to the small room and its arrival."""
    member_bytes: float
    """Of memory for each member, beyond its connection."""
    burst_bytes: float
    """Of memory for each member while a burst of broadcasts waits."""
    join_turn: float
    """The longest turn of the loop while all join by one call,"""
    leave_turn: float
    disconnect_turn: float
    """and while all leave, and are disconnected."""


class Turns:
    """The longest turn of the event loop while something is done."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._loop = asyncio.get_running_loop()
        self._last = 0.0
        self._handle: asyncio.Handle | None = None

    async def during(self, work: Awaitable[object]) -> float:
        """Milliseconds of the longest turn while ``work`` is done."""
        self.longest, self._last = 0.0, time.thread_time()
        self._turn()
        try:
            await work
        finally:
            self._turn()
            if self._handle is not None:
                self._handle.cancel()
        return self.longest * 1e3

    def _turn(self) -> None:
        now = time.thread_time()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._handle = self._loop.call_soon(self._turn)


class Experiment:
    """A server with a huge room and a small one."""

    def __init__(self, members: int, batch: int) -> None:
        self.server = Server(config=Config(fanout_batch=batch, **SILENT))
        self.root = self.server.namespace("/", emits=(MSG,))
        self.members: list[Member] = []
        self.served = 0
        """How often a member of the huge room was written to."""
        self._wanted = members
        self._batch = batch
        self._arrived, self._all = asyncio.Event(), asyncio.Event()
        self._missing = 0

    async def run(self, messages: int, burst: int) -> Room:
        """Do it all."""
        async with self.server.lifespan():
            first, *_ = await connect(self.server, OTHERS)
            first.written = lambda _: self._arrived.set()
            await self.root.join(SMALL)
            self.members = await connect(self.server, self._wanted)
            for member in self.members:
                member.written = self._count
            turns, most = Turns(), self.root.except_(SMALL)
            before = _memory()
            join_turn = await turns.during(most.join(HUGE))
            member_bytes = (_memory() - before) / self._wanted
            alone = [await self._aside() for _ in range(PROBES)]
            rate, latencies, ahead = await self._broadcasts(messages)
            burst_bytes = await self._burst(burst)
            leave_turn = await turns.during(most.leave(HUGE))
            disconnect_turn = await turns.during(most.disconnect(close=True))
        return Room(
            self._wanted,
            self._batch,
            rate,
            *(quantiles(alone)[1], *quantiles(latencies)),
            ahead,
            member_bytes,
            burst_bytes,
            *(join_turn, leave_turn, disconnect_turn),
        )

    def _count(self, size: int) -> None:
        self.served += 1
        self._missing -= size
        if not self._missing:
            self._all.set()

    def _expect(self, messages: int) -> list[int]:
        """So many are emitted next; return what everyone has received before."""
        self._missing = messages * SIZE * self._wanted
        self._all.clear()
        return [member.bytes for member in self.members]

    async def _aside(self) -> float:
        """Emit to the small room, and return the seconds until it is there."""
        self._arrived.clear()
        began = time.thread_time()
        await self.root.to(SMALL).emit(MSG, TEXT)
        await self._arrived.wait()
        return time.thread_time() - began

    async def _broadcasts(self, messages: int) -> tuple[float, list[float], int]:
        """Emit one after the other to the huge room; return the rate, and what the small room had of it."""
        latencies, ahead, seconds = [], 0, 0.0
        for _ in range(messages):
            before, began = self._expect(1), time.thread_time()
            await self.root.to(HUGE).emit(MSG, TEXT)
            while not self._all.is_set():
                served = self.served
                latencies.append(await self._aside())
                ahead = max(ahead, self.served - served)
            seconds += time.thread_time() - began
            self._check(before, 1)
        return messages * self._wanted / seconds, latencies, ahead

    async def _burst(self, messages: int) -> float:
        """Emit as fast as that goes; return how much memory each member took of it at most."""
        gc.collect()
        before, held, most = self._expect(messages), own_memory(os.getpid()), 0
        for number in range(messages):
            await self.root.to(HUGE).emit(MSG, TEXT)
            if number % PROBES == 0:
                most = max(most, own_memory(os.getpid()) - held)
                await asyncio.sleep(0)
        await self._all.wait()
        self._check(before, messages)
        return most / self._wanted

    def _check(self, before: list[int], messages: int) -> None:
        """Everyone has all of it, and nothing twice."""
        expected = messages * SIZE
        wrong = [m.bytes - had for m, had in zip(self.members, before, strict=True) if m.bytes - had != expected]
        if wrong:
            raise LoadError(f"{len(wrong)} members received other than {expected} bytes, one of them {wrong[0]}")


def _memory() -> int:
    gc.collect()
    return own_memory(os.getpid())


def measure(members: int, batch: int, messages: int, burst: int) -> Room:
    """Measure in this process, on uvloop."""

    async def work() -> Room:
        async with asyncio.timeout(PATIENCE):
            return await Experiment(members, batch).run(messages, burst)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())


def text(room: Room) -> str:
    """The figures, one in a line."""
    return "\n".join(
        (
            f"{room.members:,} members, batches of {room.batch:,}",
            f"  deliveries                          {room.rate:>12,.0f} a second, one broadcast at a time",
            f"  a message to another room, alone    {room.alone_p99:>12.2f} ms, p99",
            f"  the same during broadcasts          {room.p50:>12.2f} ms, p50",
            f"                                      {room.p99:>12.2f} ms, p99",
            f"  members served before it, at most   {room.ahead:>12,}",
            f"  memory of a member                  {room.member_bytes:>12,.0f} B beyond its connection",
            f"  the same while a burst waits        {room.burst_bytes:>12,.0f} B more",
            f"  longest turn while all join         {room.join_turn:>12.1f} ms",
            f"  while all leave                     {room.leave_turn:>12.1f} ms",
            f"  while all are disconnected          {room.disconnect_turn:>12.1f} ms",
        )
    )


def main() -> None:
    """Parse the arguments, measure, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.room", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--members", type=count, default=100_000, help="of the huge room (default: 100000)")
    parser.add_argument("--batch", type=count, default=Config().fanout_batch, help="Config.fanout_batch (default: its)")
    parser.add_argument("--messages", type=count, default=20, help="broadcasts, one after the other (default: 20)")
    parser.add_argument("--burst", type=count, default=2_000, help="broadcasts that do not wait (default: 2000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file as well")
    options = parser.parse_args()
    try:
        room = measure(options.members, options.batch, options.messages, options.burst)
    except LoadError as error:
        sys.exit(str(error))
    except TimeoutError:
        sys.exit(f"not everyone was served within {PATIENCE:g} s")
    print(text(room))
    if options.json:
        options.json.write_text(json.dumps(asdict(room), indent=2) + "\n")


if __name__ == "__main__":
    main()
