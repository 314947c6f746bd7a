"""Half of the most that a server can do, for half an hour: ``python -m bench.soak``.

One process publishes at fixed times to clients that can recover. Meanwhile this one lets others come, ask and leave,
and looks at the server every minute. In the end there is a table, and it says what stayed as it was; it ends with 1 if
anything did not.
"""

import argparse
import asyncio
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from bellwire.core.open_files import raise_limit
from bellwire.load import machine
from bellwire.load.amounts import amount, count, fraction
from bellwire.load.clients.base import LoadError, Manner
from bellwire.load.clients.socketio import Recovering, Stock
from bellwire.load.processes import HOST, ProcessError, measure, on_core, running
from bellwire.load.result import Result, own_memory
from bellwire.load.roundtrips import RoundTrips
from bellwire.load.swarm import Address, swarm
from bench import brokers
from bench.contestants import RECOVERING
from bench.paced import parts
from bench.peers import SERVERS
from bench.rounds import progress
from bench.verdict import FEWEST, Tolerance, Verdict, judge

MEMORY = "memory"
VISITORS = 20
"""Clients that come, ask and leave every second."""
LIFE = 120
"""Seconds for which sessions and histories are kept. A visitor's streams outlive its session by that."""
LONG_ENOUGH = 15.0
"""Minutes of which the first third is enough that as much goes as comes."""

KEPT_UP = 0.98
"""The share of what was due from which on a server has kept up."""
TOLERANCES = {
    "p99_ms": Tolerance(0.25, 1.0),
    "memory_bytes": Tolerance(0.02, 1_000_000),
    "tasks": Tolerance(0.0, 5),
    "descriptors": Tolerance(0.0, 10),
    "broker_keys": Tolerance(0.05, 50),
}


@dataclass(frozen=True)
class Minute:
    """What was seen in it; ``broker_keys`` are 0 with the broker in memory, whose memory is the server's."""

    due: float
    """Deliveries per second that were to be made, and"""
    per_second: float
    """those that were."""
    p50_ms: float
    p99_ms: float
    server_us: float
    memory_bytes: int
    tasks: int
    descriptors: int
    broker_keys: int


@dataclass(frozen=True)
class Server:
    """What is soaked."""

    address: Address
    process: int
    keys: Callable[[], int]


def soak(server: Server, *, connections: int, share: float, minutes: float, every: float) -> Iterator[Minute]:
    """Find the most, and do that share of it for so long.

    Raises:
        LoadError: the server did not keep up, or did something else than it should.

    """
    _, core = machine.cores()
    port = server.address[1]
    crowd = ["--connections", str(connections), "--client", "recovering"]
    (most,) = measure(["fanout", "--windows", "32", *crowd], port, server.process, core)
    if not isinstance(most, Result):
        raise LoadError("the most that it can do was not measured")
    rate = most.rate / connections * share
    progress(f"{most.rate:,.0f} deliveries/s at most; {share:g} of it are {rate:,.0f} messages/s to {connections:,}")
    command = [sys.executable, "-m", "bench.paced", "--port", str(port), "--server", str(server.process), *crowd]
    command += ["--rate", str(rate), "--seconds", str(minutes * 60), "--every", str(every)]
    with on_core(core), subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as load:
        try:
            for _ in range(parts(minutes * 60, every)):
                if not (line := _next(load, server)):
                    raise LoadError("the load was given up, see above")
                yield _minute(msgspec.json.decode(line, type=Result), server, rate * connections)
        finally:
            load.terminate()


def _next(load: subprocess.Popen[bytes], server: Server) -> bytes:
    """Wait for the next line; meanwhile clients come and go."""
    assert load.stdout is not None
    while not select.select([load.stdout], [], [], 1.0)[0]:
        with swarm(server.address, VISITORS, lambda _: Recovering(Manner())) as visitors:
            RoundTrips(visitors, 128).verify()
    return load.stdout.readline()


def _minute(result: Result, server: Server, due: float) -> Minute:
    return Minute(
        due,
        result.rate,
        result.p50,
        result.p99,
        result.cpu,
        own_memory(server.process),
        _tasks(server.address),
        len(os.listdir(f"/proc/{server.process}/fd")),
        server.keys(),
    )


def _tasks(address: Address) -> int:
    with swarm(address, 1, lambda _: Stock(Manner(namespace="/watch"))) as watch:
        (connection,) = watch.members.values()
        connection.socket.send(connection.client.ask(1, "how many tasks?"))
        while True:
            for ready in watch.readable():
                for _, said in ready.said(ready.receive()):
                    return int(str(said))


def verdicts(minutes: list[Minute]) -> list[Verdict]:
    """Judge each figure."""
    return [judge(name, [getattr(each, name) for each in minutes], within) for name, within in TOLERANCES.items()]


FIGURES: tuple[tuple[str, str, float, int], ...] = (
    ("deliveries a second", "per_second", 1, 0),
    ("latency, median, ms", "p50_ms", 1, 2),
    ("99th percentile, ms", "p99_ms", 1, 2),
    ("server time of each, µs", "server_us", 1, 2),
    ("memory, MB", "memory_bytes", 1e6, 1),
    ("tasks", "tasks", 1, 0),
    ("descriptors", "descriptors", 1, 0),
    ("keys in the broker", "broker_keys", 1, 0),
)
"""What the table has: its name there, that of the figure, what it is divided by, and digits."""


