"""What is attacked: ``bellwire run tests.attacks.application:server``, with every kind of event that clients abuse."""

import asyncio
import gc
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from bellwire import BellwireError, ConnectRefused, Event, Identity, JWTAuth, PlainText, Request, Server, Socket

KEY: Final = "the key of the tokens in these tests, which is as long as the longest algorithm wants"
AUDIENCE: Final = "attacks"


class Note(msgspec.Struct):
    """Text that people write."""

    text: Annotated[PlainText, msgspec.Meta(max_length=200)]


class Vitals(msgspec.Struct):
    """What the process has to show for itself."""

    tasks: int
    """Without those that are kept for the handlers to come (`bellwire.server.dispatch`)."""
    sessions: int
    counters: dict[str, int]


ECHO = Event("echo", str, reply=str)
ANYTHING = Event("anything", Any, reply=Any)
COUNT = Event("count", int, reply=int)
NOTE = Event("note", Note, reply=str)
PARCEL = Event("parcel", list[bytes], reply=int)
JOIN = Event("join", str, reply=bool)
SAY = Event("say", str, str, reply=bool)
SAID = Event("said", str)
FLOOD = Event("flood", int, reply=bool)
LOAD = Event("load", str)
ASK_ME = Event("ask me", reply=str)
QUESTION = Event("question", reply=str)
ELEVEN = Event("eleven", reply=str)
PARTS = Event("parts", list[bytes])
RELAY = Event("relay", Any, reply=bool)
VITALS = Event("vitals", reply=Vitals)
OBJECTS = Event("objects", reply=int)
WHO_AM_I = Event("who am i", reply=str | None)
REVOKE = Event("revoke", str, reply=bool)

_tokens: Final = JWTAuth(key=KEY, algorithms=["HS256"], audience=AUDIENCE)


async def authenticate(request: Request, payload: Mapping[str, Any]) -> Identity | None:
    """Let guests in, and users by their tokens."""
    return await _tokens(request, payload) if "token" in payload else None


server = Server(auth=authenticate)
root = server.namespace("/", emits=(SAID, LOAD, QUESTION, PARTS))
members = server.namespace("/members")


@members.use
async def only_members(socket: Socket, proceed: Any) -> None:
    """Turn guests away."""
    if socket.user is None:
        raise ConnectRefused("for members only")
    await proceed()


@root.authorize
async def may_join(socket: Socket, room: str) -> bool:
    """Keep the rooms that begin with ``secret`` shut."""
    return not room.startswith("secret")


@root.on(ECHO)
async def echo(socket: Socket, text: str) -> str:
    """Answer with the same."""
    return text


@root.on(ANYTHING)
async def anything(socket: Socket, value: Any) -> Any:
    """Answer with the same."""
    return value


@root.on(COUNT)
async def count(socket: Socket, number: int) -> int:
    """Answer with the same."""
    return number


@root.on(NOTE)
async def note(socket: Socket, written: Note) -> str:
    """Answer with what is left of it."""
    return written.text


@root.on(PARCEL)
async def parcel(socket: Socket, parts: list[bytes]) -> int:
    """Say how many bytes came."""
    return sum(map(len, parts))


@root.on(JOIN)
async def join(socket: Socket, room: str) -> bool:
    """Enter a room that the client names."""
    await socket.join(room)
    return True


@root.on(SAY)
async def say(socket: Socket, room: str, text: str) -> bool:
    """Tell everyone in a room."""
    await root.to(room).emit(SAID, text)
    return True


@root.on(RELAY)
async def relay(socket: Socket, value: Any) -> bool:
    """Tell everyone whatever it is."""
    await root.to("relay").emit(SAID, str(value)[:100])
    return True


@root.on(FLOOD)
async def flood(socket: Socket, kilobytes: int) -> bool:
    """Send the client more than it may want to read."""
    for number in range(kilobytes):
        await socket.emit(LOAD, "x" * 1000)
        if number % 100 == 0:
            await asyncio.sleep(0)
    return True


@root.on(ASK_ME)
async def ask_me(socket: Socket) -> str:
    """Ask the client, and answer with its answer."""
    return await socket.call(QUESTION, timeout=2)


@root.on(ELEVEN)
async def eleven(socket: Socket) -> str:
    """Try to send more attachments than clients take."""
    try:
        await socket.emit(PARTS, [b"x"] * 11)
    except BellwireError as error:
        return error.code
    return "sent"


@root.on(VITALS)
async def vitals(socket: Socket) -> Vitals:
    """Say how many tasks and sessions there are, and what was counted."""
    engine = server.engine
    sessions = len(engine.sessions) + len(engine.raw_sessions)
    tasks = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") != "_carry_on"]
    return Vitals(len(tasks), sessions, server.counters.snapshot())


@root.on(OBJECTS)
async def objects(socket: Socket) -> int:
    """Say how many objects there are."""
    gc.collect()
    return len(gc.get_objects())


@root.on(WHO_AM_I)
async def who_am_i(socket: Socket) -> str | None:
    """Answer with the user's id."""
    return socket.user


@root.on(REVOKE)
async def revoke(socket: Socket, user: str) -> bool:
    """Take back what a user was given."""
    await server.user(user).revoke()
    return True
