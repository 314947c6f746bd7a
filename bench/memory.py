"""How much memory streams and records take, that are no connections: ``python -m bench.memory``.

Each is made so many times in a process of its own, and the growth of that process is divided by their number, from a
first few hundred on.
"""

import argparse
import asyncio
import gc
import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from bellwire import Config, Server, Socket
from bellwire.brokers.memory import MemoryBroker
from bellwire.delivery.entry import Draft
from bellwire.delivery.position import Position
from bellwire.delivery.session import Member, encode_record, new_record
from bellwire.load.amounts import count
from bellwire.load.fanout import text
from bellwire.load.processes import ProcessError
from bellwire.load.result import own_memory
from bench import ROOT
from bench.carriers import SILENT, connect

NUMBER = 2_000
FIRST = 500
"""Things before the first look: what all share is made with them."""
EACH = 100
"""Rooms of one socket."""
BODY = len(text(128))

Make = Callable[[int], Awaitable[object]]
"""Makes thing number n; what it returns is kept."""


async def _grown(make: Make, number: int) -> float:
    kept = [await make(n) for n in range(FIRST)]
    gc.collect()
    before = own_memory(os.getpid())
    kept += [await make(FIRST + n) for n in range(number)]
    gc.collect()
    return (own_memory(os.getpid()) - before) / number


async def _broker() -> MemoryBroker:
    broker = MemoryBroker()
    await broker.start()
    return broker


def _draft() -> Draft:
    return Draft(secrets.token_hex(9) + "1f", secrets.randbits(32), secrets.token_bytes(BODY + 8))


async def stream(number: int) -> float:
    """A stream's log with one entry, and nobody in it."""
    broker = await _broker()
    return await _grown(lambda _: broker.append(secrets.token_hex(16), _draft()), number)


async def history(number: int) -> float:
    """A stream's log with all the history that it can have."""
    broker = await _broker()

    async def make(n: int) -> None:
        for _ in range(1 if n < FIRST else 1_001):
            await broker.append(f"{n:032x}", _draft())

    return await _grown(make, max(1, number // 100))


async def room(number: int) -> float:
    """A stream with one entry, and the room in which a node follows it for members that recover."""
    server = Server()
    namespace = server.namespace("/")
    async with server.lifespan():
        hub, broker = namespace.hub("/"), namespace.runtime.broker

        async def make(n: int) -> object:
            followed = hub.guest(f"room:{n}")
            await broker.append(followed.stream, _draft())
            await followed.stand()
            return followed

        return await _grown(make, number)


async def record(number: int) -> float:
    """A session's record as the broker has it: a member of its namespace's stream, its own, and one room's."""
    broker = await _broker()

    def member(kind: str, name: str) -> tuple[str, Member]:
        return secrets.token_hex(16), Member(kind, name, Position("9f3b2c1d0e4f.123", 4321, secrets.randbits(32)))

    async def make(_: int) -> object:
        sid = secrets.token_urlsafe(15)
        streams = dict([member("n", ""), member("r", sid), member("r", "room:lobby")])
        made = new_record(sid, secrets.token_hex(4), secrets.randbits(64), streams=streams)
        return await broker.put(f"bellwire:session:{secrets.token_hex(16)}", encode_record(made), ttl=86_400.0)

    return await _grown(make, number)


@asynccontextmanager
async def _sockets(number: int) -> AsyncIterator[list[Socket]]:
    """As many sockets as things need that are `EACH` on one."""
    server = Server(config=Config(**SILENT))
    namespace = server.namespace("/")
    async with server.lifespan():
        await connect(server, (FIRST + number) // EACH + 1)
        yield list(namespace.hub("/").sockets.values())


async def membership(number: int) -> float:
    """A socket's place in a room that others are in as well."""
    async with _sockets(number) as sockets:
        return await _grown(lambda n: sockets[n // EACH].join(f"room:{n % EACH}"), number)


async def lone(number: int) -> float:
    """A room with one member that recovers nothing, and its place in it."""
    async with _sockets(number) as sockets:
        return await _grown(lambda n: sockets[n // EACH].join(f"room:{n}"), number)


THINGS = {
    "stream": stream,
    "history": history,
    "room": room,
    "record": record,
    "membership": membership,
    "lone": lone,
}
TITLES = {
    "membership": "a socket's place in a room",
    "lone": "a room with one member that recovers nothing",
    "stream": "a stream in the broker in memory, one message",
    "history": "the same with 1,000 messages of 128 B",
    "room": "a stream with one message that a node follows",
    "record": "a session's record with three streams",
}


def per_thing(what: str, number: int) -> float:
    """Bytes for each, measured in another process."""
    command = [sys.executable, "-m", "bench.memory", "--thing", what, "--number", str(number)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if said.returncode:
        raise ProcessError(said.stderr.strip())
    return float(said.stdout)


def main() -> None:
    """Parse the arguments, measure, and print the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=count, default=3, help="measurements of each; the median counts (default: 3)")
    parser.add_argument("--number", type=count, default=NUMBER, help=f"how many are made (default: {NUMBER})")
    parser.add_argument("--thing", choices=list(THINGS), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file as well")
    options = parser.parse_args()
    if options.thing:
        print(asyncio.run(THINGS[options.thing](options.number)))
        return
    figures: dict[str, list[float]] = {}
    try:
        for _ in range(options.rounds):
            for what, title in TITLES.items():
                figures.setdefault(title, []).append(per_thing(what, options.number))
    except ProcessError as error:
        sys.exit(str(error))
    for title, values in figures.items():
        print(f"{title:48}{median(values):>12,.0f} B   ({min(values):,.0f} .. {max(values):,.0f})")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
