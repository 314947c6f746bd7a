"""The load generator: one process, raw sockets, epoll, one shared buffer.

It has to be faster than the fastest server, in Python. So it proves once that the server is right, with a
verifying pass in which every byte is parsed, and from then on counts bytes: TCP neither loses nor reorders them.
At the end every connection must have received exactly the bytes of all messages.

    python -m bench.load --port 8000 fanout --connections 1000 --size 128 --windows 1,32 --seconds 2
    python -m bench.load --port 8000 roundtrips --connections 100 --size 128 --seconds 2 --client v1 --kind relay
    python -m bench.load --port 8000 connecting --connections 500 --client recovering
"""

import argparse
import gc
import json
import sys
from dataclasses import asdict

from bench.clients import CLIENTS, ECHO, KINDS, LoadError
from bench.connecting import connecting
from bench.fanout import fanout
from bench.result import Result
from bench.roundtrips import roundtrips


def run(options: argparse.Namespace) -> list[Result]:
    """Do what the arguments say."""
    where, size = (options.host, options.port), options.size
    common = {
        "connections": options.connections,
        "seconds": options.seconds,
        "client": CLIENTS[options.client],
        "server": options.server,
    }
    if options.work == "connecting":
        return connecting(*where, **common)
    if options.work == "fanout":
        return fanout(*where, size=size, windows=options.windows, publish_at=options.publish_at, **common)
    return roundtrips(*where, size=size, kind=options.kind, **common)


def main() -> None:
    """Run one kind of load and print the results as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.load")
    parser.add_argument("work", choices=("fanout", "roundtrips", "connecting"))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--publish-at", type=int, metavar="PORT", help="where the one who publishes is connected")
    parser.add_argument("--client", choices=list(CLIENTS), default="stock")
    parser.add_argument("--kind", choices=KINDS, default=ECHO, help="what round trips ask for")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--size", type=int, default=128, help="bytes of a payload, from 8 on")
    parser.add_argument("--windows", type=lambda value: [int(part) for part in value.split(",")], default=[1])
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement")
    parser.add_argument("--server", type=int, metavar="PID", help="whose processor time is to be measured")
    options = parser.parse_args()
    if options.kind != ECHO and options.client != "v1":
        parser.error("only clients of bellwire.v1 number their events here")
    gc.disable()  # there is nothing to collect, and looking for it would be seen in the latencies
    try:
        results = run(options)
    except (LoadError, OSError) as error:
        sys.exit(f"{options.work} on port {options.port}: {error}")
    print(json.dumps([asdict(result) for result in results]))


if __name__ == "__main__":
    main()