def table(minutes: list[Minute], title: str, every: float) -> str:
    """Lay out what was seen, in Markdown: each figure's first value, medians, slope, and verdict if it has one."""
    first = "first minute" if every == 60 else f"first {every:g} s"
    lines = [f"| {title} | {first} | second third | last third | an hour adds | |", "|---|--:|--:|--:|--:|---|"]
    for name, figure, unit, digits in FIGURES:
        values = [getattr(each, figure) / unit for each in minutes]
        within = TOLERANCES.get(figure)
        found = judge(name, values, within._replace(amount=within.amount / unit) if within else Tolerance(0.0, 0.0))
        numbers = (values[0], found.before, found.after, found.slope * 3600 / every)
        said = "" if within is None else "flat" if found.flat else "**rises**"
        lines.append(f"| {name} | {' | '.join(f'{number:,.{digits}f}' for number in numbers)} | {said} |")
    return "\n".join(lines)


def late(minutes: list[Minute]) -> list[int]:
    """The minutes in which the server did not keep up, from 1 on."""
    return [number for number, each in enumerate(minutes, 1) if each.per_second < KEPT_UP * each.due]


# --- the server and its broker


def serve(stack: ExitStack, broker: str) -> Server:
    """Start a server on one core, with its broker."""
    core, _ = machine.cores()
    command = RECOVERING.replace("bellwire.load.program", "watched_server").replace("{python}", sys.executable).split()
    command += ["--session-lifetime", str(LIFE), "--history-seconds", str(LIFE)]
    keys = _none
    if broker != MEMORY:
        folder = stack.enter_context(TemporaryDirectory())
        port, _ = stack.enter_context(running(broker, brokers.command(broker, folder), core))
        address = brokers.ADDRESSES[broker].format(host=HOST, port=port)
        command += ["--broker", address]
        keys = partial(_valkey_keys, port) if broker == brokers.VALKEY else partial(_nats_messages, address)
    started = running("the server", command, core, {"PYTHONPATH": str(SERVERS)}, ready="Bellwire serves")
    port, process = stack.enter_context(started)
    return Server((HOST, port), process, keys)


def _none() -> int:
    return 0


def _valkey_keys(port: int) -> int:
    with socket.create_connection((HOST, port), timeout=10) as link:
        link.sendall(b"DBSIZE\r\n")
        return int(link.recv(100).strip(b":\r\n"))


def _nats_messages(address: str) -> int:
    return asyncio.run(_count_messages(address))


async def _count_messages(address: str) -> int:
    import nats  # only those who soak it have it

    link = await nats.connect(address)
    try:
        return sum(each.state.messages for each in await link.jetstream().streams_info())
    finally:
        await link.close()


def main(words: Sequence[str] | None = None) -> None:
    """Parse the arguments, soak, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=amount, default=30.0, help="default: 30")
    parser.add_argument("--every", type=amount, default=60.0, help="seconds of a line (default: 60)")
    parser.add_argument("--connections", type=count, default=1_000, help="default: 1000")
    parser.add_argument("--share", type=fraction, default=0.5, help="of the most that it can do (default: 0.5)")
    parser.add_argument("--broker", choices=[MEMORY, brokers.VALKEY, brokers.NATS], default=MEMORY)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all minutes to this file as well")
    options = parser.parse_args(words)
    if parts(seconds := options.minutes * 60, options.every) < FEWEST:
        less = f"a longer time, or --every {seconds / FEWEST:g} or less"
        parser.error(f"{seconds:g} s are no {FEWEST} lines of {options.every:g} s, which a verdict takes: give {less}")
    raise_limit()
    minutes: list[Minute] = []
    try:
        with ExitStack() as stack:
            server = serve(stack, options.broker)
            load = {"connections": options.connections, "share": options.share}
            for minute in soak(server, **load, minutes=options.minutes, every=options.every):
                minutes.append(minute)
                print(f"{len(minutes):3}  {_line(minute)}", flush=True)
    except (LoadError, ProcessError, OSError) as error:
        sys.exit(str(error))
    found, behind = verdicts(minutes), late(minutes)
    title = f"{options.minutes:g} min, {options.connections:,} clients, {options.share:g} of the most, {options.broker}"
    print(table(minutes, title, options.every), *found, sep="\n")
    if behind:
        print(f"It did NOT keep up in the minutes {behind}: soak it with a smaller --share.")
    if options.minutes < LONG_ENOUGH:
        print(f"Mind: in less than {LONG_ENOUGH:g} minutes there are still more sessions and streams every minute.")
    if options.json:
        _write(options.json, minutes, found, behind)
    sys.exit(0 if all(each.flat for each in found) and not behind else 1)


def _write(file: Path, minutes: list[Minute], found: list[Verdict], behind: list[int]) -> None:
    data = {
        "machine": asdict(machine.describe(["bellwire", "uvloop"])),
        "minutes": [asdict(minute) for minute in minutes],
        "verdicts": [verdict._asdict() for verdict in found],
        "late": behind,
    }
    file.write_text(json.dumps(data, indent=2) + "\n")


def _line(minute: Minute) -> str:
    return (
        f"{minute.per_second:,.0f}/s, p50 {minute.p50_ms:.2f} ms, p99 {minute.p99_ms:.2f} ms, "
        f"{minute.server_us:.2f} us each, {minute.memory_bytes / 1e6:,.1f} MB, {minute.tasks} tasks, "
        f"{minute.descriptors} descriptors, {minute.broker_keys:,} keys"
    )


if __name__ == "__main__":
    main()
