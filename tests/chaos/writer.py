"""A client that emits numbered notes: ``python -m tests.chaos.writer URL --first N --last N [--outbox FILE]``.

It writes one JSON list a line: ``["about", NUMBER]`` before each emit, ``["emitted", NUMBER]`` when that has returned,
``["failed", EVENT, ERROR]``, ``["state", STATE]``, and ``["done", REPLY]`` when the last one has its outcome, which is
behind that of all the others. The end of standard input is its end.
"""

import argparse
import asyncio

from bellwire import Client
from tests.chaos.application import NOTE
from tests.chaos.listener import say, until_the_end_of_input

A_LONG_TIME = 600.0


async def main(given: argparse.Namespace) -> None:
    """Write."""
    client = Client(given.url, outbox=given.outbox)
    client.on_state(lambda state: say("state", state))
    client.on_failed(lambda failed: say("failed", failed.event, repr(failed.error)))
    async with client:
        loop = asyncio.get_running_loop()
        due = loop.time()
        for number in range(given.first, given.last):
            say("about", number)
            await client.emit(NOTE, given.name, number)
            say("emitted", number)
            due = max(due + 1 / given.rate, loop.time() - 0.2)
            await asyncio.sleep(max(0.0, due - loop.time()))
        say("about", given.last)
        reply = await client.call(NOTE, given.name, given.last, timeout=A_LONG_TIME)
        say("done", reply)
        await until_the_end_of_input()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--name", default="w")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--last", type=int, required=True)
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--outbox")
    asyncio.run(main(parser.parse_args()))
