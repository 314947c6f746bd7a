"""A stock client: python client.py NAME [URL]"""

import asyncio
import sys

import socketio


async def main(name: str, url: str = "http://127.0.0.1:8000") -> None:
    async with socketio.AsyncSimpleClient() as client:
        await client.connect(url)
        print(await client.call("greet", {"name": name}))  # noqa: T201


asyncio.run(main(*sys.argv[1:3]))
