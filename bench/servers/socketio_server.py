"""The program on python-socketio: ``uvicorn bench.servers.socketio_server:app``."""

import os

import socketio

redis = os.environ.get("BENCH_REDIS")
server = (
    socketio.AsyncServer(async_mode="asgi")
    if redis is None
    # As a rule each event is handled in a task of its own, and over Redis they overtake each other.
    else socketio.AsyncServer(async_mode="asgi", client_manager=socketio.AsyncRedisManager(redis), async_handlers=False)
)
app = socketio.ASGIApp(server)


@server.on("pub")
async def publish(sid: str, text: str) -> None:
    """Send the text on to everyone."""
    await server.emit("msg", text)


@server.on("echo")
async def echo(sid: str, text: str) -> str:
    """Acknowledge with the text."""
    return text
