"""The same events on python-socketio, with its defaults: ``uvicorn tests.attacks.peer_socketio:app``."""

import asyncio
from typing import Any

import socketio

server = socketio.AsyncServer(async_mode="asgi")
app = socketio.ASGIApp(server)


async def echo(sid: str, text: Any) -> Any:
    """Answer with the same."""
    return text


async def flood(sid: str, kilobytes: int) -> None:
    """Send the client more than it may want to read."""
    for _ in range(kilobytes):
        await server.emit("load", "x" * 1000, to=sid)
        await asyncio.sleep(0)


for name, handler in (("echo", echo), ("anything", echo), ("flood", flood)):
    server.on(name, handler)
