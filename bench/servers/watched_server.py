"""The program on Bellwire, with a namespace that says how many tasks there are in its process."""

import asyncio

from bellwire import Socket
from bellwire.load.program import ECHO, server

watch = server.namespace("/watch")


@watch.on(ECHO)
async def tasks(socket: Socket, text: str) -> str:
    """Say it."""
    return str(len(asyncio.all_tasks()))
