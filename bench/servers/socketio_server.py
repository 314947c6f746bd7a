"""The program on python-socketio: ``uvicorn bench.servers.socketio_server:app``."""

import socketio

server = socketio.AsyncServer(async_mode="asgi")
app = socketio.ASGIApp(server)


@server.on("pub")
async def publish(sid: str, text: str) -> None:
    """Send the text on to everyone."""
    await server.emit("msg", text)


@server.on("echo")
async def echo(sid: str, text: str) -> str:
    """Acknowledge with the text."""
    return text
