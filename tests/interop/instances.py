"""What clients of two processes connect to: ``bellwire run tests.interop.instances:server --broker ...``, twice."""

from collections.abc import Mapping
from typing import Any

import msgspec

from bellwire import Config, Event, Identity, Request, Server, Socket


class Asked(msgspec.Struct):
    """What was answered, by the ids of those who were asked."""

    answers: dict[str, str]
    missing: list[str] = []
    unreachable: int = 0


ME = Event("me", reply=str)
JOIN = Event("join", str, reply=bool)

SAY = Event("say", list[str], list[str], str, reply=bool)
SAY_TO_USER = Event("say to user", str, str, reply=bool)
SAID = Event("said", str)
SHOW = Event("show", str, bytes, reply=bool)
SHOWN = Event("shown", bytes, str)
TICK = Event("tick", str, str, reply=bool)
TICKED = Event("ticked", str, volatile=True)

ASK = Event("ask", str, reply=Asked)
QUESTION = Event("question", reply=str)

WHO = Event("who", str, reply=dict[str, str])
BRING = Event("bring", str, str, reply=bool)
TAKE = Event("take", str, str, reply=bool)
END = Event("end", str, reply=bool)

NODE = Event("node", reply=str)
TELL_NODES = Event("tell nodes", str, reply=bool)
ASK_NODES = Event("ask nodes", str, reply=Asked)
TOLD = Event("told", reply=list[tuple[str, str]])

NEWS = Event("news", str)
SHOUT = Event("shout", str, reply=str)


async def authenticate(request: Request, payload: Mapping[str, Any]) -> Identity | None:
    """Everybody is the user whom the token names, or a guest."""
    token = payload.get("token")
    return Identity(user=token) if isinstance(token, str) else None


server = Server(auth=authenticate, config=Config(message_rate="off"))  # its clients send all they have at once
root = server.namespace("/", emits=(SAID, SHOWN, TICKED, QUESTION))

told: list[tuple[str, str]] = []


@root.on(ME)
async def me(socket: Socket) -> str:
    """Tell a client its id."""
    return socket.id


@root.on(JOIN)
async def join(socket: Socket, room: str) -> bool:
    """Enter a room."""
    await socket.join(room)
    return True


@root.on(SAY)
async def say(socket: Socket, rooms: list[str], not_to: list[str], text: str) -> bool:
    """Tell those who are in some rooms and in none of some others."""
    await root.to(*rooms).except_(*not_to).emit(SAID, text)
    return True


@root.on(SAY_TO_USER)
async def say_to_user(socket: Socket, user: str, text: str) -> bool:
    """Tell all sockets of a user."""
    await root.user(user).emit(SAID, text)
    return True


@root.on(SHOW)
async def show(socket: Socket, room: str, data: bytes) -> bool:
    """Send binary data."""
    await root.to(room).emit(SHOWN, data, "behind it")
    return True


@root.on(TICK)
async def tick(socket: Socket, room: str, text: str) -> bool:
    """Send something volatile."""
    await root.to(room).emit(TICKED, text)
    return True


@root.on(ASK)
async def ask(socket: Socket, room: str) -> Asked:
    """Ask everybody in a room."""
    replies = await root.to(room).call(QUESTION, timeout=10)
    assert not replies.errors, replies.errors
    return Asked(replies.values, sorted(replies.missing), len(replies.unreachable_nodes))


@root.on(WHO)
async def who(socket: Socket, room: str) -> dict[str, str]:
    """Tell who is in a room: their users, by their ids."""
    found = await root.to(room).sockets()
    assert not found.unreachable_nodes
    assert all(room in one.rooms for one in found)
    return {one.id: one.user or "a guest" for one in found}


@root.on(BRING)
async def bring(socket: Socket, room: str, other: str) -> bool:
    """Let all who are in a room enter another one."""
    await root.to(room).join(other)
    return True


@root.on(TAKE)
async def take(socket: Socket, room: str, other: str) -> bool:
    """Let them leave it."""
    await root.to(room).leave(other)
    return True


@root.on(END)
async def end(socket: Socket, room: str) -> bool:
    """Disconnect all who are in a room."""
    await root.to(room).disconnect()
    return True


@root.on(NODE)
async def node(socket: Socket) -> str:
    """Tell which node this is."""
    return server.nodes.id


@root.on(TELL_NODES)
async def tell_nodes(socket: Socket, text: str) -> bool:
    """Tell the other nodes something."""
    await server.nodes.emit(NEWS, text)
    return True


@root.on(ASK_NODES)
async def ask_nodes(socket: Socket, text: str) -> Asked:
    """Ask the other nodes."""
    replies = await server.nodes.call(SHOUT, text, timeout=10)
    assert not replies.errors, replies.errors
    return Asked(replies.values, unreachable=len(replies.unreachable_nodes))


@root.on(TOLD)
async def tell_what_was_told(socket: Socket) -> list[tuple[str, str]]:
    """Tell what other nodes told this one."""
    return told


@server.nodes.on(NEWS)
async def news(node: str, text: str) -> None:
    """Keep what another node tells."""
    told.append((node, text))


@server.nodes.on(SHOUT)
async def shout(node: str, text: str) -> str:
    """Answer another node."""
    return text.upper()
