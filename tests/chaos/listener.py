"""A client that says what it hears: ``python -m tests.chaos.listener URL [--outbox FILE]``.

It writes one JSON list a line, while it is handed over: ``["noted", WRITER, NUMBER]``, ``["state", STATE]``,
``["reset", ROOM, REASON]``, ``["dead letter", EVENT, ERROR]``. The end of standard input is its end.
"""

import argparse
import asyncio
import json
import sys

from bellwire import Client
from tests.chaos.application import NOTED


def say(*words: object) -> None:
    """Write a line."""
    sys.stdout.write(f"{json.dumps(words)}\n")
    sys.stdout.flush()


async def until_the_end_of_input() -> None:
    """Wait until nobody has anything to say any more."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


async def main(url: str, outbox: str | None) -> None:
    """Listen."""
    client = Client(url, outbox=outbox)
    client.on_state(lambda state: say("state", state))
    client.on_reset(lambda reset: say("reset", reset.room, reset.reason))
    client.on_dead_letter(lambda letter: say("dead letter", letter.event, str(letter.error)))
    client.on(NOTED)(lambda writer, number: say("noted", writer, number))
    async with client:
        await until_the_end_of_input()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--outbox")
    given = parser.parse_args()
    asyncio.run(main(given.url, given.outbox))
