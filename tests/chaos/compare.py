"""What gets lost, beside Socket.IO's own server: ``python -m tests.chaos.compare``.

Each server in turn tells numbered notes to three clients, through the proxy, which makes the same trouble for each of
them: what happens to connection N, and when, depends on a seed and N alone. The writer is connected without trouble.
Afterwards it is calm, and one more note comes; what a client has not got by then, it has lost. A loss is silent if the
client was not told of it: a stock client is told when it connects without being recovered, Bellwire's by a reset.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.chaos.program import Program, program, python
from tests.chaos.proxy import ChaosProxy
from tests.chaos.schedule import Schedule
from tests.chaos.verdict import verdict
from tests.interop.processes import install, program_path
from tests.ports import free_port

CLIENTS: Final = 3
NODE: Final = program_path("node") or "node"
PEER: Final = Path(__file__).parent / "peer"
STOCK: Final = str(Path(__file__).parent / "js" / "listener.js")
BELLWIRE: Final = (sys.executable, "-m", "bellwire", "run", "tests.chaos.application:server", "--port")

PATIENCE: Final = 60.0
A_SECOND: Final = 1.0


@dataclass(frozen=True)
class Contestant:
    """A server and its clients; ``server`` is a command whose last argument but ``options`` is the port."""

    name: str
    server: tuple[str, ...]
    options: tuple[str, ...] = ()
    stock: bool = True

    def listener(self, port: int) -> list[str]:
        """The command that runs a client."""
        url = f"http://127.0.0.1:{port}"
        return [NODE, STOCK, url, '{"transports": ["websocket"]}'] if self.stock else python("listener", url)


CONTESTANTS: Final = (
    Contestant("Socket.IO 4.8.4", (NODE, str(PEER / "server.js")), ("false",)),
    Contestant("Socket.IO 4.8.4, its recovery on", (NODE, str(PEER / "server.js")), ("true",)),
    Contestant("Bellwire, stock clients", BELLWIRE),
    Contestant("Bellwire, stock clients, recovery on", BELLWIRE, ("--connection-state-recovery",)),
    Contestant("Bellwire, its own client", BELLWIRE, stock=False),
)


@dataclass(frozen=True)
class Heard:
    """What became of one client."""

    reconnected: int
    lost: int
    silently: int
    doubled: int
    disordered: int

    @classmethod
    def of(cls, said: Sequence[list[Any]], count: int) -> "Heard":
        """Read what a client has said."""
        numbers = [line[2] for line in said if line[0] == "noted" and line[2] <= count]
        found = verdict(numbers, range(1, count + 1))
        return cls(
            reconnected=sum(map(is_connection, said)) - 1,
            lost=len(found["lost"]),
            silently=sum(silent_gaps(said, count)),
            doubled=len(numbers) - len(set(numbers)),
            disordered=len(found["out of order"]),
        )


def silent_gaps(said: Sequence[list[Any]], count: int) -> Iterator[int]:
    """How many notes are left out each time between two, where the client was told nothing."""
    last, told = 0, False
    for line in said:
        if line[0] == "reset" or (line[0] == "connect" and line[2] is False and last):
            told = True
        elif line[0] == "noted":
            number = min(line[2], count + 1)
            if number > last + 1 and not told:
                yield number - last - 1
            last, told = max(last, number), False


class Ring:
    """Where one contestant is tried."""

    def __init__(self, given: argparse.Namespace, modules: Path) -> None:
        self._given = given
        self._environ = {"NODE_PATH": str(modules)}

    async def try_out(self, contestant: Contestant, seed: int) -> list[Heard]:
        """Let clients listen to all the notes."""
        given, port = self._given, free_port()
        command = [*contestant.server, str(port), *contestant.options]
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(program(*command, environ=self._environ))
            await server.until(lambda: bool(server.said), "the server's address")
            proxy = await stack.enter_async_context(ChaosProxy(port))
            listening = contestant.listener(proxy.port)
            listeners = [
                await stack.enter_async_context(program(*listening, environ=self._environ)) for _ in range(CLIENTS)
            ]
            for listener in listeners:
                await connection(listener)
            async with self._trouble(proxy, seed):
                writer = await stack.enter_async_context(self._writer(port, 1, given.count))
                await writer.hear("done", 1, PATIENCE + given.count / given.rate)
            await self._end(stack, port, listeners)
            return [Heard.of(listener.said, given.count) for listener in listeners]

    def _writer(self, port: int, first: int, last: int) -> Any:
        arguments = ["--first", str(first), "--last", str(last), "--rate", str(self._given.rate)]
        return program(*python("writer", f"http://127.0.0.1:{port}", *arguments))

    @asynccontextmanager
    async def _trouble(self, proxy: ChaosProxy, seed: int) -> AsyncIterator[None]:
        proxy.on_connect = schedule = Schedule(seed, every=self._given.every)
        for connection in proxy.connections.values():
            schedule(connection)
        try:
            yield
        finally:
            await schedule.calm()

    async def _end(self, stack: AsyncExitStack, port: int, listeners: Sequence[Program]) -> None:
        """Write more until everybody has heard some of that: some may still be about to find out that it is calm."""
        last = self._given.count
        async with asyncio.timeout(PATIENCE):
            while not all(hears_beyond(listener, self._given.count) for listener in listeners):
                last += 1
                writer = await stack.enter_async_context(self._writer(port, last, last))
                await writer.hear("done", 1)
                await asyncio.sleep(A_SECOND)


def is_connection(line: list[Any]) -> bool:
    return line[0] == "connect" or line == ["state", "connected"]


async def connection(listener: Program) -> None:
    """Wait until it is connected."""
    await listener.until(lambda: any(map(is_connection, listener.said)), "a connection")


def hears_beyond(listener: Program, count: int) -> bool:
    return any(line[0] == "noted" and line[2] > count for line in listener.said)


def table(results: Sequence[tuple[str, Sequence[Heard]]]) -> str:
    """A line for each contestant, with a number for each of its clients."""
    columns = [field.name for field in fields(Heard)]
    rows = [("", *columns)]
    for name, clients in results:
        rows.append((name, *(" ".join(str(getattr(heard, column)) for heard in clients) for column in columns)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


async def main(given: argparse.Namespace) -> None:
    """Try every contestant with every seed."""
    with TemporaryDirectory() as folder:
        missing = await asyncio.to_thread(install, Path(folder) / "modules", PEER)
        if missing:
            sys.exit(missing)
        ring = Ring(given, Path(folder) / "modules" / "node_modules")
        sys.stdout.write(f"{given.count} notes, {given.rate:g}/s; trouble every {given.every:g} s or so\n")
        for seed in range(given.seed, given.seed + given.rounds):
            results = [(contestant.name, await ring.try_out(contestant, seed)) for contestant in CONTESTANTS]
            sys.stdout.write(f"\nseed {seed}\n{table(results)}")
            sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--rate", type=float, default=150.0)
    parser.add_argument("--every", type=float, default=0.85)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    asyncio.run(main(parser.parse_args()))
