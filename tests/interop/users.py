"""Users on several processes: ``bellwire run tests.interop.users:server --broker ...``."""

from collections.abc import Mapping
from typing import Any

from bellwire import PRESENCE_DIFF, PRESENCE_STATE, Event, Identity, Request, Server, Socket

LOG_OUT = Event("log out everywhere", reply=bool)


async def authenticate(request: Request, payload: Mapping[str, Any]) -> Identity | None:
    user = payload.get("user")
    return Identity(user) if isinstance(user, str) else None


server = Server(auth=authenticate)
root = server.namespace("/", emits=(PRESENCE_STATE, PRESENCE_DIFF))


@root.on_connect
async def entered(socket: Socket) -> None:
    await socket.join("lobby")
    await socket.track("lobby")


@root.on(LOG_OUT)
async def log_out(socket: Socket) -> bool:
    assert socket.user is not None
    await server.user(socket.user).disconnect()
    return True
