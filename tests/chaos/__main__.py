"""The proxy in a process of its own: ``python -m tests.chaos --to PORT [--port PORT] [--seed N] [--every SECONDS]``.

It writes its port on the first line. With a seed trouble comes by itself. Each line of standard input is a command,
and is answered by a line of JSON: how many connections there were, how many there are, and what was done to them::

    pass | hold                 what is done with those that come
    reset | stall | resume      all that are there
    half_open                   all that are there: the client is reset, and the server told nothing
    calm                        no more trouble
    count                       nothing but the answer

The end of standard input is the end of the proxy.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from typing import Final

from tests.chaos.proxy import ChaosProxy, Connection
from tests.chaos.schedule import KINDS, Schedule

_TO_ALL: Final[dict[str, Callable[[Connection], None]]] = {
    "reset": Connection.reset,
    "stall": Connection.stall,
    "resume": Connection.resume,
    "half_open": lambda connection: connection.half_open("server"),
}


async def main() -> None:
    given = _arguments()
    schedule = None if given.seed is None else Schedule(given.seed, every=given.every, kinds=given.kinds.split(","))
    proxy = ChaosProxy(given.to, on_connect=schedule)
    await proxy.start(given.port)
    try:
        _say(proxy.port)
        commands = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        async for line in commands:
            await _do(line.decode().strip(), proxy, schedule)
            _say({"accepted": proxy.accepted, "open": len(proxy.connections), "faults": proxy.faults})
    finally:
        if schedule is not None:
            await schedule.calm()
        await proxy.close()


async def _do(command: str, proxy: ChaosProxy, schedule: Schedule | None) -> None:
    if command in ("pass", "hold"):
        proxy.admission = "pass" if command == "pass" else "hold"
    elif command == "calm":
        if schedule is not None:
            await schedule.calm()
    elif command != "count":
        for connection in [*proxy.connections.values()]:
            _TO_ALL[command](connection)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--to", type=int, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--every", type=float, default=1.0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    return parser.parse_args()


def _say(what: object) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
