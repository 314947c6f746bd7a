"""One kind of load, in a process of its own.

It has to be faster than the fastest server, in Python. So it proves once that the server is right, with a
verifying pass in which every byte is parsed, and from then on counts bytes: TCP neither loses nor reorders them.
At the end every connection must have received exactly the bytes of all messages.

    python -m bellwire.load fanout --port 8000 --connections 1000 --size 128 --windows 1,32 --seconds 2
    python -m bellwire.load roundtrips --port 8000 --connections 100 --client v1 --kind relay
    python -m bellwire.load rooms --port 8000 --connections 1000 --rooms 100
    python -m bellwire.load connecting --port 8000 --connections 500 --client recovering
    python -m bellwire.load idle --port 8000 --connections 10000 --client polling --server PID
"""

import argparse
import gc
import json
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from bellwire.core.open_files import explained, raise_limit
from bellwire.load.amounts import amount, count, counts
from bellwire.load.clients import CLIENTS
from bellwire.load.clients.base import ECHO, KINDS, Client, LoadError, Manner, RefusedError
from bellwire.load.connecting import connecting
from bellwire.load.fanout import fanout
from bellwire.load.idle import idle, websockets
from bellwire.load.polling import pollers
from bellwire.load.processes import REFUSED
from bellwire.load.result import Idle, Result
from bellwire.load.rooms import rooms
from bellwire.load.roundtrips import roundtrips

WORKS = ("fanout", "rooms", "roundtrips", "connecting", "idle")
POLLING = "polling"


def run(options: argparse.Namespace) -> list[Result] | list[Idle]:
    """Do what the arguments say."""
    address, connections = (options.host, options.port), options.connections
    times = {"seconds": options.seconds, "server": options.server}
    manner = Manner(options.kind, options.binary, options.deflate, options.namespace, options.auth)
    if options.client == POLLING:
        return idle(lambda number: pollers(address, number, manner), connections, **times, name=POLLING)
    make = maker(CLIENTS[options.client], manner, connections, options.rooms if options.work == "rooms" else 0)
    if options.work == "idle":
        return idle(websockets(address, make), connections, **times)
    if options.work == "connecting":
        return connecting(address, connections, make, **times)
    if options.work == "roundtrips":
        return roundtrips(address, connections, make, size=options.size, **times)
    if options.work == "rooms":
        return rooms(address, connections, make, size=options.size, rooms=options.rooms, **times)
    publish_at = None if options.publish_at is None else (options.host, options.publish_at)
    return fanout(
        address, connections, make, size=options.size, windows=options.windows, publish_at=publish_at, **times
    )


def maker(client: type[Client], manner: Manner, connections: int, rooms: int) -> Callable[[int], Client]:
    """Make clients, neighbours in the same of so many rooms; of 0 rooms in none."""
    if not rooms:
        return lambda _: client(manner)
    return lambda number: client(manner, f"room{number * rooms // connections}")


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m bellwire.load")
    made.add_argument("work", choices=WORKS)
    made.add_argument("--host", default="127.0.0.1")
    made.add_argument("--port", type=int, required=True)
    made.add_argument("--publish-at", type=int, metavar="PORT", help="where the one who publishes is connected")
    made.add_argument("--client", choices=[*CLIENTS, POLLING], default="stock")
    made.add_argument("--namespace", default="/")
    made.add_argument("--auth", type=json.loads, metavar="JSON", help="what clients say to be let in")
    made.add_argument("--kind", choices=KINDS, default=ECHO, help="what round trips ask for")
    made.add_argument("--binary", action="store_true", help="publish bytes")
    made.add_argument("--deflate", action="store_true", help="ask for compression")
    made.add_argument("--connections", type=count, default=1000)
    made.add_argument("--rooms", type=count, default=100, help="into how many rooms they are divided")
    made.add_argument("--size", type=count, default=128, help="bytes of a payload, from 8 to 60,000")
    made.add_argument("--windows", type=counts, default=[1])
    made.add_argument("--seconds", type=amount, default=2.0, help="length of each measurement")
    made.add_argument("--server", type=int, metavar="PID", help="whose processor time and memory are to be measured")
    return made


def check(options: argparse.Namespace) -> str:
    """Return what does not go together, or nothing."""
    if not 8 <= options.size <= 60_000:  # the number that tells messages apart, and what one frame of a client takes
        return "a payload has 8 to 60,000 bytes"
    if options.kind != ECHO and options.client != "v1":
        return "only clients of bellwire.v1 number their events here"
    if options.client == POLLING and options.work != "idle":
        return "clients over long-polling only wait here: idle"
    if options.work == "rooms" and options.connections % options.rooms:
        return "the connections cannot be divided into so many rooms"
    return ""


def _why(error: LoadError | OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    return explained(error) if isinstance(error, OSError) else str(error)


def main() -> None:
    """Run one kind of load and print the results as JSON."""
    options: Any = parser().parse_args()
    if wrong := check(options):
        parser().error(wrong)
    raise_limit()
    gc.disable()  # there is nothing to collect, and looking for it would be seen in the latencies
    try:
        results = run(options)
    except (LoadError, OSError) as error:
        sys.stderr.write(f"{options.work} at {options.host}:{options.port}: {_why(error)}\n")
        sys.exit(REFUSED if isinstance(error, RefusedError) else 1)
    sys.stdout.write(f"{msgspec.json.encode(results).decode()}\n")


if __name__ == "__main__":
    main()
