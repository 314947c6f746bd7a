"""The program on python-socketio: ``uvicorn --app-dir bench/servers socketio_server:app``."""

import os
from typing import Any
from urllib.parse import parse_qs

import socketio

redis = os.environ.get("BENCH_BROKER")
server = (
    socketio.AsyncServer(async_mode="asgi")
    if redis is None
    # As a rule each event is handled in a task of its own, and over Redis they overtake each other.
    else socketio.AsyncServer(async_mode="asgi", client_manager=socketio.AsyncRedisManager(redis), async_handlers=False)
)
app = socketio.ASGIApp(server)
rooms: dict[str, str] = {}


@server.event
async def connect(sid: str, environ: dict[str, Any]) -> None:
    """Join the room that is named."""
    query = parse_qs(environ["QUERY_STRING"])
    if "room" in query:
        rooms[sid] = query["room"][0]
        await server.enter_room(sid, rooms[sid])


@server.event
async def disconnect(sid: str) -> None:
    """Forget it."""
    rooms.pop(sid, None)


@server.on("pub")
async def publish(sid: str, text: str) -> None:
    """Send the text on to everyone."""
    await server.emit("msg", text, to=rooms.get(sid))


@server.on("pub-bytes")
async def publish_bytes(sid: str, data: bytes) -> None:
    """Send the bytes on to everyone."""
    await server.emit("msg-bytes", data)


@server.on("echo")
async def echo(sid: str, text: str) -> str:
    """Acknowledge with the text."""
    return text
