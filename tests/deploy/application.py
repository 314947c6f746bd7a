"""What clients reach through the proxies: ``bellwire run tests.deploy.application:server``."""

import os

from bellwire import Event, Server, Socket
from bellwire.transports.base import Receive, Scope, Send

NOTE = Event("note", int, reply=bool)
NOTED = Event("noted", int)
WHERE = Event("where", reply=int)
ECHO = Event("echo", str, reply=str)
HEADERS = Event("headers", reply=dict[str, str])
CLIENT = Event("client", reply=tuple[str, str])

ROOM = "notes"
"""Everybody is in it."""


async def pages(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer ``/where`` with the process, and anything else with a first line behind which nothing comes."""
    assert scope["type"] == "http"
    where = scope["path"] == "/where"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    body = f"{os.getpid()}" if where else "the first line\n"
    await send({"type": "http.response.body", "body": body.encode(), "more_body": not where})
    while not where and (await receive())["type"] != "http.disconnect":
        pass


server = Server(http=pages)
root = server.namespace("/", emits=(NOTED,))


@root.on_connect
async def joined(socket: Socket) -> None:
    """Enter the room."""
    if not socket.recovered:
        await socket.join(ROOM)


@root.on(NOTE, effect="relay")
async def note(socket: Socket, number: int) -> bool:
    """Tell everybody."""
    await root.to(ROOM).emit(NOTED, number)
    return True


@root.on(WHERE)
async def where(socket: Socket) -> int:
    """Tell the process that serves the client."""
    return os.getpid()


@root.on(ECHO)
async def echo(socket: Socket, text: str) -> str:
    """Answer with the same."""
    return text


@root.on(HEADERS)
async def headers(socket: Socket) -> dict[str, str]:
    """Tell the headers of the request that opened the connection."""
    return dict(socket.request.headers)


@root.on(CLIENT)
async def client(socket: Socket) -> tuple[str, str]:
    """Tell how the client has connected, and from where."""
    assert socket.request.client is not None
    return socket.request.scheme, socket.request.client[0]
